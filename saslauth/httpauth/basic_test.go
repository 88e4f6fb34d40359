package httpauth

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

func basicAuth(login, pw string) string {
	return base64.StdEncoding.EncodeToString([]byte(login + ":" + pw))
}

func basicRequest(t testing.TB, target, login, pw string, header ...string) *http.Request {
	return newRequest(t, "GET", target, "", append([]string{"Authorization", "Basic " + basicAuth(login, pw)}, header...)...)
}

func TestBasicOutcomes(t *testing.T) {
	challenge := `Basic realm="app password", charset="UTF-8"`
	for name, tt := range map[string]struct {
		request   *http.Request
		status    int
		user      string
		challenge string
		stats     Stats
	}{
		"accepted":             {basicRequest(t, "/basic", "alice", password), 200, "alice", "", Stats{Requests: 1, Accepted: 1}},
		"accepted by an alias": {basicRequest(t, "/basic", "alias", password), 200, "alice@example.org", "", Stats{Requests: 1, Accepted: 1}},
		"accepted, UTF-8":      {basicRequest(t, "/basic", "jürgen", password), 200, "jürgen", "", Stats{Requests: 1, Accepted: 1}},
		"rejected":             {basicRequest(t, "/basic", "no", password), 401, "", challenge, Stats{Requests: 1, Rejected: 1}},
		"undecided":            {basicRequest(t, "/basic", "broken", password), 503, "", "", Stats{Requests: 1, Undecided: 1}},
		"no credentials":       {newRequest(t, "GET", "/basic", ""), 401, "", challenge, Stats{Requests: 1}},
		"empty header":         {newRequest(t, "GET", "/basic", "", "Authorization", ""), 401, "", challenge, Stats{Requests: 1}},
		"another scheme":       {newRequest(t, "GET", "/basic", "", "Authorization", "Bearer "+password), 401, "", challenge, Stats{Requests: 1}},
		"user header forged":   {basicRequest(t, "/basic", "no", password, "Remote-User", "root"), 401, "", challenge, Stats{Requests: 1, Rejected: 1}},
		"not base64":           {newRequest(t, "GET", "/basic", "", "Authorization", "Basic "+password+"!"), 400, "", "", Stats{Requests: 1}},
		"no colon":             {newRequest(t, "GET", "/basic", "", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(password))), 400, "", "", Stats{Requests: 1}},
		"no value":             {newRequest(t, "GET", "/basic", "", "Authorization", "Basic"), 400, "", "", Stats{Requests: 1}},
		"line end":             {basicRequest(t, "/basic", "alice", password+"\r\nX: y"), 400, "", "", Stats{Requests: 1}},
		"NUL":                  {basicRequest(t, "/basic", "alice\x00", password), 400, "", "", Stats{Requests: 1}},
		"two headers":          {basicRequest(t, "/basic", "alice", password, "Authorization", "Basic "+basicAuth("no", "x")), 400, "", "", Stats{Requests: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newServer(t, fullConfig(), fakeDirectory(nil))
			w := ask(t, s, proxy, tt.request)
			h := w.Header()
			if w.Code != tt.status || h.Get("Remote-User") != tt.user || h.Get("WWW-Authenticate") != tt.challenge || h.Get("Cache-Control") != "no-store" {
				t.Errorf("answer = %d %v, want %d, user %q, challenge %q, not stored", w.Code, h, tt.status, tt.user, tt.challenge)
			}
			if (w.Code == 200 || w.Code == 401) && w.Body.Len() != 0 {
				t.Errorf("answer has the body %q, want none: nginx could not keep the connection", w.Body)
			}
			if got := s.Stats(); got != tt.stats {
				t.Errorf("Stats() = %+v, want %+v", got, tt.stats)
			}
		})
	}
}

func TestBasicRequests(t *testing.T) {
	local := peer{listener: "http[1]", addr: netip.MustParseAddr("127.0.0.1")} // not trusted by fullConfig
	unix := peer{listener: "http[1]", unix: true}
	user := netip.MustParseAddr("192.0.2.7")
	for name, tt := range map[string]struct {
		peer    peer
		request *http.Request
		want    auth.Request
	}{
		"plain":                 {proxy, basicRequest(t, "/basic", "alice", "secret"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"service":               {proxy, basicRequest(t, "/basic/CalDAV", "alice", "secret"), auth.Request{Login: "alice", Password: "secret", Service: "caldav"}},
		"colons":                {proxy, basicRequest(t, "/basic", "alice", ":a:b:"), auth.Request{Login: "alice", Password: ":a:b:", Service: "http"}},
		"UTF-8":                 {proxy, basicRequest(t, "/basic", "jürgen", "pässwörd ☃"), auth.Request{Login: "jürgen", Password: "pässwörd ☃", Service: "http"}},
		"Latin-1":               {proxy, basicRequest(t, "/basic", "alice", "p\xe4ss"), auth.Request{Login: "alice", Password: "p\xe4ss", Service: "http"}},
		"scheme in lower case":  {proxy, newRequest(t, "GET", "/basic", "", "Authorization", "basic  "+basicAuth("alice", "secret")+" "), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"query is ignored":      {proxy, basicRequest(t, "/basic?username=bob&service=x", "alice", "secret"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"address":               {proxy, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "192.0.2.7"), auth.Request{Login: "alice", Password: "secret", Service: "http", Addr: user}},
		"address, https":        {proxy, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "192.0.2.7", "X-Forwarded-Proto", "HTTPS"), auth.Request{Login: "alice", Password: "secret", Service: "http", Addr: user, TLS: auth.TLSYes}},
		"http":                  {proxy, basicRequest(t, "/basic", "alice", "secret", "X-Forwarded-Proto", "http"), auth.Request{Login: "alice", Password: "secret", Service: "http", TLS: auth.TLSNo}},
		"other header":          {proxy, basicRequest(t, "/basic", "alice", "secret", "X-Forwarded-For", "192.0.2.7", "Client-IP", "192.0.2.7"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"address twice":         {proxy, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "192.0.2.7", "X-Real-IP", "192.0.2.8"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"list of addresses":     {proxy, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "192.0.2.7, 192.0.2.8"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"name for an address":   {proxy, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "localhost"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"untrusted peer spoofs": {local, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "192.0.2.7", "X-Forwarded-Proto", "https"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"untrusted Unix socket": {unix, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "192.0.2.7"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
		"unknown peer":          {peer{listener: "http[1]"}, basicRequest(t, "/basic", "alice", "secret", "X-Real-IP", "192.0.2.7"), auth.Request{Login: "alice", Password: "secret", Service: "http"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _ := newServer(t, fullConfig(), nil)
			ask(t, s, tt.peer, tt.request)
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

func TestBasicConfig(t *testing.T) {
	s, a, log := newServer(t, Config{Basic: &Basic{
		Service: "WebDAV", Realm: "Example, Inc.", UserHeader: "X-User", Secret: basicSecret, SecretHeader: "X-Site",
		TrustUnix: true, AddressHeader: "X-Client",
	}}, nil)
	unix := peer{unix: true}
	w := ask(t, s, unix, basicRequest(t, "/basic", "alias", password, "X-Site", basicSecret, "X-Client", "192.0.2.7"))
	if w.Code != 200 || w.Header().Get("X-User") != "alice@example.org" || w.Header().Get("Remote-User") != "" {
		t.Errorf("answer = %d %v, want 200 with X-User", w.Code, w.Header())
	}
	if got := a.requests()[0]; got.Service != "webdav" || got.Addr != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("request = %+v, want service webdav from 192.0.2.7", got)
	}
	w = ask(t, s, unix, newRequest(t, "GET", "/basic", "", "X-Site", basicSecret))
	if got, want := w.Header().Get("WWW-Authenticate"), `Basic realm="Example, Inc.", charset="UTF-8"`; got != want {
		t.Errorf("challenge = %s, want %s", got, want)
	}
	for _, header := range [][]string{nil, {"X-Site", "wrong-secret-0123456789"}, {"X-Auth-Key", basicSecret}, {"X-Site", basicSecret, "X-Site", basicSecret}} {
		if w := ask(t, s, unix, basicRequest(t, "/basic", "alice", password, header...)); w.Code != 503 {
			t.Errorf("answer with %d headers = %d, want 503", len(header)/2, w.Code)
		}
	}
	if got := s.Stats(); got.BadSecret != 4 || got.Accepted != 1 || len(a.requests()) != 1 {
		t.Errorf("Stats() = %+v with %d attempts, want 4 bad secrets and 1 accepted", got, len(a.requests()))
	}
	if !strings.Contains(log.String(), "set X-Site to the secret") {
		t.Errorf("the log does not tell what to do: %s", log.String())
	}
}

func TestForwardedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		lines []string
		want  string // empty: not known
	}{
		"none":                        {nil, ""},
		"empty":                       {[]string{""}, ""},
		"one":                         {[]string{"192.0.2.7"}, "192.0.2.7"},
		"forged on the left":          {[]string{"203.0.113.66, 192.0.2.7"}, "192.0.2.7"},
		"through a proxy":             {[]string{"203.0.113.66, 192.0.2.7, 10.0.0.1"}, "192.0.2.7"},
		"through two proxies":         {[]string{"192.0.2.7,10.0.0.1 ,\t10.0.0.2"}, "192.0.2.7"},
		"forged line":                 {[]string{"203.0.113.66", "192.0.2.7"}, "192.0.2.7"},
		"lines":                       {[]string{"203.0.113.66, 192.0.2.7", "10.0.0.1", "10.0.0.2"}, "192.0.2.7"},
		"forged as a proxy":           {[]string{"10.0.0.9, 192.0.2.7"}, "192.0.2.7"},
		"from inside":                 {[]string{"10.9.9.9, 10.0.0.1"}, "10.9.9.9"},
		"forged rubbish on the left":  {[]string{"unknown, ;;, 192.0.2.7"}, "192.0.2.7"},
		"rubbish on the right":        {[]string{"192.0.2.7, unknown"}, ""},
		"rubbish behind proxies":      {[]string{"192.0.2.7, unknown, 10.0.0.1"}, ""},
		"gap":                         {[]string{"192.0.2.7,,10.0.0.1"}, ""},
		"comma at the end":            {[]string{"192.0.2.7,"}, ""},
		"port":                        {[]string{"192.0.2.7:4711"}, "192.0.2.7"},
		"IPv6":                        {[]string{"2001:db8::7"}, "2001:db8::7"},
		"IPv6 in brackets":            {[]string{"[2001:db8::7]"}, "2001:db8::7"},
		"IPv6 with port, IPv6 proxy":  {[]string{"[2001:db8::7]:4711, fd00::1"}, "2001:db8::7"},
		"mapped":                      {[]string{"::ffff:192.0.2.7, ::ffff:10.0.0.1"}, "192.0.2.7"},
		"zone":                        {[]string{"fe80::1%eth0"}, "fe80::1"},
		"RFC 7239 is another header":  {[]string{"for=192.0.2.7"}, ""},
		"many proxies":                {[]string{"192.0.2.7" + strings.Repeat(", 10.0.0.1", maxHops-1)}, "192.0.2.7"},
		"more proxies than there are": {[]string{"192.0.2.7" + strings.Repeat(", 10.0.0.1", maxHops)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := *fullConfig().Basic
			b.AddressHeader = "x-forwarded-for"
			r := newRequest(t, "GET", "/basic", "")
			r.Header["X-Forwarded-For"] = tt.lines
			s, a, _ := newServer(t, Config{Basic: &b}, nil)
			r.SetBasicAuth("alice", password)
			ask(t, s, proxy, r)
			var want netip.Addr
			if tt.want != "" {
				want = netip.MustParseAddr(tt.want)
			}
			if got := a.requests()[0].Addr; got != want {
				t.Errorf("address for %q = %v, want %v", tt.lines, got, want)
			}
			ask(t, s, peer{addr: netip.MustParseAddr("192.0.2.200")}, r)
			if got := a.requests()[1].Addr; got.IsValid() {
				t.Errorf("address for %q from a peer that is not trusted = %v, want not known", tt.lines, got)
			}
		})
	}
}

// TestTraefik asks as Traefik's documentation says that its forwardAuth does: by a GET with the headers of the user's request, in which
// those named X-Forwarded are Traefik's own.
func TestTraefik(t *testing.T) {
	b := *fullConfig().Basic
	b.AddressHeader, b.SecretHeader, b.Secret = "X-Forwarded-For", "X-Auth-Key", basicSecret
	s, a, _ := newServer(t, Config{Basic: &b}, nil)
	w := ask(t, s, proxy, basicRequest(t, "/basic/caldav", "alias", password,
		"X-Auth-Key", basicSecret, "User-Agent", "calendar", "Remote-User", "mallory@example.org", "X-Real-Ip", "192.0.2.66",
		"X-Forwarded-Method", "PUT", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "dav.example.org",
		"X-Forwarded-Uri", "/basic/imap?service=imap", "X-Forwarded-For", "192.0.2.7"))
	if got := w.Header().Get("Remote-User"); w.Code != 200 || got != "alice@example.org" {
		t.Errorf("answer = %d with Remote-User %q, want 200 with alice@example.org", w.Code, got)
	}
	got := a.requests()[0]
	if want := netip.MustParseAddr("192.0.2.7"); got.Service != "caldav" || got.Addr != want || got.TLS != auth.TLSYes {
		t.Errorf("request = %+v, want service caldav from %v over TLS", got, want)
	}
}
