package ldapbridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/auth"
)

func TestNewUpstreamFaults(t *testing.T) {
	good := Upstream{URLs: []string{"ldap://127.0.0.1"}, BindDN: serviceDN, Password: servicePass}
	root := mustDN(t, testBase)
	for _, tt := range []struct {
		name   string
		change func(*Upstream)
		want   string
	}{
		{"good", func(*Upstream) {}, ""},
		{"Active Directory", func(u *Upstream) { u.Kind = "ad" }, ""},
		{"no URL", func(u *Upstream) { u.URLs = nil }, "no URL"},
		{"bad URL", func(u *Upstream) { u.URLs = append(u.URLs, "x") }, "ldaps://HOST:PORT"},
		{"no account", func(u *Upstream) { u.BindDN = "" }, "service account"},
		{"no password", func(u *Upstream) { u.Password = "" }, "service account"},
		{"unknown kind", func(u *Upstream) { u.Kind = "edirectory" }, "kind"},
		{"login attribute", func(u *Upstream) { u.LoginAttribute = "uid)(x" }, "hold a name"},
		{"password as login", func(u *Upstream) { u.LoginAttribute = "userPassword" }, "hold a name"},
		{"user filter", func(u *Upstream) { u.UserFilter = "(a" }, "user_filter"},
		{"foreign base", func(u *Upstream) { u.Bases = []string{"dc=other"} }, "not a name within"},
		{"bad limit", func(u *Upstream) { u.Limits.PageSize = 5000 }, "PageSize"},
	} {
		u := good
		tt.change(&u)
		_, err := newUpstream(u, root, defaultLimits(t), nil)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: newUpstream = %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), servicePass) {
			t.Errorf("%s: the error has the password: %v", tt.name, err)
		}
	}
}

func TestUpstreamBases(t *testing.T) {
	u := &upstream{root: mustDN(t, testBase)}
	err := u.setBases([]string{"ou=a,ou=people," + testBase, "ou=People, " + testBase, "ou=groups," + testBase, people}, defaultLimits(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range u.bases {
		got = append(got, b.String())
	}
	if want := []string{"ou=People," + testBase, "ou=groups," + testBase}; !slices.Equal(got, want) {
		t.Errorf("bases = %q, want %q", got, want)
	}
}

func TestSecretUpstream(t *testing.T) {
	for name, want := range map[string]bool{
		"userpassword": true, "unicodepwd": true, "ms-mcs-admpwd": true, "mslaps-password": true, "mslaps-encryptedpassword": true,
		"sambantpassword": true, "krbprincipalkey": true, "authpassword": true, "dbcspwd": true, "ntpwdhistory": true, "lmpwdhistory": true,
		"supplementalcredentials": true, "ipanthash": true, "pwdhistory": true, "nsds5replicacredentials": true, "olcrootpw": true,
		"radiustunnelpassword": true, "mail-secret": true, "ref": true, "javacodebase": true, "2.5.4.35": true,
		"uid": false, "cn": false, "mail": false, "memberof": false, "objectguid": false, "pwdlastset": false, "shadowlastchange": false,
		"krbpasswordexpiration": false, "jpegphoto": false, "sshpublickey": false,
	} {
		u := &upstream{}
		if got := !u.readable(name); got != want {
			t.Errorf("%s is kept back: %v, want %v", name, got, want)
		}
	}
	u := &upstream{allowed: lowerSet([]string{"Mail", "userPassword"}), hidden: lowerSet([]string{"MAIL"})}
	for _, name := range []string{"userpassword", "mail", "cn"} {
		if u.readable(name) {
			t.Errorf("%s can be read", name)
		}
	}
}

func readerQuery(t *testing.T, scope int32, filter []byte) *query {
	t.Helper()
	srv, _, _ := newTestServer(t, Config{})
	return &query{viewer: viewer{login: "wiki", reader: true}, base: mustDN(t, testBase), scope: scope, filter: filter, srv: srv}
}

// collect runs a search and returns what it yields, at most so many.
func collect(ctx context.Context, u *upstream, q *query, most int) (names []string, entries []*entry, last string, err error) {
	err = u.search(ctx, q, func(e *entry, position string) bool {
		if position <= last || len(position) > maxPosition {
			err = fmt.Errorf("position %q after %q", position, last)
		}
		last = position
		names, entries = append(names, e.name), append(entries, e)
		return len(names) < most
	})
	return names, entries, last, err
}

// answerMany is a directory of so many users that knows pages. It sends them in no order.
func answerMany(n int) func(l *fakeLink, q fakeSearch) {
	return func(l *fakeLink, q fakeSearch) {
		first := 0
		fmt.Sscan(q.cookie, &first)
		var out []byte
		for i := first; i < min(n, first+int(q.size)); i++ {
			k := i * 7919 % n // n and the prime have no common factor
			out = append(out, rawEntry(q.id, fmt.Sprintf("uid=u%05d,%s", k, people), []string{"uid", fmt.Sprintf("u%05d", k)})...)
		}
		cookie := ""
		if next := first + int(q.size); next < n {
			cookie = fmt.Sprint(next)
		}
		l.Write(append(out, rawDone(q.id, success, pagingControl(cookie))...))
	}
}

func TestUpstreamSearchIsOrdered(t *testing.T) {
	const n = 2500 // more than a window
	f := newFakeUpstream(t, answerMany(n))
	u, _ := testUpstream(t, UpstreamLimits{}, f)
	q := readerQuery(t, scopeSubordinate, tagged(filterPresent, "uid"))
	names, _, _, err := collect(t.Context(), u, q, n+1)
	if err != nil || len(names) != n || !slices.IsSorted(names) {
		t.Fatalf("search = %d entries, sorted: %v, %v, want %d", len(names), slices.IsSorted(names), err, n)
	}
	// Page by page, as the engine does it.
	var paged []string
	for {
		some, _, last, err := collect(t.Context(), u, q, 700)
		if err != nil {
			t.Fatal(err)
		}
		paged = append(paged, some...)
		if len(some) < 700 {
			break
		}
		q.after = last
	}
	if !slices.Equal(paged, names) {
		t.Errorf("in pages: %d entries that are not those of the whole search", len(paged))
	}
}

func TestUpstreamSearchIsBounded(t *testing.T) {
	f := newFakeUpstream(t, answerMany(2500))
	u, _ := testUpstream(t, UpstreamLimits{Entries: 1200}, f)
	names, _, _, err := collect(t.Context(), u, readerQuery(t, scopeSubordinate, tagged(filterPresent, "uid")), 1e6)
	if !errors.Is(err, errSizeLimit) || len(names) == 0 || len(names) > 1200 {
		t.Errorf("search = %d entries, %v, want at most 1200 and %v", len(names), err, errSizeLimit)
	}
	// Pages without end, and without entries.
	endless := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) { l.Write(rawDone(q.id, success, pagingControl("more"))) })
	u, _ = testUpstream(t, brisk, endless)
	ctx, cancel := context.WithTimeout(t.Context(), brisk.Search)
	defer cancel()
	if _, _, _, err := collect(ctx, u, readerQuery(t, scopeSubordinate, tagged(filterPresent, "uid")), 1); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(fmt.Sprint(err), "deadline") {
		t.Errorf("pages without end = %v, want the deadline", err)
	}
}

// Values take memory however short they are: all that a search brings are counted together, not those of an entry or of a page.
func TestUpstreamSearchCountsValues(t *testing.T) {
	const each = 30_000 // fewer than an entry may have
	many := func(l *fakeLink, q fakeSearch) {
		k := 0
		fmt.Sscan(q.cookie, &k)
		l.Write(append(rawEntry(q.id, fmt.Sprintf("uid=u%d,%s", k, people), append([]string{"x"}, make([]string, each)...)), rawDone(q.id, success, pagingControl(fmt.Sprint(k+1)))...))
	}
	u, _ := testUpstream(t, UpstreamLimits{Entries: 600, PageSize: 1}, newFakeUpstream(t, many)) // 120,000
	if names, _, _, err := collect(t.Context(), u, readerQuery(t, scopeSubordinate, tagged(filterPresent, "uid")), 1e6); !strings.Contains(fmt.Sprint(err), errWireElements.Error()) {
		t.Errorf("search of pages = %d entries, %v, want %v", len(names), err, errWireElements)
	}
	page := func(l *fakeLink, q fakeSearch) {
		var out []byte
		for k := range 5 {
			out = append(out, rawEntry(q.id, fmt.Sprintf("uid=u%d,%s", k, people), append([]string{"x"}, make([]string, each)...))...)
		}
		l.Write(append(out, rawDone(q.id, success)...))
	}
	u, _ = testUpstream(t, UpstreamLimits{Entries: 600}, newFakeUpstream(t, page))
	if names, _, _, err := collect(t.Context(), u, readerQuery(t, scopeSubordinate, tagged(filterPresent, "uid")), 1e6); !errors.Is(err, errWireElements) {
		t.Errorf("search of one page = %d entries, %v, want %v", len(names), err, errWireElements)
	}
	// As much as that is in order if the admin lets searches bring more.
	u, _ = testUpstream(t, UpstreamLimits{}, newFakeUpstream(t, page))
	if names, _, _, err := collect(t.Context(), u, readerQuery(t, scopeSubordinate, tagged(filterPresent, "uid")), 1e6); err != nil || len(names) != 5 {
		t.Errorf("search within the limits = %d entries, %v, want 5", len(names), err)
	}
}

// OpenLDAP finds an entry of inetOrgPerson by objectClass=person, and sends inetOrgPerson alone.
func TestUpstreamSuperiorClasses(t *testing.T) {
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		l.Write(append(rawEntry(q.id, aliceDN, []string{"uid", "alice"}, []string{"objectClass", "INETORGPERSON", "siteClass"}), rawDone(q.id, success)...))
	})
	u, _ := testUpstream(t, UpstreamLimits{}, f)
	_, found, _, err := collect(t.Context(), u, readerQuery(t, scopeSubordinate, tagged(filterPresent, "uid")), 10)
	if err != nil || len(found) != 1 {
		t.Fatalf("search = %d entries, %v, want one", len(found), err)
	}
	for class, want := range map[string]truth{"inetOrgPerson": isTrue, "organizationalPerson": isTrue, "person": isTrue, "top": isTrue, "siteClass": isTrue, "posixAccount": isFalse} {
		if got := found[0].match(fEq("objectClass", class), defaultLimits(t)); got != want {
			t.Errorf("(objectClass=%s) = %v, want %v", class, got, want)
		}
	}
}

func TestUpstreamEntry(t *testing.T) {
	photo := "\xff\xd8\x00\xff"
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		l.Write(slices.Concat(
			pdu(q.id, cons(opSearchReference, str("ldap://evil.example/"))),
			rawEntry(q.id, "UID=Alice,OU=People,dc=example,dc=org",
				[]string{"uid", "alice"}, []string{"objectClass", "top", "inetOrgPerson"}, []string{"userPassword", "{SSHA}x"}, []string{"unicodePwd", "x"},
				[]string{"2.5.4.35", "x"}, []string{"userPassword;x-old", "x"}, []string{"sambaNTPassword", "x"}, []string{"x-secret", "x"}, []string{"ref", "ldap://x/"},
				[]string{"jpegPhoto", photo}, []string{"objectGUID", photo}, []string{"cn;lang-de", "Alicia"}, []string{"empty"}, []string{"blank", ""},
				[]string{"directReports", "uid=bob," + people}, []string{"sAMAccountName", "ALICE"}, []string{"UID", "mallory"}, []string{"bad name", "x"}),
			rawDone(q.id, success)))
	})
	u, _ := testUpstream(t, UpstreamLimits{}, f)
	q := readerQuery(t, 0, tagged(filterPresent, "objectClass"))
	e, err := u.entry(t.Context(), q, mustDN(t, aliceDN))
	if err != nil {
		t.Fatal(err)
	}
	if e.name != "UID=Alice,OU=People,dc=example,dc=org" {
		t.Errorf("name = %q, want it as the upstream wrote it", e.name)
	}
	got := map[string]string{}
	for _, a := range e.attrs {
		got[a.typ.name] = strings.Join(a.values, "|")
	}
	want := map[string]string{
		"uid": "alice|mallory", "objectClass": "top|inetOrgPerson|organizationalPerson|person", "jpegPhoto": photo, "objectGUID": photo, "directReports": "uid=bob," + people, "sAMAccountName": "ALICE",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("attributes = %q, want %q", got, want)
	}
	if typ, _ := e.find([]byte("directreports")); typ == nil || typ.rule != distinguishedName {
		t.Errorf("directReports is %+v, want names", typ)
	}
	_, searches := f.asked()
	for _, s := range searches {
		for _, a := range s.attrs {
			if secretUpstream(strings.ToLower(a)) {
				t.Errorf("the upstream was asked for %s", a)
			}
		}
	}
}

func TestUpstreamWanted(t *testing.T) {
	u, _ := testUpstream(t, UpstreamLimits{}, newFakeUpstream(t, answerAlice))
	for _, tt := range []struct {
		name     string
		selected []string
		want     string
	}{
		{"nothing", nil, "* memberOf"},
		{"names", []string{"mail", "userid", "MAIL", "userPassword", "2.5.4.35", "", "dn", "1.1", "x y", "cn;lang-de"}, "mail cn"},
		{"both", []string{"*", "+"}, "* memberOf +"},
		{"none", []string{"1.1"}, ""},
	} {
		var list []byte
		for _, a := range tt.selected {
			list = append(list, str(a)...)
		}
		sel, _ := newSelection(list, 100)
		got := u.wanted(&query{sel: &sel}, nil)
		if text := strings.Join(got[5:], " "); text != tt.want {
			t.Errorf("%s: wanted = %q, want %q", tt.name, text, tt.want)
		}
	}
}

// A person sees the own entry, and of the rest what the upstream finds for a filter that names the person; an upstream that
// sends others' entries all the same is not believed.
func TestUpstreamPerson(t *testing.T) {
	group := "cn=staff,ou=groups," + testBase
	vanished := false
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		var out []byte
		switch {
		case q.base == aliceDN && !vanished:
			out = rawEntry(q.id, aliceDN, []string{"uid", "alice"})
		case q.base == testBase && q.size > 0:
			out = slices.Concat(rawEntry(q.id, aliceDN, []string{"uid", "alice"}), rawEntry(q.id, "uid=bob,"+people, []string{"uid", "bob"}),
				rawEntry(q.id, group, []string{"cn", "staff"}, []string{"member", aliceDN}))
		case q.base == testBase:
			out = rawEntry(q.id, testBase, []string{"dc", "example"})
		}
		l.Write(append(out, rawDone(q.id, success)...))
	})
	u, _ := testUpstream(t, UpstreamLimits{}, f)
	q := readerQuery(t, scopeSubordinate, tagged(filterPresent, "objectClass"))
	q.viewer = viewer{login: "alice", name: mustDN(t, aliceDN)}
	names, entries, _, err := collect(t.Context(), u, q, 100)
	if want := []string{group, aliceDN}; err != nil || !slices.Equal(names, want) {
		t.Fatalf("search = %q, %v, want %q", names, err, want)
	}
	id := identity{login: "alice"}
	for _, e := range entries {
		if !id.sees(e) {
			t.Errorf("alice does not see %s", e.name)
		}
	}
	_, searches := f.asked()
	p, err := ldap.CompileFilter("(member=" + aliceDN + ")")
	if err != nil {
		t.Fatal(err)
	}
	if last := searches[len(searches)-1]; !strings.Contains(string(last.filter), string(p.Bytes())) {
		t.Errorf("the upstream was not asked for the groups of alice: % x", last.filter)
	}
	for _, name := range []string{"uid=bob," + people, "uid=nobody," + people} {
		if _, err := u.entry(t.Context(), q, mustDN(t, name)); err != errNoEntry {
			t.Errorf("entry(%s) = %v, want %v", name, err, errNoEntry)
		}
	}
	vanished = true
	if names, _, _, err := collect(t.Context(), u, q, 100); len(names) > 0 || err != nil {
		t.Errorf("search of a person who is gone = %q, %v, want nothing", names, err)
	}
	if _, err := u.entry(t.Context(), q, mustDN(t, group)); err != errNoEntry {
		t.Errorf("entry for a person who is gone = %v, want %v", err, errNoEntry)
	}
}

func TestUpstreamCanonical(t *testing.T) {
	users := map[string][]string{}
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		var out []byte
		for dn, logins := range users {
			out = append(out, rawEntry(q.id, dn, append([]string{"uid"}, logins...))...)
		}
		l.Write(append(out, rawDone(q.id, success)...))
	})
	u, _ := testUpstream(t, brisk, f)
	for _, tt := range []struct {
		name  string
		users map[string][]string
		want  string
		err   error
	}{
		{"none", nil, "", auth.ErrNoAccount},
		{"one", map[string][]string{aliceDN: {"Alice"}}, "alice", nil},
		{"two entries", map[string][]string{aliceDN: {"alice"}, "cn=x," + people: {"ALICE"}}, "", auth.ErrAmbiguous},
		{"two logins", map[string][]string{aliceDN: {"alice", "al"}}, "", auth.ErrNoAccount},
		{"another one's", map[string][]string{aliceDN: {"alicia"}}, "", auth.ErrNoAccount},
	} {
		users = tt.users
		if got, err := u.canonical(t.Context(), "ALICE"); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: canonical = %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	if _, err := u.canonical(t.Context(), "al ice"); err != auth.ErrNoAccount {
		t.Errorf("canonical of no login = %v, want %v", err, auth.ErrNoAccount)
	}
	f.ln.Close()
	f.cut()
	if _, err := u.canonical(t.Context(), "alice"); err == nil || errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("canonical without an upstream = %v, want another error than %v", err, auth.ErrNoAccount)
	}
}

// Active Directory sends large groups in portions.
func TestUpstreamRanges(t *testing.T) {
	const total, portion = 4000, 1500
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		from := 0
		for _, a := range q.attrs {
			if n, err := fmt.Sscanf(a, "member;range=%d-*", &from); n == 1 && err == nil {
				break
			}
		}
		to := fmt.Sprint(from + portion - 1)
		if from+portion >= total {
			to = "*"
		}
		values := []string{fmt.Sprintf("member;range=%d-%s", from, to)}
		for i := from; i < min(from+portion, total); i++ {
			values = append(values, fmt.Sprintf("uid=u%d,%s", i, people))
		}
		l.Write(append(rawEntry(q.id, "cn=all,ou=groups,"+testBase, []string{"member"}, values), rawDone(q.id, success)...))
	})
	u, _ := testUpstream(t, UpstreamLimits{}, f)
	q := readerQuery(t, scopeSubordinate, tagged(filterPresent, "member"))
	e, err := u.entry(t.Context(), q, mustDN(t, "cn=all,ou=groups,"+testBase))
	if err != nil {
		t.Fatal(err)
	}
	if _, values := e.find([]byte("member")); len(values) != total || values[total-1] != fmt.Sprintf("uid=u%d,%s", total-1, people) {
		t.Errorf("entry: %d members, want %d", len(values), total)
	}
	_, entries, _, err := collect(t.Context(), u, q, 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("search = %d entries, %v", len(entries), err)
	}
	if _, values := entries[0].find([]byte("member")); len(values) != total {
		t.Errorf("search: %d members, want %d", len(values), total)
	}
}

func TestUpstreamMember(t *testing.T) {
	groups := 1
	in := true
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		var out []byte
		text := string(q.filter)
		switch {
		case strings.Contains(text, "alice") && !strings.Contains(text, "member"):
			out = rawEntry(q.id, aliceDN, []string{"uid", "alice"})
		case strings.Contains(text, "wiki-users"):
			for i := range groups {
				out = append(out, rawEntry(q.id, fmt.Sprintf("cn=wiki-users,ou=g%d,%s", i, testBase), []string{"cn", "wiki-users"})...)
			}
		case strings.Contains(text, "member") && in:
			out = rawEntry(q.id, q.base)
		}
		l.Write(append(out, rawDone(q.id, success)...))
	})
	u, _ := testUpstream(t, brisk, f)
	check := func(name, login string, want, wantErr bool) {
		t.Helper()
		if got, err := u.member(t.Context(), "wiki-users", login); got != want || (err != nil) != wantErr {
			t.Errorf("%s: member = %v, %v, want %v, error %v", name, got, err, want, wantErr)
		}
	}
	check("member", "alice", true, false)
	in = false
	check("not a member", "alice", false, false)
	check("no user", "bob", false, false)
	in = true
	groups = 2
	check("two groups of the name", "alice", false, true)
	groups = 0
	check("no group", "alice", false, false)
	f.ln.Close()
	f.cut()
	check("upstream gone", "alice", false, true)
}

func TestPosition(t *testing.T) {
	long := "ou=" + strings.Repeat("x", 900) + "," + testBase
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"uid=alice," + people, "UID=ALICE , ou=people,dc=example,dc=org", true},
		{"cn=a+sn=b," + people, "sn=b+cn=a," + people, true},
		{"uid=a," + long, "uid=b," + long, false},
		{people, "uid=a," + people, false},
	} {
		a, b := position(mustDN(t, tt.a)), position(mustDN(t, tt.b))
		if (a == b) != tt.same || len(a) > maxPosition || !tt.same && a > b && len(tt.a) < 900 {
			t.Errorf("position(%.40q) and of %.40q: the same %v, want %v", tt.a, tt.b, a == b, tt.same)
		}
	}
}

// TestUpstreamPersonSeesNoOtherMembers is the same of groups that come from elsewhere, whatever form their members have.
func TestUpstreamPersonSeesNoOtherMembers(t *testing.T) {
	group, other := "cn=staff,ou=groups,"+testBase, "uid=bob,"+people
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		var out []byte
		switch q.base {
		case aliceDN:
			out = rawEntry(q.id, aliceDN, []string{"uid", "alice"})
		case testBase, group:
			out = rawEntry(q.id, group, []string{"cn", "staff"}, []string{"member", other, strings.ToUpper(aliceDN)}, []string{"uniqueMember", other}, []string{"memberUid", "bob", "alice"})
		}
		l.Write(append(out, rawDone(q.id, success)...))
	})
	u, _ := testUpstream(t, UpstreamLimits{}, f)
	q := readerQuery(t, scopeSubordinate, tagged(filterPresent, "cn"))
	check := func(how string, e *entry, want map[string]int) {
		t.Helper()
		for name, n := range want {
			if _, values := e.find([]byte(name)); len(values) != n {
				t.Errorf("%s: %s = %q, want %d", how, name, values, n)
			}
		}
	}
	e, err := u.entry(t.Context(), q, mustDN(t, group))
	if err != nil {
		t.Fatal(err)
	}
	check("reader", e, map[string]int{"member": 2, "uniqueMember": 1, "memberUid": 2})
	q.viewer = viewer{login: "alice", name: mustDN(t, aliceDN)}
	own := map[string]int{"member": 1, "uniqueMember": 0, "memberUid": 1}
	if e, err = u.entry(t.Context(), q, mustDN(t, group)); err != nil {
		t.Fatal(err)
	}
	id := identity{login: "alice", uid: "alice", name: mustDN(t, aliceDN)}
	e = q.srv.shown(&id, e)
	check("person", e, own)
	for _, a := range e.attrs {
		if len(a.values) == 0 {
			t.Errorf("attribute %s without values", a.typ.name)
		}
	}
	_, entries, _, err := collect(t.Context(), u, q, 10)
	if err != nil || len(entries) != 2 {
		t.Fatalf("search = %d entries, %v, want 2", len(entries), err)
	}
	for _, e := range entries {
		if e.name == group {
			check("person, search", q.srv.shown(&id, e), own)
		}
	}
}

// TestUpstreamWithoutBase: a directory that has lost its tree, such as a replica before its first load, says that nobody exists. That
// is an outage, and nobody's wrong password.
func TestUpstreamWithoutBase(t *testing.T) {
	base := true
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		if base && q.base == testBase {
			l.Write(append(rawEntry(q.id, testBase, []string{"dc", "example"}), rawDone(q.id, success)...))
			return
		}
		l.Write(rawDone(q.id, noSuchObject))
	})
	u, _ := testUpstream(t, brisk, f)
	ask := func(want string) {
		t.Helper()
		got := map[string]error{}
		_, got["resolve"] = u.resolve(t.Context(), mustDN(t, aliceDN))
		_, got["canonical"] = u.canonical(t.Context(), "alice")
		_, got["member"] = u.member(t.Context(), "staff", "alice")
		q := readerQuery(t, scopeSubordinate, tagged(filterPresent, "cn"))
		_, got["entry"] = u.entry(t.Context(), q, mustDN(t, testBase))
		_, _, _, got["search"] = collect(t.Context(), u, q, 10)
		for what, err := range got {
			undecided := err != nil && err != errNoEntry && err != errNobody && err != auth.ErrNoAccount
			if undecided != (want == "undecided") {
				t.Errorf("%s: %s = %v", want, what, err)
			}
		}
	}
	ask("decided")
	base = false
	ask("undecided")
}
