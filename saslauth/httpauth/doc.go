// Package httpauth is the front end for peers that ask over HTTP: Dovecot's oauth2 passdb with the password grant (2.3
// and 2.4), nginx's mail proxy (auth_http), and web servers that have HTTP Basic credentials checked by a subrequest
// (nginx auth_request, Caddy forward_auth, Traefik ForwardAuth). One [Server] has all three endpoints; each is served
// only if it is configured.
//
// It refuses to know what an account or an app password is, and whom to slow down: it turns a request into an
// [auth.Request] and the three outcomes into what each kind of peer understands. It issues no tokens: what the password
// grant calls one opens nothing. It does not speak TLS: peers are on loopback or a Unix socket.
//
// The one rule a newcomer would break: the address of the TCP peer is never the user's address. It belongs to a mail
// server or a proxy. The user's address is what an authenticated peer says it is, or not known.
//
// The facts about the peers are in reference/mail-protocols.md sections 4.1 and 5.
package httpauth
