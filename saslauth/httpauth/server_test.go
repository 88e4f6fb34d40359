package httpauth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

const (
	grantSecret = "grant-secret-0123456789"
	mailSecret  = "mail-secret-0123456789"
	basicSecret = "basic-secret-0123456789"
	password    = "pass-word-marker"
)

// fakeAuth decides by the login, and remembers what it was asked.
type fakeAuth struct {
	mu    sync.Mutex
	asked []auth.Request
	ctx   context.Context // of the last request
}

func (f *fakeAuth) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	f.mu.Lock()
	f.asked = append(f.asked, req)
	f.ctx = ctx
	f.mu.Unlock()
	switch {
	case strings.HasPrefix(req.Login, "broken"):
		return auth.Decision{OK: true, Login: "broken"}, errors.New("out of order")
	case req.Login == "nobody":
		return auth.Decision{OK: true}, nil
	case req.Login == "panic":
		panic("password " + req.Password)
	case req.Login == "hang":
		<-ctx.Done()
		return auth.Decision{}, ctx.Err()
	case strings.HasPrefix(req.Login, "no"):
		return auth.Decision{Reason: auth.NoMatch, Label: "label-marker"}, nil
	case req.Login == "alias":
		return auth.Decision{OK: true, Login: "alice@example.org"}, nil
	}
	return auth.Decision{OK: true, Login: req.Login}, nil
}

func (f *fakeAuth) requests() []auth.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

type fakeDirectory map[string]map[string]string // canonical login to userdb fields; nil: out of order

func (d fakeDirectory) Entry(_ context.Context, login string) (auth.Account, error) {
	switch fields, ok := d[login]; {
	case d == nil:
		return auth.Account{}, errors.New("out of order")
	case !ok:
		return auth.Account{}, fmt.Errorf("reading: %w", auth.ErrNoAccount)
	default:
		return auth.Account{Login: login, Userdb: fields}, nil
	}
}

// logBuffer holds the log at its most talkative.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func fullConfig() Config {
	return Config{
		Listener: "http[1]",
		Grant:    &Grant{ClientSecret: grantSecret},
		Mail: &Mail{Secret: mailSecret, Backends: map[string]netip.AddrPort{
			"imap": netip.MustParseAddrPort("192.0.2.10:143"),
			"smtp": netip.MustParseAddrPort("[2001:db8::25]:587"),
		}},
		Basic: &Basic{
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
			AddressHeader:  "X-Real-IP",
		},
	}
}

// newServer makes a server and checks, when the test ends, that its log holds nothing that it must not.
func newServer(t testing.TB, cfg Config, dir Directory) (*Server, *fakeAuth, *logBuffer) {
	t.Helper()
	a, log := &fakeAuth{}, &logBuffer{}
	s, err := New(cfg, a, dir, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		text := log.String()
		for _, secret := range []string{password, grantSecret, mailSecret, basicSecret, basicAuth("alice", password), "label-marker"} {
			if strings.Contains(text, secret) {
				t.Errorf("the log holds %q:\n%s", secret, text)
			}
		}
	})
	return s, a, log
}

// proxy is a peer that fullConfig trusts.
var proxy = peer{listener: "http[1]", addr: netip.MustParseAddr("10.1.2.3")}

// ask hands r to the server as if it came from p. Whatever the answer is, it must not hold a secret.
func ask(t testing.TB, s *Server, p peer, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p)))
	text := fmt.Sprint(w.Header()) + w.Body.String()
	for _, secret := range []string{password, grantSecret, mailSecret, basicSecret, "no_match", "label-marker"} {
		if strings.Contains(text, secret) {
			t.Errorf("the answer holds %q: %s", secret, text)
		}
	}
	return w
}

func newRequest(t testing.TB, method, target, body string, header ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func TestNewRefuses(t *testing.T) {
	addr := netip.MustParseAddrPort("192.0.2.1:143")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	backends := map[string]netip.AddrPort{"imap": addr}
	for name, tt := range map[string]struct {
		cfg  Config
		want string // part of the error; empty: accepted
	}{
		"nothing":                   {Config{}, "no endpoint"},
		"grant":                     {Config{Grant: &Grant{ClientSecret: grantSecret}}, ""},
		"grant without secret":      {Config{Grant: &Grant{}}, "no client secret"},
		"grant, short secret":       {Config{Grant: &Grant{ClientSecret: "fifteen-bytes.."}}, "shorter than 16"},
		"mail":                      {Config{Mail: &Mail{Secret: mailSecret, Backends: backends}}, ""},
		"mail without secret":       {Config{Mail: &Mail{Backends: backends}}, "no secret"},
		"mail, short secret":        {Config{Mail: &Mail{Secret: "t1ny", Backends: backends}}, "shorter than 16"},
		"mail, line end in secret":  {Config{Mail: &Mail{Secret: mailSecret + "\n", Backends: backends}}, "cannot stand in a header"},
		"mail, space after secret":  {Config{Mail: &Mail{Secret: mailSecret + " ", Backends: backends}}, "cannot stand in a header"},
		"mail, bad header":          {Config{Mail: &Mail{SecretHeader: "X Key", Secret: mailSecret, Backends: backends}}, "not the name of a header"},
		"mail without backend":      {Config{Mail: &Mail{Secret: mailSecret}}, "no backend"},
		"mail, unknown protocol":    {Config{Mail: &Mail{Secret: mailSecret, Backends: map[string]netip.AddrPort{"imaps": addr}}}, "imap, pop3 and smtp"},
		"mail, backend, no port":    {Config{Mail: &Mail{Secret: mailSecret, Backends: map[string]netip.AddrPort{"imap": netip.AddrPortFrom(addr.Addr(), 0)}}}, "not an address with a port"},
		"mail, backend, no address": {Config{Mail: &Mail{Secret: mailSecret, Backends: map[string]netip.AddrPort{"imap": {}}}}, "not an address with a port"},
		"basic":                     {Config{Basic: &Basic{}}, ""},
		"basic with addresses":      {Config{Basic: &Basic{TrustedProxies: trusted, AddressHeader: "X-Real-IP"}}, ""},
		"basic, unix":               {Config{Basic: &Basic{TrustUnix: true, AddressHeader: "X-Forwarded-For"}}, ""},
		"basic, nobody trusted":     {Config{Basic: &Basic{AddressHeader: "X-Real-IP"}}, "no proxy is trusted"},
		"basic, no address header":  {Config{Basic: &Basic{TrustedProxies: trusted}}, "address header is not named"},
		"basic, unix, no header":    {Config{Basic: &Basic{TrustUnix: true}}, "address header is not named"},
		"basic, bad proxy":          {Config{Basic: &Basic{TrustedProxies: make([]netip.Prefix, 1), AddressHeader: "X-Real-IP"}}, "not a network"},
		"basic, bad service":        {Config{Basic: &Basic{Service: "a/b"}}, "not a service name"},
		"basic, quote in realm":     {Config{Basic: &Basic{Realm: `a"b`}}, "realm"},
		"basic, line end in realm":  {Config{Basic: &Basic{Realm: "a\r\nb"}}, "realm"},
		"basic, bad user header":    {Config{Basic: &Basic{UserHeader: "Remote_User"}}, "not the name of a header"},
		"basic, bad address header": {Config{Basic: &Basic{TrustUnix: true, AddressHeader: "X-Real-IP:"}}, "not the name of a header"},
		"basic, short secret":       {Config{Basic: &Basic{Secret: "short"}}, "shorter than 16"},
		"basic, header, no secret":  {Config{Basic: &Basic{SecretHeader: "X-Key"}}, "no secret is configured"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(tt.cfg, &fakeAuth{}, nil, slog.New(slog.DiscardHandler))
			switch {
			case tt.want == "" && (err != nil || s == nil):
				t.Errorf("New() = %v, %v, want a server", s, err)
			case tt.want != "" && (err == nil || s != nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("New() = %v, %v, want an error with %q", s, err, tt.want)
			case err != nil && tt.cfg.Mail != nil && tt.cfg.Mail.Secret != "" && strings.Contains(err.Error(), tt.cfg.Mail.Secret):
				t.Errorf("New() = %v, which holds the secret", err)
			}
		})
	}
}

// New must not change what it was given: the daemon compares configurations when it reloads.
func TestNewCopiesConfig(t *testing.T) {
	cfg := Config{Grant: &Grant{ClientSecret: grantSecret}, Basic: &Basic{}}
	newServer(t, cfg, nil)
	if cfg.Grant.ClientID != "" || cfg.Basic.Service != "" || cfg.MaxConns != 0 {
		t.Errorf("New changed its configuration: %+v %+v", cfg.Grant, cfg.Basic)
	}
}

func TestRouting(t *testing.T) {
	full := fullConfig()
	for name, tt := range map[string]struct {
		cfg            Config
		method, target string
		want           int
	}{
		"root":                {full, "GET", "/", 404},
		"grant with GET":      {full, "GET", "/dovecot/grant", 405},
		"grant, not served":   {Config{Basic: full.Basic}, "POST", "/dovecot/grant", 404},
		"mail with POST":      {full, "POST", "/nginx/mail", 405},
		"mail, not served":    {Config{Basic: full.Basic}, "GET", "/nginx/mail", 404},
		"basic":               {full, "GET", "/basic", 401},
		"basic with HEAD":     {full, "HEAD", "/basic", 401},
		"basic with POST":     {full, "POST", "/basic", 405},
		"basic, not served":   {Config{Grant: full.Grant}, "GET", "/basic", 404},
		"service, not served": {Config{Grant: full.Grant}, "GET", "/basic/wiki", 404},
		"service":             {full, "GET", "/basic/wiki", 401},
		"no service":          {full, "GET", "/basic/", 404},
		"two segments":        {full, "GET", "/basic/wiki/page", 404},
		"escaped slash":       {full, "GET", "/basic/wiki%2Fpage", 404},
		"dot segments":        {full, "GET", "/x/../basic", 404},
		"trailing slash":      {full, "POST", "/dovecot/grant/", 404},
		"double slash":        {full, "POST", "//dovecot/grant", 404},
		"long service":        {full, "GET", "/basic/" + strings.Repeat("a", 65), 404},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _ := newServer(t, tt.cfg, nil)
			w := ask(t, s, proxy, newRequest(t, tt.method, tt.target, ""))
			if w.Code != tt.want || w.Header().Get("Location") != "" {
				t.Errorf("%s %s = %d %v, want %d and no redirect", tt.method, tt.target, w.Code, w.Header(), tt.want)
			}
			if w.Code == 405 && w.Header().Get("Allow") == "" {
				t.Errorf("%s %s = 405 without Allow", tt.method, tt.target)
			}
			if n := len(a.requests()); n != 0 {
				t.Errorf("%s %s asked the authenticator %d times, want none", tt.method, tt.target, n)
			}
		})
	}
}

// A comparison with == would tell by its time how much of a guess is right.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	secretField := func(e ast.Expr) bool {
		sel, ok := e.(*ast.SelectorExpr)
		return ok && (sel.Sel.Name == "Secret" || sel.Sel.Name == "ClientSecret" || sel.Sel.Name == "ClientID")
	}
	isEmpty := func(e ast.Expr) bool {
		lit, ok := e.(*ast.BasicLit)
		return ok && lit.Value == `""`
	}
	compared, constant := 0, 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if (secretField(n.X) && !isEmpty(n.Y)) || (secretField(n.Y) && !isEmpty(n.X)) {
					t.Errorf("%s compares a secret with %s", file, n.Op)
				}
			case *ast.CallExpr:
				for _, arg := range n.Args {
					if fun, ok := n.Fun.(*ast.Ident); ok && secretField(arg) && (fun.Name == "sameSecret" || fun.Name == "headerSecret") {
						compared++
					}
				}
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "ConstantTimeCompare" {
					constant++
				}
			}
			return true
		})
	}
	if compared != 4 || constant != 1 {
		t.Errorf("%d secrets are compared by sameSecret, which has %d constant-time comparisons, want 4 and 1", compared, constant)
	}
}

func TestSameSecret(t *testing.T) {
	for _, tt := range []struct {
		got  string
		want bool
	}{{grantSecret, true}, {"", false}, {grantSecret + "x", false}, {grantSecret[:len(grantSecret)-1], false}, {strings.ToUpper(grantSecret), false}} {
		if got := sameSecret(tt.got, grantSecret); got != tt.want {
			t.Errorf("sameSecret(%q) = %v, want %v", tt.got, got, tt.want)
		}
	}
}

func TestOverloadIsUndecided(t *testing.T) {
	cfg := fullConfig()
	cfg.MaxRunning = 1
	s, a, log := newServer(t, cfg, nil)
	ctx, hangUp := context.WithCancel(t.Context())
	first := make(chan int)
	go func() {
		r := basicRequest(t, "/basic", "hang", password).WithContext(ctx)
		first <- ask(t, s, proxy, r).Code
	}()
	for len(a.requests()) == 0 {
		time.Sleep(time.Millisecond)
	}
	for name, tt := range outcomes(t, "alice") {
		if w := ask(t, s, proxy, tt.request); !tt.undecided(w) {
			t.Errorf("%s while another decision runs = %d %v, want undecided", name, w.Code, w.Header())
		}
	}
	hangUp()
	if code := <-first; code != 503 {
		t.Errorf("a peer that hung up got %d, want 503", code)
	}
	if w := ask(t, s, proxy, basicRequest(t, "/basic", "alice", password)); w.Code != 200 {
		t.Errorf("after that = %d, want 200: the slot is free", w.Code)
	}
	if got := s.Stats(); got.Undecided != 4 || got.Accepted != 1 || got.Requests != 5 {
		t.Errorf("Stats() = %+v, want 4 undecided, 1 accepted of 5", got)
	}
	if n := strings.Count(log.String(), "too many logins"); n != 1 {
		t.Errorf("the log tells %d times of too many logins, want once", n)
	}
}

// outcomes is one request for each endpoint, with how it says undecided.
func outcomes(t testing.TB, login string) map[string]struct {
	request   *http.Request
	undecided func(*httptest.ResponseRecorder) bool
} {
	type outcome = struct {
		request   *http.Request
		undecided func(*httptest.ResponseRecorder) bool
	}
	is503 := func(w *httptest.ResponseRecorder) bool { return w.Code == 503 }
	return map[string]outcome{
		"grant": {grantRequest(t, login, password), is503},
		"mail": {mailHeaders(t, "imap", login, password), func(w *httptest.ResponseRecorder) bool {
			return w.Code == 200 && strings.HasPrefix(w.Header().Get("Auth-Status"), "[UNAVAILABLE]") && w.Header().Get("Auth-Server") == ""
		}},
		"basic": {basicRequest(t, "/basic", login, password), is503},
	}
}

func TestPanicIsUndecided(t *testing.T) {
	s, _, log := newServer(t, fullConfig(), nil)
	for name, tt := range outcomes(t, "panic") {
		if w := ask(t, s, proxy, tt.request); !tt.undecided(w) {
			t.Errorf("%s = %d %v, want undecided", name, w.Code, w.Header())
		}
	}
	if got := s.Stats().Undecided; got != 3 {
		t.Errorf("Stats().Undecided = %d, want 3", got)
	}
	if !strings.Contains(log.String(), "panic=string") {
		t.Errorf("the log does not tell of the panic: %s", log.String())
	}
	if len(s.slots) != 0 {
		t.Errorf("%d slots are taken after panics, want 0", len(s.slots))
	}
}

// brokenWriter panics where no decision is under way.
type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Header() http.Header {
	var none map[string]int
	none["x"]++ // an error of the runtime
	return nil
}

func TestPanicOfOurOwnClosesTheConnection(t *testing.T) {
	s, _, log := newServer(t, fullConfig(), nil)
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("ServeHTTP panicked with %v, want %v", v, http.ErrAbortHandler)
		}
		if !strings.Contains(log.String(), "assignment to entry in nil map") {
			t.Errorf("the log does not tell of the panic: %s", log.String())
		}
	}()
	s.ServeHTTP(brokenWriter{httptest.NewRecorder()}, newRequest(t, "GET", "/basic", ""))
}

func TestAcceptedWithoutLoginIsUndecided(t *testing.T) {
	s, _, _ := newServer(t, fullConfig(), nil)
	for name, tt := range outcomes(t, "nobody") {
		if w := ask(t, s, proxy, tt.request); !tt.undecided(w) {
			t.Errorf("%s = %d %v, want undecided", name, w.Code, w.Header())
		}
	}
}

func TestNoAttempt(t *testing.T) {
	for name, tt := range map[string]struct{ login, password string }{
		"no password": {"alice", ""},
		"no login":    {"", password},
		"neither":     {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, _ := newServer(t, fullConfig(), nil)
			if w := ask(t, s, proxy, grantRequest(t, tt.login, tt.password)); w.Code != 200 || grantField(t, w, "active") != "false" {
				t.Errorf("grant = %d %s, want it rejected", w.Code, w.Body)
			}
			if w := ask(t, s, proxy, mailHeaders(t, "smtp", tt.login, tt.password)); w.Header().Get("Auth-Error-Code") != "535 5.7.8" {
				t.Errorf("mail = %d %v, want it rejected", w.Code, w.Header())
			}
			if w := ask(t, s, proxy, basicRequest(t, "/basic", tt.login, tt.password)); w.Code != 401 {
				t.Errorf("basic = %d, want 401", w.Code)
			}
			if got := s.Stats(); len(a.requests()) != 0 || got.Rejected != 0 {
				t.Errorf("%d attempts, Stats() = %+v, want none", len(a.requests()), got)
			}
		})
	}
}

func TestSessionsDiffer(t *testing.T) {
	s, a, _ := newServer(t, fullConfig(), nil)
	for range 2 {
		ask(t, s, proxy, basicRequest(t, "/basic", "alice", password))
	}
	got := a.requests()
	if len(got) != 2 || len(got[0].Session) != 8 || got[0].Session == got[1].Session {
		t.Errorf("requests = %+v, want two with different sessions", got)
	}
}

func TestSparse(t *testing.T) {
	var p sparse
	at := time.Unix(1000, 0)
	for i, tt := range []struct {
		after time.Duration
		left  uint64
		ok    bool
	}{{0, 0, true}, {1, 0, false}, {2, 0, false}, {sparseEvery, 2, true}, {2*sparseEvery - 1, 0, false}, {2 * sparseEvery, 1, true}, {3 * sparseEvery, 0, true}} {
		if left, ok := p.pass(at.Add(tt.after)); left != tt.left || ok != tt.ok {
			t.Errorf("pass %d = %d, %v, want %d, %v", i, left, ok, tt.left, tt.ok)
		}
	}
}

// serveOn starts s on a listener and stops it when the test ends.
func serveOn(t *testing.T, s *Server, network string) (address string) {
	t.Helper()
	address = "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "http")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v after Shutdown, want nil", err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	nc, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func TestPeersOnSockets(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			cfg := fullConfig()
			cfg.Listener = ""
			cfg.Basic.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			cfg.Basic.TrustUnix = network == "unix"
			s, a, _ := newServer(t, cfg, nil)
			address := serveOn(t, s, network)
			nc := dial(t, network, address)
			buf := bufio.NewReader(nc)
			for i := range 3 { // on one connection
				fmt.Fprintf(nc, "GET /basic HTTP/1.1\r\nHost: x\r\nX-Real-IP: 192.0.2.7\r\nAuthorization: Basic %s\r\n\r\n", basicAuth("alias", password))
				res, err := http.ReadResponse(buf, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				if res.StatusCode != 200 || res.Close || res.Header.Get("Remote-User") != "alice@example.org" {
					t.Errorf("answer %d = %d %v, want 200 with the canonical login, and the connection kept", i, res.StatusCode, res.Header)
				}
			}
			req := a.requests()[0]
			if want := network + ":" + address; req.Listener != want || req.Addr != netip.MustParseAddr("192.0.2.7") {
				t.Errorf("request = %+v, want listener %s and address 192.0.2.7", req, want)
			}
			if got := s.Stats(); got.Total != 1 || got.Open != 1 || got.Accepted != 3 {
				t.Errorf("Stats() = %+v, want 1 connection with 3 accepted", got)
			}
		})
	}
}

// Dovecot's HTTP client may ask to be told to go on before it sends the body.
func TestExpectContinue(t *testing.T) {
	s, _, _ := newServer(t, fullConfig(), nil)
	nc := dial(t, "tcp", serveOn(t, s, "tcp"))
	body := grantBody("alice", password)
	fmt.Fprintf(nc, "POST /dovecot/grant HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", len(body))
	buf := bufio.NewReader(nc)
	if line, err := buf.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("first line = %q, %v, want 100 Continue", line, err)
	}
	buf.ReadString('\n')
	io.WriteString(nc, body)
	res, err := http.ReadResponse(buf, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("answer = %v, %v, want 200", res, err)
	}
}

// nginx's mail proxy speaks HTTP/1.0, reads 1024 bytes, and wants the end of the header among them.
func TestMailAnswerIsSmall(t *testing.T) {
	s, _, _ := newServer(t, fullConfig(), nil)
	address := serveOn(t, s, "tcp")
	long := "alias" // the answer is longer than the question
	for _, login := range []string{long, "no", "broken", strings.Repeat("x", auth.MaxLogin)} {
		nc := dial(t, "tcp", address)
		fmt.Fprintf(nc, "GET /nginx/mail HTTP/1.0\r\nHost: 127.0.0.1\r\nAuth-Method: plain\r\nAuth-User: %s\r\nAuth-Pass: %s\r\n"+
			"Auth-Protocol: smtp\r\nAuth-Login-Attempt: 1\r\nClient-IP: 192.0.2.1\r\nClient-Host: [UNAVAILABLE]\r\nX-Auth-Key: %s\r\n\r\n",
			login, password, mailSecret)
		answer, err := io.ReadAll(nc)
		if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.0 200 OK\r\n")) || !bytes.HasSuffix(answer, []byte("\r\n\r\n")) {
			t.Errorf("answer = %q, %v, want a HTTP/1.0 header without a body, and the end", answer, err)
		}
		if len(answer) > 400 {
			t.Errorf("answer has %d bytes, want few: %q", len(answer), answer)
		}
	}
}

// A canonical login may be as long as any: nginx must still find the end of the header in its 1024 bytes.
func TestMailAnswerWithLongestLogin(t *testing.T) {
	s, _, _ := newServer(t, fullConfig(), nil)
	s.auth = authFunc(func(context.Context, auth.Request) (auth.Decision, error) {
		return auth.Decision{OK: true, Login: strings.Repeat("é", auth.MaxLogin/2)}, nil
	})
	nc := dial(t, "tcp", serveOn(t, s, "tcp"))
	fmt.Fprintf(nc, "GET /nginx/mail HTTP/1.0\r\nHost: x\r\nAuth-Method: plain\r\nAuth-User: a\r\nAuth-Pass: %s\r\nAuth-Protocol: smtp\r\nX-Auth-Key: %s\r\n\r\n",
		password, mailSecret)
	answer, err := io.ReadAll(nc)
	if err != nil || len(answer) >= 1024 || !bytes.Contains(answer, []byte("\r\nAuth-User: éé")) {
		t.Errorf("answer = %q, %v with %d bytes, want Auth-User in less than 1024", answer, err, len(answer))
	}
}

type authFunc func(ctx context.Context, req auth.Request) (auth.Decision, error)

func (f authFunc) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	return f(ctx, req)
}

// A web server may pass on Content-Length and not the body.
func TestBasicDoesNotWaitForBody(t *testing.T) {
	s, _, _ := newServer(t, fullConfig(), nil)
	nc := dial(t, "tcp", serveOn(t, s, "tcp"))
	fmt.Fprintf(nc, "GET /basic HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nAuthorization: Basic %s\r\n\r\n", basicAuth("alice", password))
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil || res.StatusCode != 200 || !res.Close {
		t.Fatalf("answer = %v, %v, want 200 and the connection closed", res, err)
	}
}

func TestHugeHeader(t *testing.T) {
	s, a, _ := newServer(t, fullConfig(), nil)
	nc := dial(t, "tcp", serveOn(t, s, "tcp"))
	go fmt.Fprintf(nc, "GET /basic HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nCookie: %s\r\n\r\n",
		basicAuth("alice", password), strings.Repeat("x", 2*maxHeader))
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err == nil && res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answer = %d, want 431 or a closed connection", res.StatusCode)
	}
	if n := len(a.requests()); n != 0 {
		t.Errorf("%d attempts, want none", n)
	}
}

func TestTooManyConnections(t *testing.T) {
	cfg := fullConfig()
	cfg.MaxConns = 2
	s, _, log := newServer(t, cfg, nil)
	address := serveOn(t, s, "tcp")
	works := func(nc net.Conn) bool {
		io.WriteString(nc, "GET /basic HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(nc), nil)
		return err == nil && res.StatusCode == 401
	}
	first, second := dial(t, "tcp", address), dial(t, "tcp", address)
	if !works(first) || !works(second) {
		t.Fatal("the first two connections do not work")
	}
	for range 3 {
		nc := dial(t, "tcp", address)
		if n, err := nc.Read(make([]byte, 1)); err == nil {
			t.Errorf("a connection too many: Read = %d, nil, want it closed", n)
		}
	}
	first.Close()
	for {
		s.mu.Lock()
		open := s.conns
		s.mu.Unlock()
		if open == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !works(dial(t, "tcp", address)) {
		t.Error("no connection is taken after one was closed")
	}
	if got := s.Stats(); got.Refused != 3 || got.Total != 3 || got.Open != 2 {
		t.Errorf("Stats() = %+v, want 3 refused, 3 taken, 2 open", got)
	}
	if n := strings.Count(log.String(), "too many connections"); n != 1 {
		t.Errorf("the log tells %d times of too many connections, want once", n)
	}
}

// pipeListener hands out one end of pipes, for tests with a fake clock.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Net: "pipe", Name: "test"} }
func (l *pipeListener) dial() net.Conn {
	near, far := net.Pipe()
	l.conns <- far
	return near
}

func TestTimeLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		send string
		want string // beginning of the answer; empty: closed without one
		took time.Duration
	}{
		"silent":          {"", "", 10 * time.Second},
		"half a header":   {"GET /basic HTTP/1.1\r\nHos", "HTTP/1.1 400 ", 10 * time.Second},
		"half a body":     {"POST /dovecot/grant HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\ngrant", "HTTP/1.1 400 ", 10 * time.Second},
		"idle afterwards": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 ", 3 * time.Minute},
		"no decision": {"GET /basic HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic " + basicAuth("hang", password) + "\r\n\r\n",
			"HTTP/1.1 503 ", 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, _ := newServer(t, fullConfig(), nil)
				l := newPipeListener()
				served := make(chan error, 1)
				go func() { served <- s.Serve(l) }()
				nc := l.dial()
				start := time.Now()
				go io.WriteString(nc, tt.send)
				answer, err := io.ReadAll(nc)
				if err != nil || !strings.HasPrefix(string(answer), tt.want) || (tt.want == "" && len(answer) > 0) {
					t.Errorf("answer = %q, %v, want %q", answer, err, tt.want)
				}
				// net/http may add half a second to have its answer read before it closes.
				if took := time.Since(start); took < tt.took || took > tt.took+time.Second {
					t.Errorf("the connection ended after %v, want %v", took, tt.took)
				}
				if err := s.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown() = %v, want nil", err)
				}
				if err := <-served; err != nil {
					t.Errorf("Serve() = %v, want nil", err)
				}
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	for name, tt := range map[string]struct {
		grace time.Duration
		want  string
	}{
		"waits for a decision":    {time.Minute, "HTTP/1.1 503 "},
		"gives up after its time": {time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, a, _ := newServer(t, fullConfig(), nil)
				l := newPipeListener()
				served := make(chan error, 1)
				go func() { served <- s.Serve(l) }()
				nc := l.dial()
				go io.WriteString(nc, "GET /basic HTTP/1.1\r\nHost: x\r\nAuthorization: Basic "+basicAuth("hang", password)+"\r\n\r\n")
				synctest.Wait()
				if len(a.requests()) != 1 {
					t.Fatal("the decision does not run")
				}
				answer := make(chan string)
				go func() {
					b, _ := io.ReadAll(nc)
					answer <- string(b)
				}()
				ctx, cancel := context.WithTimeout(t.Context(), tt.grace)
				defer cancel()
				stopped := make(chan error)
				go func() { stopped <- s.Shutdown(ctx) }()
				got := <-answer
				if err := <-stopped; (err == nil) != (tt.want != "") {
					t.Errorf("Shutdown() = %v", err)
				} else if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown() = %v, want it to wrap %v", err, context.DeadlineExceeded)
				}
				if !strings.HasPrefix(got, tt.want) || (tt.want == "" && got != "") {
					t.Errorf("answer = %q, want %q", got, tt.want)
				}
				if err := <-served; err != nil {
					t.Errorf("Serve() = %v, want nil", err)
				}
				synctest.Wait()
				if a.ctx.Err() == nil {
					t.Error("the context of the decision has not ended")
				}
				if got := s.Stats(); got.Open != 0 || got.Undecided != 1 {
					t.Errorf("Stats() = %+v, want nothing open, 1 undecided", got)
				}
				if err := s.Shutdown(t.Context()); err != nil {
					t.Errorf("second Shutdown() = %v, want nil", err)
				}
				late := newPipeListener()
				if err := s.Serve(late); err != nil {
					t.Errorf("Serve() after Shutdown = %v, want nil", err)
				}
				select {
				case <-late.done:
				default:
					t.Error("Serve() after Shutdown left the listener open")
				}
			})
		})
	}
}

func TestServeReportsLostListener(t *testing.T) {
	s, _, _ := newServer(t, fullConfig(), nil)
	l := newPipeListener()
	l.Close()
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve() on a closed listener = %v, want it to wrap %v", err, net.ErrClosed)
	}
}
