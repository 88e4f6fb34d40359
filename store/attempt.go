package store

import (
	"cmp"
	"container/list"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// Bounds of the history of attempts. Whoever guesses decides how many there are; these decide what they cost.
const (
	attemptsPerSecond  = 256  // rows written
	maxPendingAttempts = 2048 // kinds of attempts that wait to be written
	maxKindsPending    = 8    // the same of one account, before its sources are counted as one
	attemptsPerReason  = 16   // rows of an account for one reason; the latest stay
	maxAttemptsShown   = 100

	defaultMaxAttempts = 500_000 // rows in the table
	attemptAge         = 30      // days
	pruneEvery         = 10 * time.Minute
	pruneBatch         = 20_000

	maxStrangers     = 1024 // unknown logins that are remembered, in memory only
	maxStrangerKinds = 8    // of attempts at one of them
)

// attemptKey is what attempts that are alike have in common.
type attemptKey struct {
	account, row      int64
	reason            auth.Reason
	service, frontEnd string
	addr              netip.Addr
}

func (k attemptKey) compare(o attemptKey) int {
	return cmp.Or(cmp.Compare(k.account, o.account), cmp.Compare(k.reason, o.reason), cmp.Compare(k.row, o.row),
		cmp.Compare(k.service, o.service), cmp.Compare(k.frontEnd, o.frontEnd), k.addr.Compare(o.addr))
}

// tally is how often and when they were.
type tally struct {
	first, last time.Time
	count       int64
}

func (t *tally) add(o tally) {
	if t.count == 0 || o.first.Before(t.first) {
		t.first = o.first
	}
	if o.last.After(t.last) {
		t.last = o.last
	}
	t.count += o.count
}

// attempts writes the rejected logins of known accounts, asynchronously, those that are alike as one, and no more in a second than
// the database does not notice.
type attempts struct {
	db      *sql.DB
	log     *slog.Logger
	now     func() time.Time
	maxRows int

	mu       sync.Mutex
	pending  map[attemptKey]*tally
	kinds    map[int64]int // of pending, by account
	dropped  uint64
	stranger map[string]*list.Element // of *stranger
	recent   *list.List               // the one tried last is first

	writing sync.Mutex // one flush at a time
	wake    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

// stranger is a login that no account goes by.
type stranger struct {
	login string
	kinds []auth.PastAttempt
}

func newAttempts(db *sql.DB, log *slog.Logger, now func() time.Time, maxRows int) *attempts {
	if maxRows <= 0 {
		maxRows = defaultMaxAttempts
	}
	return &attempts{
		db: db, log: log, now: now, maxRows: maxRows, pending: map[attemptKey]*tally{}, kinds: map[int64]int{},
		stranger: map[string]*list.Element{}, recent: list.New(),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
}

func startAttempts(db *sql.DB, log *slog.Logger, now func() time.Time, maxRows int) *attempts {
	a := newAttempts(db, log, now, maxRows)
	go a.run()
	return a
}

func (h *attempts) record(a auth.Attempt) {
	if a.OK || a.AccountID == 0 {
		return
	}
	if a.At.IsZero() {
		a.At = h.now()
	}
	k := attemptKey{a.AccountID, a.AppPasswordID, a.Reason, clean(a.Service), clean(a.FrontEnd), a.Addr.Unmap().WithZone("")}
	one := tally{a.At, a.At, 1}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pending[k] == nil && k.row == 0 && h.kinds[k.account] >= maxKindsPending {
		// From many places at once: which is not worth a row each. What matched is, since guessing cannot bring it about.
		k = attemptKey{account: k.account, reason: k.reason, frontEnd: k.frontEnd}
	}
	h.add(k, one)
	signal(h.wake)
}

// add puts a tally to what is pending, if there is room. What matched an app password finds twice as much, so that guesses do not crowd
// it out.
func (h *attempts) add(k attemptKey, t tally) {
	p := h.pending[k]
	if p == nil {
		limit := maxPendingAttempts
		if k.row != 0 {
			limit *= 2
		}
		if len(h.pending) >= limit {
			h.dropped += uint64(t.count)
			return
		}
		p = &tally{}
		h.pending[k] = p
		h.kinds[k.account]++
	}
	p.add(t)
}

// take removes what one second may write: first what matched an app password, then the oldest.
func (h *attempts) take() map[attemptKey]tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys := make([]attemptKey, 0, len(h.pending))
	for k := range h.pending {
		keys = append(keys, k)
	}
	if len(keys) > attemptsPerSecond {
		slices.SortFunc(keys, func(a, b attemptKey) int {
			if (a.row != 0) != (b.row != 0) {
				return cmp.Compare(min(b.row, 1), min(a.row, 1))
			}
			return h.pending[a].first.Compare(h.pending[b].first)
		})
		keys = keys[:attemptsPerSecond]
	}
	batch := make(map[attemptKey]tally, len(keys))
	for _, k := range keys {
		batch[k] = *h.pending[k]
		delete(h.pending, k)
		if h.kinds[k.account]--; h.kinds[k.account] == 0 {
			delete(h.kinds, k.account)
		}
	}
	return batch
}

func (h *attempts) run() {
	defer close(h.stopped)
	prune := time.NewTimer(pruneEvery / 10)
	defer prune.Stop()
	failing := false
	told := func(err error) {
		switch {
		case err != nil && !failing:
			h.log.Error("cannot write the history of attempts, trying again", "error", err)
		case err == nil && failing:
			h.log.Info("writing the history of attempts works again", "dropped", h.lost())
		}
		failing = err != nil
	}
	pause := flushEvery
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-h.wake:
		case <-prune.C:
			if err := h.prune(context.Background()); err != nil {
				told(err)
			}
			prune.Reset(pruneEvery)
			continue
		case <-h.stop:
			return
		}
		select {
		case <-timer.C: // since the last write
		case <-h.stop:
			return
		}
		more, err := h.flush(context.Background())
		told(err)
		pause = flushEvery
		if err != nil {
			pause = min(pause*2, flushEveryMax)
		}
		if more || err != nil {
			signal(h.wake)
		}
		timer.Reset(pause)
	}
}

func (h *attempts) lost() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dropped
}

// flush writes one batch; more says that there is another. After an error the batch is pending again, unless the database would refuse
// it the next time too.
func (h *attempts) flush(ctx context.Context) (more bool, err error) {
	h.writing.Lock()
	defer h.writing.Unlock()
	batch := h.take()
	if len(batch) == 0 {
		return false, nil
	}
	if err := h.write(ctx, batch); err != nil {
		e, ok := errors.AsType[*pq.Error](err)
		refused := ok && (e.Code.Class() == "22" || e.Code.Class() == "23")
		h.mu.Lock()
		for k, t := range batch {
			if refused {
				h.dropped += uint64(t.count)
			} else {
				h.add(k, t)
			}
		}
		h.mu.Unlock()
		return !refused, failed("write the history of attempts", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.pending) > 0, nil
}

// The times are ages, for the reason that writeUsesSQL has. In the order of the key, so that two daemons do not dead-lock.
const writeAttemptsSQL = `
INSERT INTO attempts AS t (account_id, reason, app_password_id, service, front_end, addr, first_at, last_at, count)
SELECT u.account_id, u.reason, NULLIF(u.row_id, 0), u.service, u.front_end, u.addr, statement_timestamp() - make_interval(secs => u.first_age),
	statement_timestamp() - make_interval(secs => u.last_age), u.count
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::inet[], $7::float8[], $8::float8[], $9::bigint[])
	WITH ORDINALITY AS u (account_id, reason, row_id, service, front_end, addr, first_age, last_age, count, n)
WHERE EXISTS (SELECT FROM accounts a WHERE a.id = u.account_id)
ORDER BY u.n
ON CONFLICT ON CONSTRAINT attempts_alike_key DO UPDATE
	SET first_at = least(t.first_at, excluded.first_at), last_at = greatest(t.last_at, excluded.last_at), count = t.count + excluded.count`

const boundAttemptsSQL = `
DELETE FROM attempts WHERE id IN (
	SELECT id FROM (
		SELECT id, row_number() OVER (PARTITION BY account_id, reason ORDER BY last_at DESC, id DESC) AS n
		FROM attempts WHERE account_id = ANY ($1::bigint[])
	) AS numbered WHERE n > $2)`

func (h *attempts) write(ctx context.Context, batch map[attemptKey]tally) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("panic in the history of attempts", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal fault")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	keys := make([]attemptKey, 0, len(batch))
	for k := range batch {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, attemptKey.compare)
	now := h.now()
	var accounts, rows, counts []int64
	var reasons, services, frontEnds []string
	var first, last []float64
	var addrs []sql.NullString
	for _, k := range keys {
		t := batch[k]
		accounts, rows, counts = append(accounts, k.account), append(rows, k.row), append(counts, t.count)
		reasons, services, frontEnds = append(reasons, string(k.reason)), append(services, k.service), append(frontEnds, k.frontEnd)
		addrs = append(addrs, sql.NullString{String: k.addr.String(), Valid: k.addr.IsValid()})
		first = append(first, max(0, now.Sub(t.first).Seconds()))
		last = append(last, max(0, now.Sub(t.last).Seconds()))
	}
	tx, err := h.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // no effect after Commit
	if _, err := tx.ExecContext(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, writeAttemptsSQL, pq.Array(accounts), pq.Array(reasons), pq.Array(rows), pq.Array(services), pq.Array(frontEnds),
		pq.Array(addrs), pq.Array(first), pq.Array(last), pq.Array(counts)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, boundAttemptsSQL, pq.Array(slices.Compact(accounts)), attemptsPerReason); err != nil {
		return err
	}
	return tx.Commit()
}

// prune removes what is old, what belongs to accounts that are gone, and the oldest of what is too much, a bounded number at a time. Of
// several daemons one does it. The table is small enough to be read.
func (h *attempts) prune(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	tx, err := h.db.BeginTx(ctx, nil)
	if err != nil {
		return failed("sweep the history of attempts", err)
	}
	defer tx.Rollback() // no effect after Commit
	var mine bool
	if err := tx.QueryRowContext(ctx, "SELECT pg_try_advisory_xact_lock(hashtext('valetkey_attempts'))").Scan(&mine); err != nil || !mine {
		return failed("sweep the history of attempts", err)
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM attempts WHERE id IN (
		(SELECT t.id FROM attempts t WHERE t.last_at < now() - make_interval(days => $1)
			OR NOT EXISTS (SELECT FROM accounts a WHERE a.id = t.account_id) LIMIT $3)
		UNION ALL
		(SELECT id FROM attempts ORDER BY last_at LIMIT least($3, greatest(0, (SELECT count(*) FROM attempts) - $2))))`,
		attemptAge, h.maxRows, pruneBatch)
	if err == nil {
		err = tx.Commit()
	}
	return failed("sweep the history of attempts", err)
}

func (h *attempts) close(ctx context.Context) error {
	h.once.Do(func() { close(h.stop) })
	select {
	case <-h.stopped:
	case <-ctx.Done():
	}
	for {
		more, err := h.flush(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// RecordStranger implements [auth.Strangers]: the last thousand unknown logins are remembered in memory, with what was tried.
func (s *Store) RecordStranger(login string, a auth.Attempt) { s.attempts.recordStranger(login, a) }

func (h *attempts) recordStranger(login string, a auth.Attempt) {
	if len(login) > auth.MaxLogin {
		return
	}
	if a.At.IsZero() {
		a.At = h.now()
	}
	p := auth.PastAttempt{First: a.At, Last: a.At, Count: 1, Reason: a.Reason, Service: clean(a.Service), FrontEnd: clean(a.FrontEnd),
		Addr: a.Addr.Unmap().WithZone("")}
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.stranger[login]
	if e == nil {
		e = h.recent.PushFront(&stranger{login: login})
		h.stranger[login] = e
		if h.recent.Len() > maxStrangers {
			delete(h.stranger, h.recent.Remove(h.recent.Back()).(*stranger).login)
		}
	}
	h.recent.MoveToFront(e)
	x := e.Value.(*stranger)
	i := slices.IndexFunc(x.kinds, func(o auth.PastAttempt) bool {
		return o.Reason == p.Reason && o.Service == p.Service && o.FrontEnd == p.FrontEnd && o.Addr == p.Addr
	})
	if i >= 0 {
		p.First, p.Count = x.kinds[i].First, x.kinds[i].Count+1
		x.kinds = slices.Delete(x.kinds, i, i+1)
	} else if len(x.kinds) == maxStrangerKinds {
		x.kinds = slices.Delete(x.kinds, maxStrangerKinds-1, maxStrangerKinds)
	}
	x.kinds = slices.Insert(x.kinds, 0, p) // the latest first
}

// Attempts returns the rejected logins of the account that goes by this normalised login, those that were alike as one, the latest first;
// of an unknown login what this daemon remembers. Accepted ones are the last uses of app passwords.
func (s *Store) Attempts(ctx context.Context, login string) ([]auth.PastAttempt, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if _, err := s.attempts.flush(ctx); err != nil { // so that what was just tried is seen
		return nil, err
	}
	var account int64
	err := s.db.QueryRowContext(ctx, "SELECT account_id FROM logins WHERE login = $1", login).Scan(&account)
	if errors.Is(err, sql.ErrNoRows) {
		return s.attempts.ofStranger(login), nil
	}
	if err != nil {
		return nil, failed("read the history of attempts", err)
	}
	rows, err := s.db.QueryContext(ctx, `SELECT t.first_at, t.last_at, t.count, t.reason, COALESCE(p.label, ''), t.service, t.front_end, t.addr
		FROM attempts t LEFT JOIN app_passwords p ON p.id = t.app_password_id WHERE t.account_id = $1 ORDER BY t.last_at DESC, t.id DESC LIMIT $2`,
		account, maxAttemptsShown)
	if err != nil {
		return nil, failed("read the history of attempts", err)
	}
	defer rows.Close()
	var all []auth.PastAttempt
	for rows.Next() {
		var p auth.PastAttempt
		var addr sql.NullString
		if err := rows.Scan(&p.First, &p.Last, &p.Count, &p.Reason, &p.Label, &p.Service, &p.FrontEnd, &addr); err != nil {
			return nil, failed("read the history of attempts", err)
		}
		if addr.Valid {
			if p.Addr, err = netip.ParseAddr(addr.String); err != nil {
				return nil, failed("read the history of attempts", err)
			}
		}
		all = append(all, p)
	}
	return all, failed("read the history of attempts", rows.Err())
}

func (h *attempts) ofStranger(login string) []auth.PastAttempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.stranger[login]; e != nil {
		return slices.Clone(e.Value.(*stranger).kinds)
	}
	return nil
}
