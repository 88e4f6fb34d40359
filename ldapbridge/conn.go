package ldapbridge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

const (
	readBuffer = 4 << 10  // at first, and again after a PDU that needed more
	keepOut    = 16 << 10 // a response buffer that grew larger is dropped
	flushAt    = 32 << 10 // answers to pipelined requests are collected up to this size

	// Setting a deadline costs about as much as parsing a bind, so a deadline that is this much off is good enough.
	deadlineSlack = time.Second
)

// conn is one connection. Its goroutine reads, decides and writes strictly in turn: a request that follows a bind always sees
// the identity that the bind left behind, and at most one operation per connection is under way.
type conn struct {
	srv *Server
	nc  net.Conn
	ctx context.Context // of every operation; its own, so that connections do not meet at the lock of the server's

	listener  string
	session   string     // in the log
	addr      netip.Addr // zero for Unix sockets
	tls       auth.TLSState
	protected bool // TLS, or a Unix socket

	in   []byte // in[r:w] is read and not yet handled
	r, w int
	out  []byte // answers not yet written
	msg  message
	name dn // scratch

	login      string // canonical login of the bound account; empty: anonymous
	bound      bool   // a bind was accepted once, be it anonymously
	privileged bool   // a bind with a password was accepted once
	dead       bool   // a write failed
	draining   atomic.Bool
	partial    bool // part of a PDU is in the buffer, and its deadline is armed

	readDeadline, writeDeadline time.Time // as armed; zero: not armed
}

func newConn(s *Server, nc net.Conn, listener string) *conn {
	c := &conn{srv: s, nc: nc, listener: listener, session: s.nextSession(), in: make([]byte, readBuffer)}
	switch nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		c.addr = netserve.Addr(nc)
		c.tls = auth.TLSNo
	case *net.UnixAddr:
		c.tls, c.protected = auth.TLSYes, true
	}
	if _, ok := nc.(handshaker); ok {
		c.tls, c.protected = auth.TLSYes, true
	}
	return c
}

// handshaker is a *tls.Conn.
type handshaker interface {
	HandshakeContext(context.Context) error
}

// Drain implements [netserve.Conn]: what waits for a request is woken and sent away.
func (c *conn) Drain() {
	c.draining.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// Serve implements [netserve.Conn].
func (c *conn) Serve() {
	defer func() {
		if v := recover(); v != nil {
			c.srv.stats.panics.Add(1)
			c.srv.log.LogAttrs(context.Background(), slog.LevelError, "ldap: connection ended by a fault of the program",
				auth.Quoted("panic", netserve.PanicText(v)), slog.String("session", c.session), auth.Quoted("stack", string(debug.Stack())))
		}
	}()
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithCancel(c.srv.conns.Context())
	defer cancel()
	if h, ok := c.nc.(handshaker); ok {
		ctx, cancel := context.WithTimeout(c.ctx, c.srv.cfg.Limits.PDU)
		err := h.HandshakeContext(ctx)
		cancel()
		if err != nil {
			return
		}
	}
	for c.handleBuffered() && c.flush() && c.fill() {
	}
}

// handleBuffered handles every whole PDU in the buffer. It returns false when the connection is to be closed; what had to be
// said is written then.
func (c *conn) handleBuffered() bool {
	for {
		pdu, err := c.next()
		switch {
		case errors.Is(err, ber.ErrShort):
			return true
		case err != nil: // not LDAP at all: TLS, HTTP, too large. Say nothing.
			c.flush()
			return false
		}
		if c.draining.Load() {
			c.disconnect(unavailable, "shutting down")
			return false
		}
		if !c.handle(pdu) || c.dead {
			return false
		}
		if len(c.out) > flushAt && !c.flush() {
			return false
		}
	}
}

// next returns the contents of the next LDAPMessage in the buffer, or [ber.ErrShort] if more must be read.
func (c *conn) next() ([]byte, error) {
	buffered := c.in[c.r:c.w]
	if len(buffered) > 0 && buffered[0] != ber.Sequence {
		return nil, ber.ErrSyntax
	}
	_, head, length, err := ber.Header(buffered)
	if err != nil {
		return nil, err
	}
	limit := c.srv.cfg.Limits.UnboundPDU
	if c.privileged {
		limit = c.srv.cfg.Limits.BoundPDU
	}
	if head+length > limit {
		return nil, ber.ErrSyntax
	}
	if len(buffered) < head+length {
		return nil, ber.ErrShort
	}
	c.r += head + length
	c.partial = false
	return buffered[head : head+length], nil
}

// handle answers one message. It returns false when the connection is to be closed.
func (c *conn) handle(pdu []byte) bool {
	m := &c.msg
	err := m.decode(pdu, c.srv.cfg.Limits.Controls)
	if m.op == opUnbindRequest {
		c.flush()
		return false
	}
	if err == nil {
		c.srv.stats.requests.Add(1)
		switch m.op {
		case opBindRequest:
			err = c.bind(m)
		case opSearchRequest:
			err = c.search(m)
		case opCompareRequest:
			err = c.compare(m)
		case opExtendedRequest:
			err = c.extended(m)
		case opAbandonRequest:
			// Whatever it names is finished: operations run one after another.
		default:
			// The body is not looked at, since nothing of it would be done.
			r := readOnly
			if m.unknownCritical() {
				r = result{code: unavailableCriticalExt}
			}
			c.out = appendResponse(c.out, m.id, responseTo(m.op), r)
		}
	}
	if err != nil {
		c.srv.stats.broken.Add(1)
		c.disconnect(protocolError, err.Error())
		return false
	}
	return true
}

// fill reads more into the buffer, which holds no whole PDU. It returns false when there will be no more.
func (c *conn) fill() bool {
	if c.r == c.w {
		c.r, c.w = 0, 0
		if len(c.in) > readBuffer {
			c.in = make([]byte, readBuffer)
		}
	} else if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.in) {
		// The buffer grows with what arrived, never to a length that was only announced.
		limit := c.srv.cfg.Limits.UnboundPDU
		if c.privileged {
			limit = c.srv.cfg.Limits.BoundPDU
		}
		in := make([]byte, min(2*len(c.in), max(limit, readBuffer)))
		copy(in, c.in[:c.w])
		c.in = in
	}
	c.armRead()
	// After arming: Drain marks first and moves the deadline then, so one of the two is seen here.
	if c.draining.Load() {
		c.disconnect(unavailable, "shutting down")
		return false
	}
	n, err := c.nc.Read(c.in[c.w:])
	c.w += n
	if n > 0 {
		return true
	}
	if err == nil {
		return true // allowed by io.Reader
	}
	if c.draining.Load() && !errors.Is(err, io.EOF) {
		c.disconnect(unavailable, "shutting down")
	}
	return false
}

// armRead sets the deadline by which the client must have sent the rest of a PDU, or begun the next one.
func (c *conn) armRead() {
	l := &c.srv.cfg.Limits
	if c.w > 0 {
		if !c.partial {
			c.partial = true
			c.readDeadline = time.Now().Add(l.PDU)
			c.nc.SetReadDeadline(c.readDeadline)
		}
		return
	}
	wait := l.UnboundIdle
	if c.bound {
		wait = l.Idle
	}
	want := time.Now().Add(wait)
	if off := want.Sub(c.readDeadline); off > min(deadlineSlack, wait/16) || off < 0 {
		c.readDeadline = want
		c.nc.SetReadDeadline(want)
	}
}

// flush writes the collected answers. It returns false if the client does not take them.
func (c *conn) flush() bool {
	if len(c.out) == 0 || c.dead {
		return !c.dead
	}
	timeout := c.srv.cfg.Limits.Write
	if now := time.Now(); c.writeDeadline.Sub(now) < timeout {
		c.writeDeadline = now.Add(timeout + min(deadlineSlack, timeout/16))
		c.nc.SetWriteDeadline(c.writeDeadline)
	}
	_, err := c.nc.Write(c.out)
	if c.out = c.out[:0]; cap(c.out) > keepOut {
		c.out = nil
	}
	c.dead = err != nil
	return err == nil
}

// lingerTime bounds the wait for the client to close after a notice.
const lingerTime = 250 * time.Millisecond

// disconnect writes a Notice of Disconnection and waits shortly for the client to close: closing a TCP connection with
// unread input resets it, and the notice would be lost.
func (c *conn) disconnect(code resultCode, diag string) {
	c.out = appendNotice(c.out, code, diag)
	if !c.flush() {
		return
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.nc, 1<<20)
}
