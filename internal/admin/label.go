package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

// Detail is one app password, with the old secret beside it.
type Detail struct {
	AppPassword AppPassword `json:"app_password"`
	// Old is there between a rotation and the first use of the new secret, while the old one is good.
	Old *AppPassword `json:"old,omitempty"`
}

// AppPasswordPatch changes an app password; what is nil or empty stays. Without any service it opens every service, and without any network
// it works from everywhere: only an empty services or networks may ask for that, the removal of the last one is refused.
type AppPasswordPatch struct {
	Label          string    `json:"label,omitempty"`
	Services       *[]string `json:"services,omitempty"`
	AddServices    []string  `json:"add_services,omitempty"`
	RemoveServices []string  `json:"remove_services,omitempty"`
	Networks       *[]string `json:"networks,omitempty"` // CIDR, or an address for itself alone
	AddNetworks    []string  `json:"add_networks,omitempty"`
	RemoveNetworks []string  `json:"remove_networks,omitempty"`

	ExpiresAt        *time.Time `json:"expires_at,omitempty"`
	NeverExpires     bool       `json:"never_expires,omitempty"`      // by date
	ExpiresUnusedFor *string    `json:"expires_unused_for,omitempty"` // Go duration; empty: never
}

// Rotation asks for a new secret.
type Rotation struct {
	KeepOldUntil *time.Time `json:"keep_old_until,omitempty"` // nil: for a week
	EndOld       bool       `json:"end_old,omitempty"`        // now, instead
}

// Rotated is an app password with its new secret, which is never shown again.
type Rotated struct {
	AppPassword AppPassword  `json:"app_password"`
	Secret      string       `json:"secret"`
	Old         *AppPassword `json:"old,omitempty"` // good until the first use of the new secret, or until its expires_at
}

const (
	defaultOverlap = 7 * 24 * time.Hour
	maxOverlap     = 366 * 24 * time.Hour
)

// services normalises some and returns each once.
func services(names []string) ([]string, error) {
	if len(names) > auth.MaxServices {
		return nil, fault("too_many", "", "an app password has at most %d services", auth.MaxServices)
	}
	var out []string
	for _, name := range names {
		v, err := auth.NormaliseService(name)
		if err != nil {
			return nil, fault("bad_service", "for example imap, smtp, ldap", "%q: %v", clip(name), err)
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out, nil
}

// networks reads some and returns each once.
func networks(texts []string) ([]netip.Prefix, error) {
	if len(texts) > auth.MaxNetworks {
		return nil, fault("too_many", "", "an app password has at most %d networks", auth.MaxNetworks)
	}
	var out []netip.Prefix
	for _, text := range texts {
		p, err := parseNetwork(text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// unusedFor reads the time after which one expires unused.
func unusedFor(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Hour || d > auth.MaxUnusedFor {
		return 0, fault("bad_expiry", "at least 1h; use is noted every few minutes only", "%q is not a time after which it expires unused", clip(text))
	}
	return d, nil
}

// AppPassword returns the app password with this label, or the newest that had it.
func (s *Service) AppPassword(ctx context.Context, name, text string) (Detail, error) {
	l, key, err := loginAndLabel(name, text)
	if err != nil {
		return Detail{}, err
	}
	p, old, err := s.Store.AppPassword(ctx, l, key)
	if err != nil {
		return Detail{}, err
	}
	d := Detail{AppPassword: appPasswordView(p)}
	if old != nil {
		v := appPasswordView(*old)
		d.Old = &v
	}
	return d, nil
}

func loginAndLabel(name, text string) (l, key string, err error) {
	if l, err = login(name); err != nil {
		return "", "", err
	}
	_, key, err = label(text)
	return l, key, err
}

// Edit changes an app password, all or nothing, and returns what it is now. A revoked one is [auth.ErrRevoked]; an expired one lives
// again if it is given more time.
func (s *Service) Edit(ctx context.Context, name, text string, p AppPasswordPatch, by string) (AppPassword, error) {
	l, key, err := loginAndLabel(name, text)
	if err != nil {
		return AppPassword{}, err
	}
	c := auth.AppPasswordChange{LimitPerAccount: s.Limit}
	if p.Label != "" {
		if c.Label, c.LabelKey, err = label(p.Label); err != nil {
			return AppPassword{}, err
		}
	}
	if p.Services != nil {
		list, err := services(*p.Services)
		if err != nil {
			return AppPassword{}, err
		}
		c.Services = &list
	}
	if c.AddServices, err = services(p.AddServices); err != nil {
		return AppPassword{}, err
	}
	if c.RemoveServices, err = services(p.RemoveServices); err != nil {
		return AppPassword{}, err
	}
	if p.Networks != nil {
		list, err := networks(*p.Networks)
		if err != nil {
			return AppPassword{}, err
		}
		c.Networks = &list
	}
	if c.AddNetworks, err = networks(p.AddNetworks); err != nil {
		return AppPassword{}, err
	}
	if c.RemoveNetworks, err = networks(p.RemoveNetworks); err != nil {
		return AppPassword{}, err
	}
	switch {
	case p.NeverExpires && p.ExpiresAt != nil:
		return AppPassword{}, fault("bad_expiry", "", "it cannot expire at a date and never")
	case p.NeverExpires:
		c.ExpiresAt = new(time.Time)
	case p.ExpiresAt != nil:
		if !p.ExpiresAt.After(s.Now()) {
			return AppPassword{}, fault("bad_expiry", "to end it now, revoke it", "it would expire at %s, which has passed", p.ExpiresAt.Format(time.RFC3339))
		}
		c.ExpiresAt = p.ExpiresAt
	}
	if p.ExpiresUnusedFor != nil {
		c.ExpiresUnusedFor = new(time.Duration)
		if *p.ExpiresUnusedFor != "" {
			if *c.ExpiresUnusedFor, err = unusedFor(*p.ExpiresUnusedFor); err != nil {
				return AppPassword{}, err
			}
		}
	}
	out, err := s.Store.ChangeAppPassword(ctx, l, key, c, by)
	if err != nil {
		return AppPassword{}, err
	}
	return appPasswordView(out), nil
}

// Rotate gives an app password a new secret, which is in the answer and nowhere else. The old one stays good until the first use of the
// new one, but no longer than asked for.
func (s *Service) Rotate(ctx context.Context, name, text string, n Rotation, by string) (Rotated, error) {
	l, key, err := loginAndLabel(name, text)
	if err != nil {
		return Rotated{}, err
	}
	return s.rotate(ctx, l, key, n, auth.Rotation{By: by})
}

// RotateOwn is [Service.Rotate] for a user's own account, of what he could have created himself: whoever has made an app password for him,
// or exempted it or widened it beyond the rules, has decided who is to know its secret.
func (s *Service) RotateOwn(ctx context.Context, rules *SelfService, name, text string, n Rotation, by string) (Rotated, error) {
	l, key, err := loginAndLabel(name, text)
	if err != nil {
		return Rotated{}, err
	}
	p, _, err := s.Store.AppPassword(ctx, l, key)
	if err != nil {
		return Rotated{}, err
	}
	if p.Live() && !rules.cover(p) {
		return Rotated{}, auth.ErrNotMade
	}
	return s.rotate(ctx, l, key, n, auth.Rotation{By: by, Own: true})
}

func (s *Service) rotate(ctx context.Context, l, key string, n Rotation, r auth.Rotation) (Rotated, error) {
	switch now := s.Now(); {
	case n.EndOld && n.KeepOldUntil != nil:
		return Rotated{}, fault("bad_overlap", "", "the old secret cannot end now and be kept")
	case n.EndOld:
	case n.KeepOldUntil == nil:
		r.KeepOldUntil = now.Add(defaultOverlap)
	case !n.KeepOldUntil.After(now):
		return Rotated{}, fault("bad_overlap", "end_old, or --end-old of valetkey, ends it now", "the old secret would be kept until %s, which has passed", n.KeepOldUntil.Format(time.RFC3339))
	case n.KeepOldUntil.After(now.Add(maxOverlap)):
		return Rotated{}, fault("bad_overlap", "", "the old secret can be kept for a year at most")
	default:
		r.KeepOldUntil = *n.KeepOldUntil
	}
	if s.Enrolments != nil { // a secret is issued as by Create, for what is exempt too
		p, _, err := s.Store.AppPassword(ctx, l, key)
		if err == nil && p.ExemptAt.IsZero() {
			err = s.mayIssueTo(ctx, l)
		}
		if err != nil {
			return Rotated{}, err
		}
	}
	for range 5 {
		taken, err := s.Store.Tags(ctx, l)
		if err != nil {
			return Rotated{}, err
		}
		secretText, tag, err := s.draw(taken)
		if err != nil {
			return Rotated{}, err
		}
		r.Tag = tag
		if err := s.Hashes.Do(ctx, func() { r.PHC = secret.Hash(secretText) }); err != nil {
			return Rotated{}, err
		}
		p, old, err := s.Store.RotateAppPassword(ctx, l, key, r)
		if errors.Is(err, auth.ErrTagTaken) { // somebody was faster
			continue
		}
		if err != nil {
			return Rotated{}, err
		}
		out := Rotated{AppPassword: appPasswordView(p), Secret: secret.Format(secretText)}
		if old != nil {
			v := appPasswordView(*old)
			out.Old = &v
		}
		return out, nil
	}
	return Rotated{}, fmt.Errorf("rotating an app password: %w again and again", auth.ErrTagTaken)
}

// Revoke ends the app password with this label, and its old secret. Logins already accepted are not affected. Revoking one that is already
// revoked is not an error, so that an interrupted command can be run again; an unknown label is [auth.ErrNoLabel].
func (s *Service) Revoke(ctx context.Context, name, text, why, by string) (AppPassword, error) {
	l, key, err := loginAndLabel(name, text)
	if err != nil {
		return AppPassword{}, err
	}
	if why, err = reason(why); err != nil {
		return AppPassword{}, err
	}
	p, err := s.Store.RevokeAppPassword(ctx, l, key, why, by)
	if err != nil {
		return AppPassword{}, err
	}
	return appPasswordView(p), nil
}

// reason trims and checks why something is revoked.
func reason(why string) (string, error) {
	why = strings.TrimSpace(why)
	return why, printable("the reason", why)
}
