package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// Time limits of a lookup: statement_timeout (in lookupSettings) < lookupTimeout < lookupExchange, so that the clearest
// error wins.
const (
	lookupTimeout  = 1200 * time.Millisecond // for the caller, waiting in the queue included
	lookupExchange = 1500 * time.Millisecond // for one query on the wire
	retryUntil     = 800 * time.Millisecond  // a batch is not tried again later than this

	stuckAfter   = 50 * time.Millisecond // the first lane is given up on, the second begins
	connectPause = 20 * time.Millisecond // at least, between failed attempts to connect
	maxBatch     = 256
)

// lookupSettings belong to the sessions of the lanes only (reference/lookup.md). Planning at each execution would cost
// more than the lookups do, so the plan is made once; and since it is made once, perhaps while the tables are still
// empty, nothing is left to the planner's estimates: index probes, in the order in which the query is written.
var lookupSettings = map[string]string{
	"statement_timeout":               "1s",
	"default_transaction_read_only":   "on",
	"plan_cache_mode":                 "force_generic_plan",
	"jit":                             "off",
	"enable_hashjoin":                 "off",
	"enable_mergejoin":                "off",
	"enable_seqscan":                  "off",
	"enable_bitmapscan":               "off",
	"enable_material":                 "off",
	"enable_memoize":                  "off",
	"join_collapse_limit":             "1",
	"from_collapse_limit":             "1",
	"max_parallel_workers_per_gather": "0",
}

// expired is true when an app password ran out by date or by disuse, judged by the database's clock.
const expired = `COALESCE(expires_at <= now() OR COALESCE(last_used_at, created_at) + expires_unused_for <= now(), false)`

// Bits of the column "flags".
const (
	flagEnabled = 1 << iota
	flagRevoked
	flagExpired
	flagImported
	flagReader
	flagExempt
)

// lookupSQL answers a whole batch: $1..$3 hold one element for each pair of login and tag (NULL for a login without
// tags), $4 the ids of the peppers that all tags of the batch are keyed by. How many rows an account can have is bounded
// where they are added.
//
// LATERAL with OFFSET 0 makes each probe use both columns of its index; as a plain join, the planner uses the account
// alone and filters all its rows. The last arm is for rows whose pepper the daemon lacks: its sub-select does not depend
// on the row, so that it is evaluated once in a query and normally switches the arm off.
const lookupSQL = `
SELECT q.i::integer, a.id, NULLIF(a.login, q.login), ` + accountFlags + ` + COALESCE(p.flags, 0),
	p.id, p.label, p.phc, p.services, p.networks, p.replaces
FROM unnest($1::text[], $2::integer[], $3::integer[]) WITH ORDINALITY AS q (login, pepper_id, tag, i)
JOIN logins l ON l.login = q.login
JOIN accounts a ON a.id = l.account_id
LEFT JOIN LATERAL (
	SELECT ` + candidateColumns + ` FROM app_passwords
	WHERE account_id = a.id AND tag = q.tag AND pepper_id = q.pepper_id
	UNION ALL
	SELECT ` + candidateColumns + ` FROM app_passwords
	WHERE account_id = a.id AND tag IS NULL
	OFFSET 0
) p ON true
UNION ALL
SELECT q.i::integer, a.id, NULLIF(a.login, q.login), ` + accountFlags + ` + p.flags,
	p.id, p.label, p.phc, p.services, p.networks, p.replaces
FROM unnest($1::text[], $2::integer[]) WITH ORDINALITY AS q (login, pepper_id, i)
JOIN logins l ON l.login = q.login
JOIN accounts a ON a.id = l.account_id
JOIN LATERAL (
	SELECT ` + candidateColumns + ` FROM app_passwords
	WHERE account_id = a.id AND pepper_id <> ALL ($4::integer[])
	OFFSET 0
) p ON true
WHERE q.pepper_id IS NOT NULL AND (SELECT EXISTS (SELECT FROM peppers WHERE id <> ALL ($4::integer[])))`

// lookupOneSQL is lookupSQL for a batch of one login with one tag or none ($3 is NULL then, and $2 with it), as it comes from a mail server that
// asks one thing after another: setting up the plan for arrays takes Postgres twice as long as the lookup.
const lookupOneSQL = `
SELECT 1::integer, a.id, NULLIF(a.login, $1), ` + accountFlags + ` + COALESCE(p.flags, 0),
	p.id, p.label, p.phc, p.services, p.networks, p.replaces
FROM logins l
JOIN accounts a ON a.id = l.account_id
LEFT JOIN LATERAL (
	SELECT ` + candidateColumns + ` FROM app_passwords
	WHERE account_id = a.id AND tag = $3::integer AND pepper_id = $2::integer
	UNION ALL
	SELECT ` + candidateColumns + ` FROM app_passwords
	WHERE account_id = a.id AND tag IS NULL
	UNION ALL
	SELECT ` + candidateColumns + ` FROM app_passwords
	WHERE account_id = a.id AND pepper_id <> $2::integer AND (SELECT EXISTS (SELECT FROM peppers WHERE id <> $2::integer))
	OFFSET 0
) p ON true
WHERE l.login = $1::text`

const accountFlags = `CASE WHEN a.enabled THEN 1 ELSE 0 END + CASE WHEN a.kind = 'reader' THEN 16 ELSE 0 END`

const candidateColumns = `id, label, phc, array_to_string(NULLIF(services, '{}'), ' ') AS services,
	array_to_string(NULLIF(networks, '{}'), ' ') AS networks,
	CASE WHEN revoked_at IS NOT NULL THEN 2 ELSE 0 END + CASE WHEN ` + expired + ` THEN 4 ELSE 0 END
	+ CASE WHEN origin = 'imported' THEN 8 ELSE 0 END + CASE WHEN exempt_at IS NOT NULL THEN 32 ELSE 0 END AS flags, replaces`

// errLookupTimeout is what a caller gets that waited for lookupTimeout.
var errLookupTimeout = errors.New("look up login: the database does not answer in time")

// Lookup implements [auth.Rows]. Lookups that arrive while a query is under way share the next one; a lookup that finds
// nothing under way is sent at once. It takes 1.2 seconds at most, or until ctx ends. [auth.ErrOverloaded] means that
// too many wait.
func (s *Store) Lookup(ctx context.Context, login string, tags []auth.Tag) (*auth.Found, error) {
	found, err := s.lookups.lookup(ctx, login, tags)
	if found != nil {
		s.successions.mark(found.Candidates)
	}
	return found, err
}

// LookupStats count since the start.
type LookupStats struct {
	Lookups    uint64 // accepted into the queue
	Batches    uint64 // queries sent
	Failed     uint64 // lookups that ended with an error of the database
	Overloaded uint64 // lookups refused because too many waited
	SecondLane uint64 // queries sent because the first lane was stuck
}

// LookupStats returns the counters.
func (s *Store) LookupStats() LookupStats {
	l := s.lookups
	return LookupStats{
		Lookups: l.counts.lookups.Load(), Batches: l.counts.batches.Load(), Failed: l.counts.failed.Load(),
		Overloaded: l.counts.overloaded.Load(), SecondLane: l.counts.second.Load(),
	}
}

// request is one waiting lookup. A caller that gives up leaves it behind, so that what is written to it later harms
// nobody; only requests that were answered are used again.
type request struct {
	login string
	tags  []auth.Tag // our copy
	found *auth.Found
	err   error
	done  chan struct{} // one element: the answer is there
	timer *time.Timer
	gone  atomic.Bool // the caller has given up
}

// lookups is the queue and the two lanes that work it off. Normally the first lane does everything: bigger batches and
// fewer round trips beat concurrency. The second lane works only while a query of the first is stuck, so that one dead
// link does not hold everybody up.
type lookups struct {
	log      *slog.Logger
	connect  func(context.Context) (driver.Conn, error)
	maxQueue int
	pool     sync.Pool

	mu       sync.Mutex
	queue    []*request
	closed   bool
	inFlight bool      // the first lane is busy
	since    time.Time // with the batch that it took then

	wake       chan struct{} // one element: the queue may not be empty, or it was closed
	wakeSecond chan struct{} // one element: the first lane is stuck, or the queue was closed
	firstFree  chan struct{} // one element: the first lane has finished a batch
	wait       sync.WaitGroup

	counts struct{ lookups, batches, failed, overloaded, second atomic.Uint64 }
}

func startLookups(connector driver.Connector, log *slog.Logger, maxQueue int) *lookups {
	l := &lookups{
		log:        log,
		connect:    connector.Connect,
		maxQueue:   maxQueue,
		wake:       make(chan struct{}, 1),
		wakeSecond: make(chan struct{}, 1),
		firstFree:  make(chan struct{}, 1),
	}
	l.pool.New = func() any {
		r := &request{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
		r.timer.Stop()
		return r
	}
	l.wait.Add(2)
	go l.runFirst()
	go l.runSecond()
	return l
}

// signal leaves a token in a channel of one element.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *lookups) lookup(ctx context.Context, login string, tags []auth.Tag) (*auth.Found, error) {
	// No account can have such a login, and Postgres would refuse the whole batch because of it.
	if login == "" || len(login) > auth.MaxLogin || strings.IndexByte(login, 0) >= 0 || !utf8.ValidString(login) {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look up login: %w", err)
	}
	r := l.pool.Get().(*request)
	r.login, r.tags, r.found, r.err = login, append(r.tags[:0], tags...), nil, nil
	r.timer.Reset(lookupTimeout)
	if err := l.enqueue(r); err != nil {
		r.timer.Stop()
		l.pool.Put(r)
		return nil, err
	}
	select {
	case <-r.done:
		r.timer.Stop()
		found, err := r.found, r.err
		r.found, r.err = nil, nil
		l.pool.Put(r)
		return found, err
	case <-ctx.Done():
		r.gone.Store(true)
		return nil, fmt.Errorf("look up login: %w", ctx.Err())
	case <-r.timer.C:
		r.gone.Store(true)
		l.counts.failed.Add(1)
		return nil, errLookupTimeout
	}
}

func (l *lookups) enqueue(r *request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return auth.ErrShuttingDown
	}
	if len(l.queue) >= l.maxQueue {
		l.counts.overloaded.Add(1)
		return auth.ErrOverloaded
	}
	l.counts.lookups.Add(1)
	l.queue = append(l.queue, r)
	if len(l.queue) == 1 {
		signal(l.wake)
	}
	return nil
}

// samePeppers reports whether tags were made with the same ring. A query asks for the rows of all other peppers, so
// lookups with different rings must not share one.
func samePeppers(a, b []auth.Tag) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].PepperID != b[i].PepperID {
			return false
		}
	}
	return true
}

// take moves requests that can share a query from the queue to batch, oldest first.
func (l *lookups) take(batch []*request, first bool) []*request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ring []auth.Tag
	kept := l.queue[:0]
	entries := 0
	for _, r := range l.queue {
		switch {
		case r.gone.Load():
		case len(batch) > 0 && entries+max(1, len(r.tags)) > maxBatch,
			len(ring) > 0 && len(r.tags) > 0 && !samePeppers(ring, r.tags):
			kept = append(kept, r)
		default:
			if len(ring) == 0 {
				ring = r.tags
			}
			entries += max(1, len(r.tags))
			batch = append(batch, r)
		}
	}
	clear(l.queue[len(kept):])
	l.queue = kept
	if first && len(batch) > 0 {
		l.inFlight, l.since = true, time.Now()
	}
	return batch
}

// isClosed reports that nothing more will be queued; what is queued may still wait.
func (l *lookups) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// firstStuck reports that the first lane has been busy with one batch for too long.
func (l *lookups) firstStuck() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inFlight && time.Since(l.since) >= stuckAfter
}

func (l *lookups) runFirst() {
	defer l.wait.Done()
	lane := newLane(l)
	defer lane.drop()
	stuck := time.AfterFunc(time.Hour, func() {
		if l.firstStuck() {
			signal(l.wakeSecond)
		}
	})
	defer stuck.Stop()
	var batch []*request
	for {
		if batch = l.take(batch[:0], true); len(batch) == 0 {
			if l.isClosed() {
				return
			}
			<-l.wake
			continue
		}
		// A little more than stuckAfter, so that firstStuck does not miss it by a hair.
		stuck.Reset(stuckAfter + time.Millisecond)
		lane.run(batch)
		stuck.Stop()
		clear(batch)
		l.finish()
	}
}

// finish notes that the first lane is free, before it says so: the second must not find it busy when it looks.
func (l *lookups) finish() {
	l.mu.Lock()
	l.inFlight = false
	l.mu.Unlock()
	signal(l.firstFree)
}

func (l *lookups) runSecond() {
	defer l.wait.Done()
	lane := newLane(l)
	defer lane.drop()
	var batch []*request
	for {
		<-l.wakeSecond
		for l.firstStuck() {
			if batch = l.take(batch[:0], false); len(batch) == 0 {
				select {
				case <-l.wake:
				case <-l.firstFree:
				}
				continue
			}
			l.counts.second.Add(1)
			lane.run(batch)
			clear(batch)
		}
		signal(l.wake) // which this lane may have taken from the first
		if l.isClosed() {
			return
		}
	}
}

// close refuses new lookups and waits until the queue is worked off.
func (l *lookups) close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	signal(l.wake)
	signal(l.wakeSecond)
	done := make(chan struct{})
	go func() {
		l.wait.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("finish lookups: %w", ctx.Err())
	}
}

// lane is one connection and the buffers to fill a query with. One goroutine uses it.
type lane struct {
	lookups *lookups

	conn       driver.Conn
	stmt, one  driver.StmtQueryContext // lookupSQL, lookupOneSQL
	born       time.Time
	renewAfter time.Time // do not try to replace the connection before
	refusedAt  time.Time // of the last failed attempt to connect

	logins, peppers, tags, ring []byte // array literals
	entry                       []int  // element of the arrays -> request of the batch
	args                        [4]driver.NamedValue
	row                         [10]driver.Value

	failures int // batches in a row, for the log
}

func newLane(l *lookups) *lane { return &lane{lookups: l} }

// run answers every request of the batch, whatever happens.
func (n *lane) run(batch []*request) {
	err := errors.New("look up login: internal fault")
	defer func() {
		if p := recover(); p != nil {
			n.lookups.log.Error("panic in lookup", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			func() {
				defer func() { _ = recover() }() // the connection is in an unknown state
				n.drop()
			}()
			n.conn, n.stmt, n.one = nil, nil, nil
		}
		if err != nil {
			n.lookups.counts.failed.Add(uint64(len(batch)))
		}
		for _, r := range batch {
			if err != nil {
				r.found, r.err = nil, err
			}
			r.done <- struct{}{} // never blocks: one element, sent once
		}
	}()
	begin := time.Now()
	reused := n.conn != nil
	err = n.attempt(batch)
	// What failed on a connection from before may work on a fresh one. A connection that could not be made is not
	// tried again at once: the callers do better with an answer.
	if err != nil && reused && isConnectionError(err) && time.Since(begin) < retryUntil {
		err = n.attempt(batch)
	}
	n.note(err)
	if err != nil {
		err = failed("look up login", err)
	}
}

// note logs the beginning and the end of an outage, not each failure.
func (n *lane) note(err error) {
	switch {
	case err == nil && n.failures > 0:
		n.lookups.log.Info("lookups work again", "failed_batches", n.failures)
		n.failures = 0
	case err != nil:
		if n.failures++; n.failures == 1 {
			n.lookups.log.Error("lookups fail, logins are undecided", "error", failed("look up login", err))
		}
	}
}

// isConnectionError reports that the connection, not the query, is what failed.
func isConnectionError(err error) bool {
	e, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return true
	}
	switch e.Code.Class() {
	case "08", // connection exception
		"0A", // "cached plan must not change result type", after a migration
		"26": // prepared statement does not exist
		return true
	}
	return strings.HasPrefix(string(e.Code), "57P") // shutting down, crashed, starting up
}

// attempt sends the batch once. After an error the connection is gone.
func (n *lane) attempt(batch []*request) (err error) {
	for _, r := range batch {
		r.found, r.err = nil, nil
	}
	if err := n.prepare(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			n.drop()
		}
	}()
	stmt, args := n.stmt, n.args[:]
	if len(batch) == 1 && len(batch[0].tags) <= 1 {
		n.fillOne(batch[0])
		stmt, args = n.one, n.args[:3]
	} else {
		n.fill(batch)
	}
	n.lookups.counts.batches.Add(1)
	// No context: lib/pq would start a goroutine for each query to watch it. The connection's deadline bounds the query.
	rows, err := stmt.QueryContext(context.Background(), args)
	if err != nil {
		return err
	}
	for {
		switch err := rows.Next(n.row[:]); err {
		case nil:
			if err := n.read(batch); err != nil {
				return err
			}
		case io.EOF: // only after the server has said that it is ready for the next query
			return rows.Close()
		default:
			return err
		}
	}
}

// prepare makes sure that there is a connection with the statement prepared on it.
func (n *lane) prepare() error {
	now := time.Now()
	if n.conn != nil && (now.Sub(n.born) < connLifetime || now.Before(n.renewAfter)) {
		return nil
	}
	if pause := connectPause - now.Sub(n.refusedAt); pause > 0 && n.conn == nil {
		time.Sleep(pause) // what is queued meanwhile shares the attempt
	}
	conn, stmt, one, err := n.dial()
	if err != nil {
		n.refusedAt = time.Now()
		if n.conn != nil { // old, but it works: for instance while all connection slots are taken
			n.renewAfter = n.refusedAt.Add(10 * time.Second)
			return nil
		}
		return err
	}
	n.drop()
	n.conn, n.stmt, n.one, n.born = conn, stmt, one, time.Now()
	return nil
}

func (n *lane) dial() (conn driver.Conn, stmt, one driver.StmtQueryContext, err error) {
	if conn, err = n.lookups.connect(context.Background()); err != nil { // bounded by connect_timeout
		return nil, nil, nil, err
	}
	for _, p := range []struct {
		sql string
		to  *driver.StmtQueryContext
	}{{lookupSQL, &stmt}, {lookupOneSQL, &one}} {
		prepared, err := conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), p.sql)
		if err != nil {
			_ = conn.Close()
			return nil, nil, nil, err
		}
		*p.to = prepared.(driver.StmtQueryContext)
	}
	return conn, stmt, one, nil
}

func (n *lane) drop() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
	n.conn, n.stmt, n.one = nil, nil, nil
}

// fillOne writes a batch of one, with one tag or none, into the arguments of lookupOneSQL.
func (n *lane) fillOne(r *request) {
	n.entry = append(n.entry[:0], 0)
	n.logins = append(n.logins[:0], r.login...)
	n.args[0] = driver.NamedValue{Ordinal: 1, Value: n.logins}
	n.args[1], n.args[2] = driver.NamedValue{Ordinal: 2}, driver.NamedValue{Ordinal: 3}
	if len(r.tags) == 1 {
		n.peppers = strconv.AppendInt(n.peppers[:0], int64(r.tags[0].PepperID), 10)
		n.tags = strconv.AppendUint(n.tags[:0], uint64(r.tags[0].Value), 10)
		n.args[1].Value, n.args[2].Value = n.peppers, n.tags
	}
}

// fill writes the batch into the arguments.
func (n *lane) fill(batch []*request) {
	n.logins, n.peppers, n.tags = append(n.logins[:0], '{'), append(n.peppers[:0], '{'), append(n.tags[:0], '{')
	n.ring, n.entry = append(n.ring[:0], '{'), n.entry[:0]
	for i, r := range batch {
		if len(n.ring) == 1 {
			for j, t := range r.tags {
				if j > 0 {
					n.ring = append(n.ring, ',')
				}
				n.ring = strconv.AppendInt(n.ring, int64(t.PepperID), 10)
			}
		}
		for j := range max(1, len(r.tags)) {
			if len(n.entry) > 0 {
				n.logins, n.peppers, n.tags = append(n.logins, ','), append(n.peppers, ','), append(n.tags, ',')
			}
			n.entry = append(n.entry, i)
			n.logins = appendArrayText(n.logins, r.login)
			if len(r.tags) == 0 {
				n.peppers, n.tags = append(n.peppers, "NULL"...), append(n.tags, "NULL"...)
				continue
			}
			n.peppers = strconv.AppendInt(n.peppers, int64(r.tags[j].PepperID), 10)
			n.tags = strconv.AppendUint(n.tags, uint64(r.tags[j].Value), 10)
		}
	}
	for i, b := range []*[]byte{&n.logins, &n.peppers, &n.tags, &n.ring} {
		*b = append(*b, '}')
		n.args[i] = driver.NamedValue{Ordinal: i + 1, Value: *b}
	}
}

// appendArrayText appends a quoted element of an array literal (PostgreSQL manual section 8.15.6).
func appendArrayText(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// errBadRow is a row that is not as the query says. It is never taken for an absent one.
var errBadRow = errors.New("unexpected row")

// foundOne saves an allocation in the usual case of one candidate.
type foundOne struct {
	auth.Found
	one [1]auth.Candidate
}

// read adds the row to the request that it belongs to.
func (n *lane) read(batch []*request) error {
	i, ok1 := n.row[0].(int64)
	account, ok2 := n.row[1].(int64)
	flags, ok3 := n.row[3].(int64)
	if !ok1 || !ok2 || !ok3 || i < 1 || i > int64(len(n.entry)) {
		return errBadRow
	}
	r := batch[n.entry[i-1]]
	if r.found == nil {
		f := &foundOne{}
		f.AccountID, f.Login, f.Enabled = account, r.login, flags&flagEnabled != 0
		if n.row[2] != nil {
			if f.Login, ok1 = n.row[2].(string); !ok1 {
				return errBadRow
			}
		}
		if flags&flagReader != 0 {
			f.Kind = auth.Reader
		}
		f.Candidates = f.one[:0]
		r.found = &f.Found
	}
	if r.found.AccountID != account {
		return errBadRow
	}
	if n.row[4] == nil {
		return nil // the account alone
	}
	c := auth.Candidate{
		Origin:  auth.Generated,
		Revoked: flags&flagRevoked != 0,
		Expired: flags&flagExpired != 0,
		Exempt:  flags&flagExempt != 0,
	}
	if flags&flagImported != 0 {
		c.Origin = auth.Imported
	}
	c.ID, ok1 = n.row[4].(int64)
	c.Label, ok2 = n.row[5].(string)
	c.PHC, ok3 = n.row[6].(string)
	if !ok1 || !ok2 || !ok3 {
		return errBadRow
	}
	if len(r.tags) > 1 { // each tag of the ring brings the untagged rows along
		for j := range r.found.Candidates {
			if r.found.Candidates[j].ID == c.ID {
				return nil
			}
		}
	}
	if n.row[7] != nil {
		services, ok := n.row[7].(string)
		if !ok {
			return errBadRow
		}
		c.Services = strings.Split(services, " ")
	}
	if n.row[8] != nil {
		networks, ok := n.row[8].(string)
		if !ok {
			return errBadRow
		}
		for s := range strings.SplitSeq(networks, " ") {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return errBadRow
			}
			c.Networks = append(c.Networks, p)
		}
	}
	if n.row[9] != nil {
		if c.Replaces, ok1 = n.row[9].(int64); !ok1 {
			return errBadRow
		}
	}
	r.found.Candidates = append(r.found.Candidates, c)
	return nil
}
