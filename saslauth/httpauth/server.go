package httpauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Authenticator decides whether a login may pass. An error means undecided. It is called from many goroutines at once
// and must return soon after ctx is done: ctx ends when the decision takes too long, when the peer hangs up and when
// the server is stopped, and nothing else bounds the call.
type Authenticator interface {
	Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error)
}

// Directory reads the account of an accepted login for its userdb fields. An error that wraps [auth.ErrNoAccount] means
// that there is none; any other means that nothing is known, and makes the login undecided.
type Directory interface {
	Entry(ctx context.Context, login string) (auth.Account, error)
}

// Bounds of what a peer may send, in bytes.
const (
	// nginx forwards all headers of the web request, cookies among them, and takes four times 8 KiB itself.
	maxHeader = 48 * 1024
	// Dovecot takes passwords of 12 KiB, and each of their bytes may need three. A limit that a user can reach would be a
	// temporary failure at his command.
	maxBody = 48 * 1024
)

// writeTime is how long a peer may take to read an answer, which is small.
const writeTime = 10 * time.Second

// Server answers peers on any number of listeners. Make one with [New].
type Server struct {
	cfg   Config
	auth  Authenticator
	dir   Directory
	log   *slog.Logger
	http  *http.Server
	slots chan struct{} // one for each decision that runs

	done chan struct{} // closed when Shutdown begins
	once sync.Once

	mu    sync.Mutex
	conns int
	full  bool // a refusal was logged, and there was hardly any room since

	now                                      func() time.Time
	warnSecret, warnBusy, warnSetup, warnBad sparse

	total, refused, badSecret             atomic.Uint64
	requests, passed, rejected, undecided atomic.Uint64
}

// Stats are counters since the server was made, but for Open.
type Stats struct {
	Open    int    // connections now
	Total   uint64 // connections taken
	Refused uint64 // connections closed at once because there were too many

	Requests  uint64 // requests for one of the endpoints
	BadSecret uint64 // requests without the shared secret: a peer that is not set up, or not a peer
	Accepted  uint64 // logins by outcome; a request that never got as far as a decision is in none of the three
	Rejected  uint64
	Undecided uint64
}

// New returns a server that listens nowhere yet. dir may be nil: no userdb fields are returned then. An error means that
// the configuration cannot be served safely, for example because a shared secret is missing.
func New(cfg Config, a Authenticator, dir Directory, log *slog.Logger) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("http front end: %w", err)
	}
	s := &Server{
		cfg:   cfg,
		auth:  a,
		dir:   dir,
		log:   log,
		slots: make(chan struct{}, cfg.MaxRunning),
		done:  make(chan struct{}),
		now:   time.Now,
	}
	s.http = &http.Server{
		Handler:                      s,
		ReadTimeout:                  cfg.ReadTimeout,
		WriteTimeout:                 cfg.ReadTimeout + cfg.DecisionTimeout + writeTime, // it runs from the end of the header
		IdleTimeout:                  cfg.IdleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ConnContext:                  withPeer,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Serve takes connections from l until l is closed, which [Server.Shutdown] does. Running out of file descriptors is
// waited out. It returns nil after Shutdown, and otherwise the error of Accept. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	name := s.cfg.Listener
	if name == "" {
		name = l.Addr().Network() + ":" + l.Addr().String()
	}
	err := s.http.Serve(&listener{Listener: l, srv: s, name: name})
	select {
	case <-s.done:
		l.Close() // if it came after Shutdown
		return nil
	default:
		return fmt.Errorf("accepting on %s: %w", name, err)
	}
}

// Shutdown closes the listeners and idle connections, and lets the running decisions be answered. When ctx is done it
// cancels the decisions, closes what is left and returns the error of ctx. Only the first call does anything.
func (s *Server) Shutdown(ctx context.Context) error {
	var err error
	s.once.Do(func() {
		close(s.done)
		if err = s.http.Shutdown(ctx); err != nil {
			s.http.Close() // which ends the contexts of the decisions
			err = fmt.Errorf("stopping with %d connections open: %w", s.Stats().Open, err)
		}
	})
	return err
}

// Stats returns the counters for a status page. They are read one by one, so they may be off by what happens meanwhile.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := s.conns
	s.mu.Unlock()
	return Stats{
		Open:      open,
		Total:     s.total.Load(),
		Refused:   s.refused.Load(),
		Requests:  s.requests.Load(),
		BadSecret: s.badSecret.Load(),
		Accepted:  s.passed.Load(),
		Rejected:  s.rejected.Load(),
		Undecided: s.undecided.Load(),
	}
}

// listener bounds the connections and names itself to them.
type listener struct {
	net.Listener
	srv  *Server
	name string
}

// Accept returns the next connection that there is room for. The others are closed: that tells the peer at once.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.srv.take(l.name) {
			return &conn{Conn: nc, srv: l.srv, listener: l.name}, nil
		}
		nc.Close()
	}
}

func (s *Server) take(listener string) bool {
	s.mu.Lock()
	open := s.conns
	refuse := open >= s.cfg.MaxConns
	first := refuse && !s.full
	if refuse {
		s.full = true
	} else {
		s.conns++
		// Connections come and go at the limit; only a real lull makes the next refusal worth a line.
		s.full = s.full && open >= s.cfg.MaxConns-s.cfg.MaxConns/10
	}
	s.mu.Unlock()
	if !refuse {
		s.total.Add(1)
		return true
	}
	s.refused.Add(1)
	if first {
		s.log.Warn("http: too many connections, closing new ones", "listener", listener, "open", open)
	}
	return false
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	srv      *Server
	listener string
	closed   sync.Once
}

func (c *conn) Close() error {
	err := errors.New("closed twice")
	c.closed.Do(func() {
		c.srv.mu.Lock()
		c.srv.conns--
		c.srv.mu.Unlock()
		err = c.Conn.Close()
	})
	return err
}
