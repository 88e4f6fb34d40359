// Package checkpassword is the front end for the checkpassword helper, cmd/valetkey-checkpassword, which Dovecot 2.3,
// qmail and pam_exec start for each login: [Server] answers it over a Unix socket in the protocol of package wire.
//
// It refuses to know fd 3, environments and what the helper's parent expects of it; whom to slow down; and how an
// account is stored.
//
// The one rule a newcomer would break: a request without a password says who an account is and lets nobody in. A lookup
// never asks the authenticator, and nothing that carries a password is answered from the directory alone.
//
// The facts about the programs that start the helper are in reference/mail-protocols.md sections 0 and 2.
package checkpassword
