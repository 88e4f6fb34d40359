package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Apache is a web server.
var Apache = Peer{"apache2", "apache2-bin"}

// NewApache starts an Apache of the test's own at addr with this text at the top level of its configuration, and waits until it
// listens. Every one of paths is a page that shows nothing but the name of the user.
func NewApache(t testing.TB, addr, conf string, paths ...string) {
	t.Helper()
	dir := Dir(t)
	for _, path := range paths {
		file := filepath.Join(dir, "www", path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(`<!--#echo var="REMOTE_USER" -->`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var main strings.Builder
	for _, module := range []string{"mpm_event", "authn_core", "authz_core", "authz_user", "auth_basic", "include", "ldap", "authnz_ldap"} {
		fmt.Fprintf(&main, "LoadModule %[1]s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", module)
	}
	// It does not run as root; this is Debian's user for it.
	account(t, "www-data", Apache)
	fmt.Fprintf(&main, `ServerRoot %[1]s
ServerName localhost
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
Mutex posixsem
Listen %[2]s
User www-data
Group www-data
ErrorLog /dev/stderr
LogLevel authnz_ldap:debug
StartServers 1
DocumentRoot %[1]s/www
<Directory %[1]s/www>
Options +Includes
SetOutputFilter INCLUDES
</Directory>
`, dir, addr)
	path := filepath.Join(dir, "apache2.conf")
	if err := os.WriteFile(path, []byte(main.String()+conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, Apache, "apache2"), "-f", path, "-D", "FOREGROUND")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LDAPNOINIT=1"}
	waitListening(t, Start(t, t, "apache2", leashed(t, cmd)), addr)
}

// waitListening waits until a server listens at addr.
func waitListening(t testing.TB, proc *Process, addr string) {
	t.Helper()
	WaitFor(t, proc.Name+" to listen", func() bool {
		if !proc.Running() {
			t.Fatalf("%s ended:\n%s", proc.Name, proc.Log)
		}
		conn, err := Dial(addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
