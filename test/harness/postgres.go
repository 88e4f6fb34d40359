package harness

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lib/pq"
)

// DatabasePassword protects every database of [Cluster]. It is a canary: it must occur in no log and no process list.
const DatabasePassword = "canary-dbpw-7f3kq"

// Cluster is a Postgres server of the test's own, on a Unix socket only. The role valetkey logs in with
// [DatabasePassword]; the role postgres, for the test alone, without.
type Cluster struct {
	owner testing.TB
	dir   string
	cred  *syscall.Credential // nil: as ourselves
	proc  *Process
}

// NewCluster makes and starts one. It is stopped and removed at the end of the test.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{owner: t, dir: Dir(t)}
	if os.Geteuid() == 0 {
		uid, gid := account(t, "postgres", PostgresServer)
		c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(c.dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	initdb := c.command(t, "initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if code, out, errOut := Run(t, "", initdb); code != 0 {
		t.Fatalf("initdb: exit code %d\n%s%s", code, out, errOut)
	}
	hba := "local all postgres trust\nlocal all all scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(c.data(), "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Start(t)
	c.Exec(t, "postgres", "CREATE ROLE valetkey LOGIN PASSWORD "+pq.QuoteLiteral(DatabasePassword))
	return c
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(t testing.TB, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(program(t, PostgresServer, name), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	return cmd
}

// Start starts the server and waits until it accepts connections. It returns the moment at which it did. Start after
// [Cluster.Kill] is a recovery after a crash.
func (c *Cluster) Start(t testing.TB) time.Time {
	t.Helper()
	// Durability against a crash of the machine is not under test, and is what takes the time.
	c.proc = Start(t, c.owner, "postgres", c.command(t, "postgres", "-D", c.data(), "-k", c.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=16MB", "-c", "logging_collector=off"))
	proc := c.proc
	c.owner.Cleanup(func() {
		// A fast shutdown: one by SIGKILL would leave its System V shared memory behind.
		proc.Signal(syscall.SIGINT)
		proc.Wait(5 * time.Second)
	})
	return c.WaitAccepting(t)
}

// WaitAccepting waits until the server accepts connections, and returns the moment at which it did.
func (c *Cluster) WaitAccepting(t testing.TB) time.Time {
	t.Helper()
	db := c.open(t, "postgres", "postgres")
	defer db.Close()
	WaitFor(t, "Postgres to accept connections", func() bool {
		if !c.proc.Running() {
			t.Fatalf("postgres ended:\n%s", c.proc.Log)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return db.PingContext(ctx) == nil
	})
	return time.Now()
}

// Kill ends the postmaster with SIGKILL and waits until its children have noticed.
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	c.proc.Kill()
	WaitFor(t, "the backends to end after their postmaster", func() bool { return len(ProcessesIn(c.data())) == 0 })
}

// Freeze stops every process of the server with SIGSTOP: its sockets stay open and mute. The returned function lets them go on.
func (c *Cluster) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	// The postmaster first, so that no backend is started after the list was made.
	c.proc.Signal(syscall.SIGSTOP)
	pids := ProcessesIn(c.data())
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	thaw = func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// KillBackend ends one backend that serves a client in database with SIGKILL. The postmaster then ends all others and recovers.
func (c *Cluster) KillBackend(t testing.TB, database string) {
	t.Helper()
	db := c.open(t, "postgres", "postgres")
	defer db.Close()
	var pid int
	err := db.QueryRow("SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' ORDER BY backend_start LIMIT 1",
		database).Scan(&pid)
	if err != nil {
		t.Fatalf("find a backend: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill backend %d: %v", pid, err)
	}
}

var databases atomic.Int64

// Database makes an empty database and returns its URL, which holds [DatabasePassword], and its name.
func (c *Cluster) Database(t testing.TB) (dsn, name string) {
	t.Helper()
	name = fmt.Sprintf("test%d", databases.Add(1))
	c.Exec(t, "postgres", "CREATE DATABASE "+name+" OWNER valetkey")
	u := url.URL{Scheme: "postgres", User: url.UserPassword("valetkey", DatabasePassword), Path: "/" + name,
		RawQuery: url.Values{"host": {c.dir}, "sslmode": {"disable"}}.Encode()}
	return u.String(), name
}

// Exec runs a statement as the superuser.
func (c *Cluster) Exec(t testing.TB, database, statement string) {
	t.Helper()
	db := c.open(t, "postgres", database)
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("exec in database %s: %v", database, err)
	}
}

// Dump returns the whole content of a database as pg_dump prints it.
func (c *Cluster) Dump(t testing.TB, database string) string {
	t.Helper()
	code, out, errOut := Run(t, "", c.command(t, "pg_dump", "-h", c.dir, "-U", "postgres", "--inserts", database))
	if code != 0 {
		t.Fatalf("pg_dump: exit code %d\n%s", code, errOut)
	}
	return out
}

func (c *Cluster) open(t testing.TB, role, database string) *sql.DB {
	t.Helper()
	connector, err := pq.NewConnector(strings.Join([]string{"host=" + c.dir, "user=" + role, "dbname=" + database,
		"sslmode=disable", "connect_timeout=2"}, " "))
	if err != nil {
		t.Fatal(err)
	}
	return sql.OpenDB(connector)
}
