package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// Time limits outside the lookup: statement_timeout < context < exchange, so that the clearest error wins.
const (
	adminStatementTimeout = "5s"
	adminTimeout          = 6 * time.Second
	adminExchange         = 7 * time.Second
)

// connLifetime is how long a connection is used at most, so that a primary that was demoted and a changed password of
// the role are noticed.
const connLifetime = 5 * time.Minute

// Config says where the database is.
type Config struct {
	// URL is a connection URL or keyword string as lib/pq takes it. It must name sslmode.
	URL string
	// Log receives events of the store. Required.
	Log *slog.Logger
	// Now is the clock of the bookkeeping; it must be the one that [auth.Attempt.At] is taken from. Nil: time.Now.
	// Whether an app password has expired is always judged by the database's clock.
	Now func() time.Time
	// MaxQueue is how many lookups may wait. Zero: 4096.
	MaxQueue int
	// MaxPending is how many last-used times and events may wait to be written. Zero: 8192.
	MaxPending int
	// MaxAttempts is how many rows the history of attempts may have. Zero: 500,000.
	MaxAttempts int
}

// Store is the database as the rest of the daemon sees it. It implements [auth.Rows] and [auth.Recorder]. It is safe for
// concurrent use.
type Store struct {
	log      *slog.Logger
	cfg      pq.Config
	db       *sql.DB // everything but lookups
	lookups  *lookups
	recorder *recorder
	attempts *attempts
	closed   atomic.Bool

	successions *successions

	directory  *Directory
	keying     atomic.Bool     // search keys are being made
	background sync.WaitGroup  // which ends with ctx
	ctx        context.Context // of the background
	stop       context.CancelFunc
}

var (
	_ auth.Rows      = (*Store)(nil)
	_ auth.Recorder  = (*Store)(nil)
	_ auth.Strangers = (*Store)(nil)
)

// Open checks the configuration. It does not connect: with the database out of reach everything works as far as an error
// goes, and recovers by itself. Errors name the key of the configuration file and never hold the URL.
func Open(cfg Config) (*Store, error) {
	pc, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxQueue <= 0 {
		cfg.MaxQueue = 4096
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = 8192
	}
	if !sslProtects(pc) {
		cfg.Log.Warn("the connection to the database is not protected against a man in the middle: use sslmode=verify-full",
			"database", redact(pc))
	}
	general, err := connector(pc, adminExchange, map[string]string{
		"statement_timeout":                   adminStatementTimeout,
		"idle_in_transaction_session_timeout": "30s",
	})
	if err != nil {
		return nil, fmt.Errorf("database.url: %w", err)
	}
	hot, err := connector(pc, lookupExchange, lookupSettings)
	if err != nil {
		return nil, fmt.Errorf("database.url: %w", err)
	}
	entries, err := connector(pc, directoryExchange, directorySettings)
	if err != nil {
		return nil, fmt.Errorf("database.url: %w", err)
	}
	s := &Store{log: cfg.Log, cfg: pc, db: sql.OpenDB(general)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.directory = newDirectory(sql.OpenDB(entries), s.keyMissing)
	s.db.SetMaxOpenConns(4)
	s.db.SetMaxIdleConns(2)
	s.db.SetConnMaxLifetime(connLifetime)
	s.lookups = startLookups(hot, cfg.Log, cfg.MaxQueue)
	s.recorder = startRecorder(s.db, cfg.Log, cfg.Now, cfg.MaxPending)
	s.attempts = startAttempts(s.db, cfg.Log, cfg.Now, cfg.MaxAttempts)
	s.successions = startSuccessions(s.endReplaced, cfg.Log, cfg.MaxPending)
	return s, nil
}

// String says where the database is, without the password.
func (s *Store) String() string { return redact(s.cfg) }

// Close answers the lookups that wait, refuses new ones with [auth.ErrShuttingDown], writes the bookkeeping that is
// pending and closes the connections. After ctx it gives up what remains; the error says what was lost.
func (s *Store) Close(ctx context.Context) error {
	if s.closed.Swap(true) {
		return nil
	}
	err := s.lookups.close(ctx)
	s.stop()
	err = errors.Join(err, s.directory.close(ctx))
	s.background.Wait() // each step of it is bounded, and ends with its context
	err = errors.Join(err, s.successions.close(ctx), s.recorder.close(ctx), s.attempts.close(ctx))
	return errors.Join(err, s.db.Close())
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if err := s.db.PingContext(ctx); err != nil {
		return failed("reach the database", err)
	}
	return nil
}

// Status is what an admin wants to know about the database.
type Status struct {
	Where         string        // without the password
	ServerVersion string        // as Postgres prints it
	InRecovery    bool          // a standby: lookups work, changes do not
	Schema        int64         // version of the schema, 0 if there is none
	Target        int64         // version that this program brings along
	Pending       bool          // Schema < Target: Migrate is needed
	Newer         bool          // Schema > Target: a newer program has migrated
	ClockOffset   time.Duration // by how much the server's clock is ahead of ours, give or take the time of a query
	Lookups       LookupStats
	Bookkeeping   BookkeepingStats
}

// Status asks the database.
func (s *Store) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	st := Status{Where: s.String(), Target: schemaTarget, Lookups: s.LookupStats(), Bookkeeping: s.recorder.stats()}
	asked, clock := time.Now(), time.Time{}
	err := s.db.QueryRowContext(ctx, "SELECT current_setting('server_version'), pg_is_in_recovery(), clock_timestamp()").
		Scan(&st.ServerVersion, &st.InRecovery, &clock)
	st.ClockOffset = clock.Sub(asked.Add(time.Since(asked) / 2))
	if err == nil {
		st.Schema, err = schemaVersion(ctx, s.db)
	}
	if err != nil {
		return st, failed("read the state of the database", err)
	}
	st.Pending, st.Newer = st.Schema < st.Target, st.Schema > st.Target
	return st, nil
}

// transact runs f in a transaction and commits. A deadlock or serialisation failure is tried again.
func (s *Store) transact(ctx context.Context, what string, f func(ctx context.Context, tx *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var err error
	for range 3 {
		if err = s.transactOnce(ctx, f); !isConflict(err) {
			break
		}
	}
	return failed(what, err)
}

func (s *Store) transactOnce(ctx context.Context, f func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // no effect after Commit
	if err := f(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}
