package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/valetkey/valetkey/test/harness"
)

// TestRefusalTimes guesses at an account with an imported hash, at one without, and at none, through the real front ends, and compares the
// fastest answers, which are those that the machine's load had least to do with.
//
// It would catch: a slow hash that the time of the refusal tells of, a floor that is not in force at one of the front ends, or is not
// told of rows that were imported since the start, and one that a right password waits for.
func TestRefusalTimes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	right := d.Create(t, "alice", "phone")
	clients := map[string]func() harness.Client{
		"ldap":    func() harness.Client { return &harness.LDAPClient{Addr: d.LDAP} },
		"dovecot": func() harness.Client { return &harness.DovecotClient{Addr: d.DovecotUnix} },
	}
	n := 0
	guess := func(connect func() harness.Client, login string) time.Duration {
		t.Helper()
		n++
		c := connect()
		defer c.Close()
		begun := time.Now()
		if got, detail := c.Login(login, fmt.Sprintf("a wrong guess, number %d", n)); got != harness.Rejected {
			t.Errorf("a guess at %s: %v (%s), want rejected", login, got, detail)
		}
		return time.Since(begun)
	}
	const floor = 100 * time.Millisecond
	harness.WaitFor(t, "refusals to have nothing to hide", func() bool { return guess(clients["ldap"], "nobody") < floor/2 })

	hash, err := bcrypt.GenerateFromPassword([]byte("chosen by a person"), 8)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(harness.Dir(t), "users.csv")
	if err := os.WriteFile(file, fmt.Appendf(nil, "login,label,hash\ncarol,phone,%s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Must(t, "import", "csv", file, "--apply")
	harness.WaitFor(t, "the floor", func() bool { return guess(clients["ldap"], "nobody") >= floor })
	for range 3 {
		guess(clients["ldap"], "carol") // what it costs here is learned
	}
	for name, connect := range clients {
		fastest := map[string]time.Duration{}
		for range 8 {
			for _, login := range []string{"nobody", "alice", "carol"} {
				took := guess(connect, login)
				if took < floor {
					t.Errorf("%s: a guess at %s was answered after %v, want %v at least", name, login, took, floor)
				}
				if fastest[login] == 0 || took < fastest[login] {
					fastest[login] = took
				}
			}
		}
		times := []time.Duration{fastest["nobody"], fastest["alice"], fastest["carol"]}
		t.Logf("%s: no account %v, without imported hashes %v, with one %v", name, times[0], times[1], times[2])
		if slices.Max(times)-slices.Min(times) > 10*time.Millisecond {
			t.Errorf("%s: the times tell who is there", name)
		}
		c := connect()
		defer c.Close()
		quick := harness.Poll(harness.Patience, func() bool {
			begun := time.Now()
			got, detail := c.Login("alice", right)
			if got != harness.Accepted {
				t.Fatalf("%s: the right password: %v (%s)", name, got, detail)
			}
			return time.Since(begun) < floor/2
		})
		if !quick {
			t.Errorf("%s: the right password waits, too", name)
		}
	}
}
