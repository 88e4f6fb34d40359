package dovecot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

func TestClientAgainstServer(t *testing.T) {
	fake := &fakeAuth{rules: map[string]rule{
		"alice":  {outcome: "accepted", as: "alice@example.org"},
		"broken": {outcome: "undecided"},
	}}
	smtp := AuthParams{Service: "smtp", NoLogin: true, RemoteIP: netip.MustParseAddr("192.0.2.7")}
	imap := AuthParams{Service: "imap", Secured: true, Session: "a\tb", RemoteIP: netip.MustParseAddr("2001:db8::7"),
		LocalIP: netip.MustParseAddr("2001:db8::1")}
	later := imap
	later.NoInitialResponse = true
	cases := []struct {
		name            string
		params          AuthParams
		login, password string
		want            Result
	}{
		{"accepted", smtp, "alice", "secret", Result{Outcome: OutcomeOK, User: "alice@example.org"}},
		{"accepted without initial response", later, "alice", "secret", Result{Outcome: OutcomeOK, User: "alice@example.org"}},
		{"rejected", imap, "alice", "wrong", Result{Outcome: OutcomeFail, User: "alice"}},
		{"undecided, reply", imap, "broken", "secret", Result{Outcome: OutcomeFail, User: "broken", Code: "temp_fail"}},
		{"undecided, closed", smtp, "broken", "secret", Result{Outcome: OutcomeClosed}},
	}
	for _, network := range []string{"unix", "tcp"} {
		address := serveOn(t, New(Config{Listener: "test"}, fake, discard), network)
		for _, mech := range []string{"PLAIN", "LOGIN"} {
			t.Run(network+"/"+mech, func(t *testing.T) {
				c, err := Dial(t.Context(), network, address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if got, want := c.Mechanisms(), []string{"PLAIN", "LOGIN"}; !slices.Equal(got, want) {
					t.Errorf("Mechanisms() = %q, want %q", got, want)
				}
				ask := c.Plain
				if mech == "LOGIN" {
					ask = c.Login
				}
				for range 3 { // one connection for all
					for _, tc := range cases[:len(cases)-1] {
						got, err := ask(t.Context(), tc.params, tc.login, tc.password)
						if err != nil || got != tc.want {
							t.Errorf("%s: %s() = %+v, %v, want %+v", tc.name, mech, got, err, tc.want)
						}
						if undecided := strings.HasPrefix(tc.name, "undecided"); got.Undecided() != undecided {
							t.Errorf("%s: Undecided() = %v, want %v", tc.name, got.Undecided(), undecided)
						}
					}
				}
				last := cases[len(cases)-1]
				got, err := ask(t.Context(), last.params, last.login, last.password)
				if err != nil || got != last.want || !got.Undecided() {
					t.Errorf("%s: %s() = %+v, %v, want %+v", last.name, mech, got, err, last.want)
				}
				if _, err := ask(t.Context(), smtp, "alice", "secret"); err == nil {
					t.Errorf("%s() on a closed connection succeeded, want an error", mech)
				}
			})
		}
	}
	if got, want := fake.request(0), "alice:secret service=smtp rip=192.0.2.7 tls=no"; got != want {
		t.Errorf("authenticator saw %q, want %q", got, want)
	}
	if got, want := fake.request(1), "alice:secret service=imap rip=2001:db8::7 tls=yes session=a\tb"; got != want {
		t.Errorf("authenticator saw %q, want %q", got, want)
	}
}

// TestManyClients has 32 connections ask at the same time, each for a login of its own.
func TestManyClients(t *testing.T) {
	address := serveOn(t, New(Config{}, authFunc(func(_ context.Context, req auth.Request) (auth.Decision, error) {
		return auth.Decision{OK: req.Password == "of "+req.Login, Login: req.Login}, nil
	}), discard), "unix")
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			c, err := Dial(t.Context(), "unix", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for j := range 100 {
				login := fmt.Sprintf("user%d.%d", i, j)
				want := Result{Outcome: OutcomeOK, User: login}
				password := "of " + login
				if j%3 == 0 {
					want.Outcome, password = OutcomeFail, "of user"
				}
				got, err := c.Plain(t.Context(), AuthParams{Service: "smtp"}, login, password)
				if err != nil || got != want {
					t.Errorf("Plain(%q) = %+v, %v, want %+v", login, got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestClientEndsWithItsContext(t *testing.T) {
	address := serveOn(t, New(Config{}, authFunc(func(ctx context.Context, _ auth.Request) (auth.Decision, error) {
		<-ctx.Done()
		return auth.Decision{}, ctx.Err()
	}), discard), "unix")
	for _, c := range []struct {
		name string
		ctx  func() (context.Context, context.CancelFunc)
		want error
	}{
		{"deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 20*time.Millisecond)
		}, context.DeadlineExceeded},
		{"cancelled", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		}, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, err := Dial(t.Context(), "unix", address)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := c.ctx()
			defer cancel()
			if got, err := client.Plain(ctx, AuthParams{Service: "smtp"}, "alice", "secret"); !errors.Is(err, c.want) {
				t.Errorf("Plain() = %+v, %v, want %v", got, err, c.want)
			}
			if _, err := client.Plain(t.Context(), AuthParams{Service: "smtp"}, "alice", "secret"); err == nil {
				t.Error("Plain() after that succeeded, want an error: the answer to the first may still come")
			}
		})
	}
}

// TestClientAgainstStrangers answers the client with what our server never sends.
func TestClientAgainstStrangers(t *testing.T) {
	const shake = "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"
	for _, c := range []struct {
		name    string
		shake   string
		reply   string
		want    Result
		wantErr string
	}{
		{"Dovecot's OK", shake, "OK\t1\tuser=al\x01tice\toriginal_user=x\tnologin\n", Result{Outcome: OutcomeOK, User: "al\tice"}, ""},
		{"CRLF", shake, "OK\t1\tuser=alice\r\n", Result{Outcome: OutcomeOK, User: "alice"}, ""},
		{"reason", shake, "FAIL\t1\tuser=alice\tcode=user_disabled\treason=no more\n",
			Result{Outcome: OutcomeFail, User: "alice", Code: "user_disabled", Reason: "no more"}, ""},
		{"bare FAIL", shake, "FAIL\t1\n", Result{Outcome: OutcomeFail}, ""},
		{"closed", shake, "", Result{Outcome: OutcomeClosed}, ""},
		{"closed in the middle", shake, "OK\t1\tuser=al", Result{Outcome: OutcomeClosed}, ""},
		{"another id", shake, "OK\t2\tuser=alice\n", Result{}, "request 1"},
		{"no id", shake, "OK\n", Result{}, "request 1"},
		{"unknown word", shake, "HMM\t1\n", Result{}, "unknown word"},
		{"too many challenges", shake, "CONT\t1\t\n", Result{}, "more than PLAIN has"},
		{"endless line", shake, strings.Repeat("x", 20000), Result{}, "longer than the protocol allows"},
		{"another major version", "VERSION\t2\t0\n", "", Result{}, "version"},
		{"another protocol", "220 mail.example.org ESMTP\n", "", Result{}, "begin with VERSION"},
		{"no mechanism", "VERSION\t1\t1\nDONE\n", "", Result{}, "no mechanism"},
		{"closed in the handshake", "VERSION\t1\t1\n", "", Result{}, "handshake with"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := filepath.Join(t.TempDir(), "auth")
			l, err := net.Listen("unix", address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(nc, c.shake)
				if c.shake == shake {
					buf := make([]byte, 4096)
					for read := ""; !strings.Contains(read, "AUTH"); {
						n, err := nc.Read(buf)
						if err != nil {
							break
						}
						read += string(buf[:n])
					}
					io.WriteString(nc, c.reply)
				}
				nc.Close()
			}()
			client, err := Dial(t.Context(), "unix", address)
			var got Result
			if err == nil {
				got, err = client.Plain(t.Context(), AuthParams{Service: "smtp"}, "alice", "secret")
				client.Close()
			}
			if got != c.want || (err == nil) != (c.wantErr == "") || err != nil && !strings.Contains(err.Error(), c.wantErr) {
				t.Errorf("got %+v, %v, want %+v, error with %q", got, err, c.want, c.wantErr)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v holds the password", err)
			}
		})
	}
}

func TestOutcomeString(t *testing.T) {
	for o, want := range map[Outcome]string{OutcomeClosed: "closed", OutcomeOK: "OK", OutcomeFail: "FAIL", 9: "Outcome(9)"} {
		if got := o.String(); got != want {
			t.Errorf("Outcome(%d).String() = %q, want %q", uint8(o), got, want)
		}
	}
}

func TestClientRefusesOverlongRequest(t *testing.T) {
	address := serveOn(t, New(Config{}, &fakeAuth{}, discard), "unix")
	c, err := Dial(t.Context(), "unix", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.Plain(t.Context(), AuthParams{Service: "smtp"}, strings.Repeat("a", maxLine), "x"); err == nil {
		t.Errorf("Plain() = %+v, want an error", got)
	}
}
