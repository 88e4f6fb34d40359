package ldapbridge

import (
	"context"
	"errors"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// source is where the entries below the suffix come from: our own store, or another directory.
//
// It speaks of the plain tree only: names below BaseDN, without the RDN of an application, which the engine takes off and puts
// on. It need not be exact, only complete: the engine holds every entry to visibility, scope and filter once more, so a source
// may return more than was asked for and must never return less. The context of a call has the deadline of the operation.
//
// [errNoEntry] says that there is nothing of this name. Any other error says that nothing is known, and becomes result code 80
// (or 3 if the client's own time limit had passed).
type source interface {
	// resolve says whom a bind name means. It is asked before anybody has shown a password. errNoEntry, or errBadName if the name could be
	// no account's: nobody, as its form tells. errNobody: nobody, which only looking told; that must take as long as finding somebody.
	resolve(ctx context.Context, name *dn) (subject, error)

	// entry reads the entry of this name, which lies below the suffix or is the suffix. Of q only viewer, filter, sel and
	// app are set. For a name by which an entry is also known (an alias), it is the entry under its own name. A source that
	// answers errNoEntry for what the viewer may not see must take as long for it as for what does not exist.
	entry(ctx context.Context, q *query, name *dn) (*entry, error)

	// search reads the entries below q.base, without q.base itself, and gives each to yield with its position, until yield
	// returns false. The order must be the same for every search with the same base and scope, and position must say where
	// in that order the entry stands: a search that is given it as q.after begins with the next one, even when entries came
	// or went in between. At most maxPosition bytes; any bytes but none at all. yield may block for as long as the client takes to
	// read, so nothing that others need (a connection to the database) may be held meanwhile.
	//
	// errTimeLimit: the deadline passed in the middle of the work, and what was read is right as far as it goes. errSizeLimit:
	// the same of a limit that the source has to keep.
	search(ctx context.Context, q *query, yield func(e *entry, position string) bool) error

	// member says whether the account with this canonical login is in the group. A group that does not exist has no
	// members.
	member(ctx context.Context, group, login string) (bool, error)

	// hasGroup says whether there is a group of this name.
	hasGroup(ctx context.Context, name string) (bool, error)
}

var (
	errNoEntry   = errors.New("no such entry")
	errBadName   = errors.New("not the name of an account")
	errNobody    = errors.New("no such user")
	errTimeLimit = errors.New("time limit exceeded")
	errSizeLimit = errors.New("size limit exceeded")
)

// subject is whom a bind name means.
type subject struct {
	login string // not yet normalised
	name  *dn    // of the entry, kept; nil: what the parent of the accounts and the canonical login make
}

// maxPosition bounds a position, in bytes: it travels in the cookie of the paged results control.
const maxPosition = 1 + auth.MaxLogin

// query is what one search wants of a source.
type query struct {
	viewer viewer
	app    *application // below which the client searches; nil: none
	base   *dn
	scope  int32  // scopeOne or scopeSubordinate
	filter []byte // checked by checkFilter; the names in it are the client's: see plain
	sel    *selection
	after  string // position; empty: from the beginning
	limit  int    // no more than this many matching entries will be taken; 0: not known

	srv *Server
}

// viewer is who asks.
type viewer struct {
	login  string // canonical; empty: anonymous
	reader bool   // may see every entry; others see their own, their groups and the containers
	name   *dn    // of the own entry, as resolve said it; nil if it said none
}

// plain takes the application off a name that a filter holds. With ok false no entry of the tree that this client sees has such
// a name or value. The result shares the values.
func (q *query) plain(name *dn) (d *dn, ok bool) {
	app, d := q.srv.split(name)
	if d == nil {
		return name, true // not below the suffix at all: no business of ours
	}
	return d, app == q.app
}

// wants reports whether values of this type matter: they are asked for, or the filter looks at them. A source may leave out
// those that do not.
func (q *query) wants(t *attributeType) bool {
	return q.sel == nil || q.sel.includes(t) || q.filter != nil && mentions(q.filter, t)
}

// mentions reports whether a filter that checkFilter let pass looks at this type.
func mentions(filter []byte, t *attributeType) bool {
	r := ber.NewReader(filter)
	tag, body, err := r.Next()
	if err != nil {
		return false
	}
	var description []byte
	switch tag {
	case filterAnd, filterOr:
		for r := ber.NewReader(body); !r.Empty(); {
			part, err := r.NextElement()
			if err != nil {
				return false
			}
			if mentions(part, t) {
				return true
			}
		}
		return false
	case filterNot:
		return mentions(body, t)
	case filterPresent:
		description = body
	case filterExtensible:
		var x extensible
		if x.decode(body) != nil {
			return false
		}
		description = x.description
	case filterEqual, filterApprox, filterGreater, filterLess, filterSubstrings:
		r := ber.NewReader(body)
		description, _ = r.Expect(ber.OctetString)
	}
	return describes(description, t)
}
