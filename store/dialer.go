package store

import (
	"context"
	"net"
	"sync"
	"time"
)

// deadlineDialer makes connections on which no exchange can hang. lib/pq itself sets no deadline on the socket in use:
// a cancelled context only sends a request to cancel over a second connection, and on a dead link the call stays blocked
// (lib/pq issues 450 and 620, reference/security.md section 2.3).
type deadlineDialer struct {
	// exchange bounds one exchange: from writing a message until the whole answer was read.
	exchange time.Duration
}

func (d deadlineDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d deadlineDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d deadlineDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var nd net.Dialer
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &deadlineConn{Conn: c, exchange: d.exchange}, nil
}

// deadlineConn arms the deadline at each write, for the write and for the reads that follow. A read does not extend it,
// or else a link that delivers a byte now and then would keep an exchange alive for ever. The protocol is strictly
// request and answer, so nothing is read before something was written.
type deadlineConn struct {
	net.Conn
	exchange time.Duration

	mu    sync.Mutex
	limit time.Time // set by lib/pq while it connects (connect_timeout); zero afterwards
}

func (c *deadlineConn) Write(p []byte) (int, error) {
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

// SetDeadline sets a limit beyond which a write does not extend the deadline; the zero time removes it.
func (c *deadlineConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	return c.Conn.SetDeadline(t)
}
