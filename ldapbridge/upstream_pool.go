package ldapbridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
)

// UpstreamLimits bound what an upstream may take. Zero values mean the defaults.
type UpstreamLimits struct {
	Connections int           // 8
	Wait        time.Duration // for one of them: 3 s
	Dial        time.Duration // to connect, start TLS and bind: 3 s
	Search      time.Duration // of one request, a page of a long one: 10 s
	Idle        time.Duration // after which a connection is not used again: 1 min

	PageSize int // entries: 500
	Entries  int // of one search, all pages: 5,000
	Message  int // bytes of one entry: 4 MiB
	Bytes    int // of one search, all pages: 64 MiB
}

func (l *UpstreamLimits) setDefaults() error {
	return setDefaults([]count{
		{"Connections", &l.Connections, 8, 1 << 10},
		{"PageSize", &l.PageSize, 500, 1000}, // Active Directory's largest
		{"Entries", &l.Entries, 5000, 1 << 20},
		{"Message", &l.Message, 4 << 20, 16 << 20},
		{"Bytes", &l.Bytes, 64 << 20, 1 << 30},
	}, []duration{
		{"Wait", &l.Wait, 3 * time.Second},
		{"Dial", &l.Dial, 3 * time.Second},
		{"Search", &l.Search, 10 * time.Second},
		{"Idle", &l.Idle, time.Minute},
	})
}

// Waits before a server that failed is tried again while another one answers, and before a refused service account is
// tried again at all.
const (
	firstBackOff  = time.Second
	lastBackOff   = 30 * time.Second
	refusedTime   = 30 * time.Second
	bindAllowance = 64 << 10 // bytes of an answer to a bind
)

var (
	errUpstreamBusy    = errors.New("no connection to the upstream became free in time")
	errUpstreamClosed  = errors.New("the upstream is not used any more")
	errUpstreamAccount = errors.New("the upstream refuses the service account; check bind_dn and bind_password_file")
)

// upstreamURL is one server of the upstream, and what is known of it.
type upstreamURL struct {
	text          string // for the log
	addr, host    string
	tls, startTLS bool

	// Guarded by the mutex of the pool.
	failures int
	retryAt  time.Time // zero: it answered last time
	refused  time.Time // until then: it said that the password of the service account is wrong
	probing  bool
}

// parseUpstreamURL accepts ldap://HOST[:PORT] and ldaps://HOST[:PORT].
func parseUpstreamURL(text string, startTLS bool) (*upstreamURL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not ldap://HOST:PORT or ldaps://HOST:PORT", text)
	}
	x := &upstreamURL{text: text, host: u.Hostname(), startTLS: startTLS}
	port := u.Port()
	switch u.Scheme {
	case "ldap":
		if port == "" {
			port = ldap.DefaultLdapPort
		}
	case "ldaps":
		if x.tls = true; startTLS {
			return nil, fmt.Errorf("%q has TLS already; leave StartTLS off or write ldap://", text)
		}
		if port == "" {
			port = ldap.DefaultLdapsPort
		}
	default:
		return nil, fmt.Errorf("%q is not ldap://HOST:PORT or ldaps://HOST:PORT", text)
	}
	x.addr = net.JoinHostPort(x.host, port)
	return x, nil
}

// upstreamPool holds the connections to an upstream, all bound as the service account: no bind of a user ever takes one. It
// is safe for concurrent use. It connects when it is asked to, so making one costs nothing and cannot fail.
type upstreamPool struct {
	urls             []*upstreamURL // in order of preference
	tls              *tls.Config
	bindDN, password string
	limits           UpstreamLimits
	log              *slog.Logger
	now              func() time.Time

	slots chan struct{} // one for each connection that is in use
	long  chan struct{} // and of those, one for each long search

	mu     sync.Mutex
	idle   []*upstreamConn // the one used last stands last
	closed bool
}

func newUpstreamPool(urls []*upstreamURL, tlsConfig *tls.Config, bindDN, password string, limits UpstreamLimits, log *slog.Logger) *upstreamPool {
	return &upstreamPool{
		urls: urls, tls: tlsConfig, bindDN: bindDN, password: password, limits: limits, log: log, now: time.Now,
		slots: make(chan struct{}, limits.Connections), long: make(chan struct{}, max(1, limits.Connections/2)),
	}
}

// upstreamConn is a bound connection, used by one search at a time.
type upstreamConn struct {
	pool   *upstreamPool
	client *ldap.Conn
	wire   *upstreamWire
	url    int
	since  time.Time // idle since then
	reused bool
	broken bool
}

// staleError is a connection that the other side had closed while it was idle.
type staleError struct{ error }

func (e staleError) Unwrap() error { return e.error }

// do runs f with a connection. long says that f may read many entries: such ones leave half of the connections to the rest, so
// that searches of everything cannot keep anybody from logging in. When a connection proves to
// have died while it was idle, f is run again with a new one. An error means that nothing is known.
func (p *upstreamPool) do(ctx context.Context, long bool, f func(*upstreamConn) error) error {
	release, err := p.acquire(ctx, long)
	if err != nil {
		return err
	}
	defer release()
	for {
		c, err := p.get(ctx)
		if err != nil {
			return err
		}
		err = f(c)
		p.put(c)
		if stale := (staleError{}); c.reused && errors.As(err, &stale) && ctx.Err() == nil {
			p.dropIdle() // they are of the same age or older
			continue
		}
		return err
	}
}

// acquire waits for the right to use a connection.
func (p *upstreamPool) acquire(ctx context.Context, long bool) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, p.limits.Wait)
	defer cancel()
	take := func(slots chan struct{}) error {
		select {
		case slots <- struct{}{}:
			return nil
		case <-ctx.Done():
			return errUpstreamBusy
		}
	}
	if long {
		if err := take(p.long); err != nil {
			return nil, err
		}
	}
	if err := take(p.slots); err != nil {
		if long {
			<-p.long
		}
		return nil, err
	}
	return func() {
		<-p.slots
		if long {
			<-p.long
		}
	}, nil
}

// get returns an idle connection to the best server, or a new one.
func (p *upstreamPool) get(ctx context.Context) (*upstreamConn, error) {
	p.mu.Lock()
	now := p.now()
	best := 0
	for best < len(p.urls)-1 && !p.urls[best].retryAt.IsZero() {
		if u := p.urls[best]; !now.Before(u.retryAt) && !u.probing {
			u.probing = true
			go p.probe(best)
		}
		best++
	}
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.url <= best && now.Sub(c.since) < p.limits.Idle && !c.client.IsClosing() && c.wire.broken() == nil {
			p.mu.Unlock()
			c.reused = true
			return c, nil
		}
		c.close()
	}
	closed := p.closed
	order := p.order(now)
	p.mu.Unlock()
	if closed {
		return nil, errUpstreamClosed
	}
	ctx, cancel := context.WithTimeout(ctx, p.limits.Dial)
	defer cancel()
	err := errUpstreamAccount
	for _, i := range order {
		var c *upstreamConn
		if c, err = p.connect(ctx, i); err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// order lists the servers that are worth an attempt: those that answer, in the order of preference, then those that failed,
// the longest ago first. With p.mu held.
func (p *upstreamPool) order(now time.Time) []int {
	var good, bad []int
	for i, u := range p.urls {
		switch {
		case now.Before(u.refused):
		case u.retryAt.IsZero():
			good = append(good, i)
		default:
			at := len(bad)
			for at > 0 && u.retryAt.Before(p.urls[bad[at-1]].retryAt) {
				at--
			}
			bad = append(bad[:at], append([]int{i}, bad[at:]...)...)
		}
	}
	return append(good, bad...)
}

// probe looks whether a server that failed is back. The searches meanwhile go to one that answers.
func (p *upstreamPool) probe(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), p.limits.Dial)
	defer cancel()
	if c, err := p.connect(ctx, i); err == nil {
		p.put(c)
	}
	p.mu.Lock()
	p.urls[i].probing = false
	p.mu.Unlock()
}

// connect makes a new connection and notes how that went.
func (p *upstreamPool) connect(ctx context.Context, i int) (*upstreamConn, error) {
	u := p.urls[i]
	c, err := p.dial(ctx, u)
	p.mu.Lock()
	before := u.failures
	switch refused := (*ldap.Error)(nil); {
	case err == nil:
		c.url = i
		u.failures, u.retryAt, u.refused = 0, time.Time{}, time.Time{}
	case errors.Is(context.Cause(ctx), context.Canceled): // says nothing about the server
	default:
		if errors.As(err, &refused) && refused.ResultCode == ldap.LDAPResultInvalidCredentials {
			// Asking again and again would lock the service account in directories that do such things.
			u.refused = p.now().Add(refusedTime)
			err = errUpstreamAccount
		}
		u.retryAt = p.now().Add(min(firstBackOff<<min(u.failures, 10), lastBackOff))
		u.failures++
	}
	after := u.failures
	p.mu.Unlock()
	switch {
	case err != nil && before == 0 && after > 0:
		p.log.Warn("ldap: an upstream does not answer", "url", u.text, "err", err)
	case err == nil && before > 0:
		p.log.Info("ldap: an upstream answers again", "url", u.text)
	}
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", u.text, err)
	}
	return c, nil
}

// dial connects and binds as the service account.
func (p *upstreamPool) dial(ctx context.Context, u *upstreamURL) (*upstreamConn, error) {
	nc, err := dialUpstream(ctx, u, p.tls)
	if err != nil {
		return nil, err
	}
	c := &upstreamConn{pool: p, wire: newUpstreamWire(nc, p.limits.Message)}
	c.client = ldap.NewConn(c.wire, u.tls || u.startTLS)
	// Ours come first. Without one of its own the library could wait for ever, in its Close too.
	c.client.SetTimeout(max(p.limits.Search, p.limits.Dial) + time.Second)
	c.client.Start()
	c.wire.expect(budget{bytes: bindAllowance, elements: bindAllowance})
	if err := c.run(ctx, func() error { return c.client.Bind(p.bindDN, p.password) }); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// put takes a connection back.
func (p *upstreamPool) put(c *upstreamConn) {
	c.wire.expect(budget{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.broken || p.closed || len(p.idle) == p.limits.Connections || c.client.IsClosing() || c.wire.broken() != nil {
		c.close()
		return
	}
	c.since = p.now()
	p.idle = append(p.idle, c)
}

func (p *upstreamPool) dropIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}

// close ends the idle connections and makes no more. Those in use end when they are given back.
func (p *upstreamPool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.dropIdle()
}

// close ends the connection without waiting. Closing the socket first frees everything of the library that waits for it.
func (c *upstreamConn) close() {
	c.wire.Conn.Close()
	go c.client.Close()
}

// run calls the library in a goroutine of its own, so that neither a silent upstream nor a fault of the library holds us
// longer than the context. Whatever f writes to may be read only if the error is not the context's.
func (c *upstreamConn) run(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				c.pool.log.LogAttrs(context.Background(), slog.LevelError, "ldap: a fault of the program while asking an upstream",
					auth.Quoted("panic", netserve.PanicText(v)), auth.Quoted("stack", string(debug.Stack())))
				done <- errors.New("a fault of the program while asking the upstream")
			}
		}()
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		c.broken = true
		c.wire.Conn.Close()
		return fmt.Errorf("waiting for the upstream: %w", context.Cause(ctx))
	}
}

// upstreamPage is what one search request brought.
type upstreamPage struct {
	entries []*ldap.Entry
	code    resultCode // success, timeLimitExceeded, sizeLimitExceeded or noSuchObject
	cookie  []byte     // of the next page; empty: this was the last
}

// single is the budget of a search for so many entries, which are no longer together than one may be.
func (p *upstreamPool) single(entries int) budget {
	return budget{p.limits.Message, entries, maxWireElements}
}

// elements is how many a search may bring in all. Each takes some hundred bytes of memory until its page is done.
func (p *upstreamPool) elements() int { return max(maxWireElements, elementsPerEntry*p.limits.Entries) }

// search sends one request and takes what it brings from the budget. Every other result code than those of upstreamPage
// is an error. req must not be used again.
func (c *upstreamConn) search(ctx context.Context, req *ldap.SearchRequest, b *budget) (upstreamPage, error) {
	ctx, cancel := context.WithTimeout(ctx, c.pool.limits.Search)
	defer cancel()
	var found *ldap.SearchResult
	c.wire.expect(*b)
	err := c.run(ctx, func() (err error) {
		found, err = c.client.Search(req)
		return err
	})
	if c.broken {
		return upstreamPage{}, err
	}
	*b = c.wire.left()
	page := upstreamPage{}
	if found != nil {
		page.entries = found.Entries
	}
	answer := (*ldap.Error)(nil)
	switch {
	case err == nil:
		if paging, ok := ldap.FindControl(found.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging); ok {
			page.cookie = paging.Cookie
		}
		return page, nil
	case errors.Is(c.wire.broken(), errWireEntries):
		// It ignores size limits. What came before counts.
		page.code = sizeLimitExceeded
		return page, nil
	case errors.As(err, &answer) && answer.ResultCode < ldap.ErrorNetwork:
		switch code := resultCode(answer.ResultCode); code {
		case timeLimitExceeded, sizeLimitExceeded, noSuchObject:
			page.code = code
			return page, nil
		}
		if answer.ResultCode == ldap.LDAPResultInvalidDNSyntax {
			return upstreamPage{}, errUpstreamName
		}
		// A server that is shutting down, or has forgotten who we are: a new connection may do better.
		switch answer.ResultCode {
		case ldap.LDAPResultOperationsError, ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable:
			c.broken = true
		}
		return upstreamPage{}, fmt.Errorf("the upstream answers with result code %d", answer.ResultCode) // its text may quote values
	}
	c.broken = true
	switch cause := c.wire.broken(); {
	case cause == nil || errors.Is(cause, errWireNotice) || !isWireError(cause):
		return upstreamPage{}, staleError{fmt.Errorf("the connection to the upstream broke: %w", err)}
	default:
		return upstreamPage{}, cause
	}
}

// errUpstreamName: by the upstream's schema there can be no entry of the name that it was asked for, such as one with an attribute that
// it does not know.
var errUpstreamName = fmt.Errorf("the upstream answers with result code %d", ldap.LDAPResultInvalidDNSyntax)

// isWireError says that the upstream sent what it must not, so that asking again is of no use.
func isWireError(err error) bool {
	for _, e := range []error{errWireSyntax, errWireSize, errWireBytes, errWireElements, errWireEntries, errWireUnasked} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
