// Package certs keeps the certificates that listeners present: it reads them, notices when they are replaced, and warns before they
// expire.
//
// It refuses to know protocols, listeners and the configuration: it has two paths and gives a [tls.Config]. The one rule a
// newcomer would break: whatever is in the files, a pair that works is never given up for one that does not. A renewal that went
// wrong must be seen in the log, not by the clients.
package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Files name a certificate and its key, in PEM. They may be one file.
type Files struct {
	Cert string // the certificate itself first, then those that issued it
	Key  string
}

// checkEvery is how often [Pair.Watch] looks at the files.
const checkEvery = 2 * time.Second

// repeatEvery is how often a certificate that expires is worth a log line.
const repeatEvery = 24 * time.Hour

// longestNotice is how long before its end a certificate is worth a warning; one that lives shortly has less, see expiresSoon.
const longestNotice = 14 * 24 * time.Hour

// Pair is a certificate with its key, as it is in the files. It is safe for concurrent use.
type Pair struct {
	files Files
	log   *slog.Logger
	now   func() time.Time

	current atomic.Pointer[tls.Certificate]
	broken  atomic.Pointer[string] // why what is in the files is not used; nil: it is

	mu      sync.Mutex // guards the rest: one looks at the files at a time
	loaded  [2]stamp   // of the files that were looked into last, be they good or not
	seen    [2]stamp   // at the last check
	expires string     // what was last said about the end
	saidAt  time.Time
}

// Open reads the files. An error names the file and the cure; log may be nil if only that is wanted. now is the clock.
func Open(files Files, log *slog.Logger, now func() time.Time) (*Pair, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pair{files: files, log: log, now: now}
	p.loaded = files.stamps()
	p.seen = p.loaded
	c, err := load(files)
	if err != nil {
		return nil, err
	}
	p.current.Store(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warnOfEnd()
	return p, nil
}

// Files are where the pair comes from.
func (p *Pair) Files() Files { return p.files }

// TLS returns a configuration that presents the pair as it is at each handshake. It is TLS 1.2 or newer (RFC 8996), and without
// session tickets: a session that goes on would not see a replaced certificate, and connections here live long.
func (p *Pair) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.current.Load(), nil },
	}
}

// Watch checks every two seconds until the context ends.
func (p *Pair) Watch(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.Check()
		}
	}
}

// Check takes over what is in the files if they changed and have been at rest since the last check: they are replaced one after the
// other, and only together they are a pair. It also warns of the end, once a day.
func (p *Pair) Check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.seen
	p.seen = p.files.stamps()
	if p.seen != p.loaded && p.seen == before {
		p.reload()
	}
	p.warnOfEnd()
}

// Reload takes over what is in the files now. What is wrong with them is in the log, and the old pair stays.
func (p *Pair) Reload() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = p.files.stamps()
	p.reload()
	p.warnOfEnd()
}

func (p *Pair) reload() {
	p.loaded = p.seen
	old := p.current.Load()
	c, err := load(p.files)
	if err == nil {
		err = p.worse(old, c)
	}
	if err != nil {
		text := err.Error()
		p.broken.Store(&text)
		p.log.Error("the new certificate cannot be used, the old one stays", "err", err)
		return
	}
	p.broken.Store(nil)
	if slices.EqualFunc(old.Certificate, c.Certificate, bytes.Equal) {
		return
	}
	p.current.Store(c)
	p.expires = ""
	p.log.Info("new certificate", "file", p.files.Cert, "until", c.Leaf.NotAfter.UTC().Format(time.DateOnly), "fingerprint", fingerprint(c))
}

// worse says why a good pair is no successor of the old one.
func (p *Pair) worse(old, c *tls.Certificate) error {
	now := p.now()
	switch {
	case now.After(c.Leaf.NotAfter) && !now.After(old.Leaf.NotAfter):
		return fmt.Errorf("%s: it expired on %s; install the renewed one", p.files.Cert, c.Leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(c.Leaf.NotBefore) && !now.Before(old.Leaf.NotBefore):
		return fmt.Errorf("%s: it is not valid before %s; check this machine's clock", p.files.Cert, c.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// warnOfEnd says that the certificate in use expires soon or has expired.
func (p *Pair) warnOfEnd() {
	c, now := p.current.Load(), p.now()
	state := ""
	switch {
	case now.After(c.Leaf.NotAfter):
		state = "expired"
	case expiresSoon(c, now):
		state = "soon"
	}
	if state == "" || state == p.expires && now.Sub(p.saidAt) < repeatEvery {
		return
	}
	p.expires, p.saidAt = state, now
	until := c.Leaf.NotAfter.UTC().Format(time.RFC3339)
	if state == "expired" {
		p.log.Error("the certificate has expired, clients that check it turn away: renew it", "file", p.files.Cert, "until", until)
		return
	}
	p.log.Warn("the certificate expires soon: renew it", "file", p.files.Cert, "until", until)
}

// expiresSoon reports whether the renewal is late: the last quarter of its life has begun, or the last fourteen days.
func expiresSoon(c *tls.Certificate, now time.Time) bool {
	life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
	return c.Leaf.NotAfter.Sub(now) < min(longestNotice, life/4)
}

// Status describes a pair for people.
type Status struct {
	Files       Files
	Until       time.Time
	Expired     bool
	ExpiresSoon bool
	Fingerprint string // SHA-256 of the certificate in use, in hexadecimal digits
	Error       string // why what is in the files now is not used; empty: it is
}

// Status describes the pair in use.
func (p *Pair) Status() Status {
	c, now := p.current.Load(), p.now()
	s := Status{
		Files: p.files, Until: c.Leaf.NotAfter, Expired: now.After(c.Leaf.NotAfter), ExpiresSoon: expiresSoon(c, now),
		Fingerprint: fingerprint(c),
	}
	if text := p.broken.Load(); text != nil {
		s.Error = *text
	}
	return s
}

func fingerprint(c *tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}
