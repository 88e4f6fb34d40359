package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

func addPerson(t testing.TB, s *store.Store, n auth.NewAccount) auth.Account {
	t.Helper()
	a, err := s.AddAccount(t.Context(), n, "admin")
	if err != nil {
		t.Fatalf("AddAccount(%q): %v", n.Login, err)
	}
	return a
}

func addGroup(t testing.TB, s *store.Store, name string, members ...string) {
	t.Helper()
	if _, err := s.AddGroup(t.Context(), auth.NewGroup{Name: name}, "admin"); err != nil {
		t.Fatalf("AddGroup(%q): %v", name, err)
	}
	if len(members) == 0 {
		return
	}
	if _, err := s.ChangeGroup(t.Context(), name, auth.GroupChange{AddMembers: members}, "admin"); err != nil {
		t.Fatalf("ChangeGroup(%q): %v", name, err)
	}
}

func logins(list []auth.Account) string {
	var l []string
	for _, a := range list {
		l = append(l, a.Login)
	}
	return strings.Join(l, " ")
}

func names(list []auth.Group) string {
	var l []string
	for _, g := range list {
		l = append(l, g.Name)
	}
	return strings.Join(l, " ")
}

// town fills a store: people, one of them disabled, a reader, groups.
func town(t testing.TB) (*store.Store, string, map[string]auth.Account) {
	s, url := storetest.New(t)
	all := map[string]auth.Account{}
	for _, n := range []auth.NewAccount{
		{Login: "alice", Aliases: []string{"al", "alice@example.org"}, DisplayName: "Alice  ADAMS", Attributes: map[string][]string{
			"mail": {"Alice@Example.org", "a.adams@example.org"}, "sn": {"Adams"}, "uidNumber": {"01001"}, "l": {"Bern"}}, Userdb: map[string]string{"uid": "1"}},
		{Login: "bob", DisplayName: "Bob", Attributes: map[string][]string{"mail": {"bob@example.org"}, "l": {"bern"}}},
		{Login: "carol", Attributes: map[string][]string{"l": {"BERN"}, "x": {strings.Repeat("y", 2000)}}},
		{Login: "Zoe", Attributes: map[string][]string{"l": {"Bern"}}}, // sorts before lower case, byte by byte
		{Login: "wiki", Kind: auth.Reader, Attributes: map[string][]string{"l": {"Bern"}}, DisplayName: "Bob"},
	} {
		all[n.Login] = addPerson(t, s, n)
	}
	addGroup(t, s, "staff", "alice", "bob", "carol")
	addGroup(t, s, "admins", "bob")
	addGroup(t, s, "empty")
	if err := s.SetAccountEnabled(t.Context(), "carol", false, "admin"); err != nil {
		t.Fatal(err)
	}
	return s, url, all
}

func TestFindAccounts(t *testing.T) {
	s, _, all := town(t)
	d := s.Directory()
	key := func(name, value string) auth.AccountKey { return auth.AccountKey{Search: auth.SearchKey(name, value)} }
	many := make([]auth.AccountKey, 200)
	for i := range many {
		many[i] = auth.AccountKey{Login: fmt.Sprint("nobody", i)}
	}
	tests := []struct {
		name  string
		keys  []auth.AccountKey
		limit int
		want  string
	}{
		{"login", []auth.AccountKey{{Login: "alice"}}, 10, "alice"},
		{"alias", []auth.AccountKey{{Login: "al"}}, 10, "alice"},
		{"login of nobody", []auth.AccountKey{{Login: "nobody"}}, 10, ""},
		{"login of a reader", []auth.AccountKey{{Login: "wiki"}}, 10, ""},
		{"disabled", []auth.AccountKey{{Login: "carol"}}, 10, "carol"},
		{"mail", []auth.AccountKey{key("MAIL", "alice@EXAMPLE.org")}, 10, "alice"},
		{"second value", []auth.AccountKey{key("mail", "a.adams@example.org")}, 10, "alice"},
		{"display name, spaces folded", []auth.AccountKey{key("displayName", " alice adams ")}, 10, "alice"},
		{"display name of a reader too", []auth.AccountKey{key("displayname", "bob")}, 10, "bob"},
		{"number", []auth.AccountKey{key("uidNumber", "1001")}, 10, "alice"},
		{"long value", []auth.AccountKey{key("x", strings.Repeat("Y", 2000))}, 10, "carol"},
		{"value of another attribute", []auth.AccountKey{key("cn", "alice@example.org")}, 10, ""},
		{"value of several, in order", []auth.AccountKey{key("l", "bern")}, 10, "Zoe alice bob carol"},
		{"the first of several", []auth.AccountKey{key("l", "bern")}, 2, "Zoe alice"},
		{"union", []auth.AccountKey{{Login: "bob"}, key("mail", "alice@example.org"), {Login: "al"}}, 10, "alice bob"},
		{"union, the first", []auth.AccountKey{{Login: "bob"}, key("l", "bern")}, 3, "Zoe alice bob"},
		{"logins, in order, each account once", []auth.AccountKey{{Login: "carol"}, {Login: "al"}, {Login: "bob"}, {Login: "alice"}}, 10, "alice bob carol"},
		{"logins, the first", []auth.AccountKey{{Login: "carol"}, {Login: "al"}, {Login: "alice"}, {Login: "bob"}}, 2, "alice bob"},
		{"uuid", []auth.AccountKey{{UUID: all["bob"].UUID}}, 10, "bob"},
		{"uuid of a reader", []auth.AccountKey{{UUID: all["wiki"].UUID}}, 10, ""},
		{"not a uuid", []auth.AccountKey{{UUID: "bob"}}, 10, ""},
		{"group", []auth.AccountKey{{Group: "staff"}}, 10, "alice bob carol"},
		{"group, the first", []auth.AccountKey{{Group: "staff"}}, 2, "alice bob"},
		{"group and others", []auth.AccountKey{{Group: "admins"}, {Login: "alice"}, {UUID: all["bob"].UUID}}, 10, "alice bob"},
		{"empty group", []auth.AccountKey{{Group: "empty"}}, 10, ""},
		{"no keys", nil, 10, ""},
		{"a NUL", []auth.AccountKey{{Login: "a\x00"}, {Search: "mail=\x00"}, {Login: "bob"}}, 10, "bob"},
		{"invalid UTF-8", []auth.AccountKey{{Login: "\xff"}}, 10, ""},
		{"quotes", []auth.AccountKey{{Login: `{"a',\`}, {Search: `mail=","},{`}}, 10, ""},
		{"many keys", append(slices.Clone(many), auth.AccountKey{Login: "bob"}), 10, "bob"},
		{"a big limit", []auth.AccountKey{key("l", "bern")}, 5000, "Zoe alice bob carol"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := d.FindAccounts(t.Context(), tt.keys, tt.limit, auth.AllParts)
			if err != nil || logins(got) != tt.want {
				t.Errorf("FindAccounts(%v, %d) = %q, %v, want %q", tt.keys, tt.limit, logins(got), err, tt.want)
			}
		})
	}
	for _, limit := range []int{0, -1, 1_000_000} {
		if got, err := d.FindAccounts(t.Context(), []auth.AccountKey{{Login: "bob"}}, limit, auth.AllParts); err == nil {
			t.Errorf("FindAccounts with limit %d = %v, nil, want an error", limit, got)
		}
	}
}

func TestEntry(t *testing.T) {
	s, _, all := town(t)
	d := s.Directory()
	for _, login := range []string{"alice", "alice@example.org"} {
		got, err := d.Entry(t.Context(), login)
		want := all["alice"]
		want.Groups = []string{"staff"}
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(auth.Account{}, "ModifiedAt")); err != nil || d != "" {
			t.Errorf("Entry(%q): %v (-want +got):\n%s", login, err, d)
		}
	}
	for _, login := range []string{"nobody", "wiki", "", "a\x00"} {
		if _, err := d.Entry(t.Context(), login); !errors.Is(err, auth.ErrNoAccount) {
			t.Errorf("Entry(%q) = %v, want ErrNoAccount", login, err)
		}
	}
	// Fresh at every call.
	name := "Alice Allen"
	if _, err := s.ChangeAccount(t.Context(), "alice", auth.AccountChange{DisplayName: &name}, "admin"); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Entry(t.Context(), "alice"); err != nil || got.DisplayName != name {
		t.Errorf("Entry = %q, %v, want %q", got.DisplayName, err, name)
	}
}

// What was not asked for is not read, and callers that share a query get what each asked for.
func TestParts(t *testing.T) {
	s, _, all := town(t)
	d := s.Directory()
	whole := all["alice"]
	whole.Groups = []string{"staff"}
	want := func(parts auth.Parts) auth.Account {
		a := whole
		if parts&auth.PartAliases == 0 {
			a.Aliases = []string{}
		}
		if parts&auth.PartGroups == 0 {
			a.Groups = []string{}
		}
		if parts&auth.PartUserdb == 0 {
			a.Userdb = map[string]string{}
		}
		return a
	}
	if len(whole.Aliases) == 0 || len(whole.Userdb) == 0 {
		t.Fatalf("%+v has nothing to leave out", whole)
	}
	check := func(name string, found []auth.Account, err error, parts auth.Parts) {
		t.Helper()
		i := slices.IndexFunc(found, func(a auth.Account) bool { return a.Login == "alice" })
		if err != nil || i < 0 {
			t.Errorf("%s, parts %b: %q, %v, want alice among them", name, parts, logins(found), err)
			return
		}
		if diff := cmp.Diff(want(parts), found[i], cmpopts.IgnoreFields(auth.Account{}, "ModifiedAt"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s, parts %b (-want +got):\n%s", name, parts, diff)
		}
	}
	var wg sync.WaitGroup
	for range 20 { // at once, so that they share queries
		for parts := range auth.AllParts + 1 {
			for name, key := range map[string]auth.AccountKey{"login": {Login: "alice"}, "key": {Search: auth.SearchKey("mail", "alice@example.org")}, "group": {Group: "staff"}} {
				wg.Go(func() {
					found, err := d.FindAccounts(t.Context(), []auth.AccountKey{key}, 10, parts)
					check(name, found, err, parts)
				})
			}
		}
	}
	wg.Wait()
	for parts := range auth.AllParts + 1 {
		found, err := d.Accounts(t.Context(), "", 100, parts)
		check("list", found, err, parts)
	}
}

func TestDirectoryLists(t *testing.T) {
	s, _, _ := town(t)
	d := s.Directory()
	ctx := t.Context()
	var people, groups []string
	for after := ""; ; {
		page, err := d.Accounts(ctx, after, 2, auth.AllParts)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			people = append(people, a.Login)
			after = a.Login
		}
		if len(page) < 2 {
			break
		}
	}
	if d := cmp.Diff([]string{"Zoe", "alice", "bob", "carol"}, people); d != "" {
		t.Errorf("Accounts (-want +got):\n%s", d)
	}
	for after := ""; ; {
		page, err := d.Groups(ctx, after, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range page {
			groups = append(groups, fmt.Sprint(g.Name, g.Members, g.MemberCount))
			after = g.Name
		}
		if len(page) < 1 {
			break
		}
	}
	// Without carol, who is disabled and has no entry.
	if d := cmp.Diff([]string{"admins[bob] 1", "empty[] 0", "staff[alice bob] 2"}, groups); d != "" {
		t.Errorf("Groups (-want +got):\n%s", d)
	}
	staff, err := s.Group(ctx, "staff")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		keys  []auth.GroupKey
		limit int
		want  string
	}{
		{"name", []auth.GroupKey{{Name: "staff"}}, 10, "staff"},
		{"nothing", []auth.GroupKey{{Name: "nothing"}}, 10, ""},
		{"member", []auth.GroupKey{{Member: "bob"}}, 10, "admins staff"},
		{"the first", []auth.GroupKey{{Member: "bob"}}, 1, "admins"},
		{"alias of a member", []auth.GroupKey{{Member: "al"}}, 10, ""},
		{"disabled member", []auth.GroupKey{{Member: "carol"}}, 10, ""},
		{"uuid", []auth.GroupKey{{UUID: staff.UUID}}, 10, "staff"},
		{"union", []auth.GroupKey{{UUID: staff.UUID}, {Member: "bob"}, {Name: "empty"}, {Name: "\x00"}, {UUID: "x"}}, 10, "admins empty staff"},
		{"none", nil, 10, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := d.FindGroups(ctx, tt.keys, tt.limit)
			if err != nil || names(got) != tt.want {
				t.Errorf("FindGroups(%v, %d) = %q, %v, want %q", tt.keys, tt.limit, names(got), err, tt.want)
			}
		})
	}
}

// TestFindTogether: concurrent calls share queries, and each gets its own answer.
func TestFindTogether(t *testing.T) {
	s, url := storetest.New(t)
	fillPeople(t, storetest.DB(t, url), 300)
	d := s.Directory()
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				n := (i*20+j)%300 + 1
				limit := 1 + j%3
				keys := []auth.AccountKey{{Search: auth.SearchKey("mail", fmt.Sprintf("User%d@example.org", n))}}
				want := fmt.Sprintf("user%07d", n)
				if j%5 == 4 {
					keys, want = append(keys, auth.AccountKey{Search: auth.SearchKey("l", "Bern")}), "user0000001"
					if limit > 1 {
						limit, want = 2, "user0000001 user0000002"
					}
				}
				got, err := d.FindAccounts(t.Context(), keys, limit, auth.AllParts)
				if err != nil || logins(got) != want {
					t.Errorf("FindAccounts(%v, %d) = %q, %v, want %q", keys, limit, logins(got), err, want)
				}
			}
		})
	}
	wg.Wait()
	if st := d.Stats(); st.Finds != 1280 || st.Batches >= st.Finds {
		t.Errorf("Stats = %+v, want 1280 finds in fewer queries", st)
	}
}

// TestSlowFind has one shared query wait for a lock: what comes later goes past it.
func TestSlowFind(t *testing.T) {
	s, url, _ := town(t)
	d := s.Directory()
	tx, err := storetest.DB(t, url).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(t.Context(), "LOCK TABLE search_keys IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	before := d.Stats().Batches
	slow := make(chan error, 1)
	go func() {
		_, err := d.FindAccounts(t.Context(), []auth.AccountKey{{Search: "x=y"}}, 1, auth.AllParts)
		slow <- err
	}()
	for d.Stats().Batches == before {
		time.Sleep(time.Millisecond) // between questions
	}
	for range 3 {
		if a, err := d.Entry(t.Context(), "alice"); err != nil || a.Login != "alice" {
			t.Fatalf("Entry beside a slow query = %q, %v", a.Login, err)
		}
	}
	select {
	case err := <-slow:
		t.Fatalf("the query that a lock held up ended: %v", err)
	default:
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; err != nil {
		t.Errorf("FindAccounts after the lock = %v", err)
	}
	if _, err := d.Entry(t.Context(), "alice"); err != nil {
		t.Errorf("Entry after the lock = %v", err)
	}
}

func TestDirectoryOutage(t *testing.T) {
	s, url, _ := town(t)
	d := s.Directory()
	db := storetest.DB(t, url)
	db.SetMaxOpenConns(1) // which is not among those that are killed
	var wg sync.WaitGroup
	for range 2 * 6 { // all connections are in use
		wg.Go(func() {
			if _, err := d.Accounts(t.Context(), "", 5, auth.AllParts); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := d.Groups(t.Context(), "", 5); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Entry(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	for _, pid := range backends(t, db, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()") {
		if _, err := db.Exec("SELECT pg_terminate_backend($1)", pid); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Entry(t.Context(), "alice"); err != nil {
		t.Errorf("Entry after the connections were lost = %v, want it to take fresh ones", err)
	}
	if _, err := d.Accounts(t.Context(), "", 5, auth.AllParts); err != nil {
		t.Errorf("Accounts after the connections were lost = %v, want it to take fresh ones", err)
	}
	if _, err := d.Groups(t.Context(), "", 5); err != nil { // prepared on a fresh connection
		t.Fatal(err)
	}
	if _, err := db.Exec("ALTER TABLE groups ALTER display_name TYPE varchar(1024)"); err != nil { // spoils it
		t.Fatal(err)
	}
	if _, err := d.Groups(t.Context(), "", 5); err != nil {
		t.Errorf("Groups after its statement was spoilt = %v, want it to be prepared again", err)
	}

	if _, err := db.Exec("REVOKE SELECT ON search_keys, groups FROM valetkey"); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"Entry": func() error { _, err := d.Entry(t.Context(), "nobody"); return err },
		"FindAccounts": func() error {
			_, err := d.FindAccounts(t.Context(), []auth.AccountKey{{Group: "staff"}}, 5, auth.AllParts)
			return err
		},
		"Accounts":   func() error { _, err := d.Accounts(t.Context(), "", 5, auth.AllParts); return err },
		"FindGroups": func() error { _, err := d.FindGroups(t.Context(), []auth.GroupKey{{Name: "x"}}, 5); return err },
		"Groups":     func() error { _, err := d.Groups(t.Context(), "", 5); return err },
	} {
		if err := f(); err == nil || errors.Is(err, auth.ErrNoAccount) {
			t.Errorf("%s without the privilege = %v, want an error that is no answer", name, err)
		}
	}
	if _, err := db.Exec("GRANT SELECT ON search_keys, groups TO valetkey"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it works again", func() bool { _, err := d.Entry(t.Context(), "alice"); return err == nil })

	thaw := freeze(t, storetest.Cluster(t).PID())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Entry(ctx, "nobody"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Entry of a frozen database = %v, want the deadline", err)
	}
	if _, err := d.Accounts(ctx, "", 5, auth.AllParts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Accounts of a frozen database = %v, want the deadline", err)
	}
	thaw()
	eventually(t, "it works after the thaw", func() bool { _, err := d.Entry(t.Context(), "alice"); return err == nil })
	_ = s.Close(t.Context()) // which may find connections that were killed above
	if _, err := d.Entry(t.Context(), "alice"); !errors.Is(err, auth.ErrShuttingDown) {
		t.Errorf("Entry of a closed store = %v, want ErrShuttingDown", err)
	}
}

// keysOf reads the search keys of an account.
func keysOf(t testing.TB, db *sql.DB, login string) []string {
	t.Helper()
	var keys []string
	if err := db.QueryRow("SELECT ARRAY(SELECT key FROM search_keys WHERE login = $1 ORDER BY key)", login).Scan(pq.Array(&keys)); err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestSearchKeysFollow(t *testing.T) {
	s, url, _ := town(t)
	db := storetest.DB(t, url)
	d := s.Directory()
	want := []string{"displayname=alice adams", "l=bern", "mail=a.adams@example.org", "mail=alice@example.org", "sn=adams", "uidnumber=1001"}
	if d := cmp.Diff(want, keysOf(t, db, "alice")); d != "" {
		t.Errorf("keys (-want +got):\n%s", d)
	}
	if got := keysOf(t, db, "wiki"); len(got) != 0 {
		t.Errorf("keys of a reader = %q, want none", got)
	}
	name := ""
	c := auth.AccountChange{DisplayName: &name, Attributes: map[string][]string{"MAIL": {"new@example.org"}, "l": nil, "title": {"Boss"}}}
	a, err := s.ChangeAccount(t.Context(), "al", c, "root")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string][]string{"MAIL": {"new@example.org"}, "sn": {"Adams"}, "title": {"Boss"}, "uidNumber": {"01001"}}, a.Attributes); d != "" {
		t.Errorf("Attributes (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"mail=new@example.org", "sn=adams", "title=boss", "uidnumber=1001"}, keysOf(t, db, "alice")); d != "" {
		t.Errorf("keys after a change (-want +got):\n%s", d)
	}
	if found, err := d.FindAccounts(t.Context(), []auth.AccountKey{{Search: "mail=alice@example.org"}}, 5, auth.AllParts); err != nil || len(found) != 0 {
		t.Errorf("FindAccounts by the old address = %q, %v, want nobody", logins(found), err)
	}
	if err := s.DeleteAccount(t.Context(), "alice", "root"); err != nil {
		t.Fatal(err)
	}
	if got := keysOf(t, db, "alice"); len(got) != 0 {
		t.Errorf("keys of a deleted account = %q, want none", got)
	}
}

// TestSearchKeysMissing: accounts that a program of before the search keys has added are found at once, and get their keys.
func TestSearchKeysMissing(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	const n = 1200 // more than two transactions
	if _, err := db.Exec(`WITH a AS (INSERT INTO accounts (login, display_name, attributes)
			SELECT 'old' || lpad(n::text, 4, '0'), 'Öld ' || n, jsonb_build_object('mail', jsonb_build_array('OLD' || n || '@Example.org')) FROM generate_series(1, ` + fmt.Sprint(n) + `) n
			RETURNING id, login)
		INSERT INTO logins (login, account_id) SELECT login, id FROM a`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("UPDATE accounts SET kind = 'reader' WHERE login = 'old0500'"); err != nil {
		t.Fatal(err)
	}
	key := []auth.AccountKey{{Search: auth.SearchKey("mail", "old1100@example.org")}}
	found, err := s.Directory().FindAccounts(t.Context(), key, 2000, auth.AllParts)
	if err != nil || !strings.Contains(logins(found), "old1100") {
		t.Errorf("FindAccounts before the keys are made = %d accounts, %v, want old1100 among them", len(found), err)
	}
	// That call has set it going.
	eventually(t, "all have keys", func() bool {
		var left int
		if err := db.QueryRow("SELECT count(*) FROM accounts WHERE keyed < 1").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
	if found, err := s.Directory().FindAccounts(t.Context(), key, 2000, auth.AllParts); err != nil || logins(found) != "old1100" {
		t.Errorf("FindAccounts = %q, %v, want old1100", logins(found), err)
	}
	// The same keys as those that AddAccount makes.
	addPerson(t, s, auth.NewAccount{Login: "new", DisplayName: "Öld 7", Attributes: map[string][]string{"mail": {"OLD7@Example.org"}}})
	if d := cmp.Diff(keysOf(t, db, "new"), keysOf(t, db, "old0007")); d != "" || len(keysOf(t, db, "new")) != 2 {
		t.Errorf("keys (-of a new account +of an old one):\n%s", d)
	}
	if got := keysOf(t, db, "old0500"); len(got) != 0 {
		t.Errorf("keys of a reader = %q, want none", got)
	}
}

// TestMigrateFromFirst: a database of the first schema, with accounts, while the first program's statements go on.
func TestMigrateFromFirst(t *testing.T) {
	url := storetest.URL(t)
	db := storetest.DB(t, url)
	first := storetest.Migration(t, "00001_first.sql")
	for _, q := range []string{first,
		"CREATE TABLE " + store.VersionTable + " (id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now())",
		"INSERT INTO " + store.VersionTable + " (version_id, is_applied) VALUES (0, true), (1, true)",
		`WITH a AS (INSERT INTO accounts (login, attributes) SELECT 'user' || n, '{"mail": ["A@b.example"]}' FROM generate_series(1, 700) n RETURNING id, login)
			INSERT INTO logins (login, account_id) SELECT login, id FROM a`,
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	s := storetest.Open(t, store.Config{URL: url})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "keys are made without anybody asking", func() bool {
		var n int
		if err := db.QueryRow("SELECT count(*) FROM search_keys").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 700
	})
	key := []auth.AccountKey{{Search: auth.SearchKey("mail", "a@B.example")}}
	if found, err := s.Directory().FindAccounts(t.Context(), key, 1000, auth.AllParts); err != nil || len(found) != 700 {
		t.Errorf("FindAccounts = %d, %v, want 700", len(found), err)
	}
	if f, err := s.Lookup(t.Context(), "user7", nil); err != nil || f == nil || f.Kind != auth.Person {
		t.Errorf("Lookup = %+v, %v, want a person", f, err)
	}
	// What the first program says when it adds an account.
	if _, err := db.Exec(`INSERT INTO accounts (login, display_name, attributes, userdb) VALUES ('late', '', '{"mail": ["late@b.example"]}', '{}')`); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Directory().FindAccounts(t.Context(), []auth.AccountKey{{Search: "mail=late@b.example"}}, 10, auth.AllParts); err != nil || logins(found) != "late" {
		t.Errorf("FindAccounts of one that an older program added = %q, %v, want late", logins(found), err)
	}
}

func TestLookupReader(t *testing.T) {
	s, _, _ := town(t)
	addAppPassword(t, s, "wiki", "server", tag(1, 1))
	for login, want := range map[string]auth.Kind{"wiki": auth.Reader, "alice": auth.Person, "al": auth.Person} {
		f, err := s.Lookup(t.Context(), login, []auth.Tag{{PepperID: 1, Value: 1}})
		if err != nil || f == nil || f.Kind != want || !f.Enabled {
			t.Errorf("Lookup(%q) = %+v, %v, want kind %v", login, f, err, want)
		}
	}
	for kind, want := range map[auth.Kind]string{auth.Person: "Zoe alice bob carol", auth.Reader: "wiki"} {
		if list, err := s.Accounts(t.Context(), kind, "", 10); err != nil || logins(list) != want || list[0].Kind != kind {
			t.Errorf("Accounts(%v) = %q, %v, want %q", kind, logins(list), err, want)
		}
	}
}

// fillPeople adds people as a site has them, by COPY, with search keys.
func fillPeople(t testing.TB, db *sql.DB, n int) {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	copyIn := func(table string, columns []string, row func(i int, put func(...any))) {
		stmt, err := tx.Prepare(pq.CopyIn(table, columns...))
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i <= n; i++ {
			row(i, func(values ...any) {
				if _, err := stmt.Exec(values...); err != nil {
					t.Fatal(err)
				}
			})
		}
		if _, err := stmt.Exec(); err != nil {
			t.Fatal(err)
		}
		if err := stmt.Close(); err != nil {
			t.Fatal(err)
		}
	}
	login := func(i int) string { return fmt.Sprintf("user%07d", i) }
	attributes := func(i int) map[string]string {
		return map[string]string{"mail": fmt.Sprintf("user%d@example.org", i), "sn": fmt.Sprint("Name", i%50_000), "givenName": fmt.Sprint("Given", i%2000),
			"uidNumber": fmt.Sprint(100_000 + i), "l": "Bern"}
	}
	copyIn("accounts", []string{"login", "display_name", "attributes", "keyed"}, func(i int, put func(...any)) {
		var pairs []string
		for _, k := range slices.Sorted(maps.Keys(attributes(i))) {
			pairs = append(pairs, fmt.Sprintf("%q: [%q]", k, attributes(i)[k]))
		}
		put(login(i), fmt.Sprint("User ", i), "{"+strings.Join(pairs, ", ")+"}", 1)
	})
	if _, err := tx.Exec("INSERT INTO logins (login, account_id) SELECT login, id FROM accounts ON CONFLICT DO NOTHING"); err != nil {
		t.Fatal(err)
	}
	copyIn("search_keys", []string{"key", "login"}, func(i int, put func(...any)) {
		for k, v := range attributes(i) {
			put(auth.SearchKey(k, v), login(i))
		}
		put(auth.SearchKey("displayName", fmt.Sprint("User ", i)), login(i))
	})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestScansLeaveRoom: whoever reads everybody, in however many connections, does not keep others from asking for a group, which programs
// do at each login.
func TestScansLeaveRoom(t *testing.T) {
	s, _, _ := town(t)
	d := s.Directory()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	begun, overloaded := make(chan bool, 1000), make(chan bool, 1000)
	for range 600 { // more than may wait
		wg.Go(func() {
			err := store.Scan(ctx, d, func() error {
				begun <- true
				<-ctx.Done()
				return ctx.Err()
			})
			if errors.Is(err, auth.ErrOverloaded) {
				overloaded <- true
			}
		})
	}
	<-begun
	<-overloaded
	for _, k := range []auth.GroupKey{{Name: "staff"}, {Member: "alice"}} {
		short, stop := context.WithTimeout(t.Context(), 3*time.Second)
		if _, err := d.FindGroups(short, []auth.GroupKey{k}, 10); err != nil {
			t.Errorf("FindGroups(%+v) beside scans: %v", k, err)
		}
		stop()
	}
	if _, err := d.Entry(t.Context(), "alice"); err != nil {
		t.Errorf("Entry beside scans: %v", err)
	}
}

// TestSearchKeysInSmallSteps: where a full step takes longer than a statement may, smaller ones do it. One stuck for ever would make
// every search read all accounts that are left.
func TestSearchKeysInSmallSteps(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	if _, err := db.Exec(`WITH a AS (INSERT INTO accounts (login, attributes)
			SELECT 'old' || lpad(n::text, 4, '0'), jsonb_build_object('mail', jsonb_build_array('old' || n || '@example.org')) FROM generate_series(1, ` + fmt.Sprint(store.KeyBatch) + `) n
			RETURNING id, login)
		INSERT INTO logins (login, account_id) SELECT login, id FROM a`); err != nil {
		t.Fatal(err)
	}
	// A disk on which a statement that adds more than a quarter of a step fails.
	if _, err := db.Exec(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT count(*) FROM added) > ` + fmt.Sprint(store.KeyBatch/4) + ` THEN RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014'; END IF;
			RETURN NULL; END $$;
		CREATE TRIGGER slow AFTER INSERT ON search_keys REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION slow()`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Directory().FindAccounts(t.Context(), []auth.AccountKey{{Search: auth.SearchKey("mail", "x")}}, 10, auth.AllParts); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have keys", func() bool {
		var left int
		if err := db.QueryRow("SELECT count(*) FROM accounts WHERE keyed < 1").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
}

// TestMigrateBesideBackup: building an index waits for every transaction that is older, such as a backup's, which may take hours. It
// keeps nobody out meanwhile, so it must neither give up nor begin anew.
func TestMigrateBesideBackup(t *testing.T) {
	url := storetest.URL(t)
	db := storetest.DB(t, url)
	for _, q := range []string{storetest.Migration(t, "00001_first.sql"), storetest.Migration(t, "00002_directory.sql"),
		"CREATE TABLE " + store.VersionTable + " (id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now())",
		"INSERT INTO " + store.VersionTable + " (version_id, is_applied) VALUES (0, true), (1, true), (2, true)",
		"INSERT INTO accounts (login) VALUES ('alice')",
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	backup, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Rollback()
	if _, err := backup.Exec("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM accounts"); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := storetest.Open(t, store.Config{URL: url, Log: slog.New(slog.NewTextHandler(&log, nil))})
	done := make(chan error, 1)
	go func() { done <- s.Migrate(t.Context()) }()
	eventually(t, "the index waits for longer than other migrations may", func() bool {
		var waits bool
		if err := db.QueryRow(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'virtualxid'
				AND now() - query_start > interval '3 seconds')`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	if _, err := db.Exec("UPDATE accounts SET display_name = 'Alice' WHERE login = 'alice'"); err != nil {
		t.Errorf("a change beside it: %v", err)
	}
	if err := backup.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || strings.Contains(log.String(), "could not have a lock") {
		t.Errorf("Migrate = %v, logged %q, want it done without another try", err, log.String())
	}
	var timeout string
	if err := db.QueryRow("SELECT count(*) FROM pg_index WHERE NOT indisvalid").Scan(&timeout); err != nil || timeout != "0" {
		t.Errorf("%s invalid indexes, %v", timeout, err)
	}
}
