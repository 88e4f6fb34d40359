package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// NewSaslauthd starts Cyrus saslauthd with this as its /etc/saslauthd.conf and with MECHANISMS and OPTIONS of this /etc/default/saslauthd, and
// returns the path of its socket, which is below the directory that stands there as /var/run/saslauthd.
func NewSaslauthd(t testing.TB, conf, defaults string) (socket string) {
	t.Helper()
	dir := Dir(t)
	path := filepath.Join(dir, "saslauthd.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)="?([^"\n]*)"?$`).FindAllStringSubmatch(defaults, -1) {
		set[m[1]] = m[2]
	}
	options := strings.Fields(strings.ReplaceAll(set["OPTIONS"], "/var/run/saslauthd", dir))
	// -d keeps it in the foreground, with one process.
	cmd := exec.Command(program(t, SASLBin, "saslauthd"), append([]string{"-d", "-a", set["MECHANISMS"], "-O", path}, options...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LDAPNOINIT=1"}
	socket = filepath.Join(dir, "mux")
	waitListening(t, Start(t, t, "saslauthd", cmd), socket)
	return socket
}
