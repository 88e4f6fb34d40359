// Package throttle slows down who guesses passwords. It counts rejected logins by where they come from, classifies them
// (reference/security.md section 4.3), and says for how long the answer is to be held back.
//
// It refuses to know protocols and the database. Throttling is not what protects generated passwords, whose number is: it
// spares the machine load and the log noise. So it never locks an account, never delays or refuses a right password that it
// has looked at, and forgets everything with the process.
//
// The one rule a newcomer would break: nothing is counted without the user's own address. Counted against the address of
// a mail server or a web server, one guesser would be every user's trouble.
package throttle

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// steps are how long an answer is held back, by the number of guesses that were counted before it (Dovecot's, but for the first).
var steps = [...]time.Duration{0, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}

const (
	quiet    = 30 * time.Second // without a guess, after which one is forgotten
	maxScore = 8                // guesses that are remembered; all of them are forgotten in maxScore*quiet
	wide     = 8                // guesses of an IPv6 /48 that count as one of a /64

	sourceKnown = 7 * 24 * time.Hour  // since an accepted login from the source
	pairKnown   = 30 * 24 * time.Hour // the same of one login from there
	refresh     = time.Hour           // how often an accepted login is noted again

	parallel = 16          // guesses of one unknown source that may be under way
	leastRun = time.Second // for which one is taken to be under way
	capFrom  = 2           // guesses that were counted before any of that matters

	repeats = 10 // wrong passwords of a login from a source that are known again

	defaultEntries = 100_000
	defaultHeld    = 10_000
	soon           = 500 * time.Millisecond // before the context ends an answer goes out, so that it still arrives
)

// Config is what a [Throttle] is made of. The zero value has the defaults.
type Config struct {
	Trusted []netip.Prefix   // networks of which nothing is counted, beside loopback: gateways, web mail, monitoring
	Entries int              // sources and logins to remember, of guessers and of the others each; zero: 100,000
	Held    int64            // answers held back at a time; zero: 10,000
	Now     func() time.Time // nil: time.Now
}

// Throttle implements [auth.Throttle]. Make one with [New].
type Throttle struct {
	now     func() time.Time
	seed    maphash.Seed
	mac     []byte
	maxHeld int64

	trusted atomic.Pointer[[]netip.Prefix]
	guilty  table[guilt]
	known   table[int64] // when a login was accepted, in Unix seconds; a storm of guesses cannot push anything out of it

	held, counted, repeated, refused atomic.Int64
}

// New returns a Throttle that knows nobody yet.
func New(cfg Config) *Throttle {
	if cfg.Entries <= 0 {
		cfg.Entries = defaultEntries
	}
	if cfg.Held <= 0 {
		cfg.Held = defaultHeld
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &Throttle{now: cfg.Now, seed: maphash.MakeSeed(), mac: make([]byte, 32), maxHeld: cfg.Held}
	rand.Read(t.mac)
	t.guilty.init(cfg.Entries)
	t.known.init(cfg.Entries)
	t.Trust(cfg.Trusted)
	return t
}

// Trust replaces the trusted networks.
func (t *Throttle) Trust(networks []netip.Prefix) {
	networks = slices.Clone(networks)
	t.trusted.Store(&networks)
}

// exempt reports whether nothing is counted of this address.
func (t *Throttle) exempt(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	for _, p := range *t.trusted.Load() {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// ignores reports whether the throttle has nothing to do with the request.
func (t *Throttle) ignores(req *auth.Request) bool {
	return req.Holding == nil || !req.Addr.IsValid() || t.exempt(req.Addr)
}

// guilt is what was counted of a source, or of a login from there.
type guilt struct {
	score int              // guesses
	at    int64            // up to when score is right, Unix nanoseconds
	tries []uint64         // of a login: MACs of its last wrong passwords, oldest first
	runs  *[parallel]int64 // of a source: until when guesses are under way, Unix nanoseconds
}

// decayed returns the score now. One that is older than the process's clock, which may be set back, is as it was.
func (g guilt) decayed(now int64, unit int) int {
	return max(0, g.score-unit*int(max(0, now-g.at)/int64(quiet)))
}

// add counts a guess.
func (g *guilt) add(now int64, unit int) {
	g.score = min(g.decayed(now, unit)+1, maxScore*unit)
	g.at = now
}

func delay(score int) time.Duration { return steps[min(score, len(steps)-1)] }

// unit is how many guesses make one step for this key.
func unit(k key) int {
	if k.bits == 48 {
		return wide
	}
	return 1
}

// score is the number of guesses that were counted lately, in steps.
func (t *Throttle) score(k key, now int64) int {
	g := t.guilty.get(k)
	return g.decayed(now, unit(k)) / unit(k)
}

// since returns when a login was accepted, or zero if that is too long ago.
func (t *Throttle) since(k key, now time.Time, limit time.Duration) int64 {
	at := t.known.get(k)
	if at != 0 && now.Unix()-at >= int64(limit/time.Second) {
		return 0
	}
	return at
}

// sourceScore is that of the source, or of the network around it if that is worse.
func (t *Throttle) sourceScore(k keys, now int64) int {
	n := t.score(k.source, now)
	if k.wide.bits != 0 {
		n = max(n, t.score(k.wide, now))
	}
	return n
}

// Admit implements [auth.Throttle]. Only a source that has guessed lately and from which nobody was accepted for a week has a
// limit of guesses under way: without it many at a time would make the delays void. A guess counts as under way until its
// answer would have gone out, whether or not the client still waits for it.
func (t *Throttle) Admit(req *auth.Request, login string) bool {
	if t.ignores(req) {
		return true
	}
	k := t.keys(req.Addr, login)
	now := t.now()
	n := t.sourceScore(k, now.UnixNano())
	if n < capFrom || t.since(k.source, now, sourceKnown) != 0 || t.since(k.pair, now, pairKnown) != 0 {
		return true
	}
	admitted := false
	t.guilty.change(k.source, func(g *guilt) {
		if g.runs == nil {
			g.runs = new([parallel]int64)
		}
		for i := range g.runs {
			if g.runs[i] <= now.UnixNano() {
				g.runs[i] = now.Add(max(leastRun, delay(n))).UnixNano()
				admitted = true
				return
			}
		}
	})
	if !admitted {
		t.refused.Add(1)
	}
	return admitted
}

// Accepted implements [auth.Throttle]: the source and the login from there are known from now on, and what the user mistyped
// before is forgotten.
func (t *Throttle) Accepted(req *auth.Request, login string) {
	if t.ignores(req) {
		return
	}
	k := t.keys(req.Addr, login)
	now := t.now().Unix()
	t.note(k.source, now)
	t.note(k.pair, now)
	if t.guilty.get(k.pair).score > 0 {
		// Its wrong passwords are still known: another device of the user may have one of them, and tries on.
		t.guilty.change(k.pair, func(g *guilt) { g.score = 0 })
	}
}

func (t *Throttle) note(k key, now int64) {
	if at := t.known.get(k); now-at >= int64(refresh/time.Second) || now < at {
		t.known.change(k, func(at *int64) { *at = now })
	}
}

// Rejected implements [auth.Throttle]. Every rejection is held back for as long as the guesses before it ask for, also the
// ones that do not count: otherwise the time of the answer would tell a revoked password from a wrong one.
func (t *Throttle) Rejected(req *auth.Request, login string, reason auth.Reason) auth.Penalty {
	p := auth.Penalty{Counts: reason.Counts()}
	if req.Holding == nil || !req.Addr.IsValid() {
		return p
	}
	k := t.keys(req.Addr, login)
	now := t.now()
	if p.Counts {
		p.Counts = !t.repeats(k, now.UnixNano(), req.Password)
	}
	if !p.Counts && reason.Counts() {
		t.repeated.Add(1)
	}
	if t.exempt(req.Addr) {
		return p
	}
	n := t.score(k.pair, now.UnixNano())
	if t.since(k.pair, now, pairKnown) == 0 { // else the others of the office are not this one's trouble
		n = max(n, t.sourceScore(k, now.UnixNano()))
	}
	p.Delay = max(req.Holding.FailureDelay, delay(n))
	if p.Counts {
		t.counted.Add(1)
		// All reasons alike: a login that nobody has must not cost more, or the next answer's delay would tell that nobody has it.
		for _, key := range []key{k.source, k.pair, k.wide} {
			if key.bits != 0 {
				t.guilty.change(key, func(g *guilt) { g.add(now.UnixNano(), unit(key)) })
			}
		}
	}
	return p
}

// repeats reports whether this password was one of the last wrong ones of the login from this source, and remembers it: a
// device with an old password tries for ever, and is no guesser.
func (t *Throttle) repeats(k keys, now int64, password string) (known bool) {
	m := hmac.New(sha256.New, t.mac)
	var pair [24]byte
	binary.BigEndian.PutUint64(pair[0:], k.pair.hi)
	binary.BigEndian.PutUint64(pair[8:], k.pair.lo)
	binary.BigEndian.PutUint64(pair[16:], k.pair.user)
	m.Write(pair[:])
	m.Write([]byte(password))
	sum := binary.BigEndian.Uint64(m.Sum(nil))
	t.guilty.change(k.pair, func(g *guilt) {
		if i := slices.Index(g.tries, sum); i >= 0 {
			g.tries = append(slices.Delete(g.tries, i, i+1), sum)
			known = true
			return
		}
		if len(g.tries) >= repeats {
			g.tries = slices.Delete(g.tries, 0, 1)
		}
		g.tries = append(g.tries, sum)
		if g.at == 0 {
			g.at = now
		}
	})
	return known
}

// Hold implements [auth.Throttle]. It is a timer and a goroutine, nothing else. Beyond the bounds it returns at once: a storm of
// guesses must not use up what others need.
func (t *Throttle) Hold(ctx context.Context, req *auth.Request, d time.Duration) {
	h := req.Holding
	if h == nil || d <= 0 {
		return
	}
	if end, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(end)-soon)
		if d <= 0 {
			return
		}
	}
	if t.held.Add(1) > t.maxHeld {
		t.held.Add(-1)
		return
	}
	defer t.held.Add(-1)
	if !h.Take() {
		return
	}
	defer h.Leave()
	req.Wait(ctx, d)
}

// Stats count since the start, except Held and Entries.
type Stats struct {
	Held     int64 // answers held back now
	Counted  int64 // guesses
	Repeated int64 // the same wrong password again, which does not count
	Refused  int64 // not looked at, because too many of one source were under way
	Entries  int   // sources and logins remembered
}

// Stats returns the counters.
func (t *Throttle) Stats() Stats {
	return Stats{t.held.Load(), t.counted.Load(), t.repeated.Load(), t.refused.Load(), t.guilty.len() + t.known.len()}
}

// maxSources bounds what [Throttle.State] tells of a login.
const maxSources = 5

// State says how the throttle sees this login from this address, or, without one, from where it is guessed at. login is
// normalised.
func (t *Throttle) State(login string, addr netip.Addr) auth.ThrottleState {
	now := t.now()
	s := auth.ThrottleState{Addr: addr.Unmap().WithZone("")}
	if !s.Addr.IsValid() {
		user := t.user(login)
		t.guilty.each(func(k key, g *guilt) {
			if n := g.decayed(now.UnixNano(), 1); k.user == user && n > 0 {
				s.Sources = append(s.Sources, auth.ThrottleSource{Source: k.prefix(), Guesses: n, Delay: delay(n), Last: time.Unix(0, g.at)})
			}
		})
		slices.SortFunc(s.Sources, func(a, b auth.ThrottleSource) int {
			if a.Guesses != b.Guesses {
				return b.Guesses - a.Guesses
			}
			return a.Source.Addr().Compare(b.Source.Addr())
		})
		s.Sources = s.Sources[:min(len(s.Sources), maxSources)]
		return s
	}
	k := t.keys(s.Addr, login)
	s.Source = k.source.prefix()
	if s.Exempt = t.exempt(s.Addr); s.Exempt {
		return s
	}
	if at := t.since(k.source, now, sourceKnown); at != 0 {
		s.KnownSource = time.Unix(at, 0)
	}
	if at := t.since(k.pair, now, pairKnown); at != 0 {
		s.KnownPair = time.Unix(at, 0)
	}
	s.Guesses, s.PairGuesses = t.sourceScore(k, now.UnixNano()), t.score(k.pair, now.UnixNano())
	s.Delay = delay(s.PairGuesses)
	if s.KnownPair.IsZero() {
		s.Delay = max(s.Delay, delay(s.Guesses))
	}
	t.guilty.view(k.source, func(g *guilt) {
		if g.runs == nil {
			return
		}
		for _, until := range g.runs {
			if until > now.UnixNano() {
				s.Waiting++
			}
		}
	})
	s.Full = s.Waiting == parallel && s.Guesses >= capFrom && s.KnownSource.IsZero() && s.KnownPair.IsZero()
	return s
}
