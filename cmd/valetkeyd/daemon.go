package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sysdaemon "github.com/coreos/go-systemd/v22/daemon"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/metrics"
	"github.com/valetkey/valetkey/internal/secret"
	"github.com/valetkey/valetkey/internal/throttle"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/cluster"
)

// daemon is a running valetkeyd.
type daemon struct {
	flags   config.Flags
	log     *slog.Logger
	level   *slog.LevelVar
	started time.Time

	lock     *os.File // on the state directory
	ring     liveRing
	hashes   *auth.Admission
	auth     *auth.Authenticator
	throttle *throttle.Throttle // nil: the configuration has none
	floor    auth.Floor
	store    liveStore
	certs    *certificates
	enrol    *enrolment
	service  atomic.Pointer[admin.Service] // nil until the database is known
	unknown  atomic.Pointer[[]int32]       // peppers of rows that are not in our ring
	gates    gates
	meter    *metrics.Meter
	metrics  *exporter // nil: none; of start, reload and stop, which are one goroutine's
	pinging  pinging

	admin    *admin.Server
	failed   chan error // the daemon cannot go on
	cancel   context.CancelFunc
	database chan struct{} // closed when the goroutine that starts the database has ended
	cluster  *cluster.Cluster
	notices  notices

	mu        sync.Mutex // guards cfg and frontEnds: reload and status
	cfg       *config.Config
	frontEnds []*frontEnd
}

// liveRing is the ring in use; SIGHUP replaces it.
type liveRing struct{ atomic.Pointer[secret.Ring] }

func (l *liveRing) Normalise(p string) (string, bool)        { return secret.Normalise(p) }
func (l *liveRing) Tags(dst []auth.Tag, n string) []auth.Tag { return l.Load().Tags(dst, n) }
func (l *liveRing) Verify(stored, password string) (bool, error) {
	return secret.Verify(stored, password)
}

// liveStore is the store once its address is known. Until then every lookup waits: a private Postgres starts with the daemon, and those
// who waited at the listeners for the daemon ask at once.
type liveStore struct {
	atomic.Pointer[store.Store]
	known chan struct{} // closed then
}

func (l *liveStore) set(s *store.Store) {
	l.Store(s)
	close(l.known)
}

// wait returns nil if ctx ends first.
func (l *liveStore) wait(ctx context.Context) *store.Store {
	select {
	case <-l.known:
	case <-ctx.Done():
	}
	return l.Load()
}

var errNoStore = errors.New("the database is not there yet")

// Lookup implements [auth.Rows].
func (l *liveStore) Lookup(ctx context.Context, login string, tags []auth.Tag) (*auth.Found, error) {
	if s := l.wait(ctx); s != nil {
		return s.Lookup(ctx, login, tags)
	}
	return nil, errNoStore
}

// Record implements [auth.Recorder].
func (l *liveStore) Record(a auth.Attempt) {
	if s := l.Load(); s != nil {
		s.Record(a)
	}
}

// RecordStranger implements [auth.Strangers].
func (l *liveStore) RecordStranger(login string, a auth.Attempt) {
	if s := l.Load(); s != nil {
		s.RecordStranger(login, a)
	}
}

// load reads the configuration and checks what only the front ends can.
//
// A certificate that is in use already and was spoilt since is no fault: the daemon goes on with what it read.
func load(flags config.Flags, inUse *certificates) (*config.Config, error) {
	cfg, err := config.Load(flags)
	if err != nil {
		return nil, err
	}
	_, faults := access(cfg)
	for _, s := range specs(cfg) {
		protection, err := inUse.check(s.tls)
		if err != nil {
			faults = append(faults, config.Fault{Key: s.name + "." + keyOf(s.tls, err), Text: err.Error()})
			continue
		}
		if _, err := s.build(nil, nil, protection, slog.New(slog.DiscardHandler)); err != nil {
			faults = append(faults, config.Fault{Key: s.name, Text: err.Error()})
		}
	}
	faults = append(faults, checkEnrolment(cfg, false)...)
	_, wrong := noticeConfig(cfg)
	if faults = append(faults, wrong...); len(faults) > 0 {
		return nil, faults
	}
	return cfg, nil
}

// start binds every listener and then, in the background, brings up the database. An error means that nothing is left behind.
func start(ctx context.Context, flags config.Flags, cfg *config.Config, level *slog.LevelVar, log *slog.Logger) (_ *daemon, err error) {
	ctx, cancel := context.WithCancel(ctx)
	d := &daemon{
		store: liveStore{known: make(chan struct{})},
		flags: flags, log: log, level: level, started: time.Now(), cfg: cfg, cancel: cancel,
		failed: make(chan error, 1), database: make(chan struct{}), hashes: auth.NewAdmission(0, 0), certs: newCertificates(ctx, log), gates: newGates(), meter: metrics.NewMeter(),
	}
	defer func() {
		if err != nil {
			cancel()
			d.metrics.close(context.Background(), log)
			d.closeFrontEnds(context.Background(), d.frontEnds)
			d.enrol.close()
			d.unlock()
		}
	}()
	inherited() // before any other process is started
	if d.lock, err = prepareStateDir(cfg); err != nil {
		return nil, err
	}
	ring, created, err := secret.LoadRing(cfg.Pepper.File)
	if err != nil {
		return nil, err
	}
	d.ring.Store(ring)
	if created {
		log.Info("made a pepper; keep a copy of the file apart from the database's backups", "file", cfg.Pepper.File)
	}
	telling, wrong := noticeConfig(cfg)
	if len(wrong) > 0 { // changed since load looked
		return nil, wrong
	}
	d.notices.configure(telling)
	if d.enrol, err = startEnrolment(cfg, d.setService, log); err != nil {
		return nil, err
	}
	ac := auth.Config{
		Rows: &d.store, Secrets: &d.ring, Enrolment: d.enrol, Recorder: &d.store, Strangers: &d.store, Log: log, Hashes: d.hashes, Floor: &d.floor,
		Upgrade: upgrade{&d.store}, Meter: d.meter,
	}
	if cfg.Throttle.Enabled {
		d.throttle = throttle.New(throttle.Config{Trusted: trusted(cfg)})
		ac.Throttle = d.throttle
	}
	d.auth = auth.New(ac)

	d.admin = admin.NewServer(d.service.Load, d.status, log)
	d.admin.PluginFrom(d.enrol.Plugin)
	who, faults := access(cfg)
	if len(faults) > 0 {
		return nil, faults
	}
	d.admin.Restrict(who)
	l, err := listen(config.Address{Network: "unix", Address: cfg.Admin.Socket}, permissions{mode: cfg.Admin.Mode, group: cfg.Admin.Group}, false)
	if err != nil {
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	for _, s := range specs(cfg) {
		f, err := d.open(s, false)
		if err != nil {
			return nil, err
		}
		d.frontEnds = append(d.frontEnds, f)
	}
	if d.metrics, err = d.openMetrics(cfg.Metrics, false); err != nil {
		return nil, err
	}
	go func() {
		if err := d.admin.Serve(l); err != nil {
			d.fail(fmt.Errorf("serving the admin socket: %w", err))
		}
	}()
	log.Info("serving", "version", version, "admin", cfg.Admin.Socket)
	d.tellSystemd(sysdaemon.SdNotifyReady) // also without a database: undecided is an answer
	go d.openDatabase(ctx, cfg)
	return d, nil
}

// tellSystemd reports a state, if systemd wants to know (sd_notify(3)).
func (d *daemon) tellSystemd(state string) {
	if _, err := sysdaemon.SdNotify(false, state); err != nil {
		d.log.Warn("systemd could not be told", "state", state, "err", err)
	}
}

func (d *daemon) fail(err error) {
	select {
	case d.failed <- err:
	default:
	}
}

// Waits between attempts to reach the database, when it is down at the start.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// openDatabase starts the private cluster if there is one, opens the store, brings its schema up to date and makes our pepper
// known. While the database is down it tries again for ever: every login is undecided meanwhile.
func (d *daemon) openDatabase(ctx context.Context, cfg *config.Config) {
	defer close(d.database)
	url := cfg.Database.URL
	if url == "" {
		d.log.Info("starting the private Postgres cluster", "dir", clusterDir(cfg))
		c, err := cluster.Start(ctx, cluster.Config{Dir: clusterDir(cfg), Log: d.log})
		if err != nil {
			if ctx.Err() == nil {
				d.fail(fmt.Errorf("starting the private Postgres cluster: %w", err))
			}
			return
		}
		d.cluster = c
		url = c.URL()
	}
	s, err := store.Open(store.Config{URL: url, Log: d.log})
	if err != nil {
		d.fail(err)
		return
	}
	d.store.set(s)
	d.setService()

	wait := firstRetry
	for told := false; ; told = true {
		if err = d.prepareDatabase(ctx, s, cfg.Pepper.File); err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		if !told {
			d.log.Warn("the database cannot be used yet: every login is undecided until it can", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRetry)
	}
	d.notices.start(ctx, s, cfg.StateDir, d.log)
	d.log.Info("ready", "database", databaseKind(cfg), "took", time.Since(d.started))
	go d.watchGates(ctx)
	go d.watchFloor(ctx)
}

func (d *daemon) prepareDatabase(ctx context.Context, s *store.Store, pepperFile string) error {
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	ring := d.ring.Load()
	if err := s.RegisterPepper(ctx, ring.Active()); err != nil {
		return err
	}
	unknown, err := s.UnknownPeppers(ctx, ring.IDs())
	if err != nil {
		return err
	}
	d.unknown.Store(&unknown)
	if len(unknown) > 0 {
		d.log.Warn("app passwords may be keyed by peppers that are not in our file: logins with them work and are slow; copy the file of the daemon that made them",
			"peppers", strings.Join(pepperIDs(unknown), ","), "file", pepperFile)
	}
	return nil
}

// trusted lists the networks of which the throttle counts nothing: also the web servers that are named as proxies, which ask for
// many users.
func trusted(cfg *config.Config) []netip.Prefix {
	all := slices.Clone(cfg.Throttle.Trusted)
	for _, h := range cfg.HTTP {
		if h.Basic != nil {
			all = append(all, h.Basic.TrustedProxies...)
		}
	}
	return all
}

// setService makes the admin verbs available with the settings that are in force.
func (d *daemon) setService() {
	s := d.store.Load()
	if s == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	enrolments, help := d.enrol.asked()
	service := &admin.Service{
		Store: s, Ring: d.ring.Load(), Hashes: d.hashes, Length: d.cfg.Password.Length, Limit: d.cfg.Password.Limit, Now: time.Now,
		Upstream: d.upstreams(), Enrolments: enrolments, EnrolmentHelp: help, Mail: mailSettings(d.cfg.Mail),
	}
	if d.throttle != nil {
		service.Throttle = d.throttle
	}
	d.service.Store(service)
}

// refuseReload says in the log what keeps the old configuration, a line for each fault.
func (d *daemon) refuseReload(err error) {
	const text = "reload refused, the old configuration stays"
	faults, ok := errors.AsType[config.Faults](err)
	if !ok {
		d.log.Error(text, "err", err)
		return
	}
	for _, f := range faults {
		d.log.Error(text, "key", f.Key, "err", errors.New(f.Text))
	}
}

// reload reads the configuration and the pepper file again. Whatever is wrong with them, the daemon goes on with what it has.
func (d *daemon) reload() {
	d.tellSystemd(sysdaemon.SdNotifyReloading)
	defer d.tellSystemd(sysdaemon.SdNotifyReady)
	cfg, err := load(d.flags, d.certs)
	if err != nil {
		d.refuseReload(err)
		return
	}
	ring, err := secret.OpenRing(cfg.Pepper.File)
	if errors.Is(err, fs.ErrNotExist) { // a fresh one would take the place of the one in memory, perhaps the last that there is
		err = fmt.Errorf("%s is not there: put it back; only a start makes one", cfg.Pepper.File)
	}
	if err != nil {
		d.refuseReload(config.Faults{{Key: "pepper.file", Text: err.Error()}})
		return
	}
	telling, wrong := noticeConfig(cfg)
	if len(wrong) > 0 { // changed since load looked
		d.refuseReload(wrong)
		return
	}
	for key, changed := range map[string]bool{
		"state_dir":    cfg.StateDir != d.cfg.StateDir,
		"database.url": cfg.Database != d.cfg.Database,
		"admin":        cfg.Admin != d.cfg.Admin,
		"self_service": !reflect.DeepEqual(cfg.Self, d.cfg.Self),

		"throttle.enabled": cfg.Throttle.Enabled != d.cfg.Throttle.Enabled,
	} {
		if changed {
			d.log.Warn("this setting changes only when the daemon is started again", "key", key)
		}
	}
	cfg.StateDir, cfg.Database, cfg.Admin, cfg.Self = d.cfg.StateDir, d.cfg.Database, d.cfg.Admin, d.cfg.Self
	cfg.Throttle.Enabled = d.cfg.Throttle.Enabled
	if d.throttle != nil {
		d.throttle.Trust(trusted(cfg))
	}

	d.level.Set(cfg.Log.Level)
	d.ring.Store(ring)
	d.auth.ForgetVerifications()
	d.mu.Lock()
	before := d.cfg
	d.cfg = cfg
	d.mu.Unlock()
	d.reloadMetrics(before.Metrics, cfg.Metrics)
	d.enrol.apply(cfg.Enrolment) // which makes the admin verbs take over the rest, too
	d.notices.configure(telling)
	if s := d.store.Load(); s != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := d.prepareDatabase(ctx, s, cfg.Pepper.File); err != nil {
			d.log.Warn("the database could not be told of the pepper", "err", err)
		}
		d.lookAtFloor(ctx)
		cancel()
	}
	d.certs.reload()
	d.reloadFrontEnds(cfg)
	d.certs.keep(cfg)
	d.gates.look()
	d.log.Info("reloaded")
}

// reloadFrontEnds opens what is new, replaces what changed and closes what is gone. What did not change is not touched.
func (d *daemon) reloadFrontEnds(cfg *config.Config) {
	old := slices.Clone(d.frontEnds)
	var now, gone []*frontEnd
	for _, s := range specs(cfg) {
		if i := slices.IndexFunc(old, func(f *frontEnd) bool { return reflect.DeepEqual(f.spec.config, s.config) }); i >= 0 {
			now = append(now, old[i])
			old = slices.Delete(old, i, i+1)
			continue
		}
		// Another one at the same address gives way: a Unix socket is replaced in one step, a port is free for a moment.
		replaced := slices.IndexFunc(old, func(f *frontEnd) bool { return f.spec.address == s.address })
		if replaced >= 0 && s.address.Network == "tcp" { // systemd's sockets can have two listeners
			old[replaced].listener.Close()
		}
		f, err := d.open(s, replaced >= 0)
		if err != nil {
			d.log.Error("a listener could not be opened", "listener", s.name, "err", err)
			if replaced >= 0 && s.address.Network != "tcp" { // the one in its place still listens: it stays
				now = append(now, old[replaced])
				old = slices.Delete(old, replaced, replaced+1)
			}
			continue
		}
		if replaced >= 0 {
			old[replaced].listener.keepFile()
		}
		now = append(now, f)
	}
	gone = old
	d.mu.Lock()
	d.frontEnds = now
	d.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		d.closeFrontEnds(ctx, gone)
	}()
}

// closeTime is how long the last notes of use, and the ends of replaced secrets, may take to be written.
const closeTime = 3 * time.Second

// stop answers what is in flight, at most for that long, and ends everything.
func (d *daemon) stop(drain time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	d.tellSystemd(sysdaemon.SdNotifyStopping)
	d.closeFrontEnds(ctx, d.frontEnds)
	d.metrics.close(ctx, d.log)
	d.admin.Shutdown(ctx)
	d.enrol.close()
	d.cancel()
	<-d.database
	d.notices.wait()
	d.auth.Close()
	if s := d.store.Load(); s != nil {
		// In time of its own: one connection that used up the drain's must not cost what the last logins left to be written.
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			d.log.Warn("the last notes of use could not be written", "err", err)
		}
	}
	if d.cluster != nil {
		stopCtx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := d.cluster.Stop(stopCtx); err != nil {
			d.log.Error("the private Postgres cluster did not stop cleanly", "err", err)
		}
	}
	d.unlock()
}

func (d *daemon) closeFrontEnds(ctx context.Context, all []*frontEnd) {
	var wg sync.WaitGroup
	for _, f := range all {
		wg.Go(func() {
			close(f.stopping)
			if err := f.server.Shutdown(ctx); err != nil {
				d.log.Warn("connections were cut", "listener", f.spec.name, "err", err)
			}
		})
	}
	wg.Wait()
}

func (d *daemon) unlock() {
	if d.lock != nil {
		d.lock.Close()
	}
}

// status describes the daemon for the admin API.
func (d *daemon) status(ctx context.Context) admin.Status {
	d.mu.Lock()
	cfg, frontEnds := d.cfg, slices.Clone(d.frontEnds)
	d.mu.Unlock()
	s := admin.Status{
		Version: version, Config: absolute(d.flags.File), StateDir: cfg.StateDir, Started: d.started, Peppers: pepperIDs(d.ring.Load().IDs()), Counters: d.auth.Counters(),
		Listeners: []admin.Listener{}, Implied: cfg.Implied, Enrolment: d.enrol.Plugin(), Database: admin.Database{Private: cfg.Database.URL == ""},
	}
	if unknown := d.unknown.Load(); unknown != nil {
		s.Unknown = pepperIDs(*unknown)
	}
	if d.throttle != nil {
		t := d.throttle.Stats()
		s.Throttle = &admin.Throttle{Held: t.Held, Counted: t.Counted, Repeated: t.Repeated, Refused: t.Refused, Remembered: t.Entries}
	}
	if floor := d.floor.Time(); floor > 0 {
		s.Floor = floor.String()
	}
	for _, f := range frontEnds {
		v := f.spec.view
		v.Address = f.address()
		n := f.connections()
		v.Connections, v.Refused, v.Yielded = n.open, n.refused, n.yielded
		v.TLS = d.certs.view(f.spec)
		s.Listeners = append(s.Listeners, v)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st := d.store.Load()
	if st != nil {
		n := st.Directory().Stats()
		s.Directory = admin.Directory{Finds: n.Finds, Queries: n.Batches}
	}
	if st == nil {
		s.Database.Error = errNoStore.Error()
		return s
	}
	db, err := st.Status(ctx)
	if err != nil {
		d.log.Debug("status: the database did not answer", "err", err)
		s.Database.Error = "it does not answer; valetkeyd's log has the cause"
		return s
	}
	s.Database.Reachable, s.Database.Version, s.Database.Schema = true, db.ServerVersion, db.Schema
	s.Database.Target, s.Database.Clock = db.Target, db.ClockOffset.Round(time.Millisecond).String()
	for i, f := range frontEnds {
		s.Listeners[i].Applications = d.gates.view(ctx, f)
	}
	if s.Notices, err = d.notices.view(ctx, st); err != nil {
		d.log.Debug("status: the notices could not be asked for", "err", err)
	}
	return s
}

func pepperIDs(ids []int32) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = fmt.Sprintf("%08x", id)
	}
	return out
}

// absolute is the path from the root, as others must name the file; empty stays empty.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func databaseKind(cfg *config.Config) string {
	if cfg.Database.URL == "" {
		return "private"
	}
	return "external"
}

func clusterDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "postgres") }
