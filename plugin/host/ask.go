package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/plugin"
)

// flight is one question under way, for all who want its answer.
type flight struct {
	done  chan struct{}
	entry *entry // read after done
	err   error
}

// Errors that the plugin has no part in.
var (
	errOpen   = errors.New("the last checks all failed, so this one was not tried")
	errClosed = errors.New("the plugin is being stopped")
)

// check answers by the cache, by the plugin or by the policy, in this order; fresh leaves out the cache.
func (h *Host) check(ctx context.Context, account int64, login string, fresh bool) (Result, error) {
	now := h.cfg.Now()
	h.answers.Lock()
	if account == 0 {
		h.unnumbered-- // so that no two of them are taken for one account
		account = h.unnumbered
	}
	known := h.cache.get(account)
	if known != nil && !fresh && known.fresh(now) {
		h.answers.Unlock()
		h.count.cached.Add(1)
		return known.result(FromCache), nil
	}
	f := h.flights[account]
	if f == nil {
		f = h.takeOff(account, login)
	}
	h.answers.Unlock()

	var err error
	select {
	case <-f.done:
		if f.err == nil {
			return f.entry.result(FromPlugin), nil
		}
		err = f.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	r, err := h.policy.Load().withoutPlugin(known, h.cfg.Now(), fmt.Errorf("asking for the second factor: %w", err))
	if err == nil {
		h.count.fallback.Add(1)
	}
	return r, err
}

// takeOff starts a question, or returns one that has failed already. h.answers is held.
func (h *Host) takeOff(account int64, login string) *flight {
	f := &flight{done: make(chan struct{})}
	switch {
	case h.ctx.Err() != nil:
		f.err = errClosed
	case len(h.flights) >= h.cfg.MaxWaiting:
		f.err = auth.ErrOverloaded
	case !h.breaker.pass():
		f.err = errOpen
	}
	if f.err != nil {
		h.count.failure(f.err)
		close(f.done)
		return f
	}
	h.flights[account] = f
	go func() {
		// Not the context of whoever asked first: the others still wait when that one is gone, and the answer is kept anyway.
		ctx, cancel := context.WithTimeout(h.ctx, h.cfg.Timeout)
		defer cancel()
		began := time.Now()
		answer, err := h.ask(ctx, plugin.Request{AccountID: max(account, 0), Login: login})
		h.count.checks.Add(1)
		h.count.nanos.Add(int64(time.Since(began)))
		if h.ctx.Err() == nil {
			h.breaker.note(err == nil)
		}
		h.answers.Lock()
		if err == nil {
			at := h.cfg.Now()
			f.entry = &entry{account: account, answer: answer, at: at, until: at.Add(validFor(answer))}
			if account > 0 {
				h.cache.put(f.entry)
			}
		} else {
			f.err = brief(err)
			h.count.failure(err)
		}
		delete(h.flights, account)
		h.answers.Unlock()
		close(f.done)
	}()
	return f
}

// ask puts the question to the plugin that runs, and once more to the next one if that ended meanwhile.
func (h *Host) ask(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	var last *instance
	for {
		i, err := h.running(ctx, last)
		if err != nil {
			return plugin.Answer{}, err
		}
		answer, err := i.check(ctx, r)
		if err == nil {
			return answer, nil
		}
		code := status.Code(err)
		if code == codes.Unavailable || errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded {
			select {
			case h.suspect <- i:
			default:
			}
		}
		if code != codes.Unavailable || last != nil {
			return plugin.Answer{}, err
		}
		last = i
	}
}

// check asks when there is a free slot.
func (i *instance) check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		return plugin.Answer{}, ctx.Err()
	}
	return i.rpc.Check(ctx, r)
}

// failureReason is a word that can be counted.
func failureReason(err error) string {
	var bad *plugin.BadAnswerError
	switch {
	case errors.Is(err, auth.ErrOverloaded):
		return "overloaded"
	case errors.Is(err, errOpen):
		return "breaker_open"
	case errors.Is(err, errClosed), errors.Is(err, context.Canceled):
		return "stopping"
	case errors.Is(err, errDown):
		return "down"
	case errors.As(err, &bad):
		return "bad_answer"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return "timeout"
	case codes.Unavailable, codes.Canceled:
		return "down"
	case codes.ResourceExhausted:
		return "too_large"
	}
	return "plugin_error"
}

// briefError has the text of an error cut to what a log can bear; a plugin may have written it.
type briefError struct {
	text string
	err  error
}

func (e *briefError) Error() string { return e.text }
func (e *briefError) Unwrap() error { return e.err }

func brief(err error) error {
	text := err.Error()
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		text = fmt.Sprintf("%s: %s", s.Code(), s.Message())
	}
	return &briefError{auth.Clip(strings.Join(strings.Fields(text), " "), 400), err} // on one line: people read it, too
}
