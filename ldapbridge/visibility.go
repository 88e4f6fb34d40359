package ldapbridge

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// identity is who a connection is since its last bind. The zero value is anonymous.
type identity struct {
	login  string       // canonical; empty: anonymous
	reader bool         // a service account, which may see everything below the suffix
	app    *application // below which it bound
	name   *dn          // of its entry, if the source said; of a reader always
	uid    string       // by which groups name it
	nobody bool         // there is no such user; no connection ever has this identity

	standing auth.Standing // what the bind rests on
	stoodAt  time.Time     // when it last did
}

// standsFor is for how long a bind that still held is not looked at again.
const standsFor = time.Second

// errWithdrawn: the account was disabled, the app password revoked, or the like, since the client bound. The connection ends.
var errWithdrawn = errors.New("the bind does not hold any more")

// stands makes sure that what the client bound with would still do: a connection may stay open for weeks, and with it whoever has
// stolen a reader's secret. An error is errWithdrawn; a result other than success is the answer.
func (c *conn) stands() (result, error) {
	now := time.Now()
	if now.Sub(c.stoodAt) < standsFor {
		return result{}, nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.cfg.Limits.Decision)
	defer cancel()
	reason, err := c.srv.auth.Stands(ctx, &c.standing)
	switch {
	case err != nil:
		c.srv.stats.undecided.Add(1)
		c.srv.log.LogAttrs(ctx, slog.LevelWarn, "ldap: whether the bind still holds cannot be found out",
			auth.Quoted("user", c.login), slog.String("session", c.session), slog.Any("err", err))
		return result{code: other, diag: temporaryFailure}, nil
	case reason != auth.Accepted:
		c.srv.log.LogAttrs(ctx, slog.LevelInfo, "ldap: connection ended, the bind does not hold any more",
			auth.Quoted("user", c.login), slog.String("session", c.session), slog.String("reason", string(reason)))
		c.identity = identity{}
		return result{}, errWithdrawn
	}
	c.stoodAt = now
	return result{}, nil
}

// dn returns the name of the entry that bound.
func (s *Server) dn(id *identity) *dn {
	name := id.name
	if name == nil {
		name = s.accountDN(id.login)
	}
	return s.join(id.app, name)
}

// sees says whether the entry is there for this identity. What is not must be as if it did not exist: filters never look at it,
// and asking for it by name finds the same as asking for something made up.
func (id *identity) sees(e *entry) bool {
	switch {
	case id.reader, e.kind == kindContainer:
		return id.login != ""
	case e.kind == kindPerson, e.kind == kindGroup:
		return id.login != "" && slices.Contains(e.logins, id.login)
	}
	return false
}

// shown returns what this identity may see of an entry that it sees: a group tells a person that he is a member, and of nobody else,
// since the others are not there for him. Filters and comparisons look at what is shown.
func (s *Server) shown(id *identity, e *entry) *entry {
	if id.reader || e.kind != kindGroup {
		return e
	}
	own := id.name
	if own == nil {
		own = s.accountDN(id.login)
	}
	limits := s.cfg.Limits
	limits.DN, limits.RDNs = maxUpstreamName, maxAVAs
	var d dn
	others := func(t *attributeType, value string) bool {
		if t == typeMemberUID {
			login, err := auth.NormaliseLogin(value)
			return err != nil || login != id.uid
		}
		return d.parse([]byte(value), &limits) != nil || !d.equal(own)
	}
	less := *e
	less.attrs = nil
	for _, a := range e.attrs {
		if groupTypes[a.typ] {
			a.values = slices.DeleteFunc(slices.Clone(a.values), func(v string) bool { return others(a.typ, v) })
		}
		if len(a.values) > 0 {
			less.attrs = append(less.attrs, a)
		}
	}
	return &less
}

// enters says whether this identity may look below the application (nil: the plain tree). Whoever bound below one application
// knows of nothing else; in the plain tree there are readers who may look everywhere, and persons who see no application.
func (id *identity) enters(app *application) bool { return id.app == app || id.app == nil && id.reader }

// operation is a look into the directory on behalf of a client.
type operation struct {
	c      *conn
	ctx    context.Context
	cancel context.CancelFunc
	q      query
}

// begin starts the clock of an operation. timeLimit is the client's, or zero.
func (c *conn) begin(timeLimit time.Duration, filter []byte, sel *selection) *operation {
	limit := c.srv.cfg.Limits.SearchTime
	if timeLimit > 0 && timeLimit < limit {
		limit = timeLimit
	}
	o := &operation{c: c}
	o.ctx, o.cancel = context.WithTimeout(c.ctx, limit)
	o.q = query{viewer: viewer{login: c.login, reader: c.reader, name: c.identity.name}, filter: filter, sel: sel, srv: c.srv}
	return o
}

// failed turns an error of the source into a result.
func (o *operation) failed(err error) result {
	if errors.Is(err, errTimeLimit) || errors.Is(o.ctx.Err(), context.DeadlineExceeded) {
		return result{code: timeLimitExceeded}
	}
	if errors.Is(err, errSizeLimit) {
		return result{code: sizeLimitExceeded}
	}
	c := o.c
	c.srv.stats.undecided.Add(1)
	c.srv.log.LogAttrs(o.ctx, slog.LevelWarn, "ldap: the directory cannot be read",
		auth.Quoted("user", c.login), slog.String("session", c.session), slog.Any("err", err))
	return result{code: other, diag: temporaryFailure}
}

// read returns the entry of a name of the plain tree, or nil if there is none that the client may see.
func (o *operation) read(name *dn) (*entry, error) {
	e, err := o.c.srv.src.entry(o.ctx, &o.q, name)
	switch {
	case errors.Is(err, errNoEntry):
		return nil, nil
	case err != nil:
		return nil, err
	case !o.c.sees(e):
		return nil, nil
	}
	return o.c.srv.shown(&o.c.identity, e), nil
}

// locate finds the entry of a name that the client wrote and says in o.q below which application it hangs. Whatever the client
// may not see is not there: the result is the same noSuchObject, with the nearest ancestor that is visible.
func (o *operation) locate(name []byte) (*entry, result) {
	c := o.c
	s, d := c.srv, &c.name
	if d.parse(name, &s.cfg.Limits) != nil {
		return nil, result{code: invalidDNSyntax}
	}
	if !c.flush() { // the directory may keep us waiting
		return nil, result{code: other, diag: temporaryFailure}
	}
	missing := result{code: noSuchObject}
	app, plain := s.split(d)
	switch {
	case plain == nil || !c.enters(app):
		if c.app == nil && d.endsWith(s.base) {
			missing.matched = s.base.String()
		}
		return nil, missing
	}
	o.q.app = app
	e, err := o.read(plain)
	if err != nil {
		return nil, o.failed(err)
	}
	if e != nil {
		return e, result{}
	}
	for up := plain.rdns() - s.base.rdns(); up > 0; up-- {
		e, err := o.read(plain.above(up))
		if err != nil {
			return nil, o.failed(err)
		}
		if e == nil {
			break
		}
		missing.matched = s.inApplication(app, e).name
	}
	return nil, missing
}
