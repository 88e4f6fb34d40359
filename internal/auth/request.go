package auth

import (
	"context"
	"net/netip"
)

// Request is one login as a front end received it. Login and Password are the bytes of the wire, not yet normalised.
type Request struct {
	Login    string
	Password string // secret: never log it, never put it into an error

	Service  string     // what is logged in to: "imap", "smtp", "ldap", "wiki"; lower-cased by Authenticate
	FrontEnd string     // who asks: "ldap", "dovecot", "saslauthd", "checkpassword", "http"
	Listener string     // where it was asked, as in the configuration: "unix:/run/valetkey/dovecot-auth"
	Addr     netip.Addr // the user's address if the protocol carries one; the zero Addr is "not known"
	TLS      TLSState   // how the password travelled to us or to the peer, as far as the protocol tells
	Session  string     // the peer's id of the session, for the log; may be client-controlled

	// Reader is true where a [Reader] logs in to search the directory: a [Person] is as unknown there. Everywhere else a Reader
	// is rejected, also with the right secret.
	Reader bool
	Gate   Gate // nil: everybody may log in

	Holding *Holding // how a refusal may be held back here; nil: not at all
	Holder  Holder   // told if it is; nil: nobody
	Pace    *Pace    // of a connection on which the next request waits for this answer; nil: none does, or it may

	Keep *Standing // filled if the login is accepted; nil: nobody will ask again
}

// Gate knows who may log in at all where a request came from. It is asked last, when everything else is in order. Its values can be
// compared.
type Gate interface {
	// Admits returns an error if it is not known, which makes the login undecided. login is canonical.
	Admits(ctx context.Context, login string) (bool, error)
}

// TLSState says how the user's password travelled, as far as the protocol tells us.
type TLSState uint8

const (
	TLSUnknown TLSState = iota // the protocol does not say
	TLSNo                      // in clear
	TLSYes                     // encrypted, or never left the machine
)

// Limits of what a login may carry, in bytes.
const (
	MaxLogin    = 512 // RFC 5321 allows 64+1+255, PRECIS may lengthen a name; a longer one is rejected without a lookup
	MaxPassword = 512 // a longer one is never hashed
	MaxService  = 64  // a longer one can be named by no app password
)
