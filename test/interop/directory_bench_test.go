package interop_test

import (
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/test/harness"
)

// BenchmarkDirectory is what applications do through the built daemon and Postgres, from many connections at once: look a person up, and
// look up and then bind as that person, with the reader's bind in between as Dovecot and Apache do it.
func BenchmarkDirectory(b *testing.B) {
	cluster := harness.NewCluster(b)
	url, _ := cluster.Database(b)
	d := harness.StartDaemon(b, url)
	d.Must(b, "account", "add", "alice", "--name", "Alice Adams", "--mail", "alice@example.org")
	d.Must(b, "group", "add", "staff")
	d.Must(b, "group", "add-member", "staff", "alice")
	d.Must(b, "reader", "add", "scan")
	reader, alice := d.Create(b, "scan", "bench"), d.Create(b, "alice", "bench")
	const readerDN = "cn=scan,ou=readers," + harness.BaseDN
	search := func(c *ldap.Conn) (string, error) {
		r, err := c.Search(ldap.NewSearchRequest(harness.BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, 10, false,
			"(&(objectClass=person)(|(uid=alice)(mail=alice)))", []string{"uid", "mail", "memberOf"}, nil))
		if err != nil || len(r.Entries) != 1 {
			return "", err
		}
		return r.Entries[0].DN, nil
	}
	for _, bc := range []struct {
		name string
		do   func(c *ldap.Conn) error
	}{
		{"search", func(c *ldap.Conn) error { _, err := search(c); return err }},
		{"search-then-bind", func(c *ldap.Conn) error {
			if err := c.Bind(readerDN, reader); err != nil {
				return err
			}
			dn, err := search(c)
			if err != nil {
				return err
			}
			return c.Bind(dn, alice)
		}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				c, err := ldap.DialURL("ldap://" + d.LDAP)
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				if err := c.Bind(readerDN, reader); err != nil {
					b.Error(err)
					return
				}
				for pb.Next() {
					if err := bc.do(c); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "operations/s")
		})
	}
}
