package store

import (
	"container/list"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// How often the same thing is written.
const (
	useEvery        = 5 * time.Minute // last use of a row
	changedUseEvery = time.Minute     // the same, if service, front end or address changed
	rejectedEvery   = time.Hour       // rejection of a row for a reason from an address

	flushEvery     = time.Second // at least, between two writes
	flushEveryMax  = 10 * time.Second
	maxNotesWrite  = 1000
	maxRemembered  = 32768 // per generation, of which there are two
	maxServiceName = auth.MaxService
)

// noteKey names what is written at most once in a while: the last use of a row (no reason), its rejection, or a network.
type noteKey struct {
	id      int64
	reason  auth.Reason
	addr    netip.Addr
	network netip.Prefix // that it was used from, in a note of that; see noteNetwork
}

type note struct {
	key               noteKey
	at                time.Time
	service, frontEnd string
	addr              netip.Addr
}

// recorder writes last-used times and rejections, asynchronously and seldom: each login doing so would cost a commit.
type recorder struct {
	db         *sql.DB
	log        *slog.Logger
	now        func() time.Time
	maxPending int
	networks   atomic.Bool // somebody wants to be told of new ones

	mu      sync.Mutex
	pending *list.List // of *note, oldest first
	index   map[noteKey]*list.Element
	// What was noted lately. A generation is thrown away when the next one is full: at worst something is written more
	// often than it need be.
	recent, before map[noteKey]*note
	counts         BookkeepingStats

	wake    chan struct{} // one element: something is pending
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

// BookkeepingStats count since the start, except Pending.
type BookkeepingStats struct {
	Pending int    // waiting to be written
	Written uint64 // last uses and events written
	Dropped uint64 // given up, because too many waited or the database refused them
}

// BookkeepingStats returns the counters. It does not ask the database.
func (s *Store) BookkeepingStats() BookkeepingStats { return s.recorder.stats() }

func startRecorder(db *sql.DB, log *slog.Logger, now func() time.Time, maxPending int) *recorder {
	r := newRecorder(db, log, now, maxPending)
	go r.run()
	return r
}

func newRecorder(db *sql.DB, log *slog.Logger, now func() time.Time, maxPending int) *recorder {
	return &recorder{
		db: db, log: log, now: now, maxPending: maxPending,
		pending: list.New(), index: map[noteKey]*list.Element{}, recent: map[noteKey]*note{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// Record implements [auth.Recorder]. An accepted login updates the last use of its app password, at most every five
// minutes, or every minute if service, front end or address changed. A rejected one whose password matched leaves an
// event, at most one per hour for the same app password, reason and address. Every rejected one is counted in the history of
// attempts ([Store.Attempts]). The first accepted login with a new secret also ends the old one, see [successions].
func (s *Store) Record(a auth.Attempt) {
	if a.OK && a.Replaces != 0 {
		s.successions.used(a.AppPasswordID, a.Replaces)
	}
	s.recorder.record(a)
	s.attempts.record(a)
}

func (r *recorder) record(a auth.Attempt) {
	if a.AppPasswordID == 0 {
		return
	}
	key, addr := noteKey{id: a.AppPasswordID}, a.Addr.Unmap().WithZone("")
	if !a.OK {
		key.reason, key.addr = a.Reason, addr
	}
	if a.At.IsZero() {
		a.At = r.now()
	}
	service, frontEnd := clean(a.Service), clean(a.FrontEnd)
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.OK && r.networks.Load() {
		r.noteNetwork(&a, &note{at: a.At, service: service, frontEnd: frontEnd, addr: addr})
	}
	e := r.index[key]
	if e == nil {
		// The usual case, and so the one that must be cheap: it was noted a short while ago.
		if old := r.remembered(key); old != nil {
			age := a.At.Sub(old.at)
			switch {
			case !a.OK && age < rejectedEvery,
				a.OK && age < changedUseEvery,
				a.OK && age < useEvery && service == old.service && frontEnd == old.frontEnd && addr == old.addr:
				return
			}
		}
	}
	n := &note{key: key, at: a.At, service: service, frontEnd: frontEnd, addr: addr}
	if e != nil {
		if old := e.Value.(*note); a.OK && n.at.After(old.at) { // not written yet, so the newer one costs nothing
			e.Value = n
			r.remember(n)
		}
		return
	}
	r.remember(n)
	r.index[n.key] = r.pending.PushBack(n)
	r.trim()
	signal(r.wake)
}

// clean makes of a peer's text what the database accepts, so that one attempt cannot spoil a batch.
func clean(s string) string {
	if len(s) > maxServiceName {
		s = s[:maxServiceName]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
}

func (r *recorder) remembered(k noteKey) *note {
	if n := r.recent[k]; n != nil {
		return n
	}
	return r.before[k]
}

func (r *recorder) remember(n *note) {
	if len(r.recent) >= maxRemembered {
		r.before, r.recent = r.recent, make(map[noteKey]*note)
	}
	r.recent[n.key] = n
}

// forget makes the next attempt of the kind count again, after its note was lost.
func (r *recorder) forget(k noteKey) {
	delete(r.recent, k)
	delete(r.before, k)
}

// trim drops the oldest of what is too much. The newest matter most: what is still in use will be noted again.
func (r *recorder) trim() {
	for r.pending.Len() > r.maxPending {
		n := r.pending.Remove(r.pending.Front()).(*note)
		delete(r.index, n.key)
		r.forget(n.key)
		r.counts.Dropped++
	}
}

// take removes a batch from what is pending, oldest first.
func (r *recorder) take() []*note {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := make([]*note, 0, min(r.pending.Len(), maxNotesWrite))
	for len(batch) < maxNotesWrite && r.pending.Len() > 0 {
		n := r.pending.Remove(r.pending.Front()).(*note)
		delete(r.index, n.key)
		batch = append(batch, n)
	}
	return batch
}

// putBack returns a batch that could not be written.
func (r *recorder) putBack(batch []*note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(batch) - 1; i >= 0; i-- {
		if n := batch[i]; r.index[n.key] == nil { // else a newer one has taken its place
			r.index[n.key] = r.pending.PushFront(n)
		}
	}
	r.trim()
}

func (r *recorder) stats() BookkeepingStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.counts
	s.Pending = r.pending.Len()
	return s
}

func (r *recorder) run() {
	defer close(r.stopped)
	pause := flushEvery
	failing := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.wake:
		case <-r.stop:
			return
		}
		select {
		case <-timer.C: // since the last write
		case <-r.stop:
			return
		}
		err := r.flush(context.Background())
		switch {
		case err != nil && !failing:
			failing = true
			r.log.Error("cannot write last-used times and events, trying again", "error", err)
		case err == nil && failing:
			failing = false
			r.log.Info("writing last-used times and events works again", "dropped", r.stats().Dropped)
		}
		if err != nil {
			signal(r.wake)
			pause = min(pause*2, flushEveryMax)
		} else {
			pause = flushEvery
		}
		timer.Reset(pause)
	}
}

// flush writes all that is pending. After an error the unwritten rest is pending again, except for what the database
// would refuse the next time too.
func (r *recorder) flush(ctx context.Context) error {
	for ctx.Err() == nil {
		batch := r.take()
		if len(batch) == 0 {
			return nil
		}
		err := r.write(ctx, batch)
		if err == nil {
			r.mu.Lock()
			r.counts.Written += uint64(len(batch))
			r.mu.Unlock()
			continue
		}
		if e, ok := errors.AsType[*pq.Error](err); ok {
			if c := e.Code.Class(); c == "22" || c == "23" {
				r.mu.Lock()
				r.counts.Dropped += uint64(len(batch))
				r.mu.Unlock()
				r.log.Error("the database refuses last-used times or events, dropped", "error", failed("write", err), "notes", len(batch))
				continue
			}
		}
		r.putBack(batch)
		return failed("write last-used times and events", err)
	}
	return ctx.Err()
}

// The times are sent as ages and subtracted from the database's clock, by which expiry is judged: the daemon's clock may
// be off.
//
// SKIP LOCKED, since bookkeeping must neither wait for an admin's transaction nor dead-lock with another daemon's. What
// is skipped is at worst five minutes out of date. The first use of an app password is an event.
const writeUsesSQL = `
WITH u AS (
	SELECT id, statement_timestamp() - make_interval(secs => age) AS at, service, front_end, addr
	FROM unnest($1::bigint[], $2::float8[], $3::text[], $4::text[], $5::inet[]) AS u (id, age, service, front_end, addr)
), locked AS (
	SELECT p.id, p.last_used_at IS NULL AS first FROM app_passwords p JOIN u ON u.id = p.id ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED
), used AS (
	UPDATE app_passwords p SET last_used_at = u.at, last_used_service = u.service, last_used_front_end = u.front_end,
		last_used_addr = u.addr,
		used_about = CASE WHEN p.used_about > u.at - interval '7 days' THEN p.used_about ELSE u.at END
	FROM u JOIN locked USING (id)
	WHERE p.id = u.id AND (p.last_used_at IS NULL OR p.last_used_at < u.at)
	RETURNING p.id, p.account_id, p.label, locked.first
)
INSERT INTO events (at, kind, actor, account_id, login, app_password_id, label, detail)
SELECT u.at, $6, '', a.id, a.login, used.id, used.label,
	jsonb_strip_nulls(jsonb_build_object('service', u.service, 'front_end', u.front_end, 'address', host(u.addr)))
FROM used JOIN u USING (id) JOIN accounts a ON a.id = used.account_id WHERE used.first`

const writeRejectionsSQL = `
INSERT INTO events (at, kind, actor, account_id, login, app_password_id, label, detail)
SELECT statement_timestamp() - make_interval(secs => e.age), $1, '', a.id, a.login, p.id, p.label, e.detail
FROM unnest($2::bigint[], $3::float8[], $4::jsonb[]) WITH ORDINALITY AS e (id, age, detail, n)
JOIN app_passwords p ON p.id = e.id JOIN accounts a ON a.id = p.account_id ORDER BY e.n`

func (r *recorder) write(ctx context.Context, batch []*note) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("panic in bookkeeping", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal fault")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	now := r.now()
	var ids, eventIDs []int64
	var ages, eventAges []float64
	var services, frontEnds, details []string
	var addrs []sql.NullString
	var networkIDs []int64
	var networks, networkDetails []string
	var networkAges []float64
	for _, n := range batch {
		age := max(0, now.Sub(n.at).Seconds())
		if n.key.network.IsValid() {
			text, err := json.Marshal(map[string]string{"service": n.service, "front_end": n.frontEnd, "address": n.addr.String(), "network": n.key.network.String()})
			if err != nil {
				return err
			}
			networkIDs, networkAges = append(networkIDs, n.key.id), append(networkAges, age)
			networks, networkDetails = append(networks, n.key.network.String()), append(networkDetails, string(text))
			continue
		}
		if n.key.reason == "" {
			ids, ages = append(ids, n.key.id), append(ages, age)
			services, frontEnds = append(services, n.service), append(frontEnds, n.frontEnd)
			addrs = append(addrs, sql.NullString{String: n.addr.String(), Valid: n.addr.IsValid()})
			continue
		}
		detail := map[string]string{"reason": string(n.key.reason), "service": n.service, "front_end": n.frontEnd}
		if n.addr.IsValid() {
			detail["address"] = n.addr.String()
		}
		text, err := json.Marshal(detail)
		if err != nil {
			return err
		}
		eventIDs, eventAges = append(eventIDs, n.key.id), append(eventAges, age)
		details = append(details, string(text))
	}
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // no effect after Commit
	// Losing the last second of this in a crash is no harm, waiting for the disk is.
	if _, err := tx.ExecContext(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
		return err
	}
	if len(ids) > 0 {
		if _, err := tx.ExecContext(ctx, writeUsesSQL, pq.Array(ids), pq.Array(ages), pq.Array(services), pq.Array(frontEnds),
			pq.Array(addrs), eventAppPasswordFirstUsed); err != nil {
			return err
		}
	}
	if len(networkIDs) > 0 {
		if _, err := tx.ExecContext(ctx, writeNetworksSQL, eventAppPasswordNewNetwork, pq.Array(networkIDs), pq.Array(networks), pq.Array(networkAges),
			pq.Array(networkDetails), maxNetworks); err != nil {
			return err
		}
	}
	if len(eventIDs) > 0 {
		if _, err := tx.ExecContext(ctx, writeRejectionsSQL, eventLoginRejected, pq.Array(eventIDs), pq.Array(eventAges),
			pq.Array(details)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// close writes what is pending and stops. After ctx it gives up; the error says how much was lost.
func (r *recorder) close(ctx context.Context) error {
	r.once.Do(func() { close(r.stop) })
	select {
	case <-r.stopped:
	case <-ctx.Done():
	}
	err := r.flush(ctx)
	if n := r.stats().Pending; n > 0 {
		return fmt.Errorf("%d last-used times and events are lost: %w", n, err)
	}
	return err
}
