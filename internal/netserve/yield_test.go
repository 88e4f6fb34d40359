package netserve

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// modest is an echo that gives way as long as it is not kept.
type modest struct {
	echo
	kept  atomic.Bool
	asked atomic.Int64
}

func (m *modest) Yield() bool {
	m.asked.Add(1)
	if m.kept.Load() {
		return false
	}
	m.nc.Close()
	return true
}

// modestServer returns a server whose connections are given to made.
func modestServer(c Config, made func(*modest)) (*Server, *text) {
	c.New = func(nc net.Conn, _ string) Conn {
		m := &modest{echo: echo{nc: nc}}
		made(m)
		return m
	}
	return newServer(c)
}

// Who has every place and does nothing with it must not keep others out.
func TestOldestGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []*modest
		s, log := modestServer(Config{Max: 3, MaxPerSource: 2}, func(m *modest) { all = append(all, m) })
		l := serve(t, s)
		dial := func(addr string) net.Conn {
			nc := l.dial(addr)
			t.Cleanup(func() { nc.Close() })
			synctest.Wait()
			return nc
		}
		a, b, c := dial("192.0.2.1:1"), dial("192.0.2.2:1"), dial("192.0.2.2:2")
		all[0].kept.Store(true) // the oldest has logged in
		d := dial("192.0.2.3:1")
		for name, want := range map[string]struct {
			nc   net.Conn
			open bool
		}{"logged in": {a, true}, "oldest of the others": {b, false}, "younger": {c, true}, "newcomer": {d, true}} {
			if got := open(want.nc); got != want.open {
				t.Errorf("%s served: %v, want %v", name, got, want.open)
			}
		}
		if got, want := s.Counts(), (Counts{Open: 3, Accepted: 4, Yielded: 1}); got != want {
			t.Errorf("Counts = %+v, want %+v", got, want)
		}
		if n := strings.Count(log.String(), "closing the oldest that nobody has logged in on"); n != 1 {
			t.Errorf("%d log lines, want 1:\n%s", n, log)
		}
		for _, m := range all {
			m.kept.Store(true)
		}
		if e := dial("192.0.2.4:1"); open(e) {
			t.Error("a newcomer was let in although everybody has logged in")
		}
		if got, want := s.Counts(), (Counts{Open: 3, Accepted: 4, Yielded: 1, Refused: 1}); got != want {
			t.Errorf("Counts = %+v, want %+v", got, want)
		}
	})
}

// A source that has all that it may have makes room among its own: the others have nothing to do with it.
func TestSourceGivesWayToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := modestServer(Config{Max: 10, MaxPerSource: 2}, func(*modest) {})
		l := serve(t, s)
		var all []net.Conn
		for _, addr := range []string{"192.0.2.9:1", "192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"} {
			nc := l.dial(addr)
			defer nc.Close()
			synctest.Wait()
			all = append(all, nc)
		}
		for i, want := range []bool{true, false, true, true} {
			if got := open(all[i]); got != want {
				t.Errorf("connection %d served: %v, want %v", i, got, want)
			}
		}
		if got, want := s.Counts(), (Counts{Open: 3, Accepted: 4, Yielded: 1}); got != want {
			t.Errorf("Counts = %+v, want %+v", got, want)
		}
	})
}

// One that takes its time to go counts no more, and is still waited for.
func TestYieldedIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Server
		s, _ = newServer(Config{Max: 1, New: func(nc net.Conn, _ string) Conn {
			return &modest{echo: echo{nc: nc, stubborn: true, ctx: s.Context()}}
		}})
		l := newPipes()
		go s.Serve(l)
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"} {
			defer l.dial(addr).Close()
			synctest.Wait()
		}
		if got, want := s.Counts(), (Counts{Open: 1, Accepted: 3, Yielded: 2}); got != want {
			t.Errorf("Counts = %+v, want %+v", got, want)
		}
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Shutdown = %v before the connections had ended", err)
		default:
		}
		s.cancel()
		synctest.Wait()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v, want nil", err)
		}
		if got := s.Counts().Open; got != 0 {
			t.Errorf("%d open, want 0", got)
		}
	})
}
