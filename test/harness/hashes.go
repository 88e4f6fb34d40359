package harness

import (
	"os/exec"
	"strings"
	"testing"
)

// DoveadmHash is what "doveadm pw" makes of a password.
func DoveadmHash(t testing.TB, scheme, password string) string {
	t.Helper()
	// On the command line, since doveadm asks a terminal otherwise; it is a password of the test's.
	return hashBy(t, "", exec.Command(program(t, Doveadm, "doveadm"), "-c", "/dev/null", "pw", "-s", scheme, "-p", password))
}

// PHPHash is what an expression in PHP makes of $p, the password.
func PHPHash(t testing.TB, expression, password string) string {
	t.Helper()
	return hashBy(t, password, exec.Command(program(t, PHP, "php"), "-n", "-r", `$p = stream_get_contents(STDIN); echo `+expression+`;`))
}

// PasslibHash is what a handler of Python's passlib makes of a password.
func PasslibHash(t testing.TB, handler, password string) string {
	t.Helper()
	const program = `import sys, passlib.hash
print(getattr(passlib.hash, sys.argv[1]).hash(sys.stdin.buffer.read()))`
	return hashBy(t, password, exec.Command("/usr/bin/python3", "-c", program, handler))
}

// HtpasswdHash is the bcrypt hash that "htpasswd -B" makes of a password.
func HtpasswdHash(t testing.TB, password string) string {
	t.Helper()
	line := hashBy(t, password, exec.Command(program(t, Htpasswd, "htpasswd"), "-niBC", "5", "x"))
	return strings.TrimPrefix(line, "x:")
}

func hashBy(t testing.TB, stdin string, cmd *exec.Cmd) string {
	t.Helper()
	code, out, errOut := Run(t, stdin, cmd)
	out = strings.TrimSpace(out)
	if code != 0 || out == "" {
		t.Fatalf("%s: exit code %d\n%s", cmd.Path, code, errOut)
	}
	return out
}
