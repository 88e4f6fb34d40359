package store_test

import (
	"context"
	"errors"
	"fmt"
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

func TestGroups(t *testing.T) {
	s, url := storetest.New(t)
	ctx := t.Context()
	for _, login := range []string{"alice", "bob", "carol"} {
		addAccount(t, s, login, login+"@example.org")
	}
	addPerson(t, s, auth.NewAccount{Login: "wiki", Kind: auth.Reader})
	g, err := s.AddGroup(ctx, auth.NewGroup{Name: "staff", DisplayName: "The staff", Attributes: map[string][]string{"gidNumber": {"100"}, "description": {"x"}}}, "root")
	if err != nil {
		t.Fatal(err)
	}
	want := auth.Group{Name: "staff", DisplayName: "The staff", Attributes: map[string][]string{"gidNumber": {"100"}, "description": {"x"}}, Members: []string{}}
	varying := cmpopts.IgnoreFields(auth.Group{}, "UUID", "CreatedAt", "ModifiedAt")
	if d := cmp.Diff(want, g, varying); d != "" || len(g.UUID) != 36 || g.CreatedAt.IsZero() || g.ModifiedAt.IsZero() {
		t.Errorf("AddGroup = %+v (-want +got):\n%s", g, d)
	}
	if _, err := s.AddGroup(ctx, auth.NewGroup{Name: "staff"}, "root"); !errors.Is(err, auth.ErrGroupTaken) {
		t.Errorf("AddGroup of a taken name = %v, want ErrGroupTaken", err)
	}

	name := "Staff"
	for _, tt := range []struct {
		name   string
		change auth.GroupChange
		want   string // members, or the error
	}{
		{"add", auth.GroupChange{AddMembers: []string{"bob", "alice@example.org", "alice"}}, "[alice bob]"},
		{"add again", auth.GroupChange{AddMembers: []string{"alice"}}, "[alice bob]"},
		{"unknown login", auth.GroupChange{AddMembers: []string{"carol", "nobody"}}, auth.ErrNoAccount.Error()},
		{"a reader", auth.GroupChange{AddMembers: []string{"carol", "wiki"}}, auth.ErrNotPerson.Error()},
		{"one comes, one goes", auth.GroupChange{AddMembers: []string{"carol"}, RemoveMembers: []string{"bob@example.org"}}, "[alice carol]"},
		{"remove one who is not in it", auth.GroupChange{RemoveMembers: []string{"bob"}}, "[alice carol]"},
		{"record", auth.GroupChange{DisplayName: &name, Attributes: map[string][]string{"GIDnumber": {"7"}, "description": {}}}, "[alice carol]"},
		{"record again", auth.GroupChange{DisplayName: &name, Attributes: map[string][]string{"GIDnumber": {"7"}, "description": nil}}, "[alice carol]"},
	} {
		g, err := s.ChangeGroup(ctx, "staff", tt.change, "root")
		got := fmt.Sprint(g.Members)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: ChangeGroup = %s, want %s", tt.name, got, tt.want)
		}
	}
	want = auth.Group{Name: "staff", DisplayName: "Staff", Attributes: map[string][]string{"GIDnumber": {"7"}}, Members: []string{"alice", "carol"}, MemberCount: 2}
	if g, err := s.Group(ctx, "staff"); err != nil || cmp.Diff(want, g, varying) != "" {
		t.Errorf("Group: %v (-want +got):\n%s", err, cmp.Diff(want, g, varying))
	}
	if a, err := s.Account(ctx, "alice"); err != nil || cmp.Diff([]string{"staff"}, a.Groups) != "" {
		t.Errorf("Account.Groups = %q, %v, want staff", a.Groups, err)
	}
	addGroup(t, s, "empty")
	if list, err := s.Groups(ctx, "", 1); err != nil || names(list) != "empty" {
		t.Errorf("Groups = %q, %v, want empty", names(list), err)
	}
	if list, err := s.Groups(ctx, "empty", 5); err != nil || names(list) != "staff" || list[0].MemberCount != 2 || len(list[0].Members) != 0 {
		t.Errorf("Groups = %+v, %v, want staff with the number of its members", list, err)
	}
	if err := s.DeleteAccount(ctx, "carol", "root"); err != nil {
		t.Fatal(err)
	}
	if g, err := s.Group(ctx, "staff"); err != nil || fmt.Sprint(g.Members) != "[alice]" {
		t.Errorf("Members after an account was deleted = %v, %v, want alice", g.Members, err)
	}
	if err := s.DeleteGroup(ctx, "staff", "root"); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Account(ctx, "alice"); err != nil || len(a.Groups) != 0 {
		t.Errorf("Account.Groups = %q, %v, want none", a.Groups, err)
	}
	for what, err := range map[string]error{
		"DeleteGroup": s.DeleteGroup(ctx, "staff", "root"),
		"Group":       func() error { _, err := s.Group(ctx, "staff"); return err }(),
		"ChangeGroup": func() error { _, err := s.ChangeGroup(ctx, "staff", auth.GroupChange{}, "root"); return err }(),
	} {
		if !errors.Is(err, auth.ErrNoGroup) {
			t.Errorf("%s of a deleted group = %v, want ErrNoGroup", what, err)
		}
	}
	var got []string
	for _, e := range events(t, storetest.DB(t, url)) {
		if !strings.HasPrefix(e, "account.") {
			got = append(got, e)
		}
	}
	if d := cmp.Diff([]string{"group.added root", "group.member_added root alice", "group.member_added root bob", "group.member_added root carol",
		"group.member_removed root bob", "group.changed root", "group.added admin", "group.deleted root"}, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	var detail string
	if err := storetest.DB(t, url).QueryRow("SELECT string_agg(DISTINCT detail->>'group', ' ') FROM events WHERE kind LIKE 'group.%'").Scan(&detail); err != nil || detail != "empty staff" {
		t.Errorf("groups in the events = %q, %v, want each", detail, err)
	}
}

// TestModified: what belongs to an entry counts for the time of its last change.
func TestModified(t *testing.T) {
	s, _ := storetest.New(t)
	ctx := t.Context()
	addAccount(t, s, "alice")
	addAccount(t, s, "bob")
	addGroup(t, s, "staff", "alice")
	type times struct{ alice, bob, staff time.Time }
	now := func() (x times) {
		a, err1 := s.Account(ctx, "alice")
		b, err2 := s.Account(ctx, "bob")
		g, err3 := s.Group(ctx, "staff")
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		return times{a.ModifiedAt, b.ModifiedAt, g.ModifiedAt}
	}
	name := "New"
	off := false
	group := func(c auth.GroupChange) func() error {
		return func() error { _, err := s.ChangeGroup(ctx, "staff", c, "root"); return err }
	}
	account := func(c auth.AccountChange) func() error {
		return func() error { _, err := s.ChangeAccount(ctx, "alice", c, "root"); return err }
	}
	for _, tt := range []struct {
		name string
		do   func() error
		want string // what is modified
	}{
		{"add a member", group(auth.GroupChange{AddMembers: []string{"bob"}}), "bob staff"},
		{"add a member who is in it", group(auth.GroupChange{AddMembers: []string{"bob"}}), ""},
		{"rename the group", group(auth.GroupChange{DisplayName: &name}), "staff"},
		{"remove a member", group(auth.GroupChange{RemoveMembers: []string{"bob"}}), "bob staff"},
		{"rename the account", account(auth.AccountChange{DisplayName: &name}), "alice"},
		{"rename it so again", account(auth.AccountChange{DisplayName: &name}), ""},
		{"attribute", account(auth.AccountChange{Attributes: map[string][]string{"l": {"Bern"}}}), "alice"},
		{"attribute again", account(auth.AccountChange{Attributes: map[string][]string{"l": {"Bern"}}}), ""},
		{"userdb", account(auth.AccountChange{Userdb: map[string]string{"home": "/h"}}), "alice"},
		{"alias", account(auth.AccountChange{AddAliases: []string{"al"}}), "alice"},
		{"alias again", account(auth.AccountChange{AddAliases: []string{"al", "alice"}, RemoveAliases: []string{"alice", "nobody"}}), ""},
		{"disable", account(auth.AccountChange{Enabled: &off}), "alice staff"},
		{"disable again", account(auth.AccountChange{Enabled: &off}), ""},
		{"nothing", account(auth.AccountChange{}), ""},
		{"delete another group", func() error { addGroup(t, s, "x", "bob"); return s.DeleteGroup(ctx, "x", "root") }, "bob"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := now()
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			after := now()
			var got []string
			for _, x := range []struct {
				name    string
				changed bool
			}{{"alice", after.alice.After(before.alice)}, {"bob", after.bob.After(before.bob)}, {"staff", after.staff.After(before.staff)}} {
				if x.changed {
					got = append(got, x.name)
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("modified = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestChangeAccount(t *testing.T) {
	s, url := storetest.New(t)
	ctx := t.Context()
	addPerson(t, s, auth.NewAccount{Login: "alice", Aliases: []string{"al"}, Userdb: map[string]string{"uid": "1", "home": "/h"}})
	addAccount(t, s, "bob")
	a, err := s.ChangeAccount(ctx, "al", auth.AccountChange{Userdb: map[string]string{"uid": "", "quota": "5G"}, AddAliases: []string{"ally"}, RemoveAliases: []string{"al"}}, "root")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"home": "/h", "quota": "5G"}, a.Userdb); d != "" {
		t.Errorf("Userdb (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"ally"}, a.Aliases); d != "" {
		t.Errorf("Aliases (-want +got):\n%s", d)
	}
	for login, want := range map[string]bool{"alice": true, "ally": true, "al": false} {
		if f, err := s.Lookup(ctx, login, nil); err != nil || (f != nil) != want {
			t.Errorf("Lookup(%q) = %v, %v, want an account: %v", login, f, err, want)
		}
	}
	name := "X"
	if _, err := s.ChangeAccount(ctx, "alice", auth.AccountChange{DisplayName: &name, AddAliases: []string{"bob"}}, "root"); !errors.Is(err, auth.ErrLoginTaken) {
		t.Errorf("ChangeAccount with another's login = %v, want ErrLoginTaken", err)
	}
	if a, err := s.Account(ctx, "alice"); err != nil || a.DisplayName != "" {
		t.Errorf("Account = %q, %v, want nothing of the refused change", a.DisplayName, err)
	}
	if _, err := s.ChangeAccount(ctx, "nobody", auth.AccountChange{}, "root"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("ChangeAccount of nobody = %v, want ErrNoAccount", err)
	}
	var detail string
	if err := storetest.DB(t, url).QueryRow("SELECT string_agg(detail::text, ';') FROM events WHERE kind = 'account.changed'").Scan(&detail); err != nil {
		t.Fatal(err)
	}
	if want := `{"userdb": ["quota", "uid"], "aliases_added": ["ally"], "aliases_removed": ["al"]}`; detail != want {
		t.Errorf("detail of the event = %s, want %s", detail, want)
	}
}

func TestGroupLimits(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	addAccount(t, s, "bob")
	addGroup(t, s, "big")
	if _, err := db.Exec(fmt.Sprintf(`WITH a AS (INSERT INTO accounts (login) SELECT 'u' || n FROM generate_series(1, %d) n RETURNING id)
		INSERT INTO group_members (group_id, account_id) SELECT g.id, a.id FROM a, groups g`, auth.MaxGroupMembers-1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ChangeGroup(t.Context(), "big", auth.GroupChange{AddMembers: []string{"alice", "bob"}}, "root"); !errors.Is(err, auth.ErrGroupLimit) {
		t.Errorf("ChangeGroup beyond the limit = %v, want ErrGroupLimit", err)
	}
	if g, err := s.ChangeGroup(t.Context(), "big", auth.GroupChange{AddMembers: []string{"alice"}}, "root"); err != nil || g.MemberCount != auth.MaxGroupMembers {
		t.Errorf("ChangeGroup to the limit = %d, %v, want %d", g.MemberCount, err, auth.MaxGroupMembers)
	}
	if _, err := db.Exec(fmt.Sprintf(`WITH g AS (INSERT INTO groups (name) SELECT 'g' || n FROM generate_series(1, %d) n RETURNING id)
		INSERT INTO group_members (group_id, account_id) SELECT g.id, a.id FROM g, accounts a WHERE a.login = 'bob'`, auth.MaxGroups)); err != nil {
		t.Fatal(err)
	}
	addGroup(t, s, "one-more")
	if _, err := s.ChangeGroup(t.Context(), "one-more", auth.GroupChange{AddMembers: []string{"bob"}}, "root"); !errors.Is(err, auth.ErrGroupLimit) {
		t.Errorf("ChangeGroup for one in as many groups as may be = %v, want ErrGroupLimit", err)
	}
	begin := time.Now()
	if err := s.DeleteGroup(t.Context(), "big", "root"); err != nil {
		t.Errorf("DeleteGroup of a full group = %v after %v", err, time.Since(begin))
	}
}

// TestGroupRaces: admins who change members, accounts and groups at once neither fail nor lose anything.
func TestGroupRaces(t *testing.T) {
	s, url := storetest.New(t)
	s2 := storetest.Open(t, store.Config{URL: url})
	const n = 8
	for i := range n {
		addAccount(t, s, fmt.Sprint("user", i))
	}
	addGroup(t, s, "a")
	addGroup(t, s, "b")
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			st := []*store.Store{s, s2}[i%2]
			login := fmt.Sprint("user", i)
			name := "x"
			for _, group := range [][]string{{"a", "b"}, {"b", "a"}}[i%2] {
				if _, err := st.ChangeGroup(context.Background(), group, auth.GroupChange{AddMembers: []string{login, fmt.Sprint("user", (i+1)%n)}}, "root"); err != nil {
					t.Errorf("ChangeGroup: %v", err)
				}
				if _, err := st.ChangeAccount(context.Background(), login, auth.AccountChange{DisplayName: &name}, "root"); err != nil {
					t.Errorf("ChangeAccount: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, group := range []string{"a", "b"} {
		if g, err := s.Group(t.Context(), group); err != nil || g.MemberCount != n {
			t.Errorf("Group(%q) has %d members, %v, want %d", group, g.MemberCount, err, n)
		}
	}
}
