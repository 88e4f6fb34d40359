package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The targets, in the order of the table.
const (
	echoUnixTarget = "echo-unix"
	echoTCPTarget  = "echo-tcp"
	slapdTarget    = "slapd"
	dovecotTarget  = "valetkey-dovecot"
	ldapTarget     = "valetkey-ldap"
)

var allTargets = []string{echoUnixTarget, echoTCPTarget, slapdTarget, dovecotTarget, ldapTarget}

// floors names the echo server that uses the same kind of socket and the same sizes.
var floors = map[string]string{
	echoUnixTarget: echoUnixTarget,
	echoTCPTarget:  echoTCPTarget,
	slapdTarget:    echoTCPTarget,
	dovecotTarget:  echoUnixTarget,
	ldapTarget:     echoTCPTarget,
}

// options are the flags.
type options struct {
	seconds        float64 // of measuring, a cell
	warmUp         float64 // seconds before that, a cell
	rounds         int
	connections    []int
	targets        []string
	accounts       int
	logins         int // accounts that log in
	guesses        int
	slapdPasswords int
	slapdLog       string
	profile        string
	json           bool
}

func parseOptions(args []string, out io.Writer) (options, error) {
	var (
		o              options
		conns, targets string
	)
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Float64Var(&o.seconds, "seconds", 5, "measure each cell for this long")
	fs.Float64Var(&o.warmUp, "warm-up", 0.5, "seconds of load before each measurement, not counted")
	fs.IntVar(&o.rounds, "rounds", 3, "measure all cells this often, in turn; the table shows medians")
	fs.StringVar(&conns, "conns", "1,8,64", "numbers of connections, one login in flight on each")
	fs.StringVar(&targets, "targets", strings.Join(allTargets, ","), "what to measure")
	fs.IntVar(&o.accounts, "accounts", 2000, "accounts with 25 app passwords each")
	fs.IntVar(&o.logins, "logins", 2000, "how many of the accounts log in, in turn; each costs two Argon2 computations of preparation")
	fs.IntVar(&o.guesses, "guesses", 20000, "wrong guesses to count the Argon2 computations of; 0: none")
	fs.IntVar(&o.slapdPasswords, "slapd-passwords", 1, "{SSHA} values of each account in slapd; one favours slapd")
	fs.StringVar(&o.slapdLog, "slapd-log", "0", "slapd's -d; \"stats\" makes it log each bind, as valetkeyd logs each login; 0 favours slapd")
	fs.StringVar(&o.profile, "profile", "", "write CPU profiles of valetkeyd at the highest concurrency to this path with .TARGET added")
	fs.BoolVar(&o.json, "json", false, "print JSON instead of the table")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	var faults []error
	if fs.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q", fs.Arg(0)))
	}
	for _, s := range strings.Split(conns, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1024 {
			faults = append(faults, fmt.Errorf("--conns: %q is not a number from 1 to 1024", s))
		}
		o.connections = append(o.connections, n)
	}
	for _, s := range strings.Split(targets, ",") {
		if !slices.Contains(allTargets, s) {
			faults = append(faults, fmt.Errorf("--targets: no target %q; there are %s", s, strings.Join(allTargets, ", ")))
		}
		o.targets = append(o.targets, s)
	}
	for _, n := range []struct {
		flag string
		ok   bool
	}{
		{"seconds", o.seconds > 0}, {"warm-up", o.warmUp >= 0}, {"rounds", o.rounds > 0},
		{"accounts", o.accounts > 0}, {"logins", o.logins > 0}, {"guesses", o.guesses >= 0}, {"slapd-passwords", o.slapdPasswords > 0},
	} {
		if !n.ok {
			faults = append(faults, fmt.Errorf("--%s: too small", n.flag))
		}
	}
	o.logins = min(o.logins, o.accounts)
	return o, errors.Join(faults...)
}

func (o options) want(targets ...string) bool {
	return slices.ContainsFunc(targets, func(t string) bool { return slices.Contains(o.targets, t) })
}

func main() {
	runtime.LockOSThread() // see startProcess
	if len(os.Args) > 1 && os.Args[1] == echoCommand {
		runtime.UnlockOSThread()
		fmt.Fprintln(os.Stderr, "bench:", serveEcho(os.Args[2:]))
		os.Exit(1)
	}
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	report, err := run(ctx, o)
	stop()
	if err == nil {
		err = report.write(os.Stdout, o.json)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// report is all that a run found out.
type report struct {
	Machine  string  `json:"machine"`
	Settings string  `json:"settings"`
	Rows     []row   `json:"rows"`
	Checks   []check `json:"checks"`
}

// write prints the report. Its error names the counted checks that were missed; missed goals of speed are no error.
func (r report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "%s\n%s\n\n", r.Machine, r.Settings)
		if err := writeTable(w, r.Rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
		writeChecks(w, r.Checks)
	}
	var missed []string
	for _, c := range r.Checks {
		if !c.Met && !c.Timed {
			missed = append(missed, c.Name)
		}
	}
	if missed != nil {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

// server is a running target.
type server struct {
	target  target
	process *process
}

func run(ctx context.Context, o options) (report, error) {
	rep := report{
		Machine: fmt.Sprintf("%s, %d cores, %s", cpuModel(), runtime.NumCPU(), runtime.Version()),
		Settings: fmt.Sprintf("%d accounts with %d app passwords each (slapd: %d, log level %s), %d accounts log in in turn; medians of %d rounds of %g s",
			o.accounts, passwordsPerAccount, o.slapdPasswords, o.slapdLog, o.logins, o.rounds, o.seconds),
		Checks: []check{},
	}
	dir, err := os.MkdirTemp("", "valetkey-bench-")
	if err != nil {
		return rep, err
	}
	defer os.RemoveAll(dir)
	// The private cluster may run as another user, who must get through to his own directory.
	if err := os.Chmod(dir, 0o711); err != nil {
		return rep, err
	}
	creds := newCredentials(o.accounts)
	servers := map[string]server{}
	defer func() {
		for _, p := range processesOf(servers) {
			p.stop()
		}
	}()
	if o.want(echoUnixTarget) {
		e := newDovecotEcho("unix", filepath.Join(dir, "echo.sock"), creds[:o.logins])
		if servers[echoUnixTarget], err = serveWith(ctx, dir, echoUnixTarget, e); err != nil {
			return rep, err
		}
	}
	if o.want(echoTCPTarget) {
		address, err := freeAddress()
		if err != nil {
			return rep, err
		}
		e := newLDAPEcho("tcp", address, creds[:o.logins])
		if servers[echoTCPTarget], err = serveWith(ctx, dir, echoTCPTarget, e); err != nil {
			return rep, err
		}
	}
	if o.want(slapdTarget) {
		progress("slapd: loading %d entries", len(creds))
		address, err := freeAddress()
		if err != nil {
			return rep, err
		}
		p, err := startSlapd(ctx, dir, address, creds, o.slapdPasswords, o.slapdLog)
		if p != nil {
			servers[slapdTarget] = server{newLDAP("tcp", address, creds[:o.logins]), p}
		}
		if err != nil {
			return rep, err
		}
	}
	var d *daemon
	if o.want(dovecotTarget, ldapTarget) {
		if d, err = startDaemon(ctx, dir); d != nil {
			defer d.closeDatabase()
			servers[dovecotTarget] = server{newDovecot("unix", d.dovecotSocket(), creds[:o.logins]), d.process}
			servers[ldapTarget] = server{newLDAP("tcp", d.ldapAddress, creds[:o.logins]), d.process}
		}
		if err != nil {
			return rep, err
		}
		if err := d.load(ctx, creds, o.logins); err != nil {
			return rep, err
		}
		cold, err := d.coldPass(ctx, servers[dovecotTarget].target, o.logins)
		if err != nil {
			return rep, err
		}
		rep.Checks = append(rep.Checks, cold)
	}

	m, err := measure(ctx, o, servers)
	if err != nil {
		return rep, err
	}
	rep.Rows = m.rows(o.targets, o.connections, floors)
	rep.Checks = append(rep.Checks, speedChecks(rep.Rows)...)
	if d != nil && o.guesses > 0 {
		guesses, err := d.wrongGuesses(ctx, creds, o.guesses)
		if err != nil {
			return rep, err
		}
		rep.Checks = append(rep.Checks, guesses)
	}
	if d != nil && o.profile != "" {
		for _, name := range []string{dovecotTarget, ldapTarget} {
			if !o.want(name) {
				continue
			}
			to := o.profile + "." + name
			if err := d.profile(ctx, o, servers[name], slices.Max(o.connections), to); err != nil {
				return rep, err
			}
			progress("profile: go tool pprof -top %s", to)
		}
	}
	return rep, nil
}

// measure fills the cells. Targets follow one another at each concurrency, so that what is compared is close in time;
// every other round goes backwards, so that a drift of the machine favours nobody.
func measure(ctx context.Context, o options, servers map[string]server) (measurements, error) {
	m := measurements{}
	for round := range o.rounds {
		for _, c := range o.connections {
			order := slices.Clone(o.targets)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, name := range order {
				x, err := measureCell(ctx, o, servers[name], c)
				if err != nil {
					return nil, fmt.Errorf("%s, %d connections: %w", name, c, err)
				}
				at := cell{name, c}
				m[at] = append(m[at], x)
				progress("round %d/%d  %-16s  %3d connections  %9s logins/s", round+1, o.rounds, name, c, thousands(x.perSecond))
			}
		}
	}
	return m, nil
}

func measureCell(ctx context.Context, o options, s server, connections int) (measurement, error) {
	var before, after cpuTimes
	s.process.dropLog()
	// Garbage of the last cell is not this one's cost.
	runtime.GC()
	r, err := generate(ctx, s.target, load{
		connections: connections,
		credentials: o.logins,
		warmUp:      seconds(o.warmUp),
		measure:     seconds(o.seconds),
		grace:       30 * time.Second,
	}, func() { before = readCPU(s.process.pid) }, func() { after = readCPU(s.process.pid) })
	if err != nil {
		return measurement{}, s.process.explain(ctx, err)
	}
	return newMeasurement(r, after.minus(before)), nil
}

func serveWith(ctx context.Context, dir, name string, e *echo) (server, error) {
	p, err := startEcho(dir, name, e.network, e.address, e.replySize)
	if err != nil {
		return server{}, err
	}
	err = p.ready(ctx, func() error {
		s, err := e.dial()
		if err == nil {
			s.close()
		}
		return err
	})
	if err != nil {
		p.stop()
		return server{}, err
	}
	return server{e, p}, nil
}

func processesOf(servers map[string]server) []*process {
	var ps []*process
	for _, s := range servers {
		if s.process != nil && !slices.Contains(ps, s.process) {
			ps = append(ps, s.process)
		}
	}
	return ps
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// progress tells the person who waits, apart from the results.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// cpuModel is the processor's name as Linux tells it.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
