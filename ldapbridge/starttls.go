package ldapbridge

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
)

// canTLS reports whether this connection may have TLS.
func (c *conn) canTLS() bool {
	_, tcp := c.raw.RemoteAddr().(*net.TCPAddr)
	return tcp && c.srv.cfg.TLS != nil
}

// encrypted reports whether it has.
func (c *conn) encrypted() bool { return c.nc != c.raw }

// rootEntry is the RootDSE as this connection sees it: StartTLS is offered where it would be granted (RFC 4512 section 5.1).
func (c *conn) rootEntry() *entry {
	if c.canTLS() && !c.encrypted() {
		return c.srv.rootStartTLS
	}
	return c.srv.root
}

// startTLS answers a StartTLS request (RFC 4511 section 4.14) and protects the connection. Operations run one after another, so
// none is outstanding but what has arrived behind the request: that came in clear, from whomever, and must not be done as if it had
// come through TLS. A client that waits for the answer, as it must, never sends any.
func (c *conn) startTLS(m *message, req *extendedRequest) {
	var r result
	name := oidStartTLS
	switch {
	case m.unknownCritical():
		r = result{code: unavailableCriticalExt}
	case !c.canTLS(): // as any request that is not known
		r, name = result{code: protocolError, diag: "StartTLS is not supported"}, ""
	case req.value != nil:
		r = result{code: protocolError, diag: "no request value expected"}
	case c.encrypted():
		r = result{code: operationsError, diag: "TLS already started"}
	case c.r < c.w:
		r = result{code: operationsError, diag: "cannot start TLS when operations are outstanding"}
	}
	c.out = appendExtended(c.out, m.id, r, name, nil)
	if r.code != success || !c.flush() {
		return
	}
	// What the client knew before, it knew from whoever sat between (RFC 4513 section 3.1.5), and what was said before may not
	// have been the client. Nothing of it stays but the socket.
	c.identity, c.bound, c.privileged = identity{}, false, false
	c.r, c.w, c.partial = 0, 0, false
	c.release()
	clear(c.idle[:])
	if !c.handshake() {
		c.dead = true // no way back to clear text (section 4.14.3)
	}
}

// handshake puts TLS over the connection. It returns false when the connection is to be closed.
func (c *conn) handshake() bool {
	place, cut := c.srv.handshakes.begin(c.raw, c.srv.cfg.Limits.Handshakes)
	if cut {
		c.srv.stats.handshakesCut.Add(1)
	}
	defer c.srv.handshakes.end(place)
	t := tls.Server(c.raw, c.srv.cfg.TLS)
	c.raw.SetDeadline(time.Now().Add(c.srv.cfg.Limits.PDU)) // of all of it
	if c.draining.Load() {                                  // as in fill
		return false
	}
	// On a stack of its own: it grows to tens of KiB, which a connection that then waits would keep.
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				c.srv.stats.panics.Add(1)
				c.srv.log.LogAttrs(context.Background(), slog.LevelError, "ldap: TLS handshake ended by a fault of the program",
					auth.Quoted("panic", netserve.PanicText(v)), slog.String("session", c.session), auth.Quoted("stack", string(debug.Stack())))
				done <- errors.New("fault of the program")
			}
		}()
		done <- t.Handshake()
	}()
	c.wait()
	err := <-done
	if !c.resume() {
		return false
	}
	if err != nil {
		c.srv.stats.handshakesFailed.Add(1)
		c.logHandshake(err)
		return false
	}
	c.nc, c.tls, c.protected = t, auth.TLSYes, true
	c.readDeadline, c.writeDeadline = time.Time{}, time.Time{} // those of the handshake are armed
	return true
}

// farewell tells a client of a TLS connection that its end is no accident (RFC 8446 section 6.1).
func (c *conn) farewell() {
	if c.encrypted() {
		c.nc.Close()
	}
}

// logEvery is how often a handshake that failed is worth a log line.
const logEvery = 10 * time.Second

// logHandshake says why a handshake failed: most often the client does not trust the certificate. Who just went away or said nothing
// is not worth a line.
func (c *conn) logHandshake(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
		return
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return
	}
	tell, more := c.srv.handshakes.tell()
	if !tell {
		return
	}
	rip := "-"
	if c.addr.IsValid() {
		rip = c.addr.String()
	}
	c.srv.log.LogAttrs(c.ctx, slog.LevelInfo, "ldap: TLS handshake failed", slog.String("rip", rip), slog.String("listener", c.listener),
		slog.Int("others", more), auth.Quoted("err", auth.Clip(err.Error(), loggedName)))
}

// handshakes are the connections whose TLS handshake has begun and is not done.
type handshakes struct {
	mu   sync.Mutex
	open list.List // of net.Conn, the oldest first

	told   time.Time // last log line of one that failed
	silent int       // since then
}

// begin notes a connection. When there are too many the oldest is cut off: who does nothing gives way to who may be about
// to. An honest client is through within a few round trips.
func (h *handshakes) begin(nc net.Conn, most int) (place *list.Element, cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open.Len() >= most {
		oldest := h.open.Front()
		h.open.Remove(oldest)
		oldest.Value.(net.Conn).Close()
		cut = true
	}
	return h.open.PushBack(nc), cut
}

// end forgets a connection; it may have been closed meanwhile.
func (h *handshakes) end(place *list.Element) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open.Remove(place) // nothing if it is not there
}

// tell reports whether a failure is to be logged, and how many were not since the last that was.
func (h *handshakes) tell() (now bool, silent int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.told) < logEvery {
		h.silent++
		return false, 0
	}
	silent, h.silent, h.told = h.silent, 0, time.Now()
	return true, silent
}

// checkTLS finds faults of the configuration.
func (cfg *Config) checkTLS() error {
	if cfg.LDAPS && cfg.TLS == nil {
		return fmt.Errorf("ldap: LDAPS without a certificate")
	}
	return nil
}
