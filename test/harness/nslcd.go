package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Nslcd answers NSS and PAM from LDAP.
var Nslcd = Peer{"nslcd", "nslcd"}

// NewNslcd starts nslcd with this as its /etc/nslcd.conf, on a machine whose /etc/nsswitch.conf has these lines. What is returned is
// that machine, for [PAM.On].
func NewNslcd(t testing.TB, conf, nsswitch string) (at map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("nslcd changes to Debian's user nslcd: run this test as root, e.g. in a container")
	}
	uid, gid := account(t, "nslcd", Nslcd)
	dir := Dir(t)
	at = machine(t, dir, nsswitch)
	run := filepath.Join(at["/run"], "nslcd")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(run, uid, gid); err != nil {
		t.Fatal(err)
	}
	at["/etc/nslcd.conf"] = filepath.Join(dir, "nslcd.conf")
	if err := os.WriteFile(at["/etc/nslcd.conf"], []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	// -d keeps it in the foreground.
	cmd := exec.Command(program(t, Nslcd, "nslcd"), "-d")
	cmd.Dir = "/"
	proc := Start(t, t, "nslcd", leashed(t, mounted(t, cmd, at)))
	waitListening(t, proc, filepath.Join(run, "socket"))
	return at
}

// machine is a /run of its own, in dir, and an /etc/nsswitch.conf with nothing but these lines.
func machine(t testing.TB, dir, nsswitch string) (at map[string]string) {
	t.Helper()
	at = map[string]string{"/run": filepath.Join(dir, "run"), "/etc/nsswitch.conf": filepath.Join(dir, "nsswitch.conf")}
	if err := os.Mkdir(at["/run"], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at["/etc/nsswitch.conf"], []byte(strings.TrimSpace(nsswitch)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return at
}
