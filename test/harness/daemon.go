package harness

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BaseDN is the suffix of every LDAP listener here.
const BaseDN = "dc=example,dc=org"

// UserDN is the entry of an account whose login needs no escaping (RFC 4514).
func UserDN(login string) string { return "uid=" + login + ",ou=people," + BaseDN }

// Daemon is a valetkeyd with a state directory, a configuration file, one LDAP listener and the Dovecot protocol on a Unix
// socket and over TCP. It keeps its addresses when it is started again.
type Daemon struct {
	Dir         string // the state directory
	DatabaseURL string // empty: a private cluster
	PepperFile  string // empty: in the state directory

	Socket      string // of the admin API
	DovecotUnix string
	DovecotTCP  string // host:port
	LDAP        string // host:port
	Admin       string // further lines of [admin]
	Sections    string // further sections of the configuration file, [[saslauthd]] and the like

	// Sockets are those that it is handed at each start, by their names; see [HandOver].
	Sockets map[string]*os.File

	owner  testing.TB
	config string
	proc   *Process
	logs   []*Log // of this start and the earlier ones
}

// NewDefaultDaemon prepares a daemon without a configuration file: everything is below one directory. It is started with
// [Daemon.StartWith], and LDAP is for the caller to set.
func NewDefaultDaemon(t testing.TB) *Daemon {
	t.Helper()
	state := filepath.Join(Dir(t), "state")
	return &Daemon{
		owner:       t,
		Dir:         state,
		Socket:      filepath.Join(state, "run", "admin.sock"),
		DovecotUnix: filepath.Join(state, "run", "dovecot-auth"),
	}
}

// NewDaemon prepares a daemon; [Daemon.Start] starts it. An empty URL means a private cluster.
func NewDaemon(t testing.TB, databaseURL string) *Daemon {
	t.Helper()
	dir := Dir(t)
	return &Daemon{
		owner:       t,
		Dir:         filepath.Join(dir, "state"),
		DatabaseURL: databaseURL,
		Socket:      filepath.Join(dir, "admin.sock"),
		DovecotUnix: filepath.Join(dir, "auth"),
		DovecotTCP:  fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		LDAP:        fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		config:      filepath.Join(dir, "valetkeyd.toml"),
	}
}

// StartDaemon prepares a daemon and starts it.
func StartDaemon(t testing.TB, databaseURL string) *Daemon {
	t.Helper()
	d := NewDaemon(t, databaseURL)
	d.Start(t)
	return d
}

// WriteConfig writes the configuration file, with extra lines at its end.
func (d *Daemon) WriteConfig(t testing.TB, extra string) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "state_dir = %q\n", d.Dir)
	if d.DatabaseURL != "" {
		fmt.Fprintf(&b, "\n[database]\nurl = %q\n", d.DatabaseURL)
	}
	if d.PepperFile != "" {
		fmt.Fprintf(&b, "\n[pepper]\nfile = %q\n", d.PepperFile)
	}
	fmt.Fprintf(&b, "\n[admin]\nsocket = %q\n%s", d.Socket, d.Admin)
	fmt.Fprintf(&b, "\n[[ldap]]\nlisten = %q\nbase_dn = %q\nservice = \"ldap\"\n", d.LDAP, BaseDN)
	// Postfix's smtpd runs as a user of its own.
	fmt.Fprintf(&b, "\n[[dovecot]]\nlisten = %q\nmode = \"0666\"\n", "unix:"+d.DovecotUnix)
	fmt.Fprintf(&b, "\n[[dovecot]]\nlisten = %q\n", "tcp:"+d.DovecotTCP)
	b.WriteString(d.Sections)
	b.WriteString(extra)
	if err := os.WriteFile(d.config, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Start starts the daemon and waits until it has its database.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	d.StartListening(t)
	d.WaitReady(t)
}

// StartListening starts the daemon and waits until its listeners are bound, which does not need the database.
func (d *Daemon) StartListening(t testing.TB) {
	t.Helper()
	d.WriteConfig(t, "")
	d.StartWith(t, "--config", d.config)
}

// WaitReady waits until the daemon says that it has its database.
func (d *Daemon) WaitReady(t testing.TB) { d.waitLog(t, "ready") }

// waitLog waits for the message, alone or before its attributes.
func (d *Daemon) waitLog(t testing.TB, message string) {
	t.Helper()
	line := regexp.MustCompile(`(^|\]: |msg="?)` + message + `($|[":])`)
	WaitFor(t, "valetkeyd to say "+message, func() bool {
		if !d.proc.Running() {
			t.Fatalf("valetkeyd ended instead of saying %q:\n%s", message, d.proc.Log)
		}
		return slices.ContainsFunc(d.proc.Log.Since(0), line.MatchString)
	})
}

// StartWith starts the daemon with these flags instead, and waits until its listeners are bound.
func (d *Daemon) StartWith(t testing.TB, flags ...string) {
	t.Helper()
	cmd := exec.Command(Program(t, "valetkeyd"), flags...)
	cmd.Env = environment()
	if len(d.Sockets) > 0 {
		cmd = HandOver(cmd, d.Sockets)
	}
	d.proc = Start(t, d.owner, "valetkeyd", cmd)
	d.logs = append(d.logs, d.proc.Log)
	proc := d.proc
	d.owner.Cleanup(func() {
		// A clean stop, so that a private cluster is stopped too; the group is killed after this.
		proc.Signal(syscall.SIGCONT)
		proc.Signal(syscall.SIGTERM)
		if _, ok := proc.Wait(Patience); !ok {
			d.owner.Errorf("valetkeyd still runs %v after SIGTERM", Patience)
		}
		for _, sign := range []string{"DATA RACE", "panic: ", "panic="} {
			if strings.Contains(proc.Log.String(), sign) {
				d.owner.Errorf("the log of valetkeyd has %q:\n%s", sign, proc.Log)
			}
		}
	})
	d.waitLog(t, "serving")
}

// Log is that of the last start.
func (d *Daemon) Log() *Log { return d.proc.Log }

// AllLogs is the text of every start so far.
func (d *Daemon) AllLogs() string {
	var b strings.Builder
	for _, l := range d.logs {
		b.WriteString(l.String())
	}
	return b.String()
}

// Process is the running daemon.
func (d *Daemon) Process() *Process { return d.proc }

// Stop ends the daemon with SIGTERM and wants exit code 0 within [Patience].
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	d.proc.Signal(syscall.SIGTERM)
	code, ok := d.proc.Wait(Patience)
	if !ok {
		t.Fatalf("valetkeyd still runs %v after SIGTERM", Patience)
	}
	if code != 0 {
		t.Fatalf("valetkeyd after SIGTERM: exit code %d, want 0\n%s", code, d.proc.Log.Tail(20))
	}
}

// Freeze stops the daemon with SIGSTOP: its sockets stay open and mute. The returned function lets it go on.
func (d *Daemon) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	proc := d.proc
	proc.Signal(syscall.SIGSTOP)
	thaw = func() { proc.Signal(syscall.SIGCONT) }
	t.Cleanup(thaw)
	WaitFor(t, "valetkeyd to stand still", d.Frozen)
	return thaw
}

// Frozen reports whether the daemon stands still after [Daemon.Freeze].
func (d *Daemon) Frozen() bool {
	state, _ := stat(d.proc.PID())
	return state == "T"
}

// environment is that of every program of ours: without what the caller's shell may have set.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "VALETKEY_") && !strings.HasPrefix(v, "PG") {
			env = append(env, v)
		}
	}
	return env
}

// Valetkey runs the companion command.
func (d *Daemon) Valetkey(t testing.TB, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(Program(t, "valetkey"), append([]string{"--socket", d.Socket}, args...)...)
	cmd.Env = environment()
	return Run(t, stdin, cmd)
}

// Must runs the companion command and wants exit code 0.
func (d *Daemon) Must(t testing.TB, args ...string) (stdout string) {
	t.Helper()
	code, out, errOut := d.Valetkey(t, "", args...)
	if code != 0 {
		t.Fatalf("valetkey %s: exit code %d, want 0\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// AddAccount adds an account.
func (d *Daemon) AddAccount(t testing.TB, login string) {
	t.Helper()
	d.Must(t, "account", "add", login)
}

var secretLine = regexp.MustCompile(`^[a-z]{4}(-[a-z]{4}){3,5}$`)

// Create creates an app password and returns its secret, as printed.
func (d *Daemon) Create(t testing.TB, login, label string, flags ...string) (secret string) {
	t.Helper()
	out := d.Must(t, append([]string{"create", login, label}, flags...)...)
	for line := range strings.Lines(out) {
		if line = strings.TrimRight(line, "\n"); secretLine.MatchString(line) {
			if secret != "" {
				t.Fatal("valetkey create printed more than one secret")
			}
			secret = line
		}
	}
	if secret == "" {
		t.Fatalf("valetkey create %s %s printed no secret alone on its line: %d bytes", login, label, len(out))
	}
	return secret
}

// Revoke revokes an app password.
func (d *Daemon) Revoke(t testing.TB, login, label string) {
	t.Helper()
	d.Must(t, "revoke", login, label)
}

// Listener is one of `valetkey status --json`.
type Listener struct {
	Name     string `json:"name"`
	FrontEnd string `json:"front_end"`
	Address  string `json:"address"`

	Connections int `json:"connections"`
	Refused     int `json:"refused"`
	Yielded     int `json:"yielded"`
}

// Listeners asks the daemon for its listeners.
func (d *Daemon) Listeners(t testing.TB) []Listener {
	t.Helper()
	var status struct {
		Listeners []Listener `json:"listeners"`
	}
	out := d.Must(t, "status", "--json")
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("valetkey status --json: %v\n%s", err, out)
	}
	return status.Listeners
}

// AuthLines returns the lines of attempts after mark.
func (d *Daemon) AuthLines(mark int) []AuthLine {
	var lines []AuthLine
	for _, line := range d.proc.Log.Since(mark) {
		if a, ok := ParseAuthLine(line); ok {
			lines = append(lines, a)
		}
	}
	return lines
}

// WantAuth wants exactly one line of an attempt after mark, with these values; it waits for it, as the answer may be faster
// than the log.
func (d *Daemon) WantAuth(t testing.TB, mark int, want AuthLine) {
	t.Helper()
	Poll(5*time.Second, func() bool { return len(d.AuthLines(mark)) > 0 })
	lines := d.AuthLines(mark)
	if len(lines) != 1 {
		t.Errorf("log has %d lines of an attempt, want 1:\n%s", len(lines), strings.Join(d.proc.Log.Since(mark), "\n"))
		return
	}
	for key, value := range want {
		if got, ok := lines[0][key]; !ok || got != value {
			t.Errorf("log line has %s=%q, want %q; the line: %v", key, got, value, lines[0])
		}
	}
}

// PostmastersIn lists the Postgres servers that work in dir or below, without their children.
func PostmastersIn(dir string) (pids []int) {
	all := ProcessesIn(dir)
	for _, pid := range all {
		if !slices.Contains(all, Parent(pid)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Exposed returns what the system shows of a process and its descendants to others: command lines and environments.
func Exposed(pid int) map[string]string {
	shown := map[string]string{}
	for _, p := range append([]int{pid}, Descendants(pid)...) {
		for _, file := range []string{"cmdline", "environ"} {
			path := filepath.Join("/proc", strconv.Itoa(p), file)
			if b, err := os.ReadFile(path); err == nil {
				shown[path] = strings.ReplaceAll(string(b), "\x00", "\n")
			}
		}
	}
	return shown
}

// Dial connects to a front end: an absolute path is a Unix socket, everything else host:port.
func Dial(addr string) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	return net.DialTimeout(network, addr, Patience)
}
