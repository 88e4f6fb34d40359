package ldapbridge

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// entry is what a search returns. Every attribute has at least one value.
type entry struct {
	dn    *dn
	name  string // string form of dn
	attrs []attribute
}

type attribute struct {
	typ    *attributeType
	values []string
}

func newEntry(d *dn) *entry { return &entry{dn: d, name: d.String()} }

// add appends values, leaving out empty ones and those that are there already.
func (e *entry) add(t *attributeType, values ...string) {
	i := 0
	for i < len(e.attrs) && e.attrs[i].typ != t {
		i++
	}
next:
	for _, v := range values {
		if v == "" {
			continue
		}
		if i == len(e.attrs) {
			e.attrs = append(e.attrs, attribute{typ: t})
		}
		for _, have := range e.attrs[i].values {
			if have == v || t.rule == caseIgnore && equalFold([]byte(have), []byte(v)) {
				continue next
			}
		}
		e.attrs[i].values = append(e.attrs[i].values, v)
	}
}

func (e *entry) has(t *attributeType) bool {
	for i := range e.attrs {
		if e.attrs[i].typ == t {
			return true
		}
	}
	return false
}

// find returns the type that a description names, nil if it is not known, and the entry's values of it. With an option
// ("cn;lang-de") the type is known and has no values, since no entry of ours has attributes with options.
func (e *entry) find(description []byte) (*attributeType, []string) {
	option := false
	for i, c := range description {
		if c == ';' {
			description, option = description[:i], true
			break
		}
	}
	t := lookupType(description)
	for i := range e.attrs {
		a := &e.attrs[i]
		if a.typ == t || t == nil && len(description) == len(a.typ.name) && strings.EqualFold(a.typ.name, string(description)) {
			if option {
				return a.typ, nil
			}
			return a.typ, a.values
		}
	}
	return t, nil
}

// selection says which attributes a search asked for (RFC 4511 section 4.5.1.8).
type selection struct {
	names       []byte // contents of the AttributeSelection
	user        bool   // "*", or nothing at all
	operational bool   // "+" (RFC 3673)
}

// newSelection reads the list. ok is false if it is longer than the limit.
func newSelection(names []byte, limit int) (s selection, ok bool) {
	s.names, s.user = names, len(names) == 0
	for n, r := 0, ber.NewReader(names); !r.Empty(); n++ {
		_, name, err := r.Next()
		if err != nil || n == limit {
			return s, false
		}
		switch string(name) {
		case "*":
			s.user = true
		case "+":
			s.operational = true
		}
		// "1.1", "", "dn" and whatever else is unknown select nothing, alone or among others.
	}
	return s, true
}

func (s *selection) includes(t *attributeType) bool {
	if t.operational && s.operational || !t.operational && s.user {
		return true
	}
	for r := ber.NewReader(s.names); !r.Empty(); {
		_, name, err := r.Next()
		if err != nil {
			return false
		}
		if known := lookupType(name); known == t || known == nil && strings.EqualFold(string(name), t.name) {
			return true
		}
	}
	return false
}

// append appends a SearchResultEntry (RFC 4511 section 4.5.2).
func (e *entry) append(dst []byte, id int32, sel *selection, typesOnly bool) []byte {
	dst, message := ber.Begin(dst, ber.Sequence)
	dst = ber.AppendInt(dst, ber.Integer, id)
	dst, body := ber.Begin(dst, opSearchEntry)
	dst = ber.AppendString(dst, ber.OctetString, e.name)
	dst, list := ber.Begin(dst, ber.Sequence)
	for i := range e.attrs {
		a := &e.attrs[i]
		if !sel.includes(a.typ) {
			continue
		}
		var one, set int
		dst, one = ber.Begin(dst, ber.Sequence)
		dst = ber.AppendString(dst, ber.OctetString, a.typ.name)
		dst, set = ber.Begin(dst, ber.Set)
		if !typesOnly {
			for _, v := range a.values {
				dst = ber.AppendString(dst, ber.OctetString, v)
			}
		}
		dst = ber.End(dst, set)
		dst = ber.End(dst, one)
	}
	dst = ber.End(dst, list)
	dst = ber.End(dst, body)
	return ber.End(dst, message)
}

const generalizedTime = "20060102150405Z"

// personEntry makes the entry of an account (RFC 2798, reference/ldap-server.md section 9).
func (s *Server) personEntry(acct *auth.Account) *entry {
	e := newEntry(s.accountDN(acct.Login))
	e.add(typeObjectClass, "top", "person", "organizationalPerson", "inetOrgPerson")
	e.add(typeUID, acct.Login)
	e.add(s.rdnType, acct.Login)
	for _, name := range slices.Sorted(maps.Keys(acct.Attributes)) {
		values := acct.Attributes[name]
		if secretAttributes[strings.ToLower(name)] || !validDescription([]byte(name)) {
			continue
		}
		t, _ := e.find([]byte(name))
		switch {
		case t == nil:
			t = &attributeType{name: name}
			for _, v := range values {
				if !utf8.ValidString(v) {
					t.rule = octets
				}
			}
		case t.operational || t == typeObjectClass || t == typeUID:
			continue // ours to say
		}
		e.add(t, values...)
	}
	// cn and sn are mandatory. The DN may have given cn its first value already.
	if display := acct.DisplayName; display != "" {
		e.add(typeCN, display)
		e.add(lookupType([]byte("displayName")), display)
	}
	if !e.has(typeCN) {
		e.add(typeCN, acct.Login)
	}
	if !e.has(typeSN) {
		_, cn := e.find([]byte("cn"))
		e.add(typeSN, cn[0])
	}
	// A posixAccount without its numbers is worse than none.
	if e.has(typeUIDNumber) && e.has(typeGIDNumber) && e.has(typeHome) {
		e.add(typeObjectClass, "posixAccount")
	}
	e.add(typeEntryUUID, acct.UUID)
	e.add(typeEntryDN, e.name)
	e.add(typeStructuralObjectClass, "inetOrgPerson")
	e.add(typeHasSubordinates, "FALSE")
	if !acct.CreatedAt.IsZero() {
		e.add(typeCreateTimestamp, acct.CreatedAt.UTC().Format(generalizedTime))
	}
	if modified := latest(acct.CreatedAt, acct.ModifiedAt); !modified.IsZero() {
		e.add(typeModifyTimestamp, modified.UTC().Format(generalizedTime))
	}
	return e
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// accountDN returns the name of the account's entry.
func (s *Server) accountDN(login string) *dn {
	d := &dn{
		avas:   append([]ava{{typ: s.rdnType.name, value: []byte(login)}}, s.people.avas...),
		starts: make([]int, 1, 1+len(s.people.starts)),
	}
	for _, start := range s.people.starts {
		d.starts = append(d.starts, start+1)
	}
	return d
}

// containerEntry makes the entry of the suffix or of a container between it and the accounts.
func containerEntry(d *dn) *entry {
	e := newEntry(d)
	structural := "organizationalUnit"
	for _, a := range d.rdn(0) {
		value := string(a.value)
		switch a.typ {
		case typeDC.name:
			e.add(typeObjectClass, "top", "dcObject", "organization")
			e.add(typeDC, value)
			e.add(typeO, value)
			structural = "organization"
		case typeO.name:
			e.add(typeObjectClass, "top", "organization")
			e.add(typeO, value)
			structural = "organization"
		default:
			e.add(typeObjectClass, "top", "organizationalUnit")
			e.add(typeOU, value)
			if t := lookupType([]byte(a.typ)); t != nil {
				e.add(t, value)
			}
		}
	}
	e.add(typeEntryDN, e.name)
	e.add(typeStructuralObjectClass, structural)
	e.add(typeHasSubordinates, "TRUE")
	return e
}

// rootDSE makes the entry that says what the server can do (RFC 4512 section 5.1). It names nothing that is not implemented:
// supportedCapabilities would make clients think of Active Directory, an incomplete subschema is worse than none.
func rootDSE(base string) *entry {
	e := newEntry(new(dn))
	e.add(typeObjectClass, "top")
	e.add(typeNamingContexts, base)
	e.add(typeDefaultNamingContext, base)
	e.add(typeSupportedLDAPVersion, "3")
	e.add(typeSupportedExtension, oidWhoAmI)
	e.add(typeSupportedControl, oidManageDsaIT)
	e.add(typeSupportedFeatures,
		"1.3.6.1.4.1.4203.1.5.1", // all operational attributes, RFC 3673
		"1.3.6.1.4.1.4203.1.5.3", // absolute true and false filters, RFC 4526
	)
	e.add(typeVendorName, "Valetkey")
	return e
}
