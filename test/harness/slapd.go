package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Directory is a slapd of the test's own, on loopback.
type Directory struct {
	Addr string
}

// NewDirectory starts slapd with these entries below [BaseDN], as LDIF, and this as /etc/ldap/sasl2/slapd.conf. run is the
// directory that it sees as /run.
func NewDirectory(t testing.TB, ldif, saslConf, run string) *Directory {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("slapd changes to Debian's user openldap: run this test as root, e.g. in a container")
	}
	uid, gid := account(t, "openldap", Slapd)
	dir := Dir(t)
	data, sasl := filepath.Join(dir, "data"), filepath.Join(dir, "sasl2")
	for _, d := range []string{data, sasl} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "slapd.conf")
	for path, text := range map[string]string{
		filepath.Join(sasl, "slapd.conf"): saslConf,
		conf: fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
database ldif
suffix %q
directory %s
access to attrs=userPassword by anonymous auth by * none
access to * by * read
`, BaseDN, data),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add := exec.Command(program(t, Slapd, "slapadd"), "-f", conf)
	if code, out, errOut := Run(t, ldif, add); code != 0 {
		t.Fatalf("slapadd: exit code %d\n%s%s", code, out, errOut)
	}
	// What slapadd made belongs to root.
	err := filepath.WalkDir(data, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, gid))
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &Directory{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t))}
	// -d keeps it in the foreground, also -d 0.
	cmd := exec.Command(program(t, Slapd, "slapd"), "-d", "stats", "-u", "openldap", "-g", "openldap", "-f", conf, "-h", "ldap://"+s.Addr+"/")
	cmd.Dir = dir
	Start(t, t, "slapd", leashed(t, mounted(t, cmd, map[string]string{"/etc/ldap/sasl2": sasl, "/run": run})))
	WaitFor(t, "slapd to listen", func() bool {
		conn, err := Dial(s.Addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}

// NewConfiguredDirectory starts slapd with this slapd.conf, in which %s is the directory of its data, and these entries, as LDIF and
// unchecked: they need not keep to the schema.
func NewConfiguredDirectory(t testing.TB, conf, ldif string) *Directory {
	t.Helper()
	dir := Dir(t)
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "slapd.conf")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, conf, data), 0o600); err != nil {
		t.Fatal(err)
	}
	add := exec.Command(program(t, Slapd, "slapadd"), "-q", "-s", "-f", file)
	if code, out, errOut := Run(t, ldif, add); code != 0 {
		t.Fatalf("slapadd: exit code %d\n%s%s", code, out, errOut)
	}
	s := &Directory{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t))}
	cmd := exec.Command(program(t, Slapd, "slapd"), "-d", "none", "-f", file, "-h", "ldap://"+s.Addr+"/")
	cmd.Dir = dir
	Start(t, t, "slapd", cmd)
	WaitFor(t, "slapd to listen", func() bool {
		conn, err := Dial(s.Addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}
