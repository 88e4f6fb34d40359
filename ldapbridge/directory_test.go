package ldapbridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

const (
	groupsDN = "ou=groups,dc=example,dc=org"
	bobDN    = "uid=bob,ou=people,dc=example,dc=org"
	staffDN  = "cn=staff,ou=groups,dc=example,dc=org"
	adminsDN = "cn=admins,ou=groups,dc=example,dc=org"
	emptyDN  = "cn=empty,ou=groups,dc=example,dc=org"
	readerDN = "cn=scan,ou=readers,dc=example,dc=org"
	wikiBase = "app=wiki,dc=example,dc=org"
)

var withApplications = Config{Applications: []Application{{Name: "wiki", Group: "staff"}, {Name: "cloud", Service: "nextcloud"}}}

func fEq(attr, value string) []byte { return cons(filterEqual, str(attr), str(value)) }

func below(base, name string) string { return strings.Replace(name, testBase, base, 1) }

func TestDirectory(t *testing.T) {
	alice, scan := bindReq(1, aliceDN, alicePass), bindReq(1, readerDN, "scans")
	wikiAlice, wikiScan := bindReq(1, below(wikiBase, aliceDN), alicePass), bindReq(1, below(wikiBase, readerDN), "scans")
	wiki := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, below(wikiBase, n))
		}
		return out
	}
	all := []string{testBase, groupsDN, people, aliceDN, bobDN, adminsDN, emptyDN, staffDN}
	tests := []struct {
		name    string
		bind    []byte
		spec    searchSpec
		entries []string
		code    resultCode
		matched string
	}{
		{"reader, all", scan, searchSpec{base: testBase, scope: 2}, all, 0, ""},
		{"reader, everything", scan, searchSpec{scope: 2}, all, 0, ""},
		{"reader, subordinate", scan, searchSpec{base: testBase, scope: 3}, all[1:], 0, ""},
		{"reader, people", scan, searchSpec{base: people, scope: 1}, []string{aliceDN, bobDN}, 0, ""},
		{"reader, groups", scan, searchSpec{base: groupsDN, scope: 1}, []string{adminsDN, emptyDN, staffDN}, 0, ""},
		{"reader, one person", scan, searchSpec{base: "uid=BOB," + people}, []string{bobDN}, 0, ""},
		{"reader, person by alias", scan, searchSpec{base: "uid=al," + people}, []string{aliceDN}, 0, ""},
		{"reader, one group", scan, searchSpec{base: "cn=ADMINS," + groupsDN, scope: 2}, []string{adminsDN}, 0, ""},
		{"reader, below a person", scan, searchSpec{base: bobDN, scope: 1}, nil, 0, ""},
		{"reader, who is disabled", scan, searchSpec{base: "uid=off," + people}, nil, 32, people},
		{"reader, a reader is no person", scan, searchSpec{base: "uid=scan," + people}, nil, 32, people},
		{"reader, by login", scan, searchSpec{base: testBase, scope: 2, filter: fEq("uid", "ALICE")}, []string{aliceDN}, 0, ""},
		{"reader, by mail", scan, searchSpec{base: testBase, scope: 2, filter: fEq("mail", "A.Adams@example.org")}, []string{aliceDN}, 0, ""},
		{"reader, by alias", scan, searchSpec{base: testBase, scope: 2, filter: fEq("uid", "al")}, nil, 0, ""},
		{"reader, a reader by login", scan, searchSpec{base: testBase, scope: 2, filter: fEq("uid", "scan")}, nil, 0, ""},
		{"reader, by group", scan, searchSpec{base: people, scope: 2, filter: fEq("memberOf", "CN=Staff , ou=groups,"+testBase)}, []string{aliceDN}, 0, ""},
		{"reader, by forged group", scan, searchSpec{base: people, scope: 2, filter: fEq("memberOf", "cn=forged,ou=groups,"+testBase)}, nil, 0, ""},
		{"reader, by member", scan, searchSpec{base: testBase, scope: 2, filter: fEq("uniqueMember", aliceDN)}, []string{staffDN}, 0, ""},
		{"reader, Jenkins' groups", scan, searchSpec{base: groupsDN, scope: 2, filter: cons(filterOr, fEq("member", bobDN), fEq("uniqueMember", bobDN), fEq("memberUid", "bob"))}, []string{adminsDN}, 0, ""},
		{"reader, RFC 2307 groups", scan, searchSpec{base: testBase, scope: 2, filter: cons(filterAnd, fEq("objectClass", "posixGroup"), fEq("memberUid", "alice"))}, []string{staffDN}, 0, ""},
		{"reader, groups with members", scan, searchSpec{base: testBase, scope: 2, filter: fEq("objectClass", "groupOfNames")}, []string{adminsDN, staffDN}, 0, ""},
		{"reader, by UUID", scan, searchSpec{base: testBase, scope: 2, filter: fEq("entryUUID", "6BA7B810-9DAD-11D1-80B4-00C04FD430C9")}, []string{bobDN}, 0, ""},
		{"reader, by entryDN", scan, searchSpec{base: testBase, scope: 2, filter: fEq("entryDN", strings.ToUpper(adminsDN))}, []string{adminsDN}, 0, ""},
		{"reader, negation", scan, searchSpec{base: people, scope: 1, filter: cons(filterNot, fEq("uid", "alice"))}, []string{bobDN}, 0, ""},
		{"reader, NUL", scan, searchSpec{base: testBase, scope: 2, filter: cons(filterOr, fEq("cn", "\x00"), fEq("mail", "a\x00"), fEq("memberUid", "\x00"), fEq("x", "\x00"))}, nil, 0, ""},
		{"reader, size limit", scan, searchSpec{base: testBase, scope: 2, size: 4}, all[:4], 4, ""},
		{"reader, readers are not shown", scan, searchSpec{base: "ou=readers," + testBase, scope: 2}, nil, 32, testBase},
		{"person, filter oracle", alice, searchSpec{base: testBase, scope: 2, filter: fEq("mail", "bob@example.org")}, nil, 0, ""},
		{"person, negation sees no more", alice, searchSpec{base: people, scope: 1, filter: cons(filterNot, fEq("uid", "alice"))}, nil, 0, ""},
		{"person, memberOf oracle", alice, searchSpec{base: testBase, scope: 2, filter: fEq("memberOf", adminsDN)}, nil, 0, ""},
		{"person, member oracle", alice, searchSpec{base: testBase, scope: 2, filter: fEq("member", bobDN)}, nil, 0, ""},
		{"person, own groups by member", alice, searchSpec{base: groupsDN, scope: 2, filter: fEq("member", aliceDN)}, []string{staffDN}, 0, ""},
		{"person, size limit counts what is visible", alice, searchSpec{base: people, scope: 1, size: 1}, []string{aliceDN}, 0, ""},
		{"person, application", alice, searchSpec{base: wikiBase}, nil, 32, testBase},
		{"person, application that is not there", alice, searchSpec{base: "app=blog," + testBase}, nil, 32, testBase},
		{"person, below an application", alice, searchSpec{base: below(wikiBase, aliceDN)}, nil, 32, testBase},
		{"reader, application", scan, searchSpec{base: wikiBase, scope: 2}, wiki(all...), 0, ""},
		{"reader, application that is not there", scan, searchSpec{base: "app=blog," + testBase, scope: 2}, nil, 32, testBase},
		{"reader, missing below an application", scan, searchSpec{base: below(wikiBase, "uid=nobody,"+people)}, nil, 32, below(wikiBase, people)},
		{"reader, names of the application", scan, searchSpec{base: wikiBase, scope: 2, filter: fEq("memberOf", below("APP=Wiki,"+testBase, staffDN))}, wiki(aliceDN), 0, ""},
		{"reader, names of the plain tree in an application", scan, searchSpec{base: wikiBase, scope: 2, filter: fEq("memberOf", staffDN)}, nil, 0, ""},
		{"reader, names of an application in the plain tree", scan, searchSpec{base: testBase, scope: 2, filter: fEq("memberOf", below(wikiBase, staffDN))}, nil, 0, ""},
		{"reader, names of another application", scan, searchSpec{base: wikiBase, scope: 2, filter: fEq("member", below("app=cloud,"+testBase, bobDN))}, nil, 0, ""},
		{"person of an application", wikiAlice, searchSpec{scope: 2}, wiki(testBase, groupsDN, people, aliceDN, staffDN), 0, ""},
		{"person of an application, own entry", wikiAlice, searchSpec{base: below(wikiBase, aliceDN)}, wiki(aliceDN), 0, ""},
		{"person of an application, plain tree", wikiAlice, searchSpec{base: aliceDN}, nil, 32, ""},
		{"person of an application, other application", wikiAlice, searchSpec{base: "app=cloud," + testBase}, nil, 32, ""},
		{"reader of an application", wikiScan, searchSpec{scope: 2}, wiki(all...), 0, ""},
		{"reader of an application, plain tree", wikiScan, searchSpec{base: testBase, scope: 2}, nil, 32, ""},
		{"reader of an application, other application", wikiScan, searchSpec{base: "app=cloud," + testBase, scope: 2}, nil, 32, ""},
		{"subschema", nil, searchSpec{base: "CN = subschema"}, []string{subschemaName}, 0, ""},
		{"subschema, one", nil, searchSpec{base: "cn=Subschema", scope: 1}, nil, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _, _ := newTestServer(t, withApplications)
			replies := talk(t, s, tt.bind, searchReq(2, tt.spec))
			if tt.bind != nil {
				if replies[0].code != success {
					t.Fatalf("bind = %v", replies[0])
				}
				replies = replies[1:]
			}
			entries, done := names(replies)
			if !slices.Equal(entries, tt.entries) || done.code != tt.code || done.matched != tt.matched {
				t.Errorf("search %+v =\n%q, %v, want\n%q, code %d, matched %q", tt.spec, entries, done, tt.entries, tt.code, tt.matched)
			}
		})
	}
}

// leakySource gives everybody what readers see: the engine must not rely on a source that looks at the viewer.
type leakySource struct{ *peopleSource }

func (l leakySource) entry(ctx context.Context, q *query, name *dn) (*entry, error) {
	all := *q
	all.viewer.reader = true
	return l.peopleSource.entry(ctx, &all, name)
}

func (l leakySource) search(ctx context.Context, q *query, yield func(e *entry, position string) bool) error {
	all := *q
	all.viewer.reader = true
	return l.peopleSource.search(ctx, &all, yield)
}

// TestInvisible holds what a person may not see to the same answers, byte for byte, as what does not exist.
func TestInvisible(t *testing.T) {
	t.Run("source that looks at the viewer", func(t *testing.T) {
		s, _, _ := newTestServer(t, withApplications)
		testInvisible(t, s)
	})
	t.Run("source that does not", func(t *testing.T) {
		s, _, _ := newTestServer(t, withApplications)
		s.src = leakySource{s.src.(*peopleSource)}
		testInvisible(t, s)
	})
	// And the source on its own: what it does not read cannot leak, and takes no time.
	s, _, _ := newTestServer(t, Config{})
	q := query{viewer: viewer{login: "alice"}, base: s.base, scope: scopeSubordinate, filter: tagged(filterPresent, "objectClass"), srv: s}
	var got []string
	if err := s.src.search(t.Context(), &q, func(e *entry, _ string) bool { got = append(got, e.name); return true }); err != nil {
		t.Fatal(err)
	}
	if want := []string{groupsDN, people, aliceDN, staffDN}; !slices.Equal(got, want) {
		t.Errorf("a person's search reads %q, want %q", got, want)
	}
	for _, name := range []string{bobDN, adminsDN} {
		if e, err := s.src.entry(t.Context(), &q, parsedDN(name)); !errors.Is(err, errNoEntry) {
			t.Errorf("a person reads %v, %v of %q, want nothing", e, err, name)
		}
	}
}

func testInvisible(t *testing.T, s *Server) {
	t.Helper()
	alice := bindReq(1, aliceDN, alicePass)
	answers := func(name string, request []byte) string {
		m := &memConn{in: bytes.Join([][]byte{alice, request}, nil)}
		newConn(s, m, "tcp:test").Serve()
		return fmt.Sprintf("%q", m.out.String())
	}
	for _, pair := range [][2]string{{bobDN, "uid=eve," + people}, {adminsDN, "cn=nobody," + groupsDN}, {wikiBase, "app=blog," + testBase},
		{below(wikiBase, bobDN), below("app=blog,"+testBase, bobDN)}, {readerDN, "cn=eve,ou=readers," + testBase}} {
		for scope := int32(0); scope <= 3; scope++ {
			if got, want := answers(pair[0], searchReq(2, searchSpec{base: pair[0], scope: scope})), answers(pair[1], searchReq(2, searchSpec{base: pair[1], scope: scope})); got != want {
				t.Errorf("search of %q = %s, of %q = %s", pair[0], got, pair[1], want)
			}
		}
		for _, attr := range []string{"uid", "cn", "nonsense", "userPassword"} {
			if got, want := answers(pair[0], compareReq(2, pair[0], attr, "bob")), answers(pair[1], compareReq(2, pair[1], attr, "bob")); got != want {
				t.Errorf("compare of %q = %s, of %q = %s", pair[0], got, pair[1], want)
			}
		}
	}
	// Filters that are true for entries the person may not see.
	for _, f := range [][]byte{fEq("uid", "bob"), fEq("cn", "admins"), fEq("member", bobDN), fEq("memberOf", adminsDN), fEq("memberUid", "bob"), fEq("entryDN", bobDN),
		fEq("entryUUID", "6ba7b810-9dad-11d1-80b4-00c04fd430c9"), cons(filterSubstrings, str("mail"), cons(ber.Sequence, tagged(0x80, "bob")))} {
		if got, want := answers("", searchReq(2, searchSpec{base: testBase, scope: 2, filter: f})), answers("", searchReq(2, searchSpec{base: testBase, scope: 2, filter: fEq("uid", "eve")})); got != want {
			t.Errorf("filter % x = %s, want %s", f, got, want)
		}
	}
}

func TestReaderEntries(t *testing.T) {
	s, a, _ := newTestServer(t, withApplications)
	replies := talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: below(wikiBase, staffDN)}), searchReq(3, searchSpec{base: emptyDN}),
		searchReq(4, searchSpec{base: below(wikiBase, aliceDN), attrs: []string{"memberOf", "entryDN"}}), whoami(5), searchReq(6, searchSpec{base: wikiBase}),
		searchReq(7, searchSpec{base: staffDN, attrs: []string{"@posixGroup"}}), searchReq(8, searchSpec{base: aliceDN, attrs: []string{"@PERSON", "@nonsense"}}))
	want := []map[string][]string{
		{"objectClass": {"top", "groupOfNames", "groupOfUniqueNames", "posixGroup"}, "cn": {"staff"}, "gidNumber": {"100"},
			"member": {below(wikiBase, aliceDN)}, "uniqueMember": {below(wikiBase, aliceDN)}, "memberUid": {"alice"}},
		{"objectClass": {"top", "organizationalRole"}, "cn": {"empty"}, "displayName": {"Nobody at all"}},
		{"memberOf": {below(wikiBase, staffDN)}, "entryDN": {below(wikiBase, aliceDN)}},
		nil,
		{"objectClass": {"top", "organizationalUnit", "extensibleObject"}, "ou": {"wiki"}, "app": {"wiki"}},
		{"objectClass": {"top", "groupOfNames", "groupOfUniqueNames", "posixGroup"}, "gidNumber": {"100"}, "memberUid": {"alice"}},
		{"objectClass": {"top", "person", "organizationalPerson", "inetOrgPerson", "posixAccount", "shadowAccount"}, "cn": {"Alice Adams"}, "sn": {"Adams"}},
	}
	for _, r := range replies[1:] {
		switch r.op {
		case opSearchEntry:
			if w := want[r.id-2]; !reflect.DeepEqual(r.attrs, w) {
				t.Errorf("%s = %v, want %v", r.name, r.attrs, w)
			}
		case opExtendedResponse:
			if r.value != "dn:"+readerDN {
				t.Errorf("WhoAmI = %q", r.value)
			}
		}
	}
	if got := a.asked()[0]; !got.Reader || got.Login != "scan" || got.Gate != nil {
		t.Errorf("request = %+v, want a reader", got)
	}
}

func TestApplicationBinds(t *testing.T) {
	tests := []struct {
		name, dn, password string
		code               resultCode
		service            string // empty: the core is not asked
		reader             bool
		whoami             string
	}{
		{"person", below(wikiBase, aliceDN), alicePass, 0, "wiki", false, "dn:" + below(wikiBase, aliceDN)},
		{"person by alias, another spelling", "UID=AL, OU=People,APP=WIKI,dc=example,dc=org", alicePass, 0, "wiki", false, "dn:" + below(wikiBase, aliceDN)},
		{"not in the group", below(wikiBase, bobDN), "bobs", 49, "wiki", false, ""},
		{"other application, no group", below("app=cloud,"+testBase, bobDN), "bobs", 0, "nextcloud", false, "dn:" + below("app=cloud,"+testBase, bobDN)},
		{"no such application", below("app=blog,"+testBase, aliceDN), alicePass, 49, "", false, ""},
		{"application twice", below("app=wiki,app=wiki,"+testBase, aliceDN), alicePass, 49, "", false, ""},
		{"application out of place", "uid=alice,app=wiki,ou=people,dc=example,dc=org", alicePass, 49, "", false, ""},
		{"application of two pairs", below("app=wiki+ou=x,"+testBase, aliceDN), alicePass, 49, "", false, ""},
		{"reader", below(wikiBase, readerDN), "scans", 0, "wiki", true, "dn:" + below(wikiBase, readerDN)},
		{"reader, plain tree", readerDN, "scans", 0, "ldap", true, "dn:" + readerDN},
		{"reader as a person", "uid=scan," + people, "scans", 49, "ldap", false, ""},
		{"person as a reader", "cn=alice,ou=readers," + testBase, alicePass, 49, "ldap", true, ""},
		{"reader by uid", "uid=scan,ou=readers," + testBase, "scans", 49, "", false, ""},
		{"below a reader", "cn=x," + readerDN, "scans", 49, "", false, ""},
		{"group unknown", below(wikiBase, "uid=sick,"+people), "sick", 80, "wiki", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, a, _ := newTestServer(t, withApplications)
			a.hook = func(ctx context.Context, req auth.Request) (auth.Decision, error) {
				d, err := decideFake(req)
				if err == nil && d.OK && req.Gate != nil {
					ok, err := req.Gate.Admits(ctx, d.Login)
					if err != nil || !ok {
						return auth.Decision{Reason: auth.GroupNotAllowed}, err
					}
				}
				return d, err
			}
			replies := talk(t, s, bindReq(1, tt.dn, tt.password), whoami(2))
			if replies[0].code != tt.code || replies[0].diag != "" && tt.code != 80 || replies[1].value != tt.whoami {
				t.Errorf("bind, WhoAmI = %v, want %d, %q", replies, tt.code, tt.whoami)
			}
			asked := a.asked()
			if (len(asked) == 0) != (tt.service == "") || len(asked) > 0 && (asked[0].Service != tt.service || asked[0].Reader != tt.reader) {
				t.Errorf("asked %+v, want service %q, reader %v", asked, tt.service, tt.reader)
			}
		})
	}
}

// crowd is a directory of n people p00000 and so on, all in the group everybody.
func crowd(n int) *memDirectory {
	m := &memDirectory{calls: []string{}}
	g := auth.Group{Name: "everybody", UUID: "6ba7b810-9dad-11d1-80b4-00c04fd43fff"}
	for i := range n {
		login := fmt.Sprintf("p%05d", i)
		m.accounts = append(m.accounts, auth.Account{
			ID: int64(i), UUID: fmt.Sprintf("6ba7b810-9dad-11d1-80b4-%012x", i), Login: login, Enabled: true, Groups: []string{g.Name},
			Attributes: map[string][]string{"mail": {login + "@example.org"}, "sn": {"Crowd"}},
		})
		g.Members = append(g.Members, login)
	}
	m.groups = []auth.Group{g}
	return m
}

func pagedCtl(size int32, cookie string, critical bool) []byte {
	value := string(cons(ber.Sequence, integ(size), str(cookie)))
	if critical {
		return ctl(str(oidPagedResults), yes, str(value))
	}
	return ctl(str(oidPagedResults), str(value))
}

// pageOf runs one paged search and returns the names, the result, and the cookie; ok is false if there is no control.
func pageOf(t *testing.T, s *Server, bind []byte, spec searchSpec, control []byte) (entries []string, done reply, cookie string, ok bool) {
	t.Helper()
	entries, done = names(talk(t, s, bind, searchReq(2, spec, controls(control)))[1:])
	if done.controls == nil {
		return entries, done, "", false
	}
	r := ber.NewReader(done.controls)
	one, err := r.Expect(ber.Sequence)
	if err != nil || !r.Empty() {
		t.Fatalf("controls % x", done.controls)
	}
	c := ber.NewReader(one)
	oid, _ := c.Expect(ber.OctetString)
	value, err := c.Expect(ber.OctetString)
	if err != nil || !c.Empty() || string(oid) != oidPagedResults {
		t.Fatalf("control % x", one)
	}
	outer := ber.NewReader(value)
	body, _ := outer.Expect(ber.Sequence)
	v := ber.NewReader(body)
	size, err1 := v.Int()
	raw, err2 := v.Expect(ber.OctetString)
	if err := errors.Join(err1, err2); err != nil || size != 0 || !v.Empty() {
		t.Fatalf("value % x", value)
	}
	return entries, done, string(raw), true
}

func TestPaged(t *testing.T) {
	scan := bindReq(1, readerDN, "scans")
	server := func(t *testing.T, limits Limits) (*Server, *memDirectory) {
		cfg := withApplications
		cfg.Limits = limits
		s, _, _ := newTestServer(t, cfg)
		m := crowd(57)
		m.accounts[20].Enabled = false
		m.accounts = append(m.accounts, auth.Account{Login: "alice", Enabled: true})
		s.src.(*peopleSource).dir = m
		return s, m
	}
	pages := func(t *testing.T, s *Server, spec searchSpec, size int32) (all []string, last reply, n int) {
		cookie := ""
		for n = 1; n < 200; n++ {
			entries, done, next, ok := pageOf(t, s, scan, spec, pagedCtl(size, cookie, n%2 == 0))
			all, last = append(all, entries...), done
			if done.code != success || next == "" {
				return all, last, n
			}
			if !ok || len(entries) != int(size) {
				t.Fatalf("page %d has %d entries, %v", n, len(entries), done)
			}
			cookie = next
		}
		t.Fatal("the paging does not end")
		return
	}
	s, _ := server(t, Limits{})
	for _, spec := range []searchSpec{
		{base: testBase, scope: 2}, {base: testBase, scope: 1}, {base: people, scope: 1}, {base: groupsDN, scope: 2}, {scope: 2}, {base: wikiBase, scope: 2}, {base: aliceDN},
		{base: testBase, scope: 2, filter: fEq("sn", "crowd")}, {base: testBase, scope: 2, filter: fEq("memberOf", "cn=everybody,"+groupsDN)},
		{base: testBase, scope: 2, filter: cons(filterNot, fEq("sn", "crowd"))}, {base: testBase, scope: 2, filter: fEq("uid", "nobody")},
	} {
		want, done := names(talk(t, s, scan, searchReq(2, spec))[1:])
		if done.code != success || done.controls != nil {
			t.Fatalf("search %+v = %v", spec, done)
		}
		for _, size := range []int32{1, 2, 7, 55, 56, 57, 58, 59, 60, 1000} {
			got, last, n := pages(t, s, spec, size)
			if !slices.Equal(got, want) || last.code != success || n != max(1, (len(want)+int(size)-1)/int(size)) {
				t.Errorf("search %+v in %d pages of %d = %d entries, %v, want %d", spec, n, size, len(got), last, len(want))
			}
		}
	}

	t.Run("size limit counts all pages", func(t *testing.T) {
		if all, last, _ := pages(t, s, searchSpec{base: people, scope: 1, size: 10}, 4); len(all) != 10 || last.code != sizeLimitExceeded {
			t.Errorf("%d entries, %v, want 10 and 4", len(all), last)
		}
		if all, last, _ := pages(t, s, searchSpec{base: people, scope: 1, size: 57}, 4); len(all) != 57 || last.code != success {
			t.Errorf("%d entries, %v, want 57 and 0", len(all), last)
		}
		s, _ := server(t, Limits{SearchEntries: 23})
		if all, last, _ := pages(t, s, searchSpec{base: people, scope: 1}, 5); len(all) != 23 || last.code != sizeLimitExceeded {
			t.Errorf("%d entries, %v, want 23 and 4", len(all), last)
		}
		if entries, done := names(talk(t, s, scan, searchReq(2, searchSpec{base: people, scope: 1}))[1:]); len(entries) != 23 || done.code != sizeLimitExceeded {
			t.Errorf("without pages: %d entries, %v, want 23 and 4", len(entries), done)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		s, _ := server(t, Limits{SearchBytes: 2000})
		var got []string
		cookie := ""
		for {
			entries, done, next, _ := pageOf(t, s, scan, searchSpec{base: people, scope: 1}, pagedCtl(1000, cookie, false))
			if len(entries) > 12 || done.code != success {
				t.Fatalf("page = %d entries, %v", len(entries), done)
			}
			got = append(got, entries...)
			if cookie = next; next == "" {
				break
			}
		}
		if len(got) != 57 {
			t.Errorf("%d entries, want 57", len(got))
		}
		if entries, done := names(talk(t, s, scan, searchReq(2, searchSpec{base: people, scope: 1}))[1:]); len(entries) > 12 || len(entries) < 3 || done.code != sizeLimitExceeded {
			t.Errorf("without pages: %d entries, %v, want some and 4", len(entries), done)
		}
	})
	t.Run("entries come and go between pages", func(t *testing.T) {
		s, m := server(t, Limits{})
		spec := searchSpec{base: people, scope: 1, filter: fEq("sn", "crowd")}
		first, _, cookie, _ := pageOf(t, s, scan, spec, pagedCtl(10, "", false))
		m.accounts = slices.DeleteFunc(m.accounts, func(a auth.Account) bool { return a.Login == "p00009" || a.Login == "p00003" || a.Login == "p00012" })
		rest, _, _, _ := pageOf(t, s, scan, spec, pagedCtl(1000, cookie, false))
		if len(first) != 10 || len(rest) != 45 || rest[0] != "uid=p00010,"+people {
			t.Errorf("pages of %d and %d, the second from %q", len(first), len(rest), rest[0])
		}
	})

	spec := searchSpec{base: people, scope: 2, filter: fEq("sn", "crowd")}
	_, _, cookie, _ := pageOf(t, s, scan, spec, pagedCtl(3, "", false))
	flip := func(i int) string { b := []byte(cookie); b[(i+len(b))%len(b)] ^= 1; return string(b) }
	refused := []struct {
		name    string
		bind    []byte
		spec    searchSpec
		control []byte
	}{
		{"other filter", scan, searchSpec{base: people, scope: 2, filter: fEq("sn", "Crowd")}, pagedCtl(3, cookie, true)},
		{"other scope", scan, searchSpec{base: people, scope: 1, filter: spec.filter}, pagedCtl(3, cookie, true)},
		{"other base", scan, searchSpec{base: testBase, scope: 2, filter: spec.filter}, pagedCtl(3, cookie, true)},
		{"other application", scan, searchSpec{base: below(wikiBase, people), scope: 2, filter: spec.filter}, pagedCtl(3, cookie, true)},
		{"other reader", bindReq(1, "cn=probe,ou=readers,"+testBase, "probes"), spec, pagedCtl(3, cookie, true)},
		{"person", bindReq(1, aliceDN, alicePass), spec, pagedCtl(3, cookie, true)},
		{"first octet", scan, spec, pagedCtl(3, flip(0), true)},
		{"count", scan, spec, pagedCtl(3, flip(3), true)},
		{"position", scan, spec, pagedCtl(3, flip(5), true)},
		{"authentication", scan, spec, pagedCtl(3, flip(-1), true)},
		{"cut", scan, spec, pagedCtl(3, cookie[:len(cookie)-1], true)},
		{"longer", scan, spec, pagedCtl(3, cookie+"x", true)},
		{"short", scan, spec, pagedCtl(3, "x", true)},
		{"made up", scan, spec, pagedCtl(3, strings.Repeat("x", 40), true)},
		{"huge", scan, spec, pagedCtl(3, strings.Repeat("x", 10000), true)},
		{"not critical", scan, spec, pagedCtl(3, "x", false)},
		{"abandoned with a bad cookie", scan, spec, pagedCtl(0, "x", false)},
		{"no value", scan, spec, ctl(str(oidPagedResults), yes)},
		{"empty value", scan, spec, ctl(str(oidPagedResults), str(""))},
		{"no cookie", scan, spec, ctl(str(oidPagedResults), str(string(cons(ber.Sequence, integ(3)))))},
		{"negative size", scan, spec, pagedCtl(-1, "", false)},
		{"junk inside", scan, spec, ctl(str(oidPagedResults), str(string(cons(ber.Sequence, integ(3), str(""), []byte{4}))))},
		{"junk behind", scan, spec, ctl(str(oidPagedResults), str(string(cons(ber.Sequence, integ(3), str("")))+"x"))},
		{"twice", scan, spec, append(pagedCtl(3, "", false), pagedCtl(3, "", false)...)},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			if entries, done, _, ok := pageOf(t, s, tt.bind, tt.spec, tt.control); done.code != protocolError || len(entries) > 0 || ok {
				t.Errorf("%d entries, %v, want code 2", len(entries), done)
			}
		})
	}
	// RFC 4511 section 4.1.11: the value is extensible as the protocol is.
	t.Run("element behind", func(t *testing.T) {
		value := cons(ber.Sequence, integ(3), str(""), str("of a later version"))
		if entries, done, next, _ := pageOf(t, s, scan, spec, ctl(str(oidPagedResults), str(string(value)))); done.code != success || len(entries) != 3 || next == "" {
			t.Errorf("%d entries, %v, cookie %q, want a page of three", len(entries), done, next)
		}
	})
	t.Run("another process", func(t *testing.T) {
		other, _ := server(t, Limits{})
		if _, done, _, _ := pageOf(t, other, scan, spec, pagedCtl(3, cookie, true)); done.code != protocolError {
			t.Errorf("%v, want code 2", done)
		}
	})
	t.Run("abandoned", func(t *testing.T) {
		for _, c := range []string{cookie, ""} {
			if entries, done, next, ok := pageOf(t, s, scan, spec, pagedCtl(0, c, true)); done.code != success || len(entries) > 0 || next != "" || !ok {
				t.Errorf("%d entries, %v, cookie %q", len(entries), done, next)
			}
		}
	})
	t.Run("root DSE", func(t *testing.T) {
		if entries, done, next, ok := pageOf(t, s, scan, searchSpec{}, pagedCtl(3, "", true)); done.code != success || len(entries) != 1 || next != "" || !ok {
			t.Errorf("%d entries, %v, cookie %q, %v", len(entries), done, next, ok)
		}
	})
	t.Run("on other operations", func(t *testing.T) {
		replies := talk(t, s, scan, compareReq(2, people, "ou", "people", controls(pagedCtl(3, "", true))), compareReq(3, people, "ou", "people", controls(pagedCtl(3, "", false))))
		if replies[1].code != unavailableCriticalExt || replies[2].code != compareTrue {
			t.Errorf("compare = %v, want 12 and 6", replies[1:])
		}
	})
}

// FuzzCookie: nothing but a cookie that the server made is taken for one.
func FuzzCookie(f *testing.F) {
	s, _, _ := newTestServer(f, Config{})
	var p page
	made := func(p page) string {
		p.more = true
		out := p.appendDone(nil, s, 1, result{})
		replies, err := parseReplies(out)
		if err != nil {
			f.Fatal(err)
		}
		return string(replies[0].controls)
	}
	f.Add([]byte("xxxxxxxxxxxxxxxxxxxxxxxxxxxx"), "bob", 7)
	f.Fuzz(func(t *testing.T, in []byte, position string, sent int) {
		q := page{cookie: in}
		if len(in) > 0 && q.resume(s) {
			t.Fatalf("% x was made up and is taken for a cookie", in)
		}
		if len(position) > maxPosition || sent < 0 || sent > 1<<30 {
			return
		}
		p.total, p.last = sent, position
		c := []byte(made(p))
		c = c[len(c)-cookieHead-len(position)-cookieMAC:]
		again := page{cookie: c}
		if !again.resume(s) || again.last != position || again.sent != sent || !again.started {
			t.Fatalf("position %q, %d came back as %q, %d", position, sent, again.last, again.sent)
		}
		again = page{cookie: c, binding: [32]byte{1}}
		if again.resume(s) {
			t.Fatal("a cookie is good for another search")
		}
	})
}

// TestPlannedIsComplete holds searches by keys to what looking at every entry finds, on small random directories.
func TestPlannedIsComplete(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	directories, searches := 60, 250
	if testing.Short() {
		directories = 10
	}
	matched, bounded := 0, 0
	for range directories {
		m := randomDirectory(r)
		cfg := withApplications
		cfg.RDNAttribute = pick(r, "uid", "uid", "cn", "mail", "sn")
		s, _, _ := newTestServer(t, cfg)
		p := s.src.(*peopleSource)
		p.dir = m
		for range searches {
			base := pick(r, testBase, testBase, wikiBase, people, below(wikiBase, groupsDN))
			scope := pick[int32](r, scopeOne, scopeSub, scopeSub, scopeSubordinate)
			filter := randomFilter(r, s, base, 3)
			app, plain := s.split(parsedDN(base))
			var want []string
			consider := func(e *entry) {
				if e.dn.isBelow(plain, scope) || scope == scopeSub && e.dn.equal(plain) {
					if e := s.inApplication(app, e); e.match(filter, &s.cfg.Limits) == isTrue {
						want = append(want, e.name)
					}
				}
			}
			for _, e := range p.containers {
				consider(e)
			}
			q := &query{srv: s, app: app, viewer: viewer{reader: true}}
			for i := range m.accounts {
				if listed(&m.accounts[i]) {
					consider(s.personEntry(&m.accounts[i]))
				}
			}
			for i := range m.groups {
				consider(s.groupEntry(q, &m.groups[i]))
			}
			m.calls = m.calls[:0]
			got, done := names(talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: base, scope: scope, filter: filter}))[1:])
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || done.code != success {
				t.Fatalf("search below %q, scope %d, filter % x (%s), RDN %s =\n%q, %v, want\n%q\nasked: %q", base, scope, filter, textOf(filter), cfg.RDNAttribute, got, done, want, m.calls)
			}
			matched += len(want)
			if !slices.ContainsFunc(m.calls, func(c string) bool { return strings.HasPrefix(c, "list") }) {
				bounded++
			}
		}
	}
	if n := directories * searches; matched < n/10 || bounded < n/10 {
		t.Errorf("of %d searches, %d matches and %d by keys: too few to show anything", n, matched, bounded)
	}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

var (
	randomLogins = []string{"alice", "bob", "élan", "straße", "a.b@example.org", "007", "x+y", "c,d", "ünal"}
	randomTexts  = []string{"Alice", "alice", "BOB", "Alice  Adams", "007", "7", "-0", "élan", "ÉLAN", "straße", "STRASSE", "ﬁsh", "fish", "a.b@example.org", "x=y", "Ⅳ", "iv", "c,d", " x ", "İ", "ς", "Σ"}
	randomGroups = []string{"staff", "wiki", "élan", "7"}
	randomNames  = []string{"mail", "rfc822Mailbox", "cn", "commonName", "sn", "surname", "SN", "givenName", "displayName", "uidNumber", "employeeNumber", "x-Room", "homeDirectory",
		"description", "2.5.4.4", "manager", "uid", "ou"}
)

func randomDirectory(r *rand.Rand) *memDirectory {
	m := &memDirectory{calls: []string{}}
	for i, name := range randomGroups {
		g := auth.Group{Name: name, UUID: fmt.Sprintf("6ba7b810-9dad-11d1-80b5-%012x", i)}
		if r.IntN(2) == 0 {
			g.DisplayName = pick(r, randomTexts...)
		}
		if r.IntN(2) == 0 {
			g.Attributes = map[string][]string{pick(r, "gidNumber", "description", "mail", "ou"): {pick(r, randomTexts...)}}
		}
		m.groups = append(m.groups, g)
	}
	for i, login := range randomLogins {
		if r.IntN(3) == 0 {
			continue
		}
		a := auth.Account{ID: int64(i + 1), UUID: fmt.Sprintf("6ba7b810-9dad-11d1-80b4-%012x", i), Login: login, Enabled: r.IntN(5) > 0, Attributes: map[string][]string{}}
		if r.IntN(6) == 0 {
			a.Kind = auth.Reader
		}
		if r.IntN(2) == 0 {
			a.DisplayName = pick(r, randomTexts...)
		}
		if r.IntN(3) == 0 {
			a.Aliases = []string{"alias" + login}
		}
		for range r.IntN(5) {
			name := pick(r, randomNames...)
			a.Attributes[name] = append(a.Attributes[name], pick(r, randomTexts...))
		}
		for g := range m.groups {
			if a.Kind == auth.Person && r.IntN(3) == 0 {
				a.Groups = append(a.Groups, m.groups[g].Name)
				if a.Enabled {
					m.groups[g].Members = append(m.groups[g].Members, login)
				}
			}
		}
		m.accounts = append(m.accounts, a)
	}
	return m
}

func randomFilter(r *rand.Rand, s *Server, base string, depth int) []byte {
	if depth > 0 {
		switch r.IntN(6) {
		case 0, 1:
			return cons(filterAnd, randomFilters(r, s, base, depth-1)...)
		case 2, 3:
			return cons(filterOr, randomFilters(r, s, base, depth-1)...)
		case 4:
			if r.IntN(2) == 0 {
				return cons(filterNot, randomFilter(r, s, base, depth-1))
			}
		}
	}
	name := pick(r, append([]string{"objectClass", "memberOf", "member", "uniqueMember", "memberUid", "entryUUID", "entryDN", "hasSubordinates", "userPassword", "cn;lang-de",
		"uid", "uid", "createTimestamp", "namingContexts", "app", "x-None"}, randomNames...)...)
	value := pick(r, randomTexts...)
	account := func() string {
		d := s.accountDN(pick(r, randomLogins...))
		if r.IntN(8) == 0 {
			d = s.accountDN(pick(r, randomTexts...))
		}
		if r.IntN(2) == 0 {
			app, _ := s.split(parsedDN(base))
			d = s.join(app, d)
		}
		return d.String()
	}
	group := func() string { return strings.Replace(account(), account(), "", 0) }
	switch name {
	case "objectClass":
		value = pick(r, "top", "person", "INETORGPERSON", "groupOfNames", "posixGroup", "posixAccount", "organizationalUnit", "organizationalRole", "device")
	case "uid", "memberUid":
		value = pick(r, append(slices.Clone(randomLogins), "ALICE", " bob ", "É\u006can", "aliasbob", "nobody")...)
	case "member", "uniqueMember", "manager":
		value = account()
	case "memberOf":
		d := s.groupDN(pick(r, randomGroups...))
		if app, _ := s.split(parsedDN(base)); r.IntN(3) > 0 {
			d = s.join(app, d)
		}
		value = d.String()
	case "entryDN":
		value = pick(r, account(), group(), base)
	case "entryUUID":
		value = fmt.Sprintf("6BA7B810-9dad-11d1-80b%d-%012x", pick(r, 4, 5), r.IntN(6))
	case "hasSubordinates":
		value = pick(r, "TRUE", "false")
	}
	if r.IntN(4) == 0 {
		value = strings.ToUpper(value)
	}
	switch r.IntN(12) {
	case 0:
		return tagged(filterPresent, name)
	case 1:
		return cons(filterSubstrings, str(name), cons(ber.Sequence, tagged(0x80, value[:min(1, len(value))])))
	case 2:
		return cons(pick[byte](r, filterGreater, filterLess), str(name), str(value))
	case 3:
		return cons(filterApprox, str(name), str(value))
	case 4:
		if r.IntN(2) == 0 {
			return cons(filterExtensible, tagged(0x82, name), tagged(0x83, value), []byte{0x84, 1, byte(-r.IntN(2))})
		}
		return cons(filterExtensible, tagged(0x81, pick(r, "caseIgnoreMatch", "caseExactMatch", "distinguishedNameMatch")), tagged(0x82, name), tagged(0x83, value))
	}
	return cons(filterEqual, str(name), str(value))
}

func parsedDN(text string) *dn {
	d := new(dn)
	if err := d.parse([]byte(text), &Limits{DN: 1024, RDNs: 32}); err != nil {
		panic(err)
	}
	return d
}

func randomFilters(r *rand.Rand, s *Server, base string, depth int) (parts [][]byte) {
	for range r.IntN(4) {
		parts = append(parts, randomFilter(r, s, base, depth))
	}
	return parts
}

// textOf writes a filter for a person.
func textOf(f []byte) string {
	r := ber.NewReader(f)
	tag, body, err := r.Next()
	if err != nil {
		return "?"
	}
	switch tag {
	case filterAnd, filterOr, filterNot:
		s := map[byte]string{filterAnd: "(&", filterOr: "(|", filterNot: "(!"}[tag]
		for r := ber.NewReader(body); !r.Empty(); {
			part, _ := r.NextElement()
			s += textOf(part)
		}
		return s + ")"
	}
	return fmt.Sprintf("(%#x %q)", tag, body)
}

// TestPlan shows by which keys the searches of real programs are answered.
func TestPlan(t *testing.T) {
	or := func(f ...[]byte) []byte { return cons(filterOr, f...) }
	and := func(f ...[]byte) []byte { return cons(filterAnd, f...) }
	tests := []struct {
		name   string
		filter []byte
		want   []string // what the directory is asked, but for the base
	}{
		{"Dovecot", and(fEq("objectClass", "posixAccount"), or(fEq("uid", "alice"), fEq("mail", "alice"))), []string{"find"}},
		{"sssd", and(fEq("uid", "p00001"), fEq("objectclass", "posixAccount"), and(tagged(filterPresent, "uidNumber"), cons(filterNot, fEq("uidNumber", "0")))), []string{"find"}},
		{"Grafana", or(fEq("cn", "p00001")), []string{"find", "find groups"}},
		{"GitLab", and(fEq("uid", "p00001"), fEq("memberOf", "cn=everybody,"+groupsDN)), []string{"find"}},
		{"members of a group", fEq("memberOf", "cn=everybody,"+groupsDN), []string{"find"}},
		{"groups of a person", and(fEq("objectClass", "groupOfUniqueNames"), fEq("uniqueMember", "uid=p00001,"+people)), []string{"find", "find groups"}},
		{"all people", fEq("objectClass", "inetOrgPerson"), []string{"list"}},
		{"all groups", fEq("objectClass", "groupOfNames"), []string{"list groups"}},
		{"no such class", fEq("objectClass", "printer"), nil},
		{"passwords", fEq("userPassword", "x"), nil},
		{"address book", or(cons(filterSubstrings, str("mail"), cons(ber.Sequence, tagged(0x80, "p"))), fEq("uid", "x")), []string{"list"}},
		{"too many keys", or(slices.Collect(func(yield func([]byte) bool) {
			for i := range 300 {
				yield(fEq("uid", fmt.Sprint("u", i)))
			}
		})...), []string{"list"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _, _ := newTestServer(t, Config{})
			m := crowd(3)
			s.src.(*peopleSource).dir = m
			talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: testBase, scope: 2, filter: tt.filter}))
			var got []string
			for _, c := range m.calls {
				for _, verb := range []string{"find groups", "list groups", "find", "list", "entry"} {
					if strings.HasPrefix(c, verb) {
						got = append(got, verb)
						break
					}
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("asked %q, want %q", m.calls, tt.want)
			}
		})
	}
}

// TestKeyedBeyondOneRead holds what keys find to completeness when it is more than is read at once.
func TestKeyedBeyondOneRead(t *testing.T) {
	s, _, _ := newTestServer(t, Config{Limits: Limits{SearchEntries: 1 << 20}})
	for _, n := range []int{firstPage - 1, firstPage, firstPage + 1, maxFound, maxFound + 1, maxFound + 3} {
		m := crowd(n)
		s.src.(*peopleSource).dir = m
		entries, done := names(talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: people, scope: 1, filter: fEq("sn", "crowd"), attrs: []string{"1.1"}}))[1:])
		if len(entries) != n || done.code != success || !slices.IsSorted(entries) {
			t.Errorf("%d of %d entries, %v, sorted: %v; asked %d times", len(entries), n, done, slices.IsSorted(entries), len(m.calls))
		}
	}
}

// TestSearchStreams holds the answer to a large search to pieces, and the reads behind it to the speed of the client.
func TestSearchStreams(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	m := crowd(4000)
	s.src.(*peopleSource).dir = m
	server, client := net.Pipe()
	defer client.Close()
	go newConn(s, server, "tcp:test").Serve()
	if r := askPipe(t, client, bindReq(1, readerDN, "scans")); r.code != success {
		t.Fatalf("bind = %v", r)
	}
	if _, err := client.Write(searchReq(2, searchSpec{base: people, scope: 1})); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	largest, total := 0, 0
	for total < 200<<10 {
		n, err := client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		largest, total = max(largest, n), total+n
	}
	// The pipe holds nothing, so the server stands in its next Write.
	if largest > flushAt+4<<10 || m.asked() > 4 {
		t.Errorf("largest piece %d bytes, directory asked %d times for %d bytes", largest, m.asked(), total)
	}
}

func askPipe(t *testing.T, nc net.Conn, request []byte) reply {
	t.Helper()
	if _, err := nc.Write(request); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := nc.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	replies, err := parseReplies(buf[:n])
	if err != nil || len(replies) != 1 {
		t.Fatalf("answer % x: %v", buf[:n], err)
	}
	return replies[0]
}

// slowDirectory takes 0.9 s for every read.
type slowDirectory struct{ *memDirectory }

func (d slowDirectory) Accounts(ctx context.Context, after string, limit int, parts auth.Parts) ([]auth.Account, error) {
	select {
	case <-time.After(900 * time.Millisecond):
		return d.memDirectory.Accounts(ctx, after, limit, parts)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestSearchTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{Limits: Limits{SearchTime: 4 * time.Second, SearchEntries: 1 << 20}})
		s.src.(*peopleSource).dir = slowDirectory{crowd(6000)}
		for _, tt := range []struct{ limit, entries int32 }{{2, 1000}, {0, 2000}, {10, 2000}} {
			entries, done := names(talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: people, scope: 1, time: tt.limit, attrs: []string{"1.1"}}))[1:])
			if int32(len(entries)) != tt.entries || done.code != timeLimitExceeded {
				t.Errorf("time limit %d: %d entries, %v, want %d and code 3", tt.limit, len(entries), done, tt.entries)
			}
		}
	})
}

// TestPlanPrefersNames: of a conjunction that part is looked up that leaves the fewest, however it is written. A login must not cost
// the reading of a group of thousands.
func TestPlanPrefersNames(t *testing.T) {
	s, _, _ := newTestServer(t, withApplications)
	p := s.src.(*peopleSource)
	uid, mail, group := fEq("uid", "alice"), fEq("mail", "a@example.org"), fEq("memberOf", staffDN)
	and := func(f ...[]byte) []byte { return cons(filterAnd, f...) }
	for _, tt := range []struct {
		name   string
		filter []byte
		want   auth.AccountKey // the first one
	}{
		{"group first", and(group, uid), auth.AccountKey{Login: "alice"}},
		{"group last", and(uid, group), auth.AccountKey{Login: "alice"}},
		{"group before mail", and(group, mail), auth.AccountKey{Search: "mail=a@example.org"}},
		{"two names before a group", and(group, cons(filterOr, uid, mail)), auth.AccountKey{Login: "alice"}},
		{"what many have", and(fEq("o", "Example"), mail), auth.AccountKey{Search: "mail=a@example.org"}},
		{"what many have, fewer keys", and(fEq("x-Office", "north"), mail), auth.AccountKey{Search: "mail=a@example.org"}},
		{"shared number", and(fEq("gidNumber", "100"), fEq("uidNumber", "1001")), auth.AccountKey{Search: "uidnumber=1001"}},
		{"name and mail", and(fEq("sn", "Adams"), mail), auth.AccountKey{Search: "mail=a@example.org"}},
		{"UUID", and(mail, fEq("entryUUID", "6ba7b810-9dad-11d1-80b4-00c04fd430c8")), auth.AccountKey{UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}},
		{"nested", and(and(group), and(cons(filterOr, group, uid), mail)), auth.AccountKey{Search: "mail=a@example.org"}},
		{"one of many people, and a group", and(group, cons(filterOr, fEq("o", "x"), group)), auth.AccountKey{Group: "staff"}},
		{"nothing", and(uid, fEq("userPassword", "x")), auth.AccountKey{}},
	} {
		q := &query{srv: s}
		plan := p.personPlanner(q).filter(tt.filter)
		if !plan.bounded || tt.want != (auth.AccountKey{}) && !slices.Contains(plan.keys, tt.want) || tt.want == (auth.AccountKey{}) && len(plan.keys) > 0 ||
			slices.ContainsFunc(plan.keys, func(k auth.AccountKey) bool { return k.Group != "" && tt.want.Group == "" }) {
			t.Errorf("%s: plan = %+v, want the key %+v", tt.name, plan, tt.want)
		}
	}
}

// TestPersonSeesNoOtherMembers: a group that a person is in tells of him alone. Who else is in it are people that he cannot see.
func TestPersonSeesNoOtherMembers(t *testing.T) {
	s, _, _ := newTestServer(t, withApplications)
	m := crowd(3)
	m.accounts = append(m.accounts, auth.Account{Login: "alice", Enabled: true, Groups: []string{"everybody"}})
	m.groups[0].Members = append(m.groups[0].Members, "alice")
	s.src.(*peopleSource).dir = m
	t.Run("source that looks at the viewer", func(t *testing.T) { testOtherMembers(t, s) })
	s.src = leakySource{s.src.(*peopleSource)}
	t.Run("source that does not", func(t *testing.T) { testOtherMembers(t, s) })
}

func testOtherMembers(t *testing.T, s *Server) {
	t.Helper()
	all := "cn=everybody," + groupsDN
	other := "uid=p00001," + people
	alice, scan := bindReq(1, aliceDN, alicePass), bindReq(1, readerDN, "scans")

	replies := talk(t, s, alice, searchReq(2, searchSpec{base: all}))
	if got := replies[1].attrs; !slices.Equal(got["member"], []string{aliceDN}) || !slices.Equal(got["uniqueMember"], []string{aliceDN}) || !slices.Equal(got["memberUid"], []string{"alice"}) {
		t.Errorf("a person sees the members %v, want the own name alone", got)
	}
	replies = talk(t, s, scan, searchReq(2, searchSpec{base: all}))
	if got := replies[1].attrs; len(got["member"]) != 4 || len(got["memberUid"]) != 4 {
		t.Errorf("a reader sees the members %v, want all", got)
	}
	for _, f := range [][]byte{fEq("member", other), fEq("uniqueMember", other), fEq("memberUid", "p00001"),
		cons(filterSubstrings, str("memberUid"), cons(ber.Sequence, tagged(0x80, "p"))), cons(filterAnd, fEq("cn", "everybody"), fEq("member", other))} {
		if entries, done := names(talk(t, s, alice, searchReq(2, searchSpec{base: groupsDN, scope: 1, filter: f}))[1:]); len(entries) > 0 || done.code != success {
			t.Errorf("filter %s tells a person of others: %q, %v", textOf(f), entries, done)
		}
	}
	for attr, value := range map[string]string{"member": other, "uniqueMember": other, "memberUid": "p00001"} {
		if r := talk(t, s, alice, compareReq(2, all, attr, value))[1]; r.code != compareFalse {
			t.Errorf("compare of %s tells a person of others: %v", attr, r)
		}
	}
	if r := talk(t, s, alice, compareReq(2, all, "member", aliceDN))[1]; r.code != compareTrue {
		t.Errorf("compare of the own membership = %v, want %d", r, compareTrue)
	}
}

// TestSlowClientIsCut: a client that takes its answer drop by drop holds what was read for it no longer than a search may take.
func TestSlowClientIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{Limits: Limits{SearchTime: 5 * time.Second, SearchEntries: 1 << 20}})
		s.src.(*peopleSource).dir = crowd(4000)
		server, client := net.Pipe()
		defer client.Close()
		go func() {
			defer server.Close()
			newConn(s, server, "tcp:test").Serve()
		}()
		if r := askPipe(t, client, bindReq(1, readerDN, "scans")); r.code != success {
			t.Fatalf("bind = %v", r)
		}
		// All of them by a key, so that they are in memory.
		if _, err := client.Write(searchReq(2, searchSpec{base: people, scope: 1, filter: fEq("sn", "crowd")})); err != nil {
			t.Fatal(err)
		}
		begin, all, buf := time.Now(), []byte{}, make([]byte, 1<<20)
		for {
			time.Sleep(time.Second)
			n, err := client.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, buf[:n]...)
			if replies, err := parseReplies(all); err == nil && replies[len(replies)-1].op == opSearchDone {
				if took, r := time.Since(begin), replies[len(replies)-1]; took > 8*time.Second || r.code != timeLimitExceeded {
					t.Errorf("the answer took %v with %d entries, %v, want code 3 soon after 5 s", took, len(replies)-1, r)
				}
				return
			}
		}
	})
}

// TestLongestPosition: paging goes on behind the longest login, too.
func TestLongestPosition(t *testing.T) {
	long := strings.Repeat("l", auth.MaxLogin)
	s, _, _ := newTestServer(t, Config{})
	s.src.(*peopleSource).dir = &memDirectory{accounts: []auth.Account{{Login: long, Enabled: true}, {Login: "zoe", Enabled: true}}}
	scan, spec := bindReq(1, readerDN, "scans"), searchSpec{base: people, scope: 1}
	_, _, cookie, _ := pageOf(t, s, scan, spec, pagedCtl(1, "", true))
	if entries, done, _, _ := pageOf(t, s, scan, spec, pagedCtl(1, cookie, true)); len(entries) != 1 || done.code != success {
		t.Errorf("second page = %d entries, %v, want one", len(entries), done)
	}
}
