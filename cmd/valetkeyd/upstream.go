package main

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/ldapbridge"
)

// upstream turns the section of an LDAP listener into its configuration.
func upstream(c *config.Upstream) *ldapbridge.Upstream {
	if c == nil {
		return nil
	}
	u := &ldapbridge.Upstream{
		URLs: c.URLs, StartTLS: c.StartTLS, BindDN: c.BindDN, Password: c.Password, Kind: c.Kind, Bases: c.Bases,
		UserFilter: c.UserFilter, GroupFilter: c.GroupFilter, ContainerFilter: c.ContainerFilter,
		LoginAttribute: c.LoginAttribute, GroupAttribute: c.GroupAttribute, Attributes: c.Attributes, Hidden: c.Hidden,
		Limits: ldapbridge.UpstreamLimits{Connections: c.Connections, Entries: c.Entries, Search: c.SearchTime},
	}
	if c.CAs != "" {
		u.CAs = x509.NewCertPool()
		u.CAs.AppendCertsFromPEM([]byte(c.CAs))
	}
	return u
}

// upstreams are the directories behind the listeners that are open, as the admin verbs see them.
type upstreams struct{ d *daemon }

// Canonical implements [admin.Upstream]: one directory that knows the login is enough. Without any there is no such user.
func (u upstreams) Canonical(ctx context.Context, login string) (string, error) {
	u.d.mu.Lock()
	open := slices.Clone(u.d.frontEnds)
	u.d.mu.Unlock()
	answer := auth.ErrNoAccount
	for _, f := range open {
		if f.upstream == nil {
			continue
		}
		canonical, err := f.upstream.Canonical(ctx, login)
		if err == nil {
			return canonical, nil
		}
		if !errors.Is(err, auth.ErrNoAccount) {
			answer = err
		}
	}
	return "", answer
}

// upstreams returns the directories that the configuration names, or nil. The caller holds d.mu.
func (d *daemon) upstreams() admin.Upstream {
	if !slices.ContainsFunc(d.cfg.LDAP, func(l config.LDAP) bool { return l.Upstream != nil }) {
		return nil
	}
	return upstreams{d}
}
