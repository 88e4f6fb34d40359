package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/ldapbridge"
	"github.com/valetkey/valetkey/saslauth/dovecot"
)

// server is what every front end is.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// built is a front end before it listens.
type built struct {
	server
	connections func() int64
}

// spec says what one listener is to be.
type spec struct {
	name        string // of its section: "ldap[1]"
	config      any    // comparable: a spec with an equal one is the same
	address     config.Address
	permissions permissions
	view        admin.Listener // for the status, without address and counters
	build       func(*auth.Authenticator, ldapbridge.Directory, *slog.Logger) (built, error)
}

// frontEnd is a listener that is served.
type frontEnd struct {
	spec     spec
	listener *listener
	built
}

func (f *frontEnd) address() string {
	if f.spec.address.Network == "tcp" {
		return "tcp:" + f.listener.Addr().String() // with the port that was chosen
	}
	return f.spec.address.String()
}

// specs lists the listeners of a configuration.
func specs(cfg *config.Config) []spec {
	var all []spec
	for i, c := range cfg.LDAP {
		name := fmt.Sprintf("ldap[%d]", i+1)
		all = append(all, spec{
			name: name, config: c, address: c.Listen, permissions: permissions{c.Mode, c.Owner, c.Group},
			view: admin.Listener{Name: name, FrontEnd: "ldap", BaseDN: c.BaseDN, Service: c.Service},
			build: func(a *auth.Authenticator, dir ldapbridge.Directory, log *slog.Logger) (built, error) {
				s, err := ldapbridge.New(ldapbridge.Config{BaseDN: c.BaseDN, Service: c.Service}, a, dir, log)
				if err != nil {
					return built{}, err
				}
				return built{s, func() int64 { return int64(s.Stats().Connections) }}, nil
			},
		})
	}
	for i, c := range cfg.Dovecot {
		name := fmt.Sprintf("dovecot[%d]", i+1)
		all = append(all, spec{
			name: name, config: c, address: c.Listen, permissions: permissions{c.Mode, c.Owner, c.Group},
			view: admin.Listener{Name: name, FrontEnd: "dovecot"},
			build: func(a *auth.Authenticator, _ ldapbridge.Directory, log *slog.Logger) (built, error) {
				var tempfail dovecot.Tempfail
				if err := tempfail.UnmarshalText([]byte(c.Tempfail)); err != nil {
					return built{}, err
				}
				s := dovecot.New(dovecot.Config{Tempfail: tempfail}, a, log)
				return built{s, func() int64 { return int64(s.Stats().Open) }}, nil
			},
		})
	}
	return all
}

// open binds the listener of a spec and serves it. replace says that a Unix socket of ours may be in its place.
func (d *daemon) open(s spec, replace bool) (*frontEnd, error) {
	b, err := s.build(d.auth, &d.store, d.log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	l, err := listen(s.address, s.permissions, replace)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	f := &frontEnd{spec: s, listener: l, built: b}
	d.log.Info("listening", "listener", s.name, "proto", s.view.FrontEnd, "address", f.address())
	go func() {
		if err := f.server.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Error("a listener ended", "listener", s.name, "err", err)
		}
	}()
	return f, nil
}
