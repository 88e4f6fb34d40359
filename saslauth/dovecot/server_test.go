package dovecot

import (
	"bufio"
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

var discard = slog.New(slog.DiscardHandler)

// authFunc is an Authenticator made of a function.
type authFunc func(ctx context.Context, req auth.Request) (auth.Decision, error)

func (f authFunc) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	return f(ctx, req)
}

// serveOn starts s on a listener and stops it when the test ends.
func serveOn(t *testing.T, s *Server, network string) (address string) {
	t.Helper()
	address = "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "auth")
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

const hello = "VERSION\t1\t1\nCPID\t4711\n"

// authLine is AUTH as a login process sends it.
func authLine(id int, login, password string) string {
	return fmt.Sprintf("AUTH\t%d\tPLAIN\tservice=imap\tresp=%s\n", id, b64("\x00"+login+"\x00"+password))
}

func TestHandshakeIsOneSmallWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{}, discard)
		near, far := net.Pipe() // one Read sees one Write at most
		defer near.Close()
		s.conns.Take(far, "test")
		buf := make([]byte, 1024)
		n, err := near.Read(buf)
		if err != nil || n >= 1024 || !strings.HasSuffix(string(buf[:n]), "\nDONE\n") {
			t.Errorf("first Read = %q, %v, want the whole handshake in less than 1024 bytes", buf[:n], err)
		}
		mech, spid := bytes.Index(buf, []byte("\nMECH\t")), bytes.Index(buf, []byte("\nSPID\t"))
		if mech < 0 || mech > spid {
			t.Errorf("MECH at %d, SPID at %d, want MECH first", mech, spid)
		}
	})
}

func TestHandshakeIsFresh(t *testing.T) {
	s := New(Config{}, &fakeAuth{}, discard)
	handshake := func() string {
		nc, _ := net.Pipe()
		defer nc.Close()
		return string(s.appendHandshake(nil, newConn(s, nc, "test", discard).cuid))
	}
	a, b := handshake(), handshake()
	for _, name := range []string{"CUID\t", "COOKIE\t"} {
		value := func(text string) string {
			_, rest, _ := strings.Cut(text, "\n"+name)
			v, _, _ := strings.Cut(rest, "\n")
			return v
		}
		if value(a) == value(b) || value(a) == "" {
			t.Errorf("%q = %q and %q on two connections, want different ones", name, value(a), value(b))
		}
	}
}

// TestSplitAtEveryByte sends a session as two writes, cut at each place.
func TestSplitAtEveryByte(t *testing.T) {
	session := hello +
		"AUTH\t1\tLOGIN\tservice=smtp\tnologin\r\n" +
		"CONT\t1\t" + b64("al\x01ice") + "\n" +
		"CONT\t1\t" + b64("wrong") + "\n" +
		"CANCEL\t9\n" +
		"CONT\t9\t\n"
	want := "CONT\t1\tVXNlcm5hbWU6\nCONT\t1\tUGFzc3dvcmQ6\nFAIL\t9\treason=Authentication request timed out\n" +
		"FAIL\t1\tuser=al?ice\n"
	for cut := range len(session) {
		synctest.Test(t, func(t *testing.T) {
			// The decision takes time, so that the order of the replies is known.
			s := New(Config{}, authFunc(func(context.Context, auth.Request) (auth.Decision, error) {
				time.Sleep(time.Second)
				return auth.Decision{}, nil
			}), discard)
			p := newPeer(s)
			defer p.nc.Close()
			io.WriteString(p.nc, session[:cut])
			synctest.Wait()
			io.WriteString(p.nc, session[cut:])
			time.Sleep(2 * time.Second)
			synctest.Wait()
			_, got, _ := strings.Cut(p.text(), "DONE\n")
			if got != want {
				t.Errorf("cut at %d: server says %q, want %q", cut, got, want)
			}
		})
	}
}

func TestPeerThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{}, discard)
		mute, far := net.Pipe()
		s.conns.Take(far, "test")
		other := newPeer(s)
		io.WriteString(other.nc, hello)

		time.Sleep(9 * time.Second)
		io.WriteString(other.nc, authLine(1, "alice", "wrong"))
		synctest.Wait()
		if !strings.HasSuffix(other.text(), "DONE\nFAIL\t1\tuser=alice\n") {
			t.Errorf("other peer got %q, want its answer while the first one blocks", other.text())
		}
		if open := s.Stats().Open; open != 2 {
			t.Errorf("Stats().Open = %d after 9 s, want 2", open)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if open := s.Stats().Open; open != 1 {
			t.Errorf("Stats().Open = %d after 11 s, want 1", open)
		}
		if _, err := mute.Write([]byte("x")); err == nil {
			t.Error("the connection of the peer that never reads is open, want it closed")
		}
		other.nc.Close()
		synctest.Wait()
	})
}

// TestPeerThatAsksAndNeverReads has more replies due than the socket and the server keep.
func TestPeerThatAsksAndNeverReads(t *testing.T) {
	var many strings.Builder
	many.WriteString("CANCEL\t9\tlong enough to make the read buffer grow: " + strings.Repeat("x", 8000) + "\n")
	many.WriteString(strings.Repeat("CONT\t7\t\n", 4000))
	for _, c := range []struct{ name, first, lines string }{
		{"replies of the reader", "", "CONT\t7\t\n"},
		{"replies to many lines in one write", "", many.String()},
		{"replies while a worker writes", authLine(1, "alice", "wrong"), many.String()},
		{"answers of the workers", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{}, &fakeAuth{}, discard)
				near, far := net.Pipe()
				defer near.Close()
				s.conns.Take(far, "test")
				near.Read(make([]byte, 1024)) // the handshake
				io.WriteString(near, hello+c.first)
				synctest.Wait()
				// Writes go on until the server stops reading; then its write deadline ends it all.
				start := time.Now()
				sent := 0
				for id := 1; ; id++ {
					line := c.lines
					if line == "" {
						line = authLine(id, "alice", "wrong")
					}
					n, err := io.WriteString(near, line)
					sent += n
					if err != nil {
						break
					}
				}
				synctest.Wait()
				if sent == 0 || sent > 128*1024 {
					t.Errorf("server took %d bytes from a peer that never reads, want some, and 128 KiB at most", sent)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("server closed after %v, want 10 s at most", took)
				}
				if open := s.Stats().Open; open != 0 {
					t.Errorf("Stats().Open = %d, want 0", open)
				}
			})
		})
	}
}

func TestSlowReaderIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{}, discard)
		near, far := net.Pipe()
		s.conns.Take(far, "test")
		go io.WriteString(near, hello+"CANCEL\t9\t"+strings.Repeat("x", 8000)+"\n"+
			authLine(8, "alice", "wrong")+strings.Repeat("CONT\t7\t\n", 5000))
		r := bufio.NewReaderSize(near, 16)
		replies := 0
		for replies < 5000 {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("after %d replies: %v", replies, err)
			}
			if strings.HasPrefix(line, "FAIL\t7\t") {
				replies++
			}
			if replies%100 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		near.Close()
		synctest.Wait()
	})
}

func TestHangUpCancelsDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began, ended atomic.Int32
		s := New(Config{}, authFunc(func(ctx context.Context, _ auth.Request) (auth.Decision, error) {
			began.Add(1)
			<-ctx.Done()
			ended.Add(1)
			return auth.Decision{}, ctx.Err()
		}), discard)
		p := newPeer(s)
		start := time.Now()
		io.WriteString(p.nc, hello+authLine(1, "alice", "x")+authLine(2, "bob", "x"))
		synctest.Wait()
		p.nc.Close()
		synctest.Wait()
		if b, e := began.Load(), ended.Load(); b != 2 || e != 2 || time.Since(start) != 0 {
			t.Errorf("%d decisions began, %d ended %v after the peer hung up, want 2, 2, at once", b, e, time.Since(start))
		}
		if st := s.Stats(); st.Open != 0 || st.Undecided != 2 {
			t.Errorf("Stats() = %+v, want none open and 2 undecided", st)
		}
	})
}

// TestHeldBack has more answers held back than decisions may run at a time: the others of the connection do not wait for them, and the
// peer's hanging up ends them.
func TestHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, held = 3, 50
		var ended atomic.Int32
		s := New(Config{MaxRunning: limit}, authFunc(func(ctx context.Context, req auth.Request) (auth.Decision, error) {
			if req.Login == "good" {
				return auth.Decision{OK: true, Login: req.Login}, nil
			}
			req.Holder.Held()
			select {
			case <-time.After(15 * time.Second):
			case <-ctx.Done():
			}
			ended.Add(1)
			return auth.Decision{}, nil
		}), discard)
		p := newPeer(s)
		io.WriteString(p.nc, hello)
		for round := range 2 {
			for id := 1; id <= held; id++ {
				io.WriteString(p.nc, authLine(round*1000+id, "guess", "x"))
			}
			io.WriteString(p.nc, authLine(round*1000+999, "good", "x"))
			synctest.Wait()
			if want := fmt.Sprintf("OK\t%d\tuser=good\n", round*1000+999); !strings.Contains(p.text(), want) {
				t.Fatalf("round %d: no answer to the right password while the others are held back", round)
			}
			if n := ended.Load(); n != int32(round*held) {
				t.Fatalf("round %d: %d were answered before their time", round, n)
			}
			if round == 0 {
				time.Sleep(15 * time.Second)
				synctest.Wait()
				if n := strings.Count(p.text(), "FAIL\t"); n != held {
					t.Errorf("%d refusals, want %d", n, held)
				}
			}
		}
		p.nc.Close()
		synctest.Wait()
		if n := ended.Load(); n != 2*held {
			t.Errorf("%d ended after the peer hung up, want %d", n, 2*held)
		}
		if n := s.extraRunning.Load(); n != 0 {
			t.Errorf("%d places of workers are lost", n)
		}
	})
}

// TestDecisionsAreBounded pipelines far more than may run at a time: all are answered, and never more than the limit run.
func TestDecisionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, logins = 5, 1000
		var running, most atomic.Int32
		s := New(Config{MaxRunning: limit}, authFunc(func(_ context.Context, req auth.Request) (auth.Decision, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for {
				m := most.Load()
				if n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			time.Sleep(time.Duration(1+len(req.Login)%3) * time.Millisecond)
			return auth.Decision{OK: true, Login: req.Login}, nil
		}), discard)
		p := newPeer(s)
		io.WriteString(p.nc, hello)
		for id := 1; id <= logins; id++ {
			io.WriteString(p.nc, authLine(id, fmt.Sprintf("user%d", id), "x"))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		answers := make(map[string]bool)
		for line := range strings.Lines(p.text()) {
			if strings.HasPrefix(line, "OK\t") {
				answers[line] = true
			}
		}
		for id := 1; id <= logins; id++ {
			if want := fmt.Sprintf("OK\t%d\tuser=user%d\n", id, id); !answers[want] {
				t.Fatalf("no answer %q", want)
			}
		}
		if m := most.Load(); m != limit {
			t.Errorf("%d decisions ran at a time, want %d", m, limit)
		}
		if n := s.extraRunning.Load(); n != 0 {
			t.Errorf("extraRunning = %d when all is answered, want 0", n)
		}
		p.nc.Close()
		synctest.Wait()
	})
}

// TestExtraWorkersAreBounded has other connections use up what the server has: this one still gets on, one decision
// at a time.
func TestExtraWorkersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{rules: map[string]rule{"slow": {outcome: "accepted", as: "slow", after: time.Second}}}, discard)
		s.extraRunning.Store(maxExtraRunning)
		p := newPeer(s)
		io.WriteString(p.nc, hello+authLine(1, "slow", "secret")+authLine(2, "slow", "secret"))
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if !strings.HasSuffix(p.text(), "DONE\nOK\t1\tuser=slow\n") {
			t.Errorf("after 1.5 s the server said %q, want one answer", p.text())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !strings.HasSuffix(p.text(), "DONE\nOK\t1\tuser=slow\nOK\t2\tuser=slow\n") {
			t.Errorf("after 2.5 s the server said %q, want both answers", p.text())
		}
		if n := s.extraRunning.Load(); n != maxExtraRunning {
			t.Errorf("extraRunning = %d, want %d as before", n, maxExtraRunning)
		}
		p.nc.Close()
		synctest.Wait()
	})
}

// TestReadyTogetherGoTogether holds replies to lines that came together to one write.
func TestReadyTogetherGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{}, discard)
		near, far := net.Pipe()
		defer near.Close()
		s.conns.Take(far, "test")
		buf := make([]byte, 1024)
		near.Read(buf)
		io.WriteString(near, hello+"CONT\t1\t\nCONT\t2\t\nCONT\t3\t\n")
		n, err := near.Read(buf)
		if got := bytes.Count(buf[:n], []byte{'\n'}); err != nil || got != 3 {
			t.Errorf("one Read = %q, %v, want 3 lines", buf[:n], err)
		}
	})
}

func TestShutdown(t *testing.T) {
	accept := func(after time.Duration) authFunc {
		return func(ctx context.Context, req auth.Request) (auth.Decision, error) {
			select {
			case <-time.After(after):
				return auth.Decision{OK: true, Login: req.Login}, nil
			case <-ctx.Done():
				return auth.Decision{}, ctx.Err()
			}
		}
	}
	for _, c := range []struct {
		name     string
		sent     string
		patience time.Duration
		want     string // what the peer gets after the handshake
		wantErr  error
		wantTook time.Duration
	}{
		{"idle", hello, time.Minute, "", nil, 0},
		{"no handshake", "", time.Minute, "", nil, 0},
		{"half a line", hello + "AUTH\t1", time.Minute, "", nil, 0},
		{"waiting for CONT", hello + "AUTH\t1\tPLAIN\tservice=imap\n", time.Minute, "CONT\t1\t\n", nil, 0},
		{"being decided", hello + authLine(1, "alice", "x"), time.Minute, "OK\t1\tuser=alice\n", nil, 3 * time.Second},
		{"two being decided", hello + authLine(1, "alice", "x") + authLine(2, "alice", "x"), time.Minute,
			"OK\t1\tuser=alice\nOK\t2\tuser=alice\n", nil, 3 * time.Second},
		{"no patience", hello + authLine(1, "alice", "x"), time.Second, "", context.DeadlineExceeded, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{}, accept(3*time.Second), discard)
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
				synctest.Wait()
				_, got, _ := strings.Cut(p.text(), "DONE\n")
				lines := strings.SplitAfter(got, "\n")
				if len(lines) == 3 && lines[0] > lines[1] {
					got = lines[1] + lines[0]
				}
				if got != c.want || !p.isClosed() {
					t.Errorf("peer got %q, closed: %v, want %q, true", got, p.isClosed(), c.want)
				}
				if open := s.Stats().Open; open != 0 {
					t.Errorf("Stats().Open = %d, want 0", open)
				}

				late := newPeer(s)
				synctest.Wait()
				if len(late.text()) > 0 || !late.isClosed() {
					t.Errorf("peer after Shutdown got %q, closed: %v, want nothing, true", late.text(), late.isClosed())
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
	s := New(Config{}, &fakeAuth{}, discard)
	served := make(chan error)
	var last net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		last = l
		go func() { served <- s.Serve(l) }()
		c, err := Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown() = %v, want nil", err)
	}
	for range 2 {
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
	}
	if _, err := Dial(t.Context(), "tcp", last.Addr().String()); err == nil {
		t.Error("Dial() after Shutdown succeeded, want the listener closed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
		near, far := net.Pipe()
		l := &brokenListener{failures: 12, conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- far
		s := New(Config{}, &fakeAuth{}, discard)
		served := make(chan error)
		go func() { served <- s.Serve(l) }()
		if line, err := bufio.NewReaderSize(near, 1024).ReadString('\n'); line != "VERSION\t1\t2\n" {
			t.Errorf("after the errors the server says %q, %v, want its handshake", line, err)
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
		io.WriteString(a.nc, hello)
		io.WriteString(b.nc, hello)
		synctest.Wait()
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

// TestSilentPeersGiveWay fills the server with peers that send no handshake, or half of one: whoever comes then is served, and of those who have
// sent theirs none is closed for it.
func TestSilentPeersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text syncBuffer
		s := New(Config{MaxConns: 3}, &fakeAuth{}, slog.New(slog.NewTextHandler(&text, nil)))
		first := newPeer(s)
		io.WriteString(first.nc, hello)
		synctest.Wait()
		silent, half := newPeer(s), newPeer(s)
		version, _, _ := strings.Cut(hello, "CPID")
		io.WriteString(half.nc, version+"CPID\t1")
		synctest.Wait()

		var served []*peer
		for i := range 2 {
			p := newPeer(s)
			synctest.Wait()
			if want := i == 1; !silent.isClosed() || half.isClosed() != want {
				t.Errorf("newcomer %d: closed are %v, %v, want the oldest first", i, silent.isClosed(), half.isClosed())
			}
			io.WriteString(p.nc, hello+authLine(1, "alice", "hunter2"))
			synctest.Wait()
			if !strings.HasSuffix(p.text(), "FAIL\t1\tuser=alice\n") {
				t.Errorf("newcomer %d got %q, want an answer", i, p.text())
			}
			served = append(served, p)
		}
		if p := newPeer(s); true {
			synctest.Wait()
			if !p.isClosed() || first.isClosed() || served[0].isClosed() || served[1].isClosed() {
				t.Error("a peer that has sent its handshake gave way, want the newcomer refused")
			}
		}
		if got, want := s.Stats(), (Stats{Open: 3, Total: 5, Refused: 1, Yielded: 2, Requests: 2, Rejected: 2}); got != want {
			t.Errorf("Stats() = %+v, want %+v", got, want)
		}
		first.nc.Close()
		served[0].nc.Close()
		served[1].nc.Close()
		synctest.Wait()
	})
}

// TestPanic holds a panic to its own connection and keeps what it says out of the log.
func TestPanic(t *testing.T) {
	for outcome, logged := range map[string]string{"panics": "panic=string", "crashes": "index out of range"} {
		t.Run(outcome, func(t *testing.T) { testPanic(t, outcome, logged) })
	}
}

func testPanic(t *testing.T, outcome, logged string) {
	synctest.Test(t, func(t *testing.T) {
		var text syncBuffer
		s := New(Config{}, &fakeAuth{rules: map[string]rule{"bomb": {outcome: outcome}}},
			slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})))
		other, p := newPeer(s), newPeer(s)
		io.WriteString(other.nc, hello)
		io.WriteString(p.nc, hello+authLine(1, "bomb", "hunter2"))
		synctest.Wait()
		io.WriteString(other.nc, authLine(1, "alice", "hunter2"))
		synctest.Wait()
		if !p.isClosed() || !strings.HasSuffix(other.text(), "FAIL\t1\tuser=alice\n") {
			t.Errorf("closed: %v, other peer got %q, want true and its answer", p.isClosed(), other.text())
		}
		if log := text.String(); !strings.Contains(log, "fakeAuth") || !strings.Contains(log, logged) || strings.Contains(log, "hunter2") ||
			strings.Contains(log, b64("\x00bomb\x00hunter2")) {
			t.Errorf("log is %q, want a stack, %q and no password", log, logged)
		}
		other.nc.Close()
		synctest.Wait()
	})
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}, &fakeAuth{rules: map[string]rule{
			"alice": {outcome: "accepted", as: "alice"}, "broken": {outcome: "undecided"}}}, discard)
		p := newPeer(s)
		io.WriteString(p.nc, hello+authLine(1, "alice", "secret")+authLine(2, "alice", "wrong")+
			authLine(3, "broken", "x")+authLine(4, "alice", "")+"AUTH\t5\tPLAIN\tservice=imap\n")
		synctest.Wait()
		if got, want := s.Stats(), (Stats{Open: 1, Total: 1, Requests: 5, Accepted: 1, Rejected: 1, Undecided: 1}); got != want {
			t.Errorf("Stats() = %+v, want %+v", got, want)
		}
		p.nc.Close()
		synctest.Wait()
	})
}

// TestNoSecretInLog plays what makes the server write log lines, at the finest level.
func TestNoSecretInLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text syncBuffer
		s := New(Config{}, &fakeAuth{}, slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})))
		for _, lines := range []string{
			authLine(1, "alice", "hunter2"),
			"AUTH\t1\tPLAIN\tservice=imap\tresp=" + b64("bob\x00alice\x00hunter2") + "\n",
			"AUTH\t1\tPLAIN\tservice=imap\tresp=" + b64("alice\x00hunter2") + "\n",
			"AUTH\t1\tPLAIN\tservice=imap\tresp=" + b64("\x00alice\x00hunter2\x00") + "\n",
			"AUTH\t1\tLOGIN\tservice=imap\tresp=" + b64("alice") + "\nCONT\t1\t" + b64("hunter2\x00") + "\n",
			"AUTH\t1\tXOAUTH2\tservice=imap\tresp=" + b64("hunter2") + "\n",
			"hunter2\n",
			"AUTH\thunter2\n",
			"CONT\thunter2\n",
		} {
			p := newPeer(s)
			io.WriteString(p.nc, hello+lines)
			synctest.Wait()
			p.nc.Close()
		}
		synctest.Wait()
		if log := text.String(); strings.Contains(log, "hunter2") || strings.Contains(log, "aHVudGVyM") ||
			!strings.Contains(log, "authorization identity") {
			t.Errorf("log is %q, want it without the password", log)
		}
	})
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
				near, far := net.Pipe()
				l := &brokenListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
				l.conns <- far
				go s.Serve(l)
				go io.Copy(io.Discard, near)
				io.WriteString(near, hello+authLine(1, "alice", "x"))
				synctest.Wait()
				if len(fake.seen) != 1 || fake.seen[0].Listener != c.want {
					t.Errorf("authenticator saw %d requests, want one with Listener %q", len(fake.seen), c.want)
				}
				s.Shutdown(t.Context())
				near.Close()
				synctest.Wait()
			})
		})
	}
}

func TestTempfailText(t *testing.T) {
	for _, want := range []Tempfail{TempfailAuto, TempfailDisconnect, TempfailReply} {
		got := Tempfail(99)
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Errorf("UnmarshalText(%q) = %v, %v, want %v", want.String(), got, err, want)
		}
	}
	var got Tempfail
	if err := got.UnmarshalText([]byte("maybe")); err == nil {
		t.Error(`UnmarshalText("maybe") = nil, want an error`)
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

// TestDrainUnix: over a Unix socket a question is either answered or cannot be sent. Postfix asks another connection then.
func TestDrainUnix(t *testing.T) {
	accept := authFunc(func(_ context.Context, req auth.Request) (auth.Decision, error) {
		return auth.Decision{OK: true, Login: req.Login}, nil
	})
	for _, c := range []struct {
		name   string
		age    time.Duration
		before string // sent before Drain
		after  string // sent after it
		sent   bool   // whether that is possible
	}{
		{"question in the socket", time.Hour, hello + authLine(1, "alice", "x"), "AUTH", false},
		{"connected just now", 0, "", hello + authLine(1, "alice", "x"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "auth"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			peer, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			nc, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conn := newConn(New(Config{}, accept, discard), nc, "test", discard)
			conn.since = time.Now().Add(-c.age)
			if _, err := io.WriteString(peer, c.before); err != nil {
				t.Fatal(err)
			}
			conn.Drain()
			go func() {
				conn.Serve()
				nc.Close()
			}()
			if _, err := io.WriteString(peer, c.after); (err == nil) != c.sent {
				t.Errorf("sending after Drain = %v, want it possible: %v", err, c.sent)
			}
			peer.SetReadDeadline(time.Now().Add(10 * time.Second))
			got, err := io.ReadAll(peer)
			if err != nil || !strings.Contains(string(got), "\nDONE\nOK\t1\tuser=alice") {
				t.Errorf("the peer read %q, %v, want the handshake, OK and the end", got, err)
			}
		})
	}
}
