package httpauth

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
)

// mailEscape encodes as nginx does: space, % and what is not printable ASCII.
func mailEscape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c == '%' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// mailHeaders is what nginx 1.22 sends.
func mailHeaders(t testing.TB, protocol, login, pw string, header ...string) *http.Request {
	return newRequest(t, "GET", "/nginx/mail", "", append([]string{"Auth-Method", "plain", "Auth-User", mailEscape(login), "Auth-Pass", mailEscape(pw),
		"Auth-Protocol", protocol, "Auth-Login-Attempt", "1", "Client-IP", "192.0.2.7", "X-Auth-Key", mailSecret}, header...)...)
}

func without(r *http.Request, names ...string) *http.Request {
	for _, n := range names {
		r.Header.Del(n)
	}
	return r
}

func with(r *http.Request, name, value string) *http.Request {
	r.Header.Set(name, value)
	return r
}

func TestMailOutcomes(t *testing.T) {
	for name, tt := range map[string]struct {
		request *http.Request
		want    http.Header
		stats   Stats
	}{
		"accepted": {mailHeaders(t, "imap", "alice", password),
			http.Header{"Auth-Status": {"OK"}, "Auth-Server": {"192.0.2.10"}, "Auth-Port": {"143"}}, Stats{Requests: 1, Accepted: 1}},
		"accepted, IPv6 backend": {mailHeaders(t, "smtp", "alice", password),
			http.Header{"Auth-Status": {"OK"}, "Auth-Server": {"2001:db8::25"}, "Auth-Port": {"587"}}, Stats{Requests: 1, Accepted: 1}},
		"accepted by an alias": {mailHeaders(t, "imap", "alias", password),
			http.Header{"Auth-Status": {"OK"}, "Auth-Server": {"192.0.2.10"}, "Auth-Port": {"143"}, "Auth-User": {"alice@example.org"}}, Stats{Requests: 1, Accepted: 1}},
		"rejected, imap": {mailHeaders(t, "imap", "no", password),
			http.Header{"Auth-Status": {"[AUTHENTICATIONFAILED] Invalid login or password"}, "Auth-Wait": {"2"}}, Stats{Requests: 1, Rejected: 1}},
		"rejected, smtp": {mailHeaders(t, "smtp", "no", password),
			http.Header{"Auth-Status": {"Invalid login or password"}, "Auth-Error-Code": {"535 5.7.8"}, "Auth-Wait": {"2"}}, Stats{Requests: 1, Rejected: 1}},
		"rejected, tenth attempt": {with(mailHeaders(t, "smtp", "no", password), "Auth-Login-Attempt", "10"),
			http.Header{"Auth-Status": {"Invalid login or password"}, "Auth-Error-Code": {"535 5.7.8"}}, Stats{Requests: 1, Rejected: 1}},
		"rejected, ninth attempt": {with(mailHeaders(t, "smtp", "no", password), "Auth-Login-Attempt", "9"),
			http.Header{"Auth-Status": {"Invalid login or password"}, "Auth-Error-Code": {"535 5.7.8"}, "Auth-Wait": {"2"}}, Stats{Requests: 1, Rejected: 1}},
		"accepted, hundredth attempt": {with(mailHeaders(t, "imap", "alice", password), "Auth-Login-Attempt", "100"),
			http.Header{"Auth-Status": {"OK"}, "Auth-Server": {"192.0.2.10"}, "Auth-Port": {"143"}}, Stats{Requests: 1, Accepted: 1}},
		"undecided, imap": {mailHeaders(t, "imap", "broken", password),
			http.Header{"Auth-Status": {"[UNAVAILABLE] Temporary authentication failure"}, "Auth-Wait": {"2"}}, Stats{Requests: 1, Undecided: 1}},
		"undecided, smtp": {mailHeaders(t, "smtp", "broken", password),
			http.Header{"Auth-Status": {"Temporary authentication failure"}, "Auth-Error-Code": {"451 4.3.0"}, "Auth-Wait": {"2"}}, Stats{Requests: 1, Undecided: 1}},
		"no backend": {mailHeaders(t, "pop3", "alice", password),
			http.Header{"Auth-Status": {"[SYS/TEMP] Temporary authentication failure"}, "Auth-Wait": {"2"}}, Stats{Requests: 1}},
		"cram-md5": {with(mailHeaders(t, "imap", "alice", "0123456789abcdef0123456789abcdef"), "Auth-Method", "cram-md5"),
			http.Header{"Auth-Status": {"[CANNOT] Authentication mechanism is not supported"}, "Auth-Wait": {"2"}}, Stats{Requests: 1}},
		"apop": {with(mailHeaders(t, "pop3", "alice", "0123456789abcdef0123456789abcdef"), "Auth-Method", "apop"),
			http.Header{"Auth-Status": {"Authentication mechanism is not supported"}, "Auth-Wait": {"2"}}, Stats{Requests: 1}},
		"external": {with(mailHeaders(t, "smtp", "alice", ""), "Auth-Method", "external"),
			http.Header{"Auth-Status": {"Authentication mechanism is not supported"}, "Auth-Error-Code": {"504 5.5.4"}, "Auth-Wait": {"2"}}, Stats{Requests: 1}},
		"none": {without(with(mailHeaders(t, "smtp", "", ""), "Auth-Method", "none"), "Auth-User", "Auth-Pass"),
			http.Header{"Auth-Status": {"Authentication required"}, "Auth-Error-Code": {"530 5.7.0"}, "Auth-Wait": {"2"}}, Stats{Requests: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newServer(t, fullConfig(), fakeDirectory(nil))
			w := ask(t, s, proxy, tt.request)
			if w.Code != 200 || w.Body.Len() != 0 {
				t.Errorf("answer = %d %q, want 200 without a body", w.Code, w.Body)
			}
			if diff := cmp.Diff(tt.want, w.Header()); diff != "" {
				t.Errorf("answer differs (-want +got):\n%s", diff)
			}
			if got := s.Stats(); got != tt.stats {
				t.Errorf("Stats() = %+v, want %+v", got, tt.stats)
			}
		})
	}
}

func TestMailRequests(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.7")
	for name, tt := range map[string]struct {
		request *http.Request
		want    auth.Request
	}{
		"imap":         {mailHeaders(t, "imap", "alice", "secret"), auth.Request{Login: "alice", Password: "secret", Service: "imap", Addr: addr, TLS: auth.TLSNo}},
		"smtp, TLS":    {mailHeaders(t, "smtp", "alice", "secret", "Auth-SSL", "on"), auth.Request{Login: "alice", Password: "secret", Service: "smtp", Addr: addr, TLS: auth.TLSYes}},
		"as captured":  {mailHeaders(t, "imap", "al ice%", "x y"), auth.Request{Login: "al ice%", Password: "x y", Service: "imap", Addr: addr, TLS: auth.TLSNo}},
		"everything":   {mailHeaders(t, "imap", "jürgen:x", "p w+%&=;é:\"\\\x00\xff%41"), auth.Request{Login: "jürgen:x", Password: "p w+%&=;é:\"\\\x00\xff%41", Service: "imap", Addr: addr, TLS: auth.TLSNo}},
		"plus is plus": {mailHeaders(t, "imap", "a+b", "c+d"), auth.Request{Login: "a+b", Password: "c+d", Service: "imap", Addr: addr, TLS: auth.TLSNo}},
		"PLAIN":        {with(mailHeaders(t, "imap", "alice", "secret"), "Auth-Method", "PLAIN"), auth.Request{Login: "alice", Password: "secret", Service: "imap", Addr: addr, TLS: auth.TLSNo}},
		"IPv6":         {with(mailHeaders(t, "imap", "a", "b"), "Client-IP", "2001:db8::7"), auth.Request{Login: "a", Password: "b", Service: "imap", Addr: netip.MustParseAddr("2001:db8::7"), TLS: auth.TLSNo}},
		"Unix socket":  {with(mailHeaders(t, "imap", "a", "b"), "Client-IP", "unix:"), auth.Request{Login: "a", Password: "b", Service: "imap", TLS: auth.TLSNo}},
		"no address":   {without(mailHeaders(t, "imap", "a", "b"), "Client-IP"), auth.Request{Login: "a", Password: "b", Service: "imap", TLS: auth.TLSNo}},
		"spoofed":      {mailHeaders(t, "imap", "a", "b", "X-Real-IP", "192.0.2.99"), auth.Request{Login: "a", Password: "b", Service: "imap", Addr: addr, TLS: auth.TLSNo}},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _ := newServer(t, fullConfig(), nil)
			ask(t, s, proxy, tt.request)
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

// Without Auth-Status in the answer nginx tells the user of an internal error.
func TestMailBadRequests(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"no protocol":        without(mailHeaders(t, "imap", "alice", password), "Auth-Protocol"),
		"unknown protocol":   mailHeaders(t, "ftp", "alice", password),
		"no method":          without(mailHeaders(t, "imap", "alice", password), "Auth-Method"),
		"no user":            without(mailHeaders(t, "imap", "alice", password), "Auth-User"),
		"no password":        without(mailHeaders(t, "imap", "alice", password), "Auth-Pass"),
		"two users":          mailHeaders(t, "imap", "alice", password, "Auth-User", "bob"),
		"two passwords":      mailHeaders(t, "imap", "alice", password, "Auth-Pass", "x"),
		"two addresses":      mailHeaders(t, "imap", "alice", password, "Client-IP", "192.0.2.8"),
		"two protocols":      mailHeaders(t, "imap", "alice", password, "Auth-Protocol", "smtp"),
		"broken user":        with(mailHeaders(t, "imap", "alice", password), "Auth-User", "al%ice"),
		"broken password":    with(mailHeaders(t, "imap", "alice", password), "Auth-Pass", password+"%"),
		"method repeated":    mailHeaders(t, "imap", "alice", password, "Auth-Method", "none"),
		"two user spellings": mailHeaders(t, "imap", "alice", password, "auth-user", "bob"),
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _ := newServer(t, fullConfig(), nil)
			w := ask(t, s, proxy, r)
			if w.Code != 400 || w.Header().Get("Auth-Status") != "" || w.Header().Get("Auth-Server") != "" {
				t.Errorf("answer = %d %v, want 400 without Auth-Status", w.Code, w.Header())
			}
			if len(a.requests()) != 0 {
				t.Errorf("%d attempts, want none", len(a.requests()))
			}
		})
	}
}

func TestMailSecret(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"none":    without(mailHeaders(t, "smtp", "alice", password), "X-Auth-Key"),
		"wrong":   with(mailHeaders(t, "smtp", "alice", password), "X-Auth-Key", "wrong-secret-0123456789"),
		"grant's": with(mailHeaders(t, "smtp", "alice", password), "X-Auth-Key", grantSecret),
		"twice":   mailHeaders(t, "smtp", "alice", password, "X-Auth-Key", mailSecret),
	} {
		t.Run(name, func(t *testing.T) {
			s, a, log := newServer(t, fullConfig(), nil)
			w := ask(t, s, proxy, r)
			if w.Code != 503 || w.Header().Get("Auth-Error-Code") != "451 4.3.0" || w.Header().Get("Auth-Server") != "" || w.Header().Get("Auth-Wait") != "" {
				t.Errorf("answer = %d %v, want a temporary failure", w.Code, w.Header())
			}
			if got := s.Stats(); len(a.requests()) != 0 || got.BadSecret != 1 {
				t.Errorf("%d attempts, Stats() = %+v, want none, and one bad secret", len(a.requests()), got)
			}
			if !strings.Contains(log.String(), "auth_http_header X-Auth-Key") {
				t.Errorf("the log does not tell what to do: %s", log.String())
			}
		})
	}
}

func TestMailConfig(t *testing.T) {
	cfg := fullConfig()
	cfg.Mail.SecretHeader = "X-Site-Secret"
	cfg.Mail.MaxAttempts = 1
	cfg.Mail.RetryWait = 1
	s, _, _ := newServer(t, cfg, nil)
	r := mailHeaders(t, "imap", "alice", password, "X-Site-Secret", mailSecret)
	if w := ask(t, s, proxy, without(r, "X-Auth-Key")); w.Header().Get("Auth-Status") != "OK" {
		t.Errorf("with the secret in the configured header = %v, want OK", w.Header())
	}
	r = with(mailHeaders(t, "imap", "no", password), "X-Site-Secret", mailSecret)
	if w := ask(t, s, proxy, r); w.Header().Get("Auth-Wait") != "" {
		t.Errorf("first of one attempt = %v, want nginx to hang up", w.Header())
	}
	if s.cfg.Mail.RetryWait.Seconds() != 1 {
		t.Errorf("RetryWait = %v, want 1s at least", s.cfg.Mail.RetryWait)
	}
}
