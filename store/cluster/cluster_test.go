package cluster

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq"
)

// helperDir makes the test binary act as a daemon that runs a cluster in the directory until it is killed.
const helperDir = "VALETKEY_TEST_CLUSTER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		c, err := Start(context.Background(), Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("ready", c.PID())
		select {}
	}
	os.Exit(m.Run())
}

// syncBuffer is a log that tests may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// tempDir is a directory with a short path that an unprivileged user may enter; t.TempDir is neither.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "vk")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t *testing.T, dir string) (*Cluster, *syncBuffer) {
	t.Helper()
	log := &syncBuffer{}
	c, err := Start(t.Context(), Config{Dir: dir, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatalf("Start: %v\n%s", err, log)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
	return c, log
}

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func query[T any](t *testing.T, db *sql.DB, q string) T {
	t.Helper()
	var v T
	if err := db.QueryRowContext(t.Context(), q).Scan(&v); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return v
}

// eventually polls, since the moment of a restart is not ours to know.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not so within 30 seconds: %s", what)
}

func TestClusterLife(t *testing.T) {
	dir := filepath.Join(tempDir(t), "pg")
	c, _ := start(t, dir)
	db := open(t, c.URL())

	for setting, want := range map[string]string{
		"fsync": "on", "listen_addresses": "", "data_checksums": "on", "server_encoding": "UTF8",
		"unix_socket_permissions": "0700", "log_error_verbosity": "terse", "is_superuser": "off",
	} {
		if got := query[string](t, db, "SELECT current_setting('"+setting+"')"); got != want {
			t.Errorf("setting %s = %q, want %q", setting, got, want)
		}
	}
	if got := query[string](t, db, "SELECT datcollate FROM pg_database WHERE datname = current_database()"); got != "C" {
		t.Errorf("collation = %q, want C", got)
	}
	if _, err := db.Exec("CREATE TABLE kept (x int); INSERT INTO kept VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"data": 0o700, "socket": 0o700} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %o, want %o", name, got, want)
		}
		if os.Geteuid() == 0 && st.Sys().(*syscall.Stat_t).Uid == 0 {
			t.Errorf("%s belongs to root", name)
		}
	}
	// Nobody but the daemon's user and the cluster's gets in.
	if other := open(t, strings.Replace(c.URL(), "user=valetkey", "user=nobody", 1)); other.Ping() == nil {
		t.Error("role nobody could connect")
	}

	if _, err := Start(t.Context(), Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrInUse) {
		t.Errorf("second Start = %v, want ErrInUse", err)
	}

	if err := c.Stop(t.Context()); err != nil {
		t.Fatalf("Stop: %v", err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Errorf("second Stop = %v, want nil", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data/postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("postmaster.pid after Stop: %v, want that it is gone", err)
	}
	c, _ = start(t, dir)
	if got := query[int](t, open(t, c.URL()), "SELECT x FROM kept"); got != 7 {
		t.Errorf("kept value after a restart = %d, want 7", got)
	}
}

func TestPostmasterKilled(t *testing.T) {
	c, log := start(t, filepath.Join(tempDir(t), "pg"))
	db := open(t, c.URL())
	for range 3 {
		pid := c.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a new postmaster answers", func() bool { return c.PID() != pid && db.Ping() == nil })
	}
	if !strings.Contains(log.String(), "ended unexpectedly") {
		t.Errorf("log does not tell of the restart:\n%s", log)
	}
}

func TestPostmasterKilledFrozenBackend(t *testing.T) {
	c, log := start(t, filepath.Join(tempDir(t), "pg"))
	db := open(t, c.URL())
	backend := query[int](t, db, "SELECT pg_backend_pid()")
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pid := c.PID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	other := open(t, c.URL())
	eventually(t, "a new postmaster answers", func() bool { return c.PID() != pid && other.Ping() == nil })
	if !strings.Contains(log.String(), "outlived their postmaster") {
		t.Errorf("log does not tell of the orphan:\n%s", log)
	}
}

func TestStopFrozen(t *testing.T) {
	dir := filepath.Join(tempDir(t), "pg")
	log := &syncBuffer{}
	c, err := Start(t.Context(), Config{Dir: dir, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range serverProcesses(c.dataDir) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Stop(ctx); err == nil {
		t.Error("Stop of a frozen Postgres = nil, want an error that says so")
	}
	eventually(t, "no process is left", func() bool { return len(serverProcesses(c.dataDir)) == 0 })
	start(t, dir)
}

// helper starts the test binary as a daemon and returns it with the process id of its postmaster.
func helper(t *testing.T, dir string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	buf := make([]byte, 4096)
	n, err := out.Read(buf)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(string(buf[:n])), "ready "))
	if err != nil {
		t.Fatalf("helper says %q", buf[:n])
	}
	return cmd, pid
}

func TestDaemonKilled(t *testing.T) {
	dir := filepath.Join(tempDir(t), "pg")
	start1, _ := helper(t, dir)
	start1.Process.Kill()
	start1.Wait()
	// The death signal has begun the shutdown; the next start has to wait for it.
	c, _ := start(t, dir)
	if err := open(t, c.URL()).Ping(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Without a new start it ends by itself.
	daemon, pid := helper(t, dir)
	daemon.Process.Kill()
	daemon.Wait()
	eventually(t, "the postmaster ends with the daemon", func() bool { return !isPostgresOf(pid, c.dataDir) })
}

func TestLeftOver(t *testing.T) {
	dir := filepath.Join(tempDir(t), "pg")
	c, _ := start(t, dir)
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A postmaster of an earlier daemon that did not notice the death, or cannot react to it.
	for _, frozen := range []bool{false, true} {
		left := exec.Command(c.server.program("postgres"), c.arguments()...)
		left.Dir, left.Env, left.SysProcAttr = dir, environment(), c.owner.attr(0)
		if err := left.Start(); err != nil {
			t.Fatal(err)
		}
		go left.Wait()
		eventually(t, "the left-over is ready", func() bool {
			f, err := readPidFile(c.dataDir)
			return err == nil && f.pid == left.Process.Pid && f.status == "ready"
		})
		if frozen {
			if err := left.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		c, log := start(t, dir)
		if err := open(t, c.URL()).Ping(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), "left behind") {
			t.Errorf("log does not tell of the left-over:\n%s", log)
		}
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStalePidFile(t *testing.T) {
	tests := []struct{ name, content string }{
		{"empty", ""},
		{"id of another process", strconv.Itoa(os.Getpid()) + "\n"},
		{"rubbish", "x\ny\n"},
	}
	dir := filepath.Join(tempDir(t), "pg")
	c, _ := start(t, dir)
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A process of the same user as the server is the case that Postgres itself gives up at.
	bystander := exec.Command("/bin/sleep", "1000")
	bystander.SysProcAttr = c.owner.attr(0)
	bystander.Dir = "/"
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { bystander.Process.Kill(); bystander.Wait() }()
	tests = append(tests, struct{ name, content string }{"id of another process of the same user",
		strconv.Itoa(bystander.Process.Pid) + "\n" + filepath.Join(dir, "data") + "\n1\n5432\n" + dir + "\n\n  1 1\nready\n"})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"data/postmaster.pid", "socket/.s.PGSQL.5432.lock"} {
				path = filepath.Join(dir, path)
				if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
					t.Fatal(err)
				}
				if os.Geteuid() == 0 {
					if err := os.Chown(path, int(c.owner.uid), int(c.owner.gid)); err != nil {
						t.Fatal(err)
					}
				}
			}
			c, _ := start(t, dir)
			if err := c.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process was ended: %v", err)
	}
}

func TestHalfMade(t *testing.T) {
	dir := filepath.Join(tempDir(t), "pg")
	// As far as an interrupted initdb gets.
	if err := os.MkdirAll(filepath.Join(dir, "data.init-1/base"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data.init-1/PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Fatal("Start within 300 ms: nil, want it to be interrupted")
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data after an interrupted start: %v, want that it does not exist", err)
	}
	start(t, dir)
	if half, _ := filepath.Glob(filepath.Join(dir, "data.init-*")); len(half) != 0 {
		t.Errorf("left over: %v", half)
	}
}

func TestStartRefuses(t *testing.T) {
	tests := []struct {
		name   string
		config func(t *testing.T) Config
		want   []string
		root   bool // can happen to root only
	}{
		{name: "no programs", config: func(t *testing.T) Config {
			return Config{Dir: tempDir(t), BinDir: "/nonexistent"}
		}, want: []string{"no PostgreSQL server programs", "apt install postgresql"}},
		{name: "path too long", config: func(t *testing.T) Config {
			return Config{Dir: filepath.Join(tempDir(t), strings.Repeat("x", 100))}
		}, want: []string{"allow 107", "shorter"}},
		{name: "parent missing", config: func(t *testing.T) Config {
			return Config{Dir: filepath.Join(tempDir(t), "a/b")}
		}, want: []string{"no such file"}},
		{name: "data is something else", config: func(t *testing.T) Config {
			dir := tempDir(t)
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 {
				if err := os.Chown(filepath.Join(dir, "data"), 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
			return Config{Dir: dir}
		}, want: []string{"not a data directory"}},
		{name: "other major version", config: func(t *testing.T) Config {
			dir := tempDir(t)
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "data/PG_VERSION"), []byte("11\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 {
				if err := os.Chown(filepath.Join(dir, "data"), 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
			return Config{Dir: dir}
		}, want: []string{"made by PostgreSQL 11", "apt install postgresql-11"}},
		{name: "parent closed", root: true, config: func(t *testing.T) Config {
			dir := filepath.Join(tempDir(t), "closed")
			if err := os.MkdirAll(filepath.Join(dir, "state"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			return Config{Dir: filepath.Join(dir, "state/pg")}
		}, want: []string{"may not enter", "/closed:", "chmod o+x"}},
		{name: "data of root", root: true, config: func(t *testing.T) Config {
			dir := tempDir(t)
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			return Config{Dir: dir}
		}, want: []string{"belongs to root", "chown"}},
	}
	for _, tt := range tests {
		if tt.root && os.Geteuid() != 0 {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.config(t)
			cfg.Log = slog.New(slog.DiscardHandler)
			c, err := Start(t.Context(), cfg)
			if err == nil {
				c.Stop(t.Context())
				t.Fatal("Start = nil, want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Start = %q, want it to contain %q", err, want)
				}
			}
		})
	}
}

func TestParseMajor(t *testing.T) {
	tests := []struct {
		in   string
		want int
		ok   bool
	}{
		{"postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", 15, true},
		{"postgres (PostgreSQL) 17beta1", 17, true},
		{"postgres (PostgreSQL) 9.6.24", 9, true},
		{"postgres (PostgreSQL) ", 0, false},
		{"something else", 0, false},
	}
	for _, tt := range tests {
		got, err := parseMajor(tt.in)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseMajor(%q) = %d, %v, want %d, ok %v", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

func TestServerLogLimits(t *testing.T) {
	var out syncBuffer
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); l.copy(r) }()
	fmt.Fprintf(w, "FATAL:  %s\n", strings.Repeat("x", 100_000))
	for range 1000 {
		fmt.Fprintln(w, "WARNING:  again")
	}
	w.Close()
	<-done
	if n := len(out.String()); n > 200*keptLogLines*maxLogLinesBurst {
		t.Errorf("log is %d bytes long", n)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > maxLogLine+200 {
			t.Errorf("log line of %d bytes", len(line))
		}
	}
	// Within a second or two at most a burst each passes.
	if n := strings.Count(out.String(), "again"); n == 0 || n > 500 {
		t.Errorf("%d of 1000 lines passed", n)
	}
}
