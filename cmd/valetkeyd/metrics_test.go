package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Two servers that scrape at once are told the same, and a frozen database is asked once however many scrapes there are.
func TestPinging(t *testing.T) {
	for _, tc := range []struct {
		name string
		ask  func(context.Context) error
		want bool
		took time.Duration
	}{
		{"answers", func(context.Context) error { time.Sleep(10 * time.Millisecond); return nil }, true, 10 * time.Millisecond},
		{"refuses", func(context.Context) error { time.Sleep(time.Millisecond); return errors.New("no") }, false, time.Millisecond},
		{"frozen", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, false, pingTime},
		{"frozen, and the driver with it", func(context.Context) error { time.Sleep(10 * pingTime); return nil }, false, pingTime},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p pinging
				var asked atomic.Int64
				var all sync.WaitGroup
				begin := time.Now()
				for range 8 {
					all.Go(func() {
						if got := p.ok(t.Context(), func(ctx context.Context) error { asked.Add(1); return tc.ask(ctx) }); got != tc.want {
							t.Errorf("ok = %t, want %t", got, tc.want)
						}
					})
				}
				all.Wait()
				if took := time.Since(begin); took != tc.took || asked.Load() != 1 {
					t.Errorf("8 scrapes took %v and asked %d times, want %v and once", took, asked.Load(), tc.took)
				}
				// Once it is back the next one is told so.
				time.Sleep(20 * pingTime)
				if !p.ok(t.Context(), func(context.Context) error { return nil }) {
					t.Error("ok = false of a database that is back")
				}
			})
		})
	}
}
