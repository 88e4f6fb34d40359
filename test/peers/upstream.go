package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// Person is one in a directory that is there already.
type Person struct {
	Login      string
	Attributes []string // NAME=VALUE, beside uid, cn and sn; with uidNumber it is a posixAccount too
}

// Group is one in a directory that is there already: a groupOfNames, which must have a member, or with a GID a posixGroup
// (RFC 2307 lets no entry be both).
type Group struct {
	Name    string
	GID     int
	Members []string // logins
}

// Upstream starts a slapd with the tree that the store would show: people as uid=LOGIN,ou=people and groups as cn=NAME,ou=groups below
// [harness.BaseDN]. section is what turns the [[ldap]] that it is put behind, a page's snippet for one, into a listener that shows
// this slapd. Accounts and app passwords are made as without it.
func Upstream(t *testing.T, people []Person, groups ...Group) (section string, d *harness.UpstreamDirectory) {
	t.Helper()
	d = harness.NewUpstreamDirectory(t, upstreamLDIF(people, groups), "")
	file := filepath.Join(harness.Dir(t), "bridge-password")
	if err := os.WriteFile(file, []byte(harness.BridgePassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("\n[ldap.upstream]\nurls = [%q]\nbind_dn = %q\nbind_password_file = %q\n", "ldap://"+d.Addr, harness.BridgeDN, file), d
}

func upstreamLDIF(people []Person, groups []Group) string {
	var b strings.Builder
	for _, ou := range []string{"people", "groups"} {
		fmt.Fprintf(&b, "dn: ou=%[1]s,%[2]s\nobjectClass: organizationalUnit\nou: %[1]s\n\n", ou, harness.BaseDN)
	}
	for _, p := range people {
		fmt.Fprintf(&b, "dn: %s\nobjectClass: inetOrgPerson\n", harness.UserDN(p.Login))
		// The values of an attribute must not be apart.
		if slices.ContainsFunc(p.Attributes, func(a string) bool { return strings.HasPrefix(a, "uidNumber=") }) {
			b.WriteString("objectClass: posixAccount\n")
		}
		fmt.Fprintf(&b, "uid: %s\n", p.Login)
		attributes := slices.Clone(p.Attributes)
		for _, needed := range []string{"cn", "sn"} {
			if !slices.ContainsFunc(attributes, func(a string) bool { return strings.HasPrefix(a, needed+"=") }) {
				attributes = append(attributes, needed+"="+p.Login)
			}
		}
		for _, a := range attributes {
			name, value, _ := strings.Cut(a, "=")
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
		// The overlay adds these for what is written later, and not for what slapadd writes.
		for _, g := range groups {
			if g.GID == 0 && slices.Contains(g.Members, p.Login) {
				fmt.Fprintf(&b, "memberOf: %s\n", GroupDN(g.Name))
			}
		}
		b.WriteString("\n")
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "dn: %s\ncn: %s\n", GroupDN(g.Name), g.Name)
		if g.GID != 0 {
			fmt.Fprintf(&b, "objectClass: posixGroup\ngidNumber: %d\n", g.GID)
			for _, login := range g.Members {
				fmt.Fprintf(&b, "memberUid: %s\n", login)
			}
		} else {
			b.WriteString("objectClass: groupOfNames\n")
			for _, login := range g.Members {
				fmt.Fprintf(&b, "member: %s\n", harness.UserDN(login))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// GroupDN is the entry of a group whose name needs no escaping (RFC 4514).
func GroupDN(name string) string { return "cn=" + name + ",ou=groups," + harness.BaseDN }
