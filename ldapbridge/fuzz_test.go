package ldapbridge

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// FuzzRequest decodes any bytes as one LDAPMessage and writes what it understood again: that must decode to the same.
func FuzzRequest(f *testing.F) {
	for _, p := range samplePDUs() {
		f.Add(p)
	}
	l := defaultLimits(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := decodeAll(in, l)
		if err != nil {
			return
		}
		second, err := decodeAll(first, l)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("% x\nwas understood as % x\nand that as       % x, %v", in, first, second, err)
		}
	})
}

// decodeAll decodes a whole request and returns the shortest encoding of what was understood.
func decodeAll(in []byte, l *Limits) ([]byte, error) {
	outer := ber.NewReader(in)
	body, err := outer.Expect(ber.Sequence)
	if err != nil {
		return nil, err
	}
	var m message
	if err := m.decode(body, l.Controls); err != nil {
		return nil, err
	}
	if m.id < 1 || len(m.controls) > l.Controls {
		return nil, fmt.Errorf("id %d with %d controls was let pass", m.id, len(m.controls))
	}
	var op []byte
	switch m.op {
	case opBindRequest:
		var r bindRequest
		if err := r.decode(m.body); err != nil {
			return nil, err
		}
		op = cons(m.op, integ(r.version), str(string(r.name)), tagged(r.method, string(r.credentials)))
	case opSearchRequest:
		var r searchRequest
		if err := r.decode(m.body); err != nil {
			return nil, err
		}
		if _, err := checkFilter(r.filter, l); err != nil {
			return nil, err
		}
		op = cons(m.op, str(string(r.base)), enum(r.scope), enum(r.deref), integ(r.sizeLimit), integ(r.timeLimit),
			ber.AppendBool(nil, ber.Boolean, r.typesOnly), r.filter, tagged(ber.Sequence, string(r.attributes)))
	case opCompareRequest:
		var r compareRequest
		if err := r.decode(m.body); err != nil {
			return nil, err
		}
		op = cons(m.op, str(string(r.entry)), cons(ber.Sequence, str(string(r.ava.description)), str(string(r.ava.value))))
	case opExtendedRequest:
		var r extendedRequest
		if err := r.decode(m.body); err != nil {
			return nil, err
		}
		op = tagged(0x80, string(r.name))
		if r.value != nil {
			op = append(op, tagged(0x81, string(r.value))...)
		}
		op = cons(m.op, op)
	default:
		op = tagged(m.op, string(m.body))
	}
	var list []byte
	for _, c := range m.controls {
		one := str(string(c.oid))
		if c.critical {
			one = append(one, yes...)
		}
		if c.value != nil {
			one = append(one, str(string(c.value))...)
		}
		list = append(list, cons(ber.Sequence, one)...)
	}
	return pdu(m.id, op, tagged(0xa0, string(list))), nil
}

// FuzzSession plays any bytes to a connection and holds the answers to the rules that no input may break.
func FuzzSession(f *testing.F) {
	f.Add(bytes.Join(samplePDUs(), nil), byte(0))
	for i, p := range samplePDUs() {
		f.Add(append(bindReq(1, aliceDN, alicePass), append(p, whoami(9)...)...), byte(i))
		f.Add(append(p, searchReq(9, searchSpec{base: testBase, scope: 2})...), byte(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, chunk byte) {
		if len(in) > 128<<10 {
			return
		}
		s, _, logged := newTestServer(t, Config{})
		m := &memConn{in: bytes.Clone(in), chunk: int(chunk)}
		newConn(s, m, "tcp:test").Serve()
		if n := s.Stats().Panics; n != 0 {
			t.Fatalf("panic:\n%s", logged)
		}
		replies, err := parseReplies(m.out.Bytes())
		if err != nil {
			t.Fatalf("answers are not well-formed: %v: % x", err, m.out.Bytes())
		}
		checkSession(t, &s.cfg.Limits, in, replies)
	})
}

// checkSession walks the requests as the server must have seen them, next to its answers.
func checkSession(t *testing.T, l *Limits, in []byte, replies []reply) {
	bound := false
	var m message
	for r := ber.NewReader(in); len(replies) > 0; {
		body, err := r.Expect(ber.Sequence)
		if err != nil {
			t.Fatalf("answers without a request: %v", replies)
		}
		err = m.decode(body, l.Controls)
		if err == nil && m.op == opAbandonRequest {
			continue
		}
		if m.op == opUnbindRequest {
			t.Fatalf("answers after an unbind: %v", replies)
		}
		if notice := replies[0].id == 0; notice || err != nil {
			if !notice || replies[0].name != oidNotice || replies[0].code != protocolError || len(replies) != 1 {
				t.Fatalf("request broken: %v; answers = %v, want one notice", err, replies)
			}
			return
		}
		entries := 0
		for len(replies) > 0 && replies[0].op == opSearchEntry {
			e := replies[0]
			if e.id != m.id || m.op != opSearchRequest || e.name != "" && !bound {
				t.Fatalf("entry %v in answer to %#x, bound: %v", e, m.op, bound)
			}
			if e.name != "" && e.name != testBase && e.name != people && e.name != aliceDN && e.name != "uid=bob,"+people && e.name != "ou=groups,"+testBase && e.name != "cn=staff,ou=groups,"+testBase &&
				e.name != "cn=admins,ou=groups,"+testBase && e.name != subschemaName {
				t.Fatalf("entry %v", e)
			}
			for name, values := range e.attrs {
				if secretAttributes[strings.ToLower(name)] || strings.Contains(fmt.Sprint(values), "secret") {
					t.Fatalf("entry with %s: %q", name, values)
				}
			}
			entries++
			replies = replies[1:]
		}
		if len(replies) == 0 {
			t.Fatalf("%d entries without a result", entries)
		}
		a := replies[0]
		replies = replies[1:]
		if a.id != m.id || a.op != responseTo(m.op) {
			t.Fatalf("answer %v to request %d %#x", a, m.id, m.op)
		}
		if a.code == 51 || a.code == 52 {
			t.Fatalf("result code %d", a.code)
		}
		switch m.op {
		case opBindRequest:
			var b bindRequest
			if err := b.decode(m.body); err != nil {
				t.Fatalf("undecodable bind was answered: %v", a)
			}
			bound = a.code == success && len(b.name) > 0
			if len(b.credentials) == 0 && len(b.name) > 0 && a.code == success {
				t.Fatal("an unauthenticated bind succeeded")
			}
			if pw := string(b.credentials); bound && (pw == "" || !strings.Contains(alicePass+" bobs gone off sick", pw)) {
				t.Fatalf("bind with %q succeeded", pw)
			}
			if a.code == invalidCredentials && a.diag != "" {
				t.Fatalf("49 with the diagnostic %q", a.diag)
			}
		case opExtendedRequest:
			if (a.value != "") && !bound {
				t.Fatalf("identity %q without a bind", a.value)
			}
		case opSearchRequest:
			var q searchRequest
			if q.decode(m.body) == nil && !bound && a.code == success && (len(q.base) > 0 || q.scope != 0) {
				t.Fatalf("search of %q succeeded without a bind", q.base)
			}
		case opCompareRequest:
			if !bound && a.code != insufficientAccess && a.code != unavailableCriticalExt {
				t.Fatalf("compare without a bind = %v", a)
			}
		default:
			if a.code != unwillingToPerform && a.code != unavailableCriticalExt {
				t.Fatalf("write = %v", a)
			}
		}
	}
}

// FuzzDN: the string form of a parsed name parses to the same name, and the login in it has one reading.
func FuzzDN(f *testing.F) {
	for _, s := range []string{"", aliceDN, `uid=\61\,\20,ou=people,dc=example,dc=org`, "UID=alice+cn=x, ou = people,dc=example , dc=org", "uid=#04", `2.5.4.3=\C3\A9`} {
		f.Add(s)
	}
	l := defaultLimits(f)
	wide := *l
	wide.DN *= 16 // an alias may become longer when it is spelled out
	s, _, _ := newTestServer(f, Config{})
	loginFromDN := func(d *dn, name []byte) (string, string) {
		id, reason, err := s.whoBinds(context.Background(), d, name)
		if err != nil {
			panic(err)
		}
		return id.login, reason
	}
	f.Fuzz(func(t *testing.T, in string) {
		var d, again dn
		if d.parse([]byte(in), l) != nil {
			if _, reason := loginFromDN(new(dn), []byte(in)); reason == "" {
				t.Fatalf("%q is refused as a DN and accepted as a login", in)
			}
			return
		}
		text := d.String()
		if err := again.parse([]byte(text), &wide); err != nil || again.String() != text || !again.equal(&d) || !d.equal(&again) {
			t.Fatalf("%q = %q = %q, %v", in, text, again.String(), err)
		}
		if len(in) > 0 && d.rdns() == 0 {
			t.Fatalf("%q is the root", in)
		}
		login, reason := loginFromDN(&d, []byte(in))
		if reason != "" {
			return
		}
		if strings.TrimSpace(login) == "" || !utf8.ValidString(login) || strings.ContainsFunc(login, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%q means the login %q", in, login)
		}
		if login2, reason := loginFromDN(&again, []byte(s.accountDN(login).String())); reason != "" && len(text) <= l.DN || reason == "" && login2 != login {
			t.Fatalf("%q means %q, whose own name means %q, %s", in, login, login2, reason)
		}
	})
}

// FuzzAccountKey: a name that means an account means the same one when it is written as the account's entry is, and a name written by
// us for a login is found by that login.
func FuzzAccountKey(f *testing.F) {
	for _, s := range []string{aliceDN, "UID=ALICE, ou=people,dc=example,dc=org", `uid=\c3\89lan,ou=people,dc=example,dc=org`, "uid=ﬁsh,ou=people,dc=example,dc=org", "uid=a\\,b,ou=people,app=wiki,dc=example,dc=org"} {
		f.Add(s)
	}
	s, _, _ := newTestServer(f, withApplications)
	p := s.src.(*peopleSource)
	f.Fuzz(func(t *testing.T, in string) {
		var d dn
		if d.parse([]byte(in), &s.cfg.Limits) != nil {
			return
		}
		app, plain := s.split(&d)
		if plain == nil {
			return
		}
		if again := s.join(app, plain); !again.equal(&d) {
			t.Fatalf("%q without and with its application is %q", in, again)
		}
		if a, _ := s.split(plain); a != nil {
			return // an application within an application: no account's name
		}
		login, ok := p.loginIn(plain)
		if !ok {
			return
		}
		if again, err := auth.NormaliseLogin(login); err != nil || again != login {
			t.Fatalf("%q means %q, which is not normal: %q, %v", in, login, again, err)
		}
		own := s.accountDN(login)
		if again, ok := p.loginIn(own); !ok || again != login {
			t.Fatalf("%q means %q, whose own name %q means %q", in, login, own, again)
		}
		if !own.equal(plain) && equalFold([]byte(login), plain.rdn(0)[0].value) {
			t.Fatalf("%q and %q are the same and not equal", in, own)
		}
	})
}

// FuzzFilter: what the check lets pass evaluates without a panic, the same each time, and its negation to the opposite.
func FuzzFilter(f *testing.F) {
	f.Add(tagged(filterPresent, "objectClass"))
	f.Add(cons(filterAnd, cons(filterEqual, str("uid"), str("alice")), cons(filterNot, cons(filterOr, cons(filterGreater, str("uidNumber"), str("-1"))))))
	f.Add(cons(filterSubstrings, str("cn"), cons(ber.Sequence, tagged(0x80, "al"), tagged(0x81, "e "), tagged(0x82, "s"))))
	f.Add(cons(filterExtensible, tagged(0x81, "caseIgnoreMatch"), tagged(0x82, "ou"), tagged(0x83, "people"), []byte{0x84, 1, 0xff}))
	s, _, _ := newTestServer(f, Config{})
	acct, err := fakeDirectory{}.Entry(f.Context(), "alice")
	if err != nil {
		f.Fatal(err)
	}
	e, l := s.personEntry(&acct), &s.cfg.Limits
	p, q := s.src.(*peopleSource), &query{srv: s}
	staff := fakePeople.groups[2]
	g := s.groupEntry(q, &staff)
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := checkFilter(in, l); err != nil {
			return
		}
		got := e.match(in, l)
		if x := p.personPlanner(q).filter(in); x.bounded && got == isTrue {
			if found, _ := fakePeople.FindAccounts(t.Context(), x.keys, 100, auth.AllParts); !slices.ContainsFunc(found, func(a auth.Account) bool { return a.ID == acct.ID }) {
				t.Fatalf("the filter is true for alice and planned as %+v", x.keys)
			}
		}
		if x := p.groupPlanner(q).filter(in); x.bounded && g.match(in, l) == isTrue {
			if found, _ := fakePeople.FindGroups(t.Context(), x.keys, 100); !slices.ContainsFunc(found, func(g auth.Group) bool { return g.Name == staff.Name }) {
				t.Fatalf("the filter is true for the group and planned as %+v", x.keys)
			}
		}
		if got < isFalse || got > isTrue {
			t.Fatalf("match = %d", got)
		}
		if not := e.match(cons(filterNot, in), l); not != -got {
			t.Fatalf("match = %d, of the negation %d", got, not)
		}
		if or := e.match(cons(filterOr, in, in), l); or != got {
			t.Fatalf("match = %d, of itself or itself %d", got, or)
		}
	})
}

func samplePDUs() [][]byte {
	return [][]byte{
		bindReq(1, "", ""), bindReq(2, aliceDN, ""), bindReq(3, aliceDN, alicePass, controls(ctl(str(oidPasswordPolicy), no, str("")))), whoami(4),
		searchReq(5, searchSpec{}), lengthen(searchReq(6, searchSpec{base: testBase, scope: 2, filter: cons(filterAnd, cons(filterEqual, str("uid"), str("alice"))), attrs: []string{"cn", "+"}})),
		compareReq(7, aliceDN, "mail", "alice@example.org"), pdu(8, []byte{opAbandonRequest, 1, 5}), pdu(10, tagged(opDelRequest, aliceDN)),
		pdu(11, cons(opBindRequest, integ(3), str(""), cons(0xa3, str("PLAIN")))), pdu(12, cons(opExtendedRequest, tagged(0x80, oidStartTLS))), unbind(13),
	}
}
