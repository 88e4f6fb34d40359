package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/ldapbridge"
	"github.com/valetkey/valetkey/saslauth/checkpassword"
	"github.com/valetkey/valetkey/saslauth/dovecot"
	"github.com/valetkey/valetkey/saslauth/httpauth"
	"github.com/valetkey/valetkey/saslauth/saslauthd"
)

// server is what every front end is.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// built is a front end before it listens.
type built struct {
	server
	connections func() connections
	upstream    admin.Upstream // nil: none

	missingGroups func(context.Context) (map[string]bool, error) // by application; nil: the front end has none
}

// connections are those of a front end: open now, and totals.
type connections struct{ open, total, refused, yielded int64 }

// spec says what one listener is to be.
type spec struct {
	name         string // of its section: "ldap[1]"
	config       any    // a spec with an equal one is the same
	address      config.Address
	permissions  permissions
	plaintext    bool // other machines may reach it without TLS
	failureDelay config.FailureDelay
	tls          config.TLS
	view         admin.Listener // for the status, without address and counters
	build        buildFunc
}

// listening is the authenticator as one listener has it: refusals are held back as its configuration says.
type listening struct {
	*auth.Authenticator
	holding *auth.Holding // nil: they are not
}

// Authenticate implements the interface of every front end.
func (l *listening) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	req.Holding = l.holding
	return l.Authenticator.Authenticate(ctx, req)
}

// Refused is the authenticator's, as Authenticate.
func (l *listening) Refused(ctx context.Context, req auth.Request) {
	req.Holding = l.holding
	l.Authenticator.Refused(ctx, req)
}

// maxHeld is how many refusals each front end holds back at a time. A connection of these does nothing else meanwhile, and they have
// 1024 or more; on one of the Dovecot protocol the others go ahead.
var maxHeld = map[string]int64{"ldap": 256, "saslauthd": 256, "checkpassword": 256, "http": 256, "dovecot": 2048}

// holding makes what a listener's requests carry; closing the channel ends all that is held back.
func holding(s spec) (*auth.Holding, chan struct{}) {
	stopping := make(chan struct{})
	if s.failureDelay == config.NeverDelay {
		return nil, stopping
	}
	return &auth.Holding{FailureDelay: time.Duration(s.failureDelay), Limit: maxHeld[s.view.FrontEnd], Stopping: stopping}, stopping
}

// buildFunc makes a front end. An error is a fault of the configuration.
type buildFunc func(*listening, *liveStore, *tls.Config, *slog.Logger) (built, error)

// frontEnd is a listener that is served.
type frontEnd struct {
	spec     spec
	listener *listener
	stopping chan struct{} // closed: what is held back goes out
	built
}

func (f *frontEnd) address() string {
	if f.spec.address.Network == "unix" {
		return f.spec.address.String() // the listener itself knows its temporary name
	}
	return f.listener.Addr().Network() + ":" + f.listener.Addr().String() // with the port that was chosen
}

// turns are those of searches on all listeners, which share the cores.
var turns = ldapbridge.NewTurns(0)

// specs lists the listeners of a configuration.
func specs(cfg *config.Config) []spec {
	var all []spec
	add := func(frontEnd string, i int, c any, at config.Socket, build buildFunc) *spec {
		name := fmt.Sprintf("%s[%d]", frontEnd, i+1)
		all = append(all, spec{
			name: name, config: c, address: at.Listen, permissions: permissions{at.Mode, at.Owner, at.Group}, plaintext: at.AllowPlaintext,
			failureDelay: at.FailureDelay, view: admin.Listener{Name: name, FrontEnd: frontEnd}, build: build,
		})
		s := &all[len(all)-1]
		switch at.Listen.Network {
		case "systemd":
			s.view.Systemd = at.Listen.Address
		case "unix":
			s.view.Mode, s.view.Owner, s.view.Group = fmt.Sprintf("%04o", at.Mode), at.Owner, at.Group
		}
		return s
	}
	for i, c := range cfg.LDAP {
		s := add("ldap", i, c, c.Socket, func(a *listening, dir *liveStore, tls *tls.Config, log *slog.Logger) (built, error) {
			s, err := ldapbridge.New(ldapbridge.Config{
				People: c.Tree.People, RDNAttribute: c.Tree.RDNAttribute, Groups: c.Tree.Groups, Readers: c.Tree.Readers,
				Applications: applications(c.Applications), Limits: ldapbridge.Limits{
					SearchEntries: c.Tree.SearchEntries, SearchBytes: c.Tree.SearchMiB << 20, SearchTime: c.Tree.SearchTime,
					Connections: c.Connections, ConnectionsPerSource: c.PerSource, Handshakes: c.Handshakes,
				},
				Upstream: upstream(c.Upstream), BaseDN: c.BaseDN, Service: c.Service, TLS: tls, LDAPS: c.TLS.Mode == "ldaps",
				RequireTLS: c.TLS.Mode != "" && !c.AllowPlaintext, TrustLoopback: !c.TLS.Always,
				Turns: turns,
			}, a, dir, log)
			if err != nil {
				return built{}, err
			}
			b := built{server: s, connections: func() connections {
				n := s.Stats()
				return connections{int64(n.Connections), n.Accepted, n.Refused, n.Yielded}
			}}
			if slices.ContainsFunc(c.Applications, func(a config.Application) bool { return a.Group != "" }) {
				b.missingGroups = s.MissingGroups
			}
			if c.Upstream != nil {
				b.upstream = s
			}
			return b, nil
		})
		s.tls = c.TLS
		s.view.BaseDN, s.view.Service = c.BaseDN, c.Service
		for _, a := range c.Applications {
			s.view.Applications = append(s.view.Applications, admin.Application{Name: a.Name, Service: cmp.Or(a.Service, a.Name), Group: a.Group})
		}
	}
	for i, c := range cfg.Dovecot {
		add("dovecot", i, c, c.Socket, func(a *listening, _ *liveStore, _ *tls.Config, log *slog.Logger) (built, error) {
			var tempfail dovecot.Tempfail
			if err := tempfail.UnmarshalText([]byte(c.Tempfail)); err != nil {
				return built{}, err
			}
			s := dovecot.New(dovecot.Config{Tempfail: tempfail, MaxConns: c.Connections, MaxPerSource: c.PerSource}, a, log)
			return built{server: s, connections: func() connections {
				n := s.Stats()
				return connections{int64(n.Open), int64(n.Total), int64(n.Refused), int64(n.Yielded)}
			}}, nil
		})
	}
	for i, c := range cfg.Saslauthd {
		s := add("saslauthd", i, c, c.Socket, func(a *listening, _ *liveStore, _ *tls.Config, log *slog.Logger) (built, error) {
			s := saslauthd.New(saslauthd.Config{Service: c.Service, MaxConns: c.Connections}, a, log)
			return built{server: s, connections: func() connections {
				n := s.Stats()
				return connections{open: int64(n.Open), total: int64(n.Total), refused: int64(n.Refused)}
			}}, nil
		})
		s.view.Service = c.Service
	}
	for i, c := range cfg.Checkpassword {
		s := add("checkpassword", i, c, c.Socket, func(a *listening, dir *liveStore, _ *tls.Config, log *slog.Logger) (built, error) {
			s := checkpassword.New(checkpassword.Config{AllowLookup: c.Lookups, MaxConns: c.Connections}, a, dir, log)
			return built{server: s, connections: func() connections {
				n := s.Stats()
				return connections{open: int64(n.Open), total: int64(n.Total), refused: int64(n.Refused)}
			}}, nil
		})
		s.view.Lookups = c.Lookups
	}
	for i, c := range cfg.HTTP {
		s := add("http", i, c, c.Socket, func(a *listening, dir *liveStore, _ *tls.Config, log *slog.Logger) (built, error) {
			s, err := httpauth.New(httpConfig(c), a, dir, log)
			if err != nil {
				return built{}, err
			}
			return built{server: s, connections: func() connections {
				n := s.Stats()
				return connections{open: int64(n.Open), total: int64(n.Total), refused: int64(n.Refused)}
			}}, nil
		})
		s.view.Endpoints = endpoints(c)
	}
	return all
}

func applications(from []config.Application) (all []ldapbridge.Application) {
	for _, a := range from {
		all = append(all, ldapbridge.Application(a))
	}
	return all
}

// endpoints describes an HTTP listener for the status.
func endpoints(c config.HTTP) map[string]admin.Endpoint {
	all := map[string]admin.Endpoint{}
	if g := c.Grant; g != nil {
		all["dovecot_grant"] = admin.Endpoint{SecretFile: g.SecretFile, ClientID: g.ClientID}
	}
	if m := c.Mail; m != nil {
		backends := map[string]string{}
		for protocol, at := range m.Backends {
			backends[protocol] = at.String()
		}
		all["nginx_mail"] = admin.Endpoint{SecretFile: m.SecretFile, SecretHeader: m.SecretHeader, Backends: backends}
	}
	if b := c.Basic; b != nil {
		e := admin.Endpoint{SecretFile: b.SecretFile, AddressHeader: b.AddressHeader, UserHeader: b.UserHeader}
		if b.SecretFile != "" {
			e.SecretHeader = b.SecretHeader
		}
		all["basic"] = e
	}
	return all
}

func httpConfig(c config.HTTP) httpauth.Config {
	h := httpauth.Config{MaxConns: c.Connections}
	if g := c.Grant; g != nil {
		h.Grant = &httpauth.Grant{ClientID: g.ClientID, ClientSecret: g.ClientSecret, Fields: g.Fields}
	}
	if m := c.Mail; m != nil {
		h.Mail = &httpauth.Mail{SecretHeader: m.SecretHeader, Secret: m.Secret, Backends: m.Backends}
	}
	if b := c.Basic; b != nil {
		h.Basic = &httpauth.Basic{
			Service: b.Service, Realm: b.Realm, UserHeader: b.UserHeader, TrustedProxies: b.TrustedProxies, TrustUnix: b.TrustUnix,
			AddressHeader: b.AddressHeader, SecretHeader: b.SecretHeader, Secret: b.Secret,
		}
	}
	return h
}

// open binds the listener of a spec and serves it. replace says that a Unix socket of ours may be in its place.
func (d *daemon) open(s spec, replace bool) (*frontEnd, error) {
	protection, err := d.certs.config(s.tls)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	held, stopping := holding(s)
	b, err := s.build(&listening{d.auth, held}, &d.store, protection, d.log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	l, err := listen(s.address, s.permissions, replace)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	f := &frontEnd{spec: s, listener: l, stopping: stopping, built: b}
	if a, err := config.ParseAddress(f.address()); err == nil { // of systemd's sockets it is known only now
		err := config.CheckPlaintext(a, s.plaintext || s.tls.Mode != "", s.view.FrontEnd == "ldap")
		if err = cmp.Or(err, config.CheckTLS(a, s.tls.Mode)); err != nil {
			l.Close()
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	d.log.Info("listening", "listener", s.name, "proto", s.view.FrontEnd, "address", f.address())
	go func() {
		if err := f.server.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Error("a listener ended", "listener", s.name, "err", err)
		}
	}()
	return f, nil
}
