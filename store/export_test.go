package store

import (
	"context"
	"database/sql/driver"
	"log/slog"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// What the tests, which are in a package of their own because storetest imports this one, need to see.

const (
	LookupSQL     = lookupSQL
	LookupOneSQL  = lookupOneSQL
	SchemaTarget  = schemaTarget
	VersionTable  = versionTable
	LookupTimeout = lookupTimeout
)

var (
	LookupSettings = lookupSettings
	ParseURL       = parseURL
	Redact         = func(s string) (string, error) { cfg, err := parseURL(s); return redact(cfg), err }
)

// Flush writes the pending bookkeeping now.
func (s *Store) Flush(ctx context.Context) error { return s.recorder.flush(ctx) }

// Remembered returns how many notes the recorder remembers having taken.
func (s *Store) Remembered() int {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	return len(s.recorder.recent) + len(s.recorder.before)
}

// NewLookups makes a queue with connections of the test's.
func NewLookups(connect func(context.Context) (driver.Conn, error), maxQueue int) *Lookups {
	return &Lookups{startLookups(connectFunc(connect), slog.New(slog.DiscardHandler), maxQueue)}
}

type Lookups struct{ l *lookups }

func (l *Lookups) Lookup(ctx context.Context, login string, tags []auth.Tag) (*auth.Found, error) {
	return l.l.lookup(ctx, login, tags)
}

// LookupBatch asks for each login with its tags in one query, on a connection of its own.
func (s *Store) LookupBatch(logins []string, tags [][]auth.Tag) ([]*auth.Found, error) {
	lane := newLane(s.lookups)
	defer lane.drop()
	var batch []*request
	for i := range logins {
		batch = append(batch, &request{login: logins[i], tags: tags[i], done: make(chan struct{}, 1)})
	}
	lane.run(batch)
	var found []*auth.Found
	for _, r := range batch {
		if r.err != nil {
			return nil, r.err
		}
		found = append(found, r.found)
	}
	return found, nil
}

func (l *Lookups) Queued() int {
	l.l.mu.Lock()
	defer l.l.mu.Unlock()
	return len(l.l.queue)
}

func (l *Lookups) Close(ctx context.Context) error { return l.l.close(ctx) }

type connectFunc func(context.Context) (driver.Conn, error)

func (f connectFunc) Connect(ctx context.Context) (driver.Conn, error) { return f(ctx) }
func (f connectFunc) Driver() driver.Driver                            { return &pq.Driver{} }

// LookupConnector makes connections as the lanes use them.
func LookupConnector(url string) (driver.Connector, error) {
	cfg, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	return connector(cfg, lookupExchange, lookupSettings)
}

// FindAlone is FindAccounts with a query for each call.
func FindAlone(d *Directory) func(context.Context, []auth.AccountKey, int, auth.Parts) ([]auth.Account, error) {
	return func(ctx context.Context, keys []auth.AccountKey, limit int, parts auth.Parts) ([]auth.Account, error) {
		f := newFind(keys, limit, parts)
		err := d.turn(ctx, true, func() error { return d.query(ctx, []*find{f}) })
		return f.accounts, err
	}
}

// Scan runs f as the reading of a page.
func Scan(ctx context.Context, d *Directory, f func() error) error { return d.turn(ctx, true, f) }

// KeyBatch is how many accounts get their keys at a time.
const KeyBatch = keyBatch

// FlushAttempts writes all of the history that is pending now.
func (s *Store) FlushAttempts(ctx context.Context) error {
	for {
		if more, err := s.attempts.flush(ctx); err != nil || !more {
			return err
		}
	}
}

// PendingAttempts is how many kinds of attempts wait to be written.
func (s *Store) PendingAttempts() int {
	s.attempts.mu.Lock()
	defer s.attempts.mu.Unlock()
	return len(s.attempts.pending)
}

// PruneAttempts sweeps the history now.
func (s *Store) PruneAttempts(ctx context.Context) error { return s.attempts.prune(ctx) }

// StrangersKnown is how many unknown logins are remembered.
func (s *Store) StrangersKnown() int {
	s.attempts.mu.Lock()
	defer s.attempts.mu.Unlock()
	return s.attempts.recent.Len()
}
