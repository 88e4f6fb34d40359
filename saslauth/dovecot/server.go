package dovecot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
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

	conns *netserve.Server

	cuid         atomic.Uint32
	extraRunning atomic.Int64

	requests, passed, rejected, undecided atomic.Uint64
}

// Stats are counters since the server was made, but for Open.
type Stats struct {
	Open    int    // connections now
	Total   uint64 // connections taken
	Refused uint64 // connections closed at once because there were too many
	Yielded uint64 // connections without a handshake that were closed to make room for others

	Requests  uint64 // AUTH commands with a usable id
	Accepted  uint64 // decisions by outcome; a request that never got as far as a decision is in none of the three
	Rejected  uint64
	Undecided uint64
}

// New returns a server that listens nowhere yet.
func New(cfg Config, a Authenticator, log *slog.Logger) *Server {
	s := &Server{cfg: cfg.withDefaults(), auth: a, log: log}
	s.conns = netserve.New(netserve.Config{
		Name: "dovecot", Listener: cfg.Listener, Max: s.cfg.MaxConns, MaxPerSource: s.cfg.MaxPerSource, Log: log,
		New: func(nc net.Conn, listener string) netserve.Conn {
			return newConn(s, nc, listener, log.With("listener", listener))
		},
	})
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
		Yielded:   uint64(conns.Yielded),
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
