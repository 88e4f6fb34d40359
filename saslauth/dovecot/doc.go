// Package dovecot is the front end for the Dovecot authentication client protocol, version 1.2, as spoken by Postfix,
// Exim, Radicale, chasquid and Dovecot's own login processes: [Server] answers them, [Client] asks as they do.
//
// It refuses to know what an account or an app password is, and whom to slow down: it turns an AUTH line into an
// [auth.Request] and the three outcomes into what each kind of peer understands. It offers PLAIN and LOGIN only, and
// not the auth-master and auth-userdb protocols.
//
// The one rule a newcomer would break: an undecided login is not a FAIL. Postfix and Exim tell the user "wrong
// password" for every FAIL, whatever its code, and "try again later" only if the connection is closed; Dovecot's
// login processes want it the other way round. See [Tempfail].
//
// The facts about the peers are in reference/mail-protocols.md sections 0, 1 and 6.
package dovecot
