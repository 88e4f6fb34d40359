package ldapbridge

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// The entries that a search keeps at a time. It reads all that match and keeps those that come first in the order of the
// positions: a directory has no order of its own from which one could go on later.
const (
	windowEntries = 1000
	windowBytes   = 8 << 20
)

// placed is an entry with its position.
type placed struct {
	e        *entry
	position string
	size     int
}

// search implements [source]. A connection is held while the upstream sends, never while the client reads.
func (u *upstream) search(ctx context.Context, q *query, yield func(e *entry, position string) bool) error {
	translated := u.forwarder(q).filter(q.filter)
	if translated.op == forwardNone {
		return nil
	}
	text := ""
	if translated.op != forwardAll {
		var err error
		if text, err = translated.text(); err != nil {
			return err
		}
	}
	attrs := u.wanted(q, &translated)
	v, err := u.viewed(ctx, q, attrs)
	if errors.Is(err, errNoEntry) {
		return nil
	}
	if err != nil {
		return err
	}
	nodes, parts, err := u.parts(ctx, q, attrs)
	if err != nil {
		return err
	}
	if v.own != nil {
		nodes = append(nodes, v.own)
	}
	w := window{after: q.after}
	for {
		for _, e := range nodes {
			if e.dn.isBelow(q.base, q.scope) {
				w.add(e)
			}
		}
		var cut error
		for _, p := range parts {
			if cut, err = u.scan(ctx, q, p, both(v.filter, text), attrs, &v, &w); err != nil {
				return err
			}
			if cut != nil {
				break
			}
		}
		kept, more := w.take()
		for _, p := range kept {
			if !yield(p.e, p.position) {
				return nil
			}
		}
		if cut != nil || !more {
			return cut
		}
	}
}

// part is one search upstream that a search of a client needs. The base itself is not of it.
type part struct {
	base  *dn
	scope int
}

// parts says which subtrees of the upstream a search touches, and finds the nodes above them.
func (u *upstream) parts(ctx context.Context, q *query, attrs []string) (nodes []*entry, parts []part, err error) {
	if inside, _ := u.within(q.base); inside {
		if q.scope == scopeOne {
			return nil, []part{{q.base, ldap.ScopeSingleLevel}}, nil
		}
		return nil, []part{{q.base, ldap.ScopeWholeSubtree}}, nil
	}
	have := map[string]bool{}
	for _, b := range u.bases {
		if !b.endsWith(q.base) {
			continue
		}
		for i := b.rdns() - q.base.rdns() - 1; i > 0; i-- {
			node := b.above(i)
			if key := position(node); !have[key] {
				have[key] = true
				nodes = append(nodes, containerEntry(node))
			}
		}
		e, err := u.readBase(ctx, b, attrs)
		if err != nil {
			return nil, nil, err
		}
		e.kind = kindContainer
		e.markOperational(q.sel)
		nodes = append(nodes, e)
		if q.scope != scopeOne {
			parts = append(parts, part{b, ldap.ScopeWholeSubtree})
		}
	}
	return nodes, parts, nil
}

// scan reads a subtree of the upstream page by page. cut says that not all of it was read.
func (u *upstream) scan(ctx context.Context, q *query, p part, filter string, attrs []string, v *view, w *window) (cut, err error) {
	l := &u.pool.limits
	err = u.pool.do(ctx, true, func(c *upstreamConn) error {
		left := budget{l.Bytes, l.Entries, u.pool.elements()}
		paging := ldap.NewControlPaging(uint32(l.PageSize))
		for first := true; ; first = false {
			req := request(ctx, p.base, p.scope, filter, attrs)
			req.Controls = []ldap.Control{paging}
			page, err := c.search(ctx, req, &left)
			if err != nil {
				if !first { // entries were taken, so it must not begin again
					return fmt.Errorf("in the middle of a search: %v", err)
				}
				return err
			}
			for _, x := range page.entries {
				e, err := u.convert(x, false)
				if err != nil {
					return err
				}
				if e == nil || !e.dn.isBelow(p.base, scopeSubordinate) || v.own != nil && e.dn.equal(v.own.dn) || !v.shows(u, e) {
					continue
				}
				if split(x) {
					if err := u.completeRanges(ctx, c, x, &left); err != nil {
						return err
					}
					if e, err = u.convert(x, true); err != nil {
						return err
					}
					v.shows(u, e)
				}
				e.markOperational(q.sel)
				w.add(e)
			}
			switch {
			case page.code == noSuchObject: // it was there a moment ago
				return fmt.Errorf("%w: %q", errUpstreamEmpty, p.base)
			case page.code == timeLimitExceeded:
				cut = errTimeLimit
			case page.code == sizeLimitExceeded:
				cut = errSizeLimit
			case len(page.cookie) > 0 && (left.entries <= 0 || left.bytes <= 0 || left.elements <= 0):
				c.broken = true // the upstream waits for somebody to ask for the next page
				cut = errSizeLimit
			case len(page.cookie) > 0:
				paging.SetCookie(page.cookie)
				continue
			}
			return nil
		}
	})
	return cut, err
}

// window collects the entries that come first after a position.
type window struct {
	after string
	kept  []placed
	size  int
	more  bool
}

func (w *window) add(e *entry) {
	p := placed{e: e, position: position(e.dn), size: e.size()}
	if p.position <= w.after {
		return
	}
	w.kept = append(w.kept, p)
	w.size += p.size
	if len(w.kept) > 2*windowEntries || w.size > 2*windowBytes {
		w.cut()
	}
}

// cut sorts what was collected and drops what does not fit. One entry always does.
func (w *window) cut() {
	slices.SortFunc(w.kept, func(a, b placed) int { return cmp.Compare(a.position, b.position) })
	w.kept = slices.CompactFunc(w.kept, func(a, b placed) bool { return a.position == b.position })
	w.size = 0
	for i := range w.kept {
		w.size += w.kept[i].size
		if i > 0 && (i >= windowEntries || w.size > windowBytes) {
			w.size -= w.kept[i].size
			clear(w.kept[i:])
			w.kept = w.kept[:i]
			w.more = true
			return
		}
	}
}

// take returns what was collected, in order, and whether there was more. The window then begins after it.
func (w *window) take() (kept []placed, more bool) {
	w.cut()
	kept, more = w.kept, w.more
	if len(kept) > 0 {
		w.after = kept[len(kept)-1].position
	}
	w.kept, w.size, w.more = nil, 0, false
	return kept, more
}

func (e *entry) size() int {
	n := 256 + len(e.name)
	for i := range e.attrs {
		n += 64
		for _, v := range e.attrs[i].values {
			n += 16 + len(v)
		}
	}
	return n
}

// position is where an entry stands in the order of a search: by name, an entry before those below it.
func position(d *dn) string {
	var key []byte
	for i := d.rdns() - 1; i >= 0; i-- {
		rdn := slices.Clone(d.rdn(i))
		slices.SortFunc(rdn, func(a, b ava) int {
			return cmp.Or(cmp.Compare(a.typ, b.typ), bytes.Compare(appendFold(nil, a.value), appendFold(nil, b.value)))
		})
		for _, a := range rdn {
			key = append(append(append(key, a.typ...), '='), appendFold(nil, a.value)...)
			key = append(key, 0)
		}
		key = append(key, 0)
	}
	if len(key) > maxPosition {
		sum := sha256.Sum256(key)
		key = append(key[:maxPosition-len(sum)], sum[:]...)
	}
	return string(key)
}
