package ldapbridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
)

const temporaryFailure = "temporary failure"

// bind answers a BindRequest by the table of reference/ldap-server.md section 3. An error means that the PDU is broken.
//
// The identity is anonymous from here on (RFC 4513 section 4); only a success sets another.
func (c *conn) bind(m *message) error {
	c.identity = identity{}
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
	if !c.flush() { // earlier answers must not wait for this decision
		return result{code: other, diag: temporaryFailure}
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.cfg.Limits.Decision)
	defer cancel()
	id, reason, err := c.srv.whoBinds(ctx, &c.name, name)
	switch {
	case err != nil:
		c.srv.log.LogAttrs(ctx, slog.LevelWarn, "ldap: whose name this is cannot be found out",
			auth.Quoted("name", clip(name)), slog.String("session", c.session), slog.Any("err", err))
		return result{code: other, diag: temporaryFailure}
	case reason != "":
		// It guesses at no account, so it counts for nothing; a wrong base DN in an application's settings looks like this.
		c.logRejected(reason, false, c.srv.cfg.Service, clip(name))
		c.srv.auth.Refused(ctx, auth.Request{Pace: &c.pace}) // behind an upstream, some names are somebody's and some are not
		return result{code: invalidCredentials}
	}
	if len(password) > c.srv.cfg.Limits.Password || bytes.IndexByte(password, 0) >= 0 || !utf8.Valid(password) {
		c.logRejected(string(auth.BadFormat), true, c.srv.service(id.app), clip([]byte(id.login)))
		c.srv.auth.Refused(ctx, auth.Request{Pace: &c.pace})
		return result{code: invalidCredentials}
	}
	begun := time.Now()
	d, err := c.srv.auth.Authenticate(ctx, auth.Request{
		Login:    id.login,
		Password: string(password),
		Service:  c.srv.service(id.app),
		FrontEnd: "ldap",
		Listener: c.listener,
		Addr:     c.addr,
		TLS:      c.tls,
		Session:  c.session,
		Reader:   id.reader,
		Gate:     c.srv.gate(&id),
		Keep:     &c.standing,
		Pace:     &c.pace,
	})
	switch {
	case err != nil:
		return result{code: other, diag: temporaryFailure}
	case !d.OK, id.nobody:
		return result{code: invalidCredentials}
	case d.Login == "":
		c.srv.log.LogAttrs(ctx, slog.LevelError, "ldap: accepted without a login", slog.String("session", c.session))
		return result{code: other, diag: temporaryFailure}
	}
	id.login, id.standing, id.stoodAt = d.Login, c.standing, begun
	if id.uid == "" {
		id.uid = d.Login
	}
	if id.reader {
		id.name = c.srv.readers.below(ava{typ: typeCN.name, value: []byte(d.Login)})
	}
	c.identity = id
	c.privileged = true
	return result{}
}

// Reasons of the log for names that cannot mean an account of ours.
const (
	badDN     = "bad_dn"     // not a DN, or one whose first RDN cannot be a login
	foreignDN = "foreign_dn" // a DN outside the parent of the accounts
)

// whoBinds says whom a bind name means. The login is not yet normalised: that is the authenticator's, so that the whole daemon
// has one form. With a reason the name means nobody; an error means that nothing is known. d is scratch.
func (s *Server) whoBinds(ctx context.Context, d *dn, name []byte) (id identity, reason string, err error) {
	if d.parse(name, &s.cfg.Limits) != nil {
		return id, badDN, nil
	}
	app, plain := s.split(d)
	if plain == nil {
		return id, foreignDN, nil
	}
	id.app = app
	if plain.isBelow(s.readers, scopeOne) {
		login, ok := nameIn(plain.rdn(0), typeCN)
		if !ok {
			return id, badDN, nil
		}
		id.login, id.reader = login, true
		return id, "", nil
	}
	who, err := s.src.resolve(ctx, plain)
	switch {
	case errors.Is(err, errBadName):
		return id, badDN, nil
	case errors.Is(err, errNoEntry):
		return id, foreignDN, nil
	case errors.Is(err, errNobody):
		id.login, id.nobody = strangerLogin(plain), true
		return id, "", nil
	case err != nil:
		return id, "", err
	}
	if id.login, id.name = who.login, who.name; id.name != nil {
		id.uid = who.login
	}
	return id, "", nil
}

// strangerLogin is the login under which the name of a user who does not exist is looked for, so that as much is done for it as for that of
// one who does, and the log and the throttle know it. It is the name itself, in characters that a login may have: nobody is called so.
func strangerLogin(name *dn) string {
	var login []byte
	for _, c := range name.append(nil) {
		if c <= ' ' || c >= 0x7f {
			login = fmt.Appendf(login, "%%%02X", c)
		} else {
			login = append(login, c)
		}
	}
	return string(login[:min(len(login), auth.MaxLogin)])
}

// nameIn returns the value of an RDN, which must be of this one attribute and can be the name of an account or a group.
func nameIn(rdn []ava, t *attributeType) (string, bool) {
	if len(rdn) != 1 || rdn[0].typ != t.name {
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
func (c *conn) logRejected(reason string, counts bool, service, user string) {
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
		slog.String("svc", service),
		auth.Quoted("user", user),
		slog.String("session", c.session))
}

// loggedName bounds what a client can put into a log line, in bytes.
const loggedName = 256

func clip(name []byte) string {
	return auth.Clip(string(name[:min(len(name), loggedName+1)]), loggedName)
}
