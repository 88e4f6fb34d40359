package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/certs"
	"github.com/valetkey/valetkey/internal/config"
)

// certificates are those that listeners present, one for each pair of files. A nil one has none.
type certificates struct {
	ctx context.Context
	log *slog.Logger

	mu    sync.Mutex
	pairs map[certs.Files]watched
}

type watched struct {
	*certs.Pair
	stop context.CancelFunc
}

func newCertificates(ctx context.Context, log *slog.Logger) *certificates {
	return &certificates{ctx: ctx, log: log, pairs: map[certs.Files]watched{}}
}

func filesOf(t config.TLS) certs.Files { return certs.Files{Cert: t.Cert, Key: t.Key} }

// keyOf is the key of the file that the error is about.
func keyOf(t config.TLS, err error) string {
	if t.Key != t.Cert && strings.HasPrefix(err.Error(), t.Key+":") {
		return "tls_key"
	}
	return "tls_cert"
}

// find returns a pair that is in use.
func (c *certificates) find(t config.TLS) (*certs.Pair, bool) {
	if c == nil {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pairs[filesOf(t)]
	return p.Pair, ok
}

// check returns what a listener would be given, without keeping it.
func (c *certificates) check(t config.TLS) (*tls.Config, error) {
	if t.Mode == "" {
		return nil, nil
	}
	if p, ok := c.find(t); ok {
		return p.TLS(), nil
	}
	p, err := certs.Open(filesOf(t), nil, time.Now)
	if err != nil {
		return nil, err
	}
	return p.TLS(), nil
}

// config returns what a listener needs for TLS, nil if it has none, and keeps an eye on the files from now on.
func (c *certificates) config(t config.TLS) (*tls.Config, error) {
	if t.Mode == "" {
		return nil, nil
	}
	if p, ok := c.find(t); ok {
		return p.TLS(), nil
	}
	p, err := certs.Open(filesOf(t), c.log, time.Now)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(c.ctx)
	go p.Watch(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pairs[filesOf(t)] = watched{p, stop}
	return p.TLS(), nil
}

// reload reads all files again.
func (c *certificates) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pairs {
		p.Reload()
	}
}

// keep forgets what no listener of the configuration presents.
func (c *certificates) keep(cfg *config.Config) {
	used := map[certs.Files]bool{}
	for _, s := range specs(cfg) {
		used[filesOf(s.tls)] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for files, p := range c.pairs {
		if !used[files] {
			p.stop()
			delete(c.pairs, files)
		}
	}
}

// view describes the TLS of a listener for the status.
func (c *certificates) view(s spec) *admin.TLS {
	p, ok := c.find(s.tls)
	if !ok {
		return nil
	}
	st := p.Status()
	v := &admin.TLS{
		Mode: s.tls.Mode, Certificate: st.Files.Cert, Fingerprint: st.Fingerprint, Until: st.Until,
		ExpiresSoon: st.ExpiresSoon, Expired: st.Expired, Error: st.Error,
	}
	switch {
	case s.tls.Mode == "ldaps", s.tls.Always && !s.plaintext:
		v.Required = "always"
	case !s.plaintext:
		v.Required = "remote"
	}
	return v
}
