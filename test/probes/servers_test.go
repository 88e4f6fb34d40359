package probes_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// searchEntries is what both servers show of one search.
const searchEntries = 9

// server is one of the two, with the passwords of its entries.
type server struct {
	name      string
	addr      string // offers StartTLS
	plain     string // has no certificate
	passwords map[string]string
	roots     *x509.CertPool
}

// ldif is what valetkeyd shows of the accounts and groups that startServers makes, in its order. slapadd does not check it against
// the schema: a group is of two structural classes.
func ldif(passwords map[string]string) string {
	var b strings.Builder
	add := func(dn string, attrs ...string) {
		fmt.Fprintf(&b, "dn: %s\n", dn)
		if p := passwords[dn]; p != "" {
			attrs = append(attrs, "userPassword: "+p)
		}
		fmt.Fprintf(&b, "%s\n\n", strings.Join(attrs, "\n"))
	}
	class := func(names ...string) string { return "objectClass: " + strings.Join(names, "\nobjectClass: ") }
	add(base, class("top", "dcObject", "organization"), "structuralObjectClass: organization", "dc: example", "o: example")
	for _, x := range []struct{ dn, ou string }{{groups, "groups"}, {people, "people"}} {
		add(x.dn, class("top", "organizationalUnit"), "structuralObjectClass: organizationalUnit", "ou: "+x.ou)
	}
	person := []string{"top", "person", "organizationalPerson", "inetOrgPerson"}
	add(alice, class(append(person, "posixAccount", "shadowAccount")...), "structuralObjectClass: inetOrgPerson", "uid: alice", "cn: Alice Adams", "displayName: Alice Adams",
		"sn: Adams", "givenName: Alice", "mail: alice@example.org", "mail: adams@example.org", "uidNumber: 1001", "gidNumber: 100", "homeDirectory: /home/alice",
		"telephoneNumber: +1 555 0100", "description: made  of * and (", "employeeNumber: 007", "memberOf: "+admins, "memberOf: "+staff)
	add(bob, class(person...), "structuralObjectClass: inetOrgPerson", "uid: bob", "cn: Bob Brown", "displayName: Bob Brown", "sn: Bob Brown", "mail: bob@example.org",
		"manager: "+alice, "memberOf: "+staff)
	add("uid=carol,"+people, class(person...), "structuralObjectClass: inetOrgPerson", "uid: carol", "cn:: Wm/DqyBNw7xsbGVy", "displayName:: Wm/DqyBNw7xsbGVy", "sn:: Wm/DqyBNw7xsbGVy")
	add("uid=dave,"+people, class(person...), "structuralObjectClass: inetOrgPerson", "uid: dave", "cn: dave", "sn: dave", "title: Engineer, Chief")
	group := []string{"top", "groupOfNames", "groupOfUniqueNames"}
	add(admins, class(group...), "structuralObjectClass: groupOfNames", "cn: admins", "member: "+alice, "uniqueMember: "+alice, "memberUid: alice")
	add("cn=guests,"+groups, class("top", "organizationalRole"), "structuralObjectClass: organizationalRole", "cn: guests")
	add(staff, class(append(group, "posixGroup")...), "structuralObjectClass: groupOfNames", "cn: staff", "gidNumber: 200", "description: everybody",
		"member: "+alice, "member: "+bob, "uniqueMember: "+alice, "uniqueMember: "+bob, "memberUid: alice", "memberUid: bob")
	add("ou=readers,"+base, class("top", "organizationalUnit"), "structuralObjectClass: organizationalUnit", "ou: readers")
	add(scanner, class("top", "applicationProcess"), "structuralObjectClass: applicationProcess", "cn: scanner")
	return b.String()
}

// slapdConf shows to each what valetkeyd shows, and has memberOf as a user attribute, as the directories of applications do.
const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.2.102 NAME 'memberOf' EQUALITY distinguishedNameMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
modulepath /usr/lib/ldap
moduleload back_mdb
loglevel none
%s
sizelimit %d
access to dn.base="" by * read
access to dn.base="cn=Subschema" by * read
database mdb
maxsize 16777216
suffix %q
directory %%s
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=readers,%[3]s" by * none
access to dn.base="%[3]s" by users read
access to dn.base="ou=people,%[3]s" by users read
access to dn.base="ou=groups,%[3]s" by users read
access to dn.one="ou=people,%[3]s" by self read by dn.exact="cn=scanner,ou=readers,%[3]s" read by * none
access to dn.one="ou=groups,%[3]s" by dnattr=member read by dn.exact="cn=scanner,ou=readers,%[3]s" read by * none
`

// startServers starts both with the same entries and the same passwords.
func startServers(t *testing.T) (slapd, ours *server) {
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	authority := harness.NewAuthority(t)
	certificate := authority.Issue(t, "server", 30*24*time.Hour)
	pem, err := os.ReadFile(authority.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)

	d := harness.NewDaemon(t, url)
	ours = &server{name: "valetkeyd", roots: roots, passwords: map[string]string{}}
	listen := func(more string) string {
		addr := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
		d.Sections += fmt.Sprintf("\n[[ldap]]\nlisten = %q\nsearch_entries = %d\n%s", addr, searchEntries, more)
		return addr
	}
	ours.plain = listen("")
	ours.addr = listen(fmt.Sprintf("tls_cert = %q\ntls_key = %q\n", certificate.Cert, certificate.Key))
	d.Start(t)
	attributes := func(pairs ...string) (flags []string) {
		for _, p := range pairs {
			flags = append(flags, "--attribute", p)
		}
		return flags
	}
	d.Must(t, append([]string{"account", "add", "alice", "--name", "Alice Adams", "--mail", "alice@example.org", "--mail", "adams@example.org"},
		attributes("sn=Adams", "givenName=Alice", "uidNumber=1001", "gidNumber=100", "homeDirectory=/home/alice", "telephoneNumber=+1 555 0100",
			"description=made  of * and (", "employeeNumber=007")...)...)
	d.Must(t, append([]string{"account", "add", "bob", "--name", "Bob Brown", "--mail", "bob@example.org"}, attributes("manager="+alice)...)...)
	d.Must(t, "account", "add", "carol", "--name", "Zoë Müller")
	d.Must(t, append([]string{"account", "add", "dave"}, attributes("title=Engineer, Chief")...)...)
	d.Must(t, "group", "add", "admins")
	d.Must(t, "group", "add", "guests")
	d.Must(t, "group", "add", "staff", "--attribute", "gidNumber=200", "--attribute", "description=everybody")
	d.Must(t, "group", "add-member", "admins", "alice")
	d.Must(t, "group", "add-member", "staff", "alice", "bob")
	d.Must(t, "reader", "add", "scanner")
	ours.passwords[alice] = d.Create(t, "alice", "probe")
	ours.passwords[scanner] = d.Create(t, "scanner", "probe")

	slapd = &server{name: "slapd", roots: roots, passwords: ours.passwords}
	tlsConf := fmt.Sprintf("TLSCertificateFile %s\nTLSCertificateKeyFile %s\n", certificate.Cert, certificate.Key)
	slapd.addr = harness.NewConfiguredDirectory(t, fmt.Sprintf(slapdConf, tlsConf, searchEntries, base), ldif(ours.passwords)).Addr
	slapd.plain = harness.NewConfiguredDirectory(t, fmt.Sprintf(slapdConf, "", searchEntries, base), ldif(ours.passwords)).Addr
	return slapd, ours
}

const (
	patience = 10 * time.Second
	// Longer than either server thinks about anything here; only a probe that is never answered waits for so long.
	silence = 2 * time.Second

	sentinel = 7777 // message id
)

var errSilence = errors.New("silence")

// ask runs a probe on a connection of its own and returns what came, as the page shows it.
func (s *server) ask(p *probe) (string, error) {
	addr := s.addr
	if p.plain {
		addr = s.plain
	}
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return "", err
	}
	defer func() { nc.Close() }()
	r := bufio.NewReader(nc)
	cookie := ""
	// exchange reads until n operations are answered, or the connection is closed.
	exchange := func(out []byte, n int) (answers []answer, closed bool, err error) {
		nc.SetDeadline(time.Now().Add(patience))
		nc.Write(out) // what is wrong shows when reading
		for n > 0 {
			nc.SetReadDeadline(time.Now().Add(silence))
			b, err := readMessage(r)
			var timeout net.Error
			switch {
			case errors.As(err, &timeout) && timeout.Timeout():
				return answers, false, errSilence
			case errors.Is(err, errBER):
				return answers, false, err
			case err != nil:
				return answers, true, nil
			}
			a, next, err := parse(b)
			if err != nil {
				return answers, false, err
			}
			if next != "" {
				cookie = next
			}
			answers = append(answers, a)
			if a.final && !a.notice {
				n--
			}
		}
		return answers, false, nil
	}
	if p.as != "" {
		got, _, err := exchange(simple(p.as, s.passwords[p.as]).encode(1), 1)
		if err != nil || len(got) != 1 || got[0].text != "bind 0" {
			return "", fmt.Errorf("%s: bind as %s: %v, %v", s.name, p.as, got, err)
		}
	}
	var parts []string
	for _, st := range p.steps {
		var out []byte
		expected := 0
		requests := st.requests(cookie)
		for i, q := range requests {
			out = append(out, q.encode(2+i)...)
			if !q.silent || q.ends {
				expected++
			}
		}
		if st.half {
			nc.SetDeadline(time.Now().Add(patience))
			nc.Write(out)
			out = nil
			nc.(*net.TCPConn).CloseWrite()
		}
		got, closed, err := exchange(out, expected)
		// Operations may be answered in any order (RFC 4511 section 3.1), and entries come in any.
		slices.SortStableFunc(got, func(a, b answer) int {
			if a.final == b.final && !a.final && a.id == b.id {
				return strings.Compare(a.text, b.text)
			}
			return a.id - b.id
		})
		for _, a := range got {
			text := a.text
			if !a.notice && (len(requests) > 1 || a.id != 2) {
				text = fmt.Sprintf("#%d %s", a.id, text)
			}
			parts = append(parts, text)
		}
		switch {
		case closed:
			return strings.Join(append(parts, "closed"), ", "), nil
		case errors.Is(err, errSilence): // for the rest of what it takes for one PDU
			return strings.Join(append(parts, "waits"), ", "), nil
		case err != nil:
			return "", fmt.Errorf("%s: %w after %q", s.name, err, parts)
		}
		if st.tls {
			secure := tls.Client(nc, &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1"})
			nc.SetDeadline(time.Now().Add(patience))
			if err := secure.Handshake(); err != nil {
				return strings.Join(append(parts, "no TLS"), ", "), nil
			}
			nc, r = secure, bufio.NewReader(secure)
			parts = append(parts, "TLS")
		}
	}
	got, closed, err := exchange(extended(oidWhoAmI).encode(sentinel), 1)
	if err != nil {
		return "", fmt.Errorf("%s: %w, where the connection should be good for one more request; before: %q", s.name, err, parts)
	}
	for _, a := range got {
		if a.id != sentinel {
			parts = append(parts, a.text)
			continue
		}
		_, who, _ := strings.Cut(a.text, " value ")
		if who = strings.TrimPrefix(strings.Trim(who, `"`), "dn:"); who == "" {
			who = "anonymous"
		}
		parts = append(parts, "still "+who)
	}
	if closed {
		parts = append(parts, "closed")
	}
	return strings.Join(parts, ", "), nil
}
