package scenario

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode"

	"golang.org/x/text/width"

	"github.com/valetkey/valetkey/test/harness"
)

// columns is how much room a line takes on a terminal, for the characters that these tests use.
func columns(line string) (n int) {
	for _, r := range line {
		switch {
		case unicode.In(r, unicode.Mn):
		case width.LookupRune(r).Kind() == width.EastAsianWide:
			n += 2
		default:
			n++
		}
	}
	return n
}

// A terminal of 60 columns, a pipe, and a database that holds what the API would refuse.
func TestTerminal(t *testing.T) {
	cluster := harness.NewCluster(t)
	dsn, name := cluster.Database(t)
	d := harness.StartDaemon(t, dsn)
	long := "東京都の携帯電話、二台目のほう (alt)"
	for _, login := range []string{"a.very.long.login.of.somebody@subdomain.example.org", "bob"} {
		d.AddAccount(t, login)
		for _, label := range []string{"phone", long, "Bu\u0308ro"} {
			d.Create(t, login, label, "--service", "imap", "--service", "submission", "--from", "192.0.2.0/24")
		}
	}
	revoked := d.Create(t, "bob", "the phone that is lost")
	d.Revoke(t, "bob", "the phone that is lost")
	d.AddAccount(t, "mallory")
	d.Create(t, "mallory", "tablet")
	// Only somebody at the database could do this. Nothing of it may reach the terminal as it is.
	cluster.Exec(t, name, `UPDATE app_passwords SET label = E'x\x1b[2J\x07\u202ey\u009b31m', created_by = E'\x1b]0;owned\x07', services = ARRAY[E'i\x1b[1m']
		WHERE label = 'tablet'`)
	cluster.Exec(t, name, `UPDATE accounts SET login = E'mal\x1b[5mlory', display_name = E'\x1b[31mred' WHERE login = 'mallory'`)

	login := func(login, secret string) {
		c := &harness.DovecotClient{Addr: d.DovecotUnix, Service: "sieve"}
		defer c.Close()
		c.Login(login, secret)
	}
	login("bob", revoked)
	harness.WaitFor(t, "the attempt to be known", func() bool { return strings.Contains(d.Must(t, "why", "bob"), "revoked: ") })

	for _, args := range [][]string{{"list"}, {"list", "bob"}, {"list", "--sort", "label"}, {"list", "mallory"}, {"events"}, {"events", "--login", "bob"},
		{"why", "bob"}, {"why", "bob", "--service", "imap", "--from", "198.51.100.7"}, {"why", "bob", "--service", "sieve"}, {"status"}, {"account", "list"}} {
		for _, limit := range []int{60, 40, 200} {
			code, text := d.ValetkeyAt(t, harness.NewTerminal(t, limit), "", "", args...)
			if code != 0 || strings.HasPrefix(args[0], "list") && !strings.Contains(text, "LABEL") {
				t.Fatalf("valetkey %q = %d\n%s", args, code, text)
			}
			for line := range strings.Lines(text) {
				if line = strings.TrimSuffix(line, "\n"); columns(line) > limit {
					t.Errorf("valetkey %q: a line takes %d columns of %d: %q", args, columns(line), limit, line)
				}
			}
			if cut := strings.Contains(text, "…"); limit < 200 && args[0] == "list" && len(args) == 1 && !cut {
				t.Errorf("valetkey %q at %d columns marks no cut:\n%s", args, limit, text)
			}
			harmless(t, fmt.Sprint(args), text)
		}
	}
	out := d.Must(t, "list")
	if !strings.Contains(out, long) || strings.Contains(out, "…") {
		t.Errorf("valetkey list into a pipe cuts:\n%s", out)
	}
	harmless(t, "list into a pipe", out)
	for _, args := range [][]string{{"account", "list"}, {"account", "show", "mallory"}, {"why", "mallory"}, {"events"}, {"list", "--csv"}} {
		_, text := d.ValetkeyAt(t, harness.NewTerminal(t, 60), "", "", args...)
		if args[len(args)-1] != "--csv" { // which is for programs
			harmless(t, fmt.Sprint(args), text)
		}
	}

	// At a terminal it asks, and takes only the number for a yes.
	ask := "Type their number: "
	code, text := d.ValetkeyAt(t, harness.NewTerminal(t, 60), ask, "yes", "revoke", "--label", "phone")
	if code != 1 || !strings.Contains(text, "nothing was revoked") {
		t.Errorf("revoke, answered with yes = %d\n%s", code, text)
	}
	if out := d.Must(t, "list", "--label", "phone", "--jsonl"); strings.Count(out, "\n") != 2 {
		t.Errorf("app passwords after the question was not answered:\n%s", out)
	}
	code, text = d.ValetkeyAt(t, harness.NewTerminal(t, 60), ask, "2", "revoke", "--label", "phone")
	if code != 0 || !strings.Contains(text, "2 app passwords are revoked") {
		t.Errorf("revoke, answered with 2 = %d\n%s", code, text)
	}
	if out := d.Must(t, "list", "--label", "phone", "--jsonl"); out != "" {
		t.Errorf("app passwords after they were revoked:\n%s", out)
	}
}

// harmless wants nothing in a text that tells a terminal what to do, or hides what it says.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf)) {
			t.Errorf("%s: the terminal gets %U:\n%q", what, r, text)
			return
		}
	}
}

// Two admins at two daemons of one database rotate, change and revoke one label, and a device logs in meanwhile.
func TestTwoAdmins(t *testing.T) {
	cluster := harness.NewCluster(t)
	dsn, _ := cluster.Database(t)
	one := harness.StartDaemon(t, dsn)
	two := harness.NewDaemon(t, dsn)
	two.PepperFile = one.Dir + "/pepper"
	two.Start(t)
	one.AddAccount(t, "alice")
	login := func(d *harness.Daemon, secret string) harness.Outcome {
		c := &harness.DovecotClient{Addr: d.DovecotUnix, Service: "imap"}
		defer c.Close()
		o, _ := c.Login("alice", secret)
		return o
	}

	// The first use at one daemon ends the old secret at both.
	old := one.Create(t, "alice", "tablet")
	fresh := strings.TrimSpace(one.Must(t, "rotate", "alice", "tablet"))
	for _, d := range []*harness.Daemon{one, two} {
		if o := login(d, old); o != harness.Accepted {
			t.Errorf("login with the old secret before the new one was used = %v, want accepted", o)
		}
	}
	if o := login(two, fresh); o != harness.Accepted {
		t.Fatalf("login with the new secret = %v, want accepted", o)
	}
	if o := login(two, old); o != harness.Rejected {
		t.Errorf("login with the old secret where the new one was used = %v, want rejected at once", o)
	}
	harness.WaitFor(t, "the other daemon to refuse the old secret", func() bool { return login(one, old) == harness.Rejected })
	if o := login(one, fresh); o != harness.Accepted {
		t.Errorf("login with the new secret at the other daemon = %v, want accepted", o)
	}

	first := one.Create(t, "alice", "phone", "--service", "imap")
	var mu sync.Mutex
	secrets := []string{first}
	var wg sync.WaitGroup
	for i := range 12 {
		d := []*harness.Daemon{one, two}[i%2]
		wg.Go(func() {
			var args []string
			switch i % 3 {
			case 0:
				args = []string{"rotate", "alice", "phone"}
			case 1:
				args = []string{"edit", "alice", "phone", "--service", "imap", "--service", fmt.Sprint("s", i)}
			default:
				login(d, first)
				return
			}
			code, out, errOut := d.Valetkey(t, "", args...)
			if code != 0 {
				t.Errorf("valetkey %q = %d\n%s", args, code, errOut)
			}
			if args[0] == "rotate" {
				mu.Lock()
				defer mu.Unlock()
				secrets = append(secrets, strings.TrimSpace(out))
			}
		})
	}
	wg.Wait()
	good := 0
	for _, s := range secrets[1:] {
		if login(one, s) == harness.Accepted {
			good++
		}
	}
	if good != 1 {
		t.Errorf("%d of the new secrets are good, want the last one", good)
	}
	for range 2 {
		for _, d := range []*harness.Daemon{one, two} {
			wg.Go(func() { d.Must(t, "revoke", "alice", "phone") })
		}
	}
	wg.Wait()
	for i, s := range secrets {
		for _, d := range []*harness.Daemon{one, two} {
			if o := login(d, s); o != harness.Rejected {
				t.Errorf("login with secret %d after the revocation = %v, want rejected", i, o)
			}
		}
	}
	if out := one.Must(t, "list", "alice"); strings.Contains(out, "phone") {
		t.Errorf("valetkey list after the revocation:\n%s", out)
	}
}
