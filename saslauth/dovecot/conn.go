package dovecot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
)

const (
	firstBuffer = 1024 // of the read buffer, which grows up to maxLine
	maxSession  = 128  // bytes of the session id that are kept for the log

	// A deadline is set anew when 1/32 of its time has gone: it costs as much as parsing the line.
	rearm = 32

	// settled is when a peer that has just connected has asked what it came for. A younger connection is not ended by Drain: Postfix
	// that cannot send its handshake, or its first question on the second connection that it tries, is as without a server.
	settled = 500 * time.Millisecond
)

// conn is one connection of a peer.
//
// One goroutine reads lines and answers what needs no decision. One worker, started at the first login and kept
// because most peers ask one thing after the other, makes decisions; extra workers come and go when a peer (a Dovecot
// login process) has several requests open. Answers leave in the order in which they are ready.
type conn struct {
	srv      *Server
	nc       net.Conn
	listener string
	log      *slog.Logger
	cuid     uint32 // as told in the handshake
	since    time.Time
	stage    atomic.Int32 // of the handshake

	ctx    context.Context // of every decision; ends when the peer is gone
	cancel context.CancelFunc

	// The reading goroutine's own.
	buf        []byte
	start, end int // of what was read and not yet handled
	scanned    int // no LF in buf[start:scanned]
	state      state
	minor      uint32     // of the peer's version
	waiting    []*request // for CONT; the one that waited longest is first
	decoded    []byte     // base64 scratch; holds secrets, cleared after use
	service    string     // the last one seen, to save a copy: it hardly ever changes
	replied    bool       // something was added to out since the last flush
	started    bool       // the lasting worker exists
	jobs       chan *request
	workers    sync.WaitGroup

	mu       sync.Mutex
	unsent   sync.Cond  // signalled when a write has ended
	running  []*request // being decided; no longer in here: the answer is not wanted any more
	extra    int        // workers beyond the lasting one
	out      []byte     // replies that no write has taken yet
	spare    []byte     // buffer of the last write
	writing  bool
	armed    time.Time // when the write deadline was set, by the goroutine that writes
	draining bool      // read nothing more, answer what is running
	closing  bool      // answer nothing more; close once what is in out is written
}

// Values of stage.
const (
	greeting = iota // the peer has the handshake still to send
	greeted         // it has sent it
	forfeit         // it took too long, and gave way
)

type state uint8

const (
	wantVersion state = iota
	wantCPID
	ready
)

// request is an AUTH command that is not answered yet.
type request struct {
	id      uint32
	mech    mechanism
	noLogin bool
	since   time.Time // when it began to wait for CONT
	auth.Request
}

func newConn(s *Server, nc net.Conn, listener string, log *slog.Logger) *conn {
	if peer := nc.RemoteAddr(); peer != nil && peer.Network() == "tcp" {
		log = log.With("peer", peer.String())
	}
	c := &conn{srv: s, nc: nc, listener: listener, log: log, cuid: s.cuid.Add(1), since: time.Now(), jobs: make(chan *request)}
	c.unsent.L = &c.mu
	c.ctx, c.cancel = context.WithCancel(s.conns.Context())
	return c
}

// Serve implements [netserve.Conn].
func (c *conn) Serve() {
	defer c.workers.Wait()
	defer close(c.jobs)
	defer c.cancelUnlessDraining()
	defer c.recover()

	c.mu.Lock()
	if !c.draining {
		c.nc.SetReadDeadline(time.Now().Add(c.srv.cfg.HandshakeTimeout))
	}
	c.out = c.srv.appendHandshake(c.out, c.cuid)
	c.flush()
	c.mu.Unlock()

	err := c.read()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		c.log.Debug("dovecot: connection closed")
	case errors.Is(err, os.ErrDeadlineExceeded) && c.isDraining():
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.log.Info("dovecot: closing connection: no handshake in time")
	case errors.As(err, new(protocolError)):
		c.log.Info("dovecot: closing connection: " + err.Error())
	default:
		c.log.Debug("dovecot: connection lost", "error", err)
	}
}

// cancelUnlessDraining ends the running decisions when the reading has ended, because nobody is left to be told.
func (c *conn) cancelUnlessDraining() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	if !c.draining {
		c.hangUp()
	}
}

// recover closes the connection after a panic in one of its goroutines. The value of a panic may quote a request, so
// only the runtime's own errors are logged in full. The stack holds addresses, not contents.
func (c *conn) recover() {
	v := recover()
	if v == nil {
		return
	}
	c.log.Error("dovecot: closing connection: panic", "panic", netserve.PanicText(v), "stack", string(debug.Stack()))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangUp()
}

// Drain implements [netserve.Conn]: it makes the reading end; the connection closes when the running decisions are answered.
//
// A Unix socket tells the peer that no more will be read, and still gives what is in it: a question is either answered or cannot
// be sent, and then Postfix asks a new connection. Were it closed with a question unread, a client would hear of an outage.
func (c *conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	unix, ok := c.nc.(*net.UnixConn)
	if !ok {
		c.nc.SetReadDeadline(time.Unix(1, 0))
		return
	}
	c.nc.SetReadDeadline(time.Time{}) // of the handshake
	if young := settled - time.Since(c.since); young > 0 {
		time.AfterFunc(young, func() { unix.CloseRead() })
		return
	}
	unix.CloseRead()
}

// Yield implements [netserve.Yielder]: a peer gives way as long as it has not sent its handshake, which an honest one does at once. Later it may
// be silent for days and still be one that a mail server relies on.
func (c *conn) Yield() bool {
	if !c.stage.CompareAndSwap(greeting, forfeit) {
		return false
	}
	c.nc.Close()
	return true
}

func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// read handles lines until the connection breaks or the peer breaks the protocol.
func (c *conn) read() error {
	c.buf = make([]byte, firstBuffer)
	for {
		for {
			n := bytes.IndexByte(c.buf[c.scanned:c.end], '\n')
			if n < 0 {
				c.scanned = c.end
				break
			}
			line := c.buf[c.start : c.scanned+n]
			c.start = c.scanned + n + 1
			c.scanned = c.start
			err := c.command(bytes.TrimSuffix(line, []byte{'\r'}))
			clear(line) // it may hold a password
			if err != nil {
				return err
			}
		}
		if err := c.makeRoom(); err != nil {
			return err
		}
		if c.replied {
			c.replied = false
			c.mu.Lock()
			c.flush()
			c.mu.Unlock()
		}
		n, err := c.nc.Read(c.buf[c.end:])
		c.end += n
		if n == 0 && err != nil {
			return err
		}
	}
}

// makeRoom makes sure that the buffer can take at least one more byte.
func (c *conn) makeRoom() error {
	if c.start > 0 {
		rest := copy(c.buf, c.buf[c.start:c.end])
		clear(c.buf[max(rest, c.start):c.end])
		c.start, c.end, c.scanned = 0, rest, rest
	}
	if c.end < len(c.buf) {
		return nil
	}
	if len(c.buf) >= maxLine {
		return errLineTooLong
	}
	bigger := make([]byte, min(4*len(c.buf), maxLine))
	copy(bigger, c.buf)
	clear(c.buf)
	c.buf = bigger
	return nil
}
