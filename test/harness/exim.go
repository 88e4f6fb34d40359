package harness

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// eximDir is where test/install-peers unpacks Exim, which Debian does not install beside Postfix.
const eximDir = "/var/cache/valetkey-peers/exim4"

// EximGroup is the group of the machine as which Debian-exim, which is in no group file here, reaches sockets.
const EximGroup = "daemon"

// Exim is an Exim of the test's own: an SMTP server on loopback that takes no mail, and answers MAIL with 550 and $authenticated_id.
type Exim struct {
	Addr string
	dir  string
}

// NewExim starts Exim with these lines of the main section and of the authenticators' section. run is the directory that it
// sees as /run, where the path of saslauthd's socket is compiled in; it must be searchable by [EximGroup].
func NewExim(t testing.TB, mainSection, authenticators, run string) *Exim {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("Exim takes a configuration file of ours only from root: run this test as root, e.g. in a container")
	}
	uid, gid := account(t, EximGroup, EximHeavy)
	e := &Exim{dir: Dir(t)}
	port := FreePort(t)
	e.Addr = fmt.Sprintf("127.0.0.1:%d", port)
	spool := filepath.Join(e.dir, "spool")
	if err := os.Mkdir(spool, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(spool, uid, gid); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`primary_hostname = mx.example.org
spool_directory = %[1]s
log_file_path = %[1]s/%%slog
pid_file_path = %[1]s/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = %[2]d
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
dns_dnssec_ok = 0
keep_environment =
acl_smtp_mail = tell
%[3]s
begin acl
tell:
  deny message = $authenticated_id

begin authenticators
%[4]s`, spool, port, mainSection, authenticators)
	// Exim demands that its user exists, under the name that is compiled in.
	sasl, err := user.LookupGroup("sasl")
	if err != nil {
		t.Fatalf("%v: install the Debian package %s", err, SASLBin.pkg)
	}
	system := map[string]string{"/run": run}
	for file, lines := range map[string]string{
		"passwd": fmt.Sprintf("Debian-exim:x:%d:%d::/:/usr/sbin/nologin\n", uid, gid),
		"group":  fmt.Sprintf("Debian-exim:x:%d:\nsasl:x:%s:Debian-exim\n", gid, sasl.Gid), // adduser Debian-exim sasl
	} {
		b, err := os.ReadFile("/etc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		system["/etc/"+file] = filepath.Join(e.dir, file)
		// The first entry of a name wins.
		if err := os.WriteFile(system["/etc/"+file], append([]byte(lines), b...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(e.dir, "exim.conf")
	if err := os.WriteFile(conf, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	// -bdf keeps it in the foreground and in the process group of the test.
	cmd := exec.Command(program(t, EximHeavy, "exim4"), "-bdf", "-C", conf)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	if strings.HasPrefix(cmd.Path, eximDir) {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+eximDir+"/lib")
	}
	cmd.Dir = e.dir
	proc := Start(t, t, "exim", leashed(t, mounted(t, cmd, system)))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Exim:\n%s", e.LogText())
		}
	})
	WaitFor(t, "Exim to listen", func() bool {
		conn, err := Dial(e.Addr)
		if err == nil {
			conn.Close()
		}
		return err == nil || !proc.Running()
	})
	return e
}

// LogText returns what Exim logged so far.
func (e *Exim) LogText() string {
	var b strings.Builder
	for _, name := range []string{"mainlog", "rejectlog", "paniclog"} {
		text, _ := os.ReadFile(filepath.Join(e.dir, "spool", name))
		b.Write(text)
	}
	return b.String()
}
