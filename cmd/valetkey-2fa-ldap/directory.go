package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/plugincmd"
)

// What a directory may send. The library's own limits are global to the process and far beyond what an entry with a few attributes
// needs; a decoded element takes a hundred times its length in memory.
const (
	maxMessage = 256 << 10 // bytes of one message
	maxAnswer  = 1 << 20   // bytes of all that one operation brings, referrals too
)

func init() {
	ber.MaxPacketLengthBytes = maxMessage
	ber.MaxNestingDepth = 16
}

const (
	firstBackOff = time.Second // before a server that failed is tried again, while another one answers
	lastBackOff  = 30 * time.Second
	refusedTime  = 30 * time.Second // before the service account is tried again: directories lock accounts
	idleTime     = time.Minute      // after which a connection is not used again
)

var (
	errAccount  = errors.New("the directory refuses the service account")
	errTooLarge = errors.New("the directory sent more than an answer may have")
)

// server is one of those that hold the directory, and what is known of it.
type server struct {
	name, addr, host string
	tls, startTLS    bool

	// Guarded by the mutex of the directory.
	failures int
	retryAt  time.Time // zero: it answered last time
	refused  time.Time // until then it is not asked: it did not accept the service account
	probing  bool
	idle     []*link // the one used last stands last
}

// directory asks the servers, the first that answers, over connections that are bound as the service account. It is safe for
// concurrent use, and connects when it is asked to.
type directory struct {
	servers          []*server // in order of preference
	tls              *tls.Config
	bindDN, password string
	slots            chan struct{} // one for each connection in use
	now              func() time.Time

	mu sync.Mutex
}

// do runs f with a connection, again with another one if the first fails. Each server gets its share of the time that is left, so that
// one that accepts connections and says nothing leaves time for the next. An error that the directory sent is returned as it is.
func (d *directory) do(ctx context.Context, f func(*link) error) error {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for a connection to the directory: %w", ctx.Err())
	}
	order := d.order()
	err := plugincmd.WithHint(errAccount, "check bind_dn and bind_password_file; after a refusal the account is left alone for %v", refusedTime)
	for n, s := range order {
		err = d.attempt(ctx, s, len(order)-n, f)
		if !failed(err) {
			d.note(s, nil)
			return err
		}
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return err // nobody waits any more: this says nothing about the server
		}
		d.note(s, err)
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// attempt asks one server, with what is left of the time divided by the servers that are left.
func (d *directory) attempt(ctx context.Context, s *server, left int, f func(*link) error) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	for {
		l, err := d.get(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		l.ctx = ctx
		err = f(l)
		l.ctx = nil
		d.put(l, failed(err))
		if failed(err) && l.reused && ctx.Err() == nil {
			d.dropIdle(s) // closed by the server meanwhile, and the others are of the same age or older
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		return nil
	}
}

// failed reports whether an error says that the server, rather than the question, is at fault.
func failed(err error) bool { return errors.Is(err, errLink) || errors.Is(err, errAccount) }

// order lists the servers to ask: those that answer by preference, then those that failed.
func (d *directory) order() []*server {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.now()
	var good, bad []*server
	for _, s := range d.servers {
		switch {
		case at.Before(s.refused):
		case s.retryAt.IsZero():
			good = append(good, s)
		default:
			bad = append(bad, s)
		}
	}
	if len(good) == 0 {
		return bad
	}
	for _, s := range bad {
		if !at.Before(s.retryAt) && !s.probing {
			s.probing = true
			go d.probe(s)
		}
	}
	return good
}

// probe looks whether a server that failed is back, while questions go to one that answers.
func (d *directory) probe(s *server) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	l, err := d.dial(ctx, s)
	if err == nil {
		d.put(l, false)
	}
	d.note(s, err)
	d.mu.Lock()
	s.probing = false
	d.mu.Unlock()
}

// note keeps how an attempt went.
func (d *directory) note(s *server, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		s.failures, s.retryAt, s.refused = 0, time.Time{}, time.Time{}
	case errors.Is(err, errAccount):
		s.refused = d.now().Add(refusedTime)
	default:
		s.retryAt = d.now().Add(min(firstBackOff<<min(s.failures, 10), lastBackOff))
		s.failures++
	}
}

// get returns an idle connection or makes one.
func (d *directory) get(ctx context.Context, s *server) (*link, error) {
	d.mu.Lock()
	for len(s.idle) > 0 {
		l := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if d.now().Sub(l.since) < idleTime && !l.client.IsClosing() {
			d.mu.Unlock()
			l.reused = true
			return l, nil
		}
		l.close()
	}
	d.mu.Unlock()
	return d.dial(ctx, s)
}

// put takes a connection back.
func (d *directory) put(l *link, broken bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if broken || l.client.IsClosing() || len(l.server.idle) >= cap(d.slots) {
		l.close()
		return
	}
	l.since = d.now()
	l.server.idle = append(l.server.idle, l)
}

func (d *directory) dropIdle(s *server) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range s.idle {
		l.close()
	}
	s.idle = nil
}

// link is a bound connection, used by one question at a time.
type link struct {
	server *server
	wire   *wire
	client *ldap.Conn
	ctx    context.Context // of the question under way
	since  time.Time       // idle since then
	reused bool
}

// dial connects, protects the connection and binds as the service account.
func (d *directory) dial(ctx context.Context, s *server) (*link, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, &linkError{err}
	}
	l := &link{server: s, wire: &wire{Conn: conn}, ctx: ctx}
	l.wire.left.Store(maxAnswer)
	config := d.tls.Clone()
	config.ServerName = s.host
	if s.tls {
		protected := tls.Client(l.wire, config)
		if err := protected.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, tlsError(err)
		}
		l.client = ldap.NewConn(protected, true)
	} else {
		l.client = ldap.NewConn(l.wire, false)
	}
	l.client.Start()
	if s.startTLS {
		if err := l.run(func() error { return l.client.StartTLS(config) }); err != nil {
			l.close()
			return nil, tlsError(err)
		}
	}
	if d.bindDN != "" {
		err := l.run(func() error { return l.client.Bind(d.bindDN, d.password) })
		if ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
			err = plugincmd.WithHint(errAccount, "check bind_dn and bind_password_file")
		}
		if err != nil {
			l.close()
			return nil, fmt.Errorf("binding as the service account: %w", err)
		}
	}
	l.ctx = nil
	return l, nil
}

// close ends the connection without waiting. Closing the socket first frees everything of the library that waits for it.
func (l *link) close() {
	l.wire.Close()
	go l.client.Close()
}

// errLink is what all errors match after which another server may know better.
var errLink = errors.New("the connection failed")

type linkError struct{ error }

func (e *linkError) Unwrap() error        { return e.error }
func (e *linkError) Is(target error) bool { return target == errLink }

func tlsError(err error) error {
	return plugincmd.WithHint(&linkError{fmt.Errorf("TLS: %w", err)},
		"the certificate must be for the host in urls, and come from an authority that ca_file or the system names")
}

// run calls the library in a goroutine of its own, so that a silent directory holds nobody longer than the context. What f writes to may
// be read only if the error is not the context's.
func (l *link) run(f func() error) error {
	l.wire.left.Store(maxAnswer)
	if deadline, ok := l.ctx.Deadline(); ok {
		// The context comes first. Without a limit of its own the library could wait for ever, in its Close too.
		l.client.SetTimeout(max(time.Until(deadline), 0) + time.Second)
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		var sent *ldap.Error
		switch {
		case err == nil || errors.Is(err, ldap.ErrSizeLimitExceeded):
		case !errors.As(err, &sent), // the end of a connection is a plain error of the library
			sent.ResultCode >= ldap.ErrorNetwork, // its own codes
			sent.ResultCode == ldap.LDAPResultBusy, sent.ResultCode == ldap.LDAPResultUnavailable:
			err = &linkError{err}
		}
		return err
	case <-l.ctx.Done():
		l.wire.Close()
		return &linkError{fmt.Errorf("waiting for the directory: %w", l.ctx.Err())}
	}
}

// errSeveral is what the size limit comes to, be it ours or a smaller one of the directory's.
var errSeveral = plugincmd.WithHint(errors.New("several entries match the login, and it is not known whose it is"), "make filter or base narrower")

// search returns up to two entries: more than one is as bad as many. Referrals are left alone.
func (l *link) search(base string, scope int, filter string, attributes []string) ([]*ldap.Entry, error) {
	request := ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 2, 0, false, filter, attributes, nil)
	request.EnforceSizeLimit = true
	var result *ldap.SearchResult
	err := l.run(func() (err error) {
		result, err = l.client.Search(request)
		return err
	})
	if ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) || errors.Is(err, ldap.ErrSizeLimitExceeded) {
		return nil, errSeveral
	}
	if err != nil {
		return nil, err
	}
	return result.Entries, nil
}

// compare reports whether the entry has this value.
func (l *link) compare(dn, attribute, value string) (bool, error) {
	var equal bool
	err := l.run(func() (err error) {
		equal, err = l.client.Compare(dn, attribute, value)
		return err
	})
	if err != nil {
		return false, err
	}
	return equal, nil
}

// wire bounds what one operation may bring.
type wire struct {
	net.Conn
	left atomic.Int64 // bytes
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.left.Add(int64(-n)) < 0 {
		w.Conn.Close()
		return 0, errTooLarge
	}
	return n, err
}
