package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

// candidate looks up the row with this tag.
func candidate(t *testing.T, s *store.Store, login string, v uint16) auth.Candidate {
	t.Helper()
	f, err := s.Lookup(t.Context(), login, []auth.Tag{*tag(1, v)})
	if err != nil || f == nil || len(f.Candidates) != 1 {
		t.Fatalf("Lookup(%q, tag %d) = %+v, %v, want one row", login, v, f, err)
	}
	return f.Candidates[0]
}

func rotate(t *testing.T, s *store.Store, login, key string, v uint16, keep time.Time) (now auth.AppPassword, old *auth.AppPassword) {
	t.Helper()
	now, old, err := s.RotateAppPassword(t.Context(), login, key, auth.Rotation{PHC: phc, Tag: *tag(1, v), KeepOldUntil: keep, By: "root"})
	if err != nil {
		t.Fatalf("RotateAppPassword(%q, %q): %v", login, key, err)
	}
	return now, old
}

// accept records an accepted login with the row, as the authenticator does.
func accept(s *store.Store, c auth.Candidate) {
	s.Record(auth.Attempt{AppPasswordID: c.ID, Replaces: c.Replaces, OK: true, Service: "imap", FrontEnd: "dovecot"})
}

// The first use of the new secret ends the old one: at once for the daemon that saw it, and soon for the others.
func TestRotation(t *testing.T) {
	s, url := storetest.New(t)
	s2 := storetest.Open(t, store.Config{URL: url})
	db := storetest.DB(t, url)
	week := time.Now().Add(7 * 24 * time.Hour).Round(time.Microsecond)
	addAccount(t, s, "alice")
	p := addAppPassword(t, s, "alice", "phone", tag(1, 1), func(n *auth.NewAppPassword) {
		n.Services, n.Networks = []string{"imap"}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		n.ExpiresUnusedFor = 90 * 24 * time.Hour
	})
	now, old := rotate(t, s, "alice", "phone", 2, week)
	if now.Replaces != p.ID || old == nil || old.ID != p.ID || !old.ExpiresAt.Equal(week) || old.ReplacedAt.IsZero() ||
		!cmp.Equal(now.Services, p.Services) || len(now.Networks) != 1 || now.ExpiresUnusedFor != p.ExpiresUnusedFor || !now.ExpiresAt.IsZero() {
		t.Errorf("RotateAppPassword = %+v, %+v, want the old scope, and an old row that ends within a week", now, old)
	}
	if got, o, err := s.AppPassword(t.Context(), "alice", "phone"); err != nil || got.ID != now.ID || o == nil || o.ID != p.ID {
		t.Errorf("AppPassword = %+v, %+v, %v, want the new row and the old", got, o, err)
	}
	if a, err := s.Account(t.Context(), "alice"); err != nil || a.AppPasswords != 1 {
		t.Errorf("Account.AppPasswords = %d, %v, want 1: the old secret does not count", a.AppPasswords, err)
	}
	// Both are good, and using the old one ends nothing.
	accept(s, candidate(t, s, "alice", 1))
	fresh := candidate(t, s, "alice", 2)
	if fresh.Replaces != p.ID || fresh.Revoked {
		t.Errorf("new row = %+v, want one that replaces %d", fresh, p.ID)
	}
	for _, s := range []*store.Store{s, s2} {
		if c := candidate(t, s, "alice", 1); c.Revoked || c.Expired {
			t.Errorf("old row = %+v, want it good before the new one is used", c)
		}
	}
	// An admin holds the account: the login does not wait, and its daemon refuses the old secret nevertheless.
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("SELECT FROM accounts FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	accept(s, fresh)
	if c := candidate(t, s, "alice", 1); !c.Revoked {
		t.Error("the old secret is good on the daemon that accepted the new one")
	}
	if c := candidate(t, s2, "alice", 1); c.Revoked {
		t.Error("the old row is revoked while somebody else holds the account: the test shows nothing")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other daemon refuses the old secret", func() bool { return candidate(t, s2, "alice", 1).Revoked })
	if c := candidate(t, s2, "alice", 2); c.Revoked || c.Expired || c.Replaces != 0 {
		t.Errorf("new row = %+v, want it good, with nothing left to end", c)
	}
	if _, o, err := s2.AppPassword(t.Context(), "alice", "phone"); err != nil || o != nil {
		t.Errorf("AppPassword: old = %+v, %v, want none", o, err)
	}
	want := []string{"app_password.rotated root alice phone", "app_password.revoked alice phone"}
	got := slices.DeleteFunc(events(t, db), func(e string) bool { return strings.Contains(e, "first_used") }) // written apart, before it or after
	if !cmp.Equal(got[len(got)-2:], want) {
		t.Errorf("events = %q, want %q at the end", got, want)
	}
}

// What was not written before the daemon stopped is written while it stops.
func TestRotationEndsBeforeClose(t *testing.T) {
	s, url := storetest.New(t)
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	rotate(t, s, "alice", "phone", 2, time.Now().Add(time.Hour))
	accept(s, candidate(t, s, "alice", 2))
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := candidate(t, storetest.Open(t, store.Config{URL: url}), "alice", 1); !c.Revoked {
		t.Error("the old secret is good after the daemon that accepted the new one has stopped")
	}
}

// For a user's own account the transaction itself looks at whose it is: an admin may exempt it at that moment.
func TestRotationOfOnesOwn(t *testing.T) {
	s, _ := storetest.New(t)
	addAccount(t, s, "alice")
	own := auth.Rotation{PHC: phc, KeepOldUntil: time.Now().Add(time.Hour), By: "alice (uid 1001)", Own: true}
	by := func(who, exempt string) func(*auth.NewAppPassword) {
		return func(n *auth.NewAppPassword) { n.CreatedBy, n.ExemptWhy = who, exempt }
	}
	addAppPassword(t, s, "alice", "phone", tag(1, 1), by("alice (uid 1001)", ""))
	addAppPassword(t, s, "alice", "given", tag(1, 2), by("root", ""))
	addAppPassword(t, s, "alice", "printer", tag(1, 3), by("alice (uid 1001)", "no person"))
	addAppPassword(t, s, "alice", "before", tag(1, 4), by("alice (uid 1002)", ""))
	for i, tt := range []struct {
		label string
		want  error
	}{{"phone", nil}, {"given", auth.ErrNotMade}, {"printer", auth.ErrNotMade}, {"before", auth.ErrNotMade}, {"phone", nil}} {
		own.Tag = *tag(1, uint16(10+i))
		if p, _, err := s.RotateAppPassword(t.Context(), "alice", tt.label, own); !errors.Is(err, tt.want) || err == nil && p.CreatedBy != own.By {
			t.Errorf("RotateAppPassword of %q = %+v, %v, want %v", tt.label, p, err, tt.want)
		}
	}
}

func TestRotationAgain(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	p := addAppPassword(t, s, "alice", "phone", tag(1, 1))
	hour, day := time.Now().Add(time.Hour).Round(time.Microsecond), time.Now().Add(24*time.Hour).Round(time.Microsecond)
	rotate(t, s, "alice", "phone", 2, hour)
	// The second secret was never used: the third takes its place, and the first stays good no longer than it was to.
	now, old := rotate(t, s, "alice", "phone", 3, day)
	if now.Replaces != p.ID || old == nil || old.ID != p.ID || !old.ExpiresAt.Equal(hour) {
		t.Errorf("RotateAppPassword = %+v, %+v, want the first row to stay the old one, for an hour", now, old)
	}
	if c := candidate(t, s, "alice", 2); !c.Revoked {
		t.Error("the second secret is good after the third was made")
	}
	if c := candidate(t, s, "alice", 1); c.Revoked {
		t.Error("the first secret is refused before another one was used")
	}
	// Changes reach the old row, and an end later than its own does not.
	long := day.Add(time.Hour)
	if _, err := s.ChangeAppPassword(t.Context(), "alice", "phone", auth.AppPasswordChange{Label: "Mobile", LabelKey: "mobile",
		Services: &[]string{"smtp"}, ExpiresAt: &long}, "root"); err != nil {
		t.Fatal(err)
	}
	_, old, err := s.AppPassword(t.Context(), "alice", "mobile")
	if err != nil || old == nil || old.Label != "Mobile" || !cmp.Equal(old.Services, []string{"smtp"}) || !old.ExpiresAt.Equal(hour) {
		t.Errorf("old row after a change = %+v, %v, want label and services of the new one, and its own end", old, err)
	}
	// Without an overlap the old one ends at once.
	rotate(t, s, "alice", "mobile", 4, time.Time{})
	if c := candidate(t, s, "alice", 1); !c.Revoked {
		t.Error("the old secret is good after a rotation without an overlap")
	}
	// Revoking the label ends both secrets.
	rotate(t, s, "alice", "mobile", 5, day)
	if _, err := s.RevokeAppPassword(t.Context(), "alice", "mobile", "lost", "root"); err != nil {
		t.Fatal(err)
	}
	for v := range uint16(5) {
		if c := candidate(t, s, "alice", v+1); !c.Revoked {
			t.Errorf("secret %d is good after its label was revoked", v+1)
		}
	}
	turn := func(key string, v uint16) error {
		_, _, err := s.RotateAppPassword(t.Context(), "alice", key, auth.Rotation{PHC: phc, Tag: *tag(1, v), KeepOldUntil: day, By: "root"})
		return err
	}
	x := addAppPassword(t, s, "alice", "tablet", tag(1, 20))
	if err := turn("tablet", 20); !errors.Is(err, auth.ErrTagTaken) {
		t.Errorf("RotateAppPassword with a tag that is taken = %v, want ErrTagTaken", err)
	}
	if _, err := db.Exec("UPDATE app_passwords SET expires_at = now() WHERE id = $1", x.ID); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]error{"tablet": auth.ErrExpired, "mobile": auth.ErrRevoked, "nothing": auth.ErrNoLabel} {
		if err := turn(key, 30); !errors.Is(err, want) {
			t.Errorf("RotateAppPassword(%q) = %v, want %v", key, err, want)
		}
	}
}

func TestChangeAppPassword(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	var many []string
	for i := range auth.MaxServices + 1 {
		many = append(many, fmt.Sprint("s", i))
	}
	ten := netip.MustParsePrefix("10.0.0.0/8")
	hour, never := time.Now().Add(time.Hour).Round(time.Microsecond), time.Time{}
	month, zero := 30*24*time.Hour, time.Duration(0)
	for _, tt := range []struct {
		name string
		c    auth.AppPasswordChange
		want error
		now  string // services, networks, expires, unused
	}{
		{"nothing", auth.AppPasswordChange{}, nil, "[] [] false 0s"},
		{"add to no limit", auth.AppPasswordChange{AddServices: []string{"imap"}}, auth.ErrNoScope, ""},
		{"add a network to no limit", auth.AppPasswordChange{AddNetworks: []netip.Prefix{ten}}, auth.ErrNoScope, ""},
		{"limit", auth.AppPasswordChange{Services: &[]string{"imap"}, Networks: &[]netip.Prefix{ten}}, nil, "[imap] [10.0.0.0/8] false 0s"},
		{"add", auth.AppPasswordChange{AddServices: []string{"smtp", "imap"}}, nil, "[imap smtp] [10.0.0.0/8] false 0s"},
		{"remove", auth.AppPasswordChange{RemoveServices: []string{"imap", "none"}}, nil, "[smtp] [10.0.0.0/8] false 0s"},
		{"remove the last", auth.AppPasswordChange{RemoveServices: []string{"smtp"}}, auth.ErrLastScope, ""},
		{"remove the last network, and more", auth.AppPasswordChange{RemoveNetworks: []netip.Prefix{ten}, ExpiresAt: &hour}, auth.ErrLastScope, ""},
		{"too many", auth.AppPasswordChange{Services: &many}, auth.ErrScopes, ""},
		{"dates", auth.AppPasswordChange{ExpiresAt: &hour, ExpiresUnusedFor: &month}, nil, "[smtp] [10.0.0.0/8] true 720h0m0s"},
		{"no dates, no limits", auth.AppPasswordChange{ExpiresAt: &never, ExpiresUnusedFor: &zero, Services: &[]string{}, Networks: &[]netip.Prefix{}}, nil, "[] [] false 0s"},
	} {
		if _, err := s.ChangeAppPassword(t.Context(), "alice", "phone", tt.c, "root"); !errors.Is(err, tt.want) {
			t.Errorf("ChangeAppPassword, %s: %v, want %v", tt.name, err, tt.want)
		}
		p, _, err := s.AppPassword(t.Context(), "alice", "phone")
		if got := fmt.Sprint(p.Services, p.Networks, !p.ExpiresAt.IsZero(), p.ExpiresUnusedFor); err != nil || tt.want == nil && got != tt.now {
			t.Errorf("%s: app password is %s, %v, want %s", tt.name, got, err, tt.now)
		}
	}
	if got := strings.Count(strings.Join(events(t, db), "\n"), "app_password.changed root alice phone"); got != 5 {
		t.Errorf("%d changes in the audit log, want 5: what changes nothing leaves none", got)
	}

	// An expired one lives again with more time, unless its label or its place is somebody else's by now.
	if _, err := db.Exec("UPDATE app_passwords SET expires_at = now()"); err != nil {
		t.Fatal(err)
	}
	other := addAppPassword(t, s, "alice", "tablet", tag(1, 2), func(n *auth.NewAppPassword) { n.LimitPerAccount = 1 })
	revive := func(limit int) error {
		_, err := s.ChangeAppPassword(t.Context(), "alice", "phone", auth.AppPasswordChange{ExpiresAt: &hour, LimitPerAccount: limit}, "root")
		return err
	}
	if err := revive(1); !errors.Is(err, auth.ErrLimit) {
		t.Errorf("reviving one too many = %v, want ErrLimit", err)
	}
	if _, err := db.Exec("UPDATE app_passwords SET label_key = 'phone' WHERE id = $1", other.ID); err != nil {
		t.Fatal(err)
	}
	if p, _, err := s.AppPassword(t.Context(), "alice", "phone"); err != nil || p.ID != other.ID {
		t.Errorf("AppPassword = %+v, %v, want the one that holds the label", p, err)
	}
	if _, err := db.Exec("UPDATE app_passwords SET label_key = 'tablet' WHERE id = $1", other.ID); err != nil {
		t.Fatal(err)
	}
	if err := revive(2); err != nil {
		t.Errorf("reviving = %v, want nil", err)
	}
	if c := candidate(t, s, "alice", 1); c.Expired {
		t.Error("the revived one is still refused")
	}
	if _, err := s.AddAppPassword(t.Context(), newAppPassword("alice", "phone", tag(1, 9))); !errors.Is(err, auth.ErrLabelTaken) {
		t.Errorf("AddAppPassword with the revived one's label = %v, want ErrLabelTaken", err)
	}
}

func TestAccountLimit(t *testing.T) {
	s, _ := storetest.New(t)
	addAccount(t, s, "alice")
	set := func(n int) {
		t.Helper()
		if a, err := s.ChangeAccount(t.Context(), "alice", auth.AccountChange{Limit: &n}, "root"); err != nil || a.Limit != n {
			t.Fatalf("ChangeAccount: limit %d, %v, want %d", a.Limit, err, n)
		}
	}
	add := func(v uint16, configured int) error {
		_, err := s.AddAppPassword(t.Context(), newAppPassword("alice", fmt.Sprint(v), tag(1, v), func(n *auth.NewAppPassword) { n.LimitPerAccount = configured }))
		return err
	}
	set(2)
	for v, want := range []error{nil, nil, auth.ErrLimit} {
		if err := add(uint16(v), 1); !errors.Is(err, want) {
			t.Errorf("AddAppPassword %d of 2 = %v, want %v", v+1, err, want)
		}
	}
	rotate(t, s, "alice", "0", 10, time.Now().Add(time.Hour)) // needs no place
	set(0)
	if err := add(3, 2); !errors.Is(err, auth.ErrLimit) {
		t.Errorf("AddAppPassword beyond the configured limit = %v, want ErrLimit", err)
	}
	if err := add(3, 3); err != nil {
		t.Errorf("AddAppPassword = %v, want nil", err)
	}
}

// Two admins at once, and a device, on one label: whatever the order, one row at most holds the label, one old one at most is good beside it,
// and after a revocation none.
func TestLabelRaces(t *testing.T) {
	s, url := storetest.New(t)
	s2 := storetest.Open(t, store.Config{URL: url})
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	expected := []error{nil, auth.ErrRevoked}
	check := func(what string, err error) {
		for _, e := range expected {
			if errors.Is(err, e) {
				return
			}
		}
		t.Errorf("%s = %v, want nil or ErrRevoked", what, err)
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 24 {
		one := []*store.Store{s, s2}[i%2]
		wg.Go(func() {
			switch i % 4 {
			case 0, 1:
				_, _, err := one.RotateAppPassword(ctx, "alice", "phone", auth.Rotation{PHC: phc, Tag: *tag(1, uint16(100+i)), KeepOldUntil: time.Now().Add(time.Hour), By: "root"})
				check("RotateAppPassword", err)
			case 2:
				_, err := one.ChangeAppPassword(ctx, "alice", "phone", auth.AppPasswordChange{Services: &[]string{fmt.Sprint("s", i)}}, "root")
				check("ChangeAppPassword", err)
			default:
				if p, _, err := one.AppPassword(ctx, "alice", "phone"); err == nil {
					one.Record(auth.Attempt{AppPasswordID: p.ID, Replaces: p.Replaces, OK: true, Service: "imap", FrontEnd: "dovecot"})
				}
			}
			var held, good int
			err := db.QueryRow(`SELECT count(*) FILTER (WHERE holds_label), count(*) FILTER (WHERE revoked_at IS NULL) FROM app_passwords`).Scan(&held, &good)
			if err != nil || held > 1 || good > 2 {
				t.Errorf("%d rows hold the label, %d are good, %v; want 1 and 2 at most", held, good, err)
			}
		})
	}
	wg.Wait()
	for _, s := range []*store.Store{s, s2} {
		wg.Go(func() {
			_, err := s.RevokeAppPassword(ctx, "alice", "phone", "", "root")
			check("RevokeAppPassword", err)
		})
	}
	wg.Wait()
	if n := count(t, db, "SELECT count(*) FROM app_passwords WHERE revoked_at IS NULL"); n != 0 {
		t.Errorf("%d rows are good after the label was revoked, want none", n)
	}
	if a, b := count(t, db, "SELECT count(*) FROM app_passwords"), count(t, db, "SELECT count(*) FROM events WHERE kind = 'app_password.revoked'"); a != b {
		t.Errorf("%d rows, %d revocations in the audit log, want one for each", a, b)
	}
}

func count(t *testing.T, db *sql.DB, q string) (n int) {
	t.Helper()
	if err := db.QueryRow(q).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The migration has no transaction, so that one that was interrupted is made again from its beginning.
func TestLabelMigrationAgain(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	if _, err := db.Exec("DROP INDEX app_passwords_expiry_idx"); err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1) // it sets what holds for the session
	for statement := range strings.SplitSeq(storetest.Migration(t, "00005_labels.sql"), ";\n") {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if n := count(t, db, "SELECT count(*) FROM pg_index WHERE indexrelid IN ('app_passwords_idle_idx'::regclass, 'app_passwords_expiry_idx'::regclass) AND indisvalid"); n != 2 {
		t.Errorf("%d valid indexes, want 2", n)
	}
	rotate(t, s, "alice", "phone", 2, time.Now().Add(time.Hour))
}
