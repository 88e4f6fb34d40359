package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

const (
	successionRetry = time.Second
	// successionKept is for how long an old secret is remembered as ended after the database knows it, for lookups that read the row
	// before. No lookup takes as long.
	successionKept = 5 * time.Second
	// successionLock is how long the writing waits for an admin who changes the same account.
	successionLock = "500ms"
)

// successions ends old secrets: an app password that was rotated has two rows, and the first accepted login with the new one ends the
// old.
//
// Where this is done is a choice between three. In the login, before its answer, the end would be certain, but the login would wait for
// a commit and for the standbys, or fail with them. In the lookup, by whether the new row has a last use, every login of every
// account would pay, and the last use is noted late. So it is done here: the login's daemon refuses the old secret from that
// moment on, because it remembers (mark), and writes the end at once in the background, so that the others refuse it some
// milliseconds later. What is lost if the daemon dies in between, or while the database refuses all writes, is caught
// by the next login with the new secret, on whatever daemon; and the old one has an end by date in any case.
type successions struct {
	write func(ctx context.Context, successor, old int64) error
	log   *slog.Logger
	most  int

	mu      sync.Mutex
	ended   map[int64]*succession // by the old row
	waiting int                   // of ended, those that the database does not know of

	wake    chan struct{} // one element: something waits
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

type succession struct {
	successor, old int64
	written        time.Time // zero: not yet
}

func startSuccessions(write func(ctx context.Context, successor, old int64) error, log *slog.Logger, most int) *successions {
	s := &successions{write: write, log: log, most: most, ended: map[int64]*succession{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	go s.run()
	return s
}

// used takes note that a login with the successor was accepted. It returns at once. If too many wait already, the next login with it
// will come here again.
func (s *successions) used(successor, old int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended[old] != nil || len(s.ended) >= s.most {
		return
	}
	s.ended[old] = &succession{successor: successor, old: old}
	s.waiting++
	signal(s.wake)
}

// mark shows the rows as revoked that have ended here, whether the database knows it or not.
func (s *successions) mark(rows []auth.Candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ended) == 0 { // nearly always
		return
	}
	for i := range rows {
		if s.ended[rows[i].ID] != nil {
			rows[i].Revoked = true
		}
	}
}

func (s *successions) run() {
	defer close(s.stopped)
	failing := false
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-s.wake:
		case <-timer.C:
		case <-s.stop:
			return
		}
		err := s.flush(context.Background())
		switch {
		case err != nil && !failing:
			failing = true
			s.log.Error("cannot end app passwords whose new secret is in use, trying again; this daemon refuses them already", "error", err)
		case err == nil && failing:
			failing = false
			s.log.Info("ending app passwords whose new secret is in use works again")
		}
		if s.forget() {
			timer.Reset(successionRetry)
		}
	}
}

// flush writes what waits. It tries all, and returns the last error.
func (s *successions) flush(ctx context.Context) (err error) {
	s.mu.Lock()
	var todo []*succession
	for _, e := range s.ended {
		if e.written.IsZero() {
			todo = append(todo, e)
		}
	}
	s.mu.Unlock()
	for _, e := range todo {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e2 := s.writeOne(ctx, e); e2 != nil {
			err = e2
			continue
		}
		s.mu.Lock()
		e.written = time.Now()
		s.waiting--
		s.mu.Unlock()
	}
	return err
}

func (s *successions) writeOne(ctx context.Context, e *succession) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while an old secret was ended", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal fault")
		}
	}()
	return s.write(ctx, e.successor, e.old)
}

// forget drops what the database has known for a while, and reports whether anything is left.
func (s *successions) forget() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for old, e := range s.ended {
		if !e.written.IsZero() && time.Since(e.written) > successionKept {
			delete(s.ended, old)
		}
	}
	return len(s.ended) > 0
}

// close writes what waits and stops. After ctx it gives up; the error says how much was lost.
func (s *successions) close(ctx context.Context) error {
	s.once.Do(func() { close(s.stop) })
	select {
	case <-s.stopped:
	case <-ctx.Done():
	}
	err := s.flush(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting > 0 {
		return fmt.Errorf("%d old secrets whose new ones are in use are not ended before the next login with those: %w", s.waiting, err)
	}
	return nil
}

const rotatedWhy = "rotated: the new secret is in use"

// endReplaced revokes the row with the old secret, because the successor is in use. What has ended already is no error.
func (s *Store) endReplaced(ctx context.Context, successor, old int64) error {
	return s.transact(ctx, "end the old secret of an app password", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "SET LOCAL lock_timeout = '"+successionLock+"'"); err != nil {
			return err
		}
		if err := commitEverywhere(ctx, tx); err != nil {
			return err
		}
		// The account first, as everybody who changes app passwords.
		var a lockedAccount
		err := tx.QueryRowContext(ctx, `SELECT a.id, a.login FROM accounts a JOIN app_passwords p ON p.account_id = a.id
			WHERE p.id = $1 FOR NO KEY UPDATE OF a`, successor).Scan(&a.id, &a.login)
		if err != nil {
			return noRowsIs(err, nil)
		}
		if _, err := tx.ExecContext(ctx, "UPDATE app_passwords SET replaces = NULL WHERE id = $1 AND replaces = $2", successor, old); err != nil {
			return err
		}
		_, err = revokeRows(ctx, tx, a, "", rotatedWhy, "account_id = $3 AND id = $4 AND replaced_at IS NOT NULL", a.id, old)
		return err
	})
}
