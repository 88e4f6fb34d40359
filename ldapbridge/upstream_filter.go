package ldapbridge

import (
	"errors"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// maxForwarded bounds the text of a filter that is sent to an upstream, in bytes. The library that compiles it has no limit
// of its own.
const maxForwarded = 128 << 10

var errForwardLarge = errors.New("the filter is too large for the upstream")

// forwarded is a filter on its way to an upstream. It is built from a client's filter by [forwarder.filter] and written by
// append: no text of a client ever becomes syntax.
type forwarded struct {
	op    byte // a filter tag, or one of forwardAll and forwardNone
	parts []forwarded
	attr  string
	value []byte
	// Of a substring filter; nil and empty pieces mean the same.
	initial, final []byte
	any            [][]byte
}

// Filters that are true for every entry and for none. Active Directory does not know the absolute ones of RFC 4526.
const (
	forwardAll  = 1
	forwardNone = 2
)

// forwarder turns filters of clients into filters for an upstream.
type forwarder struct {
	// readable says whether clients may see an attribute of this lower-case name.
	readable func(name string) bool
	// dn maps a name that a client wrote to the name that the upstream knows. ok is false if there is none.
	dn func(name []byte) (mapped []byte, ok bool)
}

// filter returns a filter that is true for every entry for which the given one, which checkFilter let pass, is true by
// [entry.match]. For what has no exact equivalent it is true for more, never for less on that account: the answer is
// filtered again. An attribute that clients may not see takes no part, so that its values make no difference to the answer,
// nor to the time it takes.
func (f *forwarder) filter(filter []byte) forwarded { return f.node(filter, false) }

// undefinedIs stands for a part that is Undefined: neither it nor its negation makes a filter true.
func undefinedIs(negated bool) forwarded {
	if negated {
		return forwarded{op: forwardAll}
	}
	return forwarded{op: forwardNone}
}

// anyIs stands for a part of which nothing is known but that it can be true, and false.
func anyIs(negated bool) forwarded { return undefinedIs(!negated) }

// node translates one part. negated says that an odd number of "not" surround it.
func (f *forwarder) node(filter []byte, negated bool) forwarded {
	r := ber.NewReader(filter)
	tag, body, err := r.Next()
	if err != nil {
		return undefinedIs(negated)
	}
	switch tag {
	case filterAnd, filterOr:
		out := forwarded{op: tag}
		for r := ber.NewReader(body); !r.Empty(); {
			part, err := r.NextElement()
			if err != nil {
				return undefinedIs(negated)
			}
			out.parts = append(out.parts, f.node(part, negated))
		}
		return out.fold()
	case filterNot:
		return forwarded{op: filterNot, parts: []forwarded{f.node(body, !negated)}}.fold()
	case filterPresent:
		attr, t, known := f.attribute(body)
		switch {
		case !known:
			return undefinedIs(negated)
		case attr == "":
			return anyIs(negated)
		case t == typeObjectClass:
			return forwarded{op: forwardAll}
		}
		return forwarded{op: filterPresent, attr: attr}
	case filterEqual, filterApprox, filterGreater, filterLess:
		var a assertion
		if a.decode(body) != nil {
			return undefinedIs(negated)
		}
		if tag == filterApprox {
			tag = filterEqual // as match does
		}
		return f.assertion(tag, a.description, a.value, negated)
	case filterSubstrings:
		return f.substrings(body, negated)
	case filterExtensible:
		var x extensible
		if x.decode(body) != nil || len(x.description) == 0 {
			return undefinedIs(negated)
		}
		if _, _, known := f.attribute(x.description); known && (x.dnAttributes || x.rule != nil) {
			return anyIs(negated)
		}
		return f.assertion(filterEqual, x.description, x.value, negated)
	}
	return undefinedIs(negated)
}

// attribute returns the name under which an upstream knows an attribute. known is false if clients have no such attribute;
// without a name nothing is to be said of it upstream. t is nil for attributes that we do not know ourselves.
func (f *forwarder) attribute(description []byte) (name string, t *attributeType, known bool) {
	base, _, option := strings.Cut(string(description), ";")
	if !validDescription([]byte(base)) || len(base) > 128 {
		return "", nil, false
	}
	if t = lookupType([]byte(base)); t != nil {
		base = t.name
	}
	if !f.readable(strings.ToLower(base)) {
		return "", nil, false
	}
	if option {
		return "", t, true
	}
	return base, t, true
}

// assertion translates a comparison with a value.
func (f *forwarder) assertion(op byte, description, value []byte, negated bool) forwarded {
	attr, t, known := f.attribute(description)
	switch {
	case !known || len(value) > maxAssertion:
		return undefinedIs(negated)
	case attr == "" || len(value) == 0:
		return anyIs(negated)
	case t != nil && t.rule == distinguishedName:
		if op != filterEqual {
			return undefinedIs(negated)
		}
		mapped, ok := f.dn(value)
		if !ok {
			return forwarded{op: forwardNone}
		}
		value = mapped
	}
	return forwarded{op: op, attr: attr, value: value}
}

// substrings translates the pieces one by one.
func (f *forwarder) substrings(body []byte, negated bool) forwarded {
	r := ber.NewReader(body)
	description, err := r.Expect(ber.OctetString)
	if err != nil {
		return undefinedIs(negated)
	}
	seq, err := r.Expect(ber.Sequence)
	if err != nil || len(seq) > maxAssertion {
		return undefinedIs(negated)
	}
	attr, t, known := f.attribute(description)
	switch {
	case !known || t != nil && t.rule != caseIgnore && t.rule != caseExact:
		return undefinedIs(negated)
	case attr == "":
		return anyIs(negated)
	}
	out := forwarded{op: filterSubstrings, attr: attr}
	for r := ber.NewReader(seq); !r.Empty(); {
		tag, piece, err := r.Next()
		if err != nil {
			return undefinedIs(negated)
		}
		if len(piece) == 0 {
			continue
		}
		switch tag {
		case 0x80:
			out.initial = piece
		case 0x82:
			out.final = piece
		default:
			out.any = append(out.any, piece)
		}
	}
	if len(out.initial)+len(out.final)+len(out.any) == 0 {
		return forwarded{op: filterPresent, attr: attr}
	}
	return out
}

// fold takes the parts out that make no difference.
func (f forwarded) fold() forwarded {
	if f.op == filterNot {
		switch f.parts[0].op {
		case forwardAll:
			return forwarded{op: forwardNone}
		case forwardNone:
			return forwarded{op: forwardAll}
		case filterNot:
			return f.parts[0].parts[0]
		}
		return f
	}
	neutral, absorbing := byte(forwardAll), byte(forwardNone)
	if f.op == filterOr {
		neutral, absorbing = absorbing, neutral
	}
	f.parts = slices.DeleteFunc(f.parts, func(p forwarded) bool { return p.op == neutral })
	for _, p := range f.parts {
		if p.op == absorbing {
			return p
		}
	}
	switch len(f.parts) {
	case 0:
		return forwarded{op: neutral}
	case 1:
		return f.parts[0]
	}
	return f
}

// append writes the text form (RFC 4515).
func (f *forwarded) append(dst []byte) []byte {
	dst = append(dst, '(')
	switch f.op {
	case forwardAll:
		dst = append(dst, "objectClass=*"...)
	case forwardNone:
		dst = append(dst, "!(objectClass=*)"...)
	case filterAnd, filterOr, filterNot:
		dst = append(dst, map[byte]byte{filterAnd: '&', filterOr: '|', filterNot: '!'}[f.op])
		for i := range f.parts {
			dst = f.parts[i].append(dst)
		}
	case filterPresent:
		dst = append(append(dst, f.attr...), "=*"...)
	case filterSubstrings:
		dst = append(append(dst, f.attr...), '=')
		dst = append(appendFilterValue(dst, f.initial), '*')
		for _, piece := range f.any {
			dst = append(appendFilterValue(dst, piece), '*')
		}
		dst = appendFilterValue(dst, f.final)
	default:
		dst = append(dst, f.attr...)
		dst = append(dst, map[byte]string{filterEqual: "=", filterGreater: ">=", filterLess: "<="}[f.op]...)
		dst = appendFilterValue(dst, f.value)
	}
	return append(dst, ')')
}

func appendFilterValue(dst, value []byte) []byte {
	return append(dst, ldap.EscapeFilter(string(value))...)
}

// text returns the text form, or an error if it is too long.
func (f *forwarded) text() (string, error) {
	text := f.append(nil)
	if len(text) > maxForwarded {
		return "", errForwardLarge
	}
	return string(text), nil
}

// both returns the text of a filter that is true when both are. Either may be empty, which is true.
func both(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return "(&" + a + b + ")"
}

// filterText checks the text of a filter from the configuration: parentheses are added where they are missing.
func filterText(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", nil
	}
	if !strings.HasPrefix(s, "(") {
		s = "(" + s + ")"
	}
	if len(s) > 4<<10 || strings.Count(s, "(") > 64 {
		return "", errors.New("longer or deeper than a filter of the configuration may be")
	}
	if _, err := ldap.CompileFilter(s); err != nil {
		return "", errors.New("not a filter by RFC 4515")
	}
	return s, nil
}
