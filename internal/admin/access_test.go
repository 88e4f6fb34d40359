package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

// The groups and users of these tests.
const (
	adminsID, helpDeskID, readOnlyID = 501, 502, 503

	aliceUID, bobUID, systemUID = 1001, 1002, 7
)

func testAccess() Access {
	return Access{
		Admins: UnixGroup{"vk-admins", adminsID}, HelpDesk: UnixGroup{"vk-help", helpDeskID}, ReadOnly: UnixGroup{"vk-look", readOnlyID},
		Self: &SelfService{MinUID: 1000},
	}
}

// The callers of these tests: each kind once.
var (
	anAdmin    = credentials{known: true, uid: 1010, gid: 100, groups: []uint32{4, adminsID}}
	aHelper    = credentials{known: true, uid: 1011, gid: helpDeskID}
	aReader    = credentials{known: true, uid: 1012, gid: 100, groups: []uint32{readOnlyID}}
	aUser      = credentials{known: true, uid: aliceUID, gid: 100}
	aStranger  = credentials{known: true, uid: systemUID, gid: 7}
	testNaming = map[uint32]string{0: "root", 1010: "ada", 1011: "hal", 1012: "rob", aliceUID: "alice", bobUID: "bob", systemUID: "lp"}
)

// newMember serves the service to one caller, and returns his client.
func newMember(t *testing.T, service *Service, access Access, who credentials, adjust ...func(*Server)) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(func() *Service { return service }, func(context.Context) Status {
		return Status{Version: "v", Peppers: []string{}, Listeners: []Listener{}}
	}, slog.New(slog.DiscardHandler))
	s.http.Handler = held(t, s.http.Handler)
	s.Restrict(access)
	s.credentials = func(net.Conn) credentials { return who }
	s.userName = func(uid uint32) (string, error) {
		if name, found := testNaming[uid]; found {
			return name, nil
		}
		return "", errors.New("there is no such user")
	}
	for _, f := range adjust {
		f(s)
	}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	c := NewClient(socket)
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-done
	})
	return c
}

func newTestService() (*Service, *memory) {
	store := &memory{}
	return &Service{Store: store, Ring: secret.NewRing(), Hashes: auth.NewAdmission(1, 10), Length: 16, Limit: 25, Now: now.UTC}, store
}

// raw makes a call by hand, and returns the status and the body.
func (c *Client) raw(t *testing.T, method, pathAndQuery, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://x"+pathAndQuery, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// Who may make which call. A route that is not in the table fails here: say there who may.
//
// The letters: a an admin, h the help desk, r read only, u a user for his own account, s who has neither a role nor an account.
var whoMay = map[string]string{
	"GET /v1/whoami":               "ahrus",
	"GET /v1/status":               "ahr",
	"GET /v1/debug/cpu-profile":    "a",
	"GET /v1/accounts":             "ahr",
	"POST /v1/accounts":            "a",
	"GET /v1/account":              "ahr",
	"PATCH /v1/account":            "a",
	"DELETE /v1/account":           "a",
	"GET /v1/groups":               "ahr",
	"POST /v1/groups":              "a",
	"GET /v1/group":                "ahr",
	"PATCH /v1/group":              "a",
	"DELETE /v1/group":             "a",
	"GET /v1/app-passwords":        "ahru",
	"POST /v1/app-passwords":       "au",
	"GET /v1/app-password":         "ahru",
	"PATCH /v1/app-password":       "au",
	"POST /v1/app-password/rotate": "au",
	"POST /v1/app-password/revoke": "ahu",

	"POST /v1/app-password/exemption":   "a",
	"DELETE /v1/app-password/exemption": "a",
	"GET /v1/plugin":                    "ahr",
	"GET /v1/plugin/check":              "ahr",
	"POST /v1/plugin/check":             "ah",
	"GET /v1/events":                    "ahr",
	"GET /v1/why":                       "ahr",
	"GET /v1/mail-settings":             "ahru",

	"GET /v1/find/app-passwords":         "ahr",
	"POST /v1/find/app-passwords/revoke": "a",
	"POST /v1/import":                    "a",
	"POST /v1/notice/test":               "a",
	"GET /v1/notice/test":                "a",
}

func TestWhoMay(t *testing.T) {
	service, store := newTestService()
	routes := new(Server).routes()
	var listed []string
	for _, r := range routes {
		listed = append(listed, r.method+" "+r.path)
		if _, found := whoMay[r.method+" "+r.path]; !found {
			t.Errorf("%s %s is not in the table of who may: add it", r.method, r.path)
		}
	}
	for call := range whoMay {
		if !slices.Contains(listed, call) {
			t.Errorf("%s is in the table, and is no route", call)
		}
	}
	// The database is down: who may go on sees that, or is told that his body is wrong; nothing changes.
	store.err = errors.New("down")
	for letter, who := range map[string]credentials{"a": anAdmin, "h": aHelper, "r": aReader, "u": aUser, "s": aStranger} {
		c := newMember(t, service, testAccess(), who)
		for _, r := range routes {
			call := r.method + " " + r.path
			status, body := c.raw(t, r.method, r.path+"?login=alice", "{}")
			may := strings.Contains(whoMay[call], letter)
			if letter == "u" && strings.Contains(r.path, "app-password") { // nobody else calls these with what they refuse from users
				status, body = c.raw(t, r.method, r.path, "{}")
			}
			if got := status != http.StatusForbidden; got != may {
				t.Errorf("%s as %s: status %d %s, want it allowed: %t", call, letter, status, body, may)
			}
			if !may {
				wantRefusal(t, call, body)
			}
		}
	}
}

func wantRefusal(t *testing.T, call, body string) {
	t.Helper()
	var p Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Error.Code != "forbidden" || p.Error.Message == "" || p.Error.Hint == "" {
		t.Errorf("%s: refused with %s, want the code forbidden, a text and a hint", call, body)
	}
}

// Whatever a user asks for with another's login, the answer is one and the same refusal, the account existing or not.
func TestOthersStayHidden(t *testing.T) {
	service, store := newTestService()
	root := newMember(t, service, Access{}, aStranger)
	canary := "canary-7f3a"
	for _, n := range []NewAccount{
		{Login: "alice"}, {Login: "bob", DisplayName: canary, Aliases: []string{"robert"}}, {Login: "wiki", Kind: KindReader},
	} {
		if _, err := root.AddAccount(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := root.Create(t.Context(), "bob", NewAppPassword{Label: canary}); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(store.accounts, store.rows)

	hour := now
	patient := func(s *Server) { s.gate = newGate(func() time.Time { hour = hour.Add(time.Hour); return hour }) } // nobody has to wait
	c := newMember(t, service, testAccess(), aUser, patient)
	bodies := []string{"", "{}", `{"label":"x"}`, `{"why":"x"}`, `{"login":"bob","label":"x"}`}
	for _, r := range new(Server).routes() {
		if r.path == "/v1/whoami" {
			continue
		}
		for _, body := range bodies {
			for _, query := range []string{
				"login=%s", "login=%s&label=" + canary, "login=alice&login=%s", "login=%s&login=alice", "login=&login=%s", "login=%s&all=true&kind=person",
				"login=%s&seconds=1", "name=%[1]s&login=%[1]s",
			} {
				first := ""
				for _, login := range []string{"bob", "nobody", "robert", "wiki", "BOB", "%00", "a%20b", "alice%40x"} {
					status, answer := c.raw(t, r.method, r.path+"?"+fmt.Sprintf(query, login), body)
					if status != http.StatusForbidden || strings.Contains(answer, canary) {
						t.Fatalf("%s %s?%s %s of %s: status %d %s, want 403", r.method, r.path, query, body, login, status, answer)
					}
					if first == "" {
						first = answer
					}
					if answer != first {
						t.Fatalf("%s %s?%s %s: the answer for %s is %s, and for another login %s", r.method, r.path, query, body, login, answer, first)
					}
				}
			}
		}
	}
	if after := fmt.Sprint(store.accounts, store.rows); after != before {
		t.Errorf("the refused calls changed the store: %s, before %s", after, before)
	}
}

// FuzzOthersStayHidden: no query and no body make a user's call say anything of another account, or change it.
func FuzzOthersStayHidden(f *testing.F) {
	f.Add(uint8(3), "login=bob", "{}")
	f.Add(uint8(14), "login=alice;login=bob&label=canary-7f3a", `{"label":"x","exempt":"y"}`)
	f.Add(uint8(16), "LOGIN=bob&%6cogin=bob", `{"why":"x"}{"login":"bob"}`)
	service, store := newTestService()
	store.accounts = []auth.Account{
		{ID: 1, Login: "alice", Enabled: true}, {ID: 2, Login: "bob", DisplayName: "canary-7f3a", Enabled: true, Aliases: []string{"robert"}},
	}
	bob := row{AppPassword: auth.AppPassword{ID: 1, AccountID: 2, Login: "bob", Label: "canary-7f3a"}, key: "canary-7f3a"}
	s := NewServer(func() *Service { return service }, func(context.Context) Status { return Status{Config: "canary-7f3a"} }, slog.New(slog.DiscardHandler))
	s.Restrict(testAccess())
	s.userName = func(uint32) (string, error) { return "alice", nil }
	routes := s.routes()
	f.Fuzz(func(t *testing.T, which uint8, query, body string) {
		store.rows = []row{bob}
		s.gate = newGate(now.UTC)
		rt := routes[int(which)%len(routes)]
		ctx := s.withCaller(t.Context(), &admitted{credentials: aUser})
		r := (&http.Request{Method: rt.method, URL: &url.URL{Path: rt.path, RawQuery: query}, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}).WithContext(ctx)
		w := &answer{header: http.Header{}}
		s.http.Handler.ServeHTTP(w, r)
		if strings.Contains(w.body.String(), "canary-7f3a") && !strings.Contains(query+body, "canary-7f3a") {
			t.Errorf("%s %s?%s %q: %d %s", rt.method, rt.path, query, body, w.status, w.body.String())
		}
		if !cmp.Equal(store.rows[0].AppPassword, bob.AppPassword) || len(store.accounts) != 2 || len(store.groups) != 0 {
			t.Errorf("%s %s?%s %q changed what is not alice's: %+v", rt.method, rt.path, query, body, store.rows[0].AppPassword)
		}
	})
}

type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func TestRoleOf(t *testing.T) {
	all := testAccess()
	helpOnly := Access{HelpDesk: UnixGroup{"vk-help", helpDeskID}}
	for name, tc := range map[string]struct {
		access Access
		who    credentials
		want   Role
	}{
		"nothing configured: the socket's mode decides": {Access{}, aStranger, Admin},
		"a group of admins alone: the same":             {Access{Admins: UnixGroup{"a", 1}}, aStranger, Admin},
		"root":                                          {all, credentials{known: true}, Admin},
		"the daemon's own user":                         {all, credentials{known: true, uid: ownUID, gid: 9}, Admin},
		"admin by a further group":                      {all, anAdmin, Admin},
		"help desk by the main group":                   {all, aHelper, HelpDesk},
		"read only":                                     {all, aReader, ReadOnly},
		"in two groups: the higher":                     {all, credentials{known: true, uid: 9, gid: readOnlyID, groups: []uint32{helpDeskID}}, HelpDesk},
		"a user":                                        {all, aUser, NoRole},
		"nobody known is not root":                      {all, credentials{}, NoRole},
		"no group of admins is not group 0":             {helpOnly, credentials{known: true, uid: 9, gid: 0, groups: []uint32{0}}, NoRole},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.access.role(tc.who); got != tc.want {
				t.Errorf("role = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestOwnLogin(t *testing.T) {
	plain, domain := &SelfService{MinUID: 1000}, &SelfService{MinUID: 1000, Domain: "example.org"}
	for name, tc := range map[string]struct {
		self *SelfService
		user string
		uid  uint32
		want string
	}{
		"the name":                   {plain, "alice", 1001, "alice"},
		"with a domain":              {domain, "alice", 1001, "alice@example.org"},
		"of a directory, high id":    {plain, "alice", 200_001_104, "alice"},
		"off":                        {nil, "alice", 1001, ""},
		"a system user":              {plain, "lp", 999, ""},
		"root, whatever min_uid":     {&SelfService{}, "root", 0, ""},
		"nobody":                     {plain, "nobody", 65534, ""},
		"DynamicUser=":               {plain, "svc", 61184, ""},
		"unmapped":                   {plain, "x", 0xffffffff, ""},
		"another user by his case":   {plain, "Alice", 1003, ""},
		"another user by full width": {plain, "ａlice", 1003, ""},
		"a name with a domain twice": {domain, "alice@evil.example", 1003, ""},
		"a space":                    {plain, "alice x", 1003, ""},
		"no name":                    {plain, "", 1003, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.self.login(tc.user, tc.uid); got != tc.want {
				t.Errorf("login(%q, %d) = %q, want %q", tc.user, tc.uid, got, tc.want)
			}
		})
	}
}

func TestWhoami(t *testing.T) {
	service, _ := newTestService()
	access := testAccess()
	access.Self.Services, access.Self.Networks = []string{"imap"}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for name, tc := range map[string]struct {
		who  credentials
		want Whoami
	}{
		"root":                   {credentials{known: true}, Whoami{User: "root", Role: "admin"}},
		"help desk":              {aHelper, Whoami{User: "hal", UID: 1011, Role: "help_desk", Own: &OwnAccount{"hal", []string{"imap"}, []string{"192.0.2.0/24"}}}},
		"user":                   {aUser, Whoami{User: "alice", UID: aliceUID, Role: "none", Own: &OwnAccount{"alice", []string{"imap"}, []string{"192.0.2.0/24"}}}},
		"system user":            {aStranger, Whoami{User: "lp", UID: systemUID, Role: "none"}},
		"user id without a name": {credentials{known: true, uid: 5000}, Whoami{UID: 5000, Role: "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newMember(t, service, access, tc.who).Whoami(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Whoami (-want +got):\n%s", diff)
			}
		})
	}
}

// A user's day with his own account, and what it must not reach.
func TestOwnAccount(t *testing.T) {
	service, store := newTestService()
	ctx := t.Context()
	root := newMember(t, service, Access{}, aStranger)
	if _, err := root.AddAccount(ctx, NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	access := testAccess()
	access.Self.Services = []string{"imap", "smtp"}
	access.Self.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	c := newMember(t, service, access, aUser)

	p, err := c.Create(ctx, "", NewAppPassword{Label: "phone"})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.AppPassword; got.Login != "alice" || got.CreatedBy != "alice (uid 1001)" || !cmp.Equal(got.Services, []string{"imap", "smtp"}) ||
		!cmp.Equal(got.Networks, []string{"192.0.2.0/24", "2001:db8::/32"}) {
		t.Errorf("Create = %+v, want it alice's, by her, for what the rules allow", got)
	}
	if _, err := c.Create(ctx, "ALICE", NewAppPassword{Label: "pad", Services: []string{"IMAP"}, Networks: []string{"192.0.2.7"}}); err != nil {
		t.Errorf("Create with her own login = %v, want nil", err)
	}
	for name, tc := range map[string]struct {
		n    NewAppPassword
		want string
	}{
		"another service":              {NewAppPassword{Label: "x", Services: []string{"imap", "ldap"}}, "403 service_not_allowed"},
		"another network":              {NewAppPassword{Label: "x", Networks: []string{"198.51.100.1"}}, "403 network_not_allowed"},
		"a wider network":              {NewAppPassword{Label: "x", Networks: []string{"192.0.0.0/16"}}, "403 network_not_allowed"},
		"a network that begins within": {NewAppPassword{Label: "x", Networks: []string{"192.0.2.0/23"}}, "403 network_not_allowed"},
		"all IPv4 addresses":           {NewAppPassword{Label: "x", Networks: []string{"0.0.0.0/0"}}, "403 network_not_allowed"},
		"no network":                   {NewAppPassword{Label: "x", Networks: []string{"home"}}, "400 bad_network"},
		"a label in use":               {NewAppPassword{Label: "PHONE"}, "409 label_taken"},
		"too many services":            {NewAppPassword{Label: "x", Services: make([]string, 65)}, "400 too_many"},
	} {
		if _, err := c.Create(ctx, "", tc.n); code(err) != tc.want {
			t.Errorf("Create, %s = %v, want %s", name, code(err), tc.want)
		}
	}
	// Neither an exemption nor anything else that a body may learn to say one day.
	for _, body := range []string{`{"label":"x","exempt":"printer"}`, `{"label":"x","two_factor":"exempt"}`, `{"label":"x","login":"bob"}`} {
		if status, answer := c.raw(t, "POST", "/v1/app-passwords", body); status != 400 || !strings.Contains(answer, "unknown field") {
			t.Errorf("POST %s = %d %s, want the field refused", body, status, answer)
		}
	}
	if status, answer := c.raw(t, "PATCH", "/v1/app-password?label=phone", `{"label":"phone","services":["ldap"]}`); status != 400 {
		t.Errorf("PATCH with services = %d %s, want 400", status, answer)
	}
	if status, answer := c.raw(t, "GET", "/v1/app-passwords?everybody=true", ""); status != 403 {
		t.Errorf("GET with a parameter that is not for users = %d %s, want 403", status, answer)
	}
	if status, answer := c.raw(t, "POST", "/v1/app-passwords", `{"label":"`+strings.Repeat("x", 20<<10)+`"}`); status != 400 {
		t.Errorf("POST of 20 KiB = %d %s, want 400", status, answer)
	}
	if _, err := c.Edit(ctx, "", "phone", AppPasswordPatch{Label: "old phone"}); err != nil {
		t.Errorf("Rename = %v, want nil", err)
	}
	if p, err := c.Revoke(ctx, "", "old phone", "lost"); err != nil || p.RevokedBy != "alice (uid 1001)" {
		t.Errorf("Revoke = %+v, %v, want it revoked by alice", p, err)
	}
	if l, err := c.AppPasswords(ctx, "", true); err != nil || len(l.AppPasswords) != 2 {
		t.Errorf("AppPasswords = %+v, %v, want both of hers", l, err)
	}
	if len(store.rows) != 2 {
		t.Errorf("%d app passwords, want 2", len(store.rows))
	}
}

// A user's name is his account only if it is the account's first name and a person's.
func TestWhatIsNotOwn(t *testing.T) {
	ctx := t.Context()
	for name, tc := range map[string]struct {
		account  auth.Account // ID 0: there is none
		upstream directory
		create   string // what a creation ends with
		list     string
	}{
		"no account":                {create: "404 no_account", list: "404 no_account"},
		"an alias of another's":     {account: auth.Account{ID: 1, Login: "bob", Aliases: []string{"alice"}, Enabled: true}, create: "404 no_account", list: "404 no_account"},
		"a reader":                  {account: auth.Account{ID: 1, Login: "alice", Kind: auth.Reader, Enabled: true}, create: "404 no_account", list: "404 no_account"},
		"disabled":                  {account: auth.Account{ID: 1, Login: "alice"}, create: "403 disabled", list: "<nil>"},
		"of the upstream":           {upstream: directory{"alice": nil}, create: "<nil>", list: "<nil>"},
		"not of the upstream":       {upstream: directory{}, create: "404 no_account", list: "404 no_account"},
		"ambiguous in the upstream": {upstream: directory{"alice": auth.ErrAmbiguous}, create: "400 ambiguous", list: "404 no_account"},
		"the upstream is away":      {upstream: directory{"alice": errors.New("gone")}, create: "503 unavailable", list: "404 no_account"},
	} {
		t.Run(name, func(t *testing.T) {
			service, store := newTestService()
			if tc.account.ID != 0 {
				store.accounts = []auth.Account{tc.account}
			}
			if tc.upstream != nil {
				service.Upstream = tc.upstream
			}
			c := newMember(t, service, testAccess(), aUser)
			if _, err := c.Create(ctx, "", NewAppPassword{Label: "x"}); code(err) != tc.create {
				t.Errorf("Create = %v, want %s", code(err), tc.create)
			}
			if _, err := c.AppPasswords(ctx, "", false); code(err) != tc.list {
				t.Errorf("AppPasswords = %v, want %s", code(err), tc.list)
			}
		})
	}
}

// renamed is an Upstream that keeps accounts under other names.
type renamed struct{}

func (renamed) Canonical(_ context.Context, login string) (string, error) {
	return "other-" + login, nil
}

// The upstream may know alice as somebody with another login: that account is not the user's.
func TestOwnIsCanonical(t *testing.T) {
	service, store := newTestService()
	service.Upstream = renamed{}
	c := newMember(t, service, testAccess(), aUser)
	if _, err := c.Create(t.Context(), "", NewAppPassword{Label: "x"}); code(err) != "404 no_account" {
		t.Errorf("Create = %v, want no_account", code(err))
	}
	if len(store.accounts) != 0 {
		t.Errorf("accounts = %+v, want none made", store.accounts)
	}
}

// Who has a role that a call needs must name the login: the daemon never takes the own one for a forgotten argument.
func TestRoleNamesTheLogin(t *testing.T) {
	service, store := newTestService()
	store.accounts = []auth.Account{{ID: 1, Login: "ada", Enabled: true}, {ID: 2, Login: "hal", Enabled: true}}
	if _, err := newMember(t, service, testAccess(), anAdmin).Create(t.Context(), "", NewAppPassword{Label: "x"}); code(err) != "400 bad_login" {
		t.Errorf("Create by an admin without a login = %v, want bad_login", code(err))
	}
	// The help desk may not create, so that it creates as a user: its own.
	hal := newMember(t, service, testAccess(), aHelper)
	if p, err := hal.Create(t.Context(), "", NewAppPassword{Label: "x"}); err != nil || p.AppPassword.Login != "hal" {
		t.Errorf("Create by the help desk without a login = %+v, %v, want its own", p.AppPassword, err)
	}
	if _, err := hal.Create(t.Context(), "ada", NewAppPassword{Label: "x"}); code(err) != "403 forbidden" {
		t.Errorf("Create by the help desk for another = %v, want forbidden", code(err))
	}
}

// The kernel's word about the process that runs this test.
func TestCredentialsOf(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	want := credentials{known: true, uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
	for _, g := range groups {
		want.groups = append(want.groups, uint32(g))
	}
	got := credentialsOf(peer)
	slices.Sort(got.groups)
	slices.Sort(want.groups)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("credentialsOf = %v, want %v", got, want)
	}
	one, two := net.Pipe()
	defer one.Close()
	defer two.Close()
	if got := credentialsOf(one); got.known {
		t.Errorf("credentialsOf(a pipe) = %v, want nobody known", got)
	}
}

// A user gives a new secret to what he could make himself, and to nothing that is somebody else's decision.
func TestRotateOwn(t *testing.T) {
	ctx := t.Context()
	service, store := newTestService()
	store.accounts = []auth.Account{{ID: 1, Login: "alice", Enabled: true}, {ID: 2, Login: "bob", Enabled: true}}
	access := testAccess()
	access.Self.Services = []string{"imap", "smtp"}
	admin, alice := newMember(t, service, access, anAdmin), newMember(t, service, access, aUser)
	for _, label := range []string{"phone", "exempt", "widened", "unlimited", "rotated by an admin"} {
		if _, err := alice.Create(ctx, "", NewAppPassword{Label: label, Services: []string{"imap"}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.Create(ctx, "alice", NewAppPassword{Label: "given", Services: []string{"imap"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exempt(ctx, "alice", "exempt", "printer"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Edit(ctx, "alice", "widened", AppPasswordPatch{Services: &[]string{"imap", "wiki"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Edit(ctx, "alice", "unlimited", AppPasswordPatch{Services: &[]string{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Rotate(ctx, "alice", "rotated by an admin", Rotation{}); err != nil {
		t.Fatal(err)
	}
	rows := len(store.rows)
	for label, want := range map[string]string{"exempt": "403 not_made", "given": "403 not_made", "widened": "403 not_made", "unlimited": "403 not_made",
		"rotated by an admin": "403 not_made", "nothing": "404 no_label"} {
		if _, err := alice.Rotate(ctx, "", label, Rotation{}); code(err) != want {
			t.Errorf("Rotate of %q = %v, want %s", label, code(err), want)
		}
	}
	if _, err := alice.Rotate(ctx, "bob", "phone", Rotation{}); code(err) != "403 forbidden" {
		t.Errorf("Rotate of another's = %v, want forbidden", code(err))
	}
	if len(store.rows) != rows {
		t.Errorf("the refused calls made %d app passwords", len(store.rows)-rows)
	}
	for range 2 { // what it made is hers too
		if x, err := alice.Rotate(ctx, "", "phone", Rotation{}); err != nil || x.Secret == "" || x.AppPassword.CreatedBy != "alice (uid 1001)" {
			t.Errorf("Rotate of her own = %+v, %v, want a new secret", x.AppPassword, code(err))
		}
	}
	store.accounts[0].Enabled = false
	if _, err := alice.Rotate(ctx, "", "phone", Rotation{}); code(err) != "403 disabled" {
		t.Errorf("Rotate while the account is disabled = %v, want disabled", code(err))
	}
}

// Who has a role and lacks the one that it takes is told that, not that he has an account of his own.
func TestRefusalNamesTheRole(t *testing.T) {
	service, _ := newTestService()
	_, err := newMember(t, service, testAccess(), aHelper).Create(t.Context(), "ada", NewAppPassword{Label: "x"})
	if err == nil || !strings.Contains(err.Error(), "needs the role admin; yours: help desk") {
		t.Errorf("Create by the help desk = %v, want the role named", err)
	}
}
