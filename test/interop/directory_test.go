package interop_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/test/harness"
)

// TestDirectory searches and binds below an application as programs do: a reader looks a person up, in pages and by filters, and the
// person binds under the name that was found.
//
// It would catch: a search by keys whose keys the database does not have, a group that is not asked for at a bind below the
// application, a reader that a mail server lets in, a person who sees others.
func TestDirectory(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	addr := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	d.Sections = fmt.Sprintf("\n[[ldap]]\nlisten = %q\nsearch_entries = 40\n[[ldap.application]]\nname = \"wiki\"\ngroup = \"wiki-users\"\n", addr)
	d.Start(t)
	d.Must(t, "account", "add", "alice", "--name", "Alice Adams", "--alias", "al", "--mail", "alice@example.org", "--attribute", "uidNumber=1001")
	d.Must(t, "account", "add", "bob", "--name", "Bob", "--mail", "bob@example.org")
	for i := range 50 {
		d.AddAccount(t, fmt.Sprintf("p%02d", i))
	}
	d.Must(t, "group", "add", "wiki-users")
	d.Must(t, "group", "add-member", "wiki-users", "alice", "p00")
	d.Must(t, "reader", "add", "wiki-search")
	reader := d.Create(t, "wiki-search", "wiki")
	alice, bob := d.Create(t, "alice", "wiki", "--service", "wiki"), d.Create(t, "bob", "wiki")

	const suffix = "app=wiki," + harness.BaseDN
	dial := func(dn, secret string, want uint16) *ldap.Conn {
		t.Helper()
		c, err := ldap.DialURL("ldap://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		code := uint16(0)
		if err := c.Bind(dn, secret); err != nil {
			var le *ldap.Error
			if !errors.As(err, &le) {
				t.Fatal(err)
			}
			code = le.ResultCode
		}
		if code != want {
			t.Errorf("bind as %s = %d, want %d", dn, code, want)
		}
		return c
	}
	search := func(c *ldap.Conn, base, filter string, attrs ...string) []*ldap.Entry {
		t.Helper()
		r, err := c.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 10, false, filter, attrs, nil))
		if err != nil {
			t.Fatalf("search of %s below %s: %v", filter, base, err)
		}
		return r.Entries
	}
	dns := func(entries []*ldap.Entry) (names []string) {
		for _, e := range entries {
			names = append(names, e.DN)
		}
		return names
	}

	scan := dial("cn=wiki-search,ou=readers,"+suffix, reader, 0)
	aliceDN, groupDN := "uid=alice,ou=people,"+suffix, "cn=wiki-users,ou=groups,"+suffix
	for filter, want := range map[string][]string{
		"(&(objectClass=person)(|(uid=ALICE)(mail=alice)))":             {aliceDN},
		"(mail=Alice@Example.org)":                                      {aliceDN},
		"(&(objectClass=inetOrgPerson)(memberOf=" + groupDN + "))":      {aliceDN, "uid=p00,ou=people," + suffix},
		"(cn=alice  adams)":                                             {aliceDN},
		"(uidNumber=01001)":                                             {aliceDN},
		"(&(objectClass=groupOfNames)(member=" + aliceDN + "))":         {groupDN},
		"(|(member=" + aliceDN + ")(uniqueMember=x)(memberUid=nobody))": {groupDN},
		"(memberOf=cn=wiki-users,ou=groups," + harness.BaseDN + ")":     nil,
		"(uid=al)":            nil,
		"(uid=wiki-search)":   nil,
		"(mail=*example.org)": {aliceDN, "uid=bob,ou=people," + suffix},
		"(!(|(uid=p*)(objectClass=organizationalUnit)(objectClass=dcObject)))": {aliceDN, "uid=bob,ou=people," + suffix, groupDN},
		"(entryDN=" + aliceDN + ")": {aliceDN},
	} {
		if got := dns(search(scan, suffix, filter, "1.1")); !slices.Equal(got, want) {
			t.Errorf("search of %s = %q, want %q", filter, got, want)
		}
	}
	e := search(scan, suffix, "(uid=alice)", "memberOf", "entryUUID")[0]
	if got := e.GetAttributeValues("memberOf"); !slices.Equal(got, []string{groupDN}) {
		t.Errorf("memberOf = %q", got)
	}
	if found := search(scan, suffix, "(entryUUID="+e.GetAttributeValue("entryUUID")+")"); len(found) != 1 || found[0].DN != aliceDN {
		t.Errorf("by UUID = %q", dns(found))
	}
	if ok, err := scan.Compare(groupDN, "member", aliceDN); !ok || err != nil {
		t.Errorf("compare = %v, %v", ok, err)
	}

	all := ldap.NewSearchRequest("ou=people,"+suffix, ldap.ScopeSingleLevel, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=person)", []string{"uid"}, nil)
	_, err := scan.SearchWithPaging(all, 7)
	if !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		t.Errorf("search_entries = 40, 52 people in pages: %v, want code 4", err)
	}
	plain, err := ldap.DialURL("ldap://" + d.LDAP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	if err := plain.Bind("cn=wiki-search,ou=readers,"+harness.BaseDN, reader); err != nil {
		t.Fatal(err)
	}
	all.BaseDN, all.Controls = "ou=people,"+harness.BaseDN, nil // with the cookie of the paging that was cut
	if r, err := plain.SearchWithPaging(all, 7); err != nil || len(r.Entries) != 52 || !slices.IsSorted(dns(r.Entries)) {
		t.Errorf("52 people in pages = %v, %v", r, err)
	}

	person := dial(e.DN, alice, 0)
	if got, want := dns(search(person, suffix, "(objectClass=*)")), []string{suffix, "ou=groups," + suffix, "ou=people," + suffix, aliceDN, groupDN}; !slices.Equal(got, want) {
		t.Errorf("a person sees %q, want %q", got, want)
	}
	mark := d.Log().Mark()
	dial("uid=bob,ou=people,"+suffix, bob, 49)
	d.WantAuth(t, mark, harness.AuthLine{"result": "fail", "reason": "group_not_allowed", "svc": "wiki", "user": "bob"})
	mark = d.Log().Mark()
	dial("uid=wiki-search,ou=people,"+harness.BaseDN, reader, 49)
	d.WantAuth(t, mark, harness.AuthLine{"result": "fail", "reason": "reader_only", "user": "wiki-search"})
	dial("uid=alice,ou=people,"+harness.BaseDN, alice, 49) // for wiki only
	dial("uid=bob,ou=people,"+harness.BaseDN, bob, 0)
	dial("cn=alice,ou=readers,"+harness.BaseDN, bob, 49)
	dial("uid=alice,ou=people,"+suffix, bob, 49)
	dial("uid=bob,ou=people,app=blog,"+harness.BaseDN, bob, 49)

	// What is revoked or taken away is gone with the next request, on connections that are open too.
	d.Must(t, "account", "disable", "alice")
	if found := search(scan, suffix, "(|(uid=alice)(member="+aliceDN+"))"); len(found) != 0 {
		t.Errorf("disabled, and there is %q", dns(found))
	}
	dial(e.DN, alice, 49)

	d.Revoke(t, "wiki-search", "wiki")
	harness.WaitFor(t, "the connection of a reader whose app password was revoked ends", func() bool {
		_, err := scan.Search(ldap.NewSearchRequest(suffix, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 10, false, "(objectClass=*)", nil, nil))
		return err != nil && scan.IsClosing()
	})
	dial("cn=wiki-search,ou=readers,"+suffix, reader, 49)
}
