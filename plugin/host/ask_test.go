package host

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// No more questions than allowed are with the plugin at once, and no more than allowed wait.
func TestBoundedConcurrency(t *testing.T) {
	r := newRig(t, "", func(c *Config) { c.MaxParallel, c.MaxWaiting, c.Timeout = 2, 6, 10*time.Second })
	r.up(t)
	began := time.Now()
	var wg sync.WaitGroup
	for id := range int64(6) {
		wg.Go(func() {
			if ok, _, err := r.Enrolled(t.Context(), id, "waits", nil); !ok || err != nil {
				t.Errorf("Enrolled(%d) = %v, %v", id, ok, err)
			}
		})
	}
	eventually(t, "two of six are with the plugin", func() bool { return r.Stats().Waiting == 6 && r.calls() >= 2 })
	if ok, _, err := r.Enrolled(t.Context(), 100, "alice", nil); ok || !errors.Is(err, auth.ErrOverloaded) {
		t.Errorf("Enrolled of one too many = %v, %v, want %v", ok, err, auth.ErrOverloaded)
	}
	wg.Wait()
	if took := time.Since(began); took < 600*time.Millisecond {
		t.Errorf("six questions of 200 ms, two at once, took %v", took)
	}
	if s := r.Stats(); s.Waiting != 0 || s.Errors["overloaded"] != 1 || s.Checks != 6 {
		t.Errorf("Stats = %+v", s)
	}
}

// A plugin whose source is away is left alone for a while, and found again by one question.
func TestBreakerAroundThePlugin(t *testing.T) {
	r := newRig(t, "", nil)
	pid := r.up(t).PID
	for id := range int64(10) {
		if ok, _, err := r.Enrolled(t.Context(), id, "fails", nil); ok || err == nil {
			t.Errorf("Enrolled = %v, %v, want an error", ok, err)
		}
	}
	if n := r.calls(); n != breakAfter {
		t.Errorf("the plugin was asked %d times, want %d", n, breakAfter)
	}
	took := eventually(t, "the plugin is asked again", func() bool {
		ok, _, _ := r.Enrolled(t.Context(), 50, "alice", nil)
		return ok
	})
	if took > 2*time.Second {
		t.Errorf("healthy again after %v", took)
	}
	if s := r.Stats(); s.Open || s.PID != pid || s.Errors["breaker_open"] == 0 {
		t.Errorf("Stats = %+v, want it closed, and the same run", s)
	}
}

// The core's words for the log.
func TestFailureReason(t *testing.T) {
	for want, err := range map[string]error{
		"overloaded": auth.ErrOverloaded, "breaker_open": errOpen, "stopping": errClosed, "down": fmt.Errorf("%w: %w", errDown, errors.New("x")),
		"plugin_error": errors.New("x"),
	} {
		if got := failureReason(err); got != want {
			t.Errorf("failureReason(%v) = %q, want %q", err, got, want)
		}
	}
}
