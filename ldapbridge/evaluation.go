package ldapbridge

import (
	"context"
	"errors"
	"net"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Turns bound how many searches work at the same time on what takes long: a filter may have 512 parts, a group 20,000 members, and a
// reader may ask for every entry again and again. The rest of the processor is for those who log in. All listeners of a process should
// share one, since they share its cores.
type Turns struct{ places chan struct{} }

// NewTurns returns turns of n places; 0: as many as half the cores, one at least.
func NewTurns(n int) *Turns {
	if n <= 0 {
		n = max(1, runtime.GOMAXPROCS(0)/2)
	}
	return &Turns{make(chan struct{}, n)}
}

// What evaluation counts in steps: a value that is compared, a part of a filter. Most take less than 200 ns.
const (
	freeSteps      = 10_000 // that a search may take without a turn: nearly every login's search needs fewer
	turnSteps      = 10_000 // and before it gives the place to whoever waits
	entrySteps     = 64     // for reading an entry and sending it
	nameSteps      = 4      // for a value that is a name
	stepSelected   = 4      // names that were asked for, held against an attribute of the entry, that count as a step
	stepAttributes = 64     // of an entry, among which one is looked for, that count as a further step
	stepBytes      = 128    // of a value that count as a further step
)

var (
	// errNoTurn: too many searches that take long are under way.
	errNoTurn = errors.New("no turn to evaluate the filter")
	// errGone: nobody waits for the answer any more.
	errGone = errors.New("the client is gone")
)

// evaluation is what one operation does with filters and values. It holds a place only while it computes: never while it waits for the
// directory, or for a client that reads slowly.
type evaluation struct {
	l     *Limits
	turns *Turns          // nil: it needs no turn
	ctx   context.Context // of the operation
	raw   net.Conn        // of the client
	left  int             // steps until the next turn is needed
	holds bool
	err   error // errNoTurn, errTimeLimit or errGone; every outcome is Undefined from here on
}

func (c *conn) evaluation(ctx context.Context) evaluation {
	return evaluation{l: &c.srv.cfg.Limits, turns: c.srv.turns, ctx: ctx, raw: c.raw, left: freeSteps}
}

// step accounts for the work that comes next. It returns false when there is to be no more.
func (v *evaluation) step(n int) bool {
	if v.turns == nil {
		return true
	}
	if v.left -= n; v.left > 0 {
		return v.err == nil
	}
	return v.turn()
}

// turn lets others have theirs and waits for the next one. Who waits longest is first.
func (v *evaluation) turn() bool {
	v.rest()
	if v.err != nil {
		return false
	}
	if v.ctx.Err() != nil {
		v.err = errTimeLimit
		return false
	}
	ctx, cancel := context.WithTimeout(v.ctx, v.l.Decision)
	defer cancel()
	select {
	case v.turns.places <- struct{}{}:
		v.holds, v.left = true, turnSteps
		if hungUp(v.raw) {
			v.err = errGone
		}
		return v.err == nil
	case <-ctx.Done():
	}
	v.err = errNoTurn
	if v.ctx.Err() != nil {
		v.err = errTimeLimit
	}
	return false
}

// rest gives the place back, before anything that may take long without work. What is left of the steps is lost with it.
func (v *evaluation) rest() {
	if v.holds {
		<-v.turns.places
		v.holds, v.left = false, 0
	}
}

// value accounts for looking at a value.
func (v *evaluation) value(s string) bool { return v.step(1 + len(s)/stepBytes) }

// hungUp reports whether the client will send nothing more. Whoever waits for the answer of a search keeps its side of the connection
// open; slapd gives up such a search, too.
func hungUp(nc net.Conn) (hup bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	rc.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		hup = err == nil && n == 1
	})
	return hup
}
