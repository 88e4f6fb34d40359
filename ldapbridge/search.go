package ldapbridge

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Values of scope (RFC 4511 section 4.5.1.2).
const (
	scopeBase        = 0
	scopeOne         = 1
	scopeSub         = 2
	scopeSubordinate = 3 // all but the base; OpenLDAP's
)

// search answers a SearchRequest. An error means that the PDU is broken.
func (c *conn) search(m *message) error {
	var req searchRequest
	if err := req.decode(m.body); err != nil {
		return err
	}
	r, err := c.searchEntries(m, &req)
	if err != nil {
		return err
	}
	c.out = appendResponse(c.out, m.id, opSearchDone, r)
	return nil
}

// searchEntries appends the entries and returns the result that ends them.
func (c *conn) searchEntries(m *message, req *searchRequest) (result, error) {
	l := &c.srv.cfg.Limits
	switch err := checkFilter(req.filter, l); {
	case errors.Is(err, errDecoding):
		return result{}, err
	case err != nil:
		return result{code: protocolError, diag: err.Error()}, nil
	}
	switch {
	case m.unknownCritical():
		return result{code: unavailableCriticalExt}, nil
	case req.scope < scopeBase || req.scope > scopeSubordinate:
		return result{code: protocolError, diag: "invalid scope"}, nil
	case req.deref < 0 || req.deref > 3: // checked and ignored: there are no aliases
		return result{code: protocolError, diag: "invalid derefAliases"}, nil
	case req.sizeLimit < 0:
		return result{code: protocolError, diag: "invalid size limit"}, nil
	case req.timeLimit < 0:
		return result{code: protocolError, diag: "invalid time limit"}, nil
	}
	sel, ok := newSelection(req.attributes, l.Attributes)
	if !ok {
		return result{code: protocolError, diag: "too many attributes"}, nil
	}
	sent := int32(0)
	// emit returns false when the client wants no more.
	emit := func(e *entry) bool {
		if e.match(req.filter, l) != isTrue {
			return true
		}
		if req.sizeLimit > 0 && sent == req.sizeLimit {
			return false
		}
		sent++
		c.out = e.append(c.out, m.id, &sel, req.typesOnly)
		return true
	}

	if len(req.base) == 0 && req.scope == scopeBase {
		emit(c.srv.root)
		return result{}, nil
	}
	if c.login == "" {
		return result{code: insufficientAccess, diag: "bind first"}, nil
	}
	timeLimit := time.Duration(req.timeLimit) * time.Second
	var t target
	if len(req.base) == 0 && req.scope == scopeSub {
		// Clients without a configured base search everything below the root.
		t.level = len(c.srv.containers) - 1
	} else {
		var r result
		if t, r = c.locate(req.base, timeLimit); r.code != success {
			return r, nil
		}
	}

	// The tree is a chain: the containers from the suffix down to the parent of the accounts, then the own entry.
	lowest, highest := t.level, t.level
	switch req.scope {
	case scopeOne:
		lowest, highest = t.level-1, t.level-1
	case scopeSub:
		lowest = ownLevel
	case scopeSubordinate:
		lowest, highest = ownLevel, t.level-1
	}
	if lowest <= ownLevel && ownLevel <= highest && t.own == nil {
		var r result
		if _, t.own, r = c.ownEntry(timeLimit); r.code != success {
			return r, nil
		}
	}
	for level := highest; level >= max(lowest, ownLevel); level-- {
		e := t.own
		if level > ownLevel {
			e = c.srv.containers[level]
		}
		if e != nil && !emit(e) {
			return result{code: sizeLimitExceeded}, nil
		}
	}
	return result{}, nil
}

// ownLevel is the level of the own entry; the levels above it index Server.containers.
const ownLevel = -1

// target is an entry that the bound user may see: an index in Server.containers, or ownLevel and the entry.
type target struct {
	level int
	own   *entry
}

// locate finds the entry of this name. Whatever the user may not see is not there: the result is the same
// noSuchObject, with the nearest ancestor that is visible.
func (c *conn) locate(name []byte, timeLimit time.Duration) (target, result) {
	s := c.srv
	d := &c.name
	if d.parse(name, &s.cfg.Limits) != nil {
		return target{}, result{code: invalidDNSyntax}
	}
	missing := result{code: noSuchObject}
	for level, e := range s.containers {
		if !d.endsWith(e.dn) {
			continue
		}
		if d.rdns() == e.dn.rdns() {
			return target{level: level}, result{}
		}
		missing.matched = e.name
		if level > 0 {
			return target{}, missing
		}
		// Below the parent of the accounts. The name may be an alias of the user's login.
		login, ok := s.loginOf(d.rdn(d.rdns() - s.people.rdns() - 1))
		if !ok {
			return target{}, missing
		}
		key, err := auth.NormaliseLogin(login)
		if err != nil {
			return target{}, missing
		}
		acct, own, r := c.ownEntry(timeLimit)
		if r.code != success {
			return target{}, r
		}
		if own == nil || key != acct.Login && !slices.Contains(acct.Aliases, key) {
			return target{}, missing
		}
		if d.rdns() > s.people.rdns()+1 {
			missing.matched = own.name
			return target{}, missing
		}
		return target{level: ownLevel, own: own}, result{}
	}
	return target{}, missing
}

// ownEntry reads the account of the bound user, which may have been disabled or deleted since the bind: the entry is nil then.
func (c *conn) ownEntry(timeLimit time.Duration) (acct auth.Account, e *entry, r result) {
	if !c.flush() { // the directory may keep us waiting
		return acct, nil, result{code: other, diag: temporaryFailure}
	}
	limit := c.srv.cfg.Limits.Decision
	clients := timeLimit > 0 && timeLimit < limit
	if clients {
		limit = timeLimit
	}
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	acct, err := c.srv.dir.Entry(ctx, c.login)
	switch {
	case errors.Is(err, auth.ErrNoAccount):
		return acct, nil, result{}
	case err != nil && clients && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return acct, nil, result{code: timeLimitExceeded}
	case err != nil:
		c.srv.stats.undecided.Add(1)
		c.srv.log.LogAttrs(ctx, slog.LevelWarn, "ldap: entry cannot be read",
			auth.Quoted("user", c.login), slog.String("session", c.session), slog.Any("err", err))
		return acct, nil, result{code: other, diag: temporaryFailure}
	case !acct.Enabled:
		return acct, nil, result{}
	}
	return acct, c.srv.personEntry(&acct), result{}
}

// compare answers a CompareRequest (RFC 4511 section 4.10).
func (c *conn) compare(m *message) error {
	var req compareRequest
	if err := req.decode(m.body); err != nil {
		return err
	}
	c.out = appendResponse(c.out, m.id, opCompareResponse, c.compareResult(m, &req))
	return nil
}

func (c *conn) compareResult(m *message, req *compareRequest) result {
	if m.unknownCritical() {
		return result{code: unavailableCriticalExt}
	}
	if c.login == "" {
		return result{code: insufficientAccess, diag: "bind first"}
	}
	e := c.srv.root
	if len(req.entry) > 0 {
		t, r := c.locate(req.entry, 0)
		switch {
		case r.code != success:
			return r
		case t.own != nil:
			e = t.own
		default:
			e = c.srv.containers[t.level]
		}
	}
	t, values := e.find(req.ava.description)
	switch {
	case t == nil:
		return result{code: undefinedAttributeType}
	case len(values) == 0:
		return result{code: noSuchAttribute}
	case anyEqual(t.rule, values, req.ava.value, &c.srv.cfg.Limits) == isTrue:
		return result{code: compareTrue}
	}
	return result{code: compareFalse}
}
