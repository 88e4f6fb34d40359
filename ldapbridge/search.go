package ldapbridge

import (
	"context"
	"errors"
	"time"
)

// Values of scope (RFC 4511 section 4.5.1.2).
const (
	scopeBase        = 0
	scopeOne         = 1
	scopeSub         = 2
	scopeSubordinate = 3 // all but the base; OpenLDAP's
)

// search answers a SearchRequest. An error ends the connection: the PDU is broken, or errWithdrawn.
func (c *conn) search(m *message) error {
	var req searchRequest
	if err := req.decode(m.body); err != nil {
		return err
	}
	r, p, err := c.searchEntries(m, &req)
	if err != nil {
		return err
	}
	c.out = p.appendDone(c.out, c.srv, m.id, r)
	return nil
}

// searchEntries sends the entries and returns the result that ends them, with the page if one was asked for.
func (c *conn) searchEntries(m *message, req *searchRequest) (result, *page, error) {
	l := &c.srv.cfg.Limits
	nodes, err := checkFilter(req.filter, l)
	switch {
	case errors.Is(err, errDecoding):
		return result{}, nil, err
	case err != nil:
		return result{code: protocolError, diag: err.Error()}, nil, nil
	}
	switch {
	case m.unknownCritical():
		return result{code: unavailableCriticalExt}, nil, nil
	case req.scope < scopeBase || req.scope > scopeSubordinate:
		return result{code: protocolError, diag: "invalid scope"}, nil, nil
	case req.deref < 0 || req.deref > 3: // checked and ignored: there are no aliases
		return result{code: protocolError, diag: "invalid derefAliases"}, nil, nil
	case req.sizeLimit < 0:
		return result{code: protocolError, diag: "invalid size limit"}, nil, nil
	case req.timeLimit < 0:
		return result{code: protocolError, diag: "invalid time limit"}, nil, nil
	}
	sel, ok := newSelection(req.attributes, l.Attributes)
	if !ok {
		return result{code: protocolError, diag: "too many attributes"}, nil, nil
	}
	p, r := newPage(m)
	if r.code != success {
		return r, nil, nil
	}
	w := walk{operation: &operation{c: c, ctx: c.ctx}, m: m, req: req, sel: &sel, limit: l.SearchEntries, nodes: nodes, eval: c.evaluation(c.ctx)}
	if req.sizeLimit > 0 {
		w.limit = min(w.limit, int(req.sizeLimit))
	}
	if e := c.publicEntry(req.base); e != nil && (req.scope == scopeBase || len(req.base) > 0) {
		if req.scope == scopeBase || req.scope == scopeSub {
			w.emit(e, "")
		}
		return w.result(nil), p, nil
	}
	if c.login == "" {
		return result{code: insufficientAccess, diag: "bind first"}, nil, nil
	}
	if r, err := c.stands(); err != nil || r.code != success {
		return r, nil, err
	}
	w.page = p
	w.operation = c.begin(time.Duration(req.timeLimit)*time.Second, req.filter, &sel)
	defer w.cancel()
	w.eval.ctx = w.ctx
	base := req.base
	if len(base) == 0 && req.scope == scopeSub {
		// Clients without a configured base search everything below the root.
		base = []byte(c.srv.suffix(c.app))
	}
	e, r := w.locate(base)
	if r.code != success {
		return r, nil, nil
	}
	return w.below(e), p, nil
}

// publicEntry returns the entry that everybody may read, if this is the name of one.
func (c *conn) publicEntry(name []byte) *entry {
	if len(name) == 0 {
		return c.rootEntry()
	}
	if len(name) <= 2*len(subschemaName) && c.name.parse(name, &c.srv.cfg.Limits) == nil && c.name.equal(c.srv.subschema.dn) {
		return c.srv.subschema
	}
	return nil
}

// walk is a search under way.
type walk struct {
	*operation
	m   *message
	req *searchRequest
	sel *selection

	page  *page // nil: none was asked for
	limit int   // entries of the whole search, all pages
	sent  int   // in this answer
	bytes int
	end   resultCode // why emit returned false

	nodes int // of the filter
	eval  evaluation
}

// below sends the base and what lies below it, as far as the scope goes.
func (w *walk) below(base *entry) result {
	s := w.c.srv
	q := &w.q
	q.base, q.scope = base.dn, w.req.scope
	if p := w.page; p != nil {
		p.bind(w)
		if !p.resume(s) {
			return result{code: protocolError, diag: "paged results cookie is invalid"}
		}
		if p.size == 0 { // abandoned
			return result{}
		}
		q.after = p.last
	}
	if (q.scope == scopeBase || q.scope == scopeSub) && (w.page == nil || !w.page.started) {
		if !w.emit(s.inApplication(q.app, base), "") {
			return w.result(nil)
		}
	}
	if q.scope == scopeBase {
		return w.result(nil)
	}
	if q.scope == scopeSub {
		q.scope = scopeSubordinate
	}
	q.limit = w.room()
	return w.result(s.src.search(w.ctx, q, func(e *entry, position string) bool {
		if errors.Is(w.ctx.Err(), context.DeadlineExceeded) { // a client that reads slowly keeps in memory what was read for it
			if p := w.page; p != nil && w.sent == p.size {
				p.more = true // only whether there is another one is not known
			} else {
				w.end = timeLimitExceeded
			}
			return false
		}
		if !w.c.sees(e) || !e.dn.isBelow(q.base, q.scope) {
			return true
		}
		if n := len(e.logins); (q.app != nil || !w.c.reader) && !w.eval.step(n) { // names that are written anew, or left out
			return w.stop()
		}
		return w.emit(s.inApplication(q.app, s.shown(&w.c.identity, e)), position)
	}))
}

// room returns how many entries may still match before the search ends, one more included that says whether there are more.
func (w *walk) room() int {
	n := w.limit - w.sent
	if w.page != nil {
		n = min(w.limit-w.page.sent, w.page.size) - w.sent
	}
	return n + 1
}

// emit sends the entry if the filter holds. It returns false when the search is at its end.
func (w *walk) emit(e *entry, position string) bool {
	c := w.c
	defer w.eval.rest()
	w.eval.step(entrySteps + w.nodes + w.sel.listed*len(e.attrs)/stepSelected)
	matched := w.eval.match(e, w.req.filter)
	switch {
	case w.eval.err != nil:
		return w.stop()
	case matched != isTrue:
		return true
	}
	before := 0
	if w.page != nil {
		before = w.page.sent
	}
	switch {
	case before+w.sent == w.limit:
		w.end = sizeLimitExceeded
	case w.page != nil && (w.sent == w.page.size || w.sent > 0 && w.bytes >= c.srv.cfg.Limits.SearchBytes):
		w.page.more = true
		return false
	case w.bytes >= c.srv.cfg.Limits.SearchBytes:
		w.end = sizeLimitExceeded
	}
	if w.end != success {
		return false
	}
	length := len(c.out)
	c.out = e.append(c.out, w.m.id, w.sel, w.req.typesOnly)
	w.bytes += len(c.out) - length
	w.sent++
	if w.page != nil {
		w.page.last = position
	}
	w.eval.rest() // the client may read slowly
	return len(c.out) <= flushAt || c.flush()
}

// stop ends a search whose evaluation must not go on.
func (w *walk) stop() bool {
	w.eval.rest()
	switch {
	case errors.Is(w.eval.err, errGone):
		w.c.dead = true
	case errors.Is(w.eval.err, errNoTurn):
		w.end = w.failed(w.eval.err).code
		return false
	}
	w.end = timeLimitExceeded
	return false
}

// result says how the search ended: err is the source's.
func (w *walk) result(err error) result {
	p := w.page
	if p != nil {
		p.total = p.sent + w.sent
	}
	switch {
	case w.end == other:
		return result{code: other, diag: temporaryFailure}
	case w.end != success:
		return result{code: w.end}
	case err == nil:
		return result{}
	}
	r := w.failed(err)
	if r.code == timeLimitExceeded && p != nil && p.size > 0 && w.sent == p.size {
		p.more = true // as above
		return result{}
	}
	return r
}

// compare answers a CompareRequest (RFC 4511 section 4.10). Errors are those of search.
func (c *conn) compare(m *message) error {
	var req compareRequest
	if err := req.decode(m.body); err != nil {
		return err
	}
	r, err := c.compareResult(m, &req)
	if err != nil {
		return err
	}
	c.out = appendResponse(c.out, m.id, opCompareResponse, r)
	return nil
}

func (c *conn) compareResult(m *message, req *compareRequest) (result, error) {
	if m.unknownCritical() {
		return result{code: unavailableCriticalExt}, nil
	}
	if c.login == "" {
		return result{code: insufficientAccess, diag: "bind first"}, nil
	}
	if r, err := c.stands(); err != nil || r.code != success {
		return r, err
	}
	e := c.publicEntry(req.entry)
	o := c.begin(0, nil, nil)
	defer o.cancel()
	if e == nil {
		found, r := o.locate(req.entry)
		if r.code != success {
			return r, nil
		}
		e = c.srv.inApplication(o.q.app, found)
	}
	t, values := e.find(req.ava.description)
	switch {
	case t == nil:
		return result{code: undefinedAttributeType}, nil
	case len(values) == 0:
		return result{code: noSuchAttribute}, nil
	}
	v := c.evaluation(o.ctx)
	defer v.rest()
	equal := v.anyEqual(t.rule, values, req.ava.value)
	if v.err != nil {
		return o.failed(v.err), nil
	}
	switch equal {
	case isTrue:
		return result{code: compareTrue}, nil
	case isFalse:
		return result{code: compareFalse}, nil
	}
	return result{code: invalidAttributeSyntax}, nil // Undefined is not false (RFC 4511 section 4.10)
}
