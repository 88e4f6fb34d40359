package probes_test

import "github.com/valetkey/valetkey/test/harness"

// Names of the entries that both servers have.
const (
	base    = harness.BaseDN
	people  = "ou=people," + base
	groups  = "ou=groups," + base
	alice   = "uid=alice," + people
	bob     = "uid=bob," + people
	nobody  = "uid=nobody," + people
	staff   = "cn=staff," + groups
	admins  = "cn=admins," + groups
	scanner = "cn=scanner,ou=readers," + base
)

// request is one PDU before it has a message id.
type request struct {
	op       []byte
	controls [][]byte
	silent   bool // it has no response
	ends     bool // the connection, which is to be waited for
	id       int  // 0: the next one of the step
	raw      []byte
}

// message encodes an LDAPMessage. Elements behind the operation go in as they are.
func message(id int, op []byte, more ...[]byte) []byte {
	return tlv(0x30, append([][]byte{integer(id), op}, more...)...)
}

func (r request) encode(id int) []byte {
	if r.raw != nil {
		return r.raw
	}
	if r.id != 0 {
		id = r.id
	}
	if len(r.controls) > 0 {
		return message(id, r.op, tlv(0xa0, r.controls...))
	}
	return message(id, r.op)
}

// with adds controls.
func (r request) with(controls ...[]byte) request {
	r.controls = append(r.controls[:len(r.controls):len(r.controls)], controls...)
	return r
}

// numbered gives it a message id.
func (r request) numbered(id int) request {
	r.id = id
	return r
}

// raw is a PDU as it is; its response has the message id 2, if any.
func raw(pdu []byte) request { return request{raw: pdu} }

func simple(dn, password string) request { return bindAs(3, dn, tlv(0x80, []byte(password))) }

func bindAs(version int, dn string, auth []byte) request {
	return request{op: tlv(0x60, integer(version), str(dn), auth)}
}

func unbind() request { return request{op: []byte{0x42, 0}, silent: true, ends: true} }

func abandon(id int) request { return request{op: num(0x50, id), silent: true} }

func extended(oid string, value ...string) request {
	body := [][]byte{tlv(0x80, []byte(oid))}
	for _, v := range value {
		body = append(body, tlv(0x81, []byte(v)))
	}
	return request{op: tlv(0x77, body...)}
}

const (
	oidWhoAmI   = "1.3.6.1.4.1.4203.1.11.3"
	oidStartTLS = "1.3.6.1.4.1.1466.20037"
	oidPaged    = "1.2.840.113556.1.4.319"
	oidManage   = "2.16.840.1.113730.3.4.2"
	oidPolicy   = "1.3.6.1.4.1.42.2.27.8.5.1"
	oidNotice   = "1.3.6.1.4.1.1466.20036"
	oidUnknown  = "1.2.3.4.5.6"
)

func compare(dn, attribute, value string) request {
	return request{op: tlv(0x6e, str(dn), tlv(0x30, str(attribute), str(value)))}
}

func del(dn string) request { return request{op: tlv(0x4a, []byte(dn))} }

func add(dn string) request {
	return request{op: tlv(0x68, str(dn), tlv(0x30, tlv(0x30, str("objectClass"), tlv(0x31, str("device"))), tlv(0x30, str("cn"), tlv(0x31, str("x")))))}
}

func modify(dn, attribute, value string) request {
	return request{op: tlv(0x66, str(dn), tlv(0x30, tlv(0x30, enumerated(2), tlv(0x30, str(attribute), tlv(0x31, str(value))))))}
}

func rename(dn, rdn string) request { return request{op: tlv(0x6c, str(dn), str(rdn), boolean(true))} }

// lookup is a SearchRequest.
type lookup struct {
	base                     string
	scope, deref, size, time int
	types                    []byte // the BOOLEAN typesOnly; nil: false
	filter                   []byte // nil: (objectClass=*)
	attrs                    []string
	more                     []byte // behind the last field
}

func (l lookup) request() request {
	if l.types == nil {
		l.types = boolean(false)
	}
	if l.filter == nil {
		l.filter = has("objectClass")
	}
	var attrs [][]byte
	for _, a := range l.attrs {
		attrs = append(attrs, str(a))
	}
	return request{op: tlv(0x63, str(l.base), enumerated(l.scope), enumerated(l.deref), integer(l.size), integer(l.time), l.types, l.filter, tlv(0x30, attrs...), l.more)}
}

// read looks at one entry, for these attributes.
func read(dn string, attrs ...string) request { return lookup{base: dn, attrs: attrs}.request() }

// find looks below the suffix and wants names only.
func find(filter []byte) request {
	return lookup{base: base, scope: 2, filter: filter, attrs: []string{"1.1"}}.request()
}

func and(parts ...[]byte) []byte { return tlv(0xa0, parts...) }
func or(parts ...[]byte) []byte  { return tlv(0xa1, parts...) }
func not(part []byte) []byte     { return tlv(0xa2, part) }

func has(attribute string) []byte { return tlv(0x87, []byte(attribute)) }

func ava(tag byte, attribute, value string) []byte { return tlv(tag, str(attribute), str(value)) }
func eq(attribute, value string) []byte            { return ava(0xa3, attribute, value) }
func ge(attribute, value string) []byte            { return ava(0xa5, attribute, value) }
func le(attribute, value string) []byte            { return ava(0xa6, attribute, value) }
func approx(attribute, value string) []byte        { return ava(0xa8, attribute, value) }

// The kinds of the pieces of a substring filter.
const (
	initial = 0x80
	anyOf   = 0x81
	final   = 0x82
)

func piece(kind byte, s string) []byte { return tlv(kind, []byte(s)) }

func substrings(attribute string, pieces ...[]byte) []byte {
	return tlv(0xa4, str(attribute), tlv(0x30, pieces...))
}

// extensible is a MatchingRuleAssertion; empty parts are left out.
func extensible(rule, attribute, value string, dn bool) []byte {
	var parts [][]byte
	if rule != "" {
		parts = append(parts, tlv(0x81, []byte(rule)))
	}
	if attribute != "" {
		parts = append(parts, tlv(0x82, []byte(attribute)))
	}
	parts = append(parts, tlv(0x83, []byte(value)))
	if dn {
		parts = append(parts, tlv(0x84, []byte{0xff}))
	}
	return tlv(0xa9, parts...)
}

// Controls: not critical is left out, as DER wants it.
func control(oid string, critical bool, value ...[]byte) []byte {
	parts := [][]byte{str(oid)}
	if critical {
		parts = append(parts, boolean(true))
	}
	for _, v := range value {
		parts = append(parts, tlv(0x04, v))
	}
	return tlv(0x30, parts...)
}

func paged(size int, cookie string) []byte {
	return control(oidPaged, false, tlv(0x30, integer(size), str(cookie)))
}

func nested(depth int, wrap func([]byte) []byte, inner []byte) []byte {
	for range depth {
		inner = wrap(inner)
	}
	return inner
}
