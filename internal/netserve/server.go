// Package netserve is what every front end with a protocol of its own does alike: take connections from listeners, survive
// running out of descriptors, refuse what is too much, and stop without losing answers.
//
// It refuses to know any protocol and never reads or writes. The one rule a newcomer would break: nothing but the closing of
// the listener ends the accepting. A server that stopped listening because of one error of Accept would refuse all mail.
package netserve

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Conn is one connection as a front end serves it.
type Conn interface {
	// Serve runs the connection to its end. The server closes it afterwards. It must contain its own panics.
	Serve()
	// Drain makes the connection read nothing more, answer what is under way, and end. It is called at most once, from
	// another goroutine, maybe before Serve, and must return at once.
	Drain()
}

// Yielder is a [Conn] that may be asked for its place when there is none left.
type Yielder interface {
	Conn
	// Yield ends the connection and returns true, if nobody has logged in on it and nothing is under way for it; otherwise it does
	// nothing. It is called from another goroutine, maybe before Serve, often, and must return at once: of many connections each may be
	// asked before a newcomer is let in.
	Yield() bool
}

// Config says what a [Server] does with a connection.
type Config struct {
	Name         string // of the front end; begins its log lines
	Listener     string // passed to New; empty: network and address of the listener, "tcp:127.0.0.1:3389"
	Max          int    // connections over all listeners
	MaxPerSource int    // the same from one IPv4 address or IPv6 /64, not for Unix sockets; zero: no such limit
	Log          *slog.Logger

	// New makes the Conn of a connection that was let in. It must not block.
	New func(nc net.Conn, listener string) Conn
}

// Server serves any number of listeners. Make one with [New].
type Server struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when Shutdown begins
	idle   chan struct{} // closed when Shutdown has begun and the last connection is gone

	accepting sync.WaitGroup // calls of Serve; none is added once stopping

	mu          sync.Mutex
	stopping    bool // accept nothing more
	closing     bool // let nothing more in
	listeners   map[net.Listener]struct{}
	conns       map[Conn]*entry
	order       list.List // of *entry that are Yielders, the oldest first
	leaving     int       // of conns, those that gave way and are not gone yet: their places are taken
	sources     map[netip.Prefix]int
	counts      Counts
	lastRefusal time.Time
}

type entry struct {
	nc     net.Conn
	source netip.Prefix
	asked  Yielder       // nil: it never gives way
	place  *list.Element // in order; nil: not in it
}

// Counts are totals since the server was made, but for Open.
type Counts struct {
	Open     int   // connections now
	Accepted int64 // let in
	Refused  int64 // closed at once because there were too many
	Yielded  int64 // closed to make room for a newcomer
}

// New returns a Server that listens nowhere yet.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, done: make(chan struct{}), idle: make(chan struct{}),
		listeners: make(map[net.Listener]struct{}), conns: make(map[Conn]*entry), sources: make(map[netip.Prefix]int),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Context ends when [Server.Shutdown] has waited long enough, and when it is over.
func (s *Server) Context() context.Context { return s.ctx }

// Counts returns the counters.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Open = len(s.conns) - s.leaving
	return c
}

// Pauses after an Accept that failed, as it does when file descriptors run out.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
)

// refusalEvery is how often refused connections are worth a log line.
const refusalEvery = 10 * time.Second

// Serve takes connections from l until l is closed, which [Server.Shutdown] does, and closes it. Any other error of Accept is
// waited out. It returns nil after Shutdown, and otherwise an error that wraps [net.ErrClosed].
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.accepting.Add(1)
	s.mu.Unlock()
	defer s.accepting.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	name := s.cfg.Listener
	if name == "" {
		name = l.Addr().Network() + ":" + l.Addr().String()
	}
	pause := firstPause
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = firstPause
			s.Take(nc, name)
			continue
		case errors.Is(err, net.ErrClosed):
			select {
			case <-s.done:
				return nil
			default:
				return fmt.Errorf("accepting on %s: %w", name, err)
			}
		}
		// The process may be out of descriptors for long: it has to go on without a restart.
		s.cfg.Log.Error(s.cfg.Name+": cannot accept a connection", "listener", name, "err", err, "retry", pause)
		select {
		case <-s.done:
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// Take serves a connection that was accepted on the listener of that name, in a goroutine of its own, or closes it if there are
// too many and none of them gives way. Closing tells the peer at once; leaving it in the backlog would make it wait.
func (s *Server) Take(nc net.Conn, listener string) {
	source := sourceOf(Addr(nc))
	s.mu.Lock()
	open, same := len(s.conns)-s.leaving, s.sources[source]
	var tooMany, gaveWay bool
	switch {
	case s.closing:
	case s.cfg.MaxPerSource > 0 && source.IsValid() && same >= s.cfg.MaxPerSource:
		gaveWay = s.makeRoom(source)
		tooMany = !gaveWay
	case open >= s.cfg.Max:
		gaveWay = s.makeRoom(netip.Prefix{})
		tooMany = !gaveWay
	}
	tell := false
	if tooMany || gaveWay {
		if now := time.Now(); now.Sub(s.lastRefusal) >= refusalEvery {
			s.lastRefusal, tell = now, true
		}
	}
	if s.closing || tooMany {
		if tooMany {
			s.counts.Refused++
		}
		s.mu.Unlock()
		nc.Close()
	} else {
		s.letIn(nc, source, listener)
		s.mu.Unlock()
	}
	if tell {
		text := ": too many connections, closing new ones"
		if gaveWay {
			text = ": too many connections, closing the oldest that nobody has logged in on"
		}
		s.cfg.Log.Warn(s.cfg.Name+text, "listener", listener, "open", open, "source", source, "from_there", same)
	}
}

// letIn serves a connection. The caller holds mu.
func (s *Server) letIn(nc net.Conn, source netip.Prefix, listener string) {
	c := s.cfg.New(nc, listener)
	e := &entry{nc: nc, source: source}
	if y, ok := c.(Yielder); ok {
		e.asked, e.place = y, s.order.PushBack(e)
	}
	s.conns[c] = e
	s.sources[source]++
	s.counts.Accepted++
	go func() {
		defer s.remove(c)
		defer nc.Close()
		c.Serve()
	}()
}

// makeRoom makes the oldest connection of a source (the zero Prefix: of all) give way that can: whoever does nothing for long has had
// its turn. While all others are busy or logged in it returns false. The caller holds mu.
//
// Nobody but the one who holds all places pays for this walk, a look at each connection that is older.
func (s *Server) makeRoom(source netip.Prefix) bool {
	for at := s.order.Front(); at != nil; at = at.Next() {
		e := at.Value.(*entry)
		if source.IsValid() && e.source != source || !e.asked.Yield() {
			continue
		}
		s.forget(e)
		s.leaving++
		s.counts.Yielded++
		return true
	}
	return false
}

// forget gives the place of a connection back. The caller holds mu.
func (s *Server) forget(e *entry) {
	if e.place != nil {
		s.order.Remove(e.place)
		e.place = nil
	}
	if s.sources[e.source]--; s.sources[e.source] == 0 {
		delete(s.sources, e.source)
	}
}

// remove takes away a connection that is done.
func (s *Server) remove(c Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.conns[c]
	delete(s.conns, c)
	if e.asked != nil && e.place == nil {
		s.leaving--
	} else {
		s.forget(e)
	}
	if s.closing && len(s.conns) == 0 {
		close(s.idle)
	}
}

// Shutdown closes the listeners, drains the connections and waits for their end. When ctx is done first it ends
// [Server.Context], closes what is left and returns an error that wraps ctx's.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		close(s.done)
		for l := range s.listeners {
			l.Close()
		}
	}
	s.mu.Unlock()
	// What was accepted is let in: closed without a word, a peer could not tell that another server takes over.
	s.accepting.Wait()
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		for c := range s.conns {
			c.Drain()
		}
		if len(s.conns) == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()

	defer s.cancel()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) == 0 {
		return nil // both at once
	}
	for _, e := range s.conns {
		cutOff(e.nc)
	}
	return fmt.Errorf("%s: %d connections were cut off: %w", s.cfg.Name, len(s.conns), ctx.Err())
}

// cutOff closes without the farewell of TLS, which may block.
func cutOff(nc net.Conn) {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn()
	}
	nc.Close()
}

// Addr is the address of a TCP peer; that of any other is the zero Addr.
func Addr(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// sourceOf returns what connections are counted by: an IPv4 address or an IPv6 /64, which one host can have to itself. The zero
// Addr gives the zero Prefix.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}
