package ldapbridge

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

func names(replies []reply) (entries []string, done reply) {
	for _, r := range replies {
		if r.op == opSearchEntry {
			entries = append(entries, r.name)
		} else {
			done = r
		}
	}
	return entries, done
}

func TestSearchScopes(t *testing.T) {
	const (
		bobDN   = "uid=bob," + people
		groups  = "ou=groups," + testBase
		staffDN = "cn=staff," + groups
	)
	alice := bindReq(1, aliceDN, alicePass)
	tests := []struct {
		name    string
		bind    []byte // nil: none
		spec    searchSpec
		entries []string
		code    resultCode
		matched string
	}{
		{"root DSE", nil, searchSpec{}, []string{""}, 0, ""},
		{"root DSE after an anonymous bind", bindReq(1, "", ""), searchSpec{}, []string{""}, 0, ""},
		{"root DSE by another filter", nil, searchSpec{filter: cons(filterEqual, str("objectClass"), str("TOP"))}, []string{""}, 0, ""},
		{"root DSE, filter does not match", nil, searchSpec{filter: cons(filterEqual, str("objectClass"), str("person"))}, nil, 0, ""},
		{"anonymous, own tree", nil, searchSpec{base: testBase, scope: 2}, nil, 50, ""},
		{"anonymous, elsewhere", nil, searchSpec{base: "dc=com"}, nil, 50, ""},
		{"anonymous, unparsable", nil, searchSpec{base: "x"}, nil, 50, ""},
		{"anonymous, everything", nil, searchSpec{scope: 2}, nil, 50, ""},
		{"after an anonymous bind", bindReq(1, "", ""), searchSpec{base: aliceDN}, nil, 50, ""},
		{"suffix, base", alice, searchSpec{base: testBase}, []string{testBase}, 0, ""},
		{"suffix, one", alice, searchSpec{base: testBase, scope: 1}, []string{groups, people}, 0, ""},
		{"suffix, sub", alice, searchSpec{base: testBase, scope: 2}, []string{testBase, groups, people, aliceDN, staffDN}, 0, ""},
		{"suffix, subordinate", alice, searchSpec{base: testBase, scope: 3}, []string{groups, people, aliceDN, staffDN}, 0, ""},
		{"people, base", alice, searchSpec{base: " OU = People , dc=example,DC=ORG "}, []string{people}, 0, ""},
		{"people, one", alice, searchSpec{base: people, scope: 1}, []string{aliceDN}, 0, ""},
		{"people, sub", alice, searchSpec{base: people, scope: 2}, []string{people, aliceDN}, 0, ""},
		{"own, base", alice, searchSpec{base: aliceDN}, []string{aliceDN}, 0, ""},
		{"own by alias", alice, searchSpec{base: "uid=AL," + people}, []string{aliceDN}, 0, ""},
		{"own, one", alice, searchSpec{base: aliceDN, scope: 1}, nil, 0, ""},
		{"own, sub", alice, searchSpec{base: aliceDN, scope: 2}, []string{aliceDN}, 0, ""},
		{"own, subordinate", alice, searchSpec{base: aliceDN, scope: 3}, nil, 0, ""},
		{"everything", alice, searchSpec{scope: 2}, []string{testBase, groups, people, aliceDN, staffDN}, 0, ""},
		{"below the root, one", alice, searchSpec{scope: 1}, nil, 32, ""},
		{"another user who exists", alice, searchSpec{base: bobDN}, nil, 32, people},
		{"another user who does not", alice, searchSpec{base: "uid=nobody," + people}, nil, 32, people},
		{"no login", alice, searchSpec{base: "cn=alice," + people}, nil, 32, people},
		{"below the own entry", alice, searchSpec{base: "cn=x," + aliceDN}, nil, 32, aliceDN},
		{"below another's", alice, searchSpec{base: "cn=x," + bobDN}, nil, 32, people},
		{"groups, sub", alice, searchSpec{base: groups, scope: 2}, []string{groups, staffDN}, 0, ""},
		{"own group", alice, searchSpec{base: "CN=Staff , OU=groups," + testBase}, []string{staffDN}, 0, ""},
		{"group of others", alice, searchSpec{base: "cn=admins," + groups}, nil, 32, groups},
		{"no group", alice, searchSpec{base: "cn=nobody," + groups}, nil, 32, groups},
		{"unknown container", alice, searchSpec{base: "ou=printers," + testBase}, nil, 32, testBase},
		{"other suffix", alice, searchSpec{base: "dc=com"}, nil, 32, ""},
		{"above the suffix", alice, searchSpec{base: "dc=org", scope: 2}, nil, 32, ""},
		{"unparsable", alice, searchSpec{base: "example.org"}, nil, 34, ""},
		{"scope 4", alice, searchSpec{base: aliceDN, scope: 4}, nil, 2, ""},
		{"scope -1", nil, searchSpec{scope: -1}, nil, 2, ""},
		{"deref 3", alice, searchSpec{base: aliceDN, deref: 3}, []string{aliceDN}, 0, ""},
		{"deref 4", alice, searchSpec{base: aliceDN, deref: 4}, nil, 2, ""},
		{"size limit -1", alice, searchSpec{base: aliceDN, size: -1}, nil, 2, ""},
		{"time limit -1", alice, searchSpec{base: aliceDN, time: -1}, nil, 2, ""},
		{"size limit as many as there are", alice, searchSpec{base: testBase, scope: 2, size: 5}, []string{testBase, groups, people, aliceDN, staffDN}, 0, ""},
		{"size limit cuts", alice, searchSpec{base: testBase, scope: 2, size: 2}, []string{testBase, groups}, 4, ""},
		{"size limit counts matches only", alice, searchSpec{base: testBase, scope: 2, size: 1, filter: cons(filterEqual, str("uid"), str("alice"))}, []string{aliceDN}, 0, ""},
		{"account deleted since the bind", bindReq(1, "uid=gone,"+people, "gone"), searchSpec{base: "uid=gone," + people}, nil, 32, people},
		{"account disabled since the bind", bindReq(1, "uid=off,"+people, "off"), searchSpec{base: "uid=off," + people}, nil, 32, people},
		{"account disabled, containers", bindReq(1, "uid=off,"+people, "off"), searchSpec{base: people, scope: 2}, []string{people}, 0, ""},
		{"directory broken", bindReq(1, "uid=sick,"+people, "sick"), searchSpec{base: "uid=sick," + people}, nil, 80, ""},
		{"directory broken, sub", bindReq(1, "uid=sick,"+people, "sick"), searchSpec{base: testBase, scope: 2}, []string{testBase, groups, people}, 80, ""},
		{"257 attributes", alice, searchSpec{base: aliceDN, attrs: slices.Repeat([]string{"cn"}, 257)}, nil, 2, ""},
		{"256 attributes", alice, searchSpec{base: aliceDN, attrs: slices.Repeat([]string{"cn"}, 256)}, []string{aliceDN}, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _, logged := newTestServer(t, Config{})
			replies := talk(t, s, tt.bind, searchReq(2, tt.spec))
			if tt.bind != nil {
				replies = replies[1:]
			}
			entries, done := names(replies)
			if !slices.Equal(entries, tt.entries) || done.code != tt.code || done.matched != tt.matched || done.op != opSearchDone || done.id != 2 {
				t.Errorf("search %+v = %q, %v, want %q, code %d, matched %q", tt.spec, entries, done, tt.entries, tt.code, tt.matched)
			}
			if strings.Contains(fmt.Sprint(replies), "secret") {
				t.Error("an answer holds a password")
			}
			if tt.code == other && !strings.Contains(logged.String(), errBroken.Error()) {
				t.Errorf("log = %q, want the cause", logged)
			}
		})
	}
}

func TestSearchAttributes(t *testing.T) {
	own := func(t *testing.T, spec searchSpec) map[string][]string {
		t.Helper()
		s, _, _ := newTestServer(t, Config{})
		if spec.base == "" {
			spec.base = aliceDN
		}
		replies := talk(t, s, bindReq(1, aliceDN, alicePass), searchReq(2, spec))
		if len(replies) != 3 {
			t.Fatalf("answers = %v, want one entry", replies)
		}
		return replies[1].attrs
	}
	user := map[string][]string{
		"objectClass": {"top", "person", "organizationalPerson", "inetOrgPerson", "posixAccount", "shadowAccount"},
		"uid":         {"alice"}, "cn": {"Alice Adams"}, "displayName": {"Alice Adams"}, "sn": {"Adams"},
		"mail": {"alice@example.org", "a.adams@example.org"}, "memberOf": {"cn=staff,ou=groups,dc=example,dc=org"},
		"uidNumber": {"1001"}, "gidNumber": {"100"}, "homeDirectory": {"/home/alice"}, "x-Room": {"B 12"}, "jpegPhoto": {"\xff\xd8\x00"},
	}
	operational := map[string][]string{
		"entryUUID": {"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, "entryDN": {aliceDN}, "structuralObjectClass": {"inetOrgPerson"},
		"hasSubordinates": {"FALSE"}, "subschemaSubentry": {subschemaName}, "createTimestamp": {"20261122000203Z"}, "modifyTimestamp": {"20261123000000Z"},
	}
	all := map[string][]string{}
	for _, m := range []map[string][]string{user, operational} {
		for k, v := range m {
			all[k] = v
		}
	}
	pick := func(names ...string) map[string][]string {
		m := map[string][]string{}
		for _, n := range names {
			m[n] = all[n]
		}
		return m
	}
	tests := []struct {
		name  string
		attrs []string
		want  map[string][]string
	}{
		{"none named", nil, user},
		{"star", []string{"*"}, user},
		{"plus", []string{"+"}, operational},
		{"star and plus", []string{"*", "+"}, all},
		{"none wanted", []string{"1.1"}, pick()},
		{"1.1 among others", []string{"1.1", "cn"}, pick("cn")},
		{"canonical spelling", []string{"MEMBEROF", "surName", "ENTRYuuid"}, pick("memberOf", "sn", "entryUUID")},
		{"by OID", []string{"0.9.2342.19200300.100.1.3"}, pick("mail")},
		{"unknown to us, known to the entry", []string{"X-ROOM"}, pick("x-Room")},
		{"twice", []string{"cn", "CN", "commonName"}, pick("cn")},
		{"unknown, empty, dn", []string{"dn", "", "nonsense", "\xff"}, pick()},
		{"options", []string{"cn;lang-en", "jpegPhoto;binary"}, pick()},
		{"password", []string{"userPassword", "*", "sambaNTPassword"}, user},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := own(t, searchSpec{attrs: tt.attrs}); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("attributes %q = %v, want %v", tt.attrs, got, tt.want)
			}
			for name, values := range own(t, searchSpec{attrs: tt.attrs, typesOnly: true}) {
				if len(values) != 0 || tt.want[name] == nil {
					t.Errorf("attributes %q, types only: %s has values %q", tt.attrs, name, values)
				}
			}
		})
	}
	t.Run("account without anything", func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{BaseDN: "O=Example, c=DE", People: "ou=users,ou=mail", Groups: "ou=teams,ou=users,ou=mail", RDNAttribute: "CN"})
		replies := talk(t, s, bindReq(1, "cn=bob,ou=users,ou=mail,o=example,c=de", "bobs"), searchReq(2, searchSpec{scope: 2}))
		entries, _ := names(replies)
		want := []string{"o=Example,c=DE", "ou=mail,o=Example,c=DE", "ou=users,ou=mail,o=Example,c=DE", "ou=teams,ou=users,ou=mail,o=Example,c=DE",
			"cn=bob,ou=users,ou=mail,o=Example,c=DE", "cn=admins,ou=teams,ou=users,ou=mail,o=Example,c=DE"}
		if !slices.Equal(entries, want) {
			t.Fatalf("entries = %q, want %q", entries, want)
		}
		wantAttrs := map[string][]string{"objectClass": {"top", "person", "organizationalPerson", "inetOrgPerson"}, "uid": {"bob"}, "cn": {"bob"}, "sn": {"bob"}, "mail": {"bob@example.org"},
			"memberOf": {"cn=admins,ou=teams,ou=users,ou=mail,o=Example,c=DE"}}
		if got := replies[5].attrs; !reflect.DeepEqual(got, wantAttrs) {
			t.Errorf("attributes = %v, want %v", got, wantAttrs)
		}
		if got := replies[1].attrs; !reflect.DeepEqual(got, map[string][]string{"objectClass": {"top", "organization"}, "o": {"Example"}}) {
			t.Errorf("suffix = %v", got)
		}
	})
	t.Run("containers", func(t *testing.T) {
		if got := own(t, searchSpec{base: testBase}); !reflect.DeepEqual(got, map[string][]string{"objectClass": {"top", "dcObject", "organization"}, "dc": {"example"}, "o": {"example"}}) {
			t.Errorf("suffix = %v", got)
		}
		if got := own(t, searchSpec{base: people}); !reflect.DeepEqual(got, map[string][]string{"objectClass": {"top", "organizationalUnit"}, "ou": {"people"}}) {
			t.Errorf("parent of the accounts = %v", got)
		}
	})
}

func TestRootDSE(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	replies := talk(t, s, searchReq(1, searchSpec{}), searchReq(2, searchSpec{attrs: []string{"*", "+"}}))
	if got, want := replies[0].attrs, map[string][]string{"objectClass": {"top"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("user attributes = %v, want %v", got, want)
	}
	want := map[string][]string{
		"objectClass": {"top"}, "namingContexts": {testBase}, "defaultNamingContext": {testBase}, "supportedLDAPVersion": {"3"},
		"supportedExtension": {oidWhoAmI}, "supportedControl": {oidPagedResults, oidManageDsaIT}, "vendorName": {"Valetkey"},
		"supportedFeatures": {"1.3.6.1.4.1.4203.1.5.1", "1.3.6.1.4.1.4203.1.5.2", "1.3.6.1.4.1.4203.1.5.3"}, "subschemaSubentry": {subschemaName},
	}
	if got := replies[2].attrs; !reflect.DeepEqual(got, want) {
		t.Errorf("all attributes = %v, want %v", got, want)
	}
}

func TestFilter(t *testing.T) {
	eq := func(a, v string) []byte { return cons(filterEqual, str(a), str(v)) }
	ge := func(a, v string) []byte { return cons(filterGreater, str(a), str(v)) }
	le := func(a, v string) []byte { return cons(filterLess, str(a), str(v)) }
	has := func(a string) []byte { return tagged(filterPresent, a) }
	and := func(f ...[]byte) []byte { return cons(filterAnd, f...) }
	or := func(f ...[]byte) []byte { return cons(filterOr, f...) }
	not := func(f []byte) []byte { return cons(filterNot, f) }
	sub := func(a string, pieces ...[]byte) []byte {
		return cons(filterSubstrings, str(a), cons(ber.Sequence, pieces...))
	}
	first := func(s string) []byte { return tagged(0x80, s) }
	inner := func(s string) []byte { return tagged(0x81, s) }
	last := func(s string) []byte { return tagged(0x82, s) }
	ext := func(rule, attr, value string, dn bool) []byte {
		var parts [][]byte
		if rule != "" {
			parts = append(parts, tagged(0x81, rule))
		}
		if attr != "" {
			parts = append(parts, tagged(0x82, attr))
		}
		parts = append(parts, tagged(0x83, value))
		if dn {
			parts = append(parts, []byte{0x84, 1, 0xff})
		}
		return cons(filterExtensible, parts...)
	}
	tests := []struct {
		name   string
		filter []byte
		want   truth
	}{
		{"present", has("objectClass"), isTrue},
		{"present, absent", has("telephoneNumber"), isFalse},
		{"present, unknown", has("nonsense"), undefined},
		{"present, password", has("userPassword"), undefined},
		{"present, password by OID", has("2.5.4.35"), undefined},
		{"present, option", has("cn;lang-de"), isFalse},
		{"present, operational", has("entryuuid"), isTrue},
		{"equal", eq("uid", "alice"), isTrue},
		{"equal, case and space", eq("CommonName", "  alice    ADAMS "), isTrue},
		{"equal, second value", eq("mail", "A.Adams@example.org"), isTrue},
		{"equal, wrong", eq("uid", "bob"), isFalse},
		{"equal, prefix only", eq("uid", "alic"), isFalse},
		{"equal, empty", eq("uid", ""), isFalse},
		{"equal, absent", eq("title", "x"), isFalse},
		{"equal, unknown", eq("nonsense", "x"), undefined},
		{"equal, password", eq("userPassword", "{SSHA}secret"), undefined},
		{"equal, hash of another kind", eq("sambaNTPassword", "secret"), undefined},
		{"equal, not UTF-8", eq("uid", "\xff"), undefined},
		{"equal, too long", eq("uid", strings.Repeat("x", 2000)), undefined},
		{"equal, own attribute", eq("X-room", "b  12"), isTrue},
		{"equal, octets", eq("jpegPhoto", "\xff\xd8\x00"), isTrue},
		{"equal, octets, wrong", eq("jpegPhoto", "\xff\xd8"), isFalse},
		{"equal, case exact", eq("homeDirectory", "/HOME/alice"), isFalse},
		{"equal, integer", eq("uidNumber", "01001"), isTrue},
		{"equal, no integer", eq("uidNumber", "1001x"), undefined},
		{"equal, DN", eq("memberOf", "CN=Staff, OU=groups,dc=example,dc=org"), isTrue},
		{"equal, DN, wrong", eq("memberOf", "cn=admins,ou=groups,dc=example,dc=org"), isFalse},
		{"equal, no DN", eq("memberOf", "staff"), undefined},
		{"equal, entryDN", eq("entryDN", "UID=alice,"+people), isTrue},
		{"equal, UUID", eq("entryUUID", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"), isTrue},
		{"equal, objectClass", eq("objectclass", "POSIXaccount"), isTrue},
		{"approx", cons(filterApprox, str("uid"), str("ALICE")), isTrue},
		{"greater, integer", ge("uidNumber", "999"), isTrue},
		{"greater, integer, equal", ge("uidNumber", "1001"), isTrue},
		{"greater, integer, wrong", ge("uidNumber", "1002"), isFalse},
		{"greater, negative", ge("uidNumber", "-5000"), isTrue},
		{"less, integer", le("uidNumber", "10000"), isTrue},
		{"less, integer, wrong", le("uidNumber", "999"), isFalse},
		{"less, no integer", le("uidNumber", ""), undefined},
		{"greater, text", ge("uid", "ALIBI"), isTrue},
		{"less, text", le("uid", "bob"), isTrue},
		{"greater, time", ge("modifyTimestamp", "20261122000000Z"), isTrue},
		{"less, time", le("modifyTimestamp", "20261122000000Z"), isFalse},
		{"greater, DN", ge("memberOf", "dc=org"), undefined},
		{"greater, absent", ge("title", "a"), isFalse},
		{"substring, initial", sub("uid", first("AL")), isTrue},
		{"substring, inner", sub("cn", inner("ce ad")), isTrue},
		{"substring, final", sub("cn", last("AMS")), isTrue},
		{"substring, all", sub("mail", first("a"), inner("."), inner("@"), last(".org")), isTrue},
		{"substring, pieces overlap", sub("uid", first("ali"), last("lice")), isFalse},
		{"substring, twice the same", sub("uid", inner("a"), inner("a")), isFalse},
		{"substring, order", sub("uid", inner("c"), inner("l")), isFalse},
		{"substring, space at the edge", sub("cn", inner("e "), last("adams")), isTrue},
		{"substring, only a space", sub("cn", inner(" ")), isTrue},
		{"substring, only a space, none there", sub("uid", inner(" ")), isFalse},
		{"substring, unknown", sub("nonsense", first("a")), undefined},
		{"substring, password", sub("userPassword", first("{")), undefined},
		{"substring, DN", sub("memberOf", first("cn")), undefined},
		{"substring, not UTF-8", sub("uid", first("\xc3")), undefined},
		{"and, empty", and(), isTrue},
		{"or, empty", or(), isFalse},
		{"and", and(has("uid"), eq("uid", "alice")), isTrue},
		{"and, one false", and(eq("nonsense", "x"), eq("uid", "bob")), isFalse},
		{"and, one undefined", and(has("uid"), eq("nonsense", "x")), undefined},
		{"or", or(eq("nonsense", "x"), has("uid")), isTrue},
		{"or, one undefined", or(eq("nonsense", "x"), eq("uid", "bob")), undefined},
		{"or, one part", or(eq("uid", "alice")), isTrue},
		{"not", not(eq("uid", "bob")), isTrue},
		{"not true", not(eq("uid", "alice")), isFalse},
		{"not undefined", not(eq("nonsense", "x")), undefined},
		{"not undefined, password", not(eq("userPassword", "x")), undefined},
		{"sssd's", and(eq("uid", "alice"), eq("objectclass", "posixAccount"), and(has("uidNumber"), not(eq("uidNumber", "0")))), isTrue},
		{"extensible, no rule", ext("", "uid", "ALICE", false), isTrue},
		{"extensible, caseExact", ext("caseExactMatch", "uid", "ALICE", false), isFalse},
		{"extensible, caseIgnore by OID", ext("2.5.13.2", "homeDirectory", "/HOME/alice", false), isTrue},
		{"extensible, DN", ext("distinguishedNameMatch", "memberOf", "cn=STAFF,ou=groups,dc=example,dc=org", false), isTrue},
		{"extensible, rule does not suit", ext("caseIgnoreMatch", "memberOf", "x", false), undefined},
		{"extensible, in chain", ext("1.2.840.113556.1.4.1941", "memberOf", "cn=staff,ou=groups,dc=example,dc=org", false), undefined},
		{"extensible, no attribute", ext("caseIgnoreMatch", "", "alice", false), undefined},
		{"extensible, of the name", ext("", "ou", "PEOPLE", true), isTrue},
		{"extensible, not of the name", ext("", "ou", "people", false), isFalse},
		{"choice of a later version", tagged(0x8b, "x"), undefined},
	}
	s, _, _ := newTestServer(t, Config{})
	acct, err := fakeDirectory{}.Entry(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	e, l := s.personEntry(&acct), &s.cfg.Limits
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := checkFilter(tt.filter, l); err != nil {
				t.Fatalf("checkFilter = %v", err)
			}
			if got := e.match(tt.filter, l); got != tt.want {
				t.Errorf("match = %d, want %d", got, tt.want)
			}
			if got := e.match(not(tt.filter), l); got != -tt.want {
				t.Errorf("match of the negation = %d, want %d", got, -tt.want)
			}
		})
	}

	nest := func(tag byte, depth int) []byte {
		f := has("uid")
		for range depth - 1 {
			f = cons(tag, f)
		}
		return f
	}
	refused := []struct {
		name   string
		filter []byte
		want   error
	}{
		{"depth 32", nest(filterAnd, 32), nil},
		{"depth 33", nest(filterAnd, 33), errFilterDeep},
		{"depth 33 of not", nest(filterNot, 33), errFilterDeep},
		{"depth 10000", nest(filterOr, 10000), errFilterDeep},
		{"512 parts", or(slices.Repeat([][]byte{has("a")}, 511)...), nil},
		{"513 parts", or(slices.Repeat([][]byte{has("a")}, 512)...), errFilterLarge},
		{"600 pieces", sub("uid", slices.Repeat([][]byte{inner("a")}, 600)...), errFilterLarge},
		{"no pieces", sub("uid"), errFilterSubstrings},
		{"initial not first", sub("uid", inner("a"), first("b")), errFilterSubstrings},
		{"final not last", sub("uid", last("a"), inner("b")), errFilterSubstrings},
		{"piece of another tag", sub("uid", tagged(0x83, "a")), errDecoding},
		{"not without a part", cons(filterNot), errDecoding},
		{"not with two", cons(filterNot, has("a"), has("b")), errDecoding},
		{"equality without value", cons(filterEqual, str("a")), errDecoding},
		{"equality of integers", cons(filterEqual, integ(1), integ(2)), errDecoding},
		{"extensible without value", cons(filterExtensible, tagged(0x82, "a")), errDecoding},
		{"extensible with a long boolean", cons(filterExtensible, tagged(0x83, "a"), tagged(0x84, "ab")), errDecoding},
		{"cut short", []byte{filterAnd, 5, filterPresent, 9}, errDecoding},
		{"empty SEQUENCEs", cons(filterAnd, repeat([]byte{0x30, 0}, 30000)), errFilterLarge},
	}
	for _, tt := range refused {
		t.Run("check: "+tt.name, func(t *testing.T) {
			if _, got := checkFilter(tt.filter, l); got != tt.want {
				t.Errorf("checkFilter = %v, want %v", got, tt.want)
			}
			want := resultCode(0)
			if tt.want != nil {
				want = protocolError
			}
			replies := talk(t, s, searchReq(5, searchSpec{filter: tt.filter}), whoami(6))
			_, done := names(replies)
			broken := errors.Is(tt.want, errDecoding)
			if replies[0].op == opSearchDone && replies[0].code != want || broken != (done.id == 0) {
				t.Errorf("answers = %v", replies)
			}
		})
	}
}

func TestSearchUndecodable(t *testing.T) {
	good := [][]byte{str(""), enum(0), enum(0), integ(0), integ(0), no, tagged(filterPresent, "objectClass"), cons(ber.Sequence)}
	s, _, _ := newTestServer(t, Config{})
	for i := range good {
		for name, bad := range map[string][]byte{"missing": nil, "of another tag": {0x05, 0}, "cut short": {good[i][0], 0x7f}} {
			parts := slices.Clone(good[:i])
			parts = append(parts, bad)
			if bad != nil && bad[0] == 0x05 {
				parts = append(parts, good[i+1:]...)
			}
			if i == 6 && name == "of another tag" {
				continue // a filter choice that we do not know
			}
			replies := talk(t, s, pdu(3, cons(opSearchRequest, parts...)), whoami(4))
			if len(replies) != 1 || replies[0].id != 0 || replies[0].code != protocolError {
				t.Errorf("field %d %s: answers = %v, want a notice", i, name, replies)
			}
		}
	}
	replies := talk(t, s, pdu(3, cons(opSearchRequest, append(slices.Clone(good), str("junk"))...)))
	if len(replies) != 2 || replies[1].code != success {
		t.Errorf("junk behind: answers = %v, want the root DSE", replies)
	}
	replies = talk(t, s, pdu(3, cons(opSearchRequest, append(slices.Clone(good[:7]), cons(ber.Sequence, integ(1)))...)))
	if len(replies) != 1 || replies[0].id != 0 {
		t.Errorf("attribute that is no string: answers = %v, want a notice", replies)
	}
}

func TestSearchTimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{})
		s.src.(*peopleSource).dir = directoryFunc{entry: func(ctx context.Context, _ string) (auth.Account, error) {
			<-ctx.Done()
			return auth.Account{}, ctx.Err()
		}}
		for limit, want := range map[int32]resultCode{1: timeLimitExceeded, 19: timeLimitExceeded, 0: other, 21: other, 1<<31 - 1: other} {
			start := time.Now()
			replies := talk(t, s, bindReq(1, aliceDN, alicePass), searchReq(2, searchSpec{base: aliceDN, time: limit}))
			if len(replies) != 2 || replies[1].code != want {
				t.Errorf("time limit %d: answers = %v, want %d", limit, replies, want)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("time limit %d: took %v", limit, took)
			}
		}
	})
}

type directoryFunc struct {
	Directory
	entry func(context.Context, string) (auth.Account, error)
}

func (f directoryFunc) Entry(ctx context.Context, login string) (auth.Account, error) {
	return f.entry(ctx, login)
}

func TestCompare(t *testing.T) {
	tests := []struct {
		name, entry, attr, value string
		bound                    bool
		want                     resultCode
	}{
		{"true", aliceDN, "MAIL", "ALICE@example.org", true, 6},
		{"true, DN", aliceDN, "memberOf", "CN=staff,ou=groups,DC=example,dc=org", true, 6},
		{"true, integer", aliceDN, "uidNumber", "1001", true, 6},
		{"true, by alias", "uid=al," + people, "uid", "alice", true, 6},
		{"true, container", people, "ou", "PEOPLE", true, 6},
		{"false", aliceDN, "uid", "bob", true, 5},
		{"undefined, no DN", aliceDN, "memberOf", "staff", true, 21},
		{"absent", aliceDN, "telephoneNumber", "1", true, 16},
		{"absent, option", aliceDN, "cn;lang-de", "x", true, 16},
		{"unknown", aliceDN, "nonsense", "1", true, 17},
		{"password", aliceDN, "userPassword", "{SSHA}secret", true, 17},
		{"hash of another kind", aliceDN, "sambaNTPassword", "secret", true, 17},
		{"someone else", "uid=bob," + people, "uid", "bob", true, 32},
		{"nobody", "uid=nobody," + people, "uid", "bob", true, 32},
		{"elsewhere", "dc=com", "uid", "bob", true, 32},
		{"unparsable", "alice", "uid", "alice", true, 34},
		{"anonymous", aliceDN, "uid", "alice", false, 50},
		{"anonymous, root", "", "objectClass", "top", false, 50},
		{"root", "", "objectClass", "top", true, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _, _ := newTestServer(t, Config{})
			bind := bindReq(1, "", "")
			if tt.bound {
				bind = bindReq(1, aliceDN, alicePass)
			}
			replies := talk(t, s, bind, compareReq(2, tt.entry, tt.attr, tt.value), compareReq(3, tt.entry, tt.attr, tt.value, controls(ctl(str("1.2.3"), yes))))
			if len(replies) != 3 || replies[1].op != opCompareResponse || replies[1].code != tt.want || replies[2].code != unavailableCriticalExt {
				t.Errorf("compare %q %q %q = %v, want %d and 12", tt.entry, tt.attr, tt.value, replies[1:], tt.want)
			}
		})
	}
	s, _, _ := newTestServer(t, Config{})
	for name, body := range map[string][]byte{
		"nothing":       cons(opCompareRequest),
		"no assertion":  cons(opCompareRequest, str(aliceDN)),
		"no value":      cons(opCompareRequest, str(aliceDN), cons(ber.Sequence, str("uid"))),
		"no sequence":   cons(opCompareRequest, str(aliceDN), str("uid"), str("alice")),
		"entry integer": cons(opCompareRequest, integ(1), cons(ber.Sequence, str("uid"), str("alice"))),
	} {
		if replies := talk(t, s, pdu(2, body)); len(replies) != 1 || replies[0].id != 0 || replies[0].code != protocolError {
			t.Errorf("%s: answers = %v, want a notice", name, replies)
		}
	}
}

// match evaluates a filter without bounds on the work.
func (e *entry) match(filter []byte, l *Limits) truth {
	return (&evaluation{l: l}).match(e, filter)
}

// Clients that keep the schema look at its times (RFC 4512 section 4.2).
func TestSubschemaHasTimes(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	replies := talk(t, s, searchReq(1, searchSpec{base: subschemaName, filter: fEq("objectClass", "subschema"), attrs: []string{"createTimestamp", "modifyTimestamp"}}))
	for _, name := range []string{"createTimestamp", "modifyTimestamp"} {
		values := replies[0].attrs[name]
		if len(values) != 1 {
			t.Fatalf("%s = %q, want one value", name, values)
		}
		if at, err := time.Parse(generalizedTime, values[0]); err != nil || time.Since(at) < -time.Second || time.Since(at) > time.Hour {
			t.Errorf("%s = %q, want when the program began: %v", name, values[0], err)
		}
	}
}
