package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

const (
	maxEventPage = 500
	settleWindow = 1000                   // ids that are looked at for gaps
	settleTries  = 10                     // until a gap is left for the next call
	settlePause  = 100 * time.Millisecond // between two of them
)

// Events returns the newest events that the filter selects and that come before the given id (0: before nothing), oldest first.
func (s *Store) Events(ctx context.Context, f auth.EventFilter, before int64) ([]auth.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if before == 0 {
		before = 1<<63 - 1
	}
	all, err := s.events(ctx, f, 0, before-1, "DESC")
	slices.Reverse(all)
	return all, failed("read events", err)
}

// LastEvent returns an id before which every event has been committed or never will be: where following begins.
func (s *Store) LastEvent(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var last int64
	if err := s.db.QueryRowContext(ctx, "SELECT COALESCE(max(id), 0) FROM events").Scan(&last); err != nil {
		return 0, failed("read events", err)
	}
	last, _, err := s.settle(ctx, max(0, last-settleWindow))
	return last, failed("read events", err)
}

// EventsAfter returns the events after the given id that the filter selects, oldest first, and the id to go on from. Whoever goes on
// from there misses none and sees none twice, whatever is committed meanwhile.
func (s *Store) EventsAfter(ctx context.Context, f auth.EventFilter, after int64) (all []auth.Event, next int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	until, found, err := s.settle(ctx, after)
	if err != nil || !found {
		return nil, after, failed("read events", err)
	}
	all, err = s.events(ctx, f, after, until, "ASC")
	if err != nil {
		return nil, after, failed("read events", err)
	}
	if len(all) == limitOf(f) {
		until = all[len(all)-1].ID
	}
	return all, until, nil
}

// settle returns the last id after the given one up to which nothing can appear any more; found is false if there is none.
//
// Ids are given out before their transactions commit, so a later id may be seen before an earlier one. A gap is such a transaction,
// or one that was rolled back. Whoever has drawn an id holds a lock on the table until its end: when all that held one after
// the gap was seen are gone, what is still missing will never come.
func (s *Store) settle(ctx context.Context, after int64) (until int64, found bool, err error) {
	var ids []int64
	if err := s.db.QueryRowContext(ctx, "SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM events WHERE id > $1 ORDER BY id LIMIT $2) AS t",
		after, settleWindow).Scan((*pq.Int64Array)(&ids)); err != nil || len(ids) == 0 {
		return after, false, err
	}
	last := ids[len(ids)-1]
	if last-after == int64(len(ids)) {
		return last, true, nil
	}
	var writers []string
	for try := range settleTries {
		now, err := s.eventWriters(ctx)
		if err != nil {
			return after, false, err
		}
		if try == 0 {
			writers = now
		}
		writers = slices.DeleteFunc(writers, func(w string) bool { return !slices.Contains(now, w) })
		if len(writers) == 0 {
			return last, true, nil
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return after, false, ctx.Err()
		}
	}
	until = after // some transaction takes long: as far as the first gap
	for _, id := range ids {
		if id != until+1 {
			break
		}
		until = id
	}
	return until, until > after, nil
}

// eventWriters names the transactions that may have drawn an id for an event and have not ended.
func (s *Store) eventWriters(ctx context.Context) (all []string, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT COALESCE(array_agg(virtualtransaction), '{}') FROM pg_locks WHERE locktype = 'relation'
		AND relation = 'events'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND mode = 'RowExclusiveLock' AND granted`).Scan((*pq.StringArray)(&all))
	return all, err
}

func limitOf(f auth.EventFilter) int {
	if f.Limit <= 0 || f.Limit > maxEventPage {
		return maxEventPage
	}
	return f.Limit
}

// events reads a page with after < id <= until.
func (s *Store) events(ctx context.Context, f auth.EventFilter, after, until int64, order string) ([]auth.Event, error) {
	args := []any{after, until, limitOf(f)}
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	where := []string{"id > $1", "id <= $2"}
	if f.Login != "" {
		// By the account's id if there is one, so that an alias is as good as the canonical login, and by the login as it was then if
		// an account of that name is gone.
		var account int64
		err := s.db.QueryRowContext(ctx, "SELECT account_id FROM logins WHERE login = $1", f.Login).Scan(&account)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		where = append(where, "(account_id = "+arg(account)+" OR login = "+arg(f.Login)+")")
	}
	if f.Kind != "" {
		where = append(where, "kind = "+arg(f.Kind))
	}
	if !f.Since.IsZero() {
		// The id is found by the index on the time, which the planner would not take for a page in the order of ids.
		at := arg(f.Since)
		where = append(where, "at >= "+at, "id >= (SELECT COALESCE(min(id), 0) FROM (SELECT id FROM events WHERE at >= "+at+" OFFSET 0) AS t)")
	}
	rows, err := s.db.QueryContext(ctx, "SELECT id, at, kind, actor, COALESCE(login, ''), COALESCE(label, ''), detail FROM events WHERE "+
		strings.Join(where, " AND ")+" ORDER BY id "+order+" LIMIT $3", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []auth.Event
	for rows.Next() {
		var e auth.Event
		if err := rows.Scan(&e.ID, &e.At, &e.Kind, &e.Actor, &e.Login, &e.Label, &e.Detail); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, rows.Err()
}
