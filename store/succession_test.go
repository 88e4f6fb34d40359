package store

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

// What goes wrong while an old secret is ended is not the end of the daemon, and is tried again; the old secret is refused meanwhile.
func TestSuccessionPanics(t *testing.T) {
	var log bytes.Buffer
	tries := make(chan int64, 2)
	first := true
	s := startSuccessions(func(_ context.Context, _, old int64) error {
		tries <- old
		if first {
			first = false
			panic("a fault of the driver")
		}
		return nil
	}, slog.New(slog.NewTextHandler(&log, nil)), 10)
	s.used(2, 1)
	for range 2 {
		if old := <-tries; old != 1 {
			t.Errorf("ended %d, want 1", old)
		}
		rows := []auth.Candidate{{ID: 1}, {ID: 2}}
		if s.mark(rows); !rows[0].Revoked || rows[1].Revoked {
			t.Errorf("rows are %+v, want the old one revoked and the other not", rows)
		}
	}
	if err := s.close(t.Context()); err != nil {
		t.Errorf("close = %v", err)
	}
	if !strings.Contains(log.String(), "panic") {
		t.Errorf("logged %q, want the panic", log.String())
	}
}
