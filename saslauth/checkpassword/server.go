package checkpassword

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"

	"github.com/valetkey/valetkey/internal/netserve"
)

// Server answers helpers on any number of listeners. Make one with [New].
type Server struct {
	cfg  Config
	auth Authenticator
	dir  Directory
	log  *slog.Logger

	conns *netserve.Server

	lastID atomic.Uint32 // of a connection

	requests, passed, rejected, undecided, lookups atomic.Uint64
}

// Stats are counters since the server was made, but for Open.
type Stats struct {
	Open    int    // connections now
	Total   uint64 // connections taken
	Refused uint64 // connections closed at once because there were too many

	Requests  uint64 // well-formed requests, lookups included
	Accepted  uint64 // logins by outcome
	Rejected  uint64
	Undecided uint64
	Lookups   uint64 // requests without a password, refused ones included
}

// New returns a server that listens nowhere yet.
func New(cfg Config, a Authenticator, dir Directory, log *slog.Logger) *Server {
	s := &Server{
		cfg:  cfg.withDefaults(),
		auth: a,
		dir:  dir,
		log:  log,
	}
	s.conns = netserve.New(netserve.Config{
		Name: "checkpassword", Listener: cfg.Listener, Max: s.cfg.MaxConns, Log: log,
		New: func(nc net.Conn, listener string) netserve.Conn {
			return &conn{srv: s, nc: nc, listener: listener, log: log.With("listener", listener), id: s.lastID.Add(1)}
		},
	})
	s.lastID.Store(rand.Uint32()) // tells apart, in the log, several servers and what came before a restart
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
		Lookups:   s.lookups.Load(),
	}
}
