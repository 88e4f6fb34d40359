package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"log/slog"

	"github.com/valetkey/valetkey/internal/auth"
)

func someEvents(n int64) (all []auth.Event) {
	for i := range n {
		all = append(all, auth.Event{ID: i + 1, At: now, Kind: fmt.Sprintf("kind.%d", i%2), Actor: "root", Login: "alice", Detail: []byte(`{"a":1}`)})
	}
	return all
}

func ids(e Events) (all []int64) {
	for _, x := range e.Events {
		all = append(all, x.ID)
	}
	return all
}

func TestEvents(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.store.history.events = someEvents(10)
	three := int64(3)
	for _, tt := range []struct {
		name  string
		q     EventQuery
		want  string
		after int64
	}{
		{"the newest", EventQuery{Limit: 3}, "[8 9 10]", 10},
		{"before them", EventQuery{Limit: 3, Before: 8}, "[5 6 7]", 7},
		{"of a kind", EventQuery{Limit: 2, Kind: "kind.0"}, "[7 9]", 9},
		{"after one", EventQuery{Limit: 2, After: &three}, "[4 5]", 5},
		{"all", EventQuery{}, "[1 2 3 4 5 6 7 8 9 10]", 10},
		{"to follow", EventQuery{Limit: 2, Settled: true}, "[9 10]", 10},
		{"to follow, of a kind that is not there", EventQuery{Limit: 2, Kind: "none", Settled: true}, "[]", 10},
	} {
		got, err := r.client.Events(ctx, tt.q, 0)
		if err != nil || fmt.Sprint(ids(got)) != tt.want || got.After != tt.after {
			t.Errorf("%s: %v, after %d, %v, want %s, %d", tt.name, ids(got), got.After, err, tt.want, tt.after)
		}
	}
	r.store.history.last = 8
	if got, err := r.client.Events(ctx, EventQuery{Limit: 2, Settled: true}, 0); err != nil || fmt.Sprint(ids(got)) != "[7 8]" || got.After != 8 {
		t.Errorf("while an earlier one may come: %v, after %d, %v", ids(got), got.After, err)
	}
	since := now.Add(-time.Hour)
	if _, err := r.client.Events(ctx, EventQuery{Login: "ALICE", Since: since}, 0); err != nil {
		t.Error(err)
	}
	if f := r.store.history.asked[len(r.store.history.asked)-1]; f.Login != "alice" || !f.Since.Equal(since) || f.Limit != 500 {
		t.Errorf("the store was asked for %+v", f)
	}
}

func TestEventsRefused(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	for _, tt := range []struct{ query, want string }{
		{"login=two+words", "400 bad_login"},
		{"kind=Drop+Table", "400 bad_kind"},
		{"limit=-1", "400 bad_request"},
		{"limit=x", "400 bad_request"},
		{"after=1&before=2", "400 bad_request"},
		{"after=", "400 bad_request"},
		{"since=yesterday", "400 bad_request"},
		{"wait=-5", "400 bad_request"},
	} {
		v, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.client.call(ctx, "GET", "/v1/events", v, nil, &Events{}); code(err) != tt.want {
			t.Errorf("GET /v1/events?%s = %v, want %s", tt.query, err, tt.want)
		}
	}
	r.store.err = errors.New("down")
	if _, err := r.client.Events(ctx, EventQuery{}, 0); code(err) != "503 unavailable" {
		t.Errorf("with the database down: %v", err)
	}
}

// A call that waits is answered when something happens, and at once when the daemon stops.
func TestEventsWait(t *testing.T) {
	r := newRig(t)
	after := int64(0)
	got := make(chan Events)
	go func() {
		e, err := r.client.Events(t.Context(), EventQuery{After: &after}, 25*time.Second)
		if err != nil {
			t.Error(err)
		}
		got <- e
	}()
	waitFor(t, "the first look", func() bool { defer r.store.enter("")(); return len(r.store.history.asked) > 0 })
	r.store.mu.Lock()
	r.store.history.events = someEvents(1)
	r.store.mu.Unlock()
	if e := <-got; fmt.Sprint(ids(e)) != "[1]" {
		t.Errorf("got %v, want the event", ids(e))
	}
}

func TestEventsWaitEndsWithTheDaemon(t *testing.T) {
	store := &memory{}
	s := NewServer(func() *Service { return &Service{Store: store} }, nil, slog.New(slog.DiscardHandler))
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	after := int64(0)
	done := make(chan error)
	for range maxFollowers {
		go func() {
			_, err := NewClient(socket).Events(t.Context(), EventQuery{After: &after}, 30*time.Second)
			done <- err
		}()
	}
	waitFor(t, "all to wait", func() bool { return s.followers.Load() == maxFollowers })
	// One more would have to wait, and is answered.
	if _, err := NewClient(socket).Events(t.Context(), EventQuery{After: &after}, 30*time.Second); err != nil {
		t.Error(err)
	}
	begun := time.Now()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for range maxFollowers {
		if err := <-done; err != nil {
			t.Errorf("a follower was told %v", err)
		}
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("the daemon stopped after %v", took)
	}
	if n := s.followers.Load(); n != 0 {
		t.Errorf("%d followers are left", n)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 seconds: %s", what)
		}
	}
}

// The answer as a program reads it.
func TestEventJSON(t *testing.T) {
	r := newRig(t)
	r.store.history.events = someEvents(1)
	e, err := r.service.Events(context.Background(), EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(e)
	want := `{"events":[{"id":1,"at":"2026-11-22T12:00:00Z","kind":"kind.0","actor":"root","login":"alice","detail":{"a":1}}],"after":1}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
}
