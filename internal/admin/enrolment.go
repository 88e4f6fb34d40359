package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Enrolments knows who has a second factor: the plugin, behind the daemon's policy.
type Enrolments interface {
	// MayIssue says whether an app password may be made for an account. It asks the plugin, unless the policy does not want to know;
	// number 0 is an account that is only about to be made. An error means that it is not known.
	MayIssue(ctx context.Context, accountID int64, login string) (Enrolment, error)
	// Enrolment says what a login would be told now, whatever the policy requires. With fresh, the plugin is asked even if an answer
	// of it still holds. That it is not known is no error here: the Enrolment says so.
	Enrolment(ctx context.Context, accountID int64, login string, fresh bool) Enrolment
	// Plugin says how the plugin is.
	Plugin() Plugin
}

// Sources of an [Enrolment].
const (
	SourcePlugin    = "plugin"     // it was asked just now
	SourceCache     = "cache"      // an answer of it that still holds
	SourceLastKnown = "last_known" // one that has run out, since the plugin cannot be heard
	SourceAllow     = "allow"      // nothing is known, and on_error allows
	SourceUnknown   = "unknown"    // nothing is known: a login is undecided
	SourceOff       = "off"        // there is no plugin
	SourceReader    = "reader"     // a program, which is never asked for one
)

// Enrolment is what is known about an account's second factor.
type Enrolment struct {
	Login   string `json:"login"`   // canonical
	Require string `json:"require"` // when it is asked for: "off", "issue" or "login"
	Allowed bool   `json:"allowed"` // an app password that is not exempt may be used, as far as the second factor goes
	Source  string `json:"source"`

	Status     string     `json:"status,omitempty"`      // what the plugin said: enrolled, not_enrolled, exempt, account_unknown
	ReasonCode string     `json:"reason_code,omitempty"` // and why
	At         *time.Time `json:"at,omitempty"`          // and when
	Until      *time.Time `json:"until,omitempty"`       // till then nobody asks again
	KeptUntil  *time.Time `json:"kept_until,omitempty"`  // till then it counts as known while the plugin cannot be heard
	Problem    string     `json:"problem,omitempty"`     // why the plugin could not be heard
}

// Plugin is the state of the enrolment plugin and of the policy. Totals count since it was started first.
type Plugin struct {
	Require   string `json:"require"`
	OnError   string `json:"on_error"`
	LastKnown string `json:"last_known"`      // Go duration
	Path      string `json:"path,omitempty"`  // empty: there is no plugin
	Error     string `json:"error,omitempty"` // why what the configuration says now is not in force

	Up          bool       `json:"up"`
	PID         int        `json:"pid,omitempty"`
	Name        string     `json:"name,omitempty"`
	Version     string     `json:"version,omitempty"`
	Since       *time.Time `json:"since,omitempty"`   // of this run
	Problem     string     `json:"problem,omitempty"` // why it does not run, or why the last run ended
	BreakerOpen bool       `json:"breaker_open"`      // the last checks all failed; one is tried each second

	Restarts     int64            `json:"restarts"`
	Cached       int64            `json:"cached"`           // questions for which an answer was there
	Checks       int64            `json:"checks"`           // questions to the plugin
	CheckSeconds float64          `json:"check_seconds"`    // their time together
	Errors       map[string]int64 `json:"errors,omitempty"` // checks without an answer, by reason
	Fallback     int64            `json:"fallback"`         // logins that the policy let in without the plugin
	LinesDropped int64            `json:"lines_dropped"`    // of what it printed
	Known        int              `json:"known"`            // accounts whose last answer is remembered
	Waiting      int              `json:"waiting"`          // accounts that are being asked about
}

// Asked says in words when the second factor is asked for.
func (p Plugin) Asked() string {
	switch p.Require {
	case "issue":
		return "asked for when an app password is made"
	case "login":
		return "asked for when an app password is made, and at each login"
	}
	return "not asked for: app passwords are issued without one"
}

// Exemption frees an app password from the second factor.
type Exemption struct {
	Because string `json:"because"`
}

// exemptionReason checks why an app password is exempt.
func exemptionReason(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", fault("no_reason", `say what the device is, such as "printer in room 5": whoever comes after you wants to know`, "an exemption from the second factor needs a reason")
	}
	return text, printable("the reason", text)
}

// Exempt frees the app password with this label from the second factor, for a device without a person. Doing it again with the same
// reason changes nothing; with another one, the reason is replaced. An unknown label, and one of a revoked or expired app password, is
// [auth.ErrNoLabel].
func (s *Service) Exempt(ctx context.Context, name, text, because, by string) (AppPassword, error) {
	because, err := exemptionReason(because)
	if err != nil {
		return AppPassword{}, err
	}
	return s.setExemption(ctx, name, text, because, by)
}

// EndExemption makes the app password with this label ask for the second factor again, from the next login on. Ending what has ended is
// no error.
func (s *Service) EndExemption(ctx context.Context, name, text, by string) (AppPassword, error) {
	return s.setExemption(ctx, name, text, "", by)
}

func (s *Service) setExemption(ctx context.Context, name, text, because, by string) (AppPassword, error) {
	l, err := login(name)
	if err != nil {
		return AppPassword{}, err
	}
	_, key, err := label(text)
	if err != nil {
		return AppPassword{}, err
	}
	p, err := s.Store.ExemptAppPassword(ctx, l, key, because, by)
	if err != nil {
		return AppPassword{}, err
	}
	return appPasswordView(p), nil
}

// mayIssue returns nil if an app password that is not exempt may be made for the account. A refusal says in one sentence what the user has
// to do; that nothing is known is [*Unavailable], since it is not the user's fault.
func (s *Service) mayIssue(ctx context.Context, accountID int64, canonical string) error {
	if s.Enrolments == nil {
		return nil
	}
	e, err := s.Enrolments.MayIssue(ctx, accountID, canonical)
	if err != nil {
		return &Unavailable{
			Message: "it could not be found out whether " + clip(canonical) + " has a second factor", Cause: err,
			Hint: "try again; valetkey plugin status says how the plugin is",
		}
	}
	if e.Allowed {
		return nil
	}
	help := s.EnrolmentHelp
	if help == "" {
		help = "enrol one"
	}
	return fault("not_enrolled", "valetkey plugin check LOGIN says why; for a device without a person, valetkey create has --exempt-because",
		"%s has no second factor: %s, then try again", clip(canonical), help)
}

// mayIssueTo finds out who goes by the normalised login, and then as mayIssue does. Nobody is found and nobody refused while there is no
// policy. A reader is a program. A login that is not known is left to those who make accounts of such: [auth.ErrNoAccount].
func (s *Service) mayIssueTo(ctx context.Context, login string) error {
	if s.Enrolments == nil {
		return nil
	}
	a, err := s.Store.Account(ctx, login)
	if err != nil || a.Kind == auth.Reader {
		return err
	}
	return s.mayIssue(ctx, a.ID, a.Login)
}

// Enrolment says what a login to this account would be told about its second factor now. It asks the plugin only if no answer of it
// holds. Without a plugin the Source is [SourceOff], which allows. An account that is only in the upstream counts as well.
func (s *Service) Enrolment(ctx context.Context, name string) (Enrolment, error) {
	return s.enrolment(ctx, name, false)
}

// CheckEnrolment is [Service.Enrolment] for who wants to hear the plugin: without one it is a refusal. With fresh, the plugin is asked
// even if an answer of it holds, so that somebody who has just enrolled gets in at once.
func (s *Service) CheckEnrolment(ctx context.Context, name string, fresh bool) (Enrolment, error) {
	if s.Enrolments == nil {
		return Enrolment{}, fault("no_plugin", "enrolment.plugin in the daemon's configuration names one; docs/enrolment.md", "there is no enrolment plugin to ask")
	}
	return s.enrolment(ctx, name, fresh)
}

func (s *Service) enrolment(ctx context.Context, name string, fresh bool) (Enrolment, error) {
	l, err := login(name)
	if err != nil {
		return Enrolment{}, err
	}
	a, err := s.Store.Account(ctx, l)
	if errors.Is(err, auth.ErrNoAccount) && s.Upstream != nil {
		a = auth.Account{}
		a.Login, err = s.known(ctx, l)
	}
	switch {
	case err != nil:
		return Enrolment{}, err
	case s.Enrolments == nil:
		return Enrolment{Login: a.Login, Require: "off", Allowed: true, Source: SourceOff}, nil
	case a.Kind == auth.Reader:
		return Enrolment{Login: a.Login, Require: s.Enrolments.Plugin().Require, Allowed: true, Source: SourceReader}, nil
	}
	return s.Enrolments.Enrolment(ctx, a.ID, a.Login, fresh), nil
}

func (s *Server) enrolmentRoutes() []route {
	return []route{
		{method: "POST", path: "/v1/app-password/exemption", handle: s.postExemption, needs: mayManage},
		{method: "DELETE", path: "/v1/app-password/exemption", handle: s.deleteExemption, needs: mayManage},
		{method: "GET", path: "/v1/plugin", handle: s.getPlugin, needs: mayRead},
		{method: "GET", path: "/v1/plugin/check", handle: s.getEnrolment, needs: mayRead},
		// A help desk's call for somebody who has just enrolled. It lets nobody in whom the plugin does not.
		{method: "POST", path: "/v1/plugin/check", handle: s.postEnrolment, needs: mayRevoke},
	}
}

func (s *Server) postExemption(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		n, err := read[Exemption](r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		return v.Exempt(r.Context(), q.Get("login"), q.Get("label"), n.Because, actor(r))
	})
}

func (s *Server) deleteExemption(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		q := r.URL.Query()
		return v.EndExemption(r.Context(), q.Get("login"), q.Get("label"), actor(r))
	})
}

// getPlugin answers also while the database is away, and at once while it is frozen: that is when somebody wants to know.
func (s *Server) getPlugin(w http.ResponseWriter, r *http.Request) {
	if s.plugin != nil {
		reply(w, http.StatusOK, s.plugin())
		return
	}
	reply(w, http.StatusOK, s.status(r.Context()).Enrolment)
}

// getEnrolment goes by an answer that holds, postEnrolment asks the plugin: that costs something, and changes what logins are told.
func (s *Server) getEnrolment(w http.ResponseWriter, r *http.Request)  { s.checkEnrolment(w, r, false) }
func (s *Server) postEnrolment(w http.ResponseWriter, r *http.Request) { s.checkEnrolment(w, r, true) }

func (s *Server) checkEnrolment(w http.ResponseWriter, r *http.Request, fresh bool) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		return v.CheckEnrolment(r.Context(), r.URL.Query().Get("login"), fresh)
	})
}
