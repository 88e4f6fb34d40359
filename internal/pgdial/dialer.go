// Package pgdial makes connections to Postgres on which nothing can hang, for the store and for the plugin that asks a database.
//
// It refuses to know SQL and the driver. The one rule a newcomer would break: a deadline holds for a whole exchange. One that every
// byte extends is none.
package pgdial

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Dialer makes connections on which no exchange can hang. It is what lib/pq's Connector.Dialer takes. lib/pq itself sets no deadline on the socket in use:
// a cancelled context only sends a request to cancel over a second connection, and on a dead link the call stays blocked
// (lib/pq issues 450 and 620, reference/security.md section 2.3).
type Dialer struct {
	// Exchange bounds one exchange: from writing a message until the whole answer was read.
	Exchange time.Duration
	// Answer bounds what one exchange may bring, in bytes; zero: nothing does. The connection ends with [ErrTooLarge] then. lib/pq reads
	// whatever a server sends into memory.
	Answer int64
}

// ErrTooLarge is what a read returns when an exchange brought more than [Dialer.Answer].
var ErrTooLarge = errors.New("the server sent more than an answer may have")

// Dial connects without a limit of its own.
func (d Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialTimeout connects within timeout.
func (d Dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// DialContext connects as long as the context lives; the connection is not bound to it.
func (d Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var nd net.Dialer
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &deadlineConn{Conn: c, exchange: d.Exchange, answer: d.Answer}, nil
}

// deadlineConn arms the deadline at each write, for the write and for the reads that follow. A read does not extend it,
// or else a link that delivers a byte now and then would keep an exchange alive for ever. The protocol is strictly
// request and answer, so nothing is read before something was written.
type deadlineConn struct {
	net.Conn
	exchange time.Duration
	answer   int64        // zero: no bound
	read     atomic.Int64 // since the last write

	mu    sync.Mutex
	limit time.Time // set by lib/pq while it connects (connect_timeout); zero afterwards
}

func (c *deadlineConn) Write(p []byte) (int, error) {
	c.read.Store(0)
	c.mu.Lock()
	deadline := time.Now().Add(c.exchange)
	if !c.limit.IsZero() && c.limit.Before(deadline) {
		deadline = c.limit
	}
	err := c.Conn.SetDeadline(deadline)
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *deadlineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.read.Add(int64(n)) > c.answer && c.answer > 0 {
		c.Conn.Close()
		return 0, ErrTooLarge
	}
	return n, err
}

// SetDeadline sets a limit beyond which a write does not extend the deadline; the zero time removes it.
func (c *deadlineConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	return c.Conn.SetDeadline(t)
}
