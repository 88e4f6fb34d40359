package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	_ "github.com/lib/pq" // "postgres"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/secret"
)

// daemon is valetkeyd with a private cluster, built from this checkout.
type daemon struct {
	process     *process
	stateDir    string
	ldapAddress string
	admin       *admin.Client
	db          *sql.DB
}

const daemonPackage = "github.com/valetkey/valetkey/cmd/valetkeyd"

func (d *daemon) dovecotSocket() string { return filepath.Join(d.stateDir, "run", "dovecot-auth") }
func (d *daemon) muxSocket() string     { return filepath.Join(d.stateDir, "run", "mux") }
func (d *daemon) helperSocket() string  { return filepath.Join(d.stateDir, "run", "checkpassword") }
func (d *daemon) adminSocket() string   { return filepath.Join(d.stateDir, "run", "admin.sock") }

// databaseURL is that of the private cluster, as store/cluster makes it.
func (d *daemon) databaseURL() string {
	q := url.Values{"host": {filepath.Join(d.stateDir, "postgres", "socket")}, "port": {"5432"}, "user": {"valetkey"}, "sslmode": {"disable"}}
	return "postgres:///valetkey?" + q.Encode()
}

// daemonConfig has the listeners that are measured, each where it is by default.
const daemonConfig = `state_dir = %q

[[dovecot]]

[[saslauthd]]

[[checkpassword]]

[[ldap]]
listen = %q
`

// startDaemon builds valetkeyd and starts it, with more lines for the configuration, whose last section is LDAP's. It returns when the database is set up; the daemon is not nil if it was started,
// whatever the error.
func startDaemon(ctx context.Context, dir, more string) (*daemon, error) {
	progress("valetkeyd: building")
	build := exec.CommandContext(ctx, "go", "build", "-o", dir, daemonPackage)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	d := &daemon{stateDir: filepath.Join(dir, "state"), ldapAddress: address}
	d.admin = admin.NewClient(d.adminSocket())
	progress("valetkeyd: starting")
	config := filepath.Join(dir, "valetkeyd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, daemonConfig+"%s", d.stateDir, address, more), 0o600); err != nil {
		return nil, err
	}
	d.process, err = startProcess(dir, "valetkeyd", filepath.Join(dir, "valetkeyd"), "--config", config)
	if err != nil {
		return nil, err
	}
	if d.db, err = sql.Open("postgres", d.databaseURL()); err != nil {
		return d, err
	}
	return d, d.process.ready(ctx, func() error {
		// The pepper's id is the last thing that the daemon writes when it sets a database up.
		var peppers int
		if err := d.db.QueryRowContext(ctx, "SELECT count(*) FROM peppers").Scan(&peppers); err != nil {
			return err
		}
		if peppers == 0 {
			return errors.New("the database is not set up")
		}
		_, err := d.argon2(ctx)
		return err
	})
}

func (d *daemon) closeDatabase() {
	if d.db != nil {
		d.db.Close()
	}
}

// load makes the data set and writes it into the daemon's database, past the daemon.
func (d *daemon) load(ctx context.Context, creds []credential, each, logins int, reader credential) error {
	ring, created, err := secret.LoadRing(filepath.Join(d.stateDir, "pepper"))
	if err != nil {
		return err
	}
	if created {
		return errors.New("valetkeyd made no pepper file in its state directory")
	}
	set, err := newDataset(ctx, creds, each, logins, reader, ring)
	if err != nil {
		return err
	}
	progress("data set: writing %d accounts with %d app passwords", len(creds), len(creds)*each)
	if err := set.write(ctx, d.db); err != nil {
		return fmt.Errorf("write the data set: %w", err)
	}
	return nil
}

// argon2 is the number of slow hashes that the daemon has computed since it started.
func (d *daemon) argon2(ctx context.Context) (int64, error) {
	s, err := d.admin.Status(ctx)
	return s.Counters.Argon2, err
}

// profile applies a load of this concurrency and writes the daemon's CPU profile of the measured time to a file.
func (d *daemon) profile(ctx context.Context, o options, s server, connections int, to string) error {
	s.process.dropLog()
	var profile []byte
	taken := make(chan error, 1)
	begin := func() {
		go func() {
			var err error
			profile, err = d.admin.CPUProfile(ctx, max(1, int(o.seconds)))
			taken <- err
		}()
	}
	_, err := generate(ctx, s.target, load{
		connections: connections, credentials: o.logins, warmUp: seconds(o.warmUp), measure: seconds(o.seconds), grace: 30 * time.Second,
	}, begin, func() {})
	if err != nil {
		return fmt.Errorf("profile: %w", s.process.explain(ctx, err))
	}
	if err := <-taken; err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.WriteFile(to, profile, 0o644)
}

// coldPass logs every credential in once, which also warms the daemon's memo for what is measured.
func (d *daemon) coldPass(ctx context.Context, t target, logins int) (check, error) {
	before, err := d.argon2(ctx)
	if err != nil {
		return check{}, err
	}
	start := time.Now()
	if err := logInAll(ctx, d.process, t, logins); err != nil {
		return check{}, err
	}
	took := time.Since(start)
	after, err := d.argon2(ctx)
	if err != nil {
		return check{}, err
	}
	return check{
		Name: "Argon2 computations per cold login",
		Got:  fmt.Sprintf("%d for %d logins, %.0f logins/s", after-before, logins, float64(logins)/took.Seconds()),
		Want: "1",
		Met:  after-before == int64(logins),
	}, nil
}

// wrongGuesses tries well-formed wrong passwords, each once.
func (d *daemon) wrongGuesses(ctx context.Context, creds []credential, n int) (check, error) {
	before, err := d.argon2(ctx)
	if err != nil {
		return check{}, err
	}
	t := newDovecot("unix", d.dovecotSocket(), newGuesses(creds, n))
	start := time.Now()
	accepted, err := once(ctx, t, n, 16, func(done int) { progress("wrong guesses: %d of %d", done, n) })
	if err != nil {
		return check{}, fmt.Errorf("wrong guesses: %w", d.process.explain(ctx, err))
	}
	if accepted != 0 {
		return check{}, fmt.Errorf("wrong guesses: %d of %d were accepted", accepted, n)
	}
	took := time.Since(start)
	after, err := d.argon2(ctx)
	if err != nil {
		return check{}, err
	}
	return check{
		Name: "Argon2 computations for wrong guesses",
		Got:  fmt.Sprintf("%d for %d guesses, %.0f guesses/s", after-before, n, float64(n)/took.Seconds()),
		Want: "at most 1 in 1,000",
		Met:  (after-before)*1000 <= int64(n),
	}, nil
}
