package faults_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// TestPrivateCluster ends a daemon that runs its own Postgres in every way, and starts it again in the same state directory.
//
// It would catch: a Postgres that outlives its daemon, a second one on the same data, a stale socket or pid file that keeps
// the daemon from starting, a pepper or data that is made anew, a default path or port that is not the documented one.
func TestPrivateCluster(t *testing.T) {
	t.Parallel()
	d := harness.NewDefaultDaemon(t)
	state := d.Dir
	start := func() {
		t.Helper()
		d.StartWith(t, "--state-dir", state, "--ldap", "127.0.0.1:0")
		d.WaitReady(t)
		for _, l := range d.Listeners(t) {
			if l.FrontEnd == "ldap" {
				d.LDAP = strings.TrimPrefix(l.Address, "tcp:")
			}
		}
		if !strings.HasPrefix(d.LDAP, "127.0.0.1:") || strings.HasSuffix(d.LDAP, ":0") {
			t.Fatalf("valetkey status names %q as the LDAP listener, want the port that was chosen", d.LDAP)
		}
	}
	login := func(when, secret string) {
		t.Helper()
		for name, c := range map[string]harness.Client{
			"ldap":    &harness.LDAPClient{Addr: d.LDAP},
			"dovecot": &harness.DovecotClient{Addr: d.DovecotUnix},
		} {
			got, detail := c.Login("alice", secret)
			c.Close()
			if got != harness.Accepted {
				t.Errorf("%s login %s: %v (%s), want accepted", name, when, got, detail)
			}
		}
		if n := len(harness.PostmastersIn(state)); n != 1 {
			t.Errorf("%s: %d Postgres servers work in the state directory, want 1", when, n)
		}
	}
	gone := func(when string) {
		t.Helper()
		if !harness.Poll(15*time.Second, func() bool { return len(harness.ProcessesIn(state)) == 0 }) {
			t.Errorf("%s: processes %v still work in the state directory", when, harness.ProcessesIn(state))
		}
	}

	start()
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "phone")
	login("after the first start", secret)
	for _, protocol := range []string{"dovecot", "ldap"} {
		if code, out, errOut := d.Valetkey(t, secret+"\n", "try", protocol, "alice"); code != 0 {
			t.Errorf("valetkey try %s: exit code %d, want 0\n%s%s", protocol, code, out, errOut)
		}
		if code, out, errOut := d.Valetkey(t, neverIssued+"\n", "try", protocol, "alice"); code != 1 {
			t.Errorf("valetkey try %s with a wrong secret: exit code %d, want 1\n%s%s", protocol, code, out, errOut)
		}
	}

	d.Stop(t)
	gone("after SIGTERM")
	if code, _, errOut := d.Valetkey(t, "", "list", "alice"); code != 3 || !strings.Contains(errOut, d.Socket) {
		t.Errorf("valetkey list without the daemon: exit code %d, message %q, want 3 and the socket's name", code, errOut)
	}
	start()
	login("after SIGTERM and a start", secret)

	for round := range 2 {
		d.Process().Kill()
		if round == 0 {
			// Only once: a supervisor starts the daemon again at once, while its Postgres may still be ending.
			gone("after SIGKILL")
		}
		start()
		login(fmt.Sprintf("after SIGKILL %d and a start", round+1), secret)
	}

	// The daemon's own Postgres crashes.
	old := harness.ProcessesIn(state)
	for _, pid := range harness.PostmastersIn(state) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	harness.WaitFor(t, "the backends to end after their postmaster", func() bool {
		return !slices.ContainsFunc(harness.ProcessesIn(state), func(pid int) bool { return slices.Contains(old, pid) })
	})
	client := &harness.LDAPClient{Addr: d.LDAP}
	defer client.Close()
	harness.WaitFor(t, "a login after the private Postgres was killed", func() bool {
		got, detail := client.Login("alice", secret)
		if got != harness.Accepted && got != harness.Undecided {
			t.Fatalf("ldap login while the private Postgres is away: %v (%s)", got, detail)
		}
		return got == harness.Accepted
	})
	login("after the private Postgres was killed", secret)

	d.Process().Signal(syscall.SIGINT)
	if code, ok := d.Process().Wait(harness.Patience); !ok || code != 0 {
		t.Errorf("after SIGINT: exit code %d, ended %v, want 0", code, ok)
	}
	gone("after SIGINT")
}

// TestTerminateUnderLoad sends SIGTERM while logins are being computed.
//
// It would catch: a daemon that closes its connections before it has answered, answers "wrong password" because it is
// stopping, or does not stop while clients stay connected.
func TestTerminateUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	const logins = 20
	var secrets []string
	for i := range logins {
		login := fmt.Sprintf("user%d", i)
		d.AddAccount(t, login)
		secrets = append(secrets, d.Create(t, login, "phone"))
	}
	// Started again, so that no password was seen before and each login costs a slow hash.
	d.Stop(t)
	d.Start(t)

	type result struct {
		client, detail string
		outcome        harness.Outcome
	}
	results := make(chan result, logins)
	var connected sync.WaitGroup
	begin := make(chan struct{})
	for i := range logins {
		// Without nologin, so that a closed connection cannot pass for an answer.
		var c harness.Client = &harness.DovecotClient{Addr: d.DovecotUnix, Service: "imap"}
		name := "dovecot"
		if i%2 == 0 {
			c, name = &harness.LDAPClient{Addr: d.LDAP}, "ldap"
		}
		connected.Add(1)
		go func() {
			defer c.Close()
			// Connected, and read from, before the signal.
			got, detail := c.Login("nobody", neverIssued)
			connected.Done()
			if got == harness.Rejected {
				<-begin
				got, detail = c.Login(fmt.Sprintf("user%d", i), secrets[i])
			} else {
				got = harness.Broken
			}
			results <- result{name, detail, got}
		}()
	}
	connected.Wait()
	close(begin)
	// With the first answers here the others have long been read: every client had a connection of its own.
	const before = 4
	var began time.Time
	count := map[harness.Outcome]int{}
	for i := range logins {
		if i == before {
			began = time.Now()
			d.Process().Signal(syscall.SIGTERM)
		}
		r := <-results
		count[r.outcome]++
		if r.outcome != harness.Accepted && (i < before || r.outcome != harness.Undecided) {
			t.Errorf("%s login, answer %d, SIGTERM after %d: %v (%s), want accepted or undecided", r.client, i, before, r.outcome, r.detail)
		}
	}
	code, ok := d.Process().Wait(harness.Patience)
	if !ok || code != 0 {
		t.Errorf("after SIGTERM: exit code %d, ended %v, want 0", code, ok)
	}
	t.Logf("ended %v after SIGTERM; answers: %v", time.Since(began).Round(time.Millisecond), count)
}

// TestTerminateWithIdleClients stops a daemon to which clients are connected that ask nothing.
//
// It would catch: a drain that waits for connections instead of for answers.
func TestTerminateWithIdleClients(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	for _, addr := range []string{d.DovecotUnix, d.DovecotTCP, d.LDAP} {
		for _, first := range []string{"", "VERSION\t1\t2\nCPID\t1\n", "\x30"} {
			conn, err := harness.Dial(addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(first)); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	d.Stop(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("ended %v after SIGTERM, want at most 10 s", took)
	}
}

// TestReload sends SIGHUP with good and broken files under load.
//
// It would catch: a daemon that ends, drops logins or half-applies a file that is broken, keeps silent about it, or no longer
// reads a good one after it.
func TestReload(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "phone")
	clients := clientsOf("the daemon", d)
	load := harness.StartLoad(t, 5*time.Millisecond, clients, []harness.Credential{
		{Login: "alice", Password: secret, Right: true}, {Login: "alice", Password: neverIssued}})
	served := func(when string) {
		t.Helper()
		load.WaitEach(t, "a login "+when, clients, time.Now(), func(a harness.Attempt) bool {
			return a.Right && a.Outcome == harness.Accepted
		})
	}
	served("before any reload")
	// hup reloads and waits for a line of the log that names what it must.
	hup := func(when, names string) {
		t.Helper()
		mark := d.Log().Mark()
		d.Process().Signal(syscall.SIGHUP)
		line, ok := d.Log().Wait(mark, harness.Patience, func(line string) bool {
			_, attempt := harness.ParseAuthLine(line)
			return !attempt && strings.Contains(line, names)
		})
		if !ok {
			t.Errorf("%s: no line of the log says %q", when, names)
		}
		t.Logf("%s: %s", when, line)
		served(when)
		if !d.Process().Running() {
			t.Fatalf("%s: the daemon has ended", when)
		}
	}
	for range 2 {
		d.WriteConfig(t, "\n[database_typo]\nurl = \"x\"\n")
		hup("after a reload with an unknown key", "database_typo")
		d.WriteConfig(t, "\nthis is not TOML\n")
		hup("after a reload of what is not TOML", "valetkeyd.toml")
		d.WriteConfig(t, "")
		hup("after a reload of a good file", "reload")
		// A fault that shows only when the listener is opened: the one that is there must stay.
		file := filepath.Join(filepath.Dir(d.Dir), "valetkeyd.toml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.Replace(text, []byte(`mode = "0666"`), []byte("mode = \"0666\"\ngroup = \"no-such-group\""), 1)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		hup("after a reload with a group that does not exist", "no-such-group")
	}
	// A pepper that is not there at a reload is in the daemon's memory, and nowhere else: a fresh one must not take its place.
	pepper := filepath.Join(d.Dir, "pepper")
	if err := os.Rename(pepper, pepper+".away"); err != nil {
		t.Fatal(err)
	}
	hup("after a reload without the pepper", "pepper.file")
	if _, err := os.Stat(pepper); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after a reload without the pepper there is one: %v", err)
	}
	if err := os.Rename(pepper+".away", pepper); err != nil {
		t.Fatal(err)
	}
	hup("after a reload with the pepper in its place", "reloaded")
	if err := os.Remove(filepath.Join(filepath.Dir(d.Dir), "valetkeyd.toml")); err != nil {
		t.Fatal(err)
	}
	hup("after a reload without a file", "valetkeyd.toml")
	attempts := load.Stop()
	harness.CheckHonest(t, attempts, answerWithin)
	harness.CheckServed(t, attempts)
	t.Log(harness.Tally(attempts))
}
