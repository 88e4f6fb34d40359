package auth

import "time"

// Meter counts logins. It must return at once and be safe for concurrent use: it is called in the middle of every login.
type Meter interface {
	// Outcome is told of each login once, as its log line is. result is "ok", "fail" or "undecided"; reason is one of [Reasons] or of
	// [UndecidedReasons]; took is how long the decision took, without the time for which a refusal is held back.
	Outcome(frontEnd, result, reason string, took time.Duration)
}

// Reasons are all there are of a decision. A new one belongs here too, or the meter counts it under "other".
var Reasons = []Reason{
	Accepted, NoMatch, UnknownLogin, BadFormat, EmptyPassword, Revoked, Expired, ServiceNotAllowed, NetworkNotAllowed, AccountDisabled,
	NotEnrolled, ReaderOnly, GroupNotAllowed,
}

// UndecidedReasons are all there are of no decision.
var UndecidedReasons = []string{"overloaded", "throttled", "shutting_down", "client_gone", "timeout", "unavailable"}
