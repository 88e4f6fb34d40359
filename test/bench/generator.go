package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// target is a server as the generator sees it.
type target interface {
	// dial opens a connection and does what comes before the first login.
	dial() (session, error)
}

// session is one connection with one login in flight. It is used by one goroutine, except close.
type session interface {
	// login tries the credential with this number. False is "rejected"; all else but "accepted" is an error.
	login(credential int) (bool, error)
	// close makes a login that is under way fail.
	close() error
}

// load is what the generator does to a target in one cell of the table.
type load struct {
	connections int
	credentials int // number of them; every connection cycles over all, each from another start
	warmUp      time.Duration
	measure     time.Duration
	grace       time.Duration // after which a login without an answer ends the run
}

// result is what came of a load.
type result struct {
	logins    int
	elapsed   time.Duration
	latencies latencies // sorted
}

// perSecond is the rate of logins.
func (r result) perSecond() float64 { return float64(r.logins) / r.elapsed.Seconds() }

var (
	errRejected = errors.New("a right password was rejected")
	errAccepted = errors.New("a wrong password was accepted")
	errNoAnswer = errors.New("no answer in time")
)

// generate applies a load. begin and end are called at the start and at the end of the measured time. The first answer
// that is not "accepted" ends the run with an error.
func generate(ctx context.Context, t target, l load, begin, end func()) (result, error) {
	stop := l.warmUp + l.measure
	ctx, cancel := context.WithTimeoutCause(ctx, stop+l.grace, errNoAnswer)
	defer cancel()
	parts := make([]latencies, l.connections)
	var start time.Time
	err := overConnections(ctx, t, l.connections, func() { start = time.Now() }, func(c int, s session) error {
		recorded := make(latencies, 0, 1<<16)
		defer func() { parts[c] = recorded }()
		i := c * l.credentials / l.connections
		asked := time.Since(start)
		for {
			ok, err := s.login(i)
			if err == nil && !ok {
				err = errRejected
			}
			if err != nil {
				return fmt.Errorf("credential %d: %w", i, err)
			}
			answered := time.Since(start)
			if answered > stop {
				return nil
			}
			if asked >= l.warmUp {
				recorded = append(recorded, uint32((answered-asked)/time.Microsecond))
			}
			// The next request follows at once, so one reading of the clock serves both.
			asked = answered
			if i++; i == l.credentials {
				i = 0
			}
		}
	}, func(ctx context.Context) {
		sleepUntil(ctx, start.Add(l.warmUp))
		begin()
		sleepUntil(ctx, start.Add(stop))
		end()
	})
	if err != nil {
		return result{}, err
	}
	all := merged(parts)
	return result{logins: len(all), elapsed: l.measure, latencies: all}, nil
}

// once tries each credential one time and returns how many were accepted. progress is called as by watch.
func once(ctx context.Context, t target, credentials, connections int, progress func(done int)) (accepted int, err error) {
	var next, done, oks atomic.Int64
	err = overConnections(ctx, t, connections, func() {}, func(_ int, s session) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= credentials {
				return nil
			}
			ok, err := s.login(i)
			if err != nil {
				return fmt.Errorf("credential %d: %w", i, err)
			}
			if ok {
				oks.Add(1)
			}
			done.Add(1)
		}
	}, func(ctx context.Context) { watch(ctx, &done, credentials, progress) })
	return int(oks.Load()), err
}

// prove fails unless the target accepts the credential 0 and rejects the credential 1, those of rightAndWrong.
func prove(t target) error {
	s, err := t.dial()
	if err != nil {
		return err
	}
	defer s.close()
	if ok, err := s.login(0); err != nil {
		return err
	} else if !ok {
		return errRejected
	}
	if ok, err := s.login(1); err != nil {
		return err
	} else if ok {
		return errAccepted
	}
	return nil
}

// logInAll logs every credential in once, which fills the cache of a server that has one.
func logInAll(ctx context.Context, p *process, t target, logins int) error {
	accepted, err := once(ctx, t, logins, 8, func(done int) { progress("%s: %d of %d first logins", p.name, done, logins) })
	if err == nil && accepted != logins {
		err = fmt.Errorf("%w: %d of %d", errRejected, logins-accepted, logins)
	}
	if err != nil {
		return fmt.Errorf("first logins: %w", p.explain(ctx, err))
	}
	return nil
}

// overConnections opens this many connections, calls ready, runs work once for each of them in a goroutine of its own
// and meanwhile in the caller's, and returns when all have. The first error of work, or the cause that ends ctx, closes
// all connections, which ends the rest of the work, and is returned.
func overConnections(ctx context.Context, t target, n int, ready func(), work func(c int, s session) error, meanwhile func(context.Context)) error {
	var sessions []session
	closeAll := func() {
		for _, s := range sessions {
			s.close()
		}
	}
	for len(sessions) < n {
		s, err := t.dial()
		if err != nil {
			closeAll()
			return fmt.Errorf("open connection %d of %d: %w", len(sessions)+1, n, err)
		}
		sessions = append(sessions, s)
	}
	defer closeAll()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, closeAll)()

	var wg sync.WaitGroup
	ready()
	for c, s := range sessions {
		wg.Go(func() {
			if err := work(c, s); err != nil {
				cancel(fmt.Errorf("connection %d of %d: %w", c+1, n, err))
			}
		})
	}
	meanwhile(ctx)
	wg.Wait()
	return context.Cause(ctx)
}

// progressEvery is how often a person who waits is told.
const progressEvery = 5 * time.Second

// watch calls progress with the number done, every progressEvery and at the end, until it is total or ctx ends.
func watch(ctx context.Context, done *atomic.Int64, total int, progress func(done int)) {
	told := time.Now()
	for int(done.Load()) < total && ctx.Err() == nil {
		sleepUntil(ctx, time.Now().Add(20*time.Millisecond))
		if time.Since(told) >= progressEvery {
			told = time.Now()
			progress(int(done.Load()))
		}
	}
	progress(int(done.Load()))
}

func sleepUntil(ctx context.Context, t time.Time) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(t)):
	}
}
