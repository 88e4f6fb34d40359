package ldapbridge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

const (
	idleBuffer = 256      // that a connection keeps while it waits; nearly every bind fits
	readBuffer = 4 << 10  // that it is lent for more; larger ones are made as they are needed
	keepOut    = 16 << 10 // a response buffer that grew larger is dropped
	keepIdle   = 256      // and while the connection waits, already one that is larger than this

	writeBuffer = 4 << 10  // that searches begin with
	flushAt     = 32 << 10 // answers to pipelined requests are collected up to this size

	// Setting a deadline costs about as much as parsing a bind, so a deadline that is this much off is good enough.
	deadlineSlack = time.Second
)

// conn is one connection. Its goroutine reads, decides and writes strictly in turn: a request that follows a bind always sees
// the identity that the bind left behind, and at most one operation per connection is under way.
type conn struct {
	srv *Server
	raw net.Conn        // as accepted: for deadlines, also from other goroutines
	nc  net.Conn        // the same, or TLS over it
	ctx context.Context // of every operation; its own, so that connections do not meet at the lock of the server's

	listener  string
	session   string     // in the log
	addr      netip.Addr // zero for Unix sockets
	tls       auth.TLSState
	protected bool // TLS, a Unix socket, or loopback that is trusted

	in   []byte // in[r:w] is read and not yet handled
	r, w int
	idle [idleBuffer]byte
	out  []byte // answers not yet written
	msg  message
	name dn // scratch

	identity
	bound      bool // a bind was accepted once, be it anonymously
	privileged bool // a bind with a password was accepted once
	dead       bool // a write failed
	draining   atomic.Bool
	pace       auth.Pace
	turn       atomic.Int32 // of a client that has not logged in: whose move it is
	partial    bool         // part of a PDU is in the buffer, and its deadline is armed

	readDeadline, writeDeadline time.Time // as armed; zero: not armed
}

func newConn(s *Server, nc net.Conn, listener string) *conn {
	c := &conn{srv: s, raw: nc, nc: nc, listener: listener, session: s.nextSession()}
	c.in = c.idle[:]
	switch nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		c.addr = netserve.Addr(nc)
		c.tls = auth.TLSNo
		c.protected = s.cfg.TrustLoopback && c.addr.IsLoopback() && toLoopback(nc)
	case *net.UnixAddr:
		c.tls, c.protected = auth.TLSYes, true
	}
	return c
}

// toLoopback reports whether the client connected to an address that only this machine has.
func toLoopback(nc net.Conn) bool {
	a, ok := nc.LocalAddr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// Drain implements [netserve.Conn]: what waits for a request is woken and closed.
func (c *conn) Drain() {
	c.draining.Store(true)
	c.raw.SetReadDeadline(time.Unix(1, 0))
}

// Values of turn.
const (
	ours    = iota // something is being done for the client
	theirs         // the client has to send something
	forfeit        // it took too long, and gave way
)

// Yield implements [netserve.Yielder]: a client that has not logged in gives way while nothing is done for it. An anonymous bind does
// not protect it, since everybody can do that; Dovecot, which begins with one, connects again.
func (c *conn) Yield() bool {
	if !c.turn.CompareAndSwap(theirs, forfeit) {
		return false
	}
	c.raw.Close()
	return true
}

// wait and resume stand around everything that waits for the client. resume returns false if the client gave way meanwhile.
func (c *conn) wait() {
	if !c.privileged {
		c.turn.Store(theirs)
	}
}

func (c *conn) resume() bool { return c.privileged || c.turn.CompareAndSwap(theirs, ours) }

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
	defer c.farewell()
	if c.srv.cfg.LDAPS && c.canTLS() && !c.handshake() {
		return
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
			if cap(c.out) <= keepIdle && len(c.out) == 0 {
				c.out = writeBuffers.Get().(*[writeBuffer]byte)[:0]
			}
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
	if errors.Is(err, errWithdrawn) { // RFC 4511 section 4.4.1
		c.disconnect(strongerAuthRequired, err.Error())
		return false
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
	full := c.w == len(c.in) // there is probably more
	if c.r == c.w {
		c.r, c.w = 0, 0
		c.release()
	} else if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.w > 0 && full && len(c.in) < readBuffer || c.w == len(c.in) {
		c.grow()
	}
	c.armRead()
	// After arming: Drain marks first and moves the deadline then, so one of the two is seen here. Whoever waits for no answer needs no
	// notice of disconnection: libldap gives it to the next request as that one's result, where after a close it connects again.
	if c.draining.Load() {
		return false
	}
	c.wait()
	n, err := c.nc.Read(c.in[c.w:])
	if !c.resume() {
		return false
	}
	c.w += n
	if n > 0 {
		return true
	}
	if err == nil {
		return true // allowed by io.Reader
	}
	return false
}

// Buffers that connections are lent while they have something to do. There may be thousands that have not.
var (
	readBuffers  = sync.Pool{New: func() any { return new([readBuffer]byte) }}
	writeBuffers = sync.Pool{New: func() any { return new([writeBuffer]byte) }}
)

// grow makes room behind what is in the read buffer, which is full. It grows with what arrived, never to a length that was only
// announced.
func (c *conn) grow() {
	old := c.in
	if len(old) < readBuffer {
		c.in = readBuffers.Get().(*[readBuffer]byte)[:]
	} else {
		limit := c.srv.cfg.Limits.UnboundPDU
		if c.privileged {
			limit = c.srv.cfg.Limits.BoundPDU
		}
		c.in = make([]byte, min(2*len(old), max(limit, readBuffer)))
	}
	copy(c.in, old[:c.w])
	c.giveBack(old)
}

// release gives back what a connection that waits for a request needs not keep.
func (c *conn) release() {
	if len(c.in) != idleBuffer {
		c.giveBack(c.in)
		c.in = c.idle[:]
	}
	if len(c.out) > 0 {
		return
	}
	if cap(c.out) == writeBuffer {
		writeBuffers.Put((*[writeBuffer]byte)(c.out[:writeBuffer]))
	}
	if cap(c.out) > keepIdle {
		c.out = nil
	}
}

// giveBack clears a read buffer, in which half a password may be, and lends it to others.
func (c *conn) giveBack(in []byte) {
	clear(in)
	if len(in) == readBuffer {
		readBuffers.Put((*[readBuffer]byte)(in))
	}
}

// armRead sets the deadline by which the client must have sent the rest of a PDU, or begun the next one.
func (c *conn) armRead() {
	l := &c.srv.cfg.Limits
	if c.w > 0 {
		if !c.partial {
			c.partial = true
			c.readDeadline = time.Now().Add(l.PDU)
			c.raw.SetReadDeadline(c.readDeadline)
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
		c.raw.SetReadDeadline(want)
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
		c.raw.SetWriteDeadline(c.writeDeadline)
	}
	c.wait() // who reads no answers gives way, too
	_, err := c.nc.Write(c.out)
	if !c.resume() {
		c.dead = true
		return false
	}
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
	c.raw.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.nc, 1<<20)
}
