package host

import (
	"context"
	"fmt"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/plugin"
)

// Require says when a second factor is asked for.
type Require string

const (
	Off   Require = "off"   // never
	Issue Require = "issue" // when an app password is made
	Login Require = "login" // also at each login, so that losing the second factor suspends the app passwords
)

// OnError says what happens when the plugin cannot be heard.
type OnError string

const (
	// LastKnown goes by an answer that allowed and is not older than Policy.Keep. Everybody else is undecided.
	LastKnown OnError = "last_known"
	// Undecided makes everybody undecided whose answer has run out.
	Undecided OnError = "undecided"
	// Allow lets in everybody who was not refused within Policy.Keep: breaking the plugin does not undo a refusal.
	Allow OnError = "allow"
)

// Policy is what a site decides. The zero Policy asks at each login and goes by the last answer for 24 hours.
type Policy struct {
	Require Require
	OnError OnError
	Keep    time.Duration // how long an answer counts as known, from when it was given; zero: 24 hours
}

func (p *Policy) complete() error {
	if p.Require == "" {
		p.Require = Login
	}
	if p.OnError == "" {
		p.OnError = LastKnown
	}
	if p.Keep == 0 {
		p.Keep = 24 * time.Hour
	}
	switch p.Require {
	case Off, Issue, Login:
	default:
		return fmt.Errorf("require is %q, and can be %s, %s or %s", p.Require, Issue, Login, Off)
	}
	switch p.OnError {
	case LastKnown, Undecided, Allow:
	default:
		return fmt.Errorf("on_error is %q, and can be %s, %s or %s", p.OnError, LastKnown, Undecided, Allow)
	}
	if p.Keep < 0 {
		return fmt.Errorf("answers cannot be kept for %v", p.Keep)
	}
	return nil
}

// Source says where a [Result] comes from.
type Source string

const (
	FromPlugin    Source = "plugin"     // asked just now
	FromCache     Source = "cache"      // an answer that still holds
	FromLastKnown Source = "last_known" // one that has run out, because the plugin cannot be heard
	FromAllow     Source = "allow"      // nothing is known, and the policy allows
	FromOff       Source = "off"        // the policy does not ask
)

// Result is what is known about an account, for a person as well.
type Result struct {
	Allowed bool
	Source  Source

	Answer plugin.Answer // zero if the plugin never said anything
	At     time.Time     // when it said so
	Until  time.Time     // how long that holds

	// Problem is why the plugin could not be heard, if that is why the Source is FromLastKnown or FromAllow.
	Problem error
}

// SetPolicy changes the policy, from the next question on. What is known about accounts stays known.
func (h *Host) SetPolicy(p Policy) error {
	if err := p.complete(); err != nil {
		return err
	}
	h.policy.Store(&p)
	return nil
}

var _ auth.Enrolment = (*Host)(nil)

// Enrolled implements [auth.Enrolment]. It is true without a question unless the policy asks at login.
func (h *Host) Enrolled(ctx context.Context, accountID int64, login string, _ *auth.Request) (bool, string, error) {
	if h.policy.Load().Require != Login {
		return true, "", nil
	}
	r, err := h.check(ctx, accountID, login, false)
	return r.Allowed, r.note(), err
}

// note is the word for the log: why the account is refused, or what lets it in without the plugin's word.
func (r *Result) note() string {
	switch {
	case r.Allowed && r.Source == FromLastKnown:
		return "last_known"
	case r.Allowed && r.Source == FromAllow:
		return "on_error_allow"
	case r.Allowed:
		return ""
	case r.Answer.ReasonCode != "":
		return r.Answer.ReasonCode
	case r.Answer.Status.Known():
		return r.Answer.Status.String()
	}
	return ""
}

// MayIssue says whether an app password may be made for the account. It asks the plugin even if a recent answer is there, since
// people enrol and try again at once. An account that is only about to be made has no number, 0: nothing is kept of what is said
// about it. An error means that it is not known.
func (h *Host) MayIssue(ctx context.Context, accountID int64, login string) (Result, error) {
	if h.policy.Load().Require == Off {
		return Result{Allowed: true, Source: FromOff}, nil
	}
	return h.check(ctx, accountID, login, true)
}

// Check says what a login would be told now, whatever the policy requires; with fresh, the plugin is asked even if a recent answer is
// there. After an error, which means that it is not known, the Result still holds what the plugin said last.
func (h *Host) Check(ctx context.Context, accountID int64, login string, fresh bool) (Result, error) {
	return h.check(ctx, accountID, login, fresh)
}

// withoutPlugin is what the policy makes of an account when the plugin could not be heard for the reason problem. known is the last
// answer, or nil.
func (p *Policy) withoutPlugin(known *entry, now time.Time, problem error) (Result, error) {
	// After a clock that went back, an answer of the future lets nobody in; a refusal stays one.
	allowed := known != nil && known.answer.Status.Allows()
	if known == nil || now.Sub(known.at) > p.Keep || now.Before(known.at) && allowed {
		if p.OnError == Allow {
			return Result{Allowed: true, Source: FromAllow, Problem: problem}, nil
		}
		return Result{}, problem
	}
	r := known.result(FromLastKnown)
	r.Problem = problem
	switch {
	case allowed && p.OnError != Undecided:
		return r, nil
	default:
		// A refusal that has run out may have been undone since: neither in nor "wrong password".
		r.Allowed = false
		return r, problem
	}
}
