package faults_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// pluginCopy is a plugin of its own for a test that spoils it.
func pluginCopy(t *testing.T) string {
	t.Helper()
	path := filepath.Join(harness.Dir(t), "plugin")
	text, err := os.ReadFile(harness.Program(t, "valetkey-2fa-file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// replace puts other content in the place of a program that may be running.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func sha256sum(t *testing.T, path string) string {
	t.Helper()
	_, out, _ := harness.Run(t, "", exec.Command("sha256sum", path))
	sum, _, _ := strings.Cut(out, " ")
	if len(sum) != 64 {
		t.Fatalf("sha256sum printed %q", out)
	}
	return sum
}

// alive reports whether there is such a process, and that it is no zombie.
func alive(pid int) bool { return pid != 0 && stateOf(pid) != "" && stateOf(pid) != "Z" }

func stateOf(pid int) string {
	out, err := exec.Command("ps", "-o", "state=", "-p", fmt.Sprint(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func zombies(parent int) (all []int) {
	for _, pid := range harness.Descendants(parent) {
		if stateOf(pid) == "Z" {
			all = append(all, pid)
		}
	}
	return all
}

// TestPluginFaults kills, freezes and replaces the plugin while people log in.
//
// It would catch: an account with a known answer that is refused or delayed because the plugin is in trouble, one without that is told
// "wrong password" or let in, a plugin that stays down or behind, an orphan, a zombie.
func TestPluginFaults(t *testing.T) {
	t.Parallel()
	const known, unknown = "alice", "carol"
	list := harness.NewEnrolledList(t, known, unknown)
	path := pluginCopy(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := harness.NewDaemon(t, "")
	section := func(checksum string) string {
		return harness.EnrolmentSection(path, []string{"-list", list.Path, "-valid-for", "1s"}, `require = "login"`, `checksum = "`+checksum+`"`)
	}
	d.Sections = section(sha256sum(t, path))
	d.Start(t)
	d.PluginUp(t, 0)
	secrets := map[string]string{}
	for _, login := range []string{known, unknown} {
		d.AddAccount(t, login)
		secrets[login] = d.Create(t, login, "phone")
	}
	clients := clientsOf("the daemon", d)
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	restart := func() { // with connections of its own
		t.Helper()
		for _, c := range clients {
			c.Close()
		}
		d.Start(t)
	}
	// login wants one of these outcomes from every front end, within the time that the plugin has.
	login := func(when, who string, want ...harness.Outcome) {
		t.Helper()
		for name, c := range clients {
			begin := time.Now()
			got, detail := c.Login(who, secrets[who])
			if !slices.Contains(want, got) {
				t.Errorf("%s: %s at %s: %v (%s), want %v", when, who, name, got, detail, want)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("%s: %s at %s took %v", when, who, name, took)
			}
		}
	}
	login("at first", known, harness.Accepted)

	for _, fault := range []struct {
		name string
		sig  syscall.Signal
	}{{"kill -9", syscall.SIGKILL}, {"SIGSTOP", syscall.SIGSTOP}, {"SIGTERM", syscall.SIGTERM}} {
		pid := d.Plugin(t).PID
		begin := time.Now()
		if err := syscall.Kill(pid, fault.sig); err != nil {
			t.Fatal(err)
		}
		login("after "+fault.name, known, harness.Accepted)
		d.PluginUp(t, pid)
		took := time.Since(begin)
		t.Logf("%s: healthy again after %v", fault.name, took)
		if took > 6*time.Second { // two, on a machine that has time
			t.Errorf("%s: healthy again only after %v", fault.name, took)
		}
		login("healthy after "+fault.name, unknown, harness.Accepted)
		if alive(pid) {
			t.Errorf("%s: process %d of the old plugin is still there", fault.name, pid)
		}
		if z := zombies(d.Process().PID()); len(z) > 0 {
			t.Errorf("%s: zombies %v", fault.name, z)
		}
	}

	// Another program in its place is not started. Nothing is known of an account that the daemon has not met since it began.
	d.Stop(t)
	restart()
	pid := d.PluginUp(t, 0).PID
	login("after a restart", known, harness.Accepted)
	replace(t, path, "#!/bin/sh\nexec sleep 3600\n")
	login("program replaced, the old one runs", known, harness.Accepted)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the other program to be refused", func() bool { return strings.Contains(d.Plugin(t).Problem, "another checksum") })
	harness.WaitFor(t, "the answer about her to run out", func() bool {
		_, out, _ := d.Valetkey(t, "", "plugin", "check", known, "--json")
		return strings.Contains(out, `"source": "last_known"`)
	})
	login("program replaced", known, harness.Accepted)
	login("program replaced", unknown, harness.Undecided)
	mark := d.Log().Mark()
	if got, _ := clients["dovecot over tcp at the daemon"].Login(known, secrets[known]); got != harness.Accepted {
		t.Errorf("a known account: %v, want accepted", got)
	}
	if line, ok := d.Log().Wait(mark, harness.Patience, func(line string) bool { return strings.Contains(line, " second_factor=last_known ") }); !ok || !strings.Contains(line, "reason=accepted") {
		t.Errorf("the log says %q of a login by the last known answer", line)
	}
	if code, _, errOut := d.Valetkey(t, "", "create", unknown, "tablet"); code != 3 || !strings.Contains(errOut, "could not be found out whether carol has a second factor") {
		t.Errorf("valetkey create while nothing is known: exit code %d, %q, want 3", code, errOut)
	}
	if code, out, _ := d.Valetkey(t, "", "plugin", "check", unknown); code != 3 || !strings.Contains(out, "NOT KNOWN") {
		t.Errorf("valetkey plugin check: exit code %d, %q, want 3", code, out)
	}
	if s := d.Plugin(t); s.Fallback == 0 || s.Up {
		t.Errorf("the plugin is %+v, want it down and logins that the policy let in", s)
	}
	replace(t, path, string(good))
	d.PluginUp(t, pid)
	harness.WaitFor(t, "everybody to be known again", func() bool {
		c := clients["dovecot over tcp at the daemon"]
		got, _ := c.Login(unknown, secrets[unknown])
		return got == harness.Accepted
	})

	// With a wrong checksum the daemon starts, answers "later", and says why.
	d.Stop(t)
	d.Sections = section(strings.Repeat("0", 64))
	restart()
	login("wrong checksum", known, harness.Undecided)
	if s := d.Plugin(t); s.Up || !strings.Contains(s.Problem, "another checksum") {
		t.Errorf("with a wrong checksum the plugin is %+v", s)
	}
	if out := d.Must(t, "status"); !strings.Contains(out, "THE PLUGIN DOES NOT RUN") {
		t.Errorf("valetkey status does not tell:\n%s", out)
	}
	d.Sections = section(sha256sum(t, path))
	d.Reload(t)
	pid = d.PluginUp(t, 0).PID
	harness.WaitFor(t, "a login after the checksum was put right", func() bool {
		got, _ := clients["ldap at the daemon"].Login(known, secrets[known])
		return got == harness.Accepted
	})

	// Whatever ends the daemon ends the plugin, and what it left does not keep the next one from starting.
	d.Process().Kill()
	if !harness.Poll(harness.Patience, func() bool { return !alive(pid) }) {
		t.Errorf("the plugin %d outlives its daemon", pid)
	}
	restart()
	pid = d.PluginUp(t, 0).PID
	login("after kill -9 of the daemon and a start", known, harness.Accepted)
	d.Stop(t)
	if alive(pid) {
		t.Errorf("the plugin %d outlives a clean stop", pid)
	}
	if left, _ := filepath.Glob(filepath.Join(d.Dir, "run", "2fa*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestColdCheck logs one account in many times at once, when nothing is known about it.
//
// It would catch: a question to the plugin for each login.
func TestColdCheck(t *testing.T) {
	t.Parallel()
	list := harness.NewEnrolledList(t, "alice")
	d := harness.NewDaemon(t, "")
	d.Sections = harness.EnrolmentSection(harness.Program(t, "valetkey-2fa-file"), []string{"-list", list.Path}, `require = "login"`)
	d.Start(t)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "phone")
	d.Stop(t)
	d.Start(t) // nothing is known any more
	d.PluginUp(t, 0)
	const logins = 64
	var clients []*harness.DovecotClient
	for range logins {
		c := &harness.DovecotClient{Addr: d.DovecotUnix}
		if err := c.Connect(); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			if got, detail := c.Login("alice", secret); got != harness.Accepted {
				t.Errorf("login: %v (%s), want accepted", got, detail)
			}
		})
	}
	wg.Wait()
	if s := d.Plugin(t); s.Checks != 1 {
		t.Errorf("%d logins at once asked the plugin %d times, want once", logins, s.Checks)
	}
}

// TestPluginSeesLittle runs a plugin that writes down everything it is given, while people log in, rightly and wrongly.
//
// It would catch: a password, an app password's label or hash, an address or a variable of the daemon's environment that reaches the plugin,
// an open file of the daemon's, its standard input.
func TestPluginSeesLittle(t *testing.T) {
	const canary = "canary-of-the-environment"
	t.Setenv("PGPASSFILE_OF_THE_DAEMON", canary)
	t.Setenv("CREDENTIALS_DIRECTORY", "/"+canary)
	notes := harness.Dir(t)
	recorder := filepath.Join(notes, "recorder")
	if code, out, errOut := harness.Run(t, "", exec.Command("go", "build", "-o", recorder, "./testdata/recorder")); code != 0 {
		t.Fatalf("building the recorder: %s%s", out, errOut)
	}
	d := harness.NewDaemon(t, "")
	d.Sections = harness.EnrolmentSection(recorder, []string{notes}, `require = "login"`, `env = ["OF_ITS_OWN=1"]`)
	d.Start(t)
	d.PluginUp(t, 0)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "my-very-own-label")
	for name, c := range clientsOf("the daemon", d) {
		for password, want := range map[string]harness.Outcome{secret: harness.Accepted, neverIssued: harness.Rejected, "Main-Pass-Word-1": harness.Rejected} {
			if got, detail := c.Login("alice", password); got != want {
				t.Errorf("%s: %v (%s), want %v", name, got, detail, want)
			}
		}
		c.Close()
	}
	// Every login once more after a fresh question, so that the wire has what logins send.
	d.Must(t, "plugin", "check", "alice", "--fresh")
	d.Stop(t)

	told := map[string]string{}
	for _, name := range []string{"environment", "arguments", "stdin", "descriptors", "cwd", "wire"} {
		text, err := os.ReadFile(filepath.Join(notes, name))
		if err != nil {
			t.Fatal(err)
		}
		told[name] = string(text)
	}
	if !strings.Contains(told["wire"], "Enrolment/Check") || !strings.Contains(told["wire"], "alice") {
		t.Fatalf("the recorder wrote %q: it was not asked", told["wire"])
	}
	bare := strings.ReplaceAll(secret, "-", "")
	for name, text := range told {
		for _, s := range []string{canary, secret, bare, neverIssued, strings.ReplaceAll(neverIssued, "-", ""), "Main-Pass-Word-1", "my-very-own-label", "argon2", "127.0.0.1"} {
			if strings.Contains(text, s) {
				t.Errorf("the plugin's %s has %q:\n%s", name, s, text)
			}
		}
	}
	for line := range strings.Lines(told["environment"]) {
		key, _, _ := strings.Cut(line, "=")
		if !slices.Contains([]string{"PATH", "LANG", "OF_ITS_OWN", "VALETKEY_ENROLMENT_PLUGIN"}, key) && !strings.HasPrefix(key, "PLUGIN_") {
			t.Errorf("the plugin's environment has %s", strings.TrimSpace(line))
		}
	}
	if told["stdin"] != `"", <nil>` || told["cwd"] != "/" {
		t.Errorf("the plugin's standard input has %s, its folder is %s, want nothing and /", told["stdin"], told["cwd"])
	}
	for line := range strings.Lines(told["descriptors"]) {
		n, to, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n > "2" && to != "" && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/proc/") && to != "/sys/fs/cgroup" && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			t.Errorf("the plugin has descriptor %s, %s", n, to)
		}
	}
}

// TestPluginSignals starts a plugin that is a shell script first, and looks at what the kernel says of its signals.
//
// It would catch: a signal that the daemon ignores or blocks, and that its plugins, hooks and Postgres therefore ignore, too: "yes | head" in a script
// never ends then.
func TestPluginSignals(t *testing.T) { // not in parallel: what is ignored here is ignored in all that is started meanwhile
	notes := harness.Dir(t)
	list := harness.NewEnrolledList(t, "alice")
	path := filepath.Join(notes, "plugin")
	script := fmt.Sprintf("#!/bin/sh\ngrep -E '^Sig(Ign|Blk)' /proc/self/status > %[1]s/signals.new\nmv %[1]s/signals.new %[1]s/signals\nexec %[2]s \"$@\"\n",
		notes, harness.Program(t, "valetkey-2fa-file"))
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGPIPE) // as systemd starts the daemon, IgnoreSIGPIPE= in systemd.exec(5)
	defer signal.Reset(syscall.SIGPIPE)
	d := harness.NewDaemon(t, "")
	d.Sections = harness.EnrolmentSection(path, []string{"-list", list.Path}, `require = "login"`)
	d.Start(t)
	d.PluginUp(t, 0)
	text, err := os.ReadFile(filepath.Join(notes, "signals"))
	if err != nil {
		t.Fatal(err)
	}
	// Others, such as those that threads use, may be ignored in all that this machine starts; the daemon has no business with them.
	const pipe = 1 << (syscall.SIGPIPE - 1)
	for line := range strings.Lines(string(text)) {
		_, mask, _ := strings.Cut(line, ":")
		if n, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64); err != nil || n&pipe != 0 {
			t.Errorf("the plugin begins with %s, %v, want SIGPIPE neither ignored nor blocked", strings.TrimSpace(line), err)
		}
	}
}
