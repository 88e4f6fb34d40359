package host

import (
	"container/list"
	"time"

	"github.com/valetkey/valetkey/plugin"
)

// How long an answer holds: by default, and at most, when it allows and when it refuses; and at least.
const (
	allowDefault, allowMax   = time.Minute, 15 * time.Minute
	refuseDefault, refuseMax = 10 * time.Second, 30 * time.Second
	validMin                 = time.Second
)

// validFor puts what the plugin wishes within the limits.
func validFor(a plugin.Answer) time.Duration {
	usual, most := allowDefault, allowMax
	if !a.Status.Allows() {
		usual, most = refuseDefault, refuseMax
	}
	if a.ValidFor == 0 {
		return usual
	}
	return min(max(a.ValidFor, validMin), most)
}

// entry is an answer and its age. It is never changed.
type entry struct {
	account   int64
	answer    plugin.Answer
	at, until time.Time
}

// fresh reports whether the answer still holds. A clock that went back ends it, too.
func (e *entry) fresh(now time.Time) bool { return now.Before(e.until) && !now.Before(e.at) }

func (e *entry) result(from Source) Result {
	return Result{Allowed: e.answer.Status.Allows(), Source: from, Answer: e.answer, At: e.at, Until: e.until}
}

// cache holds the last answer for each account, up to size accounts; the one that was not looked up for longest goes first. It is
// not safe for concurrent use.
type cache struct {
	size    int
	entries map[int64]*list.Element // of *entry
	recent  *list.List              // front: most recent
}

func newCache(size int) *cache {
	return &cache{size: size, entries: make(map[int64]*list.Element), recent: list.New()}
}

// get returns nil if nothing was ever said.
func (c *cache) get(account int64) *entry {
	e := c.entries[account]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*entry)
}

func (c *cache) put(e *entry) {
	if old := c.entries[e.account]; old != nil {
		old.Value = e
		c.recent.MoveToFront(old)
		return
	}
	if len(c.entries) >= c.size {
		oldest := c.recent.Back()
		delete(c.entries, oldest.Value.(*entry).account)
		c.recent.Remove(oldest)
	}
	c.entries[e.account] = c.recent.PushFront(e)
}

func (c *cache) forget(account int64) {
	if e := c.entries[account]; e != nil {
		delete(c.entries, account)
		c.recent.Remove(e)
	}
}
