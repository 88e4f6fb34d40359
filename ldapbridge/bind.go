package ldapbridge

import (
	"bytes"
	"context"
	"log/slog"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
)

const temporaryFailure = "temporary failure"

// bind answers a BindRequest by the table of reference/ldap-server.md section 3. An error means that the PDU is broken.
//
// The identity is anonymous from here on (RFC 4513 section 4); only a success sets another.
func (c *conn) bind(m *message) error {
	c.login = ""
	var req bindRequest
	if err := req.decode(m.body); err != nil {
		return err
	}
	r := c.bindResult(m, &req)
	clear(req.credentials) // the read buffer lives as long as the connection
	c.srv.stats.countBind(r.code)
	if r.code == success {
		c.bound = true
	}
	c.out = appendResponse(c.out, m.id, opBindResponse, r)
	return nil
}

func (c *conn) bindResult(m *message, req *bindRequest) result {
	name, password := req.name, req.credentials
	switch {
	case req.version != 3:
		return result{code: protocolError, diag: "only LDAPv3 is supported"}
	case m.unknownCritical():
		// Before the rest, since no bind with such a control may be performed, not even an anonymous one (RFC 4511
		// section 4.1.11).
		return result{code: unavailableCriticalExt}
	case req.method != methodSimple:
		return result{code: authMethodNotSupported}
	case len(name) == 0 && len(password) == 0:
		return result{} // anonymous, RFC 4513 section 5.1.1; Dovecot begins every connection with one
	case len(password) == 0:
		// Many an application takes success for a login (RFC 4513 section 5.1.2), so no lookup, and never success.
		return result{code: unwillingToPerform, diag: "unauthenticated bind (DN with no password) disallowed"}
	case len(name) == 0:
		return result{code: invalidCredentials}
	case c.srv.cfg.RequireTLS && !c.protected:
		return result{code: confidentialityRequired, diag: "TLS required"}
	}
	login, reason := c.srv.loginFromDN(&c.name, name)
	if reason != "" {
		// It guesses at no account, so it counts for nothing; a wrong base DN in an application's settings looks like this.
		c.logRejected(reason, false, clip(name))
		return result{code: invalidCredentials}
	}
	if len(password) > c.srv.cfg.Limits.Password || bytes.IndexByte(password, 0) >= 0 || !utf8.Valid(password) {
		c.logRejected(string(auth.BadFormat), true, clip([]byte(login)))
		return result{code: invalidCredentials}
	}
	if !c.flush() { // earlier answers must not wait for this decision
		return result{code: other, diag: temporaryFailure}
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.cfg.Limits.Decision)
	defer cancel()
	d, err := c.srv.auth.Authenticate(ctx, auth.Request{
		Login:    login,
		Password: string(password),
		Service:  c.srv.cfg.Service,
		FrontEnd: "ldap",
		Listener: c.listener,
		Addr:     c.addr,
		TLS:      c.tls,
		Session:  c.session,
	})
	switch {
	case err != nil:
		return result{code: other, diag: temporaryFailure}
	case !d.OK:
		return result{code: invalidCredentials}
	case d.Login == "":
		c.srv.log.LogAttrs(ctx, slog.LevelError, "ldap: accepted without a login", slog.String("session", c.session))
		return result{code: other, diag: temporaryFailure}
	}
	c.login = d.Login
	c.privileged = true
	return result{}
}

// Reasons of the log for names that cannot mean an account of ours.
const (
	badDN     = "bad_dn"     // not a DN, or one whose first RDN cannot be a login
	foreignDN = "foreign_dn" // a DN outside the parent of the accounts
)

// loginFromDN reduces a bind name to the login, unescaped but not yet normalised: that is the authenticator's, so that the
// whole daemon has one form. With a reason the name means no account. d is scratch.
func (s *Server) loginFromDN(d *dn, name []byte) (login, reason string) {
	if d.parse(name, &s.cfg.Limits) != nil {
		return "", badDN
	}
	if d.rdns() != s.people.rdns()+1 || !d.endsWith(s.people) {
		return "", foreignDN
	}
	login, ok := s.loginOf(d.rdn(0))
	if !ok {
		return "", badDN
	}
	return login, ""
}

// loginOf returns the login in an RDN, which must be of the one attribute that names accounts.
func (s *Server) loginOf(rdn []ava) (string, bool) {
	if len(rdn) != 1 || rdn[0].typ != s.rdnType.name {
		return "", false
	}
	v := rdn[0].value
	if len(v) == 0 || v[0] == ' ' || v[len(v)-1] == ' ' {
		return "", false
	}
	return string(v), true
}

// logRejected writes the line of a login that the authenticator is not asked about, in the form of its own lines
// (reference/security.md section 4.4).
func (c *conn) logRejected(reason string, counts bool, user string) {
	rip, count := "-", "no"
	if c.addr.IsValid() {
		rip = c.addr.String()
	}
	if counts {
		count = "yes"
	}
	c.srv.log.LogAttrs(c.ctx, slog.LevelInfo, "auth",
		slog.String("result", "fail"),
		slog.String("rip", rip),
		slog.String("reason", reason),
		slog.String("count", count),
		slog.String("proto", "ldap"),
		slog.String("svc", c.srv.cfg.Service),
		auth.Quoted("user", user),
		slog.String("session", c.session))
}

// loggedName bounds what a client can put into a log line, in bytes.
const loggedName = 256

func clip(name []byte) string {
	return auth.Clip(string(name[:min(len(name), loggedName+1)]), loggedName)
}
