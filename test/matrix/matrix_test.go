// Package matrix holds every front end to the table of DESIGN section 2: what goes over the wire for each outcome. It runs them
// in this process with an authenticator of the test's, so that it is fast and each outcome certain; the peers' side of the
// same table is in test/interop and test/peers.
package matrix

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
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge"
	"github.com/valetkey/valetkey/saslauth/checkpassword"
	"github.com/valetkey/valetkey/saslauth/dovecot"
	"github.com/valetkey/valetkey/saslauth/httpauth"
	"github.com/valetkey/valetkey/saslauth/saslauthd"
)

const shared = "0123456789abcdef" // the secret between us and HTTP peers

// scripted decides by the password: "right", "broken" (undecided), or the name of a reason.
type scripted struct {
	ldapbridge.Directory // nothing but Entry is asked

	asked atomic.Int64
}

func (*scripted) Refused(context.Context, auth.Request) {}

func (*scripted) Stands(context.Context, *auth.Standing) (auth.Reason, error) {
	return auth.Accepted, nil
}

func (s *scripted) Authenticate(_ context.Context, r auth.Request) (auth.Decision, error) {
	s.asked.Add(1)
	switch r.Password {
	case "right":
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: "alice", AccountID: 1}, nil
	case "broken":
		// Whatever a broken authenticator returns beside the error must not count.
		return auth.Decision{OK: true, Login: "alice"}, errors.New("the database is gone")
	}
	return auth.Decision{Reason: auth.Reason(r.Password), Label: "phone"}, nil
}

// Entry implements the front ends' directories.
func (s *scripted) Entry(_ context.Context, login string) (auth.Account, error) {
	if login != "alice" {
		return auth.Account{}, auth.ErrNoAccount
	}
	return auth.Account{ID: 1, Login: "alice", Enabled: true, Userdb: map[string]string{"uid": "5000", "gid": "5000", "home": "/tmp"}}, nil
}

// frontEnd is one column of the table.
type frontEnd struct {
	name string
	// login sends a password and says what came back.
	login func(t *testing.T, password string) string
	// garbage sends what is not the protocol and says what came back.
	garbage func(t *testing.T) string

	accepted, rejected, undecided, empty, broken string
}

// server is what a front end has for the daemon.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

func serve(t *testing.T, s server, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown = %v, want nil", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
	return l.Addr()
}

// exchange sends bytes and returns what comes until the other end closes.
func exchange(t *testing.T, network, address string, send []byte) string {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(send); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("neither an answer nor a close; read %q", got)
	}
	return string(got)
}

func TestMatrix(t *testing.T) {
	core := &scripted{}
	quiet := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	for _, f := range columns(t, core, quiet, dir) {
		t.Run(f.name, func(t *testing.T) {
			rows := []struct{ row, password, want string }{
				{"accepted", "right", f.accepted},
				{"undecided", "broken", f.undecided},
				{"accepted after undecided", "right", f.accepted},
			}
			for _, reason := range []auth.Reason{auth.NoMatch, auth.UnknownLogin, auth.BadFormat, auth.Revoked, auth.Expired,
				auth.ServiceNotAllowed, auth.NetworkNotAllowed, auth.AccountDisabled, auth.NotEnrolled} {
				// One answer for all of them: nobody outside learns which it was.
				rows = append(rows, struct{ row, password, want string }{"rejected: " + string(reason), string(reason), f.rejected})
			}
			for _, r := range rows {
				before := core.asked.Load()
				if got := f.login(t, r.password); got != r.want {
					t.Errorf("%s: got %q, want %q", r.row, got, r.want)
				}
				if n := core.asked.Load() - before; n != 1 {
					t.Errorf("%s: the core was asked %d times, want once", r.row, n)
				}
			}
			before := core.asked.Load()
			if got := f.login(t, ""); got != f.empty {
				t.Errorf("empty password: got %q, want %q", got, f.empty)
			}
			if got := f.garbage(t); got != f.broken {
				t.Errorf("broken framing: got %q, want %q", got, f.broken)
			}
			if n := core.asked.Load() - before; n != 0 {
				t.Errorf("an empty password and broken framing asked the core %d times, want never", n)
			}
		})
	}
}

func columns(t *testing.T, core *scripted, log *slog.Logger, dir string) []frontEnd {
	unix := func(name string) string { return filepath.Join(dir, name) }

	l, err := ldapbridge.New(ldapbridge.Config{BaseDN: "dc=example,dc=org"}, core, core, log)
	if err != nil {
		t.Fatal(err)
	}
	ldapAt := serve(t, l, "tcp", "127.0.0.1:0").String()
	serve(t, dovecot.New(dovecot.Config{}, core, log), "unix", unix("dovecot"))
	serve(t, saslauthd.New(saslauthd.Config{}, core, log), "unix", unix("mux"))
	serve(t, checkpassword.New(checkpassword.Config{}, core, core, log), "unix", unix("checkpassword"))
	h, err := httpauth.New(httpauth.Config{
		Grant: &httpauth.Grant{ClientSecret: shared},
		Mail:  &httpauth.Mail{Secret: shared, Backends: map[string]netip.AddrPort{"smtp": netip.MustParseAddrPort("127.0.0.1:25")}},
		Basic: &httpauth.Basic{},
	}, core, core, log)
	if err != nil {
		t.Fatal(err)
	}
	httpAt := serve(t, h, "tcp", "127.0.0.1:0").String()

	viaDovecot := func(noLogin bool) func(*testing.T, string) string {
		return func(t *testing.T, password string) string {
			c, err := dovecot.Dial(t.Context(), "unix", unix("dovecot"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r, err := c.Plain(t.Context(), dovecot.AuthParams{Service: "smtp", NoLogin: noLogin}, "Alice", password)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(fmt.Sprintf("%v user=%s %s %s", r.Outcome, r.User, r.Code, r.Reason))
		}
	}
	dovecotGarbage := func(t *testing.T) string {
		got := exchange(t, "unix", unix("dovecot"), []byte("VERSION\t1\t1\nCPID\t1\nRUBBISH\n"))
		_, after, _ := strings.Cut(got, "\nDONE\n") // the handshake comes before anything is read
		return after
	}
	httpGarbage := func(t *testing.T) string {
		status, _, _ := strings.Cut(exchange(t, "tcp", httpAt, []byte("RUBBISH\r\n\r\n")), "\r\n")
		return strings.TrimSpace(strings.TrimPrefix(status, "HTTP/1.1"))
	}

	return []frontEnd{
		{
			name: "LDAP",
			login: func(t *testing.T, password string) string {
				c, err := ldap.DialURL("ldap://" + ldapAt)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, err = c.SimpleBind(&ldap.SimpleBindRequest{Username: "uid=alice,ou=people,dc=example,dc=org", Password: password, AllowEmptyPassword: true})
				var e *ldap.Error
				if errors.As(err, &e) {
					return fmt.Sprintf("%d %v", e.ResultCode, e.Err)
				}
				return fmt.Sprint(err)
			},
			garbage: func(t *testing.T) string {
				// A well-framed message with an operation that does not exist.
				got := exchange(t, "tcp", ldapAt, []byte{0x30, 0x05, 0x02, 0x01, 0x01, 0x7f, 0x00})
				if strings.Contains(got, "1.3.6.1.4.1.1466.20036") && strings.Contains(got, "\x0a\x01\x02") {
					return "notice of disconnection 2"
				}
				return got
			},
			accepted: "<nil>", rejected: "49 ", undecided: "80 temporary failure",
			empty: "53 unauthenticated bind (DN with no password) disallowed", broken: "notice of disconnection 2",
		},
		{
			name: "Dovecot protocol, nologin (Postfix, Exim)", login: viaDovecot(true), garbage: dovecotGarbage,
			accepted: "OK user=alice", rejected: "FAIL user=Alice", undecided: "closed user=", empty: "FAIL user=Alice", broken: "",
		},
		{
			name: "Dovecot protocol, login process", login: viaDovecot(false), garbage: dovecotGarbage,
			accepted: "OK user=alice", rejected: "FAIL user=Alice", undecided: "FAIL user=Alice temp_fail", empty: "FAIL user=Alice", broken: "",
		},
		{
			name: "saslauthd",
			login: func(t *testing.T, password string) string {
				var send []byte
				for _, field := range []string{"alice", password, "smtp", ""} {
					send = append(send, byte(len(field)>>8), byte(len(field)))
					send = append(send, field...)
				}
				return exchange(t, "unix", unix("mux"), send)
			},
			garbage: func(t *testing.T) string {
				// Cut short: our side of the connection ends in the middle of a field.
				c, err := net.Dial("unix", unix("mux"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				c.Write([]byte("\x00\x05ali"))
				c.(*net.UnixConn).CloseWrite()
				got, _ := io.ReadAll(c)
				return string(got)
			},
			accepted: "\x00\x02OK", rejected: "\x00\x02NO", undecided: "", empty: "\x00\x02NO", broken: "",
		},
		{
			name: "checkpassword",
			login: func(t *testing.T, password string) string {
				return helper(t, unix("checkpassword"), "alice\x00"+password+"\x00\x00")
			},
			garbage:  func(t *testing.T) string { return helper(t, unix("checkpassword"), "no end") },
			accepted: "exit 0, USER=alice", rejected: "exit 1", undecided: "exit 111", empty: "exit 1", broken: "exit 2",
		},
		{
			name: "oauth2 grant",
			login: func(t *testing.T, password string) string {
				status, body, _ := ask(t, "POST", "http://"+httpAt+"/dovecot/grant", url.Values{
					"grant_type": {"password"}, "username": {"Alice"}, "password": {password}, "client_id": {"dovecot"}, "client_secret": {shared},
				}, http.Header{"X-Dovecot-Auth-Service": {"imap"}})
				var answer struct{ Username, Active string }
				json.Unmarshal(body, &answer)
				return strings.TrimSpace(fmt.Sprintf("%d %s %s", status, answer.Username, answer.Active))
			},
			garbage:  httpGarbage,
			accepted: "200 Alice true", rejected: "200 Alice false", undecided: "503", empty: "200 Alice false", broken: "400 Bad Request",
		},
		{
			name: "nginx auth_http",
			login: func(t *testing.T, password string) string {
				status, _, h := ask(t, "GET", "http://"+httpAt+"/nginx/mail", nil, http.Header{
					"Auth-Method": {"plain"}, "Auth-User": {"alice"}, "Auth-Pass": {password}, "Auth-Protocol": {"smtp"},
					"Auth-Login-Attempt": {"1"}, "Client-Ip": {"192.0.2.7"}, "X-Auth-Key": {shared},
				})
				if h.Get("Auth-Status") == "OK" {
					return fmt.Sprintf("%d OK %s", status, h.Get("Auth-Server"))
				}
				return fmt.Sprintf("%d %s", status, h.Get("Auth-Error-Code"))
			},
			garbage:  httpGarbage,
			accepted: "200 OK 127.0.0.1", rejected: "200 535 5.7.8", undecided: "200 451 4.3.0", empty: "200 535 5.7.8", broken: "400 Bad Request",
		},
		{
			name: "HTTP Basic",
			login: func(t *testing.T, password string) string {
				r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+httpAt+"/basic/wiki", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.SetBasicAuth("Alice", password)
				status, _, h := do(t, r)
				return strings.TrimSpace(fmt.Sprintf("%d %s", status, h.Get("Remote-User")))
			},
			garbage:  httpGarbage,
			accepted: "200 alice", rejected: "401", undecided: "503", empty: "401", broken: "400 Bad Request",
		},
	}
}

func ask(t *testing.T, method, address string, form url.Values, h http.Header) (int, []byte, http.Header) {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
		h.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = h
	return do(t, r)
}

func do(t *testing.T, r *http.Request) (int, []byte, http.Header) {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, body, answer.Header
}

var helperProgram string

// TestMain builds the checkpassword helper, whose exit codes are part of the table.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vkmatrix-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	helperProgram = filepath.Join(dir, "valetkey-checkpassword")
	if out, err := exec.Command("go", "build", "-o", helperProgram, "github.com/valetkey/valetkey/cmd/valetkey-checkpassword").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the helper: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// helper runs the helper as Dovecot does, with this on descriptor 3, and returns its exit code and what it told.
func helper(t *testing.T, socket, input string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(input); err != nil {
		t.Fatal(err)
	}
	w.Close()
	cmd := exec.CommandContext(t.Context(), helperProgram, "-socket", socket, "/usr/bin/env")
	cmd.Env = []string{"ORIG_UID=0", "SERVICE=imap", "TCPREMOTEIP=192.0.2.7"}
	cmd.ExtraFiles = []*os.File{r}
	var out, faults bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &faults
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, &faults)
	}
	got := fmt.Sprintf("exit %d", cmd.ProcessState.ExitCode())
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "USER=") {
			got += ", " + strings.TrimSpace(line)
		}
	}
	return got
}
