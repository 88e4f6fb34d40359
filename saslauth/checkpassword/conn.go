package checkpassword

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/netserve"
	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// conn is one connection of a helper: one request, one answer.
type conn struct {
	srv      *Server
	nc       net.Conn
	listener string
	log      *slog.Logger
	id       uint32 // for the log, if the peer has no session

	mu       sync.Mutex
	draining bool // read no request any more
	asked    bool // the request is here: what ends the reading now is the helper hanging up
}

// Serve implements [netserve.Conn].
func (c *conn) Serve() {
	defer c.recover()

	r, err := c.request()
	if err != nil {
		c.lost(err)
		return
	}
	c.srv.requests.Add(1)
	if c.log.Enabled(c.srv.conns.Context(), slog.LevelDebug) {
		if pid, uid, ok := peerCredentials(c.nc); ok {
			c.log.Debug("checkpassword: request", "op", string(r.Op), "pid", pid, "uid", uid)
		}
	}
	ctx, cancel := context.WithTimeout(c.srv.conns.Context(), c.srv.cfg.DecisionTimeout)
	defer cancel()
	watched := c.watch(cancel)
	reply := c.answer(ctx, r)
	c.send(reply)
	c.nc.Close() // ends the watching
	<-watched
}

// recover closes the connection after a panic, which the helper takes for undecided. The value of a panic may quote a
// request, so only the runtime's own errors are logged in full. The stack holds addresses, not contents.
func (c *conn) recover() {
	v := recover()
	if v == nil {
		return
	}
	c.log.Error("checkpassword: closing connection: panic", "panic", netserve.PanicText(v), "stack", string(debug.Stack()))
}

// Drain implements [netserve.Conn]: it ends the wait for a request; one that is here already is still answered.
func (c *conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if !c.asked {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// request reads the request.
func (c *conn) request() (wire.Request, error) {
	c.mu.Lock()
	if !c.draining {
		c.nc.SetReadDeadline(time.Now().Add(c.srv.cfg.RequestTimeout))
	}
	c.mu.Unlock()
	var header [wire.HeaderSize]byte
	if _, err := io.ReadFull(c.nc, header[:]); err != nil {
		return wire.Request{}, err
	}
	n, err := wire.RequestLength(header)
	if err != nil {
		return wire.Request{}, err
	}
	body := make([]byte, n)
	defer clear(body) // it holds a password
	if _, err := io.ReadFull(c.nc, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return wire.Request{}, err
	}
	r, err := wire.ParseRequest(header, body)
	if err != nil {
		return wire.Request{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = true
	c.nc.SetReadDeadline(time.Time{})
	return r, nil
}

// lost logs why no request came.
func (c *conn) lost(err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		c.log.Debug("checkpassword: connection closed")
	case errors.Is(err, os.ErrDeadlineExceeded) && c.isDraining():
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.log.Info("checkpassword: closing connection: no request in time")
	case errors.Is(err, wire.ErrMalformed):
		// Helper and daemon of different versions look like this, too.
		c.log.Warn("checkpassword: closing connection: not a request that this version understands")
	default:
		c.log.Debug("checkpassword: connection lost", "error", err)
	}
}

// watch cancels the decision when the helper hangs up: it was killed, or its time is up. The helper says nothing after
// its request, and never ends its own side while it waits. The channel is closed when the watching has ended.
func (c *conn) watch(cancel context.CancelFunc) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var b [1]byte
		c.nc.Read(b[:])
		cancel()
	}()
	return ended
}

// send writes the reply, or nothing if it cannot be encoded.
func (c *conn) send(r wire.Reply) {
	message, err := wire.AppendReply(nil, r)
	if err != nil {
		// answer has made sure that it fits.
		c.log.Error("checkpassword: closing connection: cannot encode the reply", "error", err)
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout))
	if _, err := c.nc.Write(message); err != nil {
		c.log.Debug("checkpassword: connection lost", "error", err)
	}
}
