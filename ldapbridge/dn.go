package ldapbridge

import (
	"errors"
	"unicode/utf8"
)

// dn is a parsed distinguished name (RFC 4514). Values are unescaped; they point into the text that was parsed or into
// scratch, so a dn that outlives the text must be parsed from a copy. The zero value is the root.
type dn struct {
	avas    []ava
	starts  []int // index in avas of the first of each RDN
	scratch []byte
}

// ava is one attribute-value pair.
type ava struct {
	typ   string // canonical spelling of a known type, lower case otherwise
	value []byte
}

var errDN = errors.New("not a distinguished name")

// parse reads the string form. It is stricter than RFC 4514 where laxness would give one name two readings: no #hex values,
// no control characters, valid UTF-8 before and after unescaping, no leftovers of LDAPv2 (semicolons, quotes). Only the empty
// string is the root; spaces are not.
func (d *dn) parse(in []byte, l *Limits) error {
	d.avas, d.starts, d.scratch = d.avas[:0], d.starts[:0], d.scratch[:0]
	if len(in) == 0 {
		return nil
	}
	if len(in) > l.DN || !utf8.Valid(in) {
		return errDN
	}
	newRDN := true
	for i := 0; ; {
		if newRDN {
			if len(d.starts) == l.RDNs {
				return errDN
			}
			d.starts = append(d.starts, len(d.avas))
		}
		if len(d.avas) == maxAVAs {
			return errDN
		}
		i = skipSpace(in, i)
		start := i
		for i < len(in) && in[i] != '=' && in[i] != ' ' {
			i++
		}
		description := in[start:i]
		if !validDescription(description) {
			return errDN
		}
		if i = skipSpace(in, i); i == len(in) || in[i] != '=' {
			return errDN
		}
		value, next, err := d.value(in, skipSpace(in, i+1))
		if err != nil {
			return err
		}
		a := ava{value: value}
		if t := lookupType(description); t != nil {
			a.typ = t.name
		} else {
			a.typ = string(appendLower(nil, description))
		}
		d.avas = append(d.avas, a)
		if next == len(in) {
			return nil
		}
		newRDN = in[next] == ','
		i = next + 1
	}
}

func skipSpace(in []byte, i int) int {
	for i < len(in) && in[i] == ' ' {
		i++
	}
	return i
}

// value reads an attribute value from in[i:] and returns it unescaped, with the index of the separator that ended it.
func (d *dn) value(in []byte, i int) (value []byte, next int, err error) {
	if i < len(in) && in[i] == '#' {
		return nil, 0, errDN
	}
	var (
		start   = i
		end     = i // after the last byte that is not a trailing space
		copied  = false
		scratch = len(d.scratch)
	)
	for i < len(in) && in[i] != ',' && in[i] != '+' {
		c := in[i]
		switch c {
		case '"', ';', '<', '>':
			return nil, 0, errDN
		case '\\':
			if !copied {
				copied = true
				d.scratch = append(d.scratch, in[start:i]...)
			}
			b, n := unescape(in[i+1:])
			if n == 0 {
				return nil, 0, errDN
			}
			d.scratch = append(d.scratch, b)
			i += 1 + n
			end = len(d.scratch)
			continue
		}
		i++
		if copied {
			d.scratch = append(d.scratch, c)
		}
		if c != ' ' {
			if end = i; copied {
				end = len(d.scratch)
			}
		}
	}
	if copied {
		value = d.scratch[scratch:end:end]
		d.scratch = d.scratch[:end]
	} else {
		value = in[start:end:end]
	}
	if !cleanText(value) {
		return nil, 0, errDN
	}
	return value, i, nil
}

// unescape reads what follows a backslash and returns how many bytes it took, 0 if it is not an escape.
func unescape(in []byte) (b byte, n int) {
	if len(in) == 0 {
		return 0, 0
	}
	switch in[0] {
	case ' ', '"', '#', '+', ',', ';', '<', '=', '>', '\\':
		return in[0], 1
	}
	if len(in) < 2 {
		return 0, 0
	}
	hi, ok1 := hexDigit(in[0])
	lo, ok2 := hexDigit(in[1])
	if !ok1 || !ok2 {
		return 0, 0
	}
	return hi<<4 | lo, 2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// cleanText reports whether s is UTF-8 without control characters (C0, DEL, C1).
func cleanText(s []byte) bool {
	ascii := true
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii {
		return true
	}
	if !utf8.Valid(s) {
		return false
	}
	for i := 0; i+1 < len(s); i++ {
		if s[i] == 0xc2 && s[i+1] < 0xa0 {
			return false
		}
	}
	return true
}

// rdns returns the number of RDNs.
func (d *dn) rdns() int { return len(d.starts) }

// rdn returns the pairs of the i-th RDN, counted from the leaf.
func (d *dn) rdn(i int) []ava {
	if i+1 < len(d.starts) {
		return d.avas[d.starts[i]:d.starts[i+1]]
	}
	return d.avas[d.starts[i]:]
}

// endsWith reports whether the last RDNs of d are those of suffix.
func (d *dn) endsWith(suffix *dn) bool {
	skip := d.rdns() - suffix.rdns()
	if skip < 0 {
		return false
	}
	for i := range suffix.starts {
		if !equalRDN(d.rdn(skip+i), suffix.rdn(i)) {
			return false
		}
	}
	return true
}

// equal reports whether both name the same entry.
func (d *dn) equal(o *dn) bool { return d.rdns() == o.rdns() && d.endsWith(o) }

// equalRDN compares two RDNs, whose pairs may stand in any order.
func equalRDN(a, b []ava) bool {
	if len(a) != len(b) {
		return false
	}
	var used uint64 // maxAVAs is 64
	for i := range a {
		found := false
		for j := range b {
			if used&(1<<j) == 0 && a[i].typ == b[j].typ && equalFold(a[i].value, b[j].value) {
				used |= 1 << j
				found = true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// append appends the string form with the escapes that RFC 4514 section 2.4 demands and no others, and no optional spaces.
func (d *dn) append(dst []byte) []byte {
	rdn := 0
	for i, a := range d.avas {
		switch {
		case rdn < len(d.starts) && d.starts[rdn] == i:
			if i > 0 {
				dst = append(dst, ',')
			}
			rdn++
		default:
			dst = append(dst, '+')
		}
		dst = append(dst, a.typ...)
		dst = append(dst, '=')
		dst = appendEscaped(dst, a.value)
	}
	return dst
}

func (d *dn) String() string {
	var buf [128]byte
	return string(d.append(buf[:0]))
}

func appendEscaped[T ~string | ~[]byte](dst []byte, value T) []byte {
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case '"', '+', ',', ';', '<', '>', '\\':
			dst = append(dst, '\\', c)
		case '#':
			if i == 0 {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
		case ' ':
			if i == 0 || i == len(value)-1 {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// parseDN parses a name that is kept.
func parseDN(s string, l *Limits) (*dn, error) {
	d := new(dn)
	if err := d.parse([]byte(s), l); err != nil {
		return nil, err
	}
	return d, nil
}

// above returns the name without its first n RDNs, sharing the values.
func (d *dn) above(n int) *dn {
	first := d.starts[n]
	up := &dn{avas: d.avas[first:]}
	for _, start := range d.starts[n:] {
		up.starts = append(up.starts, start-first)
	}
	return up
}

// below returns the name with one more RDN, of one pair, in front, sharing the values.
func (d *dn) below(a ava) *dn {
	down := &dn{
		avas:   append(append(make([]ava, 0, 1+len(d.avas)), a), d.avas...),
		starts: make([]int, 1, 1+len(d.starts)),
	}
	for _, start := range d.starts {
		down.starts = append(down.starts, start+1)
	}
	return down
}

// isBelow reports whether d is in the scope, scopeOne or scopeSubordinate, of base.
func (d *dn) isBelow(base *dn, scope int32) bool {
	more := d.rdns() - base.rdns()
	return (more == 1 || more > 1 && scope != scopeOne) && d.endsWith(base)
}
