package auth

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestAdmissionDefaults(t *testing.T) {
	a := NewAdmission(0, 0)
	if got, want := cap(a.running), runtime.GOMAXPROCS(0); got != want {
		t.Errorf("NewAdmission(0, 0) runs %d at once, want GOMAXPROCS = %d", got, want)
	}
	if a.limit != 2048 {
		t.Errorf("NewAdmission(0, 0) queues %d, want 2048", a.limit)
	}
}

func TestAdmissionNeverRunsMoreThanItMay(t *testing.T) {
	const limit, calls = 3, 300
	a := NewAdmission(limit, calls)
	var now, most, ran atomic.Int64
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			err := a.Do(t.Context(), func() {
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				runtime.Gosched()
				ran.Add(1)
				now.Add(-1)
			})
			if err != nil {
				t.Errorf("Do = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	if most.Load() > limit {
		t.Errorf("%d hashes ran at once, want at most %d", most.Load(), limit)
	}
	if ran.Load() != calls || a.Done() != calls || a.Waiting() != 0 {
		t.Errorf("ran %d, Done() = %d, Waiting() = %d, want %d, %d, 0", ran.Load(), a.Done(), a.Waiting(), calls, calls)
	}
}

// hold occupies a turn until the returned function is called.
func hold(t *testing.T, a *Admission) (release func()) {
	t.Helper()
	started, end := make(chan struct{}), make(chan struct{})
	go func() {
		if err := a.Do(context.Background(), func() { close(started); <-end }); err != nil {
			t.Errorf("Do = %v, want nil", err)
		}
	}()
	<-started
	return func() { close(end) }
}

func TestAdmissionServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAdmission(1, 100)
		release := hold(t, a)
		var order []int
		const n = 50
		for i := range n {
			go a.Do(t.Context(), func() { order = append(order, i) })
			synctest.Wait() // it waits behind the ones before
		}
		if a.Waiting() != n {
			t.Errorf("Waiting() = %d, want %d", a.Waiting(), n)
		}
		release()
		synctest.Wait()
		if !slices.IsSorted(order) || len(order) != n {
			t.Errorf("order = %v, want 0 to %d", order, n-1)
		}
		if a.Waiting() != 0 || a.Done() != n+1 {
			t.Errorf("Waiting() = %d, Done() = %d, want 0, %d", a.Waiting(), a.Done(), n+1)
		}
	})
}

func TestAdmissionQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAdmission(2, 3)
		release1, release2 := hold(t, a), hold(t, a)
		var ran atomic.Int64
		for range 3 {
			go func() {
				if err := a.Do(t.Context(), func() { ran.Add(1) }); err != nil {
					t.Errorf("Do in the queue = %v, want nil", err)
				}
			}()
		}
		synctest.Wait()
		for range 10 {
			if err := a.Do(t.Context(), func() { t.Error("a hash ran above the bound") }); !errors.Is(err, ErrOverloaded) {
				t.Errorf("Do with a full queue = %v, want ErrOverloaded", err)
			}
		}
		if a.Waiting() != 3 {
			t.Errorf("Waiting() = %d, want 3", a.Waiting())
		}
		release1()
		release2()
		synctest.Wait()
		if ran.Load() != 3 || a.Waiting() != 0 {
			t.Errorf("ran %d, Waiting() = %d, want 3, 0", ran.Load(), a.Waiting())
		}
		if err := a.Do(t.Context(), func() { ran.Add(1) }); err != nil || ran.Load() != 4 {
			t.Errorf("Do after the overload = %v, ran %d, want nil, 4", err, ran.Load())
		}
	})
}

func TestAdmissionContextEndsWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAdmission(1, 2)
		release := hold(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Do(ctx, func() { t.Error("a hash ran after its context ended") }) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Do = %v, want context.Canceled", err)
		}
		if a.Waiting() != 0 {
			t.Errorf("Waiting() = %d, want 0", a.Waiting())
		}
		release()
		synctest.Wait()
		ran := false
		if err := a.Do(t.Context(), func() { ran = true }); err != nil || !ran {
			t.Errorf("Do afterwards = %v, ran %v, want nil, true", err, ran)
		}
		if a.Done() != 2 {
			t.Errorf("Done() = %d, want 2", a.Done())
		}
	})
}

func TestAdmissionContextEndedBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := NewAdmission(1, 1)
	if err := a.Do(ctx, func() { t.Error("a hash ran after its context ended") }); !errors.Is(err, context.Canceled) {
		t.Errorf("Do = %v, want context.Canceled", err)
	}
	if a.Done() != 0 || a.Waiting() != 0 {
		t.Errorf("Done() = %d, Waiting() = %d, want 0, 0", a.Done(), a.Waiting())
	}
}

func TestAdmissionPanicFreesTheTurn(t *testing.T) {
	a := NewAdmission(1, 1)
	func() {
		defer func() {
			if r := recover(); r != "broken" {
				t.Errorf("recover() = %v, want the panic of the hash", r)
			}
		}()
		a.Do(t.Context(), func() { panic("broken") })
	}()
	select {
	case a.running <- struct{}{}:
	default:
		t.Errorf("a hash that panicked keeps its turn for ever, want it freed")
	}
}
