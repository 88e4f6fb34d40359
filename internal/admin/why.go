package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Why says what would happen to a login now, and what did happen.
type Why struct {
	Login   string   `json:"login"`             // normalised
	Service string   `json:"service,omitempty"` // that was asked about; empty: any
	Address string   `json:"address,omitempty"`
	Account *Account `json:"account,omitempty"` // nil: no account goes by this login
	// InDirectory: there is no account, but the upstream directory has a user of this name.
	InDirectory bool `json:"in_directory,omitempty"`

	Works   string `json:"works"`   // of a right app password now: "yes", "no", or "depends" on what was not asked about
	Summary string `json:"summary"` // the same in a sentence

	AppPasswords []WhyAppPassword `json:"app_passwords"` // live ones first
	Attempts     []WhyAttempt     `json:"attempts"`      // rejected ones, the latest first
	Devices      []WhyAttempt     `json:"devices"`       // of those, what still sends an old app password
	Enrolment    *Enrolment       `json:"enrolment,omitempty"`
	Throttle     *WhyThrottle     `json:"throttle,omitempty"`

	Advice []string `json:"advice"` // what to do next, the most likely first
}

// Answers of [Why.Works] and [WhyAppPassword.Opens].
const (
	Yes     = "yes"
	No      = "no"
	Depends = "depends"
)

// WhyAppPassword is an app password with what it opens.
type WhyAppPassword struct {
	AppPassword AppPassword `json:"app_password"`
	Opens       string      `json:"opens"`
	Why         []string    `json:"why"` // it does not, or what it depends on

	suspended bool // it would open, if the user had a second factor
}

// WhyAttempt are rejected logins that were alike.
type WhyAttempt struct {
	Reason   auth.Reason `json:"reason"`
	Meaning  string      `json:"meaning"`
	Count    int64       `json:"count"`
	First    time.Time   `json:"first"`
	Last     time.Time   `json:"last"`
	Service  string      `json:"service,omitempty"`
	FrontEnd string      `json:"front_end,omitempty"`
	Address  string      `json:"address,omitempty"` // empty: not known, or several
	Label    string      `json:"label,omitempty"`   // of the app password that matched
}

// WhyThrottle is how guessing slows this login down.
type WhyThrottle struct {
	Source  string `json:"source,omitempty"` // what the address counts as; empty: no address was asked about
	Exempt  bool   `json:"exempt,omitempty"`
	Known   bool   `json:"known,omitempty"` // this login was accepted from there lately: the guesses of others do not matter
	Guesses int    `json:"guesses"`         // counted lately
	Delay   string `json:"delay"`           // for which the next refusal is held back, a Go duration; a right password never is
	Full    bool   `json:"full,omitempty"`  // a login from there would be undecided now

	Sources []WhySource `json:"sources,omitempty"` // from where the login is guessed at, the worst first
}

// WhySource is where guesses come from.
type WhySource struct {
	Source  string    `json:"source"`
	Guesses int       `json:"guesses"`
	Delay   string    `json:"delay"`
	Last    time.Time `json:"last"`
}

// ThrottleTeller knows how guessing is slowed down.
type ThrottleTeller interface {
	State(login string, addr netip.Addr) auth.ThrottleState
}

// enrolmentWait bounds what the plugin may add to an answer.
const enrolmentWait = 5 * time.Second

// Why explains a login. service and address may be empty: any.
func (s *Service) Why(ctx context.Context, name, service, address string) (Why, error) {
	l, err := login(name)
	if err != nil {
		return Why{}, err
	}
	w := Why{Login: l, AppPasswords: []WhyAppPassword{}, Attempts: []WhyAttempt{}, Devices: []WhyAttempt{}, Advice: []string{}}
	if service != "" {
		if w.Service, err = auth.NormaliseService(service); err != nil {
			return Why{}, fault("bad_service", "for example imap, smtp, ldap", "%q: %v", clip(service), err)
		}
	}
	var addr netip.Addr
	if address != "" {
		if addr, err = netip.ParseAddr(address); err != nil {
			return Why{}, fault("bad_address", "for example 192.0.2.7 or 2001:db8::7", "%q is not an address", clip(address))
		}
		addr = addr.Unmap().WithZone("")
		w.Address = addr.String()
	}
	past, err := s.Store.Attempts(ctx, l)
	if err != nil {
		return Why{}, err
	}
	for _, p := range past {
		a := WhyAttempt{Reason: p.Reason, Meaning: explain(p.Reason).Meaning, Count: p.Count, First: p.First, Last: p.Last, Service: p.Service,
			FrontEnd: p.FrontEnd, Label: p.Label}
		if p.Addr.IsValid() {
			a.Address = p.Addr.String()
		}
		w.Attempts = append(w.Attempts, a)
		if a.Reason == auth.Revoked || a.Reason == auth.Expired {
			w.Devices = append(w.Devices, a)
		}
	}
	account, err := s.Store.Account(ctx, l)
	switch {
	case errors.Is(err, auth.ErrNoAccount):
		if s.Upstream != nil {
			if _, err := s.Upstream.Canonical(ctx, l); err == nil {
				w.InDirectory = true
			}
		}
	case err != nil:
		return Why{}, err
	default:
		v := accountView(account)
		w.Account = &v
		if account.Kind == auth.Person {
			if w.Enrolment, err = s.whyEnrolment(ctx, account.Login); err != nil {
				return Why{}, err
			}
		}
		if err := s.whyAppPasswords(ctx, &w, addr); err != nil {
			return Why{}, err
		}
	}
	if s.Throttle != nil {
		w.Throttle = throttleView(s.Throttle.State(l, addr))
	}
	w.judge()
	return w, nil
}

// whyEnrolment asks what the plugin says; nil if there is none.
func (s *Service) whyEnrolment(ctx context.Context, login string) (*Enrolment, error) {
	if s.Enrolments == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, enrolmentWait)
	defer cancel()
	e, err := s.Enrolment(ctx, login)
	return &e, err
}

func (s *Service) whyAppPasswords(ctx context.Context, w *Why, addr netip.Addr) error {
	found, err := s.Store.AppPasswords(ctx, w.Account.Login, true)
	if err != nil {
		return err
	}
	for _, p := range found {
		x := WhyAppPassword{AppPassword: appPasswordView(p), Opens: Yes, Why: []string{}}
		no := func(format string, args ...any) { x.Opens, x.Why = No, append(x.Why, fmt.Sprintf(format, args...)) }
		depends := func(format string, args ...any) {
			if x.Why = append(x.Why, fmt.Sprintf(format, args...)); x.Opens == Yes {
				x.Opens = Depends
			}
		}
		switch x.AppPassword.Status {
		case Revoked:
			no("revoked %s by %s", p.RevokedAt.UTC().Format(time.DateOnly), p.RevokedBy)
		case Expired:
			no("expired")
		}
		if services := strings.Join(p.Services, ", "); len(p.Services) > 0 && w.Service == "" {
			depends("opens %s only", services)
		} else if len(p.Services) > 0 && !slices.Contains(p.Services, w.Service) {
			no("opens %s, not %s", services, w.Service)
		}
		if networks := strings.Join(x.AppPassword.Networks, ", "); len(p.Networks) > 0 && !addr.IsValid() {
			depends("only from %s", networks)
		} else if len(p.Networks) > 0 && !slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(addr) }) {
			no("only from %s, not from %s", networks, addr)
		}
		if e := w.Enrolment; e != nil && e.Require == "login" && p.ExemptAt.IsZero() && p.Live() {
			switch {
			case e.Source == SourceUnknown:
				depends("on the second factor, of which nothing is known now")
			case !e.Allowed:
				x.suspended = x.Opens != No
				no("the user has no second factor")
			}
		}
		w.AppPasswords = append(w.AppPasswords, x)
	}
	slices.SortStableFunc(w.AppPasswords, func(a, b WhyAppPassword) int {
		rank := map[string]int{Live: 0, Expired: 1, Revoked: 2}
		return rank[a.AppPassword.Status] - rank[b.AppPassword.Status]
	})
	return nil
}

func throttleView(s auth.ThrottleState) *WhyThrottle {
	v := &WhyThrottle{Exempt: s.Exempt, Known: !s.KnownPair.IsZero(), Guesses: max(s.Guesses, s.PairGuesses), Delay: s.Delay.String(), Full: s.Full}
	if s.Addr.IsValid() {
		v.Source = s.Source.String()
	}
	for _, x := range s.Sources {
		v.Sources = append(v.Sources, WhySource{x.Source.String(), x.Guesses, x.Delay.String(), x.Last})
	}
	return v
}

// judge draws the conclusions from what was found.
func (w *Why) judge() {
	advise := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(w.Advice, text) {
			w.Advice = append(w.Advice, text)
		}
	}
	w.Works = No
	switch live := w.count(); {
	case w.InDirectory:
		w.Summary = "the user is in the directory, but has no app password"
		advise("valetkey create LOGIN LABEL makes the first one")
	case w.Account == nil:
		w.Summary = "no account goes by this login"
		advise("%s", explain(auth.UnknownLogin).Remedy)
		advise("valetkey account add LOGIN adds an account")
	case !w.Account.Enabled:
		w.Summary = "the account is disabled: no app password of it opens anything"
		advise("valetkey account enable LOGIN lets it in again")
	case w.Account.Kind == KindReader:
		w.Works = Depends
		w.Summary = "the account is a reader: it may bind below ou=readers to search the LDAP directory, and is refused everywhere else"
	case live.all == 0:
		w.Summary = "the account has no live app password"
		advise("valetkey create LOGIN LABEL makes one")
	case live.yes+live.depends == 0 && live.suspended > 0:
		w.Summary = "the user has no second factor, so no app password opens " + w.place()
		advise("%s", explain(auth.NotEnrolled).Remedy)
	case live.yes+live.depends == 0:
		w.Summary = "none of the account's live app passwords opens " + w.place()
		advise("valetkey create LOGIN LABEL%s makes one that does", w.flags())
	case live.yes == 0:
		w.Works = Depends
		w.Summary = "whether a right app password opens " + w.place() + " depends on what stands below"
	default:
		w.Works = Yes
		w.Summary = fmt.Sprintf("%d of %d live app passwords would open %s now", live.yes, live.all, w.place())
	}
	if w.Throttle != nil && w.Throttle.Full {
		w.Summary += "; at this moment a login from there is put off, because too many guesses come from there"
		advise("%s", Reasons["throttled"].Remedy)
	}
	for _, d := range w.Devices[:min(len(w.Devices), 3)] {
		from := "an address that is not known"
		if d.Address != "" {
			from = d.Address
		}
		advise("a device at %s still sends the %s app password %q: give it a new one, or remove the account from it", from, d.Reason, d.Label)
	}
	if w.Account != nil {
		for _, a := range w.Attempts[:min(len(w.Attempts), 3)] {
			if e := explain(a.Reason); e.Remedy != "" && a.Reason != auth.Revoked {
				advise("%s: %s", a.Reason, e.Remedy)
			}
		}
	}
}

type tallies struct{ all, yes, depends, suspended int }

func (w *Why) count() (n tallies) {
	for _, p := range w.AppPasswords {
		if p.AppPassword.Status != Live {
			continue
		}
		n.all++
		switch p.Opens {
		case Yes:
			n.yes++
		case Depends:
			n.depends++
		}
		if p.suspended {
			n.suspended++
		}
	}
	return n
}

// place is what was asked about: "imap from 192.0.2.7".
func (w *Why) place() string {
	text := "something"
	if w.Service != "" {
		text = w.Service
	}
	if w.Address != "" {
		text += " from " + w.Address
	}
	return text
}

func (w *Why) flags() (text string) {
	if w.Service != "" {
		text += " --service " + w.Service
	}
	return text
}

func (s *Server) getWhy(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		return v.Why(r.Context(), q.Get("login"), q.Get("service"), q.Get("address"))
	})
}

// Why asks what would happen to a login, and what did. service and address may be empty: any.
func (c *Client) Why(ctx context.Context, login, service, address string) (Why, error) {
	return ask[Why](ctx, c, "GET", "/v1/why", url.Values{"login": {login}, "service": {service}, "address": {address}}, nil)
}
