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
	echoUnixTarget    = "echo-unix"
	echoTCPTarget     = "echo-tcp"
	echoMuxTarget     = "echo-mux"
	dovecotAuthTarget = "dovecot-auth"
	cyrusTarget       = "saslauthd"
	slapdTarget       = "slapd"
	dovecotTarget     = "valetkey-dovecot"
	muxTarget         = "valetkey-saslauthd"
	ldapTarget        = "valetkey-ldap"
	slapdSearchTarget = "slapd-search"
	searchTarget      = "valetkey-search"
)

var allTargets = []string{
	echoUnixTarget, dovecotAuthTarget, dovecotTarget,
	echoMuxTarget, cyrusTarget, muxTarget,
	echoTCPTarget, slapdTarget, ldapTarget,
	slapdSearchTarget, searchTarget,
}

// floors names the echo server that uses the same kind of socket in the same way, and the same sizes. A search has none.
var floors = map[string]string{
	echoUnixTarget:    echoUnixTarget,
	echoTCPTarget:     echoTCPTarget,
	echoMuxTarget:     echoMuxTarget,
	dovecotAuthTarget: echoUnixTarget,
	cyrusTarget:       echoMuxTarget,
	slapdTarget:       echoTCPTarget,
	dovecotTarget:     echoUnixTarget,
	muxTarget:         echoMuxTarget,
	ldapTarget:        echoTCPTarget,
}

// peers names what people run today for the same protocol.
var peers = map[string]string{
	dovecotTarget: dovecotAuthTarget,
	muxTarget:     cyrusTarget,
	ldapTarget:    slapdTarget,
	searchTarget:  slapdSearchTarget,
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
	dovecotScheme  string
	checkpassword  int // logins by the helper
	searchFilter   string
	memory         bool
	enrolment      bool
	list           int // app passwords, to list
	importRows     int // of valetkey import; 0: measure logins
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
	fs.StringVar(&o.dovecotScheme, "dovecot-scheme", defaultScheme, "password scheme of Dovecot's accounts, as doveadm pw -s names it; SSHA and PLAIN favour Dovecot")
	fs.IntVar(&o.checkpassword, "checkpassword", 300, "logins by valetkey-checkpassword, with a valetkey target, to measure the CPU time of; 0: none")
	fs.StringVar(&o.searchFilter, "search-filter", defaultFilter, "filter of search-then-bind, with %s for the login, which is also the mail address")
	fs.BoolVar(&o.memory, "memory", false, "measure valetkeyd's memory instead of its speed: with 10,000 and 1,000,000 accounts, and for each idle LDAP connection; takes minutes")
	fs.BoolVar(&o.enrolment, "enrolment", false, "measure what asking for a second factor at each login costs, instead of comparing servers")
	fs.IntVar(&o.list, "list", 0, "measure `valetkey list` instead, over so many app passwords: 1000000; 0: not")
	fs.IntVar(&o.importRows, "import", 0, "measure valetkey import instead, with a file of this many hashed rows; 100000 is what the goal is set for")
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
		{"checkpassword", o.checkpassword >= 0}, {"list", o.list == 0 || o.list >= passwordsPerAccount}, {"import", o.importRows >= 0},
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
	if len(os.Args) > 1 && os.Args[1] == leashCommand {
		if err := leash(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
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
		if len(r.Rows) > 0 {
			if err := writeTable(w, r.Rows); err != nil {
				return err
			}
			fmt.Fprintln(w)
		}
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

// bench is a run under way.
type bench struct {
	options
	dir     string
	creds   []credential
	reader  credential // that searches
	servers map[string]server
	rep     report
}

func run(ctx context.Context, o options) (report, error) {
	dir, err := os.MkdirTemp("", "valetkey-bench-")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(dir)
	// The private cluster and Dovecot may run as other users, who must get through to their own directories.
	if err := os.Chmod(dir, 0o711); err != nil {
		return report{}, err
	}
	b := &bench{options: o, dir: dir, creds: newCredentials(o.accounts), reader: newReader(), servers: map[string]server{}}
	b.rep = report{
		Machine:  fmt.Sprintf("%s, %d cores, %s", cpuModel(), runtime.NumCPU(), runtime.Version()),
		Settings: settings(o),
		Checks:   []check{},
	}
	defer func() {
		for _, p := range processesOf(b.servers) {
			p.stop()
		}
	}()
	switch {
	case o.memory:
		err = b.measureMemory(ctx)
	case o.enrolment:
		err = b.measureEnrolment(ctx)
	case o.list > 0:
		err = b.measureListing(ctx)
	case o.importRows > 0:
		err = b.measureImport(ctx)
	default:
		err = b.run(ctx)
	}
	return b.rep, err
}

// settings tells what the figures depend on, a subject a line.
func settings(o options) string {
	if o.list > 0 {
		return fmt.Sprintf("%d accounts with %d app passwords each, last used up to %d days ago", o.list/passwordsPerAccount, passwordsPerAccount, listDays)
	}
	if o.memory {
		return fmt.Sprintf("after %d searches over all accounts, %g s of search then bind by %d of them at 64 connections, and whole listings of %d entries or more",
			memorySearches, o.seconds, memoryLogins, memoryListed)
	}
	if o.importRows > 0 {
		return fmt.Sprintf("a CSV file of %s rows, two for each account", thousands(float64(o.importRows)))
	}
	lines := []string{fmt.Sprintf("%d accounts with %d app passwords each, %d accounts log in in turn; medians of %d rounds of %g s",
		o.accounts, passwordsPerAccount, o.logins, o.rounds, o.seconds)}
	if o.enrolment {
		return strings.Join(append(lines, "by the Dovecot protocol; require-login asks valetkey-2fa-file, whose answers hold for 15 minutes"), "\n")
	}
	if o.want(dovecotAuthTarget) {
		lines = append(lines, fmt.Sprintf("%s: 1 {%s} password for each account in a passwd-file", dovecotAuthTarget, o.dovecotScheme))
	}
	if o.want(cyrusTarget) {
		lines = append(lines, fmt.Sprintf("%s: -c -n %s, every login in its cache", cyrusTarget, cyrusProcesses))
	}
	if o.want(slapdTarget, slapdSearchTarget) {
		lines = append(lines, fmt.Sprintf("%s: %d {SSHA} for each account, log level %s", slapdTarget, o.slapdPasswords, o.slapdLog))
	}
	return strings.Join(lines, "\n")
}

func (b *bench) run(ctx context.Context) error {
	if err := b.startEchoes(ctx); err != nil {
		return err
	}
	if b.want(slapdTarget, slapdSearchTarget) {
		if err := b.startSlapd(ctx); err != nil {
			return err
		}
	}
	var auth *dovecotAuth
	if b.want(dovecotAuthTarget) {
		progress("%s: starting", dovecotAuthTarget)
		var err error
		if auth, err = startDovecotAuth(ctx, b.dir, b.creds, b.logins, b.dovecotScheme); auth != nil {
			b.servers[dovecotAuthTarget] = server{newDovecot("unix", auth.socket, b.creds[:b.logins]), auth.process}
		}
		if err != nil {
			return err
		}
	}
	var mux *cyrus
	if b.want(cyrusTarget) {
		progress("%s: starting", cyrusTarget)
		var err error
		if mux, err = startCyrus(ctx, b.dir, b.creds, b.logins); mux != nil {
			defer mux.backend.listener.Close()
			b.servers[cyrusTarget] = server{newMux(mux.socket, b.creds[:b.logins]), mux.process}
		}
		if err != nil {
			return err
		}
	}
	var d *daemon
	var helper checkpasswords
	if b.want(valetkeyTargets...) {
		var err error
		if b.checkpassword > 0 {
			if helper, err = buildCheckpasswords(ctx, b.dir); err != nil {
				return err
			}
		}
		if d, err = b.startDaemon(ctx); d != nil {
			defer d.closeDatabase()
		}
		if err != nil {
			return err
		}
	}

	m, err := measure(ctx, b.options, b.servers)
	if err != nil {
		return err
	}
	b.rep.Rows = m.rows(b.targets, b.connections, floors, peers)
	b.rep.Checks = append(b.rep.Checks, speedChecks(b.rep.Rows)...)
	if auth != nil {
		use, err := auth.cacheUse(ctx)
		if err != nil {
			return err
		}
		b.rep.Settings += fmt.Sprintf("\n%s: %s", dovecotAuthTarget, use)
	}
	if mux != nil {
		b.rep.Checks = append(b.rep.Checks, mux.cacheCheck(b.logins))
	}
	if d == nil {
		return nil
	}
	if b.checkpassword > 0 {
		progress("valetkey-checkpassword: %d logins", b.checkpassword)
		c, err := helper.measure(ctx, d.helperSocket(), b.creds[:b.logins], b.checkpassword)
		if err != nil {
			return d.process.explain(ctx, err)
		}
		b.rep.Checks = append(b.rep.Checks, c)
	}
	if b.guesses > 0 {
		guesses, err := d.wrongGuesses(ctx, b.creds, b.guesses)
		if err != nil {
			return err
		}
		b.rep.Checks = append(b.rep.Checks, guesses)
	}
	return b.profiles(ctx, d)
}

func (b *bench) startEchoes(ctx context.Context) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	active := b.creds[:b.logins]
	for name, e := range map[string]*echo{
		echoUnixTarget: newDovecotEcho("unix", filepath.Join(b.dir, "echo.sock"), active),
		echoTCPTarget:  newLDAPEcho("tcp", address, active),
		echoMuxTarget:  newMuxEcho(filepath.Join(b.dir, "mux.sock"), active),
	} {
		if !b.want(name) {
			continue
		}
		if b.servers[name], err = serveWith(ctx, b.dir, name, e); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) startSlapd(ctx context.Context) error {
	progress("slapd: loading %d entries", len(b.creds))
	address, err := freeAddress()
	if err != nil {
		return err
	}
	search, err := newLDAPSearch("tcp", address, b.creds[:b.logins], b.reader, b.searchFilter)
	if err != nil {
		return err
	}
	p, err := startSlapd(ctx, b.dir, address, b.creds, b.slapdPasswords, b.reader, b.slapdLog)
	if p != nil {
		b.servers[slapdTarget] = server{newLDAP("tcp", address, b.creds[:b.logins]), p}
		b.servers[slapdSearchTarget] = server{search, p}
	}
	return err
}

// valetkeyTargets are those of the daemon.
var valetkeyTargets = []string{dovecotTarget, muxTarget, ldapTarget, searchTarget}

// startDaemon returns when the data set is in and every credential has logged in. The daemon is not nil if it was started, whatever the
// error.
func (b *bench) startDaemon(ctx context.Context) (*daemon, error) {
	active := b.creds[:b.logins]
	d, err := startDaemon(ctx, b.dir, "")
	if d != nil {
		b.servers[dovecotTarget] = server{newDovecot("unix", d.dovecotSocket(), active), d.process}
		b.servers[muxTarget] = server{newMux(d.muxSocket(), active), d.process}
		b.servers[ldapTarget] = server{newLDAP("tcp", d.ldapAddress, active), d.process}
	}
	if err != nil {
		return d, err
	}
	search, err := newLDAPSearch("tcp", d.ldapAddress, active, b.reader, b.searchFilter)
	if err != nil {
		return d, err
	}
	b.servers[searchTarget] = server{search, d.process}
	if err := d.load(ctx, b.creds, passwordsPerAccount, b.logins, b.reader); err != nil {
		return d, err
	}
	cold, err := d.coldPass(ctx, b.servers[dovecotTarget].target, b.logins)
	if err != nil {
		return d, err
	}
	b.rep.Checks = append(b.rep.Checks, cold)
	return d, nil
}

// profiles writes a CPU profile for each measured target of the daemon, if that is wanted.
func (b *bench) profiles(ctx context.Context, d *daemon) error {
	if b.profile == "" {
		return nil
	}
	for _, name := range valetkeyTargets {
		if !b.want(name) {
			continue
		}
		to := b.profile + "." + name
		if err := d.profile(ctx, b.options, b.servers[name], slices.Max(b.connections), to); err != nil {
			return err
		}
		progress("profile: go tool pprof -top %s", to)
	}
	return nil
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
				progress("round %d/%d  %-18s  %3d connections  %9s logins/s", round+1, o.rounds, name, c, thousands(x.perSecond))
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
	}, func() { before = readCPU(s.process.pid, s.process.leashed) }, func() { after = readCPU(s.process.pid, s.process.leashed) })
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
		if err != nil {
			return err
		}
		defer s.close()
		_, err = s.login(0)
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
