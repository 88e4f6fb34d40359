package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

func events(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.Query(`SELECT concat_ws(' ', kind, NULLIF(actor, ''), login, label, detail->>'reason', detail->>'address') FROM events ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func TestAccounts(t *testing.T) {
	s, url := storetest.New(t)
	ctx := t.Context()
	n := auth.NewAccount{Login: "alice@example.org", Aliases: []string{"alice", "alice@example.org"}, DisplayName: "Alice",
		Attributes: map[string][]string{"mail": {"a@example.org", "b@example.org"}}, Userdb: map[string]string{"uid": "1000"}}
	a, err := s.AddAccount(ctx, n, "root")
	if err != nil {
		t.Fatal(err)
	}
	want := auth.Account{Login: n.Login, Aliases: []string{"alice"}, DisplayName: "Alice", Enabled: true, Attributes: n.Attributes, Userdb: n.Userdb,
		Groups: []string{}}
	if d := cmp.Diff(want, a, cmpopts.IgnoreFields(auth.Account{}, "ID", "UUID", "CreatedAt", "ModifiedAt")); d != "" {
		t.Errorf("AddAccount (-want +got):\n%s", d)
	}
	if len(a.UUID) != 36 || a.ID == 0 || a.CreatedAt.IsZero() {
		t.Errorf("AddAccount = %+v, want UUID, ID and CreatedAt", a)
	}
	for _, taken := range []auth.NewAccount{{Login: "alice@example.org"}, {Login: "alice"}, {Login: "x", Aliases: []string{"alice"}}} {
		if _, err := s.AddAccount(ctx, taken, "root"); !errors.Is(err, auth.ErrLoginTaken) {
			t.Errorf("AddAccount(%+v) = %v, want ErrLoginTaken", taken, err)
		}
	}
	for _, bad := range []auth.NewAccount{{Login: ""}, {Login: strings.Repeat("x", 513)}, {Login: "y", DisplayName: strings.Repeat("x", 2000)}} {
		if _, err := s.AddAccount(ctx, bad, "root"); err == nil || errors.Is(err, auth.ErrLoginTaken) {
			t.Errorf("AddAccount with a bad value = %v, want another error", err)
		}
	}
	for _, login := range []string{"alice", "alice@example.org"} {
		got, err := s.Account(ctx, login)
		if d := cmp.Diff(a, got); err != nil || d != "" {
			t.Errorf("Account(%q): %v (-want +got):\n%s", login, err, d)
		}
	}
	if _, err := s.Account(ctx, "x"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("Account(unknown) = %v, want ErrNoAccount", err)
	}

	addAccount(t, s, "bob")
	addAccount(t, s, "Zoe") // sorts before lower case, byte by byte
	addAppPassword(t, s, "bob", "phone", tag(1, 1))
	var got []string
	for after := ""; ; {
		page, err := s.Accounts(ctx, auth.Person, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			got = append(got, fmt.Sprint(a.Login, a.AppPasswords))
			after = a.Login
		}
		if len(page) < 2 {
			break
		}
	}
	if d := cmp.Diff([]string{"Zoe0", "alice@example.org0", "bob1"}, got); d != "" {
		t.Errorf("Accounts (-want +got):\n%s", d)
	}

	for _, enabled := range []bool{false, false, true} {
		if err := s.SetAccountEnabled(ctx, "bob", enabled, "root"); err != nil {
			t.Fatal(err)
		}
		if a, err := s.Account(ctx, "bob"); err != nil || a.Enabled != enabled {
			t.Errorf("Enabled = %v, %v, want %v", a.Enabled, err, enabled)
		}
	}
	if err := s.DeleteAccount(ctx, "alice", "root"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"DeleteAccount":     s.DeleteAccount(ctx, "alice", "root"),
		"SetAccountEnabled": s.SetAccountEnabled(ctx, "alice", true, "root"),
	} {
		if !errors.Is(err, auth.ErrNoAccount) {
			t.Errorf("%s of a deleted account = %v, want ErrNoAccount", what, err)
		}
	}
	addAccount(t, s, "alice") // the name is free again

	db := storetest.DB(t, url)
	wantEvents := []string{"account.added root alice@example.org", "account.added admin bob", "account.added admin Zoe",
		"app_password.created admin bob phone", "account.disabled root bob", "account.enabled root bob",
		"account.deleted root alice@example.org", "account.added admin alice"}
	if d := cmp.Diff(wantEvents, events(t, db)); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	for _, q := range []string{"UPDATE events SET actor = 'x'", "DELETE FROM events", "TRUNCATE events"} {
		if _, err := db.Exec(q); err == nil {
			t.Errorf("%s succeeded, want the audit log to be append-only", q)
		}
	}
}

func TestAppPasswords(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	ctx := t.Context()
	addAccount(t, s, "alice", "al")
	expires := time.Now().Add(time.Hour).Round(time.Microsecond)
	p := addAppPassword(t, s, "al", "Phone", tag(1, 1), func(n *auth.NewAppPassword) {
		n.LabelKey = "phone"
		n.Services = []string{"imap"}
		n.Networks = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}
		n.ExpiresAt = expires
		n.ExpiresUnusedFor = 90 * 24 * time.Hour
	})
	want := auth.AppPassword{Login: "alice", Label: "Phone", Services: []string{"imap"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Origin: auth.Generated, CreatedBy: "admin", ExpiresAt: expires, ExpiresUnusedFor: 90 * 24 * time.Hour}
	opts := []cmp.Option{cmpopts.IgnoreFields(auth.AppPassword{}, "ID", "AccountID", "CreatedAt"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.EquateEmpty()}
	if d := cmp.Diff(want, p, opts...); d != "" {
		t.Errorf("AddAppPassword (-want +got):\n%s", d)
	}
	if list, err := s.AppPasswords(ctx, "alice", false); err != nil || len(list) != 1 || cmp.Diff(want, list[0], opts...) != "" {
		t.Errorf("AppPasswords = %+v, %v", list, err)
	}

	for _, tt := range []struct {
		name string
		n    auth.NewAppPassword
		want error
	}{
		{"unknown login", newAppPassword("bob", "x", tag(1, 9)), auth.ErrNoAccount},
		{"label in use", newAppPassword("alice", "phone", tag(1, 9)), auth.ErrLabelTaken},
		{"tag in use", newAppPassword("alice", "x", tag(1, 1)), auth.ErrTagTaken},
		{"limit", newAppPassword("alice", "x", tag(1, 9), func(n *auth.NewAppPassword) { n.LimitPerAccount = 1 }), auth.ErrLimit},
	} {
		if _, err := s.AddAppPassword(ctx, tt.n); !errors.Is(err, tt.want) {
			t.Errorf("AddAppPassword, %s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := s.AddAppPassword(ctx, newAppPassword("alice", "x", tag(1, 9), func(n *auth.NewAppPassword) { n.PHC = "" })); err == nil || strings.Contains(err.Error(), "Failing row") {
		t.Errorf("AddAppPassword without a hash = %v, want an error that does not show the row", err)
	}
	addAppPassword(t, s, "alice", "same value, other pepper", tag(2, 1))

	// Rename.
	rename := func(key, label string) error {
		_, err := s.ChangeAppPassword(ctx, "alice", key, auth.AppPasswordChange{Label: label, LabelKey: strings.ToLower(label)}, "root")
		return err
	}
	for _, tt := range []struct {
		key, label string
		want       error
	}{
		{"phone", "PHONE", nil}, {"phone", "Mobile", nil}, {"phone", "x", auth.ErrNoLabel},
		{"mobile", "same value, other pepper", auth.ErrLabelTaken},
	} {
		if err := rename(tt.key, tt.label); !errors.Is(err, tt.want) {
			t.Errorf("ChangeAppPassword(%q, %q) = %v, want %v", tt.key, tt.label, err, tt.want)
		}
	}

	// Revoke, again, and use label and tag again.
	r1, err := s.RevokeAppPassword(ctx, "al", "mobile", "lost", "root")
	if err != nil || r1.ID != p.ID || r1.RevokedAt.IsZero() || r1.RevokedBy != "root" || r1.RevokedWhy != "lost" || r1.Live() {
		t.Fatalf("RevokeAppPassword = %+v, %v", r1, err)
	}
	r2, err := s.RevokeAppPassword(ctx, "alice", "mobile", "again", "somebody")
	if d := cmp.Diff(r1, r2, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || d != "" {
		t.Errorf("second RevokeAppPassword: %v (-first +second):\n%s", err, d)
	}
	if _, err := s.RevokeAppPassword(ctx, "alice", "never", "", "root"); !errors.Is(err, auth.ErrNoLabel) {
		t.Errorf("RevokeAppPassword(unknown label) = %v, want ErrNoLabel", err)
	}
	if _, err := s.RevokeAppPassword(ctx, "bob", "mobile", "", "root"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("RevokeAppPassword(unknown login) = %v, want ErrNoAccount", err)
	}
	if err := rename("mobile", "x"); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("ChangeAppPassword of a revoked one = %v, want ErrRevoked", err)
	}
	p3 := addAppPassword(t, s, "alice", "mobile", tag(1, 1))
	if r3, err := s.RevokeAppPassword(ctx, "alice", "mobile", "", "root"); err != nil || r3.ID != p3.ID {
		t.Errorf("RevokeAppPassword = %+v, %v, want the live one", r3, err)
	}

	// An expired one gives its label and its place free, but not its tag.
	old := addAppPassword(t, s, "alice", "tablet", tag(1, 20))
	if _, err := db.Exec("UPDATE app_passwords SET expires_at = now() WHERE id = $1", old.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddAppPassword(ctx, newAppPassword("alice", "tablet", tag(1, 20))); !errors.Is(err, auth.ErrTagTaken) {
		t.Errorf("AddAppPassword with an expired one's tag = %v, want ErrTagTaken", err)
	}
	addAppPassword(t, s, "alice", "tablet", tag(1, 21), func(n *auth.NewAppPassword) { n.LimitPerAccount = 2 })

	tags, err := s.Tags(ctx, "al")
	if err != nil {
		t.Fatal(err)
	}
	wantTags := []auth.Tag{{PepperID: 1, Value: 1}, {PepperID: 2, Value: 1}, {PepperID: 1, Value: 1}, {PepperID: 1, Value: 20}, {PepperID: 1, Value: 21}}
	if d := cmp.Diff(wantTags, tags, cmpopts.SortSlices(func(a, b auth.Tag) bool {
		return a.PepperID < b.PepperID || a.PepperID == b.PepperID && a.Value < b.Value
	})); d != "" {
		t.Errorf("Tags (-want +got):\n%s", d)
	}
	if _, err := s.Tags(ctx, "bob"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("Tags(unknown) = %v, want ErrNoAccount", err)
	}
	addAccount(t, s, "new")
	if tags, err := s.Tags(ctx, "new"); err != nil || len(tags) != 0 {
		t.Errorf("Tags(account without any) = %v, %v", tags, err)
	}

	live, err := s.AppPasswords(ctx, "alice", false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.AppPasswords(ctx, "alice", true)
	if err != nil || len(live) != 2 || len(all) != 5 {
		t.Errorf("AppPasswords: %d live, %d in all, %v, want 2 and 5", len(live), len(all), err)
	}
	if _, err := s.AppPasswords(ctx, "bob", true); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("AppPasswords(unknown) = %v, want ErrNoAccount", err)
	}
	if a, err := s.Account(ctx, "alice"); err != nil || a.AppPasswords != 2 {
		t.Errorf("Account.AppPasswords = %d, %v, want 2", a.AppPasswords, err)
	}
	for _, e := range events(t, db) {
		if strings.Contains(e, "argon2") {
			t.Errorf("event holds a hash: %s", e)
		}
	}
	if got := strings.Count(strings.Join(events(t, db), "\n"), "app_password.revoked"); got != 2 {
		t.Errorf("%d revocations in the audit log, want 2", got)
	}
}

// TestAppPasswordRaces: two admins at once.
func TestAppPasswordRaces(t *testing.T) {
	s, url := storetest.New(t)
	s2 := storetest.Open(t, store.Config{URL: url})
	addAccount(t, s, "alice")
	tests := []struct {
		name string
		make func(i int) auth.NewAppPassword
		want error
		ok   int
	}{
		{"one label", func(i int) auth.NewAppPassword { return newAppPassword("alice", "one", tag(1, uint16(i))) }, auth.ErrLabelTaken, 1},
		{"one tag", func(i int) auth.NewAppPassword { return newAppPassword("alice", fmt.Sprint("t", i), tag(1, 5000)) }, auth.ErrTagTaken, 1},
		{"limit", func(i int) auth.NewAppPassword {
			return newAppPassword("alice", fmt.Sprint("l", i), tag(1, uint16(6000+i)), func(n *auth.NewAppPassword) { n.LimitPerAccount = 5 })
		}, auth.ErrLimit, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			ok := 0
			for i := range 16 {
				wg.Go(func() {
					_, err := []*store.Store{s, s2}[i%2].AddAppPassword(context.Background(), tt.make(i))
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						ok++
					} else if !errors.Is(err, tt.want) {
						t.Errorf("AddAppPassword = %v, want %v", err, tt.want)
					}
				})
			}
			wg.Wait()
			if ok != tt.ok {
				t.Errorf("%d succeeded, want %d", ok, tt.ok)
			}
		})
	}
}

func TestTombstonesBounded(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	a := addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "kept", tag(1, 1))
	if _, err := db.Exec(`INSERT INTO app_passwords (account_id, label, label_key, holds_label, phc, origin, created_by, revoked_at)
		SELECT $1, 'old ' || n, 'old ' || n, false, 'x', 'imported', 'admin', now() FROM generate_series(1, 1500) n`, a.ID); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "alice", "new", tag(1, 2))
	all, err := s.AppPasswords(t.Context(), "alice", true)
	if err != nil || len(all) != 1002 || all[0].Label != "kept" || all[1].Label != "old 501" {
		t.Fatalf("AppPasswords: %d, %v, want 1002, without the oldest tombstones", len(all), err)
	}
	found, err := s.Lookup(t.Context(), "alice", []auth.Tag{{PepperID: 1, Value: 1}})
	if err != nil || len(found.Candidates) != 1001 {
		t.Errorf("Lookup: %d candidates, %v, want 1001", len(found.Candidates), err)
	}
}

func TestPeppers(t *testing.T) {
	s, _ := storetest.New(t)
	ctx := t.Context()
	for _, id := range []int32{1, 2, 1} {
		if err := s.RegisterPepper(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "x", tag(7, 1)) // registers its own
	for _, tt := range []struct{ known, want []int32 }{
		{nil, []int32{1, 2, 7}}, {[]int32{2}, []int32{1, 7}}, {[]int32{7, 2, 1, 9}, nil},
	} {
		got, err := s.UnknownPeppers(ctx, tt.known)
		if d := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); err != nil || d != "" {
			t.Errorf("UnknownPeppers(%v): %v (-want +got):\n%s", tt.known, err, d)
		}
	}
}

// Whether a wrong password can cost a slow hash: by a row without a tag, live or not, or by a pepper that is not ours.
func TestSlowRows(t *testing.T) {
	s, url := storetest.New(t)
	slow := func(when string, known []int32, want bool) {
		t.Helper()
		if got, err := s.SlowRows(t.Context(), known); err != nil || got != want {
			t.Errorf("%s: SlowRows(%v) = %v, %v, want %v", when, known, got, err, want)
		}
	}
	slow("with nothing", nil, false)
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "x", tag(7, 1))
	slow("with a tagged row", []int32{9, 7}, false)
	slow("with one of another pepper", []int32{9}, true)
	slow("without a pepper", nil, true)
	doImport(t, s, auth.Import{Rows: []auth.ImportRow{importedRow("carol", "1", "mail")}})
	slow("with an imported row", []int32{7}, true)
	if _, err := storetest.DB(t, url).Exec("UPDATE app_passwords SET revoked_at = now(), holds_label = false WHERE tag IS NULL"); err != nil {
		t.Fatal(err)
	}
	slow("with a revoked one", []int32{7}, true)
}

func TestAdminFrozen(t *testing.T) {
	s, _ := storetest.New(t)
	addAccount(t, s, "alice")
	thaw := freeze(t, storetest.Cluster(t).PID())
	if _, err := s.Account(t.Context(), "alice"); err == nil {
		t.Error("Account of a frozen database = nil, want an error")
	}
	thaw()
	eventually(t, "it works again", func() bool { _, err := s.Account(t.Context(), "alice"); return err == nil })
}

// With MakeAccount the account comes into being with the app password, or not at all, also when many ask at once.
func TestAppPasswordMakesAccount(t *testing.T) {
	s, _ := storetest.New(t)
	add := func(make bool, i int) error {
		_, err := s.AddAppPassword(t.Context(), newAppPassword("alice", fmt.Sprint("l", i), tag(1, uint16(i)), func(n *auth.NewAppPassword) { n.MakeAccount = make }))
		return err
	}
	if err := add(false, 0); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("AddAppPassword = %v, want ErrNoAccount", err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			err := add(true, i)
			if errors.Is(err, auth.ErrLoginTaken) { // another one made it
				err = add(true, i)
			}
			if err != nil {
				t.Errorf("AddAppPassword %d = %v", i, err)
			}
		})
	}
	wg.Wait()
	if a, err := s.Account(t.Context(), "alice"); err != nil || a.AppPasswords != 4 || !a.Enabled {
		t.Errorf("Account = %+v, %v, want 4 app passwords", a, err)
	}
}
