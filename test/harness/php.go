package harness

import (
	"os"
	"os/exec"
	"testing"
)

// PHP is the interpreter; [RunPHP] wants its LDAP extension too.
var PHP = Peer{"php", "php-cli"}

// RunPHP runs a program in PHP with the extension for LDAP and returns what it printed.
func RunPHP(t testing.TB, file, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program(t, PHP, "php"), append([]string{"-d", "display_errors=stderr", file}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LDAPNOINIT=1"}
	code, out, errOut := Run(t, stdin, cmd)
	if code != 0 || errOut != "" {
		t.Errorf("php %s: exit code %d (is the Debian package php-ldap installed?)\n%s%s", file, code, out, errOut)
	}
	return out
}
