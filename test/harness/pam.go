package harness

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// PAMTester runs a service of PAM's as an application would.
var PAMTester = Peer{"pamtester", "pamtester"}

// PAM is a service with a configuration of its own.
type PAM struct {
	dir string
	at  map[string]string // what its applications see at some paths
}

// NewPAM makes a service, the only one there is to its applications: conf is what is in /etc/pam.d/SERVICE.
func NewPAM(t testing.TB, service, conf string) *PAM {
	t.Helper()
	p := &PAM{dir: Dir(t)}
	p.at = map[string]string{"/etc/pam.d": p.dir}
	if err := os.WriteFile(filepath.Join(p.dir, service), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// On is the same service on another machine, so to speak: where its applications see these files and directories too, which must exist.
func (p *PAM) On(at map[string]string) *PAM {
	all := maps.Clone(p.at)
	maps.Copy(all, at)
	return &PAM{p.dir, all}
}

// Run runs a command line, with pamtester or another application that asks for a password, and returns what it printed, without
// the prompt for it.
func (p *PAM) Run(t testing.TB, commandLine, password string) (code int, printed string) {
	t.Helper()
	program(t, PAMTester, "pamtester")
	cmd := exec.Command("/bin/sh", "-c", commandLine)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	code, out, errOut := Run(t, password+"\n", mounted(t, cmd, p.at))
	return code, out + strings.TrimPrefix(errOut, "Password: ")
}
