package harness

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Squid is a proxy.
var Squid = Peer{"squid", "squid"}

// NewSquid starts a Squid of the test's own at addr with this at the top of its configuration, and waits until it listens. It
// caches no page and connects to nothing but this machine.
func NewSquid(t testing.TB, addr, conf string) {
	t.Helper()
	dir := Dir(t)
	account(t, "proxy", Squid)
	path := filepath.Join(dir, "squid.conf")
	text := fmt.Sprintf(`%s
acl here dst 127.0.0.1
http_access deny all
http_port %s
pid_filename none
cache deny all
cache_mem 1 MB
cache_log %s/cache.log
access_log none
netdb_filename none
pinger_enable off
coredump_dir %s
visible_hostname localhost
shutdown_lifetime 0 seconds
`, conf, addr, dir, dir)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The name keeps its shared memory apart from that of another Squid.
	cmd := exec.Command(program(t, Squid, "squid"), "-N", "-f", path, "-n", "t"+port(addr))
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LDAPNOINIT=1"}
	waitListening(t, Start(t, t, "squid", leashed(t, cmd)), addr)
}

// SquidHelper is a running program that answers Squid line by line. It is for one goroutine.
type SquidHelper struct {
	proc *Process
	in   io.Writer
}

// NewSquidHelper starts the program of this line of squid.conf, `auth_param basic program ...`, as Squid does: without a shell.
func NewSquidHelper(t testing.TB, line string) *SquidHelper {
	t.Helper()
	words := strings.Fields(line)
	if len(words) < 4 || strings.Join(words[:3], " ") != "auth_param basic program" {
		t.Fatalf("%q names no program for basic authentication", line)
	}
	cmd := exec.Command(words[3], words[4:]...)
	cmd.Dir = Dir(t)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LDAPNOINIT=1"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &SquidHelper{Start(t, t, filepath.Base(words[3]), cmd), in}
}

// Ask asks about a user and returns the answer; empty if there is none within [Patience], or the program ended.
func (h *SquidHelper) Ask(login, password string) string {
	mark := h.proc.Log.Mark()
	if _, err := fmt.Fprintf(h.in, "%s %s\n", url.PathEscape(login), url.PathEscape(password)); err != nil {
		return ""
	}
	// Its warnings are in the same log.
	answer, _ := h.proc.Log.Wait(mark, Patience, regexp.MustCompile(`^(OK|ERR|BH)\b`).MatchString)
	return answer
}
