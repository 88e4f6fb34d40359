package ldapbridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Server answers LDAP on any number of listeners. It is safe for concurrent use.
//
// LDAP carries no address of the user: what a login request calls the address is the TCP peer's, which is the application's
// unless devices ask directly. Whoever throttles by address must know that a mail server with all its users looks like one
// client (reference/security.md section 4.3). On a Unix socket there is no address.
type Server struct {
	cfg  Config
	auth Authenticator
	dir  Directory
	log  *slog.Logger

	people     *dn // parent of the accounts
	rdnType    *attributeType
	root       *entry
	containers []*entry // from the parent of the accounts up to the suffix

	ctx      context.Context // ends when Shutdown loses patience
	cancel   context.CancelFunc
	draining atomic.Bool
	done     chan struct{} // closed when draining begins

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]netip.Prefix
	sources   map[netip.Prefix]int
	idle      *sync.Cond // signalled when conns shrinks; its lock is mu

	session     atomic.Uint32
	lastRefusal atomic.Int64 // Unix seconds of the last log line about refused connections
	stats       counters
}

// New returns a Server that does not listen yet. An error is a fault of the configuration.
func New(cfg Config, a Authenticator, dir Directory, log *slog.Logger) (*Server, error) {
	if err := cfg.Limits.setDefaults(); err != nil {
		return nil, fmt.Errorf("ldap: %w", err)
	}
	if cfg.Service == "" {
		cfg.Service = "ldap"
	}
	if cfg.People == "" {
		cfg.People = "ou=people"
	}
	if cfg.RDNAttribute == "" {
		cfg.RDNAttribute = "uid"
	}
	if _, err := auth.NormaliseService(cfg.Service); err != nil {
		return nil, fmt.Errorf("ldap: service %q: %w", cfg.Service, err)
	}
	base, err := parseDN(cfg.BaseDN, &cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("ldap: base DN %q: %w", cfg.BaseDN, err)
	}
	if base.rdns() == 0 {
		return nil, errors.New("ldap: base DN is empty")
	}
	people, err := parseDN(cfg.People+","+base.String(), &cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("ldap: parent of the accounts %q: %w", cfg.People, err)
	}
	if people.rdns() == cfg.Limits.RDNs {
		return nil, fmt.Errorf("ldap: parent of the accounts %q: no room for an RDN below it", people)
	}
	rdnType := lookupType([]byte(cfg.RDNAttribute))
	if rdnType == nil || rdnType.operational || rdnType.rule != caseIgnore || rdnType == typeObjectClass {
		return nil, fmt.Errorf("ldap: RDN attribute %q: not a known text attribute", cfg.RDNAttribute)
	}
	s := &Server{
		cfg: cfg, auth: a, dir: dir, log: log,
		people: people, rdnType: rdnType, root: rootDSE(base.String()),
		done:      make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]netip.Prefix),
		sources:   make(map[netip.Prefix]int),
	}
	s.idle = sync.NewCond(&s.mu)
	s.session.Store(rand.Uint32())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := 0; i <= people.rdns()-base.rdns(); i++ {
		s.containers = append(s.containers, containerEntry(people.above(i)))
	}
	return s, nil
}

func (s *Server) nextSession() string { return fmt.Sprintf("%08x", s.session.Add(1)) }

// Pauses after an Accept that failed, as it does when file descriptors run out.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
)

// Serve accepts connections until the listener is closed or [Server.Shutdown] is called, and closes the listener. Every other
// failure to accept is waited out. After Shutdown the error is nil.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		return nil
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
	}()
	name := s.cfg.Listener
	if name == "" {
		name = ln.Addr().Network() + ":" + ln.Addr().String()
	}
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			s.start(nc, name)
			continue
		case s.draining.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting on %s: %w", name, err)
		}
		if pause = min(max(2*pause, firstPause), longestPause); pause == longestPause {
			s.log.Warn("ldap: connections cannot be accepted", "listener", name, "err", err)
		}
		select {
		case <-time.After(pause):
		case <-s.done:
			return nil
		}
	}
}

// start serves the connection in its own goroutine, or closes it if there are too many.
func (s *Server) start(nc net.Conn, listener string) {
	c := newConn(s, nc, listener)
	if !s.register(c) {
		nc.Close()
		return
	}
	go func() {
		defer s.unregister(c)
		defer nc.Close()
		c.serve()
	}()
}

// source returns what connections are counted by: an IPv4 address or an IPv6 /64, which one host can have to itself. The zero
// Prefix is not counted.
func source(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.WithZone("").Prefix(bits) // the zero Addr gives the zero Prefix
	return p
}

func (s *Server) register(c *conn) bool {
	src := source(c.addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	total, same := len(s.conns), s.sources[src]
	if total >= s.cfg.Limits.Connections || src.IsValid() && same >= s.cfg.Limits.ConnectionsPerSource {
		s.stats.refused.Add(1)
		const every = 10 // seconds
		now := time.Now().Unix()
		if last := s.lastRefusal.Load(); now-last >= every && s.lastRefusal.CompareAndSwap(last, now) {
			s.log.Warn("ldap: too many connections, some are refused", "rip", src, "from_there", same, "total", total)
		}
		return false
	}
	s.stats.accepted.Add(1)
	s.conns[c] = src
	if src.IsValid() {
		s.sources[src]++
	}
	return true
}

func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.conns[c]
	delete(s.conns, c)
	if src.IsValid() {
		if s.sources[src]--; s.sources[src] == 0 {
			delete(s.sources, src)
		}
	}
	s.idle.Broadcast()
}

// Shutdown stops accepting, lets every operation that is under way finish, sends each client a Notice of Disconnection and
// closes. When the context ends first, the operations are cancelled, the connections closed, and its error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.draining.CompareAndSwap(false, true) {
		close(s.done)
	}
	for ln := range s.listeners {
		ln.Close()
	}
	for c := range s.conns {
		c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes those that wait for a request
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.idle.Broadcast()
	})
	defer stop()
	defer s.cancel()

	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) > 0 {
		if ctx.Err() != nil {
			s.cancel()
			for c := range s.conns {
				cutOff(c.nc)
			}
			return fmt.Errorf("ldap: %d connections were cut off: %w", len(s.conns), ctx.Err())
		}
		s.idle.Wait()
	}
	return nil
}

// cutOff closes without the farewell of TLS, which may block.
func cutOff(nc net.Conn) {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn()
	}
	nc.Close()
}

// Stats are counts since the start, but for Connections, which is now.
type Stats struct {
	Connections int   `json:"connections"`
	Accepted    int64 `json:"accepted"`
	Refused     int64 `json:"refused"` // too many
	Requests    int64 `json:"requests"`
	Broken      int64 `json:"broken"` // ended by a notice of disconnection because of an undecodable PDU
	Panics      int64 `json:"panics"`

	BindsAccepted  int64 `json:"binds_accepted"` // anonymous ones too
	BindsRejected  int64 `json:"binds_rejected"` // result code 49
	BindsUndecided int64 `json:"binds_undecided"`
	BindsRefused   int64 `json:"binds_refused"` // not attempts at all: no password, other method, no TLS
	Undecided      int64 `json:"undecided"`     // searches and compares that found the directory broken
}

type counters struct {
	accepted, refused, requests, broken, panics    atomic.Int64
	bindOK, bindRejected, bindUndecided, bindOther atomic.Int64
	undecided                                      atomic.Int64
}

func (n *counters) countBind(code resultCode) {
	switch code {
	case success:
		n.bindOK.Add(1)
	case invalidCredentials:
		n.bindRejected.Add(1)
	case other:
		n.bindUndecided.Add(1)
	default:
		n.bindOther.Add(1)
	}
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	n := &s.stats
	return Stats{
		Connections: open, Accepted: n.accepted.Load(), Refused: n.refused.Load(), Requests: n.requests.Load(),
		Broken: n.broken.Load(), Panics: n.panics.Load(),
		BindsAccepted: n.bindOK.Load(), BindsRejected: n.bindRejected.Load(), BindsUndecided: n.bindUndecided.Load(),
		BindsRefused: n.bindOther.Load(), Undecided: n.undecided.Load(),
	}
}
