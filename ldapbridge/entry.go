package ldapbridge

import (
	"bytes"
	"crypto/sha1"
	"fmt"
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
	room  []string // for values, not yet taken

	kind   entryKind
	logins []string // canonical ones of those who may see it, readers aside: of a person, or of the members of a group
}

// entryKind says by which rule an entry is visible.
type entryKind uint8

const (
	kindOther     entryKind = iota // to readers only
	kindContainer                  // to everybody who bound
	kindPerson                     // to the person
	kindGroup                      // to its members
)

type attribute struct {
	typ    *attributeType
	values []string
}

// usualAttributes is room for those of most entries.
const usualAttributes = 24

// newEntry makes an entry with its room in one piece of memory: searches make thousands.
func newEntry(d *dn) *entry {
	x := new(struct {
		entry
		attrs [usualAttributes]attribute
		room  [2 * usualAttributes]string
	})
	x.entry = entry{dn: d, name: d.String(), attrs: x.attrs[:0], room: x.room[:]}
	return &x.entry
}

// take returns an empty slice with room for n values.
func (e *entry) take(n int) []string {
	if n > len(e.room) {
		return make([]string, 0, n)
	}
	values := e.room[:0:n]
	e.room = e.room[n:]
	return values
}

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
			e.attrs = append(e.attrs, attribute{t, e.take(len(values))})
		}
		for _, have := range e.attrs[i].values {
			if have == v || t.rule == caseIgnore && equalFold([]byte(have), []byte(v)) {
				continue next
			}
		}
		e.attrs[i].values = append(e.attrs[i].values, v)
	}
}

func (e *entry) values(t *attributeType) []string {
	for i := range e.attrs {
		if e.attrs[i].typ == t {
			return e.attrs[i].values
		}
	}
	return nil
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

// describes reports whether a description, with or without options, names this type.
func describes(description []byte, t *attributeType) bool {
	if i := bytes.IndexByte(description, ';'); i >= 0 {
		description = description[:i]
	}
	if known := lookupType(description); known != nil || t == nil {
		return known == t && t != nil
	}
	return strings.EqualFold(t.name, string(description))
}

// selection says which attributes a search asked for (RFC 4511 section 4.5.1.8).
type selection struct {
	names       []byte // contents of the AttributeSelection
	listed      int    // how many they are
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
		s.listed++
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
		if len(name) > 0 && name[0] == '@' && classHas(name[1:], t) { // RFC 4529
			return true
		}
		if t.called(name) {
			return true
		}
	}
	return false
}

// called reports whether a description without options names the type. It is lookupType the other way round, for when the type is known:
// without a hash of every name for every attribute.
func (t *attributeType) called(description []byte) bool {
	for _, name := range t.names {
		if len(name) == len(description) && strings.EqualFold(name, string(description)) {
			return true
		}
	}
	return len(t.names) == 0 && strings.EqualFold(t.name, string(description))
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
	e.kind, e.logins = kindPerson, []string{acct.Login}
	e.attrs = append(e.attrs, attribute{typeObjectClass, personClasses[:4:4]})
	e.add(typeUID, acct.Login)
	e.add(s.rdnType, acct.Login)
	e.addFree(acct.Attributes)
	// cn and sn are mandatory. The DN may have given cn its first value already.
	if display := acct.DisplayName; display != "" {
		e.add(typeCN, display)
		e.add(typeDisplayName, display)
	}
	if !e.has(typeCN) {
		e.add(typeCN, acct.Login)
	}
	if !e.has(typeSN) {
		e.add(typeSN, e.values(typeCN)[0])
	}
	for _, group := range acct.Groups {
		e.add(typeMemberOf, s.groupDN(group).String())
	}
	// A posixAccount without its numbers is worse than none.
	if e.has(typeUIDNumber) && e.has(typeGIDNumber) && e.has(typeHome) {
		e.attrs[0].values = personClasses
	}
	e.addOperational("inetOrgPerson", acct.UUID, acct.CreatedAt, acct.ModifiedAt)
	return e
}

// personClasses are all that the entry of an account may be of, the last two only with numbers; groupClasses of a group.
var (
	personClasses = []string{"top", "person", "organizationalPerson", "inetOrgPerson", "posixAccount", "shadowAccount"}
	groupClasses  = []string{"top", "groupOfNames", "groupOfUniqueNames", "organizationalRole", "posixGroup"}
)

// groupEntry makes the entry of a group. Which of the programs' three ways to say "member" is asked for is not known beforehand,
// so it has them all, and both classes that demand them, though they are structural both (reference/ldap-server.md section 9).
// What the query does not want of the members, who may be many, is left out. Anybody but a reader is shown that he is a member
// himself: the others are people whom he cannot see.
func (s *Server) groupEntry(q *query, g *auth.Group) *entry {
	e := newEntry(s.groupDN(g.Name))
	members := g.Members
	if !q.viewer.reader {
		members = slices.DeleteFunc(slices.Clone(members), func(login string) bool { return login != q.viewer.login })
	}
	e.kind, e.logins = kindGroup, members
	structural := "groupOfNames"
	if len(members) > 0 {
		e.add(typeObjectClass, "top", "groupOfNames", "groupOfUniqueNames")
	} else { // those classes must have a member
		structural = "organizationalRole"
		e.add(typeObjectClass, "top", structural)
	}
	e.add(typeCN, g.Name)
	e.add(typeDisplayName, g.DisplayName)
	for _, name := range slices.Sorted(maps.Keys(g.Attributes)) {
		if t := lookupType([]byte(name)); groupAttributes[t] && t != typeObjectClass && t != typeCN {
			e.add(t, g.Attributes[name]...)
		}
	}
	if e.has(typeGIDNumber) {
		e.add(typeObjectClass, "posixGroup")
	}
	if len(members) > 0 {
		for _, t := range []*attributeType{typeMember, typeUniqueMember} {
			if q.wants(t) {
				values := make([]string, len(members))
				for i, login := range members {
					values[i] = s.accountDN(login).String()
				}
				e.attrs = append(e.attrs, attribute{t, values})
			}
		}
		if q.wants(typeMemberUID) {
			e.attrs = append(e.attrs, attribute{typeMemberUID, members})
		}
	}
	e.addOperational(structural, g.UUID, g.CreatedAt, g.ModifiedAt)
	return e
}

// addFree adds the attributes that an admin gave, but for those that are ours to say: the login, operational ones, what says
// who is in which group, and passwords.
func (e *entry) addFree(attributes map[string][]string) {
	var buf [usualAttributes]string
	names := buf[:0]
	for name := range attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values := attributes[name]
		if isSecret([]byte(name)) || !validDescription([]byte(name)) {
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
		case t.operational || t == typeObjectClass || t == typeUID || t == typeMemberOf || groupTypes[t]:
			continue
		}
		e.add(t, values...)
	}
}

// addOperational adds what every entry below the suffix has. Zero times are not known.
func (e *entry) addOperational(structural, uuid string, created, modified time.Time) {
	e.add(typeEntryUUID, uuid)
	e.add(typeEntryDN, e.name)
	e.add(typeStructuralObjectClass, structural)
	e.add(typeSubschemaSubentry, subschemaName)
	if e.kind == kindContainer {
		e.add(typeHasSubordinates, "TRUE")
	} else {
		e.add(typeHasSubordinates, "FALSE")
	}
	if !created.IsZero() {
		e.add(typeCreateTimestamp, created.UTC().Format(generalizedTime))
	}
	if modified = latest(created, modified); !modified.IsZero() {
		e.add(typeModifyTimestamp, modified.UTC().Format(generalizedTime))
	}
}

// nameUUID makes the UUID of an entry that no row stands for, of its name (RFC 4122 section 4.3).
func nameUUID(name string) string {
	h := sha1.New()
	h.Write([]byte("\x6b\xa7\xb8\x14\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8")) // the namespace of X.500 names
	h.Write(appendFold(nil, []byte(name)))
	u := h.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// accountDN returns the name of the account's entry.
func (s *Server) accountDN(login string) *dn {
	return s.people.below(ava{typ: s.rdnType.name, value: []byte(login)})
}

// groupDN returns the name of the group's entry.
func (s *Server) groupDN(name string) *dn {
	return s.groups.below(ava{typ: typeCN.name, value: []byte(name)})
}

// containerEntry makes the entry of the suffix or of a container between it and the accounts.
func containerEntry(d *dn) *entry {
	e := newEntry(d)
	e.kind = kindContainer
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
	e.addOperational(structural, nameUUID(e.name), time.Time{}, time.Time{})
	return e
}

// applicationEntry makes the entry of the suffix of an application.
func applicationEntry(app *application) *entry {
	e := newEntry(app.suffix)
	e.kind = kindContainer
	e.add(typeObjectClass, "top", "organizationalUnit", "extensibleObject")
	e.add(typeApp, app.Name)
	e.add(typeOU, app.Name)
	e.addOperational("organizationalUnit", nameUUID(e.name), time.Time{}, time.Time{})
	return e
}

// rootDSE makes the entry that says what the server can do (RFC 4512 section 5.1). It names nothing that is not implemented:
// supportedCapabilities would make clients think of Active Directory.
func rootDSE(base string, extensions ...string) *entry {
	e := newEntry(new(dn))
	e.add(typeObjectClass, "top")
	e.add(typeNamingContexts, base)
	e.add(typeDefaultNamingContext, base)
	e.add(typeSupportedLDAPVersion, "3")
	e.add(typeSupportedExtension, append(extensions, oidWhoAmI)...)
	e.add(typeSupportedControl, oidPagedResults, oidManageDsaIT)
	e.add(typeSupportedFeatures,
		"1.3.6.1.4.1.4203.1.5.1", // all operational attributes, RFC 3673
		"1.3.6.1.4.1.4203.1.5.2", // attributes of an object class, RFC 4529
		"1.3.6.1.4.1.4203.1.5.3", // absolute true and false filters, RFC 4526
	)
	e.add(typeSubschemaSubentry, subschemaName)
	e.add(typeVendorName, "Valetkey")
	return e
}
