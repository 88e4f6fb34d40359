package checkpassword

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

var discard = slog.New(slog.DiscardHandler)

// fake is an Authenticator and a Directory. Nil functions fail the test that reaches them, by their panic.
type fake struct {
	authenticate func(ctx context.Context, req auth.Request) (auth.Decision, error)
	entry        func(ctx context.Context, login string) (auth.Account, error)
}

func (f fake) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	return f.authenticate(ctx, req)
}

func (f fake) Entry(ctx context.Context, login string) (auth.Account, error) {
	return f.entry(ctx, login)
}

func accept(context.Context, auth.Request) (auth.Decision, error) {
	return auth.Decision{OK: true, Login: "alice@example.org"}, nil
}

func reject(context.Context, auth.Request) (auth.Decision, error) {
	return auth.Decision{Reason: auth.NoMatch}, nil
}

func fail(context.Context, auth.Request) (auth.Decision, error) {
	return auth.Decision{OK: true, Login: "alice@example.org"}, errors.New("no database") // the error counts
}

func block(ctx context.Context, _ auth.Request) (auth.Decision, error) {
	<-ctx.Done()
	return auth.Decision{}, ctx.Err()
}

var alice = auth.Account{Login: "alice@example.org", Enabled: true, Userdb: map[string]string{"uid": "8", "home": "/h", "a": ""}}

func entryOf(a auth.Account, err error) func(context.Context, string) (auth.Account, error) {
	return func(context.Context, string) (auth.Account, error) { return a, err }
}

func disabled(a auth.Account) auth.Account {
	a.Enabled = false
	return a
}

// talk sends one message and returns all that the server says until it closes the connection.
func talk(s *Server, log *slog.Logger, message []byte) string {
	near, far := net.Pipe()
	defer near.Close()
	s.conns.Take(far, "unix:/test")
	go near.Write(message)
	said, _ := io.ReadAll(near)
	return string(said)
}

func message(t *testing.T, r wire.Request) []byte {
	t.Helper()
	m, err := wire.AppendRequest(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOutcomes(t *testing.T) {
	const whole = "\x01A\x00\x2a\x00\x11alice@example.org\x00\x01a\x00\x00\x00\x04home\x00\x02/h\x00\x03uid\x00\x018"
	const nameOnly = "\x01A\x00\x13\x00\x11alice@example.org"
	const rejected, unknown, undecided, refused = "\x01R\x00\x00", "\x01N\x00\x00", "\x01T\x00\x00", "\x01F\x00\x00"
	noAccount := fmt.Errorf("read account: %w", auth.ErrNoAccount)
	login := wire.Request{Op: wire.Login, User: "Alice", Password: "pw", Service: "imap"}
	check := wire.Request{Op: wire.Check, User: "Alice", Password: "pw", Service: "imap"}
	userdb := wire.Request{Op: wire.Userdb, User: "Alice"}
	credentials := wire.Request{Op: wire.Credentials, User: "Alice"}
	crowded := auth.Account{Login: "alice", Enabled: true, Userdb: map[string]string{"x": strings.Repeat("x", wire.MaxReply)}}
	nameless := auth.Account{Login: "alice", Enabled: true, Userdb: map[string]string{"": "x"}}

	for _, c := range []struct {
		name    string
		lookups bool
		fake    fake
		r       wire.Request
		want    string
		stats   Stats
	}{
		{"accepted", false, fake{accept, entryOf(alice, nil)}, login, whole, Stats{Accepted: 1}},
		{"accepted, fields not asked for", false, fake{accept, nil}, check, nameOnly, Stats{Accepted: 1}},
		{"rejected", false, fake{reject, nil}, login, rejected, Stats{Rejected: 1}},
		{"check rejected", false, fake{reject, nil}, check, rejected, Stats{Rejected: 1}},
		{"undecided", false, fake{fail, nil}, login, undecided, Stats{Undecided: 1}},
		{"check undecided", false, fake{fail, nil}, check, undecided, Stats{Undecided: 1}},
		{"accepted nobody", false, fake{func(context.Context, auth.Request) (auth.Decision, error) {
			return auth.Decision{OK: true}, nil
		}, nil}, check, undecided, Stats{Undecided: 1}},
		{"accepted, account unreadable", false, fake{accept, entryOf(alice, errors.New("no database"))}, login, undecided, Stats{Undecided: 1}},
		{"accepted, account gone", false, fake{accept, entryOf(alice, noAccount)}, login, undecided, Stats{Undecided: 1}},
		{"accepted, too many fields", false, fake{accept, entryOf(crowded, nil)}, login, undecided, Stats{Undecided: 1}},
		{"accepted, field without a name", false, fake{accept, entryOf(nameless, nil)}, login, undecided, Stats{Undecided: 1}},
		{"lookup not allowed", false, fake{}, userdb, refused, Stats{Lookups: 1}},
		{"credentials lookup not allowed", false, fake{}, credentials, refused, Stats{Lookups: 1}},
		{"lookup", true, fake{nil, entryOf(alice, nil)}, userdb, whole, Stats{Lookups: 1}},
		{"lookup of a disabled account", true, fake{nil, entryOf(disabled(alice), nil)}, userdb, whole, Stats{Lookups: 1}},
		{"lookup of nobody", true, fake{nil, entryOf(auth.Account{}, noAccount)}, userdb, unknown, Stats{Lookups: 1}},
		{"lookup of no login name", true, fake{}, wire.Request{Op: wire.Userdb, User: "a b"}, unknown, Stats{Lookups: 1}},
		{"lookup undecided", true, fake{nil, entryOf(alice, errors.New("no database"))}, userdb, undecided, Stats{Lookups: 1}},
		{"credentials lookup", true, fake{nil, entryOf(alice, nil)}, credentials, whole, Stats{Lookups: 1}},
		{"credentials lookup of a disabled account", true, fake{nil, entryOf(disabled(alice), nil)}, credentials, unknown, Stats{Lookups: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{AllowLookup: c.lookups}, c.fake, c.fake, discard)
				if got := talk(s, discard, message(t, c.r)); got != c.want {
					t.Errorf("server says %q, want %q", got, c.want)
				}
				synctest.Wait()
				c.stats.Total, c.stats.Requests = 1, 1
				if got := s.Stats(); got != c.stats {
					t.Errorf("Stats() = %+v, want %+v", got, c.stats)
				}
			})
		})
	}
}

func TestLookupAsksForTheNormalisedLogin(t *testing.T) {
	var asked string
	f := fake{entry: func(_ context.Context, login string) (auth.Account, error) {
		asked = login
		return alice, nil
	}}
	synctest.Test(t, func(t *testing.T) {
		talk(New(Config{AllowLookup: true}, f, f, discard), discard, message(t, wire.Request{Op: wire.Userdb, User: "ALICE"}))
	})
	if asked != "alice" {
		t.Errorf("Entry(%q), want alice", asked)
	}
}

func TestRequestFields(t *testing.T) {
	base := auth.Request{Login: "Alice", Password: "p w", Service: "imap", FrontEnd: "checkpassword", Listener: "unix:/test", Session: "s1"}
	for _, c := range []struct {
		name        string
		remote, tls string
		want        func(*auth.Request)
	}{
		{"nothing known", "", wire.TLSUnknown, func(*auth.Request) {}},
		{"IPv4, TLS", "192.0.2.7", wire.TLSYes, func(r *auth.Request) { r.Addr, r.TLS = netip.MustParseAddr("192.0.2.7"), auth.TLSYes }},
		{"IPv4 in IPv6, no TLS", "::ffff:192.0.2.7", wire.TLSNo, func(r *auth.Request) { r.Addr, r.TLS = netip.MustParseAddr("192.0.2.7"), auth.TLSNo }},
		{"IPv6 with a zone", "fe80::1%eth0", "", func(r *auth.Request) { r.Addr = netip.MustParseAddr("fe80::1") }},
		{"a host name", "localhost", "", func(*auth.Request) {}},
		{"an address with a port", "192.0.2.7:25", "", func(*auth.Request) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := base
				c.want(&want)
				var got auth.Request
				f := fake{authenticate: func(_ context.Context, req auth.Request) (auth.Decision, error) {
					got = req
					return auth.Decision{}, nil
				}}
				r := wire.Request{Op: wire.Login, User: "Alice", Password: "p w", Service: "imap", Remote: c.remote, Session: "s1", TLS: c.tls}
				talk(New(Config{}, f, f, discard), discard, message(t, r))
				if got != want {
					t.Errorf("Authenticate(%+v), want %+v", got, want)
				}
			})
		})
	}
}

func TestSessionIsMadeUpIfThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sessions []string
		f := fake{authenticate: func(_ context.Context, req auth.Request) (auth.Decision, error) {
			sessions = append(sessions, req.Session)
			return auth.Decision{}, nil
		}}
		s := New(Config{}, f, f, discard)
		for range 2 {
			talk(s, discard, message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"}))
		}
		if len(sessions) != 2 || sessions[0] == "" || sessions[0] == sessions[1] {
			t.Errorf("sessions = %q, want two different ones", sessions)
		}
	})
}

func TestBrokenFramingIsClosedWithoutAWord(t *testing.T) {
	for _, c := range []struct{ name, message string }{
		{"another protocol", "GET / HTTP/1.1\r\n\r\n"},
		{"another version", "\x02L\x00\x00"},
		{"too long", "\x01L\xff\xff"},
		{"a field too few", "\x01L\x00\x03\x00\x01a"},
		{"a lookup with a password", "\x01U\x00\x0e\x00\x01a\x00\x01b\x00\x00\x00\x00\x00\x00\x00\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{AllowLookup: true}, fake{}, fake{}, discard) // nobody is asked
				if got := talk(s, discard, []byte(c.message)); got != "" {
					t.Errorf("server says %q, want nothing", got)
				}
				synctest.Wait()
				if got, want := s.Stats(), (Stats{Total: 1}); got != want {
					t.Errorf("Stats() = %+v, want %+v", got, want)
				}
			})
		})
	}
}

func TestTimes(t *testing.T) {
	whole := message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"})
	for _, c := range []struct {
		name    string
		sent    []byte
		pace    time.Duration // between bytes
		want    string
		seconds int
	}{
		{"a peer that says nothing", nil, 0, "", 5},
		{"a peer that stops half-way", whole[:9], 0, "", 5},
		{"a peer that trickles", whole, time.Second, "", 5},
		{"a decision that takes too long", whole, 0, "\x01T\x00\x00", 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fake{authenticate: block}
				s := New(Config{}, f, f, discard)
				near, far := net.Pipe()
				defer near.Close()
				start := time.Now()
				s.conns.Take(far, "test")
				var sending sync.WaitGroup
				defer sending.Wait()
				sending.Go(func() {
					for i := range c.sent {
						if _, err := near.Write(c.sent[i : i+1]); err != nil {
							return
						}
						time.Sleep(c.pace)
					}
				})
				said, _ := io.ReadAll(near)
				if took := time.Since(start); string(said) != c.want || took != time.Duration(c.seconds)*time.Second {
					t.Errorf("server says %q after %v, want %q after %d s", said, took, c.want, c.seconds)
				}
			})
		})
	}
}

func TestHangUpCancelsTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{authenticate: block}
		s := New(Config{}, f, f, discard)
		near, far := net.Pipe()
		start := time.Now()
		s.conns.Take(far, "test")
		near.Write(message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"}))
		synctest.Wait()
		near.Close()
		synctest.Wait()
		if st := s.Stats(); st.Open != 0 || st.Undecided != 1 || time.Since(start) != 0 {
			t.Errorf("Stats() = %+v %v after the peer hung up, want none open, 1 undecided, at once", st, time.Since(start))
		}
	})
}

func TestPeerThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{authenticate: reject}
		s := New(Config{}, f, f, discard)
		near, far := net.Pipe()
		defer near.Close()
		s.conns.Take(far, "test")
		near.Write(message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"}))
		time.Sleep(5*time.Second + 1)
		synctest.Wait()
		if open := s.Stats().Open; open != 0 {
			t.Errorf("Stats().Open = %d after 5 s, want 0", open)
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		f := fake{authenticate: reject}
		s := New(Config{MaxConns: 2}, f, f, log)
		var first []net.Conn
		for range 2 {
			near, far := net.Pipe()
			s.conns.Take(far, "test")
			first = append(first, near)
		}
		for range 3 {
			if got := talk(s, log, nil); got != "" {
				t.Errorf("server says %q, want nothing", got)
			}
		}
		for _, nc := range first {
			nc.Close()
		}
		synctest.Wait()
		if got, want := s.Stats(), (Stats{Total: 2, Refused: 3}); got != want {
			t.Errorf("Stats() = %+v, want %+v", got, want)
		}
		if n := strings.Count(out.String(), "too many connections"); n != 1 {
			t.Errorf("log says %d times that there are too many, want once: %s", n, out.String())
		}
		if got := talk(s, log, message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"})); got != "\x01R\x00\x00" {
			t.Errorf("server says %q after that, want a rejection", got)
		}
	})
}

// TestPanicClosesOneConnection: the panic quotes the password, the log must not.
func TestPanicClosesOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		f := fake{authenticate: func(_ context.Context, req auth.Request) (auth.Decision, error) {
			if req.Login == "boom" {
				panic(req.Password)
			}
			return auth.Decision{}, nil
		}}
		s := New(Config{}, f, f, log)
		if got := talk(s, log, message(t, wire.Request{Op: wire.Login, User: "boom", Password: "canary-7f"})); got != "" {
			t.Errorf("server says %q after a panic, want nothing", got)
		}
		if got := talk(s, log, message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"})); got != "\x01R\x00\x00" {
			t.Errorf("server says %q to the next one, want a rejection", got)
		}
		synctest.Wait()
		if open := s.Stats().Open; open != 0 {
			t.Errorf("Stats().Open = %d, want 0", open)
		}
		if !strings.Contains(out.String(), "panic") || strings.Contains(out.String(), "canary-7f") {
			t.Errorf("log = %s, want the panic without the password", out.String())
		}
	})
}

func TestShutdownAnswersWhatIsRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := fake{authenticate: func(ctx context.Context, _ auth.Request) (auth.Decision, error) {
			<-release
			return auth.Decision{}, ctx.Err()
		}}
		s := New(Config{}, f, f, discard)
		silent, far := net.Pipe()
		s.conns.Take(far, "test")
		asking, far := net.Pipe()
		s.conns.Take(far, "test")
		asking.Write(message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"}))
		synctest.Wait()

		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(t.Context()) }()
		if said, err := io.ReadAll(silent); len(said) > 0 || err != nil {
			t.Errorf("server says %q, %v to a peer that has not asked, want nothing", said, err)
		}
		synctest.Wait()
		select {
		case err := <-stopped:
			t.Errorf("Shutdown() = %v while a decision runs, want it to wait", err)
		default:
		}
		close(release)
		if said, _ := io.ReadAll(asking); string(said) != "\x01R\x00\x00" {
			t.Errorf("server says %q, want the rejection", said)
		}
		if err := <-stopped; err != nil {
			t.Errorf("Shutdown() = %v, want nil", err)
		}
		if got := talk(s, discard, message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"})); got != "" {
			t.Errorf("server says %q after Shutdown, want nothing", got)
		}
	})
}

func TestShutdownGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{authenticate: func(ctx context.Context, req auth.Request) (auth.Decision, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			return block(ctx, req)
		}}
		s := New(Config{DecisionTimeout: time.Hour}, f, f, discard)
		near, far := net.Pipe()
		s.conns.Take(far, "test")
		near.Write(message(t, wire.Request{Op: wire.Login, User: "a", Password: "b"}))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown() = %v, want DeadlineExceeded", err)
		}
		synctest.Wait()
		if open := s.Stats().Open; open != 0 {
			t.Errorf("Stats().Open = %d after Shutdown gave up, want 0", open)
		}
	})
}

// TestUnixSocket goes through a real socket, many at a time, with the helper's own client.
func TestUnixSocket(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var mu sync.Mutex
	var listeners []string
	f := fake{func(_ context.Context, req auth.Request) (auth.Decision, error) {
		mu.Lock()
		listeners = append(listeners, req.Listener)
		mu.Unlock()
		return auth.Decision{OK: req.Password == "right", Login: req.Login}, nil
	}, func(_ context.Context, login string) (auth.Account, error) {
		return auth.Account{Login: login, Userdb: map[string]string{"home": "/home/" + login}}, nil
	}}
	s := New(Config{}, f, f, log)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()

	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			r := wire.Request{Op: wire.Login, User: fmt.Sprintf("u%d", i), Password: "canary-wrong"}
			want := wire.Reply{Outcome: wire.Rejected}
			if i%2 == 0 {
				r.Password = "right"
				want = wire.Reply{Outcome: wire.Accepted, User: r.User, Fields: []wire.Field{{Name: "home", Value: "/home/" + r.User}}}
			}
			got, err := wire.Ask(path, r, time.Now().Add(time.Minute))
			if err != nil || got.Outcome != want.Outcome || got.User != want.User || !slices.Equal(got.Fields, want.Fields) {
				t.Errorf("Ask(%s) = %+v, %v, want %+v", r.User, got, err, want)
			}
		})
	}
	wg.Wait()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown() = %v, want nil", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve() = %v after Shutdown, want nil", err)
	}
	if st := s.Stats(); st.Accepted != 20 || st.Rejected != 20 {
		t.Errorf("Stats() = %+v, want 20 accepted and 20 rejected", st)
	}
	for _, name := range listeners {
		if name != "unix:"+path {
			t.Errorf("Request.Listener = %q, want unix:%s", name, path)
		}
	}
	if strings.Contains(out.String(), "canary") || !strings.Contains(out.String(), "uid=") {
		t.Errorf("log = %s, want who connected, and no password", out.String())
	}
}

// FuzzServer: whatever a peer sends, the server says one well-formed reply or nothing, accepts nobody whom the
// authenticator has not, and asks the directory without a password for lookups only.
func FuzzServer(f *testing.F) {
	for _, r := range []wire.Request{
		{Op: wire.Login, User: "yes", Password: "x", Service: "imap", Remote: "192.0.2.7", TLS: wire.TLSYes},
		{Op: wire.Check, User: "no", Password: ""},
		{Op: wire.Credentials, User: "yes"},
	} {
		m, _ := wire.AppendRequest(nil, r)
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		synctest.Test(t, func(t *testing.T) {
			passed, looked := false, false
			fk := fake{func(_ context.Context, req auth.Request) (auth.Decision, error) {
				passed = strings.HasPrefix(req.Login, "yes") && req.Password != ""
				return auth.Decision{OK: passed, Login: "canonical"}, nil
			}, func(_ context.Context, login string) (auth.Account, error) {
				looked = true
				return auth.Account{Login: "canonical", Enabled: true}, nil
			}}
			s := New(Config{AllowLookup: true}, fk, fk, discard)
			near, far := net.Pipe()
			s.conns.Take(far, "test")
			go near.Write(m)
			said, _ := io.ReadAll(near) // to the end, which one of the server's limits brings if nothing else
			near.Close()
			synctest.Wait()
			if open := s.Stats().Open; open != 0 {
				t.Errorf("Stats().Open = %d, want 0", open)
			}
			if len(said) == 0 {
				return
			}
			var header [wire.HeaderSize]byte
			copy(header[:], said)
			n, err := wire.ReplyLength(header)
			if err != nil || n != len(said)-wire.HeaderSize {
				t.Fatalf("server says %q, want one whole reply", said)
			}
			reply, err := wire.ParseReply(header, said[wire.HeaderSize:])
			if err != nil {
				t.Fatalf("server says %q: %v", said, err)
			}
			lookup := wire.Op(m[1]).Lookup()
			if reply.Outcome == wire.Accepted && !passed && !lookup || looked && !passed && !lookup || lookup && passed {
				t.Errorf("server says %q to %q: accepted without a decision", said, m)
			}
		})
	})
}
