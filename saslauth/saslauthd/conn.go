package saslauthd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
)

// The only replies. A reason would help who guesses, and no peer shows it to its user.
const (
	replyOK = "\x00\x02OK"
	replyNO = "\x00\x02NO"
)

// After the reply the server reads on until the peer hangs up, as saslauthd does: closed with bytes unread, the peer
// could find its connection reset, or die of SIGPIPE, before it has seen the reply. Both limits are for peers that
// break the protocol; an honest one has nothing left to send.
const (
	lingerTimeout = time.Second
	lingerBytes   = 5 * (countSize + 0xFFFF) // as many fields as there are, of the greatest length
)

// conn is one connection of a peer: one request, one decision, one reply, all on one goroutine.
//
// A peer that hangs up while the decision runs is not noticed, because one that has ended only its own side still wants
// the reply. The decision is bounded by its time-out.
type conn struct {
	srv      *Server
	nc       net.Conn
	listener string
	log      *slog.Logger
	id       uint32

	mu       sync.Mutex
	draining bool // read nothing more
}

// Serve implements [netserve.Conn].
func (c *conn) Serve() {
	defer c.recover()
	buf := c.srv.buffers.Get().(*[]byte)
	defer func() {
		clear(*buf) // it held a password
		c.srv.buffers.Put(buf)
	}()

	req, err := c.read(*buf)
	var reply string
	switch {
	case err == nil:
		c.srv.requests.Add(1)
		reply = c.decide(req)
	case errors.As(err, new(refusal)):
		c.srv.requests.Add(1)
		c.log.Info("saslauthd: refusing a request: "+err.Error(), c.attrs()...)
		reply = replyNO
	default:
		c.lost(err)
		return
	}
	if c.reply(reply) {
		c.linger(*buf)
	}
}

// attrs adds what every log line of the connection carries.
func (c *conn) attrs(more ...any) []any { return append(more, "session", c.session()) }

// session is the id of the connection in the log.
func (c *conn) session() string { return strconv.FormatUint(uint64(c.id), 16) }

// recover closes the connection after a panic, which the peer takes for undecided. The value of a panic may quote a
// request, so only the runtime's own errors are logged in full. The stack holds addresses, not contents.
func (c *conn) recover() {
	v := recover()
	if v == nil {
		return
	}
	c.log.Error("saslauthd: closing connection: panic", c.attrs("panic", netserve.PanicText(v), "stack", string(debug.Stack()))...)
}

// Drain implements [netserve.Conn]: it makes the reading end; a decision that runs is still answered.
func (c *conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// readFor bounds the reading that follows, unless Drain has ended it already.
func (c *conn) readFor(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.draining {
		c.nc.SetReadDeadline(time.Now().Add(d))
	}
}

func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// read returns the request, a refusal, or what kept the request from arriving.
func (c *conn) read(buf []byte) (auth.Request, error) {
	c.readFor(c.srv.cfg.RequestTimeout)
	for end := 0; ; {
		n, err := c.nc.Read(buf[end:])
		end += n
		if n == 0 && err != nil {
			if end > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return auth.Request{}, err
		}
		f, whole, err := scan(buf[:end], c.srv.cfg.MaxField, c.srv.cfg.MaxRequest)
		if err == nil && whole {
			err = f.check()
		}
		if err != nil {
			return auth.Request{}, err
		}
		if whole {
			return c.request(&f), nil
		}
	}
}

// request is a copy of the fields. The protocol does not say how the password travelled.
func (c *conn) request(f *fields) auth.Request {
	service := string(f.service)
	if service == "" {
		service = c.srv.cfg.Service
	}
	return auth.Request{
		Login:    f.user(),
		Password: string(f.password),
		Service:  service,
		FrontEnd: "saslauthd",
		Listener: c.listener,
		Addr:     f.address(),
		TLS:      auth.TLSUnknown,
		Session:  c.session(),
	}
}

// lost logs why there is no request.
func (c *conn) lost(err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		c.log.Debug("saslauthd: connection closed", c.attrs()...)
	case errors.Is(err, os.ErrDeadlineExceeded) && c.isDraining():
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.log.Info("saslauthd: closing connection: no request in time", c.attrs()...)
	case errors.Is(err, io.ErrUnexpectedEOF):
		c.log.Info("saslauthd: closing connection: request is cut short", c.attrs()...)
	default:
		c.log.Debug("saslauthd: connection lost", c.attrs("error", err)...)
	}
}

// decide returns the reply, which is empty if the login is undecided.
func (c *conn) decide(req auth.Request) string {
	ctx, cancel := context.WithTimeout(c.srv.conns.Context(), c.srv.cfg.DecisionTimeout)
	defer cancel()
	d, err := c.srv.auth.Authenticate(ctx, req)
	switch {
	case err != nil:
		c.srv.undecided.Add(1)
		return ""
	case d.OK:
		c.srv.passed.Add(1)
		return replyOK
	}
	c.srv.rejected.Add(1)
	return replyNO
}

// reply sends text and ends the server's side; it reports whether it could.
func (c *conn) reply(text string) bool {
	if text != "" {
		c.nc.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout))
		if _, err := io.WriteString(c.nc, text); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.log.Info("saslauthd: closing connection: peer does not read", c.attrs()...)
			}
			return false
		}
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}

// linger waits, but not for long, until the peer has ended its side, too. What it sends is put into buf.
func (c *conn) linger(buf []byte) {
	c.readFor(c.srv.linger)
	for left := lingerBytes; left > 0; {
		n, err := c.nc.Read(buf)
		if n == 0 && err != nil {
			return
		}
		left -= n
	}
}
