// Package ldapbridge is the LDAP front end (RFC 4511, 4513): it turns simple binds into login requests, and shows a user
// who is logged in the entry that the directory has of the account.
//
// It refuses to know passwords, hashes and SQL: an [Authenticator] decides, and entries come from a [Directory]. It never
// writes, never refers elsewhere, and has no attribute that holds a password.
//
// The one rule a newcomer would break: result code 49 is for a decision that rejects, and nothing else. What could not be
// decided is 80, never 51 or 52, which make some clients retry at once and others abort (reference/ldap-clients.md
// section 3).
package ldapbridge
