package httpauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
)

// peer is the other end of a connection: a mail server or a web server, never the user.
type peer struct {
	listener string
	addr     netip.Addr // zero for a Unix socket
	unix     bool
}

func (p peer) String() string {
	if p.unix {
		return "unix"
	}
	return p.addr.String()
}

type peerKey struct{}

// withPeer is the ConnContext of the HTTP server.
func withPeer(ctx context.Context, nc net.Conn) context.Context {
	var p peer
	if c, ok := nc.(*conn); ok {
		p.listener = c.listener
	}
	switch a := nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		p.addr = a.AddrPort().Addr().Unmap().WithZone("")
	case *net.UnixAddr:
		p.unix = true
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(r *http.Request) peer {
	p, _ := r.Context().Value(peerKey{}).(peer)
	return p
}

// ServeHTTP finds the endpoint. There is no redirect and no cleaning of paths: a peer has the exact path in its
// configuration.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.recover()
	path := r.URL.Path
	service, inBasic := strings.CutPrefix(path, "/basic/")
	switch {
	case path == "/dovecot/grant" && s.cfg.Grant != nil:
		if allow(w, r, http.MethodPost) {
			s.grant(w, r)
		}
	case path == "/nginx/mail" && s.cfg.Mail != nil:
		if allow(w, r, http.MethodGet) {
			s.mail(w, r)
		}
	case path == "/basic" && s.cfg.Basic != nil:
		if allow(w, r, http.MethodGet, http.MethodHead) {
			s.basic(w, r, s.cfg.Basic.Service)
		}
	case inBasic && s.cfg.Basic != nil:
		service, err := auth.NormaliseService(service)
		if err != nil {
			plain(w, r, http.StatusNotFound)
			return
		}
		if allow(w, r, http.MethodGet, http.MethodHead) {
			s.basic(w, r, service)
		}
	default:
		plain(w, r, http.StatusNotFound)
	}
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	plain(w, r, http.StatusMethodNotAllowed)
	return false
}

// plain answers with a status and its name.
func plain(w http.ResponseWriter, r *http.Request, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	empty(w, r, status)
	w.Write([]byte(http.StatusText(status) + "\n"))
}

// empty answers with a status and the headers that are set. nginx's auth_request reads no body, and can use the connection
// again only if there is none.
func empty(w http.ResponseWriter, r *http.Request, status int) {
	if r.Method != http.MethodPost && r.ContentLength != 0 {
		// A web server may pass on the Content-Length of the user's request and not its body: do not wait for it.
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

// recover closes the connection after a panic, which every peer takes for a temporary failure.
func (s *Server) recover() {
	if v := recover(); v != nil {
		s.logPanic(v)
		panic(http.ErrAbortHandler) // which net/http does not log
	}
}

// logPanic logs a panic without its value, which may quote a request, unless it is the runtime's own. The stack holds
// addresses, not contents.
func (s *Server) logPanic(v any) {
	s.log.Error("http: panic", "panic", netserve.PanicText(v), "stack", string(debug.Stack()))
}

// errPanic is what a decision that panicked is taken for.
var errPanic = errors.New("the decision panicked")

// outcome is what a login came to, if it was decided.
type outcome struct {
	auth.Decision
	userdb map[string]string
}

// decide has a login decided within the time there is. It fills in what all endpoints have in common. An error means
// undecided. An empty login or password is no attempt: it is rejected without being counted anywhere.
func (s *Server) decide(r *http.Request, req auth.Request, userdb bool) (o outcome, err error) {
	if req.Login == "" || req.Password == "" {
		s.log.Debug("http: rejected: empty login or password")
		return outcome{}, nil
	}
	req.FrontEnd = "http"
	req.Listener = peerOf(r).listener
	req.Session = newSession()

	defer func() {
		if v := recover(); v != nil {
			s.logPanic(v)
			o, err = outcome{}, errPanic
		}
		switch {
		case err != nil:
			s.undecided.Add(1)
		case o.OK:
			s.passed.Add(1)
		default:
			s.rejected.Add(1)
		}
	}()

	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.warn(&s.warnBusy, "http: too many logins at a time", "running", cap(s.slots))
		return outcome{}, auth.ErrOverloaded
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.DecisionTimeout)
	defer cancel()
	d, err := s.auth.Authenticate(ctx, req)
	if err != nil || !d.OK {
		return outcome{}, err
	}
	if d.Login == "" {
		// Peers take the name from here; an empty one would be somebody.
		s.log.Error("http: accepted without a login, taken as undecided", "session", req.Session)
		return outcome{}, errors.New("accepted without a login")
	}
	o.Decision = d
	if !userdb || s.dir == nil {
		return o, nil
	}
	account, err := s.dir.Entry(ctx, d.Login)
	switch {
	case errors.Is(err, auth.ErrNoAccount):
		s.log.Info("http: rejected: the account went while it logged in", "session", req.Session)
		return outcome{}, nil
	case err != nil:
		s.log.Warn("http: undecided: cannot read the userdb fields", "session", req.Session, "error", err)
		return outcome{}, err
	}
	o.userdb = account.Userdb
	return o, nil
}

// newSession is something to find the attempt by in the log: these peers have no session id, or do not tell it.
func newSession() string {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// sameSecret compares without telling by its time where the two differ, or their lengths.
func sameSecret(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// headerSecret reports whether the request carries the secret, once.
func headerSecret(r *http.Request, name, secret string) bool {
	got, ok := single(r, name)
	return sameSecret(got, secret) && ok
}

// refuseSecret notes a request without the shared secret. It is a fault of the configuration, not of a user.
func (s *Server) refuseSecret(r *http.Request, remedy string) {
	s.badSecret.Add(1)
	s.warn(&s.warnSecret, "http: refused a peer without the shared secret", "path", r.URL.Path, "peer", peerOf(r).String(), "remedy", remedy)
}

// bad notes a request that breaks the protocol. why is ours, never the peer's.
func (s *Server) bad(r *http.Request, why string) {
	s.warn(&s.warnBad, "http: bad request", "path", r.URL.Path, "peer", peerOf(r).String(), "why", why)
}

// single returns the value of a header that may stand in a request once at most. ok is false if it is there more often:
// peers differ in which one they would take.
func single(r *http.Request, name string) (value string, ok bool) {
	values := r.Header.Values(name)
	switch len(values) {
	case 0:
		return "", true
	case 1:
		return values[0], true
	}
	return "", false
}

// sparse lets one line pass in each [sparseEvery], so that whoever can reach the listener cannot fill the log.
type sparse struct {
	mu   sync.Mutex
	next time.Time
	left uint64 // lines left out since
}

const sparseEvery = 10 * time.Second

func (p *sparse) pass(now time.Time) (left uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.next) {
		p.left++
		return 0, false
	}
	left, p.left, p.next = p.left, 0, now.Add(sparseEvery)
	return left, true
}

func (s *Server) warn(p *sparse, msg string, args ...any) {
	left, ok := p.pass(s.now())
	if !ok {
		return
	}
	if left > 0 {
		args = append(args, slog.Uint64("left_out", left))
	}
	s.log.Warn(msg, args...)
}
