package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// LDAPTool runs a program of ldap-utils (ldapwhoami, ldapsearch) with a simple bind, and returns the LDAP result code as its
// exit code. An empty DN binds anonymously. The password goes through a file: -y takes the file as it is, so that an empty one is
// an unauthenticated bind (RFC 4513 section 5.1.2). addr is host:port, or a URL.
func LDAPTool(t testing.TB, tool, addr, dn, password string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	if !strings.Contains(addr, "://") {
		addr = "ldap://" + addr
	}
	call := []string{"-x", "-H", addr, "-o", "nettimeout=20"}
	if dn != "" {
		dir, err := os.MkdirTemp("", "vk-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "password")
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		call = append(call, "-D", dn, "-y", file)
	}
	cmd := exec.Command(program(t, LDAPUtils, tool), append(call, args...)...)
	// The system's and the user's ldap.conf are not to take part.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LDAPNOINIT=1"}
	return Run(t, "", cmd)
}
