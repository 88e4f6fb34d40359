package scenario

import (
	"bytes"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// A revocation of many that is interrupted says how far it came, and the same command goes on: every app password is revoked once.
func TestInterruptedRevocation(t *testing.T) {
	cluster := harness.NewCluster(t)
	dsn, name := cluster.Database(t)
	d := harness.StartDaemon(t, dsn)
	const many = 8000
	cluster.Exec(t, name, `INSERT INTO accounts (login, keyed) SELECT 'm' || n, 1 FROM generate_series(1, 10) n`)
	cluster.Exec(t, name, `INSERT INTO logins SELECT login, id FROM accounts`)
	cluster.Exec(t, name, `INSERT INTO app_passwords (account_id, label, label_key, services, phc, origin, created_by)
		SELECT id, 'mass ' || n, 'mass ' || n, '{wiki}', 'x', 'generated', 'root' FROM accounts, generate_series(1, 800) n`)

	args := []string{"--socket", d.Socket, "revoke", "--service", "wiki", "--label", "mass *", "--yes", "--why", "closed"}
	var out, errOut bytes.Buffer
	cmd := exec.Command(harness.Program(t, "valetkey"), args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the first to be revoked", func() bool { return d.Must(t, "list", "--revoked", "--limit", "1", "--jsonl") != "" })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code tells
	told := regexp.MustCompile(`(\d+) app passwords were revoked before this`).FindStringSubmatch(errOut.String())
	if cmd.ProcessState.ExitCode() != 3 || told == nil || !strings.Contains(errOut.String(), "the same command goes on") {
		t.Fatalf("interrupted, valetkey revoke ended with %d\n%s%s", cmd.ProcessState.ExitCode(), &out, &errOut)
	}
	first, _ := strconv.Atoi(told[1])
	left := strings.Count(d.Must(t, "list", "--service", "wiki", "--jsonl"), "\n")
	// The call that was under way may have been carried out, although nobody heard of it.
	if done := many - left; done < first || done > first+100 || left == 0 {
		t.Fatalf("%d are revoked, and it said %d; %d are left", done, first, left)
	}
	rest := strings.TrimSpace(d.Must(t, args[2:]...))
	if want := strconv.Itoa(left) + " app passwords are revoked"; rest != want {
		t.Errorf("the same command again = %q, want %q", rest, want)
	}
	cluster.Exec(t, name, `DO $$ BEGIN
		ASSERT (SELECT count(*) = 8000 AND count(DISTINCT app_password_id) = 8000 FROM events WHERE kind = 'app_password.revoked'), 'one event for each';
		ASSERT (SELECT count(*) = 0 FROM app_passwords WHERE revoked_at IS NULL), 'all are revoked';
	END $$`)
}
