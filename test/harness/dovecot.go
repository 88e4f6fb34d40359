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

// The parts of Dovecot 2.3 that Debian packages apart. Its LDAP module is looked for by [NewDovecot].
var (
	DovecotIMAP       = Peer{"/usr/lib/dovecot/imap", "dovecot-imapd"}
	DovecotPOP3       = Peer{"/usr/lib/dovecot/pop3", "dovecot-pop3d"}
	DovecotSubmission = Peer{"/usr/lib/dovecot/submission", "dovecot-submissiond"}

	dovecotCore = Peer{"dovecot", "dovecot-core"}
)

// dovecot24Tree is where test/install-dovecot24 makes a Debian 13 with Dovecot 2.4.
const dovecot24Tree = "/var/cache/valetkey-peers/trixie"

// DovecotHome is where a [Dovecot] sees the directory in which its mail users may have their homes. DovecotUser is the user
// and the group to whom it belongs.
const (
	DovecotHome = "/mnt/home"
	DovecotUser = "mail"
)

// Dovecot is one of the test's own: IMAP, and with 2.3 POP3 and submission, on loopback and without TLS.
type Dovecot struct {
	IMAP, POP3, Submission string // host:port

	dir  string
	at   map[string]string // what it sees at some paths
	proc *Process
}

// NewDovecot starts Debian 12's Dovecot 2.3 with these lines in dovecot.conf, and further files in /etc/dovecot. Submission relays to
// relay, an SMTP server.
func NewDovecot(t testing.TB, conf string, files map[string]string, relay int) *Dovecot {
	t.Helper()
	const module = "/usr/lib/dovecot/modules/auth/libauthdb_ldap.so"
	if _, err := os.Stat(module); err != nil {
		t.Fatalf("%v: install the Debian package dovecot-ldap", err)
	}
	d := &Dovecot{
		IMAP:       fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		POP3:       fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		Submission: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
	}
	d.start(t, "", fmt.Sprintf(`protocols = imap pop3 submission
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
mail_plugins = quota
protocol imap {
  mail_plugins = quota imap_quota
}
plugin {
  quota = count:User quota
  quota_vsizes = yes
}
hostname = mx.example.org
submission_relay_host = 127.0.0.1
submission_relay_port = %d
service pop3-login {
  inet_listener pop3 {
    port = %s
  }
  inet_listener pop3s {
    port = 0
  }
}
service submission-login {
  inet_listener submission {
    port = %s
  }
  inet_listener submissions {
    port = 0
  }
}
`, relay, port(d.POP3), port(d.Submission))+conf, files)
	return d
}

// NewDovecot24 starts Dovecot 2.4, from the Debian 13 tree of test/install-dovecot24.
func NewDovecot24(t testing.TB, conf string, files map[string]string) *Dovecot {
	t.Helper()
	if _, err := os.Stat(dovecot24Tree + "/usr/sbin/dovecot"); err != nil {
		t.Fatalf("%v: run test/install-dovecot24 (Dovecot 2.4 is Debian 13's)", err)
	}
	d := &Dovecot{IMAP: fmt.Sprintf("127.0.0.1:%d", FreePort(t))}
	d.start(t, dovecot24Tree, `dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
protocols = imap
auth_allow_cleartext = yes
mail_driver = maildir
mail_path = ~/Maildir
mail_plugins {
  quota = yes
}
protocol imap {
  mail_plugins {
    imap_quota = yes
  }
}
quota "User quota" {
}
`+conf, files)
	return d
}

// start runs Dovecot in a mount namespace of its own, and in a tree with another system if one is given. The paths that it is
// configured with are those of a common installation.
func (d *Dovecot) start(t testing.TB, tree, conf string, files map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("Dovecot needs its users: run this test as root, e.g. in a container")
	}
	d.dir = Dir(t)
	etc, mnt := filepath.Join(d.dir, "etc"), filepath.Join(d.dir, "mnt")
	for _, dir := range []string{etc, mnt, filepath.Join(mnt, "home")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	uid, gid := account(t, DovecotUser, dovecotCore)
	if err := os.Chown(filepath.Join(mnt, "home"), uid, gid); err != nil {
		t.Fatal(err)
	}
	// auth_failure_delay and the penalty of anvil(8) are Dovecot's own politeness, 2 s and more for each refusal.
	all := map[string]string{"dovecot.conf": fmt.Sprintf(`base_dir = /mnt/run
state_dir = /mnt/run
log_path = /mnt/log
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
auth_verbose = yes
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  inet_listener imap {
    port = %s
  }
  inet_listener imaps {
    port = 0
  }
}
`, port(d.IMAP))}
	// 2.4 wants its version on the first line.
	if tree == "" {
		all["dovecot.conf"] += conf
	} else {
		all["dovecot.conf"] = conf + all["dovecot.conf"]
	}
	maps.Copy(all, files)
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program(t, dovecotCore, "dovecot"), "-F")
	at := map[string]string{"/etc/dovecot": etc, "/mnt": mnt}
	if tree != "" {
		cmd = exec.Command("/usr/sbin/chroot", tree, "/usr/sbin/dovecot", "-F")
		at = map[string]string{tree + "/etc/dovecot": etc, tree + "/mnt": mnt, tree + "/dev": "/dev", tree + "/proc": "/proc"}
	}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TZ=UTC"}
	cmd.Dir = "/"
	d.at = at
	d.proc = Start(t, t, "dovecot", leashed(t, mounted(t, cmd, at)))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Dovecot:\n%s", d.LogText())
		}
	})
	WaitFor(t, "Dovecot to listen", func() bool {
		if !d.proc.Running() {
			t.Fatalf("Dovecot ended:\n%s%s", d.proc.Log, d.LogText())
		}
		conn, err := Dial(d.IMAP)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// Home is where a directory below [DovecotHome] is to the test.
func (d *Dovecot) Home(name string) string { return filepath.Join(d.dir, "mnt", "home", name) }

// Tool runs one of the programs that come with Dovecot 2.3, doveadm or doveconf, with the server's configuration.
func (d *Dovecot) Tool(t testing.TB, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(program(t, dovecotCore, name), args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TZ=UTC"}
	cmd.Dir = "/"
	return Run(t, "", mounted(t, cmd, d.at))
}

// ToolScript is a program that others can run as they would run one of Dovecot 2.3's, doveadm for example.
func (d *Dovecot) ToolScript(t testing.TB, name string) (path string) {
	t.Helper()
	path = filepath.Join(Dir(t), name)
	cmd := mounted(t, exec.Command(program(t, dovecotCore, name)), d.at)
	quoted := make([]string, len(cmd.Args))
	for i, a := range cmd.Args {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec "+strings.Join(quoted, " ")+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Processes are those of the server, each with its command line.
func (d *Dovecot) Processes() map[int]string {
	all := map[int]string{}
	for _, pid := range Descendants(d.proc.PID()) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		all[pid] = strings.ReplaceAll(string(b), "\x00", " ")
	}
	return all
}

// LogText returns what Dovecot logged so far.
func (d *Dovecot) LogText() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "mnt", "log"))
	return string(b)
}
