package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// ownCall is how much of a route is open to a user for his own account. The route's account must be the query's login.
//
// The handler never sees more than is listed here: what somebody adds to a route's query or body later is closed to users until it is
// listed too.
type ownCall struct {
	query   []string // parameters beside login, each at most once
	body    func(*SelfService, []byte) (any, error)
	handle  http.HandlerFunc // nil: the route's
	changes bool
	issues  bool // a secret: nobody whose account is disabled gets one
	creates bool // an app password, and with an upstream the account
}

// Bounds of what a user may ask of his own account.
const (
	maxOwnBody = 16 << 10 // bytes
	ownTimeout = 20 * time.Second
)

var errNotOwn = &Fault{Code: "forbidden", Message: "you may manage the app passwords of your own account only",
	Hint: "leave the LOGIN out, and put a label with spaces in quotes; valetkey whoami shows which account is yours"}

// ownRequest returns the request as the handler may see it: with the caller's own login and nothing that is not for users. Which other
// login the request had makes no difference to the answer, nor to the time that it takes.
func (s *Server) ownRequest(rt route, c caller, w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errNotOwn
	}
	for _, name := range query["login"] {
		if l, err := auth.NormaliseLogin(name); name != "" && (err != nil || l != c.own) {
			if c.role != NoRole { // who names others all day lacks a role, not an account
				return nil, s.access.refusal(c, rt.needs)
			}
			return nil, errNotOwn
		}
	}
	for name, values := range query {
		if name != "login" && !slices.Contains(rt.own.query, name) {
			return nil, fault("forbidden", "", "the parameter %q is not for users", clip(name))
		}
		if name != "login" && len(values) != 1 {
			return nil, fault("bad_request", "", "the parameter %q is there more than once", name)
		}
	}
	query["login"] = []string{c.own}

	var body []byte
	if rt.own.body != nil {
		if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxOwnBody)); err != nil {
			return nil, fault("bad_request", "", "the body could not be read, or has more than %d bytes", maxOwnBody)
		}
		fit, err := rt.own.body(s.access.Self, body)
		if err != nil {
			return nil, err
		}
		if body, err = json.Marshal(fit); err != nil {
			return nil, err
		}
	}
	service := s.service()
	if service == nil {
		return nil, errNoService
	}
	if err := service.Own(r.Context(), c.own, rt.own); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.RawQuery = query.Encode()
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	return r, nil
}

// Own checks that the login is the name of an account that a user of the machine may call his own, for a call of that kind. It must be the
// account's first name: an alias such as "info" may be a user's name on the machine, and the account somebody else's. The login is normalised.
func (s *Service) Own(ctx context.Context, login string, call *ownCall) error {
	none := fault("no_account", "ask an admin for one", "%s has no account here", login)
	a, err := s.Store.Account(ctx, login)
	switch {
	case errors.Is(err, auth.ErrNoAccount) && s.Upstream != nil && call.creates: // which makes the account
		canonical, err := s.known(ctx, login)
		if err == nil && canonical != login {
			return none
		}
		return err
	case errors.Is(err, auth.ErrNoAccount):
		return none
	case err != nil:
		return err
	case a.Login != login || a.Kind != auth.Person:
		return none
	case call.issues && !a.Enabled:
		return fault("disabled", "ask an admin why", "your account is disabled")
	}
	return nil
}

// ownBody reads a body that has the fields of T and no other, and fits it to the rules.
func ownBody[T any](fit func(*SelfService, *T) error) func(*SelfService, []byte) (any, error) {
	return func(rules *SelfService, text []byte) (any, error) {
		body, err := decode[T](bytes.NewReader(text))
		if err == nil && fit != nil {
			err = fit(rules, &body)
		}
		return body, err
	}
}

// ownAppPassword is what a user may say of a new app password: what it may be used for, never that a rule does not apply to it.
type ownAppPassword struct {
	Label            string     `json:"label"`
	Services         []string   `json:"services,omitempty"`
	Networks         []string   `json:"networks,omitempty"`
	ExpiresAt        *time.Time `json:"expires_at,omitempty"`
	ExpiresUnusedFor string     `json:"expires_unused_for,omitempty"`
}

// ownRename, ownRotation and ownRevocation are what a user may say of his app passwords later on.
type (
	ownRename struct {
		Label string `json:"label"`
	}
	ownRotation struct {
		KeepOldUntil *time.Time `json:"keep_old_until,omitempty"`
		EndOld       bool       `json:"end_old,omitempty"`
	}
	ownRevocation struct {
		Why string `json:"why,omitempty"`
	}
)

// cover reports whether a user might make an app password of the same services and networks now.
func (rules *SelfService) cover(p auth.AppPassword) bool {
	n := ownAppPassword{Services: p.Services}
	for _, network := range p.Networks {
		n.Networks = append(n.Networks, network.String())
	}
	if len(rules.Services) > 0 && len(n.Services) == 0 || len(rules.Networks) > 0 && len(n.Networks) == 0 {
		return false
	}
	return n.fit(rules) == nil
}

// fit holds an app password to the services and networks of the rules. One that names none, which would open all, gets those.
func (n *ownAppPassword) fit(rules *SelfService) error {
	if len(n.Services) > auth.MaxServices || len(n.Networks) > maxEntries {
		return fault("too_many", "", "an app password has at most %d services and %d networks", auth.MaxServices, maxEntries)
	}
	if allowed := rules.Services; len(allowed) > 0 {
		if len(n.Services) == 0 {
			n.Services = allowed
		}
		for _, service := range n.Services {
			if v, err := auth.NormaliseService(service); err != nil || !slices.Contains(allowed, v) {
				return fault("service_not_allowed", "yours may open "+strings.Join(allowed, ", "), "you may not make an app password for %q", clip(service))
			}
		}
	}
	if allowed := rules.Networks; len(allowed) > 0 {
		if len(n.Networks) == 0 {
			for _, p := range allowed {
				n.Networks = append(n.Networks, p.String())
			}
		}
		for _, network := range n.Networks {
			p, err := parseNetwork(network)
			if err != nil {
				return err
			}
			within := func(a netip.Prefix) bool { return a.Bits() <= p.Bits() && a.Contains(p.Addr()) }
			if !slices.ContainsFunc(allowed, within) {
				return fault("network_not_allowed", "yours may be used from "+strings.Trim(fmt.Sprint(allowed), "[]"), "you may not make an app password for %q", clip(network))
			}
		}
	}
	return nil
}
