package faults_test

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	_ "github.com/lib/pq" // the driver "postgres"

	"github.com/valetkey/valetkey/test/harness"
)

// TestImportInterrupted stops the daemon in the middle of an import of 10,000 rows, with SIGKILL, with SIGTERM, and last the command
// itself, starts the daemon and the same command again, and wants each app password once.
//
// It would catch: a part that is taken over by halves, one that is taken over twice when its answer was lost, and an import that
// cannot be taken up again.
func TestImportInterrupted(t *testing.T) {
	t.Parallel()
	const rows = 10_000
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()

	var text strings.Builder
	text.WriteString("id,login,label,hash,services\n")
	for i := range rows {
		salt := fmt.Sprintf("salt%d", i)
		sum := sha256.Sum256([]byte("secret" + salt))
		fmt.Fprintf(&text, "%d,user%05d,phone,{SSHA256}%s,imap smtp\n", i, i/2, base64.StdEncoding.EncodeToString(append(sum[:], salt...)))
	}
	file := filepath.Join(harness.Dir(t), "users.csv")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		if err := db.QueryRow("SELECT count(*) FROM app_passwords").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	command := func() (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(harness.Program(t, "valetkey"), "--socket", d.Socket, "import", "csv", file, "--apply")
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		return cmd, &errOut
	}

	for _, step := range []struct {
		name string
		end  func(cmd *exec.Cmd)
		code int
	}{
		{"daemon killed", func(*exec.Cmd) { d.Process().Kill() }, 3},
		{"daemon stopped", func(*exec.Cmd) { d.Process().Signal(syscall.SIGTERM) }, 3},
		{"command killed", func(cmd *exec.Cmd) { cmd.Process.Kill() }, -1},
	} {
		before := count()
		cmd, errOut := command()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		harness.WaitFor(t, "the import to get going", func() bool { return count() > before })
		step.end(cmd)
		cmd.Wait()
		after := count()
		if code := cmd.ProcessState.ExitCode(); code != step.code && !(after == rows && code == 0) {
			t.Errorf("%s: valetkey import ended with %d, want %d: %s", step.name, code, step.code, errOut)
		}
		if step.code == 3 && !strings.Contains(errOut.String(), "run the same command again") && after < rows {
			t.Errorf("%s: the command says nothing of running it again: %s", step.name, errOut)
		}
		t.Logf("%s after %d of %d rows", step.name, after, rows)
		if step.code == 3 {
			if _, ok := d.Process().Wait(harness.Patience); !ok {
				t.Fatalf("%s: valetkeyd still runs", step.name)
			}
			d.Start(t)
		}
	}
	cmd, errOut := command()
	if err := cmd.Run(); err != nil {
		t.Fatalf("the last import: %v\n%s", err, errOut)
	}
	var all, distinct, accounts, events int
	if err := db.QueryRow(`SELECT count(*), count(DISTINCT import_key), count(DISTINCT account_id),
		(SELECT count(*) FROM events WHERE kind = 'app_password.created') FROM app_passwords`).Scan(&all, &distinct, &accounts, &events); err != nil {
		t.Fatal(err)
	}
	if all != rows || distinct != rows || accounts != rows/2 || events != rows {
		t.Errorf("there are %d app passwords, %d different ones, %d accounts, %d events; want %d, %d, %d, %d", all, distinct, accounts, events, rows, rows, rows/2, rows)
	}
}
