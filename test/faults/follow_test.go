package faults_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestFollowSurvivesRestarts follows the audit log while the daemon is stopped, killed and started again, and the database with it. Every
// event is printed once, also those of the moments when nobody could be asked.
func TestFollowSurvivesRestarts(t *testing.T) {
	cluster := harness.NewCluster(t)
	dsn, _ := cluster.Database(t)
	d := harness.StartDaemon(t, dsn)
	d.AddAccount(t, "before")

	cmd := exec.Command(harness.Program(t, "valetkey"), "--socket", d.Socket, "events", "--follow", "--json", "--kind", "account.added")
	follower := harness.Start(t, t, "valetkey events", cmd)
	var want []string
	seen := func() (logins []string) {
		for line := range strings.Lines(follower.Log.String()) {
			var e struct{ Kind, Login string }
			if json.Unmarshal([]byte(line), &e) == nil && e.Login != "" {
				logins = append(logins, e.Login)
			}
		}
		return logins
	}
	add := func(login string) {
		t.Helper()
		d.AddAccount(t, login)
		want = append(want, login)
	}
	wait := func(when string) {
		t.Helper()
		if !harness.Poll(harness.Patience, func() bool { return len(seen()) >= len(want) }) {
			t.Fatalf("%s: the follower has printed %v, want %v\n%s", when, seen(), want, follower.Log)
		}
	}
	want = append(want, "before")
	wait("what was there")
	for round := range 3 {
		add(fmt.Sprint("running", round))
		wait("while it runs")
		switch round {
		case 0:
			d.Stop(t)
		case 1:
			d.Process().Kill()
		case 2:
			cluster.Kill(t)
			cluster.Start(t)
		}
		if round < 2 {
			// What another daemon would write meanwhile.
			cluster.Exec(t, databaseName(dsn), fmt.Sprintf("INSERT INTO events (kind, actor, login) VALUES ('account.added', 'other', 'away%d')", round))
			want = append(want, fmt.Sprint("away", round))
			d.Start(t)
		}
		harness.WaitFor(t, "the daemon to have its database again", func() bool { code, _, _ := d.Valetkey(t, "", "status"); return code == 0 })
		add(fmt.Sprint("again", round))
		wait("after the restart")
	}
	if got := seen(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the follower printed %v, want %v", got, want)
	}
	if !follower.Running() {
		t.Errorf("the follower ended:\n%s", follower.Log)
	}
	for _, text := range []string{"waiting for it", "going on"} {
		if !strings.Contains(follower.Log.String(), text) {
			t.Errorf("the follower does not say %q:\n%s", text, follower.Log)
		}
	}
}

// databaseName is the path of a database's URL.
func databaseName(dsn string) string {
	path, _, _ := strings.Cut(dsn, "?")
	return path[strings.LastIndex(path, "/")+1:]
}
