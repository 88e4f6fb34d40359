package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Checker answers the daemon's question. It must be safe for concurrent use.
type Checker interface {
	// Check says whether the account has a second factor. It changes nothing. An error means that it could not be found out.
	Check(ctx context.Context, r Request) (Answer, error)
}

// CheckerFunc makes a [Checker] of a function.
type CheckerFunc func(ctx context.Context, r Request) (Answer, error)

// Check calls f.
func (f CheckerFunc) Check(ctx context.Context, r Request) (Answer, error) { return f(ctx, r) }

// Describer is what a [Checker] implements that wants to name itself. Describe must answer at once: it is the sign of life.
type Describer interface {
	Describe() Description
}

// Description is who a plugin says it is.
type Description struct {
	Name    string // empty: the name of the program; up to 64 printable ASCII characters
	Version string // may be empty; the same limit

	// MaxParallel is how many Checks it wants at once. Zero: as many as the daemon allows.
	MaxParallel int
}

// Validate reports what of the limits of [Description] is not kept.
func (d Description) Validate() error {
	if d.Name == "" {
		return errors.New("the plugin gives no name")
	}
	for _, s := range []string{d.Name, d.Version} {
		if len(s) > maxName {
			return fmt.Errorf("name or version of the plugin has %d bytes, and %d are allowed", len(s), maxName)
		}
		for i := range len(s) {
			if s[i] < ' ' || s[i] > '~' {
				return errors.New("name or version of the plugin is not printable ASCII")
			}
		}
	}
	if d.MaxParallel < 0 {
		return fmt.Errorf("the plugin wants %d checks at once", d.MaxParallel)
	}
	return nil
}

// Request names the account that is asked about.
type Request struct {
	AccountID int64  // the daemon's number of the account; it stays the same when the login changes. 0: it is only about to be made
	Login     string // canonical, normalised, 1 to [MaxLogin] bytes of UTF-8
}

// Validate reports what of the limits of [Request] is not kept.
func (r Request) Validate() error {
	switch {
	case r.Login == "":
		return errors.New("the request names no login")
	case len(r.Login) > MaxLogin:
		return fmt.Errorf("the login has %d bytes, and %d are allowed", len(r.Login), MaxLogin)
	case !utf8.ValidString(r.Login):
		return errors.New("the login is not UTF-8")
	}
	return nil
}

// Limits of what is asked and answered, in bytes.
const (
	MaxLogin      = 512
	MaxReasonCode = 64
	maxName       = 64
)

// Status is what a plugin knows about an account. The zero Status is no answer.
type Status uint8

const (
	Enrolled       Status = 1 // has a second factor
	NotEnrolled    Status = 2 // has none
	Exempt         Status = 3 // needs none, says the site
	AccountUnknown Status = 4 // nothing is known by that name; refused like NotEnrolled
)

// Known reports whether s is one of the four.
func (s Status) Known() bool { return s >= Enrolled && s <= AccountUnknown }

// Allows reports whether app passwords may be used: Enrolled and Exempt.
func (s Status) Allows() bool { return s == Enrolled || s == Exempt }

// String returns the word for the log, such as "not_enrolled".
func (s Status) String() string {
	switch s {
	case Enrolled:
		return "enrolled"
	case NotEnrolled:
		return "not_enrolled"
	case Exempt:
		return "exempt"
	case AccountUnknown:
		return "account_unknown"
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Answer is what a plugin says about an account. The zero Answer is refused as an error.
type Answer struct {
	Status Status

	// ValidFor is how long the daemon may go by this answer without asking again. It keeps an answer for at least 1 second, so
	// that many logins at once cost one question, and for at most 15 minutes, or 30 seconds if the answer refuses: a user who
	// enrols wants to get in. Zero leaves it to the daemon: 1 minute, or 10 seconds if it refuses.
	ValidFor time.Duration

	// ReasonCode says why, for the operator's log: up to [MaxReasonCode] of a-z, 0-9 and _. It may be empty.
	ReasonCode string
}

// Validate reports what of the limits of [Answer] is not kept. The daemon takes such an answer for an error.
func (a Answer) Validate() error {
	switch {
	case !a.Status.Known():
		return fmt.Errorf("the answer has no known status: %d", uint8(a.Status))
	case a.ValidFor < 0:
		return fmt.Errorf("the answer is valid for a negative time: %v", a.ValidFor)
	case len(a.ReasonCode) > MaxReasonCode:
		return fmt.Errorf("the reason code has %d bytes, and %d are allowed", len(a.ReasonCode), MaxReasonCode)
	}
	for i := range len(a.ReasonCode) {
		if c := a.ReasonCode[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return errors.New("the reason code has other characters than a-z, 0-9 and _")
		}
	}
	return nil
}
