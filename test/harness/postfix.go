package harness

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// SMTPService is one port of [Mailer].
type SMTPService struct {
	SASLPath    string // smtpd_sasl_path: "unix:/path" or "inet:host:port"; empty: as main.cf says
	SASLService string // smtpd_sasl_service; empty: Postfix's default, "smtp"
	Options     string // further lines of its entry in master.cf
	Chroot      bool   // as Debian's master.cf has it
	Processes   int    // smtpd processes at a time; zero: 1

	Addr string // set by [NewMailer]: where it listens
}

// Mailer is a Postfix of the test's own: SMTP servers on loopback, and nothing that could deliver.
type Mailer struct {
	dir  string
	proc *Process
}

// NewMailer starts Postfix with these services, each with one smtpd process at a time unless it asks for more, so that a test knows
// which process it meets again, and sets their Addr.
func NewMailer(t testing.TB, services ...*SMTPService) *Mailer {
	t.Helper()
	return NewMailerWith(t, "", nil, services...)
}

// NewMailerWith does so with further lines of main.cf, which win over ours, and further files, by their paths below
// Postfix's configuration directory.
func NewMailerWith(t testing.TB, mainLines string, files map[string]string, services ...*SMTPService) *Mailer {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("Postfix's master runs only as root: run this test as root, e.g. in a container")
	}
	uid, gid := account(t, "postfix", Postfix)
	m := &Mailer{dir: Dir(t)}
	queue, data, config := m.Queue(), filepath.Join(m.dir, "d"), filepath.Join(m.dir, "c")
	for _, d := range []struct {
		path  string
		mode  os.FileMode
		owned bool
	}{
		{config, 0o755, false}, {data, 0o700, true}, {queue, 0o755, false},
		{queue + "/incoming", 0o700, true}, {queue + "/pid", 0o755, false}, {queue + "/private", 0o700, true}, {queue + "/public", 0o755, true},
	} {
		if err := os.Mkdir(d.path, d.mode); err != nil {
			t.Fatal(err)
		}
		if d.owned {
			if err := os.Chown(d.path, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	// smtpd_error_sleep_time: a second of Postfix's own politeness after each refusal tests nothing.
	// The limits of anvil(8) count per client address, which is one and the same here.
	mainCF := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %s
data_directory = %s
maillog_file = %s
maillog_file_prefixes = %s
myhostname = mx.example.org
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
alias_maps =
local_recipient_maps =
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_recipient_restrictions = reject
smtpd_relay_restrictions = reject
smtpd_error_sleep_time = 0
service_throttle_time = 1s
max_use = 100000
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = none
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_security_options = noanonymous
`, queue, data, m.logFile(), m.dir)
	var masterCF strings.Builder
	fmt.Fprintln(&masterCF, "postlog unix-dgram n - n - 1 postlogd")
	fmt.Fprintln(&masterCF, "anvil unix - - n - 1 anvil")
	// What a recipient needs that is taken.
	fmt.Fprintln(&masterCF, "rewrite unix - - n - - trivial-rewrite")
	fmt.Fprintln(&masterCF, "cleanup unix n - n - 0 cleanup")
	for _, s := range services {
		s.Addr = fmt.Sprintf("127.0.0.1:%d", FreePort(t))
		chroot := "n"
		if s.Chroot {
			chroot = "y"
		}
		fmt.Fprintf(&masterCF, "%s inet n - %s - %d smtpd\n", s.Addr, chroot, max(1, s.Processes))
		if s.SASLPath != "" {
			fmt.Fprintf(&masterCF, "  -o smtpd_sasl_path=%s\n", s.SASLPath)
		}
		if s.SASLService != "" {
			fmt.Fprintf(&masterCF, "  -o smtpd_sasl_service=%s\n", s.SASLService)
		}
		masterCF.WriteString(s.Options)
	}
	all := map[string]string{"main.cf": mainCF + mainLines, "master.cf": masterCF.String()}
	maps.Copy(all, files)
	for name, text := range all {
		path := filepath.Join(config, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Postfix:\n%s", m.LogText())
		}
	})
	// -d keeps it in the foreground and in the process group of the test.
	shell := leashed(t, exec.Command(program(t, Postfix, "master"), "-c", config, "-d"))
	m.proc = Start(t, t, "postfix master", shell)
	WaitFor(t, "Postfix to start", func() bool {
		if !m.proc.Running() {
			t.Fatalf("Postfix's master ended:\n%s%s", m.proc.Log, m.LogText())
		}
		return strings.Contains(m.LogText(), "daemon started")
	})
	return m
}

// Postmap looks a key up in a table of the configuration. An exit status of 1 without a word means that it is not there.
func (m *Mailer) Postmap(t testing.TB, table, key string) (code int, value, stderr string) {
	t.Helper()
	return Run(t, "", exec.Command(program(t, Postfix, "postmap"), "-c", filepath.Join(m.dir, "c"), "-q", key, table))
}

// Queue is the queue directory, /var/spool/postfix elsewhere.
func (m *Mailer) Queue() string { return filepath.Join(m.dir, "q") }

func (m *Mailer) logFile() string { return filepath.Join(m.Queue(), "log") }

// LogText returns what Postfix logged so far.
func (m *Mailer) LogText() string {
	b, _ := os.ReadFile(m.logFile())
	return string(b)
}
