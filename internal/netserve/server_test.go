package netserve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// echo is a Conn that sends back what it reads; its last words after Drain are "bye".
type echo struct {
	nc       net.Conn
	stubborn bool // does not end when it is drained
	ctx      context.Context
}

func (e *echo) Serve() {
	if _, err := io.Copy(e.nc, e.nc); err != nil && e.stubborn {
		<-e.ctx.Done()
		return
	}
	e.nc.Write([]byte("bye"))
}

func (e *echo) Drain() { e.nc.SetReadDeadline(time.Unix(1, 0)) }

// pipes is a listener that hands out what is put into it: connections and errors.
type pipes struct {
	put    chan any
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{put: make(chan any), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case x := <-p.put:
		if err, ok := x.(error); ok {
			return nil, err
		}
		return x.(net.Conn), nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 389} }

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// dial returns our end of a connection from this address.
func (p *pipes) dial(addr string) net.Conn {
	near, far := net.Pipe()
	p.put <- from{far, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}
	return near
}

// open reports whether the server lets the connection live.
func open(nc net.Conn) bool {
	nc.SetDeadline(time.Now().Add(time.Second))
	defer nc.SetDeadline(time.Time{})
	go nc.Write([]byte("x"))
	_, err := nc.Read(make([]byte, 1))
	return err == nil
}

// text is a log that may be read while it is written.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

func newServer(c Config) (*Server, *text) {
	log := new(text)
	c.Name = "test"
	if c.Max == 0 {
		c.Max = 100
	}
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	if c.New == nil {
		c.New = func(nc net.Conn, _ string) Conn { return &echo{nc: nc} }
	}
	return New(c), log
}

// serve runs s on a listener until the bubble's end.
func serve(t *testing.T, s *Server) *pipes {
	t.Helper()
	l := newPipes()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown = %v, want nil", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil after Shutdown", err)
		}
	})
	return l
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newServer(Config{Max: 5, MaxPerSource: 2})
		l := serve(t, s)
		var all []net.Conn
		for _, tc := range []struct {
			addr string
			want bool
		}{
			{"192.0.2.1:1", true},
			{"192.0.2.1:2", true},
			{"192.0.2.1:3", false},
			{"[::ffff:192.0.2.1]:4", false}, // the same address
			{"[2001:db8::1]:1", true},
			{"[2001:db8::2]:1", true},
			{"[2001:db8::3]:1", false}, // the same /64
			{"[2001:db8:0:1::1]:1", true},
			{"192.0.2.9:1", false}, // the sixth in all
		} {
			nc := l.dial(tc.addr)
			defer nc.Close()
			if got := open(nc); got != tc.want {
				t.Errorf("connection from %s served: %v, want %v", tc.addr, got, tc.want)
			}
			all = append(all, nc)
		}
		all[0].Close()
		synctest.Wait()
		again := l.dial("192.0.2.1:5")
		defer again.Close()
		if !open(again) {
			t.Error("the place of a connection that ended is not free")
		}
		synctest.Wait()
		if got, want := s.Counts(), (Counts{Open: 5, Accepted: 6, Refused: 4}); got != want {
			t.Errorf("Counts = %+v, want %+v", got, want)
		}
		if n := strings.Count(log.String(), "too many connections"); n != 1 {
			t.Errorf("%d log lines about refusals, want 1:\n%s", n, log)
		}
		time.Sleep(refusalEvery)
		more := l.dial("192.0.2.1:6")
		defer more.Close()
		open(more)
		synctest.Wait()
		if n := strings.Count(log.String(), "too many connections"); n != 2 {
			t.Errorf("%d log lines about refusals, want a second one later:\n%s", n, log)
		}
	})
}

// A mail server's many processes are one source only if they come over TCP.
func TestUnixSocketsHaveNoSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(Config{MaxPerSource: 1})
		l := serve(t, s)
		for range 3 {
			near, far := net.Pipe() // no TCP address
			defer near.Close()
			l.put <- far
			if !open(near) {
				t.Fatal("a connection without an address was refused")
			}
		}
	})
}

func TestAcceptFailureIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newServer(Config{})
		l := serve(t, s)
		start := time.Now()
		for range 12 {
			l.put <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		nc := l.dial("192.0.2.1:1")
		defer nc.Close()
		if !open(nc) {
			t.Error("no service after the failures")
		}
		if took := time.Since(start); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("12 failures took %v, want pauses of 5 ms doubling up to 1 s", took)
		}
		if !strings.Contains(log.String(), "cannot accept") {
			t.Errorf("log = %q, want it to tell", log)
		}
		l.put <- errors.New("whatever") // and Shutdown does not wait for the pause
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(Config{})
		l := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		nc := l.dial("192.0.2.1:1")
		if !open(nc) {
			t.Fatal("no service")
		}
		last := make(chan string, 1)
		go func() { text, _ := io.ReadAll(nc); last <- string(text) }()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown = %v, want nil", err)
		}
		if got := <-last; got != "bye" {
			t.Errorf("the client's last words = %q, want those of a drained connection", got)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown again = %v, want nil", err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			if err := s.Shutdown(over); err != nil {
				t.Fatalf("Shutdown with nothing left and no time = %v, want nil", err)
			}
		}
		if err := s.Serve(newPipes()); err != nil {
			t.Errorf("Serve after Shutdown = %v, want nil at once", err)
		}
		if s.Context().Err() == nil {
			t.Error("Context lives on after Shutdown")
		}
	})
}

func TestShutdownCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Server
		s, _ = newServer(Config{New: func(nc net.Conn, _ string) Conn { return &echo{nc: nc, stubborn: true, ctx: s.Context()} }})
		l := newPipes()
		go s.Serve(l)
		nc := l.dial("192.0.2.1:1")
		if !open(nc) {
			t.Fatal("no service")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 connections") {
			t.Errorf("Shutdown = %v, want the deadline and one connection cut off", err)
		}
		if text, err := io.ReadAll(nc); err != nil || len(text) != 0 {
			t.Errorf("the client reads %q, %v, want the end", text, err)
		}
		synctest.Wait()
		if n := s.Counts().Open; n != 0 {
			t.Errorf("%d connections open, want 0", n)
		}
	})
}

func TestListenerClosedByOthers(t *testing.T) {
	s, _ := newServer(Config{})
	l := newPipes()
	l.Close()
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want net.ErrClosed", err)
	}
}

func TestListenerName(t *testing.T) {
	for _, tc := range []struct{ given, want string }{{"", "tcp:127.0.0.1:389"}, {"mail", "mail"}} {
		synctest.Test(t, func(t *testing.T) {
			names := make(chan string, 1)
			s, _ := newServer(Config{Listener: tc.given, New: func(nc net.Conn, listener string) Conn {
				names <- listener
				return &echo{nc: nc}
			}})
			l := serve(t, s)
			defer l.dial("192.0.2.1:1").Close()
			if got := <-names; got != tc.want {
				t.Errorf("listener = %q, want %q", got, tc.want)
			}
		})
	}
}

// latecomer is a listener that has accepted a connection when it is closed.
type latecomer struct {
	*pipes
	late net.Conn
	once sync.Once
}

func (l *latecomer) Accept() (nc net.Conn, err error) {
	<-l.closed
	err = net.ErrClosed
	l.once.Do(func() { nc, err = l.late, nil })
	return nc, err
}

// What was accepted while Shutdown closed the listener is served: a peer that is hung up on takes us for dead.
func TestAcceptedDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(Config{})
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- s.Serve(&latecomer{pipes: newPipes(), late: far}) }()
		synctest.Wait()
		last := make(chan string, 1)
		go func() { text, _ := io.ReadAll(near); last <- string(text) }()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown = %v, want nil", err)
		}
		if got := <-last; got != "bye" {
			t.Errorf("the client's last words = %q, want those of a drained connection", got)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
}
