package saslauthd

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
)

// Authenticator decides whether a login may pass. An error means undecided. It is called from many goroutines at once
// and must return soon after ctx is done: ctx ends when the decision takes too long and when the server is stopped, and
// nothing else bounds the call.
type Authenticator interface {
	Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error)
}

// Server answers peers on any number of listeners. Make one with [New].
type Server struct {
	cfg     Config
	auth    Authenticator
	log     *slog.Logger
	buffers sync.Pool     // of *[]byte, zeroed
	linger  time.Duration // lingerTimeout, but for tests over real sockets

	conns *netserve.Server

	session atomic.Uint32 // of the last connection

	requests, passed, rejected, undecided atomic.Uint64
}

// Stats are counters since the server was made, but for Open.
type Stats struct {
	Open    int    // connections now
	Total   uint64 // connections taken
	Refused uint64 // connections closed at once because there were too many

	Requests  uint64 // requests that arrived, also those that were answered with NO before anybody was asked
	Accepted  uint64 // decisions by outcome; a request that never got as far as a decision is in none of the three
	Rejected  uint64
	Undecided uint64
}

// New returns a server that listens nowhere yet.
func New(cfg Config, a Authenticator, log *slog.Logger) *Server {
	s := &Server{
		cfg:    cfg.withDefaults(),
		auth:   a,
		log:    log,
		linger: lingerTimeout,
	}
	s.conns = netserve.New(netserve.Config{
		Name: "saslauthd", Listener: cfg.Listener, Max: s.cfg.MaxConns, Log: log,
		New: func(nc net.Conn, listener string) netserve.Conn {
			return &conn{srv: s, nc: nc, listener: listener, log: log.With("listener", listener), id: s.session.Add(1)}
		},
	})
	size := s.cfg.bufferSize()
	s.buffers.New = func() any {
		b := make([]byte, size)
		return &b
	}
	s.session.Store(rand.Uint32()) // tells apart, in the log, several servers and what came before a restart
	return s
}

// Serve takes connections from l until l is closed, which [Server.Shutdown] does. Any other error of Accept, such as
// running out of file descriptors, is waited out. It returns nil after Shutdown, and otherwise an error that wraps
// [net.ErrClosed]. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error { return s.conns.Serve(l) }

// Shutdown closes the listeners, reads nothing more, lets the running decisions be answered, and closes each
// connection after that. When ctx is done it cancels the decisions, closes what is left and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Shutdown(ctx) }

// Stats returns the counters for a status page. They are read one by one, so they may be off by what happens meanwhile.
func (s *Server) Stats() Stats {
	conns := s.conns.Counts()
	return Stats{
		Open:      conns.Open,
		Total:     uint64(conns.Accepted),
		Refused:   uint64(conns.Refused),
		Requests:  s.requests.Load(),
		Accepted:  s.passed.Load(),
		Rejected:  s.rejected.Load(),
		Undecided: s.undecided.Load(),
	}
}
