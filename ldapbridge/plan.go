package ldapbridge

import (
	"bytes"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// plan says by which keys the entries of one kind that a filter can match are found: an entry for which the filter is true goes by
// at least one of them. The zero plan has no keys and is not bounded: every entry must be looked at. A bounded plan without keys
// means that nothing can match.
type plan[K comparable] struct {
	bounded bool
	keys    []K
	share   share // the largest of the keys
}

// share says how many entries go by a key, as far as that can be guessed from its kind. Many a program asks for (&(memberOf=...)(uid=...)):
// reading the group instead of the one person would cost thousands of rows at each login.
type share uint8

const (
	one      share = iota // at most
	few                   // usually one
	many                  // perhaps all
	wholeSet              // a group's members
)

// better says whether a conjunction is better looked up by p.
func (p plan[K]) better(than plan[K]) bool {
	switch {
	case !p.bounded || !than.bounded:
		return p.bounded
	case len(p.keys) == 0 || len(than.keys) == 0: // nothing can match
		return len(than.keys) > 0
	case p.share != than.share:
		return p.share < than.share
	}
	return len(p.keys) < len(than.keys)
}

// maxPlanKeys bounds the keys of one search. A filter with more is answered by looking at every entry.
const maxPlanKeys = 256

// planner knows what the keys of one kind of entries are.
type planner[K comparable] struct {
	// equal returns the plan for "this attribute has this value".
	equal func(t *attributeType, description, value []byte) plan[K]
	// has says whether an entry of this kind can have the attribute at all.
	has func(t *attributeType) bool
}

// filter makes the plan for a filter that checkFilter let pass. It looks at what makes a filter true only: a part that is false or
// undefined for every entry has a bounded plan without keys, and nothing follows from a negation.
func (p *planner[K]) filter(filter []byte) plan[K] {
	all, nothing := plan[K]{}, plan[K]{bounded: true}
	r := ber.NewReader(filter)
	tag, body, err := r.Next()
	if err != nil {
		return nothing
	}
	switch tag {
	case filterAnd:
		best := all
		for r := ber.NewReader(body); !r.Empty(); {
			part, err := r.NextElement()
			if err != nil {
				return nothing
			}
			if x := p.filter(part); x.better(best) {
				best = x
			}
		}
		return best
	case filterOr:
		union := nothing
		for r := ber.NewReader(body); !r.Empty(); {
			part, err := r.NextElement()
			if err != nil {
				return nothing
			}
			x := p.filter(part)
			if !x.bounded {
				return all
			}
			if union = union.with(x.keys...); !union.bounded {
				return all
			}
			union.share = max(union.share, x.share)
		}
		return union
	case filterNot:
		return all
	case filterEqual, filterApprox:
		var a assertion
		if a.decode(body) != nil {
			return nothing
		}
		return p.equality(a.description, a.value)
	case filterExtensible:
		var x extensible
		if x.decode(body) != nil || len(x.description) == 0 {
			return nothing
		}
		if x.dnAttributes || x.rule != nil {
			return all // the rule may be laxer than the attribute's own
		}
		return p.equality(x.description, x.value)
	case filterPresent:
		return p.absent(body)
	case filterSubstrings, filterGreater, filterLess:
		r := ber.NewReader(body)
		description, err := r.Expect(ber.OctetString)
		if err != nil {
			return nothing
		}
		return p.absent(description)
	}
	return nothing // undefined
}

// absent is nothing if no entry can have the attribute.
func (p *planner[K]) absent(description []byte) plan[K] {
	if t, ok := plannable(description); !ok || t != nil && !p.has(t) {
		return plan[K]{bounded: true}
	}
	return plan[K]{} // also of types that are not known, though a group has none
}

func (p *planner[K]) equality(description, value []byte) plan[K] {
	t, ok := plannable(description)
	if !ok || len(value) > maxAssertion || t != nil && !p.has(t) {
		return plan[K]{bounded: true}
	}
	if bytes.IndexByte(value, 0) >= 0 {
		if t != nil && t.rule != octets {
			return plan[K]{bounded: true} // no text in a database has one
		}
		return plan[K]{}
	}
	return p.equal(t, description, value)
}

// plannable returns the known type of a description, nil if it is not known. It is false for what no entry has: passwords,
// and descriptions that are none or have options.
func plannable(description []byte) (*attributeType, bool) {
	if !validDescription(description) || isSecret(description) {
		return nil, false
	}
	return lookupType(description), true
}

// with adds keys, each once.
func (p plan[K]) with(keys ...K) plan[K] {
next:
	for _, k := range keys {
		for _, have := range p.keys {
			if have == k {
				continue next
			}
		}
		if len(p.keys) == maxPlanKeys {
			return plan[K]{}
		}
		p.keys = append(p.keys, k)
	}
	return p
}

// oneOf says whether a text attribute's value is one of these. Otherwise nothing can match.
func oneOf[K comparable](value []byte, values ...string) plan[K] {
	for _, v := range values {
		if equalFold(value, []byte(v)) {
			return plan[K]{}
		}
	}
	return plan[K]{bounded: true}
}

// personPlanner plans searches for accounts. Its keys must follow personEntry: what that makes of an account must be found here.
func (p *peopleSource) personPlanner(q *query) *planner[auth.AccountKey] {
	type keys = plan[auth.AccountKey]
	nothing, all := keys{bounded: true}, keys{}
	byLogin := func(x keys, value []byte) keys {
		// A login is its own folded form, so the value must fold to it.
		if login, err := auth.NormaliseLogin(string(appendFold(nil, value))); err == nil {
			return x.with(auth.AccountKey{Login: login})
		}
		return x
	}
	byAttribute := func(x keys, value []byte, names ...string) keys {
		for _, name := range names {
			x = x.with(auth.AccountKey{Search: auth.SearchKey(name, string(value))})
		}
		return x
	}
	var d dn
	return &planner[auth.AccountKey]{
		has: func(t *attributeType) bool { return !groupTypes[t] && !rootTypes[t] },
		equal: func(t *attributeType, description, value []byte) keys {
			if t == nil || t.rule == caseIgnore || t.rule == caseExact {
				if !utf8.Valid(value) && t != nil {
					return nothing
				}
			}
			switch {
			case t == nil:
				if !utf8.Valid(value) {
					return all // it may be an attribute of octets
				}
				x := byAttribute(nothing, value, string(description))
				x.share = many
				return x
			case t == typeObjectClass, t == typeStructuralObjectClass:
				return oneOf[auth.AccountKey](value, personClasses...)
			case t == typeHasSubordinates:
				return oneOf[auth.AccountKey](value, "FALSE")
			case t == typeUID:
				return byLogin(nothing, value)
			case t == typeEntryUUID:
				if id := string(appendFold(nil, value)); isUUID(id) {
					return nothing.with(auth.AccountKey{UUID: id})
				}
				return nothing
			case t == typeMemberOf, t == typeEntryDN:
				if d.parse(value, &p.srv.cfg.Limits) != nil {
					return nothing
				}
				plain, ok := q.plain(&d)
				if !ok {
					return nothing
				}
				if t == typeMemberOf {
					name, ok := p.groupName(plain)
					if !ok {
						return nothing
					}
					return keys{bounded: true, keys: []auth.AccountKey{{Group: name}}, share: wholeSet}
				}
				login, ok := p.loginIn(plain)
				if !ok {
					return nothing
				}
				return nothing.with(auth.AccountKey{Login: login})
			case t.operational, t.rule == distinguishedName, t.rule == octets:
				return all
			}
			x := byAttribute(nothing, value, t.names...)
			if x.share = many; fewHave[t.name] {
				x.share = few
			}
			if t == p.srv.rdnType || t == typeCN || t == typeSN {
				x = byLogin(x, value) // what an account without a name is called
			}
			if t == typeCN || t == typeSN {
				x = byAttribute(x, value, typeDisplayName.name)
			}
			if t == typeSN { // it falls back to cn
				x = byAttribute(x, value, typeCN.names...)
			}
			return x
		},
	}
}

// groupPlanner plans searches for groups.
func (p *peopleSource) groupPlanner(q *query) *planner[auth.GroupKey] {
	type keys = plan[auth.GroupKey]
	nothing, all := keys{bounded: true}, keys{}
	byMember := func(login string) keys {
		return keys{bounded: true, keys: []auth.GroupKey{{Member: login}}, share: many}
	}
	var d dn
	return &planner[auth.GroupKey]{
		has: func(t *attributeType) bool {
			return groupTypes[t] || groupAttributes[t] || t.operational && !rootTypes[t]
		},
		equal: func(t *attributeType, _, value []byte) keys {
			switch t {
			case nil:
				return nothing
			case typeObjectClass, typeStructuralObjectClass:
				return oneOf[auth.GroupKey](value, groupClasses...)
			case typeHasSubordinates:
				return oneOf[auth.GroupKey](value, "FALSE")
			case typeCN:
				if name, err := auth.NormaliseGroup(string(appendFold(nil, value))); err == nil {
					return nothing.with(auth.GroupKey{Name: name})
				}
				return nothing
			case typeMemberUID:
				if login, err := auth.NormaliseLogin(string(appendFold(nil, value))); err == nil {
					return byMember(login)
				}
				return nothing
			case typeEntryUUID:
				if id := string(appendFold(nil, value)); isUUID(id) {
					return nothing.with(auth.GroupKey{UUID: id})
				}
				return nothing
			case typeMember, typeUniqueMember, typeEntryDN:
				if d.parse(value, &p.srv.cfg.Limits) != nil {
					return nothing
				}
				plain, ok := q.plain(&d)
				if !ok {
					return nothing
				}
				if t == typeEntryDN {
					if name, ok := p.groupName(plain); ok {
						return nothing.with(auth.GroupKey{Name: name})
					}
					return nothing
				}
				if login, ok := p.loginIn(plain); ok {
					return byMember(login)
				}
				return nothing
			}
			return all
		},
	}
}

// loginIn returns the login, normalised, in the name of an account's entry.
func (p *peopleSource) loginIn(plain *dn) (string, bool) {
	if !plain.isBelow(p.srv.people, scopeOne) {
		return "", false
	}
	v, ok := nameIn(plain.rdn(0), p.srv.rdnType)
	if !ok {
		return "", false
	}
	login, err := auth.NormaliseLogin(string(appendFold(nil, []byte(v))))
	return login, err == nil
}

// groupName returns the name, normalised, in the name of a group's entry.
func (p *peopleSource) groupName(plain *dn) (string, bool) {
	if !plain.isBelow(p.srv.groups, scopeOne) {
		return "", false
	}
	v, ok := nameIn(plain.rdn(0), typeCN)
	if !ok {
		return "", false
	}
	name, err := auth.NormaliseGroup(string(appendFold(nil, []byte(v))))
	return name, err == nil
}

// isUUID reports whether s has the text form of RFC 4122, in lower case.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash && c != '-' || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
