package interop_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// upstreamLDIF has alice, bob, who shares alice's given name and nothing else, a group of each, and somebody with two logins.
func upstreamLDIF(more int) string {
	var b strings.Builder
	person := func(cn, uid, extra string) {
		fmt.Fprintf(&b, "dn: cn=%s,ou=people,%s\nobjectClass: inetOrgPerson\ncn: %s\nsn: Example\nuid: %s\nmail: %s@example.org\nuserPassword: {SSHA}canary-hash-of-%s\n%s\n",
			cn, harness.BaseDN, cn, uid, uid, uid, extra)
	}
	for _, ou := range []string{"people", "groups", "other"} {
		fmt.Fprintf(&b, "dn: ou=%s,%s\nobjectClass: organizationalUnit\nou: %s\n\n", ou, harness.BaseDN, ou)
	}
	person("Alice Adams", "Alice", "memberOf: cn=staff,ou=groups,"+harness.BaseDN+"\n")
	person("Bob Brown", "bob", "")
	person("Two", "two", "uid: deux\n")
	for group, member := range map[string]string{"staff": "Alice Adams", "board": "Bob Brown"} {
		fmt.Fprintf(&b, "dn: cn=%s,ou=groups,%s\nobjectClass: groupOfNames\ncn: %s\nmember: cn=%s,ou=people,%s\n\n", group, harness.BaseDN, group, member, harness.BaseDN)
	}
	fmt.Fprintf(&b, "dn: ou=elsewhere,%s\nobjectClass: referral\nobjectClass: extensibleObject\nou: elsewhere\nref: ldap://127.0.0.1:9/dc=evil\n\n", harness.BaseDN)
	fmt.Fprintf(&b, "dn: cn=printer,ou=other,%s\nobjectClass: device\ncn: printer\n\n", harness.BaseDN)
	for i := range more {
		person(fmt.Sprintf("User %04d", i), fmt.Sprintf("u%04d", i), "")
	}
	return b.String()
}

// TestUpstream shows the entries of a slapd to ldap-utils, with the app passwords of the daemon.
//
// It would catch: an upstream that is down or hangs answered as 49, a daemon that must be started again afterwards, a bind of a user that
// reaches the upstream, a hash or a referral that is passed on, a filter that tells something about a hash, a second server that is not
// used, an entry that somebody sees who must not, another spelling of a name that is another account, a connection that is kept for ever by a
// server that hangs, an account that anybody's login makes.
func TestUpstream(t *testing.T) {
	t.Parallel()
	first, second := harness.NewUpstreamDirectory(t, upstreamLDIF(0), ""), harness.NewUpstreamDirectory(t, upstreamLDIF(0), "")
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.NewDaemon(t, url)
	one, both := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	d.Sections = harness.UpstreamSection(t, one, "", first) + harness.UpstreamSection(t, both, "service = \"wiki\"", first, second)
	d.Start(t)

	const people = ",ou=people," + harness.BaseDN
	alice := "cn=Alice Adams" + people
	// Nobody has an account yet.
	right := d.Create(t, "ALICE", "wiki")
	revoked := d.Create(t, "alice", "old wiki")
	d.Revoke(t, "alice", "old wiki")
	imapOnly := d.Create(t, "alice", "mail reader", "--service", "imap")
	ldapOnly := d.Create(t, "alice", "ldap", "--service", "ldap")
	bobs := d.Create(t, "bob", "wiki")
	for login, hint := range map[string]string{"nobody": "upstream", "two": "upstream", "printer": "upstream"} {
		code, out, errOut := d.Valetkey(t, "", "create", login, "x")
		if code != 1 || out != "" || !strings.Contains(errOut, hint) {
			t.Errorf("create %s: exit code %d, output %q, want 1 and %q\n%s", login, code, out, hint, errOut)
		}
	}

	bind := func(t *testing.T, addr, dn, password string) int {
		t.Helper()
		code, _, _ := harness.LDAPTool(t, "ldapwhoami", addr, dn, password)
		return code
	}
	for _, c := range []struct {
		name, addr, dn, password string
		code                     int
		log                      harness.AuthLine
	}{
		{"right", one, alice, right, 0, harness.AuthLine{"result": "ok", "user": "alice", "svc": "ldap"}},
		{"another spelling", one, "CN=alice   ADAMS , OU=People, DC=example,dc=org", right, 0, harness.AuthLine{"result": "ok", "user": "alice"}},
		{"escaped", one, `cn=\41lice Adams` + people, right, 0, harness.AuthLine{"result": "ok", "user": "alice"}},
		{"another service", both, alice, right, 0, harness.AuthLine{"result": "ok", "svc": "wiki"}},
		{"wrong", one, alice, neverIssued, 49, harness.AuthLine{"result": "fail", "reason": "no_match"}},
		{"main password", one, alice, mainPassword, 49, harness.AuthLine{"result": "fail", "reason": "bad_format"}},
		{"revoked", one, alice, revoked, 49, harness.AuthLine{"result": "fail", "reason": "revoked"}},
		{"another one's", one, alice, bobs, 49, harness.AuthLine{"result": "fail", "reason": "no_match"}},
		{"wrong service", one, alice, imapOnly, 49, harness.AuthLine{"result": "fail", "reason": "service_not_allowed"}},
		{"wrong application", both, alice, ldapOnly, 49, harness.AuthLine{"result": "fail", "reason": "service_not_allowed"}},
		{"login as the name", one, "uid=alice" + people, right, 49, nil},
		{"no such entry", one, "cn=Nobody" + people, right, 49, nil},
		{"two logins", one, "cn=Two" + people, right, 49, nil},
		{"a group", one, "cn=staff,ou=groups," + harness.BaseDN, right, 49, nil},
		{"the service account", one, harness.BridgeDN, harness.BridgePassword, 49, nil},
		{"below a referral", one, "cn=alice,ou=elsewhere," + harness.BaseDN, right, 80, nil},
		{"foreign suffix", one, "cn=Alice Adams,dc=example,dc=com", right, 49, nil},
		{"empty password", one, alice, "", 53, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark := d.Log().Mark()
			if code := bind(t, c.addr, c.dn, c.password); code != c.code {
				t.Errorf("bind as %q: exit code %d, want %d", c.dn, code, c.code)
			}
			if c.log != nil {
				d.WantAuth(t, mark, c.log)
			}
		})
	}

	search := func(t *testing.T, dn, password string, args ...string) (code int, out string) {
		t.Helper()
		code, out, errOut := harness.LDAPTool(t, "ldapsearch", one, dn, password, append([]string{"-LLL", "-o", "ldif-wrap=no"}, args...)...)
		return code, out + errOut
	}
	t.Run("what a person sees", func(t *testing.T) {
		code, out := search(t, alice, right, "-b", harness.BaseDN, "(objectClass=*)", "*", "+")
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		for text, want := range map[string]bool{
			"dn: " + alice: true, "uid: Alice": true, "memberOf: cn=staff,ou=groups," + harness.BaseDN: true, "entryUUID: ": true,
			"dn: cn=staff,ou=groups": true, "dn: ou=people,": true, "dn: " + harness.BaseDN: true,
			"Bob Brown": false, "board": false, "canary-hash": false, "userPassword": false, "elsewhere": false, "ref: ": false, "printer": false, "bridge": false,
		} {
			if strings.Contains(out, text) != want {
				t.Errorf("%q is in the answer: %v, want %v\n%s", text, !want, want, out)
			}
		}
	})
	t.Run("entry of another", func(t *testing.T) {
		for _, dn := range []string{"cn=Bob Brown" + people, "cn=Nobody" + people, "cn=board,ou=groups," + harness.BaseDN} {
			if code, out := search(t, alice, right, "-s", "base", "-b", dn); code != 32 || !strings.Contains(out, "Matched DN: ou=") {
				t.Errorf("base search of %s: exit code %d, want 32\n%s", dn, code, out)
			}
		}
	})
	t.Run("filters about a hash", func(t *testing.T) {
		for _, filter := range []string{"(userPassword=*)", "(!(userPassword=*))", "(userPassword={SSHA}canary*)", "(2.5.4.35=*)", "(&(uid=alice)(userPassword=*))",
			"(!(|(userPassword=x)(uid=bob)))", "(userPassword:octetStringMatch:=x)", "(userPassword>=a)"} {
			if code, out := search(t, alice, right, "-b", harness.BaseDN, filter, "1.1"); code != 0 || strings.Contains(out, "dn: ") {
				t.Errorf("%s: exit code %d, want 0 and no entry\n%s", filter, code, out)
			}
		}
		if code, out := search(t, alice, right, "-b", harness.BaseDN, "(|(uid=alice)(userPassword=*))", "1.1"); code != 0 || strings.Count(out, "dn: ") != 1 {
			t.Errorf("a hash beside what is known: exit code %d, want 0 and one entry\n%s", code, out)
		}
	})
	t.Run("attributes by name", func(t *testing.T) {
		code, out := search(t, alice, right, "-b", harness.BaseDN, "(uid=alice)", "MAIL", "userPassword", "2.5.4.35", "memberOf")
		if want := "dn: " + alice + "\nmail: Alice@example.org\nmemberOf: cn=staff,ou=groups," + harness.BaseDN + "\n\n"; code != 0 || out != want {
			t.Errorf("exit code %d, output\n%s\nwant\n%s", code, out, want)
		}
	})
	t.Run("compare", func(t *testing.T) {
		for assertion, want := range map[string]int{"member:" + alice: 6, "member:cn=Bob Brown" + people: 5} {
			code, _, errOut := harness.LDAPTool(t, "ldapcompare", one, alice, right, "cn=staff,ou=groups,"+harness.BaseDN, assertion)
			if code != want {
				t.Errorf("compare %s: exit code %d, want %d\n%s", assertion, code, want, errOut)
			}
		}
	})

	t.Run("upstream hangs", func(t *testing.T) {
		thaw := first.Freeze(t)
		defer thaw()
		start := time.Now()
		for name, password := range map[string]string{"right": right, "wrong": neverIssued} {
			if code := bind(t, one, alice, password); code != 80 {
				t.Errorf("%s password: exit code %d, want 80", name, code)
			}
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("two binds took %v", took)
		}
		harness.WaitFor(t, "a bind by the second server", func() bool {
			code := bind(t, both, alice, right)
			if code != 0 && code != 80 {
				t.Fatalf("exit code %d, want 80 or 0", code)
			}
			return code == 0
		})
	})
	t.Run("upstream thawed", func(t *testing.T) {
		harness.WaitFor(t, "a bind", func() bool { return bind(t, one, alice, right) == 0 })
	})
	t.Run("upstream stopped", func(t *testing.T) {
		first.Stop(t)
		for name, password := range map[string]string{"right": right, "wrong": neverIssued, "revoked": revoked} {
			if code := bind(t, one, alice, password); code != 80 {
				t.Errorf("%s password: exit code %d, want 80", name, code)
			}
		}
		if code := bind(t, both, alice, right); code != 0 {
			t.Errorf("bind by the second server: exit code %d, want 0", code)
		}
		// The second one can still say who is there.
		d.Create(t, "alice", "made meanwhile")
		second.Stop(t)
		if code := bind(t, both, alice, right); code != 80 {
			t.Errorf("bind without any server: exit code %d, want 80", code)
		}
		code, out, errOut := d.Valetkey(t, "", "create", "two", "x")
		if code != 3 || out != "" || !strings.Contains(errOut, "upstream") || !strings.Contains(errOut, "hint") {
			t.Errorf("create without any server: exit code %d, output %q, want 3 and a hint\n%s", code, out, errOut)
		}
		first.Start(t)
		second.Start(t)
		for _, addr := range []string{one, both} {
			harness.WaitFor(t, "a bind after the upstream came back", func() bool {
				code := bind(t, addr, alice, right)
				if code != 0 && code != 80 {
					t.Fatalf("while the upstream comes back: exit code %d, want 80 or 0", code)
				}
				return code == 0
			})
		}
	})
	for _, s := range []*harness.UpstreamDirectory{first, second} {
		names := s.Binds()
		for _, name := range names {
			if name != harness.BridgeDN {
				t.Errorf("a bind as %q reached the upstream", name)
			}
		}
	}
	if len(first.Binds()) == 0 {
		t.Error("no bind is in the log of slapd, so nothing is said of those of users")
	}
	if logs := d.AllLogs(); strings.Contains(logs, harness.BridgePassword) || strings.Contains(logs, "canary-hash") {
		t.Error("the log of the daemon has the password of the service account, or a hash")
	}
}

// TestUpstreamReader has a service account of the daemon's look at 2,000 entries of a slapd.
//
// It would catch: an upstream's limit of 500 entries passed on, pages that leave out an entry or bring one twice, an order that changes, a filter that
// is not passed on, an application that is open to everybody, names that are not those of the application.
func TestUpstreamReader(t *testing.T) {
	t.Parallel()
	const users = 2000
	directory := harness.NewUpstreamDirectory(t, upstreamLDIF(users), "")
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.NewDaemon(t, url)
	addr := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	d.Sections = harness.UpstreamSection(t, addr, "[[ldap.application]]\nname = \"wiki\"\ngroup = \"staff\"\n", directory)
	d.Start(t)
	d.Must(t, "reader", "add", "portal")
	secret := d.Create(t, "portal", "portal")
	reader := "cn=portal,ou=readers," + harness.BaseDN
	search := func(t *testing.T, args ...string) (code int, out string) {
		t.Helper()
		code, out, errOut := harness.LDAPTool(t, "ldapsearch", addr, reader, secret, append([]string{"-LLL", "-o", "ldif-wrap=no"}, args...)...)
		return code, out + errOut
	}
	all := func(t *testing.T, args ...string) (names []string) {
		t.Helper()
		code, out := search(t, append(args, "-b", harness.BaseDN, "(objectClass=inetOrgPerson)", "1.1")...)
		if code != 0 {
			t.Fatalf("ldapsearch %q: exit code %d\n%.2000s", args, code, out)
		}
		for line := range strings.Lines(out) {
			if name, found := strings.CutPrefix(line, "dn: "); found {
				names = append(names, name)
			}
		}
		return names
	}
	t.Run("everybody", func(t *testing.T) {
		whole := all(t)
		if len(whole) != users+3 || !slices.IsSorted(whole) {
			t.Fatalf("%d entries, sorted: %v, want %d", len(whole), slices.IsSorted(whole), users+3)
		}
		if paged := all(t, "-E", "pr=300/noprompt"); !slices.Equal(paged, whole) {
			t.Errorf("in pages: %d entries that are not the same", len(paged))
		}
	})
	t.Run("one", func(t *testing.T) {
		code, out := search(t, "-b", harness.BaseDN, "(&(objectClass=inetOrgPerson)(|(uid=u1234)(mail=u1234)))", "uid", "userPassword")
		if want := "dn: cn=User 1234,ou=people," + harness.BaseDN + "\nuid: u1234\n\n"; code != 0 || out != want {
			t.Errorf("exit code %d, output\n%s\nwant\n%s", code, out, want)
		}
	})
	t.Run("size limit", func(t *testing.T) {
		if code, out := search(t, "-z", "10", "-b", harness.BaseDN, "(uid=*)", "1.1"); code != 4 || strings.Count(out, "dn: ") != 10 {
			t.Errorf("exit code %d with %d entries, want 4 and 10", code, strings.Count(out, "dn: "))
		}
	})
	t.Run("hashes and referrals", func(t *testing.T) {
		_, out := search(t, "-b", harness.BaseDN, "(objectClass=*)", "*", "+")
		for _, text := range []string{"canary-hash", "ldap://127.0.0.1:9", "elsewhere", "printer", "cn=bridge"} {
			if strings.Contains(out, text) {
				t.Errorf("the answer has %q", text)
			}
		}
	})
	t.Run("application", func(t *testing.T) {
		alices, bobs := d.Create(t, "alice", "wiki"), d.Create(t, "bob", "wiki")
		const below = ",ou=people,app=wiki," + harness.BaseDN
		for dn, c := range map[string]struct {
			password string
			code     int
		}{
			"cn=Alice Adams" + below: {alices, 0}, "cn=Bob Brown" + below: {bobs, 49}, "cn=Alice Adams,ou=people,app=other," + harness.BaseDN: {alices, 49},
		} {
			if code, _, errOut := harness.LDAPTool(t, "ldapwhoami", addr, dn, c.password); code != c.code {
				t.Errorf("bind as %s: exit code %d, want %d\n%s", dn, code, c.code, errOut)
			}
		}
		code, out, errOut := harness.LDAPTool(t, "ldapsearch", addr, "cn=Alice Adams"+below, alices, "-LLL", "-o", "ldif-wrap=no", "-b", "app=wiki,"+harness.BaseDN,
			"(memberOf=cn=staff,ou=groups,app=wiki,"+harness.BaseDN+")", "memberOf")
		if want := "dn: cn=Alice Adams" + below + "\nmemberOf: cn=staff,ou=groups,app=wiki," + harness.BaseDN + "\n\n"; code != 0 || out != want {
			t.Errorf("exit code %d, output\n%s%s\nwant\n%s", code, out, errOut, want)
		}
	})
}
