package ldapbridge

import (
	"bytes"
	"cmp"
	"errors"
	"unicode/utf8"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// truth is a value of the three-valued logic of RFC 4511 section 4.5.1.7, ordered so that "and" is the minimum and "or" the
// maximum.
type truth int8

const (
	isFalse truth = iota - 1
	undefined
	isTrue
)

func truthOf(b bool) truth {
	if b {
		return isTrue
	}
	return isFalse
}

// Tags of Filter (RFC 4511 section 4.5.1).
const (
	filterAnd        = 0xa0
	filterOr         = 0xa1
	filterNot        = 0xa2
	filterEqual      = 0xa3
	filterSubstrings = 0xa4
	filterGreater    = 0xa5
	filterLess       = 0xa6
	filterPresent    = 0x87
	filterApprox     = 0xa8
	filterExtensible = 0xa9
)

var (
	errFilterDeep       = errors.New("filter nested too deeply")
	errFilterLarge      = errors.New("filter has too many parts")
	errFilterSubstrings = errors.New("bad substring filter")
)

// checkFilter checks the framing and the size of a filter, so that match need not. errDecoding means that the PDU is broken;
// any other error is for the answer.
func checkFilter(filter []byte, l *Limits) (nodes int, err error) {
	err = checkNode(filter, l, 1, &nodes)
	return nodes, err
}

func checkNode(filter []byte, l *Limits, depth int, nodes *int) error {
	if depth > l.FilterDepth {
		return errFilterDeep
	}
	if *nodes++; *nodes > l.FilterNodes {
		return errFilterLarge
	}
	r := ber.NewReader(filter)
	tag, body, err := r.Next()
	if err != nil || !r.Empty() {
		return errDecoding
	}
	switch tag {
	case filterAnd, filterOr:
		for r := ber.NewReader(body); !r.Empty(); {
			part, err := r.NextElement()
			if err != nil {
				return errDecoding
			}
			if err := checkNode(part, l, depth+1, nodes); err != nil {
				return err
			}
		}
	case filterNot:
		return checkNode(body, l, depth+1, nodes)
	case filterEqual, filterGreater, filterLess, filterApprox:
		return new(assertion).decode(body)
	case filterSubstrings:
		return checkSubstrings(body, l, nodes)
	case filterExtensible:
		return new(extensible).decode(body)
	}
	return nil
}

// checkSubstrings holds the pieces to their order: initial first, final last, at least one.
func checkSubstrings(body []byte, l *Limits, nodes *int) error {
	r := ber.NewReader(body)
	if _, err := r.Expect(ber.OctetString); err != nil {
		return errDecoding
	}
	seq, err := r.Expect(ber.Sequence)
	if err != nil {
		return errDecoding
	}
	if err := trailing(&r); err != nil {
		return err
	}
	if len(seq) == 0 {
		return errFilterSubstrings
	}
	for i, r := 0, ber.NewReader(seq); !r.Empty(); i++ {
		if *nodes++; *nodes > l.FilterNodes {
			return errFilterLarge
		}
		tag, _, err := r.Next()
		switch {
		case err != nil:
			return errDecoding
		case tag == 0x80 && i == 0, tag == 0x81, tag == 0x82 && r.Empty():
		case tag < 0x80 || tag > 0x82:
			return errDecoding
		default:
			return errFilterSubstrings
		}
	}
	return nil
}

// extensible is a MatchingRuleAssertion (RFC 4511 section 4.5.1.7.7).
type extensible struct {
	rule, description, value []byte
	dnAttributes             bool
}

func (e *extensible) decode(body []byte) error {
	r := ber.NewReader(body)
	var err error
	if r.Peek() == 0x81 {
		if e.rule, err = r.Expect(0x81); err != nil {
			return errDecoding
		}
	}
	if r.Peek() == 0x82 {
		if e.description, err = r.Expect(0x82); err != nil {
			return errDecoding
		}
	}
	if e.value, err = r.Expect(0x83); err != nil {
		return errDecoding
	}
	if r.Peek() == 0x84 {
		flag, err := r.Expect(0x84)
		if err != nil {
			return errDecoding
		}
		if e.dnAttributes, err = ber.ParseBool(flag); err != nil {
			return errDecoding
		}
	}
	return trailing(&r)
}

// match evaluates a filter that checkFilter let pass.
func (v *evaluation) match(e *entry, filter []byte) truth {
	if !v.step(1 + len(e.attrs)/stepAttributes) {
		return undefined
	}
	r := ber.NewReader(filter)
	tag, body, err := r.Next()
	if err != nil {
		return undefined
	}
	switch tag {
	case filterAnd, filterOr:
		// Without parts they are absolute true and false (RFC 4526).
		t, settled, pick := isTrue, isFalse, func(a, b truth) truth { return min(a, b) }
		if tag == filterOr {
			t, settled, pick = isFalse, isTrue, func(a, b truth) truth { return max(a, b) }
		}
		for r := ber.NewReader(body); !r.Empty() && t != settled; {
			part, err := r.NextElement()
			if err != nil {
				return undefined
			}
			t = pick(t, v.match(e, part))
		}
		return t
	case filterNot:
		return -v.match(e, body)
	case filterPresent:
		t, values := e.find(body)
		if t == nil {
			return undefined
		}
		return truthOf(len(values) > 0)
	case filterEqual, filterApprox, filterGreater, filterLess:
		var a assertion
		if a.decode(body) != nil {
			return undefined
		}
		t, values := e.find(a.description)
		if t == nil {
			return undefined
		}
		switch tag {
		case filterGreater:
			return v.anyOrdered(t.rule, values, a.value, func(c int) bool { return c >= 0 })
		case filterLess:
			return v.anyOrdered(t.rule, values, a.value, func(c int) bool { return c <= 0 })
		}
		return v.anyEqual(t.rule, values, a.value)
	case filterSubstrings:
		return v.matchSubstrings(e, body)
	case filterExtensible:
		var x extensible
		if x.decode(body) != nil {
			return undefined
		}
		return v.matchExtensible(e, &x)
	}
	return undefined // a choice of a later protocol version
}

// maxAssertion bounds an assertion value, in bytes. A longer one equals no value that we hold.
const maxAssertion = 1024

// anyEqual says whether one of the values equals the asserted one. An assertion that the rule cannot read is Undefined.
func (v *evaluation) anyEqual(r rule, values []string, asserted []byte) truth {
	if len(asserted) > maxAssertion {
		return undefined
	}
	switch r {
	case octets:
		for _, x := range values {
			if !v.value(x) {
				return undefined
			}
			if x == string(asserted) {
				return isTrue
			}
		}
	case integer:
		n, ok := parseDecimal(asserted)
		if !ok {
			return undefined
		}
		for _, x := range values {
			if !v.value(x) {
				return undefined
			}
			if m, ok := parseDecimal([]byte(x)); ok && n.compare(m) == 0 {
				return isTrue
			}
		}
	case distinguishedName:
		var want, have dn
		if want.parse(asserted, v.l) != nil {
			return undefined
		}
		for _, x := range values {
			if !v.step(nameSteps) {
				return undefined
			}
			if have.parse([]byte(x), v.l) == nil && have.equal(&want) {
				return isTrue
			}
		}
	default:
		if !utf8.Valid(asserted) {
			return undefined
		}
		want := appendSpaceFolded(nil, asserted, r == caseIgnore)
		var buf [256]byte
		for _, x := range values {
			if !v.value(x) {
				return undefined
			}
			if bytes.Equal(appendSpaceFolded(buf[:0], []byte(x), r == caseIgnore), want) {
				return isTrue
			}
		}
	}
	return isFalse
}

// anyOrdered says whether one of the values stands in this order to the asserted one.
func (v *evaluation) anyOrdered(r rule, values []string, asserted []byte, holds func(int) bool) truth {
	if len(asserted) > maxAssertion {
		return undefined
	}
	switch r {
	case distinguishedName:
		return undefined // no ordering rule
	case integer:
		n, ok := parseDecimal(asserted)
		if !ok {
			return undefined
		}
		for _, x := range values {
			if !v.value(x) {
				return undefined
			}
			if m, ok := parseDecimal([]byte(x)); ok && holds(m.compare(n)) {
				return isTrue
			}
		}
		return isFalse
	case octets:
		for _, x := range values {
			if !v.value(x) {
				return undefined
			}
			if holds(cmp.Compare(x, string(asserted))) {
				return isTrue
			}
		}
		return isFalse
	}
	if !utf8.Valid(asserted) {
		return undefined
	}
	want := appendSpaceFolded(nil, asserted, r == caseIgnore)
	for _, x := range values {
		if !v.value(x) {
			return undefined
		}
		if holds(bytes.Compare(appendSpaceFolded(nil, []byte(x), r == caseIgnore), want)) {
			return isTrue
		}
	}
	return isFalse
}

// decimal is an INTEGER value of any size (RFC 4517 section 3.3.16).
type decimal struct {
	negative bool
	digits   string // without leading zeros; empty is zero
}

func parseDecimal(s []byte) (decimal, bool) {
	var d decimal
	if len(s) > 0 && s[0] == '-' {
		d.negative = true
		s = s[1:]
	}
	if len(s) == 0 {
		return d, false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return d, false
		}
	}
	d.digits = string(bytes.TrimLeft(s, "0"))
	d.negative = d.negative && d.digits != ""
	return d, true
}

func (d decimal) compare(o decimal) int {
	if d.negative != o.negative {
		if d.negative {
			return -1
		}
		return 1
	}
	c := cmp.Or(cmp.Compare(len(d.digits), len(o.digits)), cmp.Compare(d.digits, o.digits))
	if d.negative {
		return -c
	}
	return c
}

func (v *evaluation) matchSubstrings(e *entry, body []byte) truth {
	r := ber.NewReader(body)
	description, err := r.Expect(ber.OctetString)
	if err != nil {
		return undefined
	}
	seq, err := r.Expect(ber.Sequence)
	if err != nil {
		return undefined
	}
	t, values := e.find(description)
	if t == nil || t.rule != caseIgnore && t.rule != caseExact {
		return undefined
	}
	if len(seq) > maxAssertion || !utf8ValidPieces(seq) {
		return undefined
	}
	for _, x := range values {
		if !v.value(x) {
			return undefined
		}
		if substringsMatch(appendSpaceFolded(nil, []byte(x), t.rule == caseIgnore), seq, t.rule == caseIgnore) {
			return isTrue
		}
	}
	return isFalse
}

func utf8ValidPieces(seq []byte) bool {
	for r := ber.NewReader(seq); !r.Empty(); {
		if _, piece, err := r.Next(); err != nil || !utf8.Valid(piece) {
			return false
		}
	}
	return true
}

// substringsMatch finds the pieces in a folded value, one after another. A space at the inner edge of a piece counts as one
// space (RFC 4518 section 2.6.1).
func substringsMatch(value, seq []byte, fold bool) bool {
	for r := ber.NewReader(seq); !r.Empty(); {
		tag, raw, err := r.Next()
		if err != nil {
			return false
		}
		piece := appendSpaceFolded(nil, raw, fold)
		leading, trailing := raw[:0:0], false
		if len(raw) > 0 {
			if raw[0] == ' ' && tag != 0x80 {
				leading = append(leading, ' ')
			}
			trailing = raw[len(raw)-1] == ' ' && tag != 0x82 && len(piece) > 0
		}
		piece = append(leading, piece...)
		if trailing {
			piece = append(piece, ' ')
		}
		switch tag {
		case 0x80:
			if !bytes.HasPrefix(value, piece) {
				return false
			}
			value = value[len(piece):]
		case 0x82:
			return bytes.HasSuffix(value, piece)
		default:
			i := bytes.Index(value, piece)
			if i < 0 {
				return false
			}
			value = value[i+len(piece):]
		}
	}
	return true
}

// matchingRules are those that a filter may name.
var matchingRules = map[string]rule{
	"caseignorematch": caseIgnore, "2.5.13.2": caseIgnore,
	"caseexactmatch": caseExact, "2.5.13.5": caseExact,
	"distinguishednamematch": distinguishedName, "2.5.13.1": distinguishedName,
}

func (v *evaluation) matchExtensible(e *entry, x *extensible) truth {
	if len(x.description) == 0 {
		return undefined // a rule over all attributes
	}
	t, values := e.find(x.description)
	if t == nil {
		return undefined
	}
	r := t.rule
	if x.rule != nil {
		named, ok := matchingRules[string(appendLower(nil, x.rule))]
		// A string rule suits the string attributes, the rule for names those that hold names.
		if !ok || (named == distinguishedName) != (t.rule == distinguishedName) || t.rule == octets || t.rule == integer {
			return undefined
		}
		r = named
	}
	if x.dnAttributes {
		for _, a := range e.dn.avas {
			if a.typ == t.name {
				values = append(values[:len(values):len(values)], string(a.value))
			}
		}
	}
	return v.anyEqual(r, values, x.value)
}
