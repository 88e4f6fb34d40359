package harness

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// MariaDB is the server in whose tables mailcow and PostfixAdmin keep their users.
var MariaDB = Peer{"mariadbd", "mariadb-server"}

// Tables is a MariaDB of the test's own, on a Unix socket in its own directory.
type Tables struct {
	socket string
}

// NewTables starts one.
func NewTables(t testing.TB) *Tables {
	t.Helper()
	dir := Dir(t)
	data := filepath.Join(dir, "data")
	s := &Tables{socket: filepath.Join(dir, "my.sock")}
	install := exec.Command(program(t, MariaDB, "mariadb-install-db"), "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal",
		"--skip-test-db", "--user=root")
	if code, out, errOut := Run(t, "", install); code != 0 {
		t.Fatalf("mariadb-install-db: exit code %d\n%s%s", code, out, errOut)
	}
	// What it holds is gone with the test: there is nothing to be kept from a crash.
	server := exec.Command(program(t, MariaDB, "mariadbd"), "--no-defaults", "--user=root", "--datadir="+data, "--socket="+s.socket,
		"--skip-networking", "--pid-file="+filepath.Join(dir, "pid"), "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M",
		"--character-set-server=utf8mb4")
	server.Dir = dir
	Start(t, t, "mariadbd", leashed(t, server))
	WaitFor(t, "MariaDB to answer", func() bool {
		code, _, _ := Run(t, "SELECT 1;", s.command(t, "mariadb"))
		return code == 0
	})
	return s
}

func (s *Tables) command(t testing.TB, name string, args ...string) *exec.Cmd {
	return exec.Command(program(t, MariaDB, name), append([]string{"--no-defaults", "--socket=" + s.socket, "--user=root"}, args...)...)
}

// Query runs statements as the client mariadb does in batch mode, and returns what it printed: tabs, with a header.
func (s *Tables) Query(t testing.TB, database, statements string) string {
	t.Helper()
	args := []string{"--batch", "--default-character-set=utf8mb4"}
	if database != "" {
		args = append(args, database)
	}
	code, out, errOut := Run(t, statements, s.command(t, "mariadb", args...))
	if code != 0 {
		t.Fatalf("mariadb: exit code %d\n%s", code, errOut)
	}
	return out
}

// Dump returns what mysqldump writes of a database.
func (s *Tables) Dump(t testing.TB, database string, args ...string) string {
	t.Helper()
	code, out, errOut := Run(t, "", s.command(t, "mariadb-dump", append(args, database)...))
	if code != 0 {
		t.Fatalf("mariadb-dump: exit code %d\n%s", code, errOut)
	}
	return out
}
