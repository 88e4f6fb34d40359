package ldapbridge

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// testForwarder knows every attribute but those that hold passwords, and names below dc=example only.
func testForwarder() *forwarder {
	l := Limits{}
	if err := l.setDefaults(); err != nil {
		panic(err)
	}
	return &forwarder{
		readable: func(name string) bool { return !secretUpstream(name) && name[0] > '9' },
		dn: func(value []byte) ([]byte, bool) {
			var d dn
			if d.parse(value, &l) != nil || !strings.Contains(d.String(), "dc=example") {
				return nil, false
			}
			return d.append(nil), true
		},
	}
}

func TestForwardedFilter(t *testing.T) {
	eq := func(attr, value string) []byte { return cons(filterEqual, str(attr), str(value)) }
	sub := func(attr string, pieces ...[]byte) []byte {
		return cons(filterSubstrings, str(attr), cons(ber.Sequence, pieces...))
	}
	const all, none = "(objectClass=*)", "(!(objectClass=*))"
	for _, tt := range []struct {
		name   string
		filter []byte
		want   string
	}{
		{"equality", eq("uid", "alice"), "(uid=alice)"},
		{"alias", eq("userid", "alice"), "(uid=alice)"},
		{"OID", eq("0.9.2342.19200300.100.1.3", "a@example.org"), "(mail=a@example.org)"},
		{"unknown attribute, spelling kept", eq("sAMAccountName", "alice"), "(sAMAccountName=alice)"},
		{"approx is equality", cons(filterApprox, str("cn"), str("alice")), "(cn=alice)"},
		{"and", cons(filterAnd, eq("uid", "alice"), eq("sn", "x")), "(&(uid=alice)(sn=x))"},
		{"or of one", cons(filterOr, eq("uid", "alice")), "(uid=alice)"},
		{"not not", cons(filterNot, cons(filterNot, eq("uid", "alice"))), "(uid=alice)"},
		{"absolute true", cons(filterAnd), all},
		{"absolute false", cons(filterOr), none},
		{"true in an and", cons(filterAnd, tagged(filterPresent, "objectClass"), eq("uid", "alice")), "(uid=alice)"},
		{"true in an or", cons(filterOr, tagged(filterPresent, "objectClass"), eq("uid", "alice")), all},
		{"presence", tagged(filterPresent, "mail"), "(mail=*)"},
		{"order", cons(filterAnd, cons(filterGreater, str("uidNumber"), str("10")), cons(filterLess, str("uidNumber"), str("20"))), "(&(uidNumber>=10)(uidNumber<=20))"},
		{"substrings", sub("cn", tagged(0x80, "a"), tagged(0x81, "b*"), tagged(0x82, "c")), `(cn=a*b\2a*c)`},
		{"any alone", sub("cn", tagged(0x81, "b")), "(cn=*b*)"},
		{"empty pieces", sub("cn", tagged(0x81, "")), "(cn=*)"},
		{"substrings of a name", sub("member", tagged(0x81, "b")), none},

		// Nothing that a client writes becomes syntax.
		{"injection by value", eq("uid", "*)(uid=admin"), `(uid=\2a\29\28uid=admin)`},
		{"NUL and bytes", eq("uid", "a\x00\xff\\"), `(uid=a\00\ff\5c)`},
		{"injection by attribute", eq("uid)(uid", "x"), none},
		{"attribute with a space", eq("a b", "x"), none},
		{"attribute with a colon", eq("uid:caseExactMatch:", "x"), none},

		// What clients must not see makes no difference, in whatever place.
		{"password", eq("userPassword", "x"), none},
		{"password by OID", eq("2.5.4.35", "x"), none},
		{"any OID", eq("1.2.3.4", "x"), none},
		{"password present", tagged(filterPresent, "USERPASSWORD"), none},
		{"password prefix", sub("userPassword", tagged(0x80, "{SSHA}A")), none},
		{"password with an option", eq("userPassword;binary", "x"), none},
		{"not password", cons(filterNot, eq("userPassword", "x")), none},
		{"not not password", cons(filterNot, cons(filterNot, eq("unicodePwd", "x"))), none},
		{"password in an or", cons(filterOr, eq("ms-Mcs-AdmPwd", "x"), eq("uid", "alice")), "(uid=alice)"},
		{"not password in an or", cons(filterOr, cons(filterNot, eq("sambaNTPassword", "x")), eq("uid", "alice")), "(uid=alice)"},
		{"password in an and", cons(filterAnd, eq("userPassword", "x"), eq("uid", "alice")), none},
		{"not (password and)", cons(filterNot, cons(filterAnd, eq("userPassword", "x"), eq("uid", "alice"))), "(!(uid=alice))"},
		{"password, extensible", cons(filterExtensible, tagged(0x82, "userPassword"), tagged(0x83, "x")), none},
		{"password, any rule", cons(filterExtensible, tagged(0x81, "octetStringMatch"), tagged(0x82, "userPassword"), tagged(0x83, "x")), none},

		// What is not the same upstream is left to us.
		{"option", eq("cn;lang-de", "x"), all},
		{"not option", cons(filterNot, eq("cn;lang-de", "x")), all},
		{"rule", cons(filterExtensible, tagged(0x81, "caseExactMatch"), tagged(0x82, "cn"), tagged(0x83, "x")), all},
		{"not rule", cons(filterNot, cons(filterExtensible, tagged(0x81, "caseExactMatch"), tagged(0x82, "cn"), tagged(0x83, "x"))), all},
		{"extensible without a rule", cons(filterExtensible, tagged(0x82, "cn"), tagged(0x83, "x")), "(cn=x)"},
		{"all attributes", cons(filterExtensible, tagged(0x83, "x")), none},
		{"empty value", eq("cn", ""), all},
		{"long value", eq("cn", strings.Repeat("x", maxAssertion+1)), none},

		{"name", eq("member", "UID=alice, dc=example"), "(member=uid=alice,dc=example)"},
		{"foreign name", eq("member", "uid=alice,dc=other"), none},
		{"not a foreign name", cons(filterNot, eq("member", "uid=alice,dc=other")), all},
		{"name escaped", eq("memberOf", `cn=a\2cb (x),dc=example`), `(memberOf=cn=a\5c,b \28x\29,dc=example)`},
	} {
		l := defaultLimits(t)
		if _, err := checkFilter(tt.filter, l); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		f := testForwarder().filter(tt.filter)
		if got, err := f.text(); got != tt.want || err != nil {
			t.Errorf("%s: filter = %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestForwardedFilterIsBounded(t *testing.T) {
	var parts [][]byte
	for range 100 {
		parts = append(parts, cons(filterEqual, str("cn"), str(strings.Repeat("\xff", 1000))))
	}
	f := testForwarder().filter(cons(filterOr, parts...))
	if text, err := f.text(); err != errForwardLarge {
		t.Errorf("text = %d bytes, %v, want %v", len(text), err, errForwardLarge)
	}
}

func TestFilterText(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"", "", ""},
		{" objectClass=person ", "(objectClass=person)", ""},
		{"(&(a=b)(!(c=d)))", "(&(a=b)(!(c=d)))", ""},
		{"(a=b", "", "not a filter"},
		{"(a=b)(c=d)", "", "not a filter"},
		{strings.Repeat("(", 100), "", "deeper"},
	} {
		got, err := filterText(tt.in)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("filterText(%q) = %q, %v, want %q, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
	for name, k := range upstreamKinds {
		for _, f := range []string{k.user, k.group, k.container} {
			if got, err := filterText(f); got != f || err != nil {
				t.Errorf("%s: %q = %q, %v", name, f, got, err)
			}
		}
	}
}

// encode writes the filter as it must arrive upstream.
func (f *forwarded) encode() []byte {
	switch f.op {
	case forwardAll:
		return tagged(filterPresent, "objectClass")
	case forwardNone:
		return cons(filterNot, tagged(filterPresent, "objectClass"))
	case filterAnd, filterOr, filterNot:
		var parts [][]byte
		for i := range f.parts {
			parts = append(parts, f.parts[i].encode())
		}
		return cons(f.op, parts...)
	case filterPresent:
		return tagged(filterPresent, f.attr)
	case filterSubstrings:
		var pieces []byte
		if len(f.initial) > 0 {
			pieces = append(pieces, tagged(0x80, string(f.initial))...)
		}
		for _, p := range f.any {
			pieces = append(pieces, tagged(0x81, string(p))...)
		}
		if len(f.final) > 0 {
			pieces = append(pieces, tagged(0x82, string(f.final))...)
		}
		return cons(f.op, str(f.attr), cons(ber.Sequence, pieces))
	}
	return cons(f.op, str(f.attr), str(string(f.value)))
}

// FuzzForwardedFilter: what the library makes of our text is the tree that we meant, it names no attribute that clients must
// not see, and on an entry it is true wherever the client's filter is.
func FuzzForwardedFilter(f *testing.F) {
	f.Add(tagged(filterPresent, "objectClass"))
	f.Add(cons(filterAnd, cons(filterEqual, str("uid"), str("al*)(\x00\xff")), cons(filterNot, cons(filterOr, cons(filterGreater, str("uidNumber"), str("-1"))))))
	f.Add(cons(filterSubstrings, str("cn"), cons(ber.Sequence, tagged(0x80, "al"), tagged(0x81, "*"), tagged(0x82, "s"))))
	f.Add(cons(filterExtensible, tagged(0x81, "caseIgnoreMatch"), tagged(0x82, "ou"), tagged(0x83, "people"), []byte{0x84, 1, 0xff}))
	f.Add(cons(filterNot, cons(filterOr, cons(filterEqual, str("userPassword"), str("x")), cons(filterNot, cons(filterEqual, str("member"), str("uid=alice,dc=example"))))))
	s, _, _ := newTestServer(f, Config{})
	acct, err := fakeDirectory{}.Entry(f.Context(), "alice")
	if err != nil {
		f.Fatal(err)
	}
	e, l := s.personEntry(&acct), &s.cfg.Limits
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := checkFilter(in, l); err != nil {
			return
		}
		translated := testForwarder().filter(in)
		text, err := translated.text()
		if err != nil {
			return
		}
		p, err := ldap.CompileFilter(text)
		if err != nil {
			t.Fatalf("% x became %q, which the library refuses: %v", in, text, err)
		}
		if want := translated.encode(); !bytes.Equal(p.Bytes(), want) {
			t.Fatalf("%q is compiled to\n% x, want\n% x", text, p.Bytes(), want)
		}
		translated.attributes(func(name string) {
			if secretUpstream(strings.ToLower(name)) || !validDescription([]byte(name)) {
				t.Fatalf("%q names %q", text, name)
			}
		})
		if e.match(in, l) == isTrue && e.match(p.Bytes(), l) != isTrue {
			t.Fatalf("% x is true, and %q is not", in, text)
		}
	})
}
