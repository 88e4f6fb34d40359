package auth

import (
	"errors"
	"time"
)

// NoticeKind is something that happened and that somebody may want to be told of.
type NoticeKind string

// The kinds. The schema's trigger knows their names.
const (
	NoticeCreated         NoticeKind = "created"
	NoticeFirstUse        NoticeKind = "first_use"
	NoticeNewNetwork      NoticeKind = "new_network" // used from an IPv4 /24 or IPv6 /48 that it was not used from before
	NoticeRevoked         NoticeKind = "revoked"
	NoticeExpiresSoon     NoticeKind = "expires_soon"
	NoticeRevokedUse      NoticeKind = "revoked_use" // a device still sends a revoked one
	NoticeAccountDisabled NoticeKind = "account_disabled"
	NoticeAccountDeleted  NoticeKind = "account_deleted"
)

// NoticeKinds are all of them.
var NoticeKinds = []NoticeKind{NoticeCreated, NoticeFirstUse, NoticeNewNetwork, NoticeRevoked, NoticeExpiresSoon, NoticeRevokedUse,
	NoticeAccountDisabled, NoticeAccountDeleted}

// NoticeTarget is whom a daemon tells of what: "mail", or "hook:NAME".
type NoticeTarget struct {
	Name  string
	Kinds []NoticeKind
}

// NoticeSlots says how many notices a daemon can take for a target now.
type NoticeSlots struct {
	Target string
	Free   int
}

// Notice is one event that is to be told to one target, leased to this daemon. It holds neither secret nor hash.
type Notice struct {
	ID        int64
	Target    string
	Kind      NoticeKind
	Tries     int // with this one
	CreatedAt time.Time

	EventID int64 // 0: the event is gone from the audit log
	At      time.Time
	Actor   string
	Login   string // canonical, as it was then
	Label   string // empty: it is about the account
	Detail  map[string]any

	AccountID     int64
	AppPasswordID int64
	Account       *Account // as it is now, without groups; nil: deleted

	Problem string // why this try failed; set by who finishes or postpones it, at most MaxNoticeProblem bytes
}

// MaxNoticeProblem bounds [Notice.Problem], in bytes, before what marks that it was cut.
const MaxNoticeProblem = 500

// Test reports whether nothing has happened: an admin tries whether notices arrive. Such a one is tried once.
func (n *Notice) Test() bool {
	test, _ := n.Detail["test"].(bool)
	return test
}

// NoticeTest is a notice that an admin made to try a target, as it is now.
type NoticeTest struct {
	ID      int64
	Kind    NoticeKind
	Target  string
	Login   string // canonical
	Outcome string // empty: it waits, or is being told
	Problem string // why it failed
}

// ErrNoNotice means that there is no such test of a notice, or not any more.
var ErrNoNotice = errors.New("no such notice")

// NoticeQueue is how the outbox is.
type NoticeQueue struct {
	Waiting int       // not done yet, counted to 10,000
	Oldest  time.Time // zero: none waits
	Targets []string  // that some daemon has asked for
	// Outcomes counts those of the last 24 hours, by outcome.
	Outcomes map[string]int
}

// ErrLeaseLost means that a notice was done, or taken by somebody else, meanwhile.
var ErrLeaseLost = errors.New("the notice is not ours any more")
