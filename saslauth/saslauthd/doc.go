// Package saslauthd is the front end for the protocol of Cyrus saslauthd's mux socket, as spoken by libsasl2 (Postfix,
// slapd, Cyrus IMAP), Exim and testsaslauthd: [Server] answers them, [Check] asks as they do.
//
// It refuses to know what an account or an app password is, and whom to slow down: it turns four counted strings into
// an [auth.Request] and the three outcomes into OK, NO and a closed connection. It never tells why: the text after OK
// and NO is dropped by every peer. Nor can it tell the canonical login: the peer goes on with the name that its user
// gave, be it an alias.
//
// The one rule a newcomer would break: an undecided login gets no reply at all. The protocol has no word for it.
// Postfix and Exim tell the user "try again later" only if the connection is closed without a byte; any other word
// than OK is "wrong password" to one peer or another.
//
// The facts about the peers are in reference/mail-protocols.md section 3.
package saslauthd
