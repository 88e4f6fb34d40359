package auth

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
)

// defaultHashQueue is how many logins may wait for a slow hash. After a restart every device logs in with a cold memo: a
// thousand of them are served in about 12 s on two cores, so the queue holds them all.
const defaultHashQueue = 2048

// Admission lets as many slow hashes run at once as there are cores. More would only cost memory and time: 32 at once were
// five times slower than two, with twelve times the memory (reference/security.md section 1.3). Waiting is first come, first
// served, and bounded.
type Admission struct {
	running chan struct{}
	waiting atomic.Int64
	limit   int64
	done    atomic.Int64
}

// NewAdmission returns an admission for that many hashes at once and in the queue; zero means GOMAXPROCS and 2048.
func NewAdmission(running, queue int) *Admission {
	if running <= 0 {
		running = runtime.GOMAXPROCS(0)
	}
	if queue <= 0 {
		queue = defaultHashQueue
	}
	return &Admission{running: make(chan struct{}, running), limit: int64(queue)}
}

// Do runs hash when its turn comes. It returns [ErrOverloaded] at once if the queue is full, and the context's error if it
// ends before the turn; hash did not run then.
func (a *Admission) Do(ctx context.Context, hash func()) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("waiting to verify a hash: %w", err)
	}
	select {
	case a.running <- struct{}{}:
	default:
		if a.waiting.Add(1) > a.limit {
			a.waiting.Add(-1)
			return fmt.Errorf("waiting to verify a hash: %w", ErrOverloaded)
		}
		select { // senders blocked on a channel are served in order
		case a.running <- struct{}{}:
			a.waiting.Add(-1)
		case <-ctx.Done():
			a.waiting.Add(-1)
			return fmt.Errorf("waiting to verify a hash: %w", ctx.Err())
		}
	}
	defer func() { <-a.running }()
	a.done.Add(1)
	hash()
	return nil
}

// Done is how many hashes ran, Waiting how many are in the queue.
func (a *Admission) Done() int64    { return a.done.Load() }
func (a *Admission) Waiting() int64 { return a.waiting.Load() }
