package admin

import (
	"bytes"
	stdcmp "cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type rig struct {
	store   *memory
	service *Service
	client  *Client
	socket  string
	log     *strings.Builder
}

// newRig serves a Service on a Unix socket and returns a client of it.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{store: &memory{}, log: new(strings.Builder)}
	r.service = &Service{Store: r.store, Ring: secret.NewRing(), Hashes: auth.NewAdmission(1, 10), Length: 16, Limit: 3,
		Now: func() time.Time { return now }}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	r.socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(func() *Service { return r.service }, func(context.Context) Status {
		return Status{Version: "v", Peppers: []string{}, Listeners: []Listener{}, Enrolment: Plugin{Require: "login", OnError: "last_known", LastKnown: "24h0m0s"}}
	}, log)
	s.http.Handler = held(t, s.http.Handler)
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil after Shutdown", err)
		}
	})
	r.client = NewClient(r.socket)
	return r
}

func code(err error) string {
	var r *RefusedError
	if errors.As(err, &r) {
		return fmt.Sprintf("%d %s", r.Status, r.Code)
	}
	return fmt.Sprint(err)
}

func TestLifeOfAnAppPassword(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	a, err := r.client.AddAccount(ctx, NewAccount{Login: "Alice", Aliases: []string{"ALICE@example.org", "alice"}, DisplayName: " Alice Adams "})
	if err != nil {
		t.Fatal(err)
	}
	if a.Login != "alice" || a.DisplayName != "Alice Adams" || !cmp.Equal(a.Aliases, []string{"alice@example.org"}) || !a.Enabled {
		t.Errorf("AddAccount = %+v, want normalised names, each once", a)
	}
	end := now.Add(time.Hour)
	c, err := r.client.Create(ctx, "alice@example.org", NewAppPassword{
		Label: "  My  Phone ", Services: []string{"IMAP", "imap", "smtp"}, Networks: []string{"192.0.2.7", "2001:db8::/32"}, ExpiresAt: &end,
	})
	if err != nil {
		t.Fatal(err)
	}
	text, ok := secret.Normalise(c.Secret)
	if !ok || c.Secret != secret.Format(text) {
		t.Errorf("secret of %d bytes is not of the form abcd-efgh-ijkl-mnop", len(c.Secret))
	}
	row := r.store.rows[0]
	if match, err := secret.Verify(row.phc, text); err != nil || !match {
		t.Errorf("Verify(stored, secret) = %v, %v, want true", match, err)
	}
	if row.tag != r.service.Ring.Tag(text) {
		t.Error("the stored tag is not the secret's")
	}
	if p := c.AppPassword; p.Status != Live || !cmp.Equal(p.Services, []string{"imap", "smtp"}) ||
		!cmp.Equal(p.Networks, []string{"192.0.2.7/32", "2001:db8::/32"}) || p.Login != "alice" {
		t.Errorf("Create = %+v, want normalised services and networks", p)
	}

	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "my phone"}); code(err) != "409 label_taken" {
		t.Errorf("Create with the same label in other case = %v, want label_taken", err)
	}
	if _, err := r.client.Edit(ctx, "alice", "MY phone", AppPasswordPatch{Label: "Tablet"}); err != nil {
		t.Errorf("Rename = %v, want nil", err)
	}
	for range 2 {
		p, err := r.client.Revoke(ctx, "alice", "tablet", "lost")
		if err != nil || p.Status != Revoked || p.RevokedWhy != "lost" {
			t.Errorf("Revoke = %+v, %v, want revoked, also the second time", p, err)
		}
	}
	if p, err := r.client.AppPasswords(ctx, "alice", false); err != nil || len(p.AppPasswords) != 0 {
		t.Errorf("AppPasswords = %+v, %v, want none", p, err)
	}
	if p, err := r.client.AppPasswords(ctx, "alice", true); err != nil || len(p.AppPasswords) != 1 {
		t.Errorf("AppPasswords(all) = %+v, %v, want the tombstone", p, err)
	}
	off := false
	if a, err := r.client.PatchAccount(ctx, "alice", AccountPatch{Enabled: &off}); err != nil || a.Enabled {
		t.Errorf("PatchAccount = %+v, %v, want disabled", a, err)
	}
	if a, err := r.client.Account(ctx, "ALICE@example.org"); err != nil || a.Login != "alice" || a.Enabled {
		t.Errorf("Account by an alias = %+v, %v, want alice, disabled", a, err)
	}
	if err := r.client.DeleteAccount(ctx, "alice", ""); err != nil {
		t.Errorf("DeleteAccount = %v, want nil", err)
	}
	if _, err := r.client.Account(ctx, "alice"); code(err) != "404 no_account" {
		t.Errorf("Account of a deleted one = %v, want no_account", err)
	}
}

func TestRefusals(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	if _, err := r.client.AddAccount(ctx, NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	past := now
	create := func(n NewAppPassword) func() error {
		return func() error {
			if n.Label == "" {
				n.Label = "x"
			}
			_, err := r.client.Create(ctx, "alice", n)
			return err
		}
	}
	add := func(n NewAccount) func() error {
		return func() error { _, err := r.client.AddAccount(ctx, n); return err }
	}
	for name, tc := range map[string]struct {
		do   func() error
		want string
	}{
		"login with a space":      {add(NewAccount{Login: "a b"}), "400 bad_login"},
		"empty login":             {add(NewAccount{}), "400 bad_login"},
		"alias with a NUL":        {add(NewAccount{Login: "b", Aliases: []string{"\x00"}}), "400 bad_login"},
		"login that is taken":     {add(NewAccount{Login: "ALICE"}), "409 login_taken"},
		"name on two lines":       {add(NewAccount{Login: "b", DisplayName: "a\nb"}), "400 bad_text"},
		"password attribute":      {add(NewAccount{Login: "b", Attributes: map[string][]string{"userPassword": {"x"}}}), "400 bad_attribute"},
		"attribute with a space":  {add(NewAccount{Login: "b", Attributes: map[string][]string{"a b": {"x"}}}), "400 bad_attribute"},
		"empty attribute value":   {add(NewAccount{Login: "b", Attributes: map[string][]string{"mail": {""}}}), "400 bad_attribute"},
		"userdb with a tab":       {add(NewAccount{Login: "b", Userdb: map[string]string{"home": "/a\t/b"}}), "400 bad_text"},
		"quota":                   {add(NewAccount{Login: "b", Userdb: map[string]string{"quota": "1.5G"}}), "400 bad_userdb"},
		"userdb key":              {add(NewAccount{Login: "b", Userdb: map[string]string{"a=b": "x"}}), "400 bad_userdb"},
		"label of spaces":         {create(NewAppPassword{Label: "  "}), "400 bad_label"},
		"label with an escape":    {create(NewAppPassword{Label: "\x1b[2J"}), "400 bad_label"},
		"long label":              {create(NewAppPassword{Label: strings.Repeat("x", 65)}), "400 bad_label"},
		"service":                 {create(NewAppPassword{Services: []string{"i map"}}), "400 bad_service"},
		"network":                 {create(NewAppPassword{Networks: []string{"192.0.2.0/33"}}), "400 bad_network"},
		"network with host bits":  {create(NewAppPassword{Networks: []string{"192.0.2.1/24"}}), "400 bad_network"},
		"mapped network":          {create(NewAppPassword{Networks: []string{"::ffff:192.0.2.0/120"}}), "400 bad_network"},
		"expiry in the past":      {create(NewAppPassword{ExpiresAt: &past}), "400 bad_expiry"},
		"disuse of a minute":      {create(NewAppPassword{ExpiresUnusedFor: "1m"}), "400 bad_expiry"},
		"unknown account":         {func() error { _, err := r.client.Create(ctx, "bob", NewAppPassword{Label: "x"}); return err }, "404 no_account"},
		"revoke an unknown label": {func() error { _, err := r.client.Revoke(ctx, "alice", "nothing", ""); return err }, "404 no_label"},
		"rename an unknown label": {func() error {
			_, err := r.client.Edit(ctx, "alice", "nothing", AppPasswordPatch{Label: "x"})
			return err
		}, "404 no_label"},
		"reason on two lines": {func() error { _, err := r.client.Revoke(ctx, "alice", "x", "a\nb"); return err }, "400 bad_text"},
		"65 services":         {create(NewAppPassword{Services: make([]string, 65)}), "400 too_many"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := code(tc.do()); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if len(r.store.rows) != 0 || len(r.store.accounts) != 1 {
		t.Errorf("the refused requests left %d rows and %d accounts, want 0 and 1", len(r.store.rows), len(r.store.accounts))
	}
}

func TestLimit(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.client.AddAccount(ctx, NewAccount{Login: "alice"})
	for i := range 3 {
		if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "3"}); code(err) != "409 limit" {
		t.Errorf("Create beyond the limit = %v, want limit", err)
	}
	r.client.Revoke(ctx, "alice", "0", "")
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "3"}); err != nil {
		t.Errorf("Create after a revocation = %v, want nil", err)
	}
}

// A tag that another daemon issued meanwhile is not an error: another secret is drawn.
func TestTagTakenMeanwhile(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.client.AddAccount(ctx, NewAccount{Login: "alice"})
	r.store.raceTag = 2
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "x"}); err != nil {
		t.Errorf("Create = %v, want nil after two races", err)
	}
	r.store.raceTag = 1000
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "y"}); code(err) != "503 unavailable" {
		t.Errorf("Create = %v, want an end of the attempts", err)
	}
}

// A draw never returns a tag of the account, whatever the generator says.
func TestDrawAvoidsTakenTags(t *testing.T) {
	s := &Service{Ring: secret.NewRing(), Length: 16}
	var taken []auth.Tag
	for v := range 1 << 16 {
		if v%2 == 0 {
			taken = append(taken, auth.Tag{PepperID: s.Ring.Active(), Value: uint16(v)})
		}
	}
	for range 20 {
		if _, tag, err := s.draw(taken); err != nil || tag.Value%2 == 0 {
			t.Fatalf("draw = %v, %v, want a free tag", tag, err)
		}
	}
	for v := range 1 << 16 {
		if v%2 == 1 {
			taken = append(taken, auth.Tag{PepperID: s.Ring.Active(), Value: uint16(v)})
		}
	}
	if _, _, err := s.draw(taken); err == nil {
		t.Error("draw with all tags taken = nil, want an error")
	}
}

func TestOutage(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.store.err = errors.New(`dial "postgres://u:hunter2@db"`)
	_, err := r.client.Account(ctx, "alice")
	if code(err) != "503 unavailable" {
		t.Errorf("Account = %v, want unavailable", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the client sees the cause: %v", err)
	}
	r.service = nil
	if _, err := r.client.Accounts(ctx, "", "", 0); code(err) != "503 unavailable" {
		t.Errorf("Accounts before the database is known = %v, want unavailable", err)
	}
	if s, err := r.client.Status(ctx); err != nil || s.Version != "v" {
		t.Errorf("Status before the database is known = %+v, %v, want an answer", s, err)
	}
}

func TestUnreachable(t *testing.T) {
	_, err := NewClient("/nonexistent/s").Status(t.Context())
	var u *UnreachableError
	if !errors.As(err, &u) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Status = %v, want UnreachableError of a missing file", err)
	}
	if want := "cannot reach valetkeyd at /nonexistent/s: connect: no such file or directory"; err.Error() != want {
		t.Errorf("Status = %q, want %q", err, want)
	}
}

func TestActorIsThePeer(t *testing.T) {
	r := newRig(t)
	if _, err := r.client.AddAccount(t.Context(), NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	if by := r.store.by[0]; by == "" || by == "unknown" {
		t.Errorf("actor = %q, want the user that runs this test", by)
	}
}

// Bodies that are not what a call takes, by hand.
func TestBadBodies(t *testing.T) {
	r := newRig(t)
	h := r.client.http
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"not JSON":       {"POST", "/v1/accounts", "{", 400, "bad_request"},
		"unknown field":  {"POST", "/v1/accounts", `{"login":"a","pasword":"hunter2"}`, 400, "bad_request"},
		"wrong type":     {"POST", "/v1/accounts", `{"login":7}`, 400, "bad_request"},
		"two values":     {"POST", "/v1/accounts", `{"login":"a"}{}`, 400, "bad_request"},
		"too long":       {"POST", "/v1/accounts", `{"login":"` + strings.Repeat("a", 70<<10) + `"}`, 400, "bad_request"},
		"unknown call":   {"GET", "/v2/status", "", 404, "not_found"},
		"wrong method":   {"PUT", "/v1/status", "", 404, "not_found"},
		"profile for 0s": {"GET", "/v1/debug/cpu-profile?seconds=0", "", 400, "bad_request"},
		"profile for 1h": {"GET", "/v1/debug/cpu-profile?seconds=3600", "", 400, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://x"+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := h.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			var p Problem
			if err := json.NewDecoder(answer.Body).Decode(&p); err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != tc.status || p.Error.Code != tc.code {
				t.Errorf("%s %s = %d %+v, want %d %s", tc.method, tc.path, answer.StatusCode, p.Error, tc.status, tc.code)
			}
			if strings.Contains(fmt.Sprint(p), "hunter2") {
				t.Errorf("the answer quotes the body: %+v", p)
			}
		})
	}
}

func TestPaging(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	for _, l := range []string{"c", "a", "b"} {
		r.client.AddAccount(ctx, NewAccount{Login: l})
	}
	var got []string
	for after := ""; ; {
		p, err := r.client.Accounts(ctx, "", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range p.Accounts {
			got = append(got, a.Login)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestProfile(t *testing.T) {
	r := newRig(t)
	profile, err := r.client.CPUProfile(t.Context(), 1)
	if err != nil || !bytes.HasPrefix(profile, []byte{0x1f, 0x8b}) { // gzip, as pprof has it
		t.Errorf("CPUProfile = %d bytes, %v, want a profile", len(profile), err)
	}
}

// directory is an Upstream.
type directory map[string]error

func (d directory) Canonical(_ context.Context, login string) (string, error) {
	if err, found := d[login]; found {
		return login, err
	}
	return "", auth.ErrNoAccount
}

// A user of the upstream gets an account with the first app password; nobody else does, and an outage is not a refusal.
func TestUpstreamAccounts(t *testing.T) {
	r := newRig(t)
	r.service.Upstream = directory{"alice": nil, "twin": auth.ErrAmbiguous, "sick": errors.New("ldap.example.org is gone")}
	for i, tt := range []struct{ login, code, message string }{
		{"ALICE", "", ""},
		{"alice", "", ""}, // the account is there already
		{"nobody", "no_account", "upstream directory"},
		{"twin", "ambiguous", "several entries"},
		{"sick", "unavailable", "upstream directory"},
	} {
		_, err := r.client.Create(t.Context(), tt.login, NewAppPassword{Label: fmt.Sprint("of ", i)})
		if tt.code == "" {
			if err != nil {
				t.Errorf("Create(%s) = %v", tt.login, err)
			}
			continue
		}
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Code != tt.code || refused.Hint == "" || !strings.Contains(refused.Message, tt.message) || strings.Contains(fmt.Sprint(refused), "example.org") {
			t.Errorf("Create(%s) = %v, want %s: %q without the cause", tt.login, err, tt.code, tt.message)
		}
	}
	if len(r.store.accounts) != 1 || r.store.accounts[0].Login != "alice" {
		t.Errorf("accounts = %+v, want alice's", r.store.accounts)
	}
	if !strings.Contains(r.log.String(), "ldap.example.org is gone") {
		t.Errorf("the log has no cause:\n%s", r.log)
	}
}

func TestGroupsAndReaders(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	for _, n := range []NewAccount{{Login: "alice", Aliases: []string{"al"}}, {Login: "bob"}, {Login: "Wiki", Kind: "reader", DisplayName: "The wiki"}} {
		a, err := r.client.AddAccount(ctx, n)
		if err != nil || a.Kind != stdcmp.Or(n.Kind, "person") || a.Groups == nil {
			t.Fatalf("AddAccount(%q) = %+v, %v", n.Login, a, err)
		}
	}
	for kind, want := range map[string]string{"": "alice bob", "person": "alice bob", "reader": "wiki"} {
		page, err := r.client.Accounts(ctx, kind, "", 0)
		var got []string
		for _, a := range page.Accounts {
			got = append(got, a.Login)
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("Accounts(%q) = %q, %v, want %q", kind, got, err, want)
		}
	}
	g, err := r.client.AddGroup(ctx, NewGroup{Name: "Wiki-Users", DisplayName: " Users ", Attributes: map[string][]string{"gidNumber": {"7"}, "x": {}}})
	if err != nil || g.Name != "wiki-users" || g.DisplayName != "Users" || !cmp.Equal(g.Attributes, map[string][]string{"gidNumber": {"7"}}) || g.Members == nil {
		t.Errorf("AddGroup = %+v, %v, want it normalised", g, err)
	}
	if g, err = r.client.PatchGroup(ctx, "WIKI-users", GroupPatch{AddMembers: []string{"Alice", "bob", "ALICE"}}); err != nil || !cmp.Equal(g.Members, []string{"alice", "bob"}) {
		t.Errorf("PatchGroup = %+v, %v, want each once", g, err)
	}
	name := " New "
	if g, err = r.client.PatchGroup(ctx, "wiki-users", GroupPatch{DisplayName: &name, RemoveMembers: []string{"bob"}}); err != nil || g.DisplayName != "New" || g.MemberCount != 1 {
		t.Errorf("PatchGroup = %+v, %v", g, err)
	}
	if g, err = r.client.Group(ctx, "Wiki-Users"); err != nil || g.DisplayName != "New" || !cmp.Equal(g.Members, []string{"alice"}) {
		t.Errorf("Group = %+v, %v, want what it was changed to", g, err)
	}
	for _, other := range []string{"a", "b"} {
		if _, err := r.client.AddGroup(ctx, NewGroup{Name: other}); err != nil {
			t.Fatal(err)
		}
	}
	var all []string
	for after := ""; ; {
		page, err := r.client.Groups(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range page.Groups {
			all = append(all, g.Name)
			if g.Members != nil {
				t.Errorf("a list of groups has the members of %s", g.Name)
			}
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if d := cmp.Diff([]string{"a", "b", "wiki-users"}, all); d != "" {
		t.Errorf("Groups (-want +got):\n%s", d)
	}

	many := make([]string, maxMembers+1)
	for i := range many {
		many[i] = fmt.Sprint("u", i)
	}
	patch := func(p GroupPatch) func() error {
		return func() error { _, err := r.client.PatchGroup(ctx, "wiki-users", p); return err }
	}
	add := func(n NewGroup) func() error {
		return func() error { _, err := r.client.AddGroup(ctx, n); return err }
	}
	set := func(p AccountPatch) func() error {
		return func() error { _, err := r.client.PatchAccount(ctx, "alice", p); return err }
	}
	bad := "a\nb"
	for name, tc := range map[string]struct {
		do   func() error
		want string
	}{
		"group with a space":         {add(NewGroup{Name: "a b"}), "400 bad_group"},
		"group without a name":       {add(NewGroup{}), "400 bad_group"},
		"group that is there":        {add(NewGroup{Name: "A"}), "409 group_taken"},
		"group on two lines":         {add(NewGroup{Name: "c", DisplayName: bad}), "400 bad_text"},
		"group with a password":      {add(NewGroup{Name: "c", Attributes: map[string][]string{"userPassword": {"x"}}}), "400 bad_attribute"},
		"one attribute twice":        {add(NewGroup{Name: "c", Attributes: map[string][]string{"mail": {"x"}, "MAIL": {"y"}}}), "400 bad_attribute"},
		"no group":                   {func() error { _, err := r.client.Group(ctx, "nothing"); return err }, "404 no_group"},
		"no group to delete":         {func() error { return r.client.DeleteGroup(ctx, "nothing") }, "404 no_group"},
		"bad name of a group":        {func() error { return r.client.DeleteGroup(ctx, "a b") }, "400 bad_group"},
		"unknown member":             {patch(GroupPatch{AddMembers: []string{"nobody"}}), "404 no_account"},
		"reader as a member":         {patch(GroupPatch{AddMembers: []string{"wiki"}}), "409 not_person"},
		"member with a space":        {patch(GroupPatch{AddMembers: []string{"a b"}}), "400 bad_login"},
		"too many members":           {patch(GroupPatch{AddMembers: many}), "400 too_many"},
		"group name on two lines":    {patch(GroupPatch{DisplayName: &bad}), "400 bad_text"},
		"password of a group":        {patch(GroupPatch{Attributes: map[string][]string{"authPassword": {"x"}}}), "400 bad_attribute"},
		"kind":                       {func() error { _, err := r.client.AddAccount(ctx, NewAccount{Login: "x", Kind: "robot"}); return err }, "400 bad_kind"},
		"list of a kind":             {func() error { _, err := r.client.Accounts(ctx, "robot", "", 0); return err }, "400 bad_kind"},
		"person deleted as a reader": {func() error { return r.client.DeleteAccount(ctx, "alice", "reader") }, "404 not_found"},
		"reader deleted as a person": {func() error { return r.client.DeleteAccount(ctx, "wiki", "person") }, "404 not_found"},
		"password of an account":     {set(AccountPatch{Attributes: map[string][]string{"userPassword": {"x"}}}), "400 bad_attribute"},
		"empty value":                {set(AccountPatch{Attributes: map[string][]string{"mail": {"a", ""}}}), "400 bad_attribute"},
		"quota":                      {set(AccountPatch{Userdb: map[string]string{"quota": "much"}}), "400 bad_userdb"},
		"name on two lines":          {set(AccountPatch{DisplayName: &bad}), "400 bad_text"},
		"alias with a space":         {set(AccountPatch{AddAliases: []string{"a b"}}), "400 bad_login"},
		"many attributes":            {set(AccountPatch{Attributes: manyAttributes(maxEntries + 1)}), "400 too_many"},
	} {
		if err := tc.do(); code(err) != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	r.store.mu.Lock()
	r.store.accounts[0].Attributes = manyAttributes(maxEntries)
	before := len(r.store.changes)
	r.store.mu.Unlock()
	if err := set(AccountPatch{Attributes: map[string][]string{"one": {"more"}}})(); code(err) != "400 too_many" {
		t.Errorf("PatchAccount beyond the bound = %v, want too_many", err)
	}
	if err := set(AccountPatch{Attributes: map[string][]string{"A1": {"other"}}, Userdb: map[string]string{"quota": ""}})(); err != nil {
		t.Errorf("PatchAccount of one that is there = %v, want nil", err)
	}
	if n := len(r.store.changes) - before; n != 1 {
		t.Errorf("the store was asked for %d changes, want 1", n)
	}
	for _, name := range []string{"wiki-users", "a"} {
		if err := r.client.DeleteGroup(ctx, name); err != nil {
			t.Errorf("DeleteGroup(%q) = %v, want nil", name, err)
		}
	}
	if err := r.client.DeleteAccount(ctx, "wiki", "reader"); err != nil {
		t.Errorf("DeleteAccount of a reader = %v, want nil", err)
	}
}

func manyAttributes(n int) map[string][]string {
	m := map[string][]string{}
	for i := range n {
		m[fmt.Sprint("a", i)] = []string{"x"}
	}
	return m
}
