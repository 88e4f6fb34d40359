package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	database = "valetkey" // also the name of the role that owns it and of the map in pg_ident.conf
	port     = "5432"     // part of the socket's name; nothing listens on it

	// maxSocketPath is what fits into sockaddr_un on Linux (unix(7)), without the final NUL.
	maxSocketPath = 107
)

// Times of the supervision.
const (
	restartDelay      = 100 * time.Millisecond // between attempts while the old processes leave
	restartDelayMax   = 5 * time.Second        // between attempts once it is clear that something else is wrong
	restartQuickTries = 50
	orphanPatience    = 10 // attempts before processes that do not leave by themselves are ended
	steadyAfter       = 10 * time.Second
	fastShutdown      = 10 * time.Second
	immediateShutdown = 5 * time.Second
)

// ErrInUse is wrapped when another process runs a cluster in the same directory.
var ErrInUse = errors.New("in use by another process")

// Config says where the cluster lives.
type Config struct {
	// Dir is the cluster's own directory. It is created if missing; its parent must exist. If this process is root, the
	// unprivileged user that runs Postgres must be able to enter every directory on the way.
	Dir string
	// Log receives events of the cluster and, within limits, what Postgres logs. Required.
	Log *slog.Logger
	// BinDir holds initdb and postgres. Empty: the newest in /usr/lib/postgresql/*/bin or PATH.
	BinDir string
	// StartTimeout bounds the wait until Postgres takes connections, crash recovery included. Zero: one minute.
	StartTimeout time.Duration
}

// Cluster is a running private Postgres cluster.
type Cluster struct {
	cfg     Config
	log     *slog.Logger
	dataDir string
	sockDir string
	owner   owner
	server  installation
	output  *serverLog
	lock    *os.File

	stopping chan struct{} // closed by Stop
	done     chan struct{} // closed when the supervisor has ended, and with it the last postmaster
	started  chan error    // the first start's outcome, buffered

	mu      sync.Mutex
	process *os.Process // the current postmaster; nil between two
	stop    sync.Once
}

// Start makes the cluster at the first call and starts it; it returns when connections are taken. From then on a
// postmaster that dies is started again until [Cluster.Stop]. ctx bounds the start only.
//
// A server that an earlier process left behind in the directory, because it was killed, is ended first. A directory
// that another process uses is an error that wraps [ErrInUse]; missing server programs wrap [ErrNoServer].
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = time.Minute
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("private Postgres: %w", err)
	}
	c := &Cluster{
		cfg:      cfg,
		log:      cfg.Log,
		dataDir:  filepath.Join(dir, "data"),
		sockDir:  filepath.Join(dir, "socket"),
		output:   &serverLog{log: cfg.Log},
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
		started:  make(chan error, 1),
	}
	c.cfg.Dir = dir
	if err := c.start(ctx); err != nil {
		if c.lock != nil {
			c.lock.Close()
		}
		return nil, fmt.Errorf("private Postgres: %w", err)
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if path := filepath.Join(c.sockDir, ".s.PGSQL."+port); len(path) > maxSocketPath {
		return fmt.Errorf("the path of its socket, %s, is %d bytes long, but Unix sockets allow %d: choose a shorter state directory",
			path, len(path), maxSocketPath)
	}
	found, err := findInstallations(ctx, c.cfg.BinDir)
	if err != nil {
		return err
	}
	// 0711, whatever the umask: the owner of the data passes through; what is inside protects itself.
	err = os.Mkdir(c.cfg.Dir, 0o711)
	if err == nil {
		err = os.Chmod(c.cfg.Dir, 0o711)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := c.takeLock(); err != nil {
		return err
	}
	if c.owner, err = findOwner(c.dataDir); err != nil {
		return err
	}
	if err := c.owner.checkReach(ctx, found[0].program("postgres"), c.cfg.Dir); err != nil {
		return err
	}
	if c.server, err = chooseInstallation(found, c.dataDir); err != nil {
		return err
	}
	if err := c.owner.makeDir(c.sockDir); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	if err := c.writeAccessRules(); err != nil {
		return err
	}
	if err := c.initialise(ctx); err != nil {
		return err
	}
	n, err := removeLeftOver(ctx, c.dataDir, c.sockDir)
	if err != nil {
		return err
	}
	if n > 0 {
		c.log.Warn("ended a Postgres that an earlier daemon left behind", "dir", c.dataDir, "processes", n)
	}

	go c.supervise()
	timeout := time.NewTimer(c.cfg.StartTimeout)
	defer timeout.Stop()
	select {
	case err := <-c.started:
		if err == nil {
			return nil
		}
		<-c.done
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = fmt.Errorf("it does not take connections after %v: %s", c.cfg.StartTimeout, c.output.tail())
	}
	_ = c.end(ctx)
	return err
}

// takeLock makes sure that one process at a time deals with the directory. The lock ends with the process, however it
// ends, and is not inherited by Postgres.
func (c *Cluster) takeLock() error {
	f, err := os.OpenFile(filepath.Join(c.cfg.Dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("%s is %w: stop the other valetkeyd, or give this one a state directory of its own", c.cfg.Dir, ErrInUse)
		}
		return fmt.Errorf("lock %s: %w", c.cfg.Dir, err)
	}
	c.lock = f
	return nil
}

// URL is where the database is, in the form that lib/pq takes. It holds no password: Postgres knows us by the user id
// on the other end of the socket.
func (c *Cluster) URL() string {
	q := url.Values{"host": {c.sockDir}, "port": {port}, "user": {database}, "sslmode": {"disable"}}
	return "postgres:///" + database + "?" + q.Encode()
}

// PID returns the process id of the postmaster, or 0 between two.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return 0
	}
	return c.process.Pid
}

// writeAccessRules writes pg_hba.conf and pg_ident.conf, anew at each start so that they suit the user that the daemon
// now runs as. If the daemon is root, Postgres runs as another user, and "peer" alone would look for a role "root":
// the map lets both users act as the owner of the database, and as superuser for maintenance by hand. Nobody else gets
// as far as this, since the socket's directory is closed to all but the owner and root.
func (c *Cluster) writeAccessRules() error {
	var ident strings.Builder
	for _, name := range uniq(c.owner.self, c.owner.name) {
		for _, role := range []string{database, "postgres"} {
			fmt.Fprintf(&ident, "%s %s %s\n", database, quoteConf(name), role)
		}
	}
	hba := "local all " + database + " peer map=" + database + "\n" +
		"local all postgres peer map=" + database + "\n"
	for name, text := range map[string]string{"pg_hba.conf": hba, "pg_ident.conf": ident.String()} {
		path := filepath.Join(c.cfg.Dir, name)
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		// A restrictive umask must not keep the owner from reading it; there is nothing secret in it.
		if err := os.Chmod(path+".new", 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func uniq(a, b string) []string {
	if a == b {
		return []string{a}
	}
	return []string{a, b}
}

// quoteConf quotes a name for pg_hba.conf and pg_ident.conf, where a quote is doubled.
func quoteConf(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// initialise makes the data directory unless there is one. It is built under another name and renamed when complete:
// whatever ends the daemon meanwhile, the next start finds either a whole cluster or none.
func (c *Cluster) initialise(ctx context.Context) error {
	half, _ := filepath.Glob(filepath.Join(c.cfg.Dir, "data.init-*")) // fails only for a bad pattern
	for _, path := range half {
		killOrphans(path) // initdb's own child, if the daemon was killed meanwhile
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove half-made cluster: %w", err)
		}
	}
	if _, err := os.Stat(filepath.Join(c.dataDir, "PG_VERSION")); err == nil {
		return nil
	}
	if _, err := os.Stat(c.dataDir); err == nil {
		return fmt.Errorf("%s exists but is not a data directory of Postgres: move it away", c.dataDir)
	}
	begin := time.Now()
	dir, err := os.MkdirTemp(c.cfg.Dir, "data.init-")
	if err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := c.owner.makeDir(dir); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}

	// The thread must outlive the programs: see the parent-death signal in the package comment.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.run(ctx, dir, "", "initdb", "-D", dir, "-U", "postgres", "--encoding=UTF8", "--locale=C",
		"--data-checksums", "--auth-local=peer", "--auth-host=reject", "--no-instructions"); err != nil {
		return err
	}
	// Single-user mode needs neither socket nor authentication. CREATEDB, so that a restore can be tried beside the
	// original; no superuser, since the daemon needs none.
	statements := "CREATE ROLE " + database + " LOGIN CREATEDB;\n" +
		"CREATE DATABASE " + database + " OWNER " + database + ";\n"
	if err := c.run(ctx, dir, statements, "postgres", "--single", "-j", "-D", dir,
		"-c", "exit_on_error=on", "-c", "log_error_verbosity=terse", "postgres"); err != nil {
		return err
	}
	if err := os.Rename(dir, c.dataDir); err != nil {
		return fmt.Errorf("put the new cluster in place: %w", err)
	}
	if err := syncDir(c.cfg.Dir); err != nil {
		return fmt.Errorf("put the new cluster in place: %w", err)
	}
	c.log.Info("made a private Postgres cluster", "dir", c.dataDir, "version", c.server.major, "user", c.owner.name,
		"took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// run executes one of the server programs to its end.
func (c *Cluster) run(ctx context.Context, dir, stdin, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, c.server.program(program), args...)
	var out bytes.Buffer
	cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, environment(), c.owner.attr(syscall.SIGKILL)
	// -j reads one statement up to ";\n\n", several of which may stand in one input.
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(stdin, ";\n", ";\n\n"))
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		text := strings.Join(strings.Fields(out.String()), " ")
		if len(text) > 1000 {
			text = text[len(text)-1000:]
		}
		return fmt.Errorf("run %s: %w: %s", program, err, text)
	}
	return nil
}

// environment is all that the programs inherit: a PGDATA or PGPORT of the daemon's must not reach them.
func environment() []string { return []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/bin:/bin"} }

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// arguments of the postmaster. They are given at each start rather than written into the data directory, so that a new
// version of the daemon may change them.
func (c *Cluster) arguments() []string {
	args := []string{"-D", c.dataDir}
	for _, s := range []string{
		"listen_addresses=",
		"port=" + port,
		"unix_socket_directories=" + quoteList(c.sockDir),
		"unix_socket_permissions=0700",
		"hba_file=" + filepath.Join(c.cfg.Dir, "pg_hba.conf"),
		"ident_file=" + filepath.Join(c.cfg.Dir, "pg_ident.conf"),
		"cluster_name=valetkey",
		"max_connections=50",
		"shared_buffers=64MB",
		"max_wal_size=256MB",
		"min_wal_size=64MB",
		"max_wal_senders=2",
		"max_parallel_workers_per_gather=0",
		"autovacuum_max_workers=2",
		"fsync=on",
		"full_page_writes=on",
		"synchronous_commit=on",
		"timezone=UTC",
		"log_timezone=UTC",
		"lc_messages=C",
		"logging_collector=off",
		"log_destination=stderr",
		"log_line_prefix=",
		// DETAIL lines quote the values of a row that breaks a constraint, hashes included.
		"log_error_verbosity=terse",
		"log_min_error_statement=panic",
	} {
		args = append(args, "-c", s)
	}
	return args
}

// quoteList quotes one element of a setting that is a comma-separated list.
func quoteList(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// supervise starts the postmaster and starts it again whenever it dies, until Stop.
func (c *Cluster) supervise() {
	// Never unlocked: the thread ends with the goroutine, at a time when no postmaster runs.
	runtime.LockOSThread()
	defer close(c.done)
	first := true
	failures := 0
	delay := restartDelay
	for {
		begin := time.Now()
		ready, err := c.runPostmaster(first)
		first = first && !ready
		if c.isStopping() {
			return
		}
		if first && failures >= restartQuickTries {
			c.started <- fmt.Errorf("start postgres: %w: %s", err, c.output.tail())
			return
		}

		var wait time.Duration
		switch up := time.Since(begin); {
		case ready && up >= steadyAfter:
			failures, delay, wait = 0, restartDelay, 0
			c.log.Error("Postgres ended unexpectedly, starting it again", "error", err, "up", up.Round(time.Millisecond))
		case ready:
			// It came up, so what ended it came from outside. Still no endless loop at full speed.
			failures, wait = 0, delay
			delay = min(delay*2, restartDelayMax)
			if up > time.Second {
				wait = 0
			}
			c.log.Error("Postgres ended unexpectedly, starting it again", "error", err, "up", up.Round(time.Millisecond))
		default:
			// It did not come up. After a crash that is so until the processes of the old one have left.
			failures++
			wait = restartDelay
			if failures == 1 {
				c.log.Warn("Postgres does not start yet", "error", err, "last", c.output.tail())
			}
			if failures%orphanPatience == 0 && c.pidFileDead() {
				if n := killOrphans(c.dataDir); n > 0 {
					c.log.Warn("ended Postgres processes that outlived their postmaster", "processes", n)
				}
			}
			if failures > restartQuickTries {
				wait = delay
				delay = min(delay*2, restartDelayMax)
				c.log.Error("Postgres does not start", "error", err, "attempts", failures, "last", c.output.tail())
			}
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-c.stopping:
				t.Stop()
			}
		}
		if c.isStopping() {
			return
		}
	}
}

func (c *Cluster) isStopping() bool {
	select {
	case <-c.stopping:
		return true
	default:
		return false
	}
}

// pidFileDead reports that no postmaster of ours is alive, so that what else runs on the data directory is orphaned.
func (c *Cluster) pidFileDead() bool {
	f, err := readPidFile(c.dataDir)
	return err != nil || !isPostgresOf(f.pid, c.dataDir)
}

// runPostmaster starts one postmaster and waits for its end. ready says that it took connections.
func (c *Cluster) runPostmaster(first bool) (ready bool, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(c.server.program("postgres"), c.arguments()...)
	cmd.Dir, cmd.Env = c.cfg.Dir, environment()
	// On the daemon's death a fast shutdown: Postgres ends its sessions and leaves a clean directory.
	cmd.SysProcAttr = c.owner.attr(syscall.SIGINT)
	// Files, not writers: Wait must not wait for orphans that still hold the pipe.
	cmd.Stdout, cmd.Stderr = w, w

	c.mu.Lock()
	if c.isStopping() {
		c.mu.Unlock()
		r.Close()
		w.Close()
		return false, errors.New("stopping")
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		c.mu.Unlock()
		r.Close()
		return false, err
	}
	c.process = cmd.Process
	c.mu.Unlock()
	go c.output.copy(r)

	ended := make(chan struct{})
	isReady := make(chan bool, 1)
	go func() { isReady <- c.waitReady(cmd.Process.Pid, first, ended) }()
	err = cmd.Wait()
	close(ended)
	c.mu.Lock()
	c.process = nil
	c.mu.Unlock()
	if err == nil {
		err = errors.New("exit status 0")
	}
	return <-isReady, err
}

// waitReady polls until the postmaster takes connections or has ended.
func (c *Cluster) waitReady(pid int, first bool, ended <-chan struct{}) bool {
	begin := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := readPidFile(c.dataDir)
		if err == nil && f.pid == pid && f.status == "ready" {
			c.log.Info("private Postgres takes connections", "dir", c.dataDir, "version", c.server.major,
				"pid", strconv.Itoa(pid), "took", time.Since(begin).Round(time.Millisecond))
			if first {
				c.started <- nil
			}
			return true
		}
		select {
		case <-ended:
			return false
		case <-tick.C:
		}
	}
}

// Stop ends the cluster: open sessions are cut, the data is written out, and the directory is free for another
// process. It is bounded also when Postgres is frozen: after ctx or 10 seconds the shutdown becomes immediate, then
// forced, which costs the next start a recovery but no data. The error says that this happened. Calling it again waits
// for the first call to take effect.
func (c *Cluster) Stop(ctx context.Context) error {
	if err := c.end(ctx); err != nil {
		return fmt.Errorf("stop private Postgres: %w", err)
	}
	return nil
}

func (c *Cluster) end(ctx context.Context) (err error) {
	c.stop.Do(func() {
		// Under the lock: a postmaster is either seen by the signals below or not started any more.
		c.mu.Lock()
		close(c.stopping)
		c.mu.Unlock()
		err = c.shutDown(ctx)
		if n := killOrphans(c.dataDir); n > 0 {
			c.log.Warn("ended Postgres processes that outlived their postmaster", "processes", n)
		}
		c.lock.Close() // gives the directory free
	})
	<-c.done
	return err
}

func (c *Cluster) shutDown(ctx context.Context) error {
	c.signal(syscall.SIGINT)
	t := time.NewTimer(fastShutdown)
	defer t.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
	case <-t.C:
	}
	c.signal(syscall.SIGQUIT)
	t.Reset(immediateShutdown)
	select {
	case <-c.done:
		return errors.New("it did not end in time, an immediate shutdown was needed")
	case <-t.C:
	}
	c.signal(syscall.SIGKILL)
	<-c.done
	return errors.New("it did not react and was killed")
}

func (c *Cluster) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		_ = c.process.Signal(sig) // fails only if it has ended
	}
}
