package store_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

func kinds(all []auth.Event) string {
	var out []string
	for _, e := range all {
		out = append(out, strings.TrimSpace(e.Kind+" "+e.Login+" "+e.Label))
	}
	return strings.Join(out, ", ")
}

func TestEvents(t *testing.T) {
	s, url := storetest.New(t)
	addAccount(t, s, "alice", "al")
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	addAccount(t, s, "bob")
	if err := s.DeleteAccount(t.Context(), "bob", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := storetest.DB(t, url).Exec("INSERT INTO events (at, kind, actor) VALUES (now() - interval '2 days', 'old', '')"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		filter auth.EventFilter
		before int64
		want   string
	}{
		{"all", auth.EventFilter{}, 0, "account.added alice, app_password.created alice phone, account.added bob, account.deleted bob, old"},
		{"the newest", auth.EventFilter{Limit: 2}, 0, "account.deleted bob, old"},
		{"and those before", auth.EventFilter{Limit: 2}, 4, "app_password.created alice phone, account.added bob"},
		{"of an account", auth.EventFilter{Login: "alice"}, 0, "account.added alice, app_password.created alice phone"},
		{"by its alias", auth.EventFilter{Login: "al"}, 0, "account.added alice, app_password.created alice phone"},
		{"of one that is gone", auth.EventFilter{Login: "bob"}, 0, "account.added bob, account.deleted bob"},
		{"of a kind", auth.EventFilter{Kind: "account.added"}, 0, "account.added alice, account.added bob"},
		{"since", auth.EventFilter{Since: time.Now().Add(-time.Hour)}, 0, "account.added alice, app_password.created alice phone, account.added bob, account.deleted bob"},
		{"both", auth.EventFilter{Kind: "account.added", Login: "bob", Since: time.Now().Add(-time.Hour)}, 0, "account.added bob"},
		{"none", auth.EventFilter{Login: "carol"}, 0, ""},
	} {
		got, err := s.Events(t.Context(), tt.filter, tt.before)
		if err != nil || kinds(got) != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, kinds(got), err, tt.want)
		}
	}
	// What the filter leaves out is passed all the same.
	got, next, err := s.EventsAfter(t.Context(), auth.EventFilter{Login: "alice"}, 1)
	if err != nil || kinds(got) != "app_password.created alice phone" || next != 5 {
		t.Errorf("EventsAfter = %q, %d, %v", kinds(got), next, err)
	}
	got, next, err = s.EventsAfter(t.Context(), auth.EventFilter{Limit: 2}, 1)
	if err != nil || len(got) != 2 || next != 3 {
		t.Errorf("EventsAfter, two at most = %q, %d, %v", kinds(got), next, err)
	}
	if got, next, err = s.EventsAfter(t.Context(), auth.EventFilter{}, 5); err != nil || len(got) != 0 || next != 5 {
		t.Errorf("EventsAfter the last = %q, %d, %v", kinds(got), next, err)
	}
}

func insert(t *testing.T, tx interface {
	Exec(string, ...any) (sql.Result, error)
}, kind string) {
	t.Helper()
	if _, err := tx.Exec("INSERT INTO events (kind, actor) VALUES ($1, '')", kind); err != nil {
		t.Error(err)
	}
}

// TestEventsOutOfOrder: an event whose transaction commits late is not passed over, and one that never comes holds nothing up.
func TestEventsOutOfOrder(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	slow, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Rollback()
	insert(t, db, "1")
	insert(t, slow, "2")
	insert(t, db, "3")
	got, next, err := s.EventsAfter(t.Context(), auth.EventFilter{}, 0)
	if err != nil || kinds(got) != "1" || next != 1 {
		t.Errorf("while it is open: %q, %d, %v, want 1 alone", kinds(got), next, err)
	}
	if last, err := s.LastEvent(t.Context()); err != nil || last != 1 {
		t.Errorf("LastEvent = %d, %v, want 1", last, err)
	}
	if err := slow.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, next, err = s.EventsAfter(t.Context(), auth.EventFilter{}, next); err != nil || kinds(got) != "2, 3" || next != 3 {
		t.Errorf("when it has ended: %q, %d, %v, want 2, 3", kinds(got), next, err)
	}
	lost, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	insert(t, lost, "4")
	lost.Rollback()
	insert(t, db, "5")
	if got, next, err = s.EventsAfter(t.Context(), auth.EventFilter{}, next); err != nil || kinds(got) != "5" || next != 5 {
		t.Errorf("after a rollback: %q, %d, %v, want 5", kinds(got), next, err)
	}
}

// TestFollowLosesNothing follows while several write, commit late and roll back.
func TestFollowLosesNothing(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	const writers, each = 4, 60
	var mu sync.Mutex
	want := map[string]bool{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				tx, err := db.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				kind := fmt.Sprint(w, ".", i)
				insert(t, tx, kind)
				time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond) // the order of the commits is to be another
				if rand.IntN(4) == 0 {
					tx.Rollback()
				} else if err := tx.Commit(); err == nil {
					mu.Lock()
					want[kind] = true
					mu.Unlock()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var seen []string
	var after int64
	follow := func(s *store.Store) int {
		all, next, err := s.EventsAfter(t.Context(), auth.EventFilter{Limit: 7}, after)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.ID <= after {
				t.Fatalf("event %d came after %d", e.ID, after)
			}
			seen = append(seen, e.Kind)
		}
		after = next
		return len(all)
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		follow(s)
	}
	for follow(s) > 0 {
	}
	slices.Sort(seen)
	if n := len(slices.Compact(slices.Clone(seen))); n != len(seen) || n != len(want) {
		t.Errorf("%d events seen, %d different ones, want %d", len(seen), n, len(want))
	}
	for _, k := range seen {
		if !want[k] {
			t.Errorf("event %s was rolled back", k)
		}
	}
}
