package auth

import (
	"context"
	"net/netip"
	"time"
)

// Tag selects, within an account, the one row that a generated password can match: 16 bits of a keyed hash of the
// normalised password, with the id of the pepper that keyed it.
type Tag struct {
	PepperID int32
	Value    uint16
}

// Rows reads accounts and app passwords, fresh at every call.
type Rows interface {
	// Lookup returns the account that goes by this normalised login, with every app password of it that could match
	// one of the tags: the rows with an equal tag, the rows without a tag, and the rows whose pepper is that of none of
	// the tags. Tombstones are included. No tags at all (the password cannot be a generated one) selects the rows
	// without a tag only.
	//
	// An unknown login is (nil, nil). An error means that nothing is known.
	Lookup(ctx context.Context, login string, tags []Tag) (*Found, error)
}

// Found is what [Rows.Lookup] read.
type Found struct {
	AccountID  int64
	Login      string // canonical
	Enabled    bool
	Kind       Kind
	Candidates []Candidate
}

// Candidate is a row that may match the password.
type Candidate struct {
	ID       int64
	Label    string
	PHC      string // never log it
	Origin   Origin
	Services []string       // empty: all; lower case
	Networks []netip.Prefix // empty: all
	Revoked  bool
	Expired  bool // by the database's clock
	Exempt   bool // of a device without a person: no second factor is asked for
	// Replaces is the row with the old secret, which an accepted login with this row ends; zero: none.
	Replaces int64
}

// Secrets knows the text of app passwords and their hashes; it is pure computation.
type Secrets interface {
	// Normalise folds what a person may type into what was issued. ok is false if it cannot be a generated password.
	Normalise(password string) (normalised string, ok bool)
	// Tags appends one tag for each pepper of the ring to dst.
	Tags(dst []Tag, normalised string) []Tag
	// Verify compares in constant time. It is slow by design: call it only through the admission. An error means
	// that the stored hash could not be read or is too expensive, and says nothing about the password.
	Verify(phc, password string) (bool, error)
}

// Enrolment says whether the user has a second factor. It is asked only after the password matched, and never for an app password
// that is exempt. The account's login is canonical; the password is not in req any more.
type Enrolment interface {
	// Enrolled returns an error if it is not known, which makes the login undecided. note is one word for the log: why the user
	// is refused, or what let him in other than the plugin's word. It may be empty.
	Enrolled(ctx context.Context, accountID int64, login string, req *Request) (ok bool, note string, err error)
}

// Recorder takes note of attempts for last-used times and the audit log. It must return at once and never fail.
type Recorder interface {
	Record(Attempt)
}

// Attempt is a login whose account is known, after the decision.
type Attempt struct {
	At            time.Time
	AccountID     int64
	AppPasswordID int64 // 0 if none matched
	Replaces      int64 // [Candidate.Replaces] of the row that matched
	OK            bool
	Reason        Reason
	Service       string
	FrontEnd      string
	Addr          netip.Addr // zero: not known
}

// Strangers takes note of attempts at logins that no account goes by, in a form whose size guessers cannot drive: whoever
// guesses chooses the logins. It must return at once and never fail.
type Strangers interface {
	RecordStranger(login string, a Attempt)
}

// PastAttempt is what is remembered of attempts that were alike.
type PastAttempt struct {
	First, Last time.Time
	Count       int64
	Reason      Reason
	Label       string // of the app password that matched; empty: none did, or it is not there any more
	Service     string
	FrontEnd    string
	Addr        netip.Addr // zero: not known, or several
}
