package httpauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
)

func grantBody(login, pw string) string {
	return "grant_type=password&username=" + url.QueryEscape(login) + "&password=" + url.QueryEscape(pw) +
		"&client_id=dovecot&client_secret=" + grantSecret
}

const formType = "application/x-www-form-urlencoded"

// grantRequest is what Dovecot 2.3 sends.
func grantRequest(t testing.TB, login, pw string) *http.Request {
	return newRequest(t, "POST", "/dovecot/grant", grantBody(login, pw), "Content-Type", formType,
		"X-Dovecot-Auth-Service", "imap", "X-Dovecot-Auth-Local", "127.0.0.1:21152", "X-Dovecot-Auth-Remote", "192.0.2.7:41696")
}

func grantReply(t testing.TB, w *httptest.ResponseRecorder) map[string]string {
	t.Helper()
	var reply map[string]string // Dovecot 2.3 compares strings: everything has to be one
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
		t.Fatalf("answer %q: %v", w.Body, err)
	}
	return reply
}

func grantField(t testing.TB, w *httptest.ResponseRecorder, name string) string {
	t.Helper()
	return grantReply(t, w)[name]
}

func TestGrantOutcomes(t *testing.T) {
	dir := fakeDirectory{
		"alice":             {"uid": "1000", "gid": "1001", "home": "/home/alice", "quota_rule": "*:storage=1G", "active": "false", "username": "bob"},
		"alice@example.org": {},
		"jürgen":            nil,
	}
	base := map[string]string{"access_token": "none", "token_type": "Bearer"}
	reply := func(fields ...string) map[string]string {
		m := map[string]string{}
		for k, v := range base {
			m[k] = v
		}
		for i := 0; i < len(fields); i += 2 {
			m[fields[i]] = fields[i+1]
		}
		return m
	}
	temporary := map[string]string{"error": "temporarily_unavailable"}
	for name, tt := range map[string]struct {
		login  string
		dir    Directory
		status int
		want   map[string]string
		stats  Stats
	}{
		"accepted": {"alice", dir, 200, reply("username", "alice", "active", "true", "login", "alice",
			"userdb_uid", "1000", "userdb_gid", "1001", "userdb_home", "/home/alice", "userdb_quota_rule", "*:storage=1G",
			"userdb_active", "false", "userdb_username", "bob"), Stats{Requests: 1, Accepted: 1}},
		"accepted by an alias":       {"alias", dir, 200, reply("username", "alias", "active", "true", "login", "alice@example.org"), Stats{Requests: 1, Accepted: 1}},
		"accepted, no directory":     {"Alice", nil, 200, reply("username", "Alice", "active", "true", "login", "Alice"), Stats{Requests: 1, Accepted: 1}},
		"accepted, UTF-8":            {"jürgen", dir, 200, reply("username", "jürgen", "active", "true", "login", "jürgen"), Stats{Requests: 1, Accepted: 1}},
		"rejected":                   {"no", dir, 200, reply("username", "no", "active", "false"), Stats{Requests: 1, Rejected: 1}},
		"rejected, markup":           {"no<b>&\"\\", dir, 200, reply("username", "no<b>&\"\\", "active", "false"), Stats{Requests: 1, Rejected: 1}},
		"account went meanwhile":     {"gone", dir, 200, reply("username", "gone", "active", "false"), Stats{Requests: 1, Rejected: 1}},
		"undecided":                  {"broken", dir, 503, temporary, Stats{Requests: 1, Undecided: 1}},
		"directory is out of order":  {"alice", fakeDirectory(nil), 503, temporary, Stats{Requests: 1, Undecided: 1}},
		"rejected without directory": {"no", fakeDirectory(nil), 200, reply("username", "no", "active", "false"), Stats{Requests: 1, Rejected: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newServer(t, fullConfig(), tt.dir)
			w := ask(t, s, proxy, grantRequest(t, tt.login, password))
			if w.Code != tt.status || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("answer = %d %v, want %d and JSON that is not stored", w.Code, w.Header(), tt.status)
			}
			if diff := cmp.Diff(tt.want, grantReply(t, w)); diff != "" {
				t.Errorf("answer differs (-want +got):\n%s", diff)
			}
			if got := s.Stats(); got != tt.stats {
				t.Errorf("Stats() = %+v, want %+v", got, tt.stats)
			}
		})
	}
}

// Dovecot 2.4 reads < in JSON as 2.3 does, but there is no need to try.
func TestGrantEchoesBytes(t *testing.T) {
	s, _, _ := newServer(t, fullConfig(), nil)
	w := ask(t, s, proxy, grantRequest(t, "a<b>&'@example.org", password))
	if !strings.Contains(w.Body.String(), `"username":"a<b>&'@example.org"`) {
		t.Errorf("answer = %s, want the user name as it was sent", w.Body)
	}
}

func TestGrantRequests(t *testing.T) {
	addr := netip.MustParseAddr
	for name, tt := range map[string]struct {
		login, password string
		header          []string
		want            auth.Request
	}{
		"Dovecot 2.3": {"alice", "secret", []string{"X-Dovecot-Auth-Service", "imap", "X-Dovecot-Auth-Remote", "192.0.2.7:41696"},
			auth.Request{Login: "alice", Password: "secret", Service: "imap", Addr: addr("192.0.2.7")}},
		"Dovecot 2.4": {"alice", "secret", []string{"X-Dovecot-Auth-Protocol", "submission", "X-Dovecot-Auth-Remote", "192.0.2.7:41696"},
			auth.Request{Login: "alice", Password: "secret", Service: "submission", Addr: addr("192.0.2.7")}},
		"both headers": {"alice", "secret", []string{"X-Dovecot-Auth-Protocol", "pop3", "X-Dovecot-Auth-Service", "pop3"},
			auth.Request{Login: "alice", Password: "secret", Service: "pop3"}},
		"no headers": {"alice", "secret", nil, auth.Request{Login: "alice", Password: "secret"}},
		"IPv6": {"alice", "secret", []string{"X-Dovecot-Auth-Remote", "[2001:db8::7]:41696"},
			auth.Request{Login: "alice", Password: "secret", Addr: addr("2001:db8::7")}},
		"mapped address": {"alice", "secret", []string{"X-Dovecot-Auth-Remote", "[::ffff:192.0.2.7]:41696"},
			auth.Request{Login: "alice", Password: "secret", Addr: addr("192.0.2.7")}},
		"address without port": {"alice", "secret", []string{"X-Dovecot-Auth-Remote", "192.0.2.7"},
			auth.Request{Login: "alice", Password: "secret", Addr: addr("192.0.2.7")}},
		"no address": {"alice", "secret", []string{"X-Dovecot-Auth-Remote", ":0"}, auth.Request{Login: "alice", Password: "secret"}},
		"address of the proxy does not count": {"alice", "secret", []string{"X-Real-IP", "192.0.2.99", "X-Forwarded-For", "192.0.2.99"},
			auth.Request{Login: "alice", Password: "secret"}},
		"everything in a password": {"al:ice", "p w+%&=;é:\"\\\x00\xff", nil, auth.Request{Login: "al:ice", Password: "p w+%&=;é:\"\\\x00\xff"}},
		"invalid UTF-8":            {"\xff", "x", nil, auth.Request{Login: "\xff", Password: "x"}},
		"longest of Dovecot":       {"alice", strings.Repeat("%", 12*1024), nil, auth.Request{Login: "alice", Password: strings.Repeat("%", 12*1024)}},
		"overlong":                 {strings.Repeat("a", 600), strings.Repeat("b", 600), nil, auth.Request{Login: strings.Repeat("a", 600), Password: strings.Repeat("b", 600)}},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _ := newServer(t, fullConfig(), nil)
			r := newRequest(t, "POST", "/dovecot/grant", grantBody(tt.login, tt.password), append(tt.header, "Content-Type", formType+"; charset=utf-8")...)
			ask(t, s, proxy, r)
			tt.want.FrontEnd, tt.want.Listener = "http", "http[1]"
			got := a.requests()
			if len(got) != 1 {
				t.Fatalf("%d attempts, want 1", len(got))
			}
			got[0].Session = ""
			if got[0] != tt.want {
				t.Errorf("request = %+v, want %+v", got[0], tt.want)
			}
		})
	}
}

func TestGrantBadRequests(t *testing.T) {
	good := grantBody("alice", password)
	form := []string{"Content-Type", formType}
	for name, tt := range map[string]struct {
		target, body string
		header       []string
	}{
		"no body":                   {"/dovecot/grant", "", form},
		"no content type":           {"/dovecot/grant", good, nil},
		"JSON":                      {"/dovecot/grant", good, []string{"Content-Type", "application/json"}},
		"multipart":                 {"/dovecot/grant", good, []string{"Content-Type", "multipart/form-data; boundary=x"}},
		"broken content type":       {"/dovecot/grant", good, []string{"Content-Type", formType + "; ="}},
		"two content types":         {"/dovecot/grant", good, []string{"Content-Type", formType, "Content-Type", formType}},
		"compressed":                {"/dovecot/grant", good, []string{"Content-Type", formType, "Content-Encoding", "gzip"}},
		"huge":                      {"/dovecot/grant", good + "&x=" + strings.Repeat("x", maxBody), form},
		"broken escape":             {"/dovecot/grant", good + "&x=%zz", form},
		"semicolon":                 {"/dovecot/grant", strings.ReplaceAll(good, "&", ";"), form},
		"two user names":            {"/dovecot/grant", good + "&username=bob", form},
		"two passwords":             {"/dovecot/grant", good + "&password=x", form},
		"two secrets":               {"/dovecot/grant", good + "&client_secret=" + grantSecret, form},
		"other grant":               {"/dovecot/grant", strings.Replace(good, "grant_type=password", "grant_type=client_credentials", 1), form},
		"no grant":                  {"/dovecot/grant", strings.Replace(good, "grant_type=password&", "", 1), form},
		"two services":              {"/dovecot/grant", good, append(form, "X-Dovecot-Auth-Service", "imap", "X-Dovecot-Auth-Service", "pop3")},
		"contradictory services":    {"/dovecot/grant", good, append(form, "X-Dovecot-Auth-Service", "imap", "X-Dovecot-Auth-Protocol", "pop3")},
		"two addresses":             {"/dovecot/grant", good, append(form, "X-Dovecot-Auth-Remote", "192.0.2.1:1", "X-Dovecot-Auth-Remote", "192.0.2.2:1")},
		"credentials in the target": {"/dovecot/grant?" + good, "", form},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, log := newServer(t, fullConfig(), nil)
			w := ask(t, s, proxy, newRequest(t, "POST", tt.target, tt.body, tt.header...))
			// "credentials in the target" and "no body" have an empty form, which has no secret either.
			empty := tt.body == ""
			if want := map[bool]int{false: 400, true: 503}[empty]; w.Code != want {
				t.Errorf("answer = %d %s, want %d", w.Code, w.Body, want)
			}
			if got := grantField(t, w, "error"); got == "invalid_grant" || got == "" {
				t.Errorf("error = %q: Dovecot 2.3 would take it for a wrong password", got)
			}
			if got := s.Stats(); len(a.requests()) != 0 || got.Rejected != 0 {
				t.Errorf("%d attempts, Stats() = %+v, want none", len(a.requests()), got)
			}
			if !strings.Contains(log.String(), "level=WARN") {
				t.Error("nothing is logged")
			}
		})
	}
}

func TestGrantSecret(t *testing.T) {
	for name, tt := range map[string]struct{ old, new string }{
		"no secret":    {"&client_secret=" + grantSecret, ""},
		"wrong secret": {grantSecret, "wrong-secret-0123456789"},
		"prefix":       {grantSecret, grantSecret[:10]},
		"wrong client": {"client_id=dovecot", "client_id=postfix"},
		"no client":    {"&client_id=dovecot", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, log := newServer(t, fullConfig(), nil)
			for range 3 {
				body := strings.Replace(grantBody("alice", password), tt.old, tt.new, 1)
				w := ask(t, s, proxy, newRequest(t, "POST", "/dovecot/grant", body, "Content-Type", formType))
				if w.Code != 503 || grantField(t, w, "error") != "temporarily_unavailable" {
					t.Errorf("answer = %d %s, want a temporary failure", w.Code, w.Body)
				}
			}
			if len(a.requests()) != 0 {
				t.Errorf("%d attempts, want none", len(a.requests()))
			}
			if got, want := s.Stats(), (Stats{Requests: 3, BadSecret: 3}); got != want {
				t.Errorf("Stats() = %+v, want %+v", got, want)
			}
			if n := strings.Count(log.String(), "client_secret"); n != 1 {
				t.Errorf("the log tells %d times what to do, want once: %s", n, log.String())
			}
		})
	}
}

func TestGrantWithoutServiceIsLoggedOnce(t *testing.T) {
	s, _, log := newServer(t, fullConfig(), nil)
	for range 3 {
		ask(t, s, proxy, newRequest(t, "POST", "/dovecot/grant", grantBody("alice", password), "Content-Type", formType))
	}
	if n := strings.Count(log.String(), "send_auth_headers = yes"); n != 1 {
		t.Errorf("the log tells %d times what to set, want once", n)
	}
}

// Dovecot 2.4's auth process aborts if its oauth2_fields ask for what is not in the answer.
func TestGrantSendsAllFieldsToDovecot24(t *testing.T) {
	cfg := fullConfig()
	cfg.Grant.Fields = []string{"quota_storage_size"}
	dir := fakeDirectory{"alice": {"uid": "1000", "quota_storage_size": "1G"}, "bare": nil}
	for name, tt := range map[string]struct {
		login, header string
		dir           Directory
		want          map[string]string // without the fields that every answer has
	}{
		"2.4, some":         {"alice", "X-Dovecot-Auth-Protocol", dir, map[string]string{"userdb_uid": "1000", "userdb_gid": "", "userdb_home": "", "userdb_mail": "", "userdb_quota": "", "userdb_quota_storage_size": "1G"}},
		"2.4, none":         {"bare", "X-Dovecot-Auth-Protocol", dir, map[string]string{"userdb_uid": "", "userdb_gid": "", "userdb_home": "", "userdb_mail": "", "userdb_quota": "", "userdb_quota_storage_size": ""}},
		"2.4, no directory": {"alice", "X-Dovecot-Auth-Protocol", nil, map[string]string{"userdb_uid": "", "userdb_gid": "", "userdb_home": "", "userdb_mail": "", "userdb_quota": "", "userdb_quota_storage_size": ""}},
		"2.3, some":         {"alice", "X-Dovecot-Auth-Service", dir, map[string]string{"userdb_uid": "1000", "userdb_quota_storage_size": "1G"}},
		"2.3, none":         {"bare", "X-Dovecot-Auth-Service", dir, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newServer(t, cfg, tt.dir)
			got := grantReply(t, ask(t, s, proxy, newRequest(t, "POST", "/dovecot/grant", grantBody(tt.login, password), "Content-Type", formType, tt.header, "imap")))
			for _, field := range []string{"access_token", "token_type", "username", "active", "login"} {
				if got[field] == "" {
					t.Errorf("answer %v has no %s", got, field)
				}
				delete(got, field)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("userdb fields differ (-want +got):\n%s", diff)
			}
		})
	}
}

// A body that breaks off is not a shorter form.
func TestGrantBodyBreaksOff(t *testing.T) {
	s, a, _ := newServer(t, fullConfig(), nil)
	r := newRequest(t, "POST", "/dovecot/grant", "x", "Content-Type", formType)
	r.Body = breakingBody{strings.NewReader(grantBody("alice", password))}
	if w := ask(t, s, proxy, r); w.Code != 400 || len(a.requests()) != 0 {
		t.Errorf("answer = %d with %d attempts, want 400 with none", w.Code, len(a.requests()))
	}
}

type breakingBody struct{ *strings.Reader }

func (b breakingBody) Read(p []byte) (int, error) {
	if b.Len() == 0 {
		return 0, errors.New("connection reset")
	}
	return b.Reader.Read(p)
}
func (breakingBody) Close() error { return nil }
