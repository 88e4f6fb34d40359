package auth

import "errors"

// Decision is the answer to a Request. The zero Decision rejects.
type Decision struct {
	OK     bool
	Reason Reason // for the operator's log; no client ever sees it

	// Login is the canonical login of the account, set only if OK. Protocols that rename the user return it.
	Login     string
	AccountID int64
	Label     string // of the app password that matched, also when it was refused; empty if none did
}

// Reason says why a login was accepted or rejected.
type Reason string

const (
	Accepted          Reason = "accepted"
	NoMatch           Reason = "no_match"            // the account is known, no app password of it matches
	UnknownLogin      Reason = "unknown_login"       // no account goes by this login
	BadFormat         Reason = "bad_format"          // cannot be an app password; typically the main password
	EmptyPassword     Reason = "empty_password"      // no attempt at all: some peers send it when their client hangs up
	Revoked           Reason = "revoked"             // matched a tombstone
	Expired           Reason = "expired"             // matched one that ran out by date or by disuse
	ServiceNotAllowed Reason = "service_not_allowed" // matched, but not for this service
	NetworkNotAllowed Reason = "network_not_allowed" // matched, but not from this address, or the address is not known
	AccountDisabled   Reason = "account_disabled"
	NotEnrolled       Reason = "not_enrolled"      // matched, but the user has no second factor
	ReaderOnly        Reason = "reader_only"       // matched, but the account is a reader, which may only search the directory
	GroupNotAllowed   Reason = "group_not_allowed" // matched, but the user is not in the group whose members may log in here
)

// Counts reports whether a rejection for this reason looks like guessing (reference/security.md section 4.3, classes A
// and B); a [Throttle] excepts what repeats itself (class D). What a forgotten device or a misconfigured client does never counts, so that nobody is banned for it.
func (r Reason) Counts() bool {
	return r == NoMatch || r == UnknownLogin || r == BadFormat
}

// Errors that mean undecided. Authenticate may also return others, from the store or the plugin; all of them mean
// undecided. A front end needs to branch on none of them.
var (
	// ErrOverloaded: more logins are waiting than the daemon can serve in time.
	ErrOverloaded = errors.New("too many logins are waiting")
	// ErrThrottled: so many guesses of one source wait for their answers that this one was not looked at.
	ErrThrottled = errors.New("too many guesses from this address are waiting")
	// ErrShuttingDown: the daemon is stopping.
	ErrShuttingDown = errors.New("shutting down")
)
