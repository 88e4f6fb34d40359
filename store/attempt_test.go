package store_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

// rejectionsOf writes attempts as a person would, the latest first.
func rejectionsOf(t *testing.T, s *store.Store, login string) (all []string) {
	t.Helper()
	list, err := s.Attempts(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		all = append(all, fmt.Sprintf("%d %s %q %s %s %v", p.Count, p.Reason, p.Label, p.Service, p.FrontEnd, p.Addr))
	}
	return all
}

func TestAttempts(t *testing.T) {
	s, _, c, p := recording(t)
	home, away := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	at := c.now().Add(-20 * time.Second) // the clock itself stands: what is written in between is as old by it as the rest
	try := func(reason auth.Reason, row int64, service string, addr netip.Addr) {
		at = at.Add(time.Second)
		s.Record(auth.Attempt{At: at, AccountID: p.AccountID, AppPasswordID: row, OK: reason == auth.Accepted, Reason: reason,
			Service: service, FrontEnd: "dovecot", Addr: addr})
	}
	for range 3 {
		try(auth.NoMatch, 0, "imap", home)
		try(auth.Revoked, p.ID, "imap", away)
		try(auth.Accepted, p.ID, "imap", home)
	}
	try(auth.BadFormat, 0, "im\x00ap\xff", netip.Addr{})
	want := []string{`1 bad_format "" imap dovecot invalid IP`, `3 revoked "phone" imap dovecot 2001:db8::1`, `3 no_match "" imap dovecot 192.0.2.1`}
	if d := cmp.Diff(want, rejectionsOf(t, s, "alice")); d != "" {
		t.Errorf("Attempts (-want +got):\n%s", d)
	}
	try(auth.NoMatch, 0, "imap", netip.AddrFrom16(home.As16())) // the same address
	want = []string{`4 no_match "" imap dovecot 192.0.2.1`, want[0], want[1]}
	if d := cmp.Diff(want, rejectionsOf(t, s, "alice")); d != "" {
		t.Errorf("Attempts, one more (-want +got):\n%s", d)
	}
	s.Record(auth.Attempt{At: c.now().Add(-2 * time.Hour), AccountID: p.AccountID, Reason: auth.NoMatch, Service: "imap", FrontEnd: "dovecot", Addr: home}) // of a slow daemon
	list, err := s.Attempts(t.Context(), "alice")
	if err != nil || list[0].Last.Sub(list[0].First) < time.Hour || list[0].Count != 5 || time.Since(list[0].Last).Abs() > time.Minute {
		t.Errorf("Attempts = %+v, %v: wrong times", list[0], err)
	}
	if got := rejectionsOf(t, s, "nobody"); got != nil {
		t.Errorf("of nobody: %q", got)
	}
}

// A guessing storm at one account and at many leaves bounded rows, and does not push out what tells of the user's own devices.
func TestAttemptsStorm(t *testing.T) {
	setup, url := storetest.New(t)
	c := &clock{t: time.Now()}
	s := storetest.Open(t, store.Config{URL: url, Now: c.now, MaxAttempts: 300})
	db := storetest.DB(t, url)
	addAccount(t, setup, "alice")
	p := addAppPassword(t, setup, "alice", "phone", tag(1, 1))
	s.Record(auth.Attempt{At: c.now(), AccountID: p.AccountID, AppPasswordID: p.ID, Reason: auth.Revoked, Service: "imap"})
	for i := range 20_000 {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		s.Record(auth.Attempt{At: c.now(), AccountID: p.AccountID, Reason: auth.NoMatch, Service: fmt.Sprint("s", i%7), FrontEnd: "dovecot", Addr: a})
		if i%1000 == 999 {
			if n := s.PendingAttempts(); n > 20 {
				t.Fatalf("%d kinds of attempts wait to be written, want few: it is one account", n)
			}
			if err := s.FlushAttempts(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := rejectionsOf(t, s, "alice")
	if len(got) > 1+16 || got[len(got)-1] != `1 revoked "phone" imap  invalid IP` {
		t.Errorf("%d kinds of attempts, want at most 17 with the user's own device: %q", len(got), got)
	}
	var tries int
	if err := db.QueryRow("SELECT sum(count) FROM attempts WHERE reason = 'no_match'").Scan(&tries); err != nil || tries < 19_000 {
		t.Errorf("%d of 20000 tries are counted, %v: want nearly all", tries, err)
	}

	// Many accounts.
	if _, err := db.Exec(`INSERT INTO accounts (login) SELECT 'user' || i FROM generate_series(1, 6000) AS i`); err != nil {
		t.Fatal(err)
	}
	var first int64
	if err := db.QueryRow("SELECT id FROM accounts WHERE login = 'user1'").Scan(&first); err != nil {
		t.Fatal(err)
	}
	for i := range int64(6000) {
		s.Record(auth.Attempt{At: c.now(), AccountID: first + i, Reason: auth.NoMatch, Service: "imap"})
		s.Record(auth.Attempt{At: c.now(), AccountID: first + i, AppPasswordID: p.ID, Reason: auth.Revoked, Service: "imap"})
	}
	if n := s.PendingAttempts(); n > 2*2048 {
		t.Errorf("%d kinds of attempts wait to be written, want a bound", n)
	}
	if err := s.FlushAttempts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.PruneAttempts(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM attempts").Scan(&n); err != nil || n != 300 {
		t.Errorf("%d rows after the sweep, %v, want 300", n, err)
	}
	if _, err := db.Exec(`DELETE FROM accounts; INSERT INTO accounts (login) VALUES ('bob'); INSERT INTO attempts (account_id, reason, service, front_end, first_at, last_at, count)
		SELECT id, 'no_match', '', '', now() - interval '40 days', now() - interval '31 days', 1 FROM accounts`); err != nil {
		t.Fatal(err)
	}
	if err := s.PruneAttempts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow("SELECT count(*) FROM attempts").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows of accounts that are gone, or old, %v", n, err)
	}
}

func TestStrangers(t *testing.T) {
	s, _ := storetest.New(t)
	at := time.Now()
	addr := netip.MustParseAddr("192.0.2.1")
	for i := range 5000 {
		s.RecordStranger(fmt.Sprint("guess", i), auth.Attempt{At: at, Reason: auth.UnknownLogin, Service: "imap", FrontEnd: "dovecot", Addr: addr})
	}
	for i := range 1000 {
		s.RecordStranger("alcie", auth.Attempt{At: at, Reason: auth.UnknownLogin, Service: "imap", FrontEnd: "dovecot", Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 20)})})
	}
	s.RecordStranger("alcie", auth.Attempt{At: at, Reason: auth.UnknownLogin, Service: "imap", FrontEnd: "dovecot", Addr: addr})
	s.RecordStranger("alcie", auth.Attempt{At: at, Reason: auth.UnknownLogin, Service: "imap", FrontEnd: "dovecot", Addr: addr})
	got := rejectionsOf(t, s, "alcie")
	if len(got) != 8 || got[0] != `2 unknown_login "" imap dovecot 192.0.2.1` {
		t.Errorf("Attempts at an unknown login = %q", got)
	}
	if got := rejectionsOf(t, s, "guess1"); got != nil {
		t.Errorf("an old one is still remembered: %q", got)
	}
	if got := rejectionsOf(t, s, "guess4999"); len(got) != 1 {
		t.Errorf("a new one is not: %q", got)
	}
	if n := s.StrangersKnown(); n > 1024 {
		t.Errorf("%d are remembered, want at most 1024", n)
	}
}
