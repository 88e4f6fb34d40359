package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// SSSD answers NSS and PAM from LDAP.
var SSSD = Peer{"sssd", "sssd-ldap"}

// NewSSSD starts sssd with this as its /etc/sssd/sssd.conf, on a machine whose /etc/nsswitch.conf has these lines. What is returned is
// that machine, for [PAM.On].
func NewSSSD(t testing.TB, conf, nsswitch string) (at map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("sssd runs only as root: run this test as root, e.g. in a container")
	}
	dir := Dir(t)
	at = machine(t, dir, nsswitch)
	for _, path := range []string{"/etc/sssd", "/var/lib/sss", "/var/log/sssd"} {
		at[path] = filepath.Join(dir, filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path))
		if err := os.Mkdir(at[path], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"db", "mc", "pipes", "pipes/private", "pubconf", "pubconf/krb5.include.d", "secrets", "gpo_cache", "keytabs", "deskprofile"} {
		mode := os.FileMode(0o755)
		if sub == "db" || sub == "pipes/private" {
			mode = 0o700
		}
		if err := os.Mkdir(filepath.Join(at["/var/lib/sss"], sub), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(at["/etc/sssd"], "sssd.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	// -i keeps it in the foreground.
	cmd := exec.Command(program(t, SSSD, "sssd"), "-i", "--logger=stderr")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = dir
	proc := Start(t, t, "sssd", mounted(t, cmd, at))
	for _, responder := range []string{"nss", "pam"} {
		waitListening(t, proc, filepath.Join(at["/var/lib/sss"], "pipes", responder))
	}
	return at
}
