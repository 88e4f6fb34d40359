package auth

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// Upgrade replaces hashes that were taken over from elsewhere.
type Upgrade interface {
	// Replaceable reports whether the stored hash of this password is to be replaced. It must be cheap.
	Replaceable(phc, password string) bool
	// Hash is as slow as a hash shall be.
	Hash(password string) (phc string)
	// ReplacePHC stores the new hash if the row still has the old one, and reports whether it did. It is no error that the row
	// is gone, revoked or changed.
	ReplacePHC(ctx context.Context, rowID int64, old, new string) (bool, error)
}

// Bounds of the replacement of hashes. What does not find room is left to the next login.
const (
	upgradeQueue   = 256
	upgradeTimeout = 30 * time.Second // from the login on: for so long its password is kept
)

// upgrades replaces hashes one at a time, behind the logins that it learned the passwords from. A password is kept until its turn, and
// nowhere else.
type upgrades struct {
	cfg    Upgrade
	hashes *Admission
	log    *slog.Logger
	done   func(rowID int64, phc, password string) // after a replacement

	ctx  context.Context
	stop context.CancelFunc
	jobs chan upgradeJob
	wait sync.WaitGroup

	mu      sync.Mutex
	rows    map[int64]struct{} // waiting or at work
	running bool
	closed  bool
}

type upgradeJob struct {
	row           int64
	old, password string
	until         time.Time
}

func newUpgrades(cfg Upgrade, hashes *Admission, log *slog.Logger, done func(int64, string, string)) *upgrades {
	u := &upgrades{cfg: cfg, hashes: hashes, log: log, done: done, jobs: make(chan upgradeJob, upgradeQueue), rows: map[int64]struct{}{}}
	u.ctx, u.stop = context.WithCancel(context.Background())
	return u
}

// add takes note that the password opened the row with that hash. It returns at once.
func (u *upgrades) add(row int64, phc, password string) {
	if !u.cfg.Replaceable(phc, password) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, there := u.rows[row]; there || u.closed {
		return
	}
	select {
	case u.jobs <- upgradeJob{row, phc, password, time.Now().Add(upgradeTimeout)}:
	default:
		return
	}
	u.rows[row] = struct{}{}
	if !u.running { // most installations have nothing to replace
		u.running = true
		u.wait.Go(u.run)
	}
}

func (u *upgrades) run() {
	for {
		select {
		case j := <-u.jobs:
			u.replace(j)
		case <-u.ctx.Done():
			return
		}
	}
}

func (u *upgrades) replace(j upgradeJob) {
	defer func() {
		if p := recover(); p != nil {
			u.log.Error("panic in the replacement of an imported hash", "app_password", j.row, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
		u.mu.Lock()
		delete(u.rows, j.row)
		u.mu.Unlock()
	}()
	ctx, cancel := context.WithDeadline(u.ctx, j.until)
	defer cancel()
	var phc string
	if err := u.hashes.Do(ctx, func() { phc = u.cfg.Hash(j.password) }); err != nil {
		return // too busy: the next login brings it again
	}
	replaced, err := u.cfg.ReplacePHC(ctx, j.row, j.old, phc)
	switch {
	case err != nil && u.ctx.Err() == nil:
		u.log.Warn("an imported hash could not be replaced by ours; the next login with it tries again", "app_password", j.row, "err", err)
	case replaced:
		u.done(j.row, phc, j.password)
	}
}

// close waits for the replacement at work and forgets the others.
func (u *upgrades) close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.stop()
	u.wait.Wait()
	for {
		select {
		case <-u.jobs:
		default:
			return
		}
	}
}
