package saslauthd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

// scripted answers one connection with reply after it has read n bytes, and hands out what it read.
func scripted(t *testing.T, n int, reply string) (path string, got <-chan string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mux")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	read := make(chan string, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		b := make([]byte, n)
		io.ReadFull(nc, b)
		read <- string(b)
		io.WriteString(nc, reply)
	}()
	return path, read
}

func TestCheckSends(t *testing.T) {
	for _, c := range []struct {
		name string
		q    Query
		want string
	}{
		{"four fields", Query{Login: "alice", Password: "secret", Service: "smtp", Realm: "example.org"},
			"\x00\x05alice\x00\x06secret\x00\x04smtp\x00\x0bexample.org"},
		{"empty fields", Query{}, "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"long field", Query{Password: strings.Repeat("x", 0x1234)}, "\x00\x00\x12\x34" + strings.Repeat("x", 0x1234) + "\x00\x00\x00\x00"},
		{"address", Query{Login: "a", Client: netip.MustParseAddrPort("203.0.113.9:40123")},
			"\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x11203.0.113.9;40123"},
		{"IPv6 address", Query{Login: "a", Client: netip.MustParseAddrPort("[2001:db8::9]:40123")},
			"\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x112001:db8::9;40123"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, read := scripted(t, len(c.want), "\x00\x02OK")
			if got, err := Check(t.Context(), path, c.q); got.Outcome != OutcomeOK || err != nil {
				t.Errorf("Check() = %v, %v, want OK", got, err)
			}
			if got := <-read; got != c.want {
				t.Errorf("Check() sends %q, want %q", got, c.want)
			}
		})
	}
}

func TestCheckReads(t *testing.T) {
	for _, c := range []struct {
		name, reply string
		want        Result
		wantErr     bool
	}{
		{"OK", "\x00\x02OK", Result{Outcome: OutcomeOK}, false},
		{"NO", "\x00\x02NO", Result{Outcome: OutcomeNO}, false},
		{"NO with a reason", "\x00\x16NO NULL login received", Result{OutcomeNO, "NULL login received"}, false},
		{"NO with a space", "\x00\x03NO ", Result{Outcome: OutcomeNO}, false},
		{"OK with text", "\x00\x0bOK (cached)", Result{OutcomeOK, "(cached)"}, false},
		{"cut after 1024 bytes", "\x10\x00NO" + strings.Repeat("x", 4094), Result{OutcomeNO, strings.Repeat("x", 1022)}, false},
		{"nothing", "", Result{}, false},
		{"half a count", "\x00", Result{}, false},
		{"only a count", "\x00\x02", Result{}, false},
		{"half a word", "\x00\x02O", Result{}, false},
		{"a word of one byte", "\x00\x01O", Result{}, false},
		{"an empty word", "\x00\x00", Result{}, false},
		{"another word", "\x00\x0aER problem", Result{}, true},
		{"lower case", "\x00\x02ok", Result{}, true},
		{"another protocol", "VERSION\t1\t2\nMECH\tPLAIN\n" + strings.Repeat("x", 1024), Result{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := scripted(t, 8, c.reply)
			got, err := Check(t.Context(), path, Query{})
			if got != c.want || (err != nil) != c.wantErr {
				t.Errorf("Check() = %+v, %v, want %+v, error: %v", got, err, c.want, c.wantErr)
			}
			if got.Undecided() != (c.want.Outcome == OutcomeClosed) {
				t.Errorf("Undecided() = %v with %v", got.Undecided(), got.Outcome)
			}
		})
	}
}

// TestCheckOfServerThatDoesNotRead has the connection reset under the request.
func TestCheckOfServerThatDoesNotRead(t *testing.T) {
	huge := Query{Login: strings.Repeat("x", 0xFFFF), Password: strings.Repeat("x", 0xFFFF),
		Service: strings.Repeat("x", 0xFFFF), Realm: strings.Repeat("x", 0xFFFF)}
	for _, q := range []Query{{Login: "alice", Password: "secret"}, huge} {
		path, _ := scripted(t, 0, "")
		if got, err := Check(t.Context(), path, q); got.Outcome != OutcomeClosed || err != nil {
			t.Errorf("Check() = %v, %v, want closed", got, err)
		}
		path, _ = scripted(t, 0, "\x00\x02NO")
		if got, err := Check(t.Context(), path, q); got.Outcome != OutcomeNO || err != nil {
			t.Errorf("Check() = %v, %v, want NO", got, err)
		}
	}
}

func TestCheckErrors(t *testing.T) {
	t.Run("no socket", func(t *testing.T) {
		if got, err := Check(t.Context(), filepath.Join(t.TempDir(), "mux"), Query{}); err == nil {
			t.Errorf("Check() = %v, nil, want an error", got)
		}
	})
	t.Run("field too long", func(t *testing.T) {
		_, err := Check(t.Context(), "/nowhere", Query{Password: strings.Repeat("x", 0x10000)})
		if err == nil || !strings.Contains(err.Error(), "longer than 65535") || strings.Contains(err.Error(), "xx") {
			t.Errorf("Check() = %v, want an error about the length without the password", err)
		}
	})
	t.Run("context ends", func(t *testing.T) {
		asked := make(chan struct{})
		path := serve(t, New(Config{}, authFunc(func(ctx context.Context, _ auth.Request) (auth.Decision, error) {
			close(asked)
			<-ctx.Done()
			return auth.Decision{}, ctx.Err()
		}), discard))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		if got, err := Check(ctx, path, Query{Login: "a", Password: "b"}); !errors.Is(err, context.Canceled) {
			t.Errorf("Check() = %v, %v, want %v", got, err, context.Canceled)
		}
	})
}

func TestCheckOfServer(t *testing.T) {
	fake := &fakeAuth{rules: map[string]rule{"alice@example.org": {outcome: "accepted"}, "broken": {outcome: "undecided"}}}
	path := serve(t, New(Config{Listener: "test"}, fake, discard))
	for _, c := range []struct {
		name string
		q    Query
		want Outcome
	}{
		{"accepted", Query{Login: "alice", Password: "secret", Service: "imap", Realm: "example.org"}, OutcomeOK},
		{"rejected", Query{Login: "alice", Password: "wrong", Service: "imap", Realm: "example.org"}, OutcomeNO},
		{"empty password", Query{Login: "alice", Service: "imap"}, OutcomeNO},
		{"too long", Query{Login: strings.Repeat("x", 60000), Password: strings.Repeat("x", 60000)}, OutcomeNO},
		{"undecided", Query{Login: "broken", Password: "x"}, OutcomeClosed},
		{"with an address", Query{Login: "alice", Password: "secret", Service: "imap", Realm: "example.org",
			Client: netip.MustParseAddrPort("[2001:db8::9]:40123")}, OutcomeOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := Check(t.Context(), path, c.q); got.Outcome != c.want || err != nil {
				t.Errorf("Check() = %v, %v, want %v", got, err, c.want)
			}
		})
	}
	want := "alice@example.org:secret service=imap rip=2001:db8::9"
	if got := fake.request(fake.count() - 1); got != want {
		t.Errorf("authenticator was asked %q, want %q", got, want)
	}
}

func TestOutcomeString(t *testing.T) {
	for o, want := range map[Outcome]string{OutcomeClosed: "closed", OutcomeOK: "OK", OutcomeNO: "NO", 7: "Outcome(7)"} {
		if got := o.String(); got != want {
			t.Errorf("Outcome(%d).String() = %q, want %q", o, got, want)
		}
	}
}
