package auth

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// How late a refusal may be made.
const (
	floorLeast = 100 * time.Millisecond // four slow hashes of ours, or a usual bcrypt
	floorMost  = 800 * time.Millisecond
	floorKept  = time.Hour              // without a refusal that needed it, after which a floor is lowered
	floorHeld  = 4096                   // refusals that wait for it at a time; one more goes out at once
	floorSoon  = 500 * time.Millisecond // before the context ends an answer goes out, so that it still arrives
)

// Floor keeps the time of a refusal from telling whether somebody goes by a login. A wrong password of an account with imported rows,
// or with rows of a pepper that is not ours, costs slow hashes; of an unknown login, or of a row that no tag led to, it costs none. So all refusals go out
// at multiples of one time after they arrived, which is longer than nearly all of those hashes took. They wait on a timer, after
// everything else is done and given back; what was accepted never waits, and nothing is computed for show.
//
// The time is learned: 100 ms, doubled while refusals with slow hashes take more than three quarters of it, up to 800 ms. So what is
// slower than ever before tells once. A floor that no refusal needed for an hour is halved.
//
// The zero Floor is ready to use, and holds until [Floor.Need] says that there is nothing to hide.
type Floor struct {
	idle atomic.Bool
	at   atomic.Int64 // the time; 0: floorLeast
	held atomic.Int64

	mu     sync.Mutex
	needed time.Time // when a refusal last needed it
}

// Need says whether the site has a row that a wrong password is compared with by a slow hash. Without one there is no difference to
// hide. It is to be said again every now and then: a refusal that took one makes it true.
func (f *Floor) Need(is bool) { f.idle.Store(!is) }

// Time is the multiple at which refusals go out; zero: when they are ready.
func (f *Floor) Time() time.Duration {
	if f == nil || f.idle.Load() {
		return 0
	}
	return max(floorLeast, time.Duration(f.at.Load()))
}

// learn takes note of how long a refusal with slow hashes took.
func (f *Floor) learn(took time.Duration, now time.Time) {
	f.idle.Store(false) // whatever was said last, which may be out of date
	want := floorLeast
	for want < floorMost && took > want*3/4 {
		want *= 2
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch have := max(floorLeast, time.Duration(f.at.Load())); {
	case want >= have:
		f.at.Store(int64(want))
		f.needed = now
	case now.Sub(f.needed) > floorKept:
		f.at.Store(int64(have / 2))
		f.needed = now
	}
}

// moment is when a refusal that took so long goes out, counted from its arrival. Zero is at once.
func (f *Floor) moment(took time.Duration) time.Duration {
	t := f.Time()
	if t == 0 {
		return 0
	}
	return (max(0, took-1)/t + 1) * t
}

// hold waits, and at most until the context ends, the front end stops, or too many wait already.
func (f *Floor) hold(ctx context.Context, req *Request, d time.Duration, now time.Time) {
	if end, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(end)-floorSoon)
	}
	if d <= 0 {
		return
	}
	if !reserve(&f.held, floorHeld) {
		return
	}
	defer f.held.Add(-1)
	if h := req.Holding; h != nil {
		// Counted apart from the penalties: who fills those up must not see the difference again.
		if !reserve(&h.floored, h.Limit) {
			return
		}
		defer h.floored.Add(-1)
	}
	if req.Pace != nil && !req.Pace.take(d, now) {
		return
	}
	req.Wait(ctx, d)
}

// Share of a connection's time that refusals may wait for the floor.
const (
	paceBurst = 500 * time.Millisecond
	paceShare = 10 // one part of so many
)

// Pace bounds for how long the refusals of one connection wait for the floor: half a second, and a tenth of the time that passes. A
// connection that serves one request after the other, for many users, would else be taken by whoever guesses through it. One that
// is made for a login or two does not notice. The zero Pace is ready to use, by one goroutine at a time.
type Pace struct {
	spent time.Duration // more than a tenth of the time since at would make good for
	at    time.Time
}

// take reports whether a refusal may wait, and takes note of it.
func (p *Pace) take(d time.Duration, now time.Time) bool {
	p.spent = max(0, p.spent-max(0, now.Sub(p.at))/paceShare)
	p.at = now
	if p.spent >= paceBurst {
		return false
	}
	p.spent += d
	return true
}

// Refused waits until a login may be answered that the front end refuses by itself, for a reason that has to do with who is there: as long
// as for one that [Authenticator.Authenticate] refuses at once. Nothing is counted or logged. Of req it needs what holding back is about.
func (a *Authenticator) Refused(ctx context.Context, req Request) {
	if f := a.cfg.Floor; f != nil {
		f.hold(ctx, &req, f.moment(0), a.cfg.Now())
	}
}

// once tells a holder once, whatever holds its answer back.
type once struct {
	holder Holder
	told   bool
}

func (o *once) Held() {
	if !o.told {
		o.told = true
		o.holder.Held()
	}
}

// holdBack waits until a refusal may go out: for what the throttle wants and for the floor, both counted from its arrival, so that neither
// adds up to what it hides.
func (a *Authenticator) holdBack(ctx context.Context, req *Request, v *verdict, penalty Penalty, start, now time.Time) {
	took := now.Sub(start)
	var floor time.Duration
	if f := a.cfg.Floor; f != nil {
		if v.hashed && v.decision.Reason == NoMatch {
			f.learn(took, now)
		}
		floor = f.moment(took)
	}
	if req.Holder != nil {
		req.Holder = &once{holder: req.Holder}
	}
	if penalty.Delay > took {
		a.cfg.Throttle.Hold(ctx, req, penalty.Delay-took)
	}
	if floor > 0 {
		now = a.cfg.Now()
		a.cfg.Floor.hold(ctx, req, floor-now.Sub(start), now)
	}
}
