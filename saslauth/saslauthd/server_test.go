package saslauthd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// authFunc is an Authenticator made of a function.
type authFunc func(ctx context.Context, req auth.Request) (auth.Decision, error)

func (f authFunc) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	return f(ctx, req)
}

// serve starts s on a Unix socket and stops it when the test ends.
func serve(t *testing.T, s *Server) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mux")
	l, err := net.Listen("unix", path)
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
	return path
}

var alice = counted("alice", "secret", "imap", "")

// TestSplitAtEveryByte sends a request as two writes, cut at each place.
func TestSplitAtEveryByte(t *testing.T) {
	for _, tail := range []string{"", counted("203.0.113.9;40123")} {
		request := counted("alice", "secret", "smtp", "example.org")
		whole := len(request)
		request += tail
		for cut := range len(request) + 1 {
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeAuth{rules: map[string]rule{"alice@example.org": {outcome: "accepted"}}}
				s := New(Config{}, fake, discard)
				p := newPeer(s)
				defer p.nc.Close()
				io.WriteString(p.nc, request[:cut])
				synctest.Wait()
				io.WriteString(p.nc, request[cut:])
				if got := p.take(); got != "\x00\x02OK" || !p.isClosed() {
					t.Errorf("cut at %d: server says %q, closed: %v, want OK, true", cut, got, p.isClosed())
				}
				want := "alice@example.org:secret service=smtp"
				if tail != "" && (cut < whole || cut == len(request)) {
					want += " rip=203.0.113.9" // was there when the fourth field was
				}
				if got := fake.request(0); got != want {
					t.Errorf("cut at %d: authenticator was asked %q, want %q", cut, got, want)
				}
			})
		}
	}
}

func TestReplyIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{}, discard)
		near, far := newHalves() // one Read sees one Write at most
		defer near.Close()
		s.conns.Take(far, "test")
		io.WriteString(near, alice)
		buf := make([]byte, 16)
		if n, err := near.Read(buf); err != nil || string(buf[:n]) != "\x00\x02NO" {
			t.Errorf("first Read = %q, %v, want the whole reply", buf[:n], err)
		}
	})
}

func TestPeerThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text syncBuffer
		s := New(Config{}, &fakeAuth{}, slog.New(slog.NewTextHandler(&text, nil)))
		mute, far := newHalves()
		s.conns.Take(far, "test")
		io.WriteString(mute, alice)

		time.Sleep(4 * time.Second)
		other := newPeer(s)
		io.WriteString(other.nc, alice)
		if got := other.take(); got != "\x00\x02NO" {
			t.Errorf("other peer got %q, want its answer while the first one blocks", got)
		}
		other.nc.Close()
		synctest.Wait()
		if open := s.Stats().Open; open != 1 {
			t.Errorf("Stats().Open = %d after 4 s, want 1", open)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if open := s.Stats().Open; open != 0 {
			t.Errorf("Stats().Open = %d after 6 s, want 0", open)
		}
		if _, err := io.WriteString(mute, "x"); err == nil {
			t.Error("the connection of the peer that never reads is open, want it closed")
		}
		if !strings.Contains(text.String(), "peer does not read") {
			t.Errorf("log is %q, want the reason", text.String())
		}
	})
}

// TestPeerThatNeverHangsUp reads its reply and stays, or goes on sending.
func TestPeerThatNeverHangsUp(t *testing.T) {
	for _, c := range []struct {
		name     string
		more     func(w io.Writer) error
		wantTook time.Duration
	}{
		{"silent", func(io.Writer) error { time.Sleep(time.Minute); return nil }, time.Second},
		{"sends slowly", func(w io.Writer) error {
			for {
				if _, err := w.Write([]byte{'x'}); err != nil {
					return nil
				}
				time.Sleep(100 * time.Millisecond)
			}
		}, time.Second},
		{"sends without end", func(w io.Writer) error {
			sent := 0
			for {
				n, err := w.Write(make([]byte, 1000))
				if sent += n; err != nil {
					if sent < lingerBytes || sent > lingerBytes+2000 {
						return fmt.Errorf("server took %d bytes after the reply, want %d", sent, lingerBytes)
					}
					return nil
				}
			}
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{}, &fakeAuth{}, discard)
				p := newPeer(s)
				defer p.nc.Close()
				io.WriteString(p.nc, alice)
				if got := p.take(); got != "\x00\x02NO" || !p.isClosed() {
					t.Errorf("server says %q, closed: %v, want NO, true", got, p.isClosed())
				}
				start, done := time.Now(), make(chan error, 1)
				go func() { done <- c.more(p.nc) }()
				for s.Stats().Open > 0 && time.Since(start) < 10*time.Second {
					time.Sleep(10 * time.Millisecond)
					synctest.Wait()
				}
				if took := time.Since(start); took > c.wantTook+20*time.Millisecond || took < c.wantTook {
					t.Errorf("connection was gone after %v, want %v", took, c.wantTook)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestAddressIsNotWaitedFor has the reply go out at the moment the fourth field is there.
func TestAddressIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{}, discard)
		p := newPeer(s)
		defer p.nc.Close()
		start := time.Now()
		io.WriteString(p.nc, alice+"\x00\x11203.")
		if got := p.take(); got != "\x00\x02NO" || time.Since(start) != 0 {
			t.Errorf("server says %q after %v, want NO at once", got, time.Since(start))
		}
	})
}

func TestShutdown(t *testing.T) {
	accept := authFunc(func(ctx context.Context, req auth.Request) (auth.Decision, error) {
		select {
		case <-time.After(3 * time.Second):
			return auth.Decision{OK: true, Login: req.Login}, nil
		case <-ctx.Done():
			return auth.Decision{}, ctx.Err()
		}
	})
	for _, c := range []struct {
		name     string
		sent     string
		patience time.Duration
		want     string // what the peer gets
		wantErr  error
		wantTook time.Duration
	}{
		{"nothing sent", "", time.Minute, "", nil, 0},
		{"half a request", alice[:9], time.Minute, "", nil, 0},
		{"refused and lingering", counted("", "x", "", ""), time.Minute, "\x00\x02NO", nil, 0},
		{"being decided", alice, time.Minute, "\x00\x02OK", nil, 3 * time.Second},
		{"no patience", alice, time.Second, "", context.DeadlineExceeded, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{}, accept, discard)
				p := newPeer(s)
				io.WriteString(p.nc, c.sent)
				synctest.Wait()
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), c.patience)
				defer cancel()
				if err := s.Shutdown(ctx); !errors.Is(err, c.wantErr) {
					t.Errorf("Shutdown() = %v, want %v", err, c.wantErr)
				}
				if took := time.Since(start); took != c.wantTook {
					t.Errorf("Shutdown() took %v, want %v", took, c.wantTook)
				}
				if got := p.take(); got != c.want || !p.isClosed() {
					t.Errorf("peer got %q, closed: %v, want %q, true", got, p.isClosed(), c.want)
				}
				if open := s.Stats().Open; open != 0 {
					t.Errorf("Stats().Open = %d, want 0", open)
				}

				late := newPeer(s)
				if got := late.take(); got != "" || !late.isClosed() {
					t.Errorf("peer after Shutdown got %q, closed: %v, want nothing, true", got, late.isClosed())
				}
				if err := s.Shutdown(ctx); err != nil {
					t.Errorf("second Shutdown() = %v, want nil", err)
				}
			})
		})
	}
}

// TestShutdownEndsServe also covers several listeners, and Serve after Shutdown.
func TestShutdownEndsServe(t *testing.T) {
	s := New(Config{}, &fakeAuth{rules: map[string]rule{"alice": {outcome: "accepted"}}}, discard)
	served := make(chan error)
	paths := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "c")}
	for _, path := range paths[:2] {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { served <- s.Serve(l) }()
		if got, err := Check(t.Context(), path, Query{Login: "alice", Password: "secret"}); got.Outcome != OutcomeOK || err != nil {
			t.Errorf("Check(%s) = %v, %v, want OK", filepath.Base(path), got, err)
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown() = %v, want nil", err)
	}
	for range 2 {
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
	}
	if _, err := Check(t.Context(), paths[0], Query{}); err == nil {
		t.Error("Check() after Shutdown succeeded, want the listener closed")
	}
	l, err := net.Listen("unix", paths[2])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve() after Shutdown = %v, want nil", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() after Serve = %v, want the listener closed", err)
	}
}

func TestServeEndsWithItsListener(t *testing.T) {
	s := New(Config{}, &fakeAuth{}, discard)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "mux"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve() = %v, want %v", err, net.ErrClosed)
	}
}

// brokenListener fails a number of times before it has a connection, and then blocks until it is closed.
type brokenListener struct {
	failures int
	at       []time.Time
	conns    chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (l *brokenListener) Accept() (net.Conn, error) {
	l.at = append(l.at, time.Now())
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *brokenListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *brokenListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "/run/x"} }

func TestServeOutlivesAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newHalves()
		l := &brokenListener{failures: 12, conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- far
		s := New(Config{}, &fakeAuth{}, discard)
		served := make(chan error)
		go func() { served <- s.Serve(l) }()
		io.WriteString(near, alice)
		if got, err := io.ReadAll(near); string(got) != "\x00\x02NO" || err != nil {
			t.Errorf("after the errors the server says %q, %v, want NO", got, err)
		}
		near.Close()
		synctest.Wait()
		for i := range l.at[:len(l.at)-2] {
			wait := l.at[i+1].Sub(l.at[i])
			if want := min(5*time.Millisecond<<i, time.Second); wait != want {
				t.Errorf("wait after error %d = %v, want %v", i+1, wait, want)
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown() = %v, want nil", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
	})
}

func TestShutdownInTheMiddleOfAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &brokenListener{failures: 1 << 30, closed: make(chan struct{})}
		s := New(Config{}, &fakeAuth{}, discard)
		served := make(chan error)
		go func() { served <- s.Serve(l) }()
		time.Sleep(10 * time.Second)
		start := time.Now()
		s.Shutdown(t.Context())
		if err := <-served; err != nil || time.Since(start) != 0 {
			t.Errorf("Serve() = %v %v after Shutdown, want nil at once", err, time.Since(start))
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text syncBuffer
		s := New(Config{MaxConns: 2}, &fakeAuth{}, slog.New(slog.NewTextHandler(&text, nil)))
		a, b := newPeer(s), newPeer(s)
		c, d := newPeer(s), newPeer(s)
		synctest.Wait()
		if !c.isClosed() || !d.isClosed() || a.isClosed() || b.isClosed() {
			t.Errorf("closed: %v %v %v %v, want the last two", a.isClosed(), b.isClosed(), c.isClosed(), d.isClosed())
		}
		if got := strings.Count(text.String(), "too many connections"); got != 1 {
			t.Errorf("%d log lines about too many connections, want 1", got)
		}
		a.nc.Close()
		synctest.Wait()
		e := newPeer(s)
		synctest.Wait()
		if e.isClosed() {
			t.Error("a connection after one has gone is closed, want it served")
		}
		if got, want := s.Stats(), (Stats{Open: 2, Total: 3, Refused: 2}); got != want {
			t.Errorf("Stats() = %+v, want %+v", got, want)
		}
		b.nc.Close()
		e.nc.Close()
		synctest.Wait()
	})
}

// TestPanic holds a panic to its own connection and keeps what it says out of the log.
func TestPanic(t *testing.T) {
	for outcome, logged := range map[string]string{"panics": "panic=string", "crashes": "index out of range"} {
		t.Run(outcome, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var text syncBuffer
				s := New(Config{}, &fakeAuth{rules: map[string]rule{"bomb": {outcome: outcome}}},
					slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})))
				other, p := newPeer(s), newPeer(s)
				io.WriteString(p.nc, counted("bomb", "hunter2", "imap", ""))
				synctest.Wait()
				io.WriteString(other.nc, counted("alice", "hunter2", "imap", ""))
				if mine, its := p.take(), other.take(); mine != "" || !p.isClosed() || its != "\x00\x02NO" {
					t.Errorf("peer got %q, closed: %v, other peer got %q, want nothing, true and NO", mine, p.isClosed(), its)
				}
				if log := text.String(); !strings.Contains(log, "fakeAuth") || !strings.Contains(log, logged) || strings.Contains(log, "hunter2") {
					t.Errorf("log is %q, want a stack, %q and no password", log, logged)
				}
				other.nc.Close()
				synctest.Wait()
				if open := s.Stats().Open; open != 0 {
					t.Errorf("Stats().Open = %d, want 0", open)
				}
			})
		})
	}
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{rules: map[string]rule{
			"alice": {outcome: "accepted"}, "broken": {outcome: "undecided"}}}, discard)
		for _, request := range []string{
			alice,
			counted("alice", "wrong", "imap", ""),
			counted("broken", "x", "imap", ""),
			counted("alice", "", "imap", ""),
			"\xff\xff",
			alice[:5],
		} {
			p := newPeer(s)
			io.WriteString(p.nc, request)
			synctest.Wait()
			p.nc.Close()
			synctest.Wait()
		}
		newPeer(s)
		if got, want := s.Stats(), (Stats{Open: 1, Total: 7, Requests: 5, Accepted: 1, Rejected: 1, Undecided: 1}); got != want {
			t.Errorf("Stats() = %+v, want %+v", got, want)
		}
		s.Shutdown(t.Context())
	})
}

// TestNoSecretInLog plays what makes the server write log lines, at the finest level.
func TestNoSecretInLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text syncBuffer
		s := New(Config{}, &fakeAuth{}, slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})))
		for _, c := range []struct{ request, logged string }{
			{counted("alice", "hunter2", "imap", ""), ""},
			{counted("alice", "hunter2\x00", "imap", ""), "field holds a NUL"},
			{counted("", "hunter2", "imap", ""), "login is empty"},
			{counted("alice", "", "imap", ""), "password is empty"},
			{counted("alice", "hunter2"+strings.Repeat("x", 256), "imap", ""), "field is too long"},
			{counted("alice", "hunter2"), "request is cut short"},
			{counted("hunter2", "hunter2", "hunter2") + "hunter2", "field is too long"},
		} {
			p := newPeer(s)
			io.WriteString(p.nc, c.request)
			synctest.Wait()
			p.nc.Close()
			synctest.Wait()
			if log := text.String(); !strings.Contains(log, c.logged) {
				t.Errorf("log after %q is %q, want %q in it", c.request, log, c.logged)
			}
		}
		if log := text.String(); strings.Contains(log, "hunter2") || !strings.Contains(log, "session=") {
			t.Errorf("log is %q, want sessions in it and no password", log)
		}
	})
}

// TestBufferIsCleared has what a request left in the read buffer gone before the next connection gets it.
func TestBufferIsCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{rules: map[string]rule{"bomb": {outcome: "panics"}}}, discard)
		var made []*[]byte
		s.buffers.New = func() any {
			b := make([]byte, s.cfg.bufferSize())
			made = append(made, &b)
			return &b
		}
		for _, request := range []string{
			alice, counted("bomb", "secret", "imap", ""), counted("alice", "secret"), counted("", "secret", "", ""),
			alice + strings.Repeat("secret", 1000),
		} {
			p := newPeer(s)
			io.WriteString(p.nc, request)
			synctest.Wait()
			p.nc.Close()
			synctest.Wait()
			for _, b := range made {
				if len(bytes.Trim(*b, "\x00")) > 0 {
					t.Errorf("after %.40q a buffer is %q, want it cleared", request, *b)
				}
			}
		}
		if len(made) == 0 {
			t.Error("no buffer was made")
		}
	})
}

func TestBufferHoldsEveryRequest(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want int
	}{
		{Config{}, 4*258 + 130},
		{Config{MaxField: 1 << 20}, 8164 + 130},
		{Config{MaxField: 1 << 20, MaxRequest: 1 << 30}, 4*65537 + 130},
		{Config{MaxRequest: 1}, 3 + 130},
	} {
		if got := c.cfg.withDefaults().bufferSize(); got != c.want {
			t.Errorf("%+v.bufferSize() = %d, want %d", c.cfg, got, c.want)
		}
	}
}

func TestListenerName(t *testing.T) {
	for _, c := range []struct{ name, configured, want string }{
		{"configured", "submission", "submission"},
		{"default", "", "unix:/run/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeAuth{}
				s := New(Config{Listener: c.configured}, fake, discard)
				near, far := newHalves()
				l := &brokenListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
				l.conns <- far
				go s.Serve(l)
				io.WriteString(near, alice)
				io.ReadAll(near)
				if len(fake.seen) != 1 || fake.seen[0].Listener != c.want {
					t.Errorf("authenticator saw %d requests, want one with Listener %q", len(fake.seen), c.want)
				}
				near.Close()
				s.Shutdown(t.Context())
			})
		})
	}
}

func TestSessionsDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeAuth{}
		s := New(Config{}, fake, discard)
		s.session.Store(0xFFFFFFFE) // also where the counter wraps
		for range 3 {
			p := newPeer(s)
			io.WriteString(p.nc, alice)
			synctest.Wait()
			p.nc.Close()
		}
		synctest.Wait()
		for i, want := range []string{"ffffffff", "0", "1"} {
			if got := fake.seen[i].Session; got != want {
				t.Errorf("session of connection %d = %q, want %q", i+1, got, want)
			}
		}
	})
}

// TestConcurrently has many peers ask at once over a real socket; each gets its own answer.
func TestConcurrently(t *testing.T) {
	const peers, each = 16, 50
	var running, most atomic.Int32
	s := New(Config{}, authFunc(func(_ context.Context, req auth.Request) (auth.Decision, error) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		switch {
		case strings.HasPrefix(req.Login, "undecided"):
			return auth.Decision{}, errors.New("out of order")
		case req.Login == req.Password+"@realm":
			return auth.Decision{OK: true, Login: req.Login}, nil
		}
		return auth.Decision{}, nil
	}), discard)
	path := serve(t, s)
	var wg sync.WaitGroup
	for i := range peers {
		wg.Go(func() {
			for j := range each {
				q := Query{Login: fmt.Sprintf("user%d.%d", i, j), Service: "imap", Realm: "realm"}
				q.Password = q.Login
				want := OutcomeOK
				switch j % 3 {
				case 1:
					q.Password, want = "wrong", OutcomeNO
				case 2:
					q.Login, want = "undecided", OutcomeClosed
				}
				if got, err := Check(t.Context(), path, q); got.Outcome != want || err != nil {
					t.Errorf("Check(%+v) = %v, %v, want %v", q, got, err, want)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Total != peers*each || st.Requests != peers*each || st.Accepted+st.Rejected+st.Undecided != peers*each {
		t.Errorf("Stats() = %+v, want %d connections, requests and decisions", st, peers*each)
	}
	if most.Load() > peers {
		t.Errorf("%d decisions ran at a time, want %d at most", most.Load(), peers)
	}
}

// TestLargeRequestOverSocket writes far more than is taken, over a real socket: the reply must arrive, and the write must
// not fail before the peer has sent it all.
func TestLargeRequestOverSocket(t *testing.T) {
	s := New(Config{}, &fakeAuth{}, discard)
	s.linger = time.Hour // on a busy machine the write may take its time
	path := serve(t, s)
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	huge := strings.Repeat("x", 0xFFFF)
	if n, err := io.WriteString(nc, counted(huge, huge, huge, huge)); err != nil {
		t.Errorf("Write = %d, %v, want all of it taken", n, err)
	}
	if got, err := io.ReadAll(nc); string(got) != "\x00\x02NO" || err != nil {
		t.Errorf("ReadAll = %q, %v, want NO and a clean end", got, err)
	}
}

// TestUndecidedOverSocket wants a clean end without a byte, also when something of the request is unread.
func TestUndecidedOverSocket(t *testing.T) {
	path := serve(t, New(Config{}, &fakeAuth{rules: map[string]rule{"broken": {outcome: "undecided"}}}, discard))
	for _, tail := range []string{"", strings.Repeat("x", 4096)} {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, counted("broken", "x", "imap", "")+tail)
		if got, err := io.ReadAll(nc); len(got) > 0 || err != nil {
			t.Errorf("ReadAll with %d bytes more = %q, %v, want nothing and a clean end", len(tail), got, err)
		}
		nc.Close()
	}
}

// syncBuffer is a buffer for log handlers of several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
