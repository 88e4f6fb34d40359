package dovecot

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// decide hands r to a worker. It waits if as many decisions run as may, which leaves the peer's next lines in the
// socket.
func (c *conn) decide(r *request) {
	if c.ctx.Err() != nil {
		return // the connection is closing; what is left in the buffer is not to be tried any more
	}
	c.mu.Lock()
	c.running = append(c.running, r)
	c.mu.Unlock()
	select {
	case c.jobs <- r:
		return
	default:
	}
	if !c.started {
		c.started = true
		c.workers.Go(func() { c.work(r) })
		return
	}
	if c.takeExtra() {
		c.workers.Go(func() { c.workExtra(r) })
		return
	}
	c.mu.Lock()
	c.flush() // what is ready must not wait for the worker
	c.mu.Unlock()
	select {
	case c.jobs <- r:
	case <-c.ctx.Done():
	}
}

func (c *conn) takeExtra() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.extra+1 >= c.srv.cfg.MaxRunning {
		return false
	}
	if c.srv.extraRunning.Add(1) > maxExtraRunning {
		c.srv.extraRunning.Add(-1)
		return false
	}
	c.extra++
	return true
}

// worker makes decisions, one after the other.
type worker struct {
	c      *conn
	limits limits
	extra  bool // one of those that come and go
	gave   bool // its place, because an answer is held back: it ends after this one
}

// Held implements [auth.Holder]: an answer that is held back must not hold up the others of this connection, which may be those of
// other users. Another worker takes the place.
func (w *worker) Held() {
	w.gave = true
	if w.extra {
		w.c.giveExtra()
		return
	}
	w.c.workers.Go(func() { w.c.work(nil) })
}

// work is the lasting worker; its first request may be nil.
func (c *conn) work(r *request) {
	w := worker{c: c}
	defer w.limits.stop()
	defer c.recover()
	for ok := true; ok; r, ok = <-c.jobs {
		if r != nil {
			c.authenticate(r, &w)
		}
		if w.gave {
			return
		}
	}
}

// workExtra decides r, and goes on while there is more to do.
func (c *conn) workExtra(r *request) {
	w := worker{c: c, extra: true}
	defer func() {
		if !w.gave {
			c.giveExtra()
		}
	}()
	defer w.limits.stop()
	defer c.recover()
	for ok := true; ok; {
		c.authenticate(r, &w)
		if w.gave {
			return
		}
		select {
		case r, ok = <-c.jobs:
		default:
			return
		}
	}
}

// giveExtra gives back what takeExtra took.
func (c *conn) giveExtra() {
	c.mu.Lock()
	c.extra--
	c.mu.Unlock()
	c.srv.extraRunning.Add(-1)
}

func (c *conn) authenticate(r *request, w *worker) {
	timeout := c.srv.cfg.DecisionTimeout
	if r.noLogin {
		timeout = c.srv.cfg.DecisionTimeoutNoLogin
	}
	r.Holder = w
	d, err := c.srv.auth.Authenticate(w.limits.context(c.ctx, timeout), r.Request)
	c.answer(r, d, err)
}

// limits is the context of a worker's decisions. Making one for each costs a tenth of a login, so one serves all
// decisions that begin within a short time; the later ones have that much less.
type limits struct {
	ctx     context.Context
	cancel  context.CancelFunc
	timeout time.Duration
	made    time.Time
}

func (l *limits) context(parent context.Context, timeout time.Duration) context.Context {
	now := time.Now()
	if l.ctx == nil || l.timeout != timeout || now.Sub(l.made) > timeout/rearm {
		l.stop()
		l.ctx, l.cancel = context.WithTimeout(parent, timeout)
		l.timeout, l.made = timeout, now
	}
	return l.ctx
}

func (l *limits) stop() {
	if l.cancel != nil {
		l.cancel()
	}
}

// answer tells the peer the outcome, if it still wants to know.
func (c *conn) answer(r *request, d auth.Decision, err error) {
	if err == nil && d.OK && d.Login == "" {
		// Postfix and Exim take the name from here; an empty one would be somebody.
		c.log.Error("dovecot: accepted without a login, taken as undecided")
		err = errors.New("accepted without a login")
	}
	switch {
	case err != nil:
		c.srv.undecided.Add(1)
	case d.OK:
		c.srv.passed.Add(1)
	default:
		c.srv.rejected.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > maxUnsent && c.writing && !c.closing {
		c.unsent.Wait() // keeps the worker busy, and so in the end the peer from asking more
	}
	i := slices.Index(c.running, r)
	if i < 0 || c.closing {
		return
	}
	c.running = slices.Delete(c.running, i, i+1)
	switch {
	case err != nil && c.disconnects(r):
		c.hangUp()
		return
	case err != nil:
		c.out = appendFail(c.out, r.id, r.Login, "\tcode=temp_fail")
	case d.OK:
		c.out = appendReply(c.out, "OK", r.id)
		c.out = append(c.out, "\tuser="...) // first: Exim reads 16 fields only
		c.out = appendEscaped(c.out, d.Login)
		c.out = append(c.out, '\n')
	default:
		c.out = appendFail(c.out, r.id, r.Login, "")
	}
	c.flush()
}

// disconnects reports whether this peer takes a closed connection, and nothing else, for a temporary failure.
func (c *conn) disconnects(r *request) bool {
	switch c.srv.cfg.Tempfail {
	case TempfailDisconnect:
		return true
	case TempfailReply:
		return false
	}
	return r.noLogin
}
