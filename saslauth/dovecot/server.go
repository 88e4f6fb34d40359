package dovecot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
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

// maxExtraRunning bounds, over all connections, the decisions beyond the first of each connection. Every connection
// has one goroutine for its first decision, so none can starve another.
const maxExtraRunning = 4096

// Server answers peers on any number of listeners. Make one with [New].
type Server struct {
	cfg  Config
	auth Authenticator
	log  *slog.Logger

	ctx    context.Context // of every decision; ends when Shutdown gives up waiting
	cancel context.CancelFunc
	done   chan struct{} // closed when Shutdown begins
	idle   chan struct{} // closed when Shutdown has begun and the last connection is gone

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	full      bool // a refusal was logged, and there was hardly any room since

	cuid         atomic.Uint32
	extraRunning atomic.Int64

	accepted, refused                     atomic.Uint64
	requests, passed, rejected, undecided atomic.Uint64
}

// Stats are counters since the server was made, but for Open.
type Stats struct {
	Open    int    // connections now
	Total   uint64 // connections taken
	Refused uint64 // connections closed at once because there were too many

	Requests  uint64 // AUTH commands with a usable id
	Accepted  uint64 // decisions by outcome; a request that never got as far as a decision is in none of the three
	Rejected  uint64
	Undecided uint64
}

// New returns a server that listens nowhere yet.
func New(cfg Config, a Authenticator, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		cfg:       cfg.withDefaults(),
		auth:      a,
		log:       log,
		ctx:       ctx,
		cancel:    cancel,
		done:      make(chan struct{}),
		idle:      make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}
}

// Serve takes connections from l until l is closed, which [Server.Shutdown] does. Any other error of Accept, such as
// running out of file descriptors, is waited out. It returns nil after Shutdown, and otherwise an error that wraps
// [net.ErrClosed]. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	name := s.cfg.Listener
	if name == "" {
		name = l.Addr().Network() + ":" + l.Addr().String()
	}
	log := s.log.With("listener", name)

	const firstWait, longestWait = 5 * time.Millisecond, time.Second
	wait := firstWait
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			wait = firstWait
			s.start(nc, name, log)
		case errors.Is(err, net.ErrClosed):
			select {
			case <-s.done:
				return nil
			default:
				return fmt.Errorf("accepting on %s: %w", name, err)
			}
		default:
			// The process may be out of descriptors for long: mail has to flow again without a restart.
			log.Error("dovecot: cannot accept a connection", "error", err, "retry", wait)
			select {
			case <-s.done:
				return nil
			case <-time.After(wait):
			}
			wait = min(2*wait, longestWait)
		}
	}
}

// start takes over an accepted connection, or closes it if there are too many.
func (s *Server) start(nc net.Conn, listener string, log *slog.Logger) {
	c := newConn(s, nc, listener, log)
	s.mu.Lock()
	open := len(s.conns)
	refuse := s.closing || open >= s.cfg.MaxConns
	first := refuse && !s.closing && !s.full
	if refuse {
		s.full = s.full || first
	} else {
		s.conns[c] = struct{}{}
		// Connections come and go at the limit; only a real lull makes the next refusal worth a line.
		s.full = s.full && open >= s.cfg.MaxConns-s.cfg.MaxConns/10
	}
	s.mu.Unlock()

	if refuse {
		// Closing tells the peer at once; leaving it in the backlog would make it wait for a handshake.
		c.cancel()
		nc.Close()
		s.refused.Add(1)
		if first {
			log.Warn("dovecot: too many connections, closing new ones", "open", open)
		}
		return
	}
	s.accepted.Add(1)
	go c.serve()
}

// remove forgets a connection that is done.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.closing && len(s.conns) == 0 {
		close(s.idle)
	}
}

// Shutdown closes the listeners, reads nothing more, lets the running decisions be answered, and closes each
// connection after that. When ctx is done it cancels the decisions, closes what is left and returns the error of ctx.
// Only the first call does anything.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	close(s.done)
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.drain()
	}
	if len(s.conns) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()

	defer s.cancel()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	open := len(s.conns)
	for c := range s.conns {
		c.nc.Close()
	}
	s.mu.Unlock()
	return fmt.Errorf("stopping with %d connections open: %w", open, ctx.Err())
}

// Stats returns the counters for a status page. They are read one by one, so they may be off by what happens meanwhile.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	return Stats{
		Open:      open,
		Total:     s.accepted.Load(),
		Refused:   s.refused.Load(),
		Requests:  s.requests.Load(),
		Accepted:  s.passed.Load(),
		Rejected:  s.rejected.Load(),
		Undecided: s.undecided.Load(),
	}
}

// serverPID is what login processes compare with the SPID of the master socket.
var serverPID = os.Getpid()

// appendHandshake appends all that the server says before it has read a byte: Exim and Radicale send nothing until they
// saw DONE, Radicale reads 1024 bytes at most, and Postfix wants a MECH before SPID.
func (s *Server) appendHandshake(dst []byte, cuid uint32) []byte {
	dst = append(dst, "VERSION\t1\t2\n"+
		"MECH\tPLAIN\tplaintext\n"+
		"MECH\tLOGIN\tplaintext\n"+
		"SPID\t"...)
	dst = strconv.AppendInt(dst, int64(serverPID), 10)
	dst = append(dst, "\nCUID\t"...)
	dst = strconv.AppendUint(dst, uint64(cuid), 10)
	dst = append(dst, "\nCOOKIE\t"...)
	var cookie [16]byte
	rand.Read(cookie[:]) // never fails (crypto/rand)
	dst = hex.AppendEncode(dst, cookie[:])
	return append(dst, "\nDONE\n"...)
}
