package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey/internal/auth"
)

// Config is what a [Host] is made of. Path, Dir and Log are required; every zero elsewhere is the default.
type Config struct {
	Path   string   // of the program, absolute
	Args   []string // without the name of the program
	Env    []string // what the plugin gets beside PATH, LANG and go-plugin's variables; nothing is inherited
	SHA256 string   // of the program, as sha256sum prints it; empty: not pinned

	// Dir is a folder that exists and that this host has for itself: in it the private folders for the sockets are made, and those
	// that a daemon left when it was killed are removed. Its path has at most 48 bytes, because that of a Unix socket is limited.
	Dir string

	Policy Policy

	Timeout      time.Duration // for a question, waiting included; 1 s
	StartTimeout time.Duration // for a start; 10 s
	HealthEvery  time.Duration // between two signs of life; 500 ms
	HealthWithin time.Duration // for a sign of life; two that are missing end the plugin; 400 ms
	Grace        time.Duration // for the plugin to end when asked to; 500 ms

	MaxParallel int // questions at once; 64; the plugin may ask for fewer
	MaxWaiting  int // accounts whose question is under way or waits for its turn; 1024
	CacheSize   int // accounts whose last answer is remembered; 100,000

	Log *slog.Logger
	Now func() time.Time // nil: time.Now; for the age of answers, never for timeouts
}

// maxDir is what is left of 107 bytes for a folder, when go-plugin has made its folder and its socket in ours.
const maxDir = 48

// dirPrefix begins the names of the private folders, short for the same reason.
const dirPrefix = "2fa"

// Host runs one plugin. It is safe for concurrent use.
type Host struct {
	cfg     Config
	sum     []byte
	out     *output
	breaker *breaker

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when the supervision has ended

	policy atomic.Pointer[Policy] // in force; cfg.Policy is what it began with

	answers    sync.Mutex // guards the next three
	cache      *cache
	flights    map[int64]*flight
	unnumbered int64 // the last number that stood for an account without one; negative

	state   sync.Mutex // guards the next group
	current *instance  // nil: none can be asked
	hope    bool       // one will be there in a moment, so that it is worth waiting
	changed chan struct{}
	problem error // why there is none, or why the last one is gone

	suspect chan *instance // those that did not answer a question
	count   counters
}

// errDown is why a question was not asked.
var errDown = errors.New("the plugin does not run")

// New starts to start the plugin and returns at once: questions wait for it within their time. An error means that the configuration
// cannot work, whatever the plugin does.
func New(cfg Config) (*Host, error) {
	sum, err := parseSum(cfg.SHA256)
	switch {
	case err != nil:
		return nil, err
	case !filepath.IsAbs(cfg.Path):
		return nil, fmt.Errorf("the path of the plugin is not absolute: %q", cfg.Path)
	case !filepath.IsAbs(cfg.Dir) || len(cfg.Dir) > maxDir:
		return nil, fmt.Errorf("the folder for the plugin's socket is not an absolute path of at most %d bytes: %q", maxDir, cfg.Dir)
	}
	for _, v := range cfg.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" || strings.ContainsRune(v, 0) {
			return nil, errors.New("a variable for the plugin's environment is not of the form NAME=VALUE")
		}
	}
	if err := cfg.Policy.complete(); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		v     *time.Duration
		usual time.Duration
	}{
		{&cfg.Timeout, time.Second}, {&cfg.StartTimeout, 10 * time.Second}, {&cfg.HealthEvery, 500 * time.Millisecond},
		{&cfg.HealthWithin, 400 * time.Millisecond}, {&cfg.Grace, 500 * time.Millisecond},
	} {
		if *d.v <= 0 {
			*d.v = d.usual
		}
	}
	for _, n := range []struct {
		v     *int
		usual int
	}{{&cfg.MaxParallel, 64}, {&cfg.MaxWaiting, 1024}, {&cfg.CacheSize, 100_000}} {
		if *n.v <= 0 {
			*n.v = n.usual
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	left, err := filepath.Glob(filepath.Join(cfg.Dir, dirPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		_ = os.RemoveAll(dir)
	}
	h := &Host{
		cfg: cfg, sum: sum, out: newOutput(cfg.Log, time.Now), breaker: &breaker{now: time.Now},
		done: make(chan struct{}), cache: newCache(cfg.CacheSize), flights: make(map[int64]*flight),
		hope: true, changed: make(chan struct{}), suspect: make(chan *instance, 1),
	}
	h.policy.Store(&h.cfg.Policy)
	h.count.reasons = make(map[string]int64)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	go h.supervise()
	return h, nil
}

// Close ends the plugin and returns when it is gone, within Grace and two seconds more. Questions fail from now on.
func (h *Host) Close() error {
	h.cancel()
	select {
	case <-h.done:
		return nil
	case <-time.After(h.cfg.Grace + 2*time.Second):
		return errors.New("the plugin could not be ended in time")
	}
}

// Back-off after a failure: 0.1 s, doubled each time, up to 30 s; a run of a minute makes good for what was before.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 30 * time.Second
	healthyRun   = time.Minute
)

func backoff(failures int) time.Duration {
	if failures > 10 {
		return backoffMost
	}
	return min(backoffFirst<<max(failures-1, 0), backoffMost)
}

// supervise starts the plugin again and again until the host is closed.
func (h *Host) supervise() {
	defer close(h.done)
	for failures := 0; ; {
		i, err := h.start(h.ctx)
		if err == nil {
			h.cfg.Log.Info("plugin runs", "pid", i.proc.pid(), auth.Quoted("name", i.about.Name), auth.Quoted("version", i.about.Version))
			h.breaker.note(true)
			h.set(i, false, nil)
			began := time.Now()
			err = h.watch(i)
			h.set(nil, true, err)
			grace := time.Duration(0)
			if h.ctx.Err() != nil {
				grace = h.cfg.Grace
			}
			i.stop(grace)
			if time.Since(began) >= healthyRun {
				failures = 0
			}
			h.count.restarts.Add(1)
		}
		if h.ctx.Err() != nil {
			h.set(nil, false, errClosed)
			return
		}
		failures++
		wait := backoff(failures)
		h.cfg.Log.Warn("plugin does not run", "again_in", wait, auth.Quoted("err", auth.Clip(err.Error(), 512)))
		h.set(nil, wait < h.cfg.Timeout, err)
		select {
		case <-time.After(wait):
		case <-h.ctx.Done():
		}
	}
}

// watch returns why the plugin has to be started again, or nil when the host is closed.
func (h *Host) watch(i *instance) error {
	tick := time.NewTicker(h.cfg.HealthEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return nil
		case <-i.proc.done:
			return fmt.Errorf("the plugin ended by itself: %v", endedHow(i.proc.waitErr))
		case <-tick.C:
		case s := <-h.suspect:
			if s != i {
				continue
			}
		}
		err := i.alive(h.ctx, h.cfg.HealthWithin)
		if err != nil {
			err = i.alive(h.ctx, h.cfg.HealthWithin) // once is no proof on a busy machine
		}
		if status.Code(err) == codes.Unavailable { // the connection is gone, and most likely the program with it
			select {
			case <-i.proc.done:
				continue
			case <-time.After(2 * drainTime):
			}
		}
		if err != nil && h.ctx.Err() == nil && !i.proc.ended() {
			return fmt.Errorf("the plugin gives no sign of life: %w", brief(err))
		}
	}
}

func endedHow(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// set says what can be asked from now on.
func (h *Host) set(i *instance, hope bool, problem error) {
	h.state.Lock()
	defer h.state.Unlock()
	h.current, h.hope, h.problem = i, hope, problem
	close(h.changed)
	h.changed = make(chan struct{})
}

// running returns the instance to ask, which is not the one that was asked already. It waits for one only if there is hope.
func (h *Host) running(ctx context.Context, asked *instance) (*instance, error) {
	for {
		h.state.Lock()
		i, hope, changed, problem := h.current, h.hope, h.changed, h.problem
		h.state.Unlock()
		switch {
		case i != nil && i != asked:
			return i, nil
		case i == nil && !hope && problem != nil:
			return nil, fmt.Errorf("%w: %w", errDown, problem)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if problem != nil {
				return nil, fmt.Errorf("%w: %w", errDown, problem)
			}
			return nil, ctx.Err()
		}
	}
}

// Started waits until the plugin runs, and returns why it does not if its first start fails. It is for whoever wants to put one plugin in
// the place of another.
func (h *Host) Started(ctx context.Context) error {
	for {
		h.state.Lock()
		i, changed, problem := h.current, h.changed, h.problem
		h.state.Unlock()
		switch {
		case i != nil:
			return nil
		case problem != nil:
			return problem
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Forget drops what is known about an account, so that the next login asks.
func (h *Host) Forget(accountID int64) {
	h.answers.Lock()
	defer h.answers.Unlock()
	h.cache.forget(accountID)
}

// counters are totals since the start.
type counters struct {
	cached, checks, fallback, restarts, nanos atomic.Int64

	mu      sync.Mutex
	reasons map[string]int64
}

func (c *counters) failure(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reasons[failureReason(err)]++
}

// Stats say how the plugin does. Totals count since the daemon started.
type Stats struct {
	Up      bool      `json:"up"`
	PID     int       `json:"pid,omitempty"`
	Name    string    `json:"name,omitempty"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"`    // of this run
	Problem string    `json:"problem,omitempty"` // why it does not run
	Open    bool      `json:"breaker_open"`      // the last checks all failed

	Ended        int64            `json:"ended"`         // runs that ended
	Cached       int64            `json:"cached"`        // questions that an answer was kept for
	Checks       int64            `json:"checks"`        // questions to the plugin
	CheckSeconds float64          `json:"check_seconds"` // their time together
	Fallback     int64            `json:"fallback"`      // logins that the policy let in without the plugin
	Errors       map[string]int64 `json:"errors"`        // questions without an answer, by reason
	LinesDropped int64            `json:"lines_dropped"` // of the plugin's output
	Known        int              `json:"known"`         // accounts whose last answer is remembered
	Waiting      int              `json:"waiting"`       // accounts that are being asked about
}

// Stats returns the figures of this moment.
func (h *Host) Stats() Stats {
	s := Stats{
		Open: h.breaker.open(), Ended: h.count.restarts.Load(), Cached: h.count.cached.Load(), Checks: h.count.checks.Load(),
		CheckSeconds: time.Duration(h.count.nanos.Load()).Seconds(), Fallback: h.count.fallback.Load(),
		LinesDropped: h.out.droppedLines(), Errors: make(map[string]int64),
	}
	h.count.mu.Lock()
	for reason, n := range h.count.reasons {
		s.Errors[reason] = n
	}
	h.count.mu.Unlock()
	h.answers.Lock()
	s.Known, s.Waiting = len(h.cache.entries), len(h.flights)
	h.answers.Unlock()
	h.state.Lock()
	defer h.state.Unlock()
	if i := h.current; i != nil {
		s.Up, s.PID, s.Name, s.Version, s.Since = true, i.proc.pid(), i.about.Name, i.about.Version, i.since
	}
	if h.problem != nil {
		s.Problem = auth.Clip(h.problem.Error(), 512)
	}
	return s
}
