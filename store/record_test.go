package store_test

import (
	"context"
	"database/sql"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

// clock is set by the test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	c.t = c.t.Add(d)
	c.mu.Unlock()
}

func recording(t *testing.T) (*store.Store, *sql.DB, *clock, auth.AppPassword) {
	setup, url := storetest.New(t)
	c := &clock{t: time.Now()}
	s := storetest.Open(t, store.Config{URL: url, Now: c.now, MaxPending: 100})
	addAccount(t, setup, "alice")
	p := addAppPassword(t, setup, "alice", "phone", tag(1, 1))
	return s, storetest.DB(t, url), c, p
}

func flush(t *testing.T, s *store.Store) {
	t.Helper()
	// The recorder's own goroutine may hold a batch at this moment: whoever needs the outcome waits for the count.
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRecordUse(t *testing.T) {
	s, _, c, p := recording(t)
	addr1, addr2 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")
	written := uint64(0)
	steps := []struct {
		name    string
		after   time.Duration
		service string
		addr    netip.Addr
		writes  bool
	}{
		{"first", 0, "imap", addr1, true},
		{"at once again", 0, "imap", addr1, false},
		{"4-in-6 is the same address", time.Second, "imap", netip.AddrFrom16(addr1.As16()), false},
		{"changed, within a minute", 10 * time.Second, "smtp", addr1, false},
		{"changed", 50 * time.Second, "smtp", addr1, true},
		{"address changed", 61 * time.Second, "smtp", addr2, true},
		{"the same within five minutes", 299 * time.Second, "smtp", addr2, false},
		{"the same", time.Second, "smtp", addr2, true},
		{"address not known", 61 * time.Second, "smtp", netip.Addr{}, true},
	}
	for _, st := range steps {
		c.add(st.after)
		s.Record(auth.Attempt{At: c.now(), AccountID: p.AccountID, AppPasswordID: p.ID, OK: true, Reason: auth.Accepted,
			Service: st.service, FrontEnd: "dovecot", Addr: st.addr})
		flush(t, s)
		if st.writes {
			written++
		}
		eventually(t, st.name+": what is pending is written", func() bool {
			b := s.BookkeepingStats()
			return b.Pending == 0 && b.Written >= written
		})
		if got := s.BookkeepingStats().Written; got != written {
			t.Fatalf("%s: %d writes in all, want %d", st.name, got, written)
		}
		list, err := s.AppPasswords(t.Context(), "alice", false)
		if err != nil || list[0].LastUsed == nil {
			t.Fatalf("AppPasswords = %+v, %v", list, err)
		}
		if got := list[0].LastUsed; st.writes && (got.Service != st.service || got.Addr != st.addr.Unmap() || got.FrontEnd != "dovecot") {
			t.Errorf("%s: last use = %+v", st.name, got)
		}
	}
}

// TestRecordClock: the database's clock counts, not the daemon's.
func TestRecordClock(t *testing.T) {
	s, db, c, p := recording(t)
	c.add(-1000 * time.Hour)
	s.Record(auth.Attempt{At: c.now().Add(-10 * time.Minute), AppPasswordID: p.ID, OK: true})
	flush(t, s)
	eventually(t, "written", func() bool { return s.BookkeepingStats().Written == 1 })
	var age float64
	if err := db.QueryRow("SELECT extract(epoch FROM now() - last_used_at) FROM app_passwords").Scan(&age); err != nil {
		t.Fatal(err)
	}
	if age < 600 || age > 660 {
		t.Errorf("last use is %v seconds old, want 600", age)
	}
}

func TestRecordRejection(t *testing.T) {
	s, db, c, p := recording(t)
	addr := netip.MustParseAddr("192.0.2.1")
	attempt := func(id int64, reason auth.Reason, addr netip.Addr) {
		s.Record(auth.Attempt{At: c.now(), AccountID: p.AccountID, AppPasswordID: id, Reason: reason, Service: "im\x00ap\xff", FrontEnd: "ldap", Addr: addr})
	}
	for range 3 {
		attempt(p.ID, auth.Revoked, addr)
		attempt(0, auth.NoMatch, addr)
		flush(t, s)
		c.add(time.Minute)
	}
	attempt(p.ID, auth.Expired, addr)
	flush(t, s)
	attempt(p.ID, auth.Revoked, netip.Addr{})
	flush(t, s)
	c.add(time.Hour)
	attempt(p.ID, auth.Revoked, addr)
	attempt(p.ID+1000, auth.Revoked, addr) // deleted meanwhile
	flush(t, s)
	eventually(t, "written", func() bool { b := s.BookkeepingStats(); return b.Pending == 0 && b.Written == 5 })
	want := []string{"account.added admin alice", "app_password.created admin alice phone",
		"login.rejected alice phone revoked 192.0.2.1", "login.rejected alice phone expired 192.0.2.1",
		"login.rejected alice phone revoked", "login.rejected alice phone revoked 192.0.2.1"}
	if d := cmp.Diff(want, events(t, db)); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

func TestRecordOutage(t *testing.T) {
	c := &clock{t: time.Now()}
	s := storetest.Open(t, store.Config{URL: "postgres://u@127.0.0.1:1/d?sslmode=disable", Now: c.now, MaxPending: 100})
	for id := int64(1); id <= 1000; id++ {
		s.Record(auth.Attempt{At: c.now(), AppPasswordID: id, OK: true})
	}
	eventually(t, "the rest is dropped", func() bool {
		b := s.BookkeepingStats()
		return b.Pending <= 100 && b.Dropped >= 900
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("Close = %v, want it to say what is lost", err)
	}
}

func TestRecordBounds(t *testing.T) {
	c := &clock{t: time.Now()}
	s := storetest.Open(t, store.Config{URL: "postgres://u@127.0.0.1:1/d?sslmode=disable", Now: c.now, MaxPending: 200_000})
	for id := int64(1); id <= 150_000; id++ {
		s.Record(auth.Attempt{At: c.now(), AppPasswordID: id, OK: true})
	}
	if n := s.Remembered(); n > 2*32768 {
		t.Errorf("%d notes remembered, want a bound", n)
	}
}

func TestCloseFlushes(t *testing.T) {
	s, db, c, p := recording(t)
	s.Record(auth.Attempt{At: c.now(), AppPasswordID: p.ID, OK: true, Service: "imap"})
	c.add(time.Hour)
	s.Record(auth.Attempt{At: c.now(), AppPasswordID: p.ID, OK: true, Service: "smtp"})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var service string
	if err := db.QueryRow("SELECT last_used_service FROM app_passwords").Scan(&service); err != nil || service != "smtp" {
		t.Errorf("last service = %q, %v, want smtp", service, err)
	}
}
