package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The service account of an [UpstreamDirectory], which may read everything, the hashes too.
const (
	BridgeDN       = "cn=bridge," + BaseDN
	BridgePassword = "what the bridge knows"
)

// UpstreamDirectory is a slapd of the test's own for a daemon to search, which can be stopped, frozen and started again at the
// same address.
type UpstreamDirectory struct {
	Addr    string
	TLSAddr string // for ldaps://; empty: its settings name no certificate

	t    testing.TB
	dir  string
	proc *Process
}

// NewUpstreamDirectory starts slapd with these entries below [BaseDN], as LDIF, and the service account. It knows memberOf. settings
// go into slapd.conf before the database: TLS and the like.
func NewUpstreamDirectory(t testing.TB, ldif, settings string) *UpstreamDirectory {
	t.Helper()
	s := &UpstreamDirectory{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), t: t, dir: Dir(t)}
	if strings.Contains(settings, "TLSCertificateFile") {
		s.TLSAddr = fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	}
	if err := os.Mkdir(filepath.Join(s.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
%s
database mdb
maxsize 67108864
suffix %q
rootdn %q
rootpw %q
directory %s
limits dn.exact=%q size=unlimited
access to * by dn.exact=%q read by anonymous auth by * none
overlay memberof
`, settings, BaseDN, managerDN, managerPassword, filepath.Join(s.dir, "data"), BridgeDN, BridgeDN)
	if err := os.WriteFile(s.conf(), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ldif = fmt.Sprintf("dn: %s\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n"+
		"dn: %s\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: bridge\nuserPassword: %s\n\n", BaseDN, BridgeDN, BridgePassword) + ldif
	add := exec.Command(program(t, Slapd, "slapadd"), "-q", "-f", s.conf())
	if code, out, errOut := Run(t, ldif, add); code != 0 {
		t.Fatalf("slapadd: exit code %d\n%s%s", code, out, errOut)
	}
	s.Start(t)
	return s
}

// The one who may change what is in the directory, which the service account may not.
const (
	managerDN       = "cn=manager," + BaseDN
	managerPassword = "what the manager knows"
)

// Modify changes entries, by LDIF.
func (s *UpstreamDirectory) Modify(t testing.TB, ldif string) {
	t.Helper()
	cmd := exec.Command(program(t, LDAPUtils, "ldapmodify"), "-x", "-H", "ldap://"+s.Addr, "-D", managerDN, "-w", managerPassword)
	if code, out, errOut := Run(t, ldif, cmd); code != 0 {
		t.Fatalf("ldapmodify: exit code %d\n%s%s", code, out, errOut)
	}
}

func (s *UpstreamDirectory) conf() string { return filepath.Join(s.dir, "slapd.conf") }

// Start starts it and waits until it listens.
func (s *UpstreamDirectory) Start(t testing.TB) {
	t.Helper()
	// -d keeps it in the foreground.
	urls := "ldap://" + s.Addr + "/"
	if s.TLSAddr != "" {
		urls += " ldaps://" + s.TLSAddr + "/"
	}
	cmd := exec.Command(program(t, Slapd, "slapd"), "-d", "stats", "-f", s.conf(), "-h", urls)
	cmd.Dir = s.dir
	s.proc = Start(t, s.t, "slapd", cmd)
	WaitFor(t, "slapd to listen", func() bool {
		conn, err := Dial(s.Addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// Stop ends it, and with it every connection.
func (s *UpstreamDirectory) Stop(t testing.TB) {
	t.Helper()
	s.proc.Signal(syscall.SIGTERM)
	if _, ok := s.proc.Wait(Patience); !ok {
		t.Fatalf("slapd still runs %v after SIGTERM", Patience)
	}
}

// Freeze makes it hang: it accepts connections and says nothing.
func (s *UpstreamDirectory) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	s.proc.Signal(syscall.SIGSTOP)
	return func() { s.proc.Signal(syscall.SIGCONT) }
}

// Binds lists the DNs that anybody tried to bind as, since it was started last.
func (s *UpstreamDirectory) Binds() (names []string) {
	for _, line := range s.proc.Log.Since(0) {
		if _, rest, found := strings.Cut(line, ` BIND dn="`); found && strings.Contains(rest, "method=") {
			name, _, _ := strings.Cut(rest, `"`)
			names = append(names, name)
		}
	}
	return names
}

// UpstreamSection is the configuration of a daemon that shows these directories at an address, the first one first.
func UpstreamSection(t testing.TB, listen string, extra string, of ...*UpstreamDirectory) string {
	t.Helper()
	file := filepath.Join(Dir(t), "bridge-password")
	if err := os.WriteFile(file, []byte(BridgePassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, s := range of {
		urls = append(urls, fmt.Sprintf("%q", "ldap://"+s.Addr))
	}
	return fmt.Sprintf("\n[[ldap]]\nlisten = %q\nbase_dn = %q\n%s\n[ldap.upstream]\nurls = [%s]\nbind_dn = %q\nbind_password_file = %q\nsearch_time = \"1s\"\n",
		listen, BaseDN, extra, strings.Join(urls, ", "), BridgeDN, file)
}
