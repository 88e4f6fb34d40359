package checkpassword

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// answer decides a request.
func (c *conn) answer(ctx context.Context, r wire.Request) wire.Reply {
	if r.Op.Lookup() {
		c.srv.lookups.Add(1)
		return c.lookup(ctx, r)
	}
	reply := c.login(ctx, r)
	switch reply.Outcome {
	case wire.Accepted:
		c.srv.passed.Add(1)
	case wire.Rejected:
		c.srv.rejected.Add(1)
	default:
		c.srv.undecided.Add(1)
	}
	return reply
}

// login has the password checked.
func (c *conn) login(ctx context.Context, r wire.Request) wire.Reply {
	req := auth.Request{
		Login:    r.User,
		Password: r.Password,
		Service:  r.Service,
		FrontEnd: "checkpassword",
		Listener: c.listener,
		Session:  r.Session,
	}
	if req.Session == "" { // qmail and PAM have none: something to find the attempt by
		req.Session = strconv.FormatUint(uint64(c.id), 16)
	}
	// A host name (PAM_RHOST may be one) is no address: nothing is looked up.
	if addr, err := netip.ParseAddr(r.Remote); err == nil {
		req.Addr = addr.Unmap().WithZone("")
	}
	switch r.TLS {
	case wire.TLSNo:
		req.TLS = auth.TLSNo
	case wire.TLSYes:
		req.TLS = auth.TLSYes
	}
	d, err := c.srv.auth.Authenticate(ctx, req)
	switch {
	case err != nil:
		return wire.Reply{Outcome: wire.Undecided}
	case !d.OK:
		return wire.Reply{Outcome: wire.Rejected}
	case d.Login == "":
		// Whoever started the helper would take the name from here; an empty one would be somebody.
		c.log.Error("checkpassword: accepted without a login, taken as undecided")
		return wire.Reply{Outcome: wire.Undecided}
	case r.Op == wire.Check:
		return wire.Reply{Outcome: wire.Accepted, User: d.Login}
	}
	account, err := c.srv.dir.Entry(ctx, d.Login)
	if err != nil {
		// Without its fields the account could be served as another system user, or from another home.
		c.log.Warn("checkpassword: accepted, but the account could not be read: undecided", auth.Quoted("user", d.Login), "error", err)
		return wire.Reply{Outcome: wire.Undecided}
	}
	return c.account(account)
}

// lookup answers a request without a password.
func (c *conn) lookup(ctx context.Context, r wire.Request) wire.Reply {
	if !c.srv.cfg.AllowLookup {
		c.log.Warn("checkpassword: refusing a lookup: this listener does not allow them")
		return wire.Reply{Outcome: wire.Refused}
	}
	login, err := auth.NormaliseLogin(r.User)
	if err != nil {
		return wire.Reply{Outcome: wire.Unknown} // no account can have such a name
	}
	account, err := c.srv.dir.Entry(ctx, login)
	switch {
	case errors.Is(err, auth.ErrNoAccount):
		return wire.Reply{Outcome: wire.Unknown}
	case err != nil:
		c.log.Warn("checkpassword: looking up an account: undecided", auth.Quoted("user", login), "error", err)
		return wire.Reply{Outcome: wire.Undecided}
	case r.Op == wire.Credentials && !account.Enabled:
		return wire.Reply{Outcome: wire.Unknown}
	}
	return c.account(account)
}

// account is the reply that tells the account's userdb fields, or undecided if they cannot be told.
func (c *conn) account(a auth.Account) wire.Reply {
	reply := wire.Reply{Outcome: wire.Accepted, User: a.Login}
	for _, name := range slices.Sorted(maps.Keys(a.Userdb)) {
		reply.Fields = append(reply.Fields, wire.Field{Name: name, Value: a.Userdb[name]})
	}
	_, err := wire.AppendReply(nil, reply)
	if a.Login == "" || err != nil || slices.ContainsFunc(reply.Fields, func(f wire.Field) bool { return f.Name == "" }) {
		c.log.Error("checkpassword: the account has more userdb fields than a reply can carry, or one without a name: undecided",
			auth.Quoted("user", a.Login))
		return wire.Reply{Outcome: wire.Undecided}
	}
	return reply
}
