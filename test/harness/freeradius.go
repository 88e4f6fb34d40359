package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The RADIUS server, with what it asks LDAP by, and the client.
var (
	FreeRADIUS  = Peer{"freeradius", "freeradius"}
	RADIUSTools = Peer{"radclient", "freeradius-utils"}
)

// RADIUS is a FreeRADIUS of the test's own.
type RADIUS struct {
	Addr string

	proc *Process
}

// radiusSecret is what its client proves itself with.
const radiusSecret = "between-test-and-server"

// NewFreeRADIUS starts FreeRADIUS with this as mods-enabled/ldap, and with these two sections of a virtual server. Beside them it has
// what Debian's configuration has that takes part here.
func NewFreeRADIUS(t testing.TB, module, sections string) *RADIUS {
	t.Helper()
	const rlm = "/usr/lib/freeradius/rlm_ldap.so"
	if _, err := os.Stat(rlm); err != nil {
		t.Fatalf("%v: install the Debian package freeradius-ldap", err)
	}
	dir := Dir(t)
	r := &RADIUS{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t))}
	conf := fmt.Sprintf(`libdir = /usr/lib/freeradius
raddbdir = /etc/freeradius/3.0
run_dir = %[1]s
max_request_time = 60
security {
	reject_delay = 0
}
thread pool {
	start_servers = 5
	max_servers = 32
	min_spare_servers = 3
	max_spare_servers = 10
}
client test {
	ipaddr = 127.0.0.1
	secret = %[2]s
}
modules {
	$INCLUDE ${raddbdir}/mods-available/always
%[3]s
}
policy {
	$INCLUDE ${raddbdir}/policy.d/control
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[4]s
	}
%[5]s
}
`, dir, radiusSecret, module, port(r.Addr), sections)
	if err := os.WriteFile(filepath.Join(dir, "radiusd.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	// -xx is what says which request is answered with nothing.
	cmd := exec.Command(program(t, FreeRADIUS, "freeradius"), "-f", "-l", "stdout", "-xx", "-d", dir)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LDAPNOINIT=1"}
	r.proc = Start(t, t, "freeradius", cmd)
	WaitFor(t, "FreeRADIUS to be ready", func() bool {
		if !r.proc.Running() {
			t.Fatalf("FreeRADIUS ended:\n%s", r.proc.Log)
		}
		return strings.Contains(r.proc.Log.String(), "Ready to process requests")
	})
	return r
}

// Running reports whether the server has not ended.
func (r *RADIUS) Running() bool { return r.proc.Running() }

var (
	radiusAnswer = regexp.MustCompile(`Received (Access-\w+)`)
	radiusSilent = regexp.MustCompile(`Not sending reply to client`)
)

// Login sends an Access-Request with radclient and returns the kind of the answer, e.g. "Access-Accept"; "no answer" once the server says
// that it gives none. It is for one goroutine.
func (r *RADIUS) Login(t testing.TB, login, password string) string {
	t.Helper()
	file := filepath.Join(Dir(t), "request")
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	request := fmt.Sprintf("User-Name = \"%s\"\nUser-Password = \"%s\"\n", quoted.Replace(login), quoted.Replace(password))
	if err := os.WriteFile(file, []byte(request), 0o600); err != nil {
		t.Fatal(err)
	}
	mark := r.proc.Log.Mark()
	// One packet: a second one would be a second attempt.
	cmd := exec.Command(program(t, RADIUSTools, "radclient"), "-x", "-r", "1", "-t", fmt.Sprint(int(2*Patience.Seconds())), "-f", file, r.Addr, "auth", radiusSecret)
	client := Start(t, t, "radclient", cmd)
	defer client.KillGroup()
	answer, silent := "", false
	Poll(2*Patience, func() bool {
		if m := radiusAnswer.FindStringSubmatch(client.Log.String()); m != nil {
			answer = m[1]
			return true
		}
		for _, line := range r.proc.Log.Since(mark) {
			silent = silent || radiusSilent.MatchString(line)
		}
		return silent || !client.Running() || !r.proc.Running()
	})
	switch {
	case answer != "":
		return answer
	case silent:
		return "no answer"
	}
	t.Errorf("radclient says, and FreeRADIUS runs = %v:\n%s", r.Running(), client.Log)
	return "nothing"
}
