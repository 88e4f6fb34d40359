package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// smtpCodes are what Postfix answers to AUTH. A mail program that is told 535 asks its user for another password, or forgets the right one.
var smtpCodes = map[harness.Outcome]int{harness.Accepted: 235, harness.Undecided: 454, harness.Rejected: 535}

// TestOnError takes the plugin away for good, under each of the three rules, and asks as a mail server and a directory would.
//
// It would catch: a rule that does something else than the page says, "wrong password" told because a plugin is down (535 by the real Postfix), a
// refusal that is undone by breaking the plugin, an app password that is made although nothing is known.
func TestOnError(t *testing.T) {
	t.Parallel()
	url, _ := harness.NewCluster(t).Database(t)
	issuer := harness.StartDaemon(t, url) // which asks nobody
	secrets := map[string]string{}
	for _, login := range []string{"alice", "bob", "carol"} { // enrolled, not enrolled, never asked about
		issuer.AddAccount(t, login)
		secrets[login] = issuer.Create(t, login, "phone")
	}
	policies := map[string]map[string]harness.Outcome{
		"last_known": {"alice": harness.Accepted, "bob": harness.Undecided, "carol": harness.Undecided},
		"undecided":  {"alice": harness.Undecided, "bob": harness.Undecided, "carol": harness.Undecided},
		"allow":      {"alice": harness.Accepted, "bob": harness.Undecided, "carol": harness.Accepted},
	}
	type server struct {
		*harness.Daemon
		smtp   *harness.SMTPService
		broken func()
	}
	servers := map[string]*server{}
	var services []*harness.SMTPService
	for policy := range policies {
		path := pluginCopy(t)
		list := harness.NewEnrolledList(t, "alice")
		d := harness.NewDaemon(t, url)
		d.PepperFile = filepath.Join(issuer.Dir, "pepper")
		d.Sections = harness.EnrolmentSection(path, []string{"-list", list.Path, "-valid-for", "1s"}, `require = "login"`, fmt.Sprintf("on_error = %q", policy))
		d.Start(t)
		s := &server{Daemon: d, smtp: &harness.SMTPService{SASLPath: "unix:" + d.DovecotUnix}}
		s.broken = func() {
			pid := d.PluginUp(t, 0).PID
			replace(t, path, "#!/bin/false\n")
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			harness.WaitFor(t, "the plugin to be down", func() bool { s := d.Plugin(t); return !s.Up && s.Problem != "" })
		}
		servers[policy], services = s, append(services, s.smtp)
	}
	harness.NewMailer(t, services...)
	want := func(policy, login string, outcome harness.Outcome) {
		t.Helper()
		s := servers[policy]
		for name, c := range clientsOf("the daemon", s.Daemon) {
			if got, detail := c.Login(login, secrets[login]); got != outcome {
				t.Errorf("on_error = %s: %s at %s: %v (%s), want %v", policy, login, name, got, detail, outcome)
			}
			c.Close()
		}
		if got := harness.Authenticate(t, s.smtp.Addr, harness.PlainInitial, login, secrets[login]); got.Code != smtpCodes[outcome] {
			t.Errorf("on_error = %s: %s: Postfix answers %d %s, want %d", policy, login, got.Code, got.Text, smtpCodes[outcome])
		}
	}
	for policy, outcomes := range policies {
		s := servers[policy]
		want(policy, "alice", harness.Accepted)
		want(policy, "bob", harness.Rejected)
		s.broken()
		for _, login := range []string{"alice", "bob"} { // their answers run out
			harness.WaitFor(t, "what was said of "+login+" to run out", func() bool {
				_, out, _ := s.Valetkey(t, "", "plugin", "check", login, "--json")
				return !strings.Contains(out, `"source": "cache"`) && !strings.Contains(out, `"source": "plugin"`)
			})
		}
		for login, outcome := range outcomes {
			want(policy, login, outcome)
			code, _, errOut := s.Valetkey(t, "", "create", login, "tablet under "+policy)
			if made := code == 0; made != (outcome == harness.Accepted) || !made && code != 3 {
				t.Errorf("on_error = %s: valetkey create %s: exit code %d, %q, want 3 unless logins go on", policy, login, code, errOut)
			}
		}
		// A wrong password is wrong, plugin or not.
		if got := harness.Authenticate(t, s.smtp.Addr, harness.PlainInitial, "alice", neverIssued); got.Code != 535 {
			t.Errorf("on_error = %s: a wrong password: Postfix answers %d %s, want 535", policy, got.Code, got.Text)
		}
	}
}

// TestPluginKilledAgainAndAgain kills the plugin every two seconds while people log in (testplan F19).
//
// It would catch: a login of a known account that is refused, undecided or late because the plugin is being started again, one of an account that
// nobody was asked about that is refused, a zombie, a plugin that stays down afterwards.
func TestPluginKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	const kills = 4
	known, strangers := []string{"alice", "anna"}, []string{}
	for i := range 2 * kills {
		strangers = append(strangers, "stranger"+strconv.Itoa(i))
	}
	url, _ := harness.NewCluster(t).Database(t)
	issuer := harness.StartDaemon(t, url)
	secrets := map[string]string{}
	for _, login := range append(known, strangers...) {
		issuer.AddAccount(t, login)
		secrets[login] = issuer.Create(t, login, "phone")
	}
	list := harness.NewEnrolledList(t, append(known, strangers...)...)
	d := harness.NewDaemon(t, url)
	d.PepperFile = filepath.Join(issuer.Dir, "pepper")
	d.Sections = list.Enrolment(t, `require = "login"`) // an answer holds for a second
	d.Start(t)
	d.PluginUp(t, 0)
	for _, login := range known {
		c := &harness.DovecotClient{Addr: d.DovecotUnix}
		if got, detail := c.Login(login, secrets[login]); got != harness.Accepted {
			t.Fatalf("%s at first: %v (%s)", login, got, detail)
		}
		c.Close()
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	var mu sync.Mutex
	var logins int
	var slowest time.Duration
	for name, c := range clientsOf("the daemon", d) {
		load.Go(func() {
			defer c.Close()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond): // the pace of the load
				}
				begin := time.Now()
				got, detail := c.Login(known[i%2], secrets[known[i%2]])
				took := time.Since(begin)
				if got != harness.Accepted {
					t.Errorf("%s at %s: %v (%s), want accepted", known[i%2], name, got, detail)
				}
				mu.Lock()
				logins, slowest = logins+1, max(slowest, took)
				mu.Unlock()
			}
		})
	}
	every := time.NewTicker(2 * time.Second)
	defer every.Stop()
	asked := 0
	for range kills {
		<-every.C
		pid := d.PluginUp(t, 0).PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			c := &harness.DovecotClient{Addr: d.DovecotTCP, Service: "imap"}
			if got, detail := c.Login(strangers[asked], secrets[strangers[asked]]); got != harness.Accepted && got != harness.Undecided {
				t.Errorf("%s while the plugin is started again: %v (%s), want accepted or undecided", strangers[asked], got, detail)
			}
			c.Close()
			asked++
		}
	}
	s := d.PluginUp(t, 0)
	close(stop)
	load.Wait()
	t.Logf("%d logins, the slowest after %v; %d restarts, %d by the last known answer", logins, slowest, s.Restarts, s.Fallback)
	if s.Restarts < kills {
		t.Errorf("%d restarts after %d kills", s.Restarts, kills)
	}
	if logins < 100 || slowest > 5*time.Second {
		t.Errorf("%d logins, the slowest after %v: that is no load, or it waited", logins, slowest)
	}
	if z := zombies(d.Process().PID()); len(z) > 0 {
		t.Errorf("zombies %v", z)
	}
}

// TestPluginSlowAndForking starts a plugin that needs a while, has a child that holds its pipes, and dies.
//
// It would catch: a daemon that waits for its plugin before it serves, a login that is refused because the plugin is not there yet, a dead plugin
// that counts as alive because of its child, a child that stays.
func TestPluginSlowAndForking(t *testing.T) {
	t.Parallel()
	dir := harness.Dir(t)
	list := harness.NewEnrolledList(t, "alice")
	path := filepath.Join(dir, "plugin")
	gate := filepath.Join(dir, "gate")
	// It does not go on before the test says so, and then execs: the plugin's number is the script's.
	script := fmt.Sprintf("#!/bin/sh\nwhile ! test -e %[1]s; do sleep 0.05; done\nsleep 3600 &\necho $! > %[2]s/child.new\nmv %[2]s/child.new %[2]s/child\nexec %[3]s \"$@\"\n",
		gate, dir, harness.Program(t, "valetkey-2fa-file"))
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	url, _ := harness.NewCluster(t).Database(t)
	issuer := harness.StartDaemon(t, url)
	issuer.AddAccount(t, "alice")
	secret := issuer.Create(t, "alice", "phone")
	d := harness.NewDaemon(t, url)
	d.PepperFile = filepath.Join(issuer.Dir, "pepper")
	d.Sections = harness.EnrolmentSection(path, []string{"-list", list.Path, "-valid-for", "1s"}, `require = "login"`, `start_timeout = "1m"`)
	d.Start(t) // which does not wait for it
	all := func(when string, want harness.Outcome) {
		t.Helper()
		for name, c := range clientsOf("the daemon", d) {
			if got, detail := c.Login("alice", secret); got != want {
				t.Errorf("%s: %s: %v (%s), want %v", when, name, got, detail, want)
			}
			c.Close()
		}
	}
	all("before the plugin is there", harness.Undecided)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid := d.PluginUp(t, 0).PID
	harness.WaitFor(t, "a login once the plugin is there", func() bool {
		c := &harness.DovecotClient{Addr: d.DovecotUnix}
		defer c.Close()
		got, _ := c.Login("alice", secret)
		return got == harness.Accepted
	})
	all("when the plugin is there", harness.Accepted)

	text, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !alive(child) {
		t.Fatalf("the child %q of the plugin is not there: %v", text, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	all("after its death", harness.Accepted)
	d.PluginUp(t, pid)
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("a plugin with a child that holds its pipes is back only after %v", took)
	}
	if !harness.Poll(harness.Patience, func() bool { return !alive(child) }) {
		t.Errorf("the child %d outlives its plugin", child)
	}
}
