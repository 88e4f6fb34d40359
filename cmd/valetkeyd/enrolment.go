package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/plugin/host"
)

// enrolment is the plugin that knows who has a second factor, if there is one; SIGHUP replaces it.
//
// The policy of a new configuration holds at once. Another program takes over only when it runs, so that a mistake in the configuration
// leaves the old one in its place.
type enrolment struct {
	log     *slog.Logger
	dir     string // below it every host has a folder of its own
	changed func() // called when host or help changed; not with mu held
	host    atomic.Pointer[host.Host]

	mu      sync.Mutex
	cfg     config.Enrolment // in force
	problem string           // why that is not what was configured last
	made    int              // hosts, for the names of their folders
	pending context.CancelFunc
	closed  bool
	wait    sync.WaitGroup // for what goes on in the background
}

var (
	_ auth.Enrolment   = (*enrolment)(nil)
	_ admin.Enrolments = (*enrolment)(nil)
)

// maxPluginDir is the longest state directory with a plugin, in bytes: the path of a Unix socket is limited, and the host's folder has 48.
const maxPluginDir = 48 - len("/run/2fa/999")

// checkEnrolment finds what the configuration's reader cannot: whether the program can be trusted. The checksum is left to the start of
// the plugin, since a daemon that does not start answers nobody; --check-config looks at it, too.
func checkEnrolment(cfg *config.Config, checksum bool) (faults config.Faults) {
	e := cfg.Enrolment
	if e.Plugin == "" {
		return nil
	}
	if len(cfg.StateDir) > maxPluginDir {
		faults = append(faults, config.Fault{Key: "enrolment.plugin",
			Text: fmt.Sprintf("its socket would have too long a path; choose a state_dir of at most %d bytes", maxPluginDir)})
	}
	if err := host.Verify(e.Plugin, ""); err != nil {
		faults = append(faults, config.Fault{Key: "enrolment.plugin", Text: err.Error()})
	} else if checksum {
		if err := host.Verify(e.Plugin, e.Checksum); err != nil {
			faults = append(faults, config.Fault{Key: "enrolment.checksum", Text: err.Error()})
		}
	}
	return faults
}

// startEnrolment starts the plugin of the configuration and does not wait for it.
func startEnrolment(cfg *config.Config, changed func(), log *slog.Logger) (*enrolment, error) {
	e := &enrolment{log: log, dir: filepath.Join(cfg.StateDir, "run", "2fa"), changed: changed, cfg: cfg.Enrolment}
	if err := os.RemoveAll(e.dir); err != nil { // what a daemon left that was killed
		return nil, fmt.Errorf("clearing the plugin's folder: %w", err)
	}
	if cfg.Enrolment.Plugin != "" {
		h, err := e.open(cfg.Enrolment)
		if err != nil {
			return nil, fmt.Errorf("enrolment.plugin: %w", err)
		}
		e.host.Store(h)
	}
	e.tell(cfg.Enrolment)
	return e, nil
}

// tell says in the log what is asked of users.
func (e *enrolment) tell(cfg config.Enrolment) {
	if cfg.Require == "off" {
		e.log.Info("app passwords are issued without asking for a second factor", "key", "enrolment.require")
		return
	}
	e.log.Info("a second factor is asked for", "require", cfg.Require, "on_error", cfg.OnError, "plugin", cfg.Plugin)
}

func policy(cfg config.Enrolment) host.Policy {
	return host.Policy{Require: host.Require(cfg.Require), OnError: host.OnError(cfg.OnError), Keep: cfg.LastKnown}
}

// open starts a host in a folder of its own.
func (e *enrolment) open(cfg config.Enrolment) (*host.Host, error) {
	e.made++
	dir := filepath.Join(e.dir, strconv.Itoa(e.made))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return host.New(host.Config{
		Path: cfg.Plugin, Args: cfg.Args, Env: cfg.Env, SHA256: cfg.Checksum, Dir: dir, Policy: policy(cfg),
		Timeout: cfg.Timeout, StartTimeout: cfg.StartTimeout, HealthEvery: cfg.HealthEvery, HealthWithin: cfg.HealthWithin, Grace: cfg.StopTimeout,
		MaxParallel: cfg.MaxParallel, MaxWaiting: cfg.MaxWaiting, CacheSize: cfg.Remembered, Log: e.log,
	})
}

// program is the part of the configuration that a running plugin cannot change.
func program(cfg config.Enrolment) config.Enrolment {
	cfg.Require, cfg.OnError, cfg.LastKnown, cfg.Help = "", "", 0, ""
	return cfg
}

func sameProgram(a, b config.Enrolment) bool { return reflect.DeepEqual(program(a), program(b)) }

// apply takes over a new configuration.
func (e *enrolment) apply(cfg config.Enrolment) {
	defer e.changed()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if e.pending != nil { // the last configuration's plugin, which has not started yet, is not wanted any more
		e.pending()
		e.pending = nil
	}
	e.problem = ""
	old, before := e.host.Load(), e.cfg
	switch {
	case cfg.Plugin == "":
		e.host.Store(nil)
		e.cfg = cfg
		e.discard(old)
	case old != nil:
		if err := old.SetPolicy(policy(cfg)); err != nil { // the configuration's reader let it pass
			e.problem = err.Error()
			e.log.Error("the policy stays as it was", "key", "enrolment", "err", err)
			return
		}
		e.cfg.Require, e.cfg.OnError, e.cfg.LastKnown, e.cfg.Help = cfg.Require, cfg.OnError, cfg.LastKnown, cfg.Help
	}
	if before.Require != e.cfg.Require || before.OnError != e.cfg.OnError {
		e.tell(e.cfg)
	}
	if cfg.Plugin != "" && (old == nil || !sameProgram(cfg, before)) {
		e.replace(cfg)
	}
}

// replace starts another program and puts it in the place of the one that runs, when it runs itself. mu is held.
func (e *enrolment) replace(cfg config.Enrolment) {
	refuse := func(err error) {
		e.problem = "the plugin that is configured now cannot be used: " + auth.Clip(err.Error(), 512)
		e.log.Error("the new plugin cannot be used, what was before stays", "key", "enrolment.plugin", auth.Quoted("err", auth.Clip(err.Error(), 512)))
	}
	h, err := e.open(cfg)
	if err != nil {
		refuse(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), cfg.StartTimeout+time.Second)
	e.pending = cancel
	e.wait.Go(func() {
		defer cancel()
		err := h.Started(ctx)
		e.mu.Lock()
		defer e.mu.Unlock()
		switch {
		case errors.Is(ctx.Err(), context.Canceled) || e.closed: // overtaken by another configuration, or the end
			e.discard(h)
			return
		case err != nil:
			e.pending = nil
			e.discard(h)
			refuse(err)
			return
		}
		old, require := e.host.Load(), e.cfg.Require
		e.host.Store(h)
		e.cfg, e.pending = cfg, nil
		e.discard(old)
		e.log.Info("the new plugin has taken over", "plugin", cfg.Plugin)
		if old == nil && require != cfg.Require {
			e.tell(cfg)
		}
		e.wait.Go(e.changed) // which asks for what mu guards
	})
}

// discard ends a host that is not asked any more. A nil one is none.
func (e *enrolment) discard(h *host.Host) {
	if h == nil {
		return
	}
	e.wait.Go(func() {
		if err := h.Close(); err != nil {
			e.log.Warn("the old plugin", "err", err)
		}
	})
}

// close ends the plugin. Logins are undecided from now on.
func (e *enrolment) close() {
	if e == nil {
		return
	}
	e.mu.Lock()
	e.closed = true
	if e.pending != nil {
		e.pending()
	}
	e.discard(e.host.Load())
	e.mu.Unlock()
	e.wait.Wait()
	if err := os.RemoveAll(e.dir); err != nil {
		e.log.Warn("the plugin's folder stays", "err", err)
	}
}

// Enrolled implements [auth.Enrolment].
func (e *enrolment) Enrolled(ctx context.Context, accountID int64, login string, req *auth.Request) (bool, string, error) {
	for {
		h := e.host.Load()
		if h == nil {
			return true, "", nil
		}
		ok, note, err := h.Enrolled(ctx, accountID, login, req)
		if err == nil || ctx.Err() != nil || e.host.Load() == h { // unless it gave way to another one meanwhile
			return ok, note, err
		}
	}
}

// asked returns itself for the admin API, nil if there is no plugin, and what a user without a second factor is told.
func (e *enrolment) asked() (admin.Enrolments, string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.host.Load() == nil {
		return nil, ""
	}
	return e, e.cfg.Help
}

var errNoPlugin = errors.New("there is no plugin any more")

// MayIssue implements [admin.Enrolments].
func (e *enrolment) MayIssue(ctx context.Context, accountID int64, login string) (admin.Enrolment, error) {
	h := e.host.Load()
	if h == nil {
		return admin.Enrolment{}, errNoPlugin
	}
	r, err := h.MayIssue(ctx, accountID, login)
	if err != nil {
		return admin.Enrolment{}, err
	}
	return e.view(login, r, nil), nil
}

// Enrolment implements [admin.Enrolments].
func (e *enrolment) Enrolment(ctx context.Context, accountID int64, login string, fresh bool) admin.Enrolment {
	h := e.host.Load()
	if h == nil {
		return e.view(login, host.Result{}, errNoPlugin)
	}
	r, err := h.Check(ctx, accountID, login, fresh)
	return e.view(login, r, err)
}

func (e *enrolment) view(login string, r host.Result, err error) admin.Enrolment {
	e.mu.Lock()
	cfg := e.cfg
	e.mu.Unlock()
	v := admin.Enrolment{Login: login, Require: cfg.Require, Allowed: r.Allowed, Source: string(r.Source), ReasonCode: r.Answer.ReasonCode}
	if err != nil {
		v.Allowed, v.Source = false, admin.SourceUnknown
	} else {
		err = r.Problem
	}
	if err != nil {
		v.Problem = auth.Clip(err.Error(), 512)
	}
	if r.Answer.Status.Known() {
		kept := r.At.Add(cfg.LastKnown)
		v.Status, v.At, v.Until, v.KeptUntil = r.Answer.Status.String(), &r.At, &r.Until, &kept
	}
	return v
}

// Plugin implements [admin.Enrolments].
func (e *enrolment) Plugin() admin.Plugin {
	e.mu.Lock()
	cfg, problem := e.cfg, e.problem
	e.mu.Unlock()
	v := admin.Plugin{Require: cfg.Require, OnError: cfg.OnError, LastKnown: cfg.LastKnown.String(), Error: problem, Errors: map[string]int64{}}
	h := e.host.Load()
	if h == nil {
		return v
	}
	s := h.Stats()
	v.Path, v.Up, v.PID, v.Name, v.Version, v.Problem, v.BreakerOpen = cfg.Plugin, s.Up, s.PID, s.Name, s.Version, s.Problem, s.Open
	if !s.Since.IsZero() {
		v.Since = &s.Since
	}
	v.Restarts, v.Cached, v.Checks, v.CheckSeconds, v.Errors, v.Fallback = s.Ended, s.Cached, s.Checks, s.CheckSeconds, s.Errors, s.Fallback
	v.LinesDropped, v.Known, v.Waiting = s.LinesDropped, s.Known, s.Waiting
	return v
}
