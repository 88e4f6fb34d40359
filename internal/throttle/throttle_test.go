package throttle

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

func ask(addr, password string) *auth.Request {
	r := &auth.Request{Password: password, Holding: &auth.Holding{Limit: 100}}
	if addr != "" {
		r.Addr = netip.MustParseAddr(addr)
	}
	return r
}

// clock is set by the test.
type clock struct{ atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.Store(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}
func (c *clock) now() time.Time      { return time.Unix(0, c.Load()) }
func (c *clock) add(d time.Duration) { c.Int64.Add(int64(d)) }

// TestClasses are the classes of reference/security.md section 4.3, one try after the other.
func TestClasses(t *testing.T) {
	type try struct {
		after    time.Duration
		addr     string
		login    string
		password string
		reason   auth.Reason // Accepted: a success
		counts   bool
		delay    time.Duration
	}
	const a, b = "192.0.2.7", "192.0.2.8"
	s := time.Second
	for _, tt := range []struct {
		name  string
		tries []try
	}{
		{"A: guesses", []try{
			{0, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "x", "2", auth.NoMatch, true, 2 * s}, {0, a, "x", "3", auth.NoMatch, true, 4 * s},
			{0, a, "x", "4", auth.NoMatch, true, 8 * s}, {0, a, "x", "5", auth.NoMatch, true, 15 * s}, {0, a, "x", "6", auth.NoMatch, true, 15 * s},
			{0, b, "x", "6", auth.NoMatch, true, 0},
		}},
		{"A: at other logins from the same source", []try{{0, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "y", "1", auth.NoMatch, true, 2 * s}}},
		// Not twice: how long the next guess waits would tell whether the login of this one exists.
		{"A': an unknown login counts like a known one", []try{{0, a, "x", "1", auth.UnknownLogin, true, 0}, {0, a, "y", "1", auth.UnknownLogin, true, 2 * s}}},
		{"B: of the wrong format, then as a repeat", []try{
			{0, a, "x", "main", auth.BadFormat, true, 0}, {0, a, "x", "main", auth.BadFormat, false, 2 * s}, {0, a, "x", "main", auth.BadFormat, false, 2 * s},
		}},
		{"C: known old", []try{{0, a, "x", "1", auth.Revoked, false, 0}, {0, a, "x", "1", auth.Expired, false, 0}, {0, a, "x", "2", auth.NoMatch, true, 0}}},
		{"C: is held back like a guess", []try{{0, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "x", "2", auth.Revoked, false, 2 * s}}},
		{"D: a repeat does not count", []try{
			{0, a, "x", "1", auth.NoMatch, true, 0}, {time.Minute, a, "x", "1", auth.NoMatch, false, 0}, {time.Minute, a, "x", "1", auth.NoMatch, false, 0},
		}},
		{"D: of another login it is a guess", []try{{0, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "y", "1", auth.NoMatch, true, 2 * s}}},
		{"D: from elsewhere it is a guess", []try{{0, a, "x", "1", auth.NoMatch, true, 0}, {0, b, "x", "1", auth.NoMatch, true, 0}}},
		{"D: one of the last ten", func() (all []try) {
			for i := range 11 { // minutes apart, so that nothing is left of the count
				all = append(all, try{5 * time.Minute, a, "x", fmt.Sprint(i), auth.NoMatch, true, 0})
			}
			return append(all, try{5 * time.Minute, a, "x", "1", auth.NoMatch, false, 0}, try{5 * time.Minute, a, "x", "0", auth.NoMatch, true, 0})
		}()},
		{"D: also after the user's other device was accepted", []try{
			{0, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "x", "", auth.Accepted, false, 0}, {0, a, "x", "1", auth.NoMatch, false, 0},
		}},
		{"E: right, not allowed", []try{
			{0, a, "x", "1", auth.ServiceNotAllowed, false, 0}, {0, a, "x", "1", auth.NetworkNotAllowed, false, 0}, {0, a, "x", "1", auth.NotEnrolled, false, 0},
			{0, a, "x", "1", auth.AccountDisabled, false, 0}, {0, a, "x", "1", auth.GroupNotAllowed, false, 0}, {0, a, "x", "1", auth.ReaderOnly, false, 0},
			{0, a, "x", "2", auth.NoMatch, true, 0},
		}},
		{"a quiet while forgets step by step", []try{
			{0, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "x", "2", auth.NoMatch, true, 2 * s}, {0, a, "x", "3", auth.NoMatch, true, 4 * s},
			{30 * s, a, "x", "4", auth.NoMatch, true, 4 * s}, {10 * time.Minute, a, "x", "5", auth.NoMatch, true, 0},
		}},
		{"an office: who is known there is not held back for the others", []try{
			{0, a, "good", "", auth.Accepted, false, 0}, {0, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "x", "2", auth.NoMatch, true, 2 * s},
			{0, a, "good", "typo", auth.NoMatch, true, 0}, {0, a, "good", "typo 2", auth.NoMatch, true, 2 * s},
			{0, a, "good", "", auth.Accepted, false, 0}, {0, a, "good", "typo 3", auth.NoMatch, true, 0},
		}},
		{"known for 30 days", []try{
			{0, a, "good", "", auth.Accepted, false, 0}, {29 * 24 * time.Hour, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "good", "t", auth.NoMatch, true, 0},
		}},
		{"and no longer", []try{
			{0, a, "good", "", auth.Accepted, false, 0}, {30 * 24 * time.Hour, a, "x", "1", auth.NoMatch, true, 0}, {0, a, "good", "t", auth.NoMatch, true, 2 * s},
		}},
		{"IPv6: a /64 is one source", []try{
			{0, "2001:db8::1", "x", "1", auth.NoMatch, true, 0}, {0, "2001:db8::2", "x", "2", auth.NoMatch, true, 2 * s}, {0, "2001:db8:0:1::1", "x", "3", auth.NoMatch, true, 0},
		}},
		{"IPv6: so is a /48, after eight times as much", func() (all []try) {
			for i := range 8 {
				all = append(all, try{0, fmt.Sprintf("2001:db8:0:%x::1", i), "x", "1", auth.NoMatch, true, 0})
			}
			return append(all, try{0, "2001:db8:0:ff::1", "x", "1", auth.NoMatch, true, 2 * s}, try{0, "2001:db8:1::1", "x", "1", auth.NoMatch, true, 0})
		}()},
		{"no address, no penalty", []try{{0, "", "x", "1", auth.NoMatch, true, 0}, {0, "", "x", "2", auth.NoMatch, true, 0}, {0, "", "x", "2", auth.NoMatch, true, 0}}},
		{"loopback", []try{{0, "127.0.0.9", "x", "1", auth.NoMatch, true, 0}, {0, "127.0.0.9", "x", "2", auth.NoMatch, true, 0}, {0, "::1", "x", "2", auth.NoMatch, true, 0}, {0, "::1", "x", "3", auth.NoMatch, true, 0}}},
		{"trusted", []try{{0, "198.51.100.1", "x", "1", auth.NoMatch, true, 0}, {0, "198.51.100.1", "x", "2", auth.NoMatch, true, 0}, {0, "198.51.100.1", "x", "2", auth.NoMatch, false, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClock()
			th := New(Config{Now: c.now, Trusted: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
			for i, x := range tt.tries {
				c.add(x.after)
				req := ask(x.addr, x.password)
				if x.reason == auth.Accepted {
					th.Accepted(req, x.login)
					continue
				}
				got := th.Rejected(req, x.login, x.reason)
				if want := (auth.Penalty{Counts: x.counts, Delay: x.delay}); got != want {
					t.Errorf("try %d, %s at %s from %s: %+v, want %+v", i+1, x.reason, x.login, x.addr, got, want)
				}
			}
		})
	}
}

// A listener's own delay is the least, and without a Holding a listener has nothing to do with the throttle.
func TestListener(t *testing.T) {
	th := New(Config{})
	req := ask("192.0.2.7", "1")
	req.Holding.FailureDelay = 3 * time.Second
	for i, want := range []time.Duration{3 * time.Second, 3 * time.Second, 4 * time.Second} {
		req.Password = fmt.Sprint(i)
		if got := th.Rejected(req, "x", auth.NoMatch); got.Delay != want {
			t.Errorf("refusal %d is held back for %v, want %v", i+1, got.Delay, want)
		}
	}
	off := &auth.Request{Addr: netip.MustParseAddr("192.0.2.7")}
	if got := th.Rejected(off, "x", auth.NoMatch); got != (auth.Penalty{Counts: true}) {
		t.Errorf("without a Holding: %+v, want no delay", got)
	}
	if !th.Admit(off, "x") {
		t.Error("without a Holding it is not admitted")
	}
}

// Parallel guesses do not get around the delays, whether or not the guesser waits for the answers; and nobody is kept out by them
// who was accepted from there.
func TestParallel(t *testing.T) {
	c := newClock()
	th := New(Config{Now: c.now})
	guess := func(i int) bool {
		req := ask("192.0.2.7", fmt.Sprint(i))
		if !th.Admit(req, "x") {
			return false
		}
		th.Rejected(req, "x", auth.NoMatch)
		return true
	}
	admitted := 0
	for i := range 1000 {
		if guess(i) {
			admitted++
		}
	}
	if admitted != capFrom+parallel {
		t.Errorf("%d of 1000 guesses at a time were looked at, want %d", admitted, capFrom+parallel)
	}
	if s := th.State("x", netip.MustParseAddr("192.0.2.7")); !s.Full || s.Waiting != parallel || s.Delay != 15*time.Second || s.Guesses != maxScore {
		t.Errorf("State = %+v, want it full", s)
	}
	if !th.Admit(ask("192.0.2.8", ""), "x") {
		t.Error("the login is not admitted from elsewhere")
	}
	c.add(15 * time.Second)
	if !guess(5000) {
		t.Error("after the delays nothing is admitted")
	}

	th = New(Config{Now: c.now})
	th.Accepted(ask("192.0.2.7", ""), "good")
	for i := range 1000 {
		if !guess(i) {
			t.Fatalf("guess %d was not looked at, although a user is known there", i+1)
		}
	}
}

// What a right password meets: nothing, whatever was counted.
func TestRightPasswordIsNeverHeldBack(t *testing.T) {
	c := newClock()
	th := New(Config{Now: c.now})
	for i := range 10 {
		c.add(20 * time.Second) // so that some place is free
		th.Admit(ask("192.0.2.7", ""), "alice")
		th.Rejected(ask("192.0.2.7", fmt.Sprint(i)), "alice", auth.NoMatch)
	}
	if !th.Admit(ask("192.0.2.7", ""), "alice") {
		t.Error("not admitted")
	}
	th.Accepted(ask("192.0.2.7", ""), "alice")
	if s := th.State("alice", netip.MustParseAddr("192.0.2.7")); s.PairGuesses != 0 || s.Delay != 0 {
		t.Errorf("State after the right password = %+v, want no delay", s)
	}
}

func TestHold(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(th *Throttle, req *auth.Request) (context.Context, context.CancelFunc)
		want time.Duration
	}{
		{"as long as it was told", func(*Throttle, *auth.Request) (context.Context, context.CancelFunc) {
			return context.WithCancel(context.Background())
		}, 8 * time.Second},
		{"in time for the peer", func(*Throttle, *auth.Request) (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 5*time.Second)
		}, 5*time.Second - soon},
		{"not if there is no time", func(*Throttle, *auth.Request) (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), soon)
		}, 0},
		{"until the client is gone", func(*Throttle, *auth.Request) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, time.Second},
		{"until the front end stops", func(_ *Throttle, req *auth.Request) (context.Context, context.CancelFunc) {
			stop := make(chan struct{})
			req.Holding.Stopping = stop
			time.AfterFunc(2*time.Second, func() { close(stop) })
			return context.WithCancel(context.Background())
		}, 2 * time.Second},
		{"not beyond the listener's bound", func(_ *Throttle, req *auth.Request) (context.Context, context.CancelFunc) {
			req.Holding.Limit = 0
			return context.WithCancel(context.Background())
		}, 0},
		{"not beyond the bound of all", func(th *Throttle, _ *auth.Request) (context.Context, context.CancelFunc) {
			th.maxHeld = 0
			return context.WithCancel(context.Background())
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := New(Config{})
				req := ask("192.0.2.7", "")
				ctx, cancel := tt.do(th, req)
				defer cancel()
				begun := time.Now()
				th.Hold(ctx, req, 8*time.Second)
				if took := time.Since(begun); took != tt.want {
					t.Errorf("held back for %v, want %v", took, tt.want)
				}
				if n := th.Stats().Held; n != 0 {
					t.Errorf("%d are held back afterwards", n)
				}
			})
		})
	}
}

// A storm from more sources than are remembered stays within the bound, and does not push out who is known.
func TestBounds(t *testing.T) {
	c := newClock()
	const entries = 3200
	th := New(Config{Now: c.now, Entries: entries})
	th.Accepted(ask("198.51.100.1", ""), "alice")
	for i := range 20 * entries {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		th.Rejected(ask(a, "x"), fmt.Sprint("login", i), auth.UnknownLogin)
	}
	if n := th.Stats().Entries; n > entries+2 {
		t.Errorf("%d entries, want at most %d", n, entries+2)
	}
	s := th.State("alice", netip.MustParseAddr("198.51.100.1"))
	if s.KnownPair.IsZero() || s.KnownSource.IsZero() {
		t.Errorf("State = %+v: the storm made it forget who is known", s)
	}
}

func TestState(t *testing.T) {
	c := newClock()
	th := New(Config{Now: c.now})
	for i := range 3 {
		th.Rejected(ask("192.0.2.7", fmt.Sprint(i)), "alice", auth.NoMatch)
	}
	th.Rejected(ask("2001:db8::7", "x"), "alice", auth.NoMatch)
	th.Rejected(ask("192.0.2.9", "x"), "bob", auth.NoMatch)
	s := th.State("alice", netip.Addr{})
	if len(s.Sources) != 2 || s.Sources[0].Source.String() != "192.0.2.7/32" || s.Sources[0].Guesses != 3 || s.Sources[1].Source.String() != "2001:db8::/64" {
		t.Errorf("Sources = %+v", s.Sources)
	}
	if s := th.State("alice", netip.MustParseAddr("::ffff:192.0.2.7")); s.Delay != 8*time.Second || s.Source.String() != "192.0.2.7/32" {
		t.Errorf("State = %+v", s)
	}
	if s := th.State("alice", netip.MustParseAddr("127.0.0.1")); !s.Exempt {
		t.Errorf("State = %+v, want it exempt", s)
	}
	c.add(time.Hour)
	if s := th.State("alice", netip.Addr{}); len(s.Sources) != 0 {
		t.Errorf("an hour later: %+v", s.Sources)
	}
}

func TestConcurrent(t *testing.T) {
	th := New(Config{Entries: 64})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				req := ask(fmt.Sprintf("192.0.2.%d", i%7), fmt.Sprint(i))
				login := fmt.Sprint(g % 3)
				if th.Admit(req, login) {
					th.Rejected(req, login, auth.NoMatch)
				}
				if i%5 == 0 {
					th.Accepted(req, login)
				}
				th.State(login, netip.Addr{})
				th.Trust(nil)
			}
		})
	}
	wg.Wait()
}

// A success costs next to nothing and allocates nothing.
func TestSuccessAllocatesNothing(t *testing.T) {
	th := New(Config{})
	req := ask("192.0.2.7", "")
	th.Accepted(req, "alice@example.org")
	if n := testing.AllocsPerRun(1000, func() {
		th.Admit(req, "alice@example.org")
		th.Accepted(req, "alice@example.org")
	}); n != 0 {
		t.Errorf("a success allocates %v times, want 0", n)
	}
}

func BenchmarkSuccess(b *testing.B) {
	for _, addr := range []string{"192.0.2.7", "2001:db8::7", "127.0.0.1"} {
		b.Run(addr, func(b *testing.B) {
			th := New(Config{})
			req := ask(addr, "")
			b.ReportAllocs()
			for b.Loop() {
				th.Admit(req, "alice@example.org")
				th.Accepted(req, "alice@example.org")
			}
		})
	}
}

func BenchmarkGuess(b *testing.B) {
	th := New(Config{})
	req := ask("192.0.2.7", "wrong")
	b.ReportAllocs()
	for b.Loop() {
		th.Rejected(req, "alice@example.org", auth.NoMatch)
	}
}
