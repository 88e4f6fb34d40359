package auth

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"
)

// Throttle slows down guessing. It never locks an account, and it never turns a right password into a refusal. What it does with
// a request whose Holding is nil or whose address is not known is nothing: without the user's own address it would punish
// the server that asks. Its methods return at once, but for Hold, and are called from many goroutines.
type Throttle interface {
	// Admit is asked before the lookup. False means that too many guesses of this source wait for their answers: the login
	// is undecided then.
	Admit(req *Request, login string) bool
	// Accepted takes note of an accepted login.
	Accepted(req *Request, login string)
	// Rejected takes note of a rejection, with the password still in req if none matched.
	Rejected(req *Request, login string, reason Reason) Penalty
	// Hold waits for what is left of a penalty, and at most until the context ends, the front end stops, or too many wait already. What was decided stands.
	Hold(ctx context.Context, req *Request, d time.Duration)
}

// Penalty is what a rejection brings.
type Penalty struct {
	Counts bool          // it looks like guessing: the log line's count=
	Delay  time.Duration // after the arrival of the login, before which the answer does not go out
}

// Holding says how a listener holds back the answers of rejected logins. One value serves all requests of a listener.
type Holding struct {
	FailureDelay time.Duration   // the least; the throttle may want more
	Limit        int64           // answers that this listener holds back at a time; one more goes out at once
	Stopping     <-chan struct{} // closed: what is held back goes out at once; nil: never

	held    atomic.Int64
	floored atomic.Int64 // what waits for the [Floor], as many at most
}

// Take reserves a place among the answers held back; false means that there is none. [Holding.Leave] gives it back.
func (h *Holding) Take() bool { return reserve(&h.held, h.Limit) }

// Leave gives a place back.
func (h *Holding) Leave() { h.held.Add(-1) }

// Holder is told that the answer to its request is held back.
type Holder interface {
	// Held is called once, before the wait, from the goroutine that called [Authenticator.Authenticate]. The front end can let
	// another request go ahead meanwhile.
	Held()
}

// reserve counts one more, unless there are as many as may be.
func reserve(n *atomic.Int64, limit int64) bool {
	if n.Add(1) > limit {
		n.Add(-1)
		return false
	}
	return true
}

// Wait holds the answer back for d, or until the context ends or the front end stops, after it has told the request's Holder.
func (r *Request) Wait(ctx context.Context, d time.Duration) {
	if r.Holder != nil {
		r.Holder.Held()
	}
	var stopping <-chan struct{}
	if r.Holding != nil {
		stopping = r.Holding.Stopping
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-stopping:
	}
}

// ThrottleState is how the throttle sees a login from an address, or without one the worst addresses of a login.
type ThrottleState struct {
	Addr        netip.Addr    // zero: no address was given
	Source      netip.Prefix  // what the address counts as
	Exempt      bool          // loopback, or a network that the configuration trusts: nothing is counted
	KnownSource time.Time     // a login from the source was accepted then; zero: not lately
	KnownPair   time.Time     // the same of this login from there
	Guesses     int           // counted lately of the source
	PairGuesses int           // counted lately of this login from there
	Delay       time.Duration // for which the next refusal would be held back
	Waiting     int           // guesses of the source whose answers are held back or that are being decided
	Full        bool          // one more would be undecided

	Sources []ThrottleSource // of the login, the worst first, if no address was given
}

// ThrottleSource is where guesses at a login come from.
type ThrottleSource struct {
	Source  netip.Prefix
	Guesses int
	Delay   time.Duration
	Last    time.Time
}

// settle tells the throttle of a decision and returns what it brings.
func (a *Authenticator) settle(req *Request, v *verdict, err error) Penalty {
	reason := v.decision.Reason
	switch {
	case err != nil || reason == EmptyPassword:
		return Penalty{}
	case a.cfg.Throttle == nil || req.Holding == nil || !req.Addr.IsValid():
		return Penalty{Counts: !v.decision.OK && reason.Counts()}
	case v.decision.OK:
		a.cfg.Throttle.Accepted(req, v.login)
		return Penalty{}
	}
	return a.cfg.Throttle.Rejected(req, v.login, reason)
}
