package admin

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Filter says which app passwords are meant: those for which everything holds that is given. Without any state it means the live ones.
type Filter struct {
	Login          string     `json:"login,omitempty"`
	States         []string   `json:"states,omitempty"` // live, expired, revoked
	UnusedFor      string     `json:"unused_for,omitempty"`
	ExpiringWithin string     `json:"expiring_within,omitempty"` // by date or by disuse
	NeverUsed      bool       `json:"never_used,omitempty"`
	Service        string     `json:"service,omitempty"` // that it names
	Network        string     `json:"network,omitempty"` // address or CIDR that overlaps one that it names
	Exempt         bool       `json:"exempt,omitempty"`
	Imported       bool       `json:"imported,omitempty"` // and not used since
	Label          string     `json:"label,omitempty"`    // a part of it, or with * and ? all of it; case does not matter
	By             string     `json:"by,omitempty"`       // who made it
	AsOf           *time.Time `json:"as_of,omitempty"`    // from which the times count, and after which nothing was created that is meant
}

// Values are the query of a call.
func (f Filter) Values() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"login": f.Login, "state": strings.Join(f.States, ","), "unused_for": f.UnusedFor,
		"expiring_within": f.ExpiringWithin, "service": f.Service, "network": f.Network, "label": f.Label, "by": f.By} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, v := range map[string]bool{"never_used": f.NeverUsed, "exempt": f.Exempt, "imported": f.Imported} {
		if v {
			q.Set(name, "true")
		}
	}
	if f.AsOf != nil {
		q.Set("as_of", f.AsOf.Format(time.RFC3339Nano))
	}
	return q
}

// parseFilter is the inverse of [Filter.Values]. What it does not know it refuses: a filter that is misspelt means more than was meant.
func parseFilter(q url.Values, others ...string) (Filter, error) {
	f := Filter{Login: q.Get("login"), UnusedFor: q.Get("unused_for"), ExpiringWithin: q.Get("expiring_within"), Service: q.Get("service"),
		Network: q.Get("network"), Label: q.Get("label"), By: q.Get("by")}
	if s := q.Get("state"); s != "" {
		f.States = strings.Split(s, ",")
	}
	known := append([]string{"login", "state", "unused_for", "expiring_within", "service", "network", "label", "by", "as_of"}, others...)
	for name, to := range map[string]*bool{"never_used": &f.NeverUsed, "exempt": &f.Exempt, "imported": &f.Imported} {
		known = append(known, name)
		if v := q.Get(name); v != "" {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return f, fault("bad_filter", "", "%s must be true or false", name)
			}
			*to = b
		}
	}
	if v := q.Get("as_of"); v != "" {
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			return f, fault("bad_filter", "", "as_of must be a time as in RFC 3339")
		}
		f.AsOf = &t
	}
	for name, values := range q {
		if len(values) > 1 {
			return f, fault("bad_filter", "", "%q is given twice", clip(name))
		}
		found := false
		for _, k := range known {
			found = found || k == name
		}
		if !found {
			return f, fault("bad_filter", "", "there is no filter %q", clip(name))
		}
	}
	return f, nil
}

// narrows reports whether the filter leaves anything out by something else than the state.
func (f Filter) narrows() bool {
	return f.Login != "" || f.UnusedFor != "" || f.ExpiringWithin != "" || f.NeverUsed || f.Service != "" || f.Network != "" || f.Exempt ||
		f.Imported || f.Label != "" || f.By != ""
}

// criteria checks a filter.
func (f Filter) criteria() (auth.AppPasswordFilter, error) {
	out := auth.AppPasswordFilter{NeverUsed: f.NeverUsed, Exempt: f.Exempt, Imported: f.Imported, By: f.By}
	var err error
	if f.Login != "" {
		if out.Login, err = login(f.Login); err != nil {
			return out, err
		}
	}
	for _, state := range f.States {
		switch state {
		case Live:
			out.Live = true
		case Expired:
			out.Expired = true
		case Revoked:
			out.Revoked = true
		default:
			return out, fault("bad_filter", "", "%q is not a state: %s, %s or %s", clip(state), Live, Expired, Revoked)
		}
	}
	if out.UnusedFor, err = span("unused_for", f.UnusedFor); err != nil {
		return out, err
	}
	if out.ExpiringWithin, err = span("expiring_within", f.ExpiringWithin); err != nil {
		return out, err
	}
	if f.Service != "" {
		if out.Service, err = auth.NormaliseService(f.Service); err != nil {
			return out, fault("bad_service", "for example imap, smtp, ldap", "%q: %v", clip(f.Service), err)
		}
	}
	if f.Network != "" {
		if out.Network, err = parseNetwork(f.Network); err != nil {
			return out, err
		}
	}
	if f.Label != "" {
		if err := printable("the label to look for", f.Label); err != nil {
			return out, err
		}
		out.Label = auth.LabelPattern(f.Label)
	}
	if err := printable("the name of who made it", f.By); err != nil {
		return out, err
	}
	if f.AsOf != nil {
		if y := f.AsOf.Year(); y < 2000 || y > 9999 {
			return out, fault("bad_filter", "", "as_of is out of range")
		}
		out.AsOf = *f.AsOf
	}
	return out, nil
}

// span reads a time to count with. It is bounded, so that no date overflows.
func span(name, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > auth.MaxUnusedFor {
		return 0, fault("bad_filter", "for example 2160h for 90 days", "%s: %q is not a time to count with", name, clip(text))
	}
	return d, nil
}

// Found is a page of app passwords of all accounts. Next is the value of "after" for the next page, or empty at the end; a page may be short,
// or empty, before that.
type Found struct {
	AppPasswords []AppPassword `json:"app_passwords"`
	Next         string        `json:"next,omitempty"`
	AsOf         time.Time     `json:"as_of"` // for the next page, and for revoking what was seen
}

func foundView(p auth.AppPasswordPage) Found {
	out := Found{AppPasswords: make([]AppPassword, len(p.AppPasswords)), Next: p.Next, AsOf: p.AsOf}
	for i, x := range p.AppPasswords {
		out.AppPasswords[i] = appPasswordView(x)
	}
	return out
}

// orders are those that can be asked for. The empty one leaves it to the daemon.
var orders = []auth.Order{"", auth.ByLogin, auth.ByLabel, auth.ByCreation, auth.ByLastUse, auth.ByExpiry}

// Find returns a page of the app passwords that the filter means; limit 0 means a page of 100, the largest has 1000.
func (s *Service) Find(ctx context.Context, f Filter, order, after string, limit int) (Found, error) {
	c, err := f.criteria()
	if err != nil {
		return Found{}, err
	}
	var by auth.Order
	known := false
	for _, o := range orders {
		if string(o) == order {
			by, known = o, true
		}
	}
	if !known {
		return Found{}, fault("bad_sort", "login, label, created, last-used or expires", "%q is no order", clip(order))
	}
	if limit < 0 || limit > maxPage {
		return Found{}, fault("bad_limit", "", "limit must be 1 to %d", maxPage)
	}
	p, err := s.Store.FindAppPasswords(ctx, c, by, after, limit)
	if err != nil {
		return Found{}, err
	}
	return foundView(p), nil
}

// FoundRevocation asks for the end of what a filter means.
type FoundRevocation struct {
	Filter Filter `json:"filter"`
	Why    string `json:"why,omitempty"`
	After  string `json:"after,omitempty"`
}

// RevokeFound revokes some of what the filter means, at most 100 and the old secrets beside them, and returns those that it revoked.
// Next is where to go on. Beginning again is no error: what is revoked is not meant any more.
func (s *Service) RevokeFound(ctx context.Context, n FoundRevocation, by string) (Found, error) {
	c, err := n.Filter.criteria()
	if err != nil {
		return Found{}, err
	}
	if !n.Filter.narrows() {
		return Found{}, fault("bad_filter", "say which: an account, a service, a time without use ..", "this would revoke every app password there is")
	}
	if c.Revoked {
		return Found{}, fault("bad_filter", "", "what is revoked cannot be revoked")
	}
	why, err := reason(n.Why)
	if err != nil {
		return Found{}, err
	}
	p, err := s.Store.RevokeAppPasswords(ctx, c, n.After, 0, why, by)
	if err != nil {
		return Found{}, err
	}
	return foundView(p), nil
}
