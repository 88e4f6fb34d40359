package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

const foreignHash = "{SSHA256}oXn5nT7iG6AmcAdGk2T6AuxoqAPJd0wB1OZtwvrtAAQ+k7oJ7PBHmQ=="

func importedRow(login, key, label string) auth.ImportRow {
	return auth.ImportRow{Account: auth.NewAccount{Login: login}, Enabled: true,
		AppPassword: &auth.ImportedPassword{Key: key, Label: label, LabelKey: strings.ToLower(label), PHC: foreignHash}}
}

func doImport(t *testing.T, s *store.Store, n auth.Import) []auth.ImportOutcome {
	t.Helper()
	n.Source, n.By = "test", "root"
	out, err := s.Import(t.Context(), n)
	if err != nil {
		t.Fatalf("Import = %v", err)
	}
	return out
}

// short is an outcome for comparison.
func short(o auth.ImportOutcome) string {
	return fmt.Sprintf("%s account=%s password=%s label=%q why=%q notes=%q", o.Login, o.Account, o.AppPassword, o.Label, o.Why, o.Notes)
}

func wantOutcomes(t *testing.T, got []auth.ImportOutcome, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d outcomes, want %d", len(got), len(want))
	}
	for i, w := range want {
		if s := short(got[i]); !strings.Contains(s, w) {
			t.Errorf("outcome %d: %s, want %s", i, s, w)
		}
	}
}

func TestImport(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	if _, err := s.ChangeAccount(t.Context(), "alice", auth.AccountChange{AddAliases: []string{"al"}, Attributes: map[string][]string{"mail": {"alice@here"}}}, "root"); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	if _, err := s.AddAccount(t.Context(), auth.NewAccount{Kind: auth.Reader, Login: "reader"}, "root"); err != nil {
		t.Fatal(err)
	}

	filled := importedRow("al", "1", "Phone")
	filled.Account.DisplayName, filled.Account.Aliases = "Alice", []string{"ally", "bob"}
	filled.Account.Attributes = map[string][]string{"MAIL": {"alice@there"}, "title": {"Boss"}}
	filled.Account.Userdb = map[string]string{"quota": "5G"}
	filled.Groups = []string{"staff"}
	bob := importedRow("bob", "2", "laptop")
	bob.Groups, bob.Enabled = []string{"staff", "vpn"}, false
	bob.UUID, bob.CreatedAt = "6f2c1c9e-0a5b-4c3d-9e8f-7a6b5c4d3e2f", time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	missing := auth.ImportRow{MustExist: true, Account: auth.NewAccount{Login: "nobody", Aliases: []string{"someone"}}}
	n := auth.Import{Groups: []auth.ImportGroup{{NewGroup: auth.NewGroup{Name: "vpn", DisplayName: "Tunnel"}}},
		Rows: []auth.ImportRow{bob, filled, importedRow("bob", "3", "laptop"), missing, importedRow("reader", "4", "x"), importedRow("carol", "5", "x")}}
	want := []string{
		`bob account=added password=added label="laptop" why="" notes=[]`,
		`alice account=changed password=added label="Phone (2)" why="" notes=["the alias bob means another account already"]`,
		`bob account=there password=added label="laptop (2)"`,
		`nobody account=skipped password= label="" why="there is no such account"`,
		`reader account=skipped password= label="" why="the account of this login is of another kind: reader"`,
		`carol account=added password=added label="x"`,
	}

	dry := n
	dry.DryRun = true
	wantOutcomes(t, doImport(t, s, dry), want...)
	var rows int
	if err := db.QueryRow("SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM groups) + (SELECT count(*) FROM app_passwords)").Scan(&rows); err != nil || rows != 3 {
		t.Errorf("after a dry run there are %d rows (%v), want the 3 of before", rows, err)
	}
	wantOutcomes(t, doImport(t, s, n), want...)

	a, err := s.Account(t.Context(), "ally")
	if err != nil || a.Login != "alice" || a.DisplayName != "Alice" || a.Attributes["mail"][0] != "alice@here" || a.Attributes["title"][0] != "Boss" || a.Userdb["quota"] != "5G" ||
		fmt.Sprint(a.Groups) != "[staff]" {
		t.Errorf("alice = %+v, %v: want what she lacked added, and the rest as it was", a, err)
	}
	b, err := s.Account(t.Context(), "bob")
	if err != nil || b.Enabled || b.UUID != bob.UUID || !b.CreatedAt.Equal(bob.CreatedAt.Truncate(time.Microsecond)) || fmt.Sprint(b.Groups) != "[staff vpn]" || b.AppPasswords != 2 {
		t.Errorf("bob = %+v, %v", b, err)
	}
	if g, err := s.Group(t.Context(), "vpn"); err != nil || g.DisplayName != "Tunnel" || g.MemberCount != 1 {
		t.Errorf("vpn = %+v, %v", g, err)
	}
	found, err := s.Lookup(t.Context(), "bob", nil)
	if err != nil || len(found.Candidates) != 2 || found.Candidates[0].PHC != foreignHash || found.Candidates[0].Origin != auth.Imported {
		t.Errorf("Lookup(bob) = %+v, %v, want the two imported rows", found, err)
	}

	// Again: nothing is new, and no event tells of it.
	var events, eventsAfter int
	db.QueryRow("SELECT count(*) FROM events").Scan(&events)
	again := doImport(t, s, n)
	wantOutcomes(t, again, "account=there password=there", "account=there password=there", "account=there password=there", "skipped", "skipped", "account=there password=there")
	if err := db.QueryRow("SELECT count(*) FROM events").Scan(&eventsAfter); err != nil || eventsAfter != events {
		t.Errorf("importing again left %d events (%v), want none", eventsAfter-events, err)
	}

	// A hash that changed there is not taken over, and what was revoked here does not come back.
	changed := importedRow("carol", "5", "x")
	changed.AppPassword.PHC = strings.Replace(foreignHash, "oXn5", "aXn5", 1)
	wantOutcomes(t, doImport(t, s, auth.Import{Rows: []auth.ImportRow{changed}}), `password=skipped label="x" why="it was taken over before and has another password there now`)
	if _, err := s.RevokeAppPassword(t.Context(), "carol", "x", "", "root"); err != nil {
		t.Fatal(err)
	}
	wantOutcomes(t, doImport(t, s, auth.Import{Rows: []auth.ImportRow{importedRow("carol", "5", "x")}}), `password=skipped label="x" why="it was taken over before and has been revoked here since"`)
}

// The caps: imported app passwords of an account, and all of them.
func TestImportLimits(t *testing.T) {
	s, _ := storetest.New(t)
	var n auth.Import
	for i := range auth.MaxImported + 1 {
		n.Rows = append(n.Rows, importedRow("alice", fmt.Sprint(i), fmt.Sprintf("label %d", i)))
	}
	out := doImport(t, s, n)
	if got := short(out[auth.MaxImported]); !strings.Contains(got, "password=skipped") || !strings.Contains(got, "has 8 imported app passwords") {
		t.Errorf("one too many: %s", got)
	}
	out = doImport(t, s, auth.Import{LimitPerAccount: 1, Rows: []auth.ImportRow{importedRow("bob", "1", "a"), importedRow("bob", "2", "b")}})
	wantOutcomes(t, out, "password=added", `why="the account has 1 app passwords, as many as it may"`)
	if _, err := s.Import(t.Context(), auth.Import{Source: "test", Rows: make([]auth.ImportRow, 1001)}); err == nil {
		t.Error("1001 rows at a time were taken")
	}
}

// A label that is taken gets a number within its bound, also the longest.
func TestImportLabels(t *testing.T) {
	s, _ := storetest.New(t)
	long := strings.Repeat("é", auth.MaxLabel)
	out := doImport(t, s, auth.Import{Rows: []auth.ImportRow{importedRow("alice", "1", long), importedRow("alice", "2", long), importedRow("alice", "3", long)}})
	for i, want := range []string{long, long[:2*(auth.MaxLabel-4)] + " (2)", long[:2*(auth.MaxLabel-4)] + " (3)"} {
		if out[i].Label != want {
			t.Errorf("label %d = %q, want %q", i, out[i].Label, want)
		}
	}
	rename := auth.AppPasswordChange{Label: "other", LabelKey: "other"}
	if _, err := s.ChangeAppPassword(t.Context(), "alice", strings.Repeat("é", auth.MaxLabel-4)+" (2)", rename, "root"); err != nil {
		t.Errorf("the numbered one is not found by its label: %v", err)
	}
}

// Two imports of the same at once take each app password once.
func TestImportAtOnce(t *testing.T) {
	s, url := storetest.New(t)
	other := storetest.Open(t, store.Config{URL: url})
	var n auth.Import
	for i := range 100 {
		r := importedRow(fmt.Sprintf("user%d", i), fmt.Sprint(i), "phone")
		r.Groups = []string{"staff"}
		n.Rows = append(n.Rows, r)
	}
	n.Source, n.By = "test", "root"
	results := make(chan error, 4)
	for i := range 4 {
		go func() {
			_, err := []*store.Store{s, other}[i%2].Import(t.Context(), n)
			results <- err
		}()
	}
	for range 4 {
		if err := <-results; err != nil {
			t.Errorf("Import = %v", err)
		}
	}
	var rows, members int
	if err := storetest.DB(t, url).QueryRow("SELECT (SELECT count(*) FROM app_passwords), (SELECT count(*) FROM group_members)").Scan(&rows, &members); err != nil || rows != 100 || members != 100 {
		t.Errorf("there are %d app passwords and %d members (%v), want 100 and 100", rows, members, err)
	}
}

func TestReplacePHC(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	doImport(t, s, auth.Import{Rows: []auth.ImportRow{importedRow("alice", "1", "a"), importedRow("alice", "2", "b")}})
	addAppPassword(t, s, "alice", "generated", tag(1, 1))
	if _, err := s.RevokeAppPassword(t.Context(), "alice", "b", "", "root"); err != nil {
		t.Fatal(err)
	}
	id := func(label string) (id int64) {
		if err := db.QueryRow("SELECT id FROM app_passwords WHERE label = $1", label).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	var phc string
	db.QueryRow("SELECT phc FROM app_passwords WHERE label = 'generated'").Scan(&phc)
	for _, tt := range []struct {
		name string
		id   int64
		old  string
		want bool
	}{
		{"another hash meanwhile", id("a"), "{SSHA}x", false},
		{"as it was", id("a"), foreignHash, true},
		{"again", id("a"), foreignHash, false},
		{"revoked", id("b"), foreignHash, false},
		{"generated", id("generated"), phc, false},
		{"gone", 1 << 40, foreignHash, false},
	} {
		if got, err := s.ReplacePHC(t.Context(), tt.id, tt.old, "$argon2id$new"); got != tt.want || err != nil {
			t.Errorf("%s: ReplacePHC = %v, %v, want %v, nil", tt.name, got, err, tt.want)
		}
	}
	var upgraded, waiting int
	if err := db.QueryRow("SELECT count(upgraded_at), count(*) FILTER (WHERE upgraded_at IS NULL AND origin = 'imported') FROM app_passwords").Scan(&upgraded, &waiting); err != nil || upgraded != 1 || waiting != 1 {
		t.Errorf("%d are upgraded and %d wait (%v), want 1 and 1", upgraded, waiting, err)
	}
}

// What was taken over and revoked here does not come back with the next import, however many others have been revoked since.
func TestImportAfterManyTombstones(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	row := importedRow("carol", "5", "x")
	doImport(t, s, auth.Import{Rows: []auth.ImportRow{row}})
	if _, err := s.RevokeAppPassword(t.Context(), "carol", "x", "stolen", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO app_passwords (account_id, label, label_key, holds_label, phc, origin, created_by, revoked_at)
		SELECT id, 'old', 'old', false, $1, 'generated', 'root', now() FROM accounts, generate_series(1, 1100) WHERE login = 'carol'`, phc); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "carol", "new", tag(1, 1)) // drops what is too much
	var kept int
	if err := db.QueryRow("SELECT count(*) FROM app_passwords WHERE revoked_at IS NOT NULL").Scan(&kept); err != nil || kept > 1000+auth.MaxImportedEver {
		t.Errorf("%d tombstones are kept (%v)", kept, err)
	}
	wantOutcomes(t, doImport(t, s, auth.Import{Rows: []auth.ImportRow{row}}), `password=skipped label="x" why="it was taken over before and has been revoked here since"`)
}
