package auth

import "net/netip"

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
