package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// Time limits of a directory query: statement_timeout (in directorySettings) < context < exchange, so that the clearest error
// wins.
const (
	directoryTimeout  = 5 * time.Second // for the caller, waiting for its turn included
	directoryExchange = 6 * time.Second

	findLanes     = 2    // queries at once that several callers share; the second only while the first is slow
	readLanes     = 4    // and others
	maxFindBatch  = 128  // keys in one query
	maxFindQueue  = 4096 // callers that may wait
	smallFind     = 512  // rows: a bigger one goes alone, so that the small ones need not wait for it
	maxEntries    = 1000 // rows of a page
	maxFound      = 10_000
	longLanes     = readLanes - 1 // of readLanes, those that pages and big ones may take: groups, of which programs ask at each login, need not wait
	maxFoundWaits = 256           // pages and big ones that may wait, and as many groups

	slowFind = 50 * time.Millisecond // of a shared query: the next one does not wait for it any longer
)

// directorySettings are those of lookups (why: see there), with more time.
var directorySettings = func() map[string]string {
	m := maps.Clone(lookupSettings)
	m["statement_timeout"] = "4s"
	return m
}()

// Directory is the store as those see it who search for people and groups. Everything is read from Postgres at the call.
//
// Accounts are read without AppPasswords, readers never; groups have those members only that are enabled.
type Directory struct {
	db     *sql.DB
	behind func() // told of accounts without search keys
	alone  turns
	long   turns

	mu     sync.Mutex
	stmts  map[string]*sql.Stmt
	queue  []*find
	lanes  int
	slow   int // of them, with a query that takes longer than slowFind
	closed bool
	wait   sync.WaitGroup

	calls, batches atomic.Uint64
}

func newDirectory(db *sql.DB, behind func()) *Directory {
	db.SetMaxOpenConns(findLanes + readLanes)
	db.SetMaxIdleConns(findLanes + 1)
	db.SetConnMaxLifetime(connLifetime)
	return &Directory{db: db, behind: behind, alone: newTurns(readLanes), long: newTurns(longLanes), stmts: map[string]*sql.Stmt{}}
}

// Directory returns the directory view.
func (s *Store) Directory() *Directory { return s.directory }

// DirectoryStats count since the start.
type DirectoryStats struct {
	Finds   uint64 // calls that share queries
	Batches uint64 // such queries
}

// Stats returns the counters.
func (d *Directory) Stats() DirectoryStats { return DirectoryStats{d.calls.Load(), d.batches.Load()} }

const (
	aliasList = "ARRAY(SELECT l.login FROM logins l WHERE l.account_id = a.id AND l.login <> a.login ORDER BY l.login)"
	groupList = "ARRAY(SELECT g.name FROM group_members m JOIN groups g ON g.id = m.group_id WHERE m.account_id = a.id ORDER BY g.name)"

	entryColumns = `a.id, a.uuid::text, a.login, a.display_name, a.enabled, a.attributes, a.userdb, a.created_at, a.modified_at,
	` + aliasList + `,
	` + groupList
)

// partColumns are entryColumns with the parts (auth.Parts) that an expression names, others empty. A CASE does not run what it does not need.
func partColumns(parts string) string {
	part := func(bit auth.Parts, column, none string) string {
		return fmt.Sprintf("CASE WHEN %s & %d <> 0 THEN %s ELSE %s END", parts, bit, column, none)
	}
	return `a.id, a.uuid::text, a.login, a.display_name, a.enabled, a.attributes, ` + part(auth.PartUserdb, "a.userdb", "'{}'") + `, a.created_at, a.modified_at,
	` + part(auth.PartAliases, aliasList, "'{}'") + ",\n\t" + part(auth.PartGroups, groupList, "'{}'")
}

// Kinds of keys in findSQL.
const (
	byLogin = 1 + iota
	bySearchKey
	byUUID
	byGroup
)

// findSQL answers a whole batch: $1..$5 hold one element for each key: the number of the find, the kind, the key, how many
// accounts the find wants, and which parts of them. An arm takes no more than those, the first by login, wherever its index can tell which they are.
//
// The third arm is for accounts whose search keys are still to be made (see search_key.go): they may be meant.
var findSQL = `
WITH q AS MATERIALIZED (
	SELECT * FROM unnest($1::integer[], $2::integer[], $3::text[], $4::integer[], $5::integer[]) AS q (i, kind, key, most, parts)
), found AS (
	SELECT q.i, q.most, q.parts, a.login FROM q JOIN logins l ON l.login = q.key JOIN accounts a ON a.id = l.account_id
	WHERE q.kind = 1 AND a.kind = 'person'
	UNION ALL
	SELECT q.i, q.most, q.parts, k.login FROM q CROSS JOIN LATERAL
		(SELECT s.login FROM search_keys s WHERE s.key = q.key ORDER BY s.login LIMIT q.most) k
	WHERE q.kind = 2
	UNION ALL
	SELECT q.i, q.most, q.parts, k.login FROM q CROSS JOIN LATERAL
		(SELECT u.login FROM accounts u WHERE u.keyed < 1 AND u.kind = 'person' ORDER BY u.login LIMIT q.most) k
	WHERE q.kind = 2
	UNION ALL
	SELECT q.i, q.most, q.parts, a.login FROM q JOIN accounts a ON a.uuid = CASE WHEN q.kind = 3 THEN q.key::uuid END
	WHERE a.kind = 'person'
	UNION ALL
	SELECT q.i, q.most, q.parts, a.login FROM q JOIN groups g ON g.name = q.key JOIN group_members m ON m.group_id = g.id
		JOIN accounts a ON a.id = m.account_id
	WHERE q.kind = 4
)
SELECT r.i, a.keyed < 1, ` + partColumns("r.parts") + `
FROM (SELECT DISTINCT i, login, most, parts, dense_rank() OVER (PARTITION BY i ORDER BY login) AS n FROM found) r
JOIN accounts a ON a.login = r.login
WHERE r.n <= r.most
ORDER BY r.i, a.login`

// findLoginsSQL is findSQL for a batch of logins alone, which most are, in two thirds of the time. $1..$3 hold the number of the
// find, the login, and which parts. Of an account that goes by several of them there are as many rows.
var findLoginsSQL = "SELECT q.i, a.keyed < 1, " + partColumns("q.parts") + `
FROM unnest($1::integer[], $2::text[], $3::integer[]) AS q (i, login, parts)
JOIN logins l ON l.login = q.login
JOIN accounts a ON a.id = l.account_id
WHERE a.kind = 'person'`

var listPeopleSQL = "SELECT 1, false, " + partColumns("$3::integer") + " FROM accounts a WHERE a.login > $1 AND a.kind = 'person' ORDER BY a.login LIMIT $2"

// find is one call of FindAccounts. A caller that gives up leaves it behind.
type find struct {
	kinds    []int32
	keys     []string
	limit    int
	parts    auth.Parts
	accounts []auth.Account
	err      error
	done     chan struct{}
	gone     atomic.Bool
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// storable reports whether Postgres can hold the text at all. Of what it cannot there is nothing to be found, and asking for it
// would fail everybody's query.
func storable(s string, most int) bool {
	return s != "" && len(s) <= most && strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

func newFind(keys []auth.AccountKey, limit int, parts auth.Parts) *find {
	f := &find{limit: limit, parts: parts, done: make(chan struct{})}
	for _, k := range keys {
		kind, key := int32(0), ""
		switch {
		case storable(k.Login, auth.MaxLogin):
			kind, key = byLogin, k.Login
		case storable(k.Search, auth.MaxSearchKey):
			kind, key = bySearchKey, k.Search
		case uuidForm.MatchString(k.UUID):
			kind, key = byUUID, k.UUID
		case storable(k.Group, auth.MaxLogin):
			kind, key = byGroup, k.Group
		default:
			continue
		}
		f.kinds, f.keys = append(f.kinds, kind), append(f.keys, key)
	}
	return f
}

// Entry reads the person who goes by a normalised login, canonical or alias. [auth.ErrNoAccount] means that there is none, or
// a reader.
func (d *Directory) Entry(ctx context.Context, login string) (auth.Account, error) {
	found, err := d.FindAccounts(ctx, []auth.AccountKey{{Login: login}}, 1, auth.AllParts)
	if err != nil {
		return auth.Account{}, err
	}
	if len(found) == 0 {
		return auth.Account{}, auth.ErrNoAccount
	}
	return found[0], nil
}

// FindAccounts reads the people that one of the keys selects, by canonical login, byte by byte, each once; the first ones if
// there are more than limit, which is at most 10,000. By search keys it may find others too, while keys are still to be made: compare
// again. Of the accounts those parts are read that are asked for.
//
// Small calls that arrive while queries are under way share the next one. [auth.ErrOverloaded] means that too many wait.
func (d *Directory) FindAccounts(ctx context.Context, keys []auth.AccountKey, limit int, parts auth.Parts) ([]auth.Account, error) {
	f := newFind(keys, limit, parts)
	switch {
	case limit < 1 || limit > maxFound:
		return nil, fmt.Errorf("find accounts: the limit is %d", limit)
	case len(f.keys) == 0:
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	if len(f.keys)*f.limit > smallFind || slices.Contains(f.kinds, byGroup) {
		err := d.turn(ctx, true, func() error { return d.query(ctx, []*find{f}) })
		return f.accounts, failed("find accounts", err)
	}
	if err := d.enqueue(f); err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		return f.accounts, failed("find accounts", f.err)
	case <-ctx.Done():
		f.gone.Store(true)
		return nil, fmt.Errorf("find accounts: %w", ctx.Err())
	}
}

func (d *Directory) enqueue(f *find) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return auth.ErrShuttingDown
	case len(d.queue) >= maxFindQueue:
		return auth.ErrOverloaded
	}
	d.calls.Add(1)
	d.queue = append(d.queue, f)
	d.startLane()
	return nil
}

// startLane starts another lane if the others are slow and something waits. Otherwise one does everything: two share the callers out to
// smaller queries, which costs Postgres a quarter more for each. The caller holds mu.
func (d *Directory) startLane() {
	if len(d.queue) > 0 && d.lanes == d.slow && d.lanes < findLanes {
		d.lanes++
		d.wait.Go(d.runLane)
	}
}

// watch counts this lane as slow when its query takes longer than slowFind, until the function that it returns is called.
func (d *Directory) watch() (done func()) {
	counted, over := false, false
	timer := time.AfterFunc(slowFind, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !over {
			counted = true
			d.slow++
			d.startLane()
		}
	})
	return func() {
		timer.Stop()
		d.mu.Lock()
		defer d.mu.Unlock()
		over = true
		if counted {
			d.slow--
		}
	}
}

// runLane works the queue off.
func (d *Directory) runLane() {
	for batch := d.take(); len(batch) > 0; batch = d.take() {
		d.batches.Add(1)
		ctx, cancel := context.WithTimeout(context.Background(), directoryTimeout)
		err := errors.New("internal fault")
		done := d.watch()
		func() {
			defer func() { // whatever happens, nobody waits for ever
				if p := recover(); p != nil {
					err = fmt.Errorf("internal fault: %v", p)
				}
				for _, f := range batch {
					if err != nil {
						f.accounts, f.err = nil, err
					}
					close(f.done)
				}
			}()
			err = d.query(ctx, batch)
		}()
		done()
		cancel()
	}
}

// take returns the finds that share the next query. With none, the lane has ended.
func (d *Directory) take() []*find {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lanes-d.slow > 1 { // the one that was slow is not any more
		d.lanes--
		return nil
	}
	var batch []*find
	keys, n := 0, 0
	for _, f := range d.queue {
		if !f.gone.Load() {
			if len(batch) > 0 && keys+len(f.keys) > maxFindBatch {
				break
			}
			batch, keys = append(batch, f), keys+len(f.keys)
		}
		n++
	}
	d.queue = slices.Delete(d.queue, 0, n)
	if len(batch) == 0 {
		d.lanes--
	}
	return batch
}

// query answers the finds of a batch.
func (d *Directory) query(ctx context.Context, batch []*find) error {
	var index, kind, most, parts []int32
	var keys []string
	logins := true
	for i, f := range batch {
		f.accounts, f.err = nil, nil
		for j := range f.keys {
			index, kind, keys, most = append(index, int32(i)), append(kind, f.kinds[j]), append(keys, f.keys[j]), append(most, int32(f.limit))
			parts = append(parts, int32(f.parts))
			logins = logins && f.kinds[j] == byLogin
		}
	}
	give := func(i int, a auth.Account) error {
		if i < 0 || i >= len(batch) {
			return errBadRow
		}
		batch[i].accounts = append(batch[i].accounts, a)
		return nil
	}
	if !logins {
		return d.read(ctx, findSQL, give, pq.Array(index), pq.Array(kind), pq.Array(keys), pq.Array(most), pq.Array(parts))
	}
	err := d.read(ctx, findLoginsSQL, give, pq.Array(index), pq.Array(keys), pq.Array(parts))
	for _, f := range batch {
		slices.SortFunc(f.accounts, func(a, b auth.Account) int { return strings.Compare(a.Login, b.Login) })
		f.accounts = slices.CompactFunc(f.accounts, func(a, b auth.Account) bool { return a.ID == b.ID })
		f.accounts = f.accounts[:min(len(f.accounts), f.limit)]
	}
	return err
}

// Accounts lists people by canonical login, byte by byte, beginning after the given one ("" for the first page). limit is at most
// 1000. A page shorter than the limit is the last. Of the accounts those parts are read that are asked for.
func (d *Directory) Accounts(ctx context.Context, after string, limit int, parts auth.Parts) ([]auth.Account, error) {
	if limit < 1 || limit > maxEntries {
		return nil, fmt.Errorf("list accounts: the limit is %d", limit)
	}
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	var list []auth.Account
	err := d.turn(ctx, true, func() error {
		return d.read(ctx, listPeopleSQL, func(_ int, a auth.Account) error { list = append(list, a); return nil },
			after, limit, int(parts))
	})
	return list, failed("list accounts", err)
}

// turn runs f when one of the read lanes is free. long is for what may read thousands of rows.
func (d *Directory) turn(ctx context.Context, long bool, f func() error) error {
	if long {
		if err := d.long.take(ctx); err != nil {
			return err
		}
		defer d.long.give()
	}
	if err := d.alone.take(ctx); err != nil {
		return err
	}
	defer d.alone.give()
	return f()
}

// turns are places, and those who wait for one.
type turns struct {
	places chan struct{}
	waits  *atomic.Int64
}

func newTurns(n int) turns { return turns{make(chan struct{}, n), new(atomic.Int64)} }

// take waits for a place. [auth.ErrOverloaded] means that too many wait.
func (t turns) take(ctx context.Context) error {
	if t.waits.Add(1) > maxFoundWaits {
		t.waits.Add(-1)
		return auth.ErrOverloaded
	}
	defer t.waits.Add(-1)
	select {
	case t.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turns) give() { <-t.places }

// prepared returns a statement that is prepared on each connection when that first needs it.
func (d *Directory) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	d.mu.Lock()
	stmt := d.stmts[query]
	closed := d.closed
	d.mu.Unlock()
	switch {
	case closed:
		return nil, auth.ErrShuttingDown
	case stmt != nil:
		return stmt, nil
	}
	stmt, err := d.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.stmts[query]; other != nil {
		_ = stmt.Close()
		return other, nil
	}
	d.stmts[query] = stmt
	return stmt, nil
}

// rows runs a statement and gives every row to scan. What fails on connections from before, because Postgres was restarted, is
// tried again on fresh ones, as long as no row was given.
func (d *Directory) rows(ctx context.Context, query string, scan func(*sql.Rows) error, args ...any) error {
	begin := time.Now()
	for try := 1; ; try++ {
		given, err := d.rowsOnce(ctx, query, scan, args...)
		if err == nil || given || !isConnectionError(err) || try > findLanes+readLanes || ctx.Err() != nil || time.Since(begin) > retryUntil {
			return err
		}
	}
}

func (d *Directory) rowsOnce(ctx context.Context, query string, scan func(*sql.Rows) error, args ...any) (given bool, err error) {
	stmt, err := d.prepared(ctx, query)
	if err != nil {
		return false, err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		if e, ok := errors.AsType[*pq.Error](err); ok && (e.Code.Class() == "0A" || e.Code.Class() == "26") {
			d.forget(query, stmt) // after a migration, or behind a pool that shares connections
		}
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		given = true
		if err := scan(rows); err != nil {
			return given, err
		}
	}
	return given, rows.Err()
}

// forget prepares a statement anew with the next call.
func (d *Directory) forget(query string, stmt *sql.Stmt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stmts[query] == stmt {
		delete(d.stmts, query)
	}
	_ = stmt.Close()
}

// read runs a statement that returns a number, whether the account lacks its search keys, and entryColumns.
func (d *Directory) read(ctx context.Context, query string, give func(int, auth.Account) error, args ...any) error {
	behind := false
	err := d.rows(ctx, query, func(rows *sql.Rows) error {
		var a auth.Account
		var i int
		var unkeyed bool
		var attributes, userdb []byte
		err := rows.Scan(&i, &unkeyed, &a.ID, &a.UUID, &a.Login, &a.DisplayName, &a.Enabled, &attributes, &userdb, &a.CreatedAt, &a.ModifiedAt,
			pq.Array(&a.Aliases), pq.Array(&a.Groups))
		if err != nil {
			return err
		}
		if err := unpack(attributes, &a.Attributes); err != nil {
			return err
		}
		if err := unpack(userdb, &a.Userdb); err != nil {
			return err
		}
		behind = behind || unkeyed
		return give(i, a)
	}, args...)
	if behind {
		d.behind()
	}
	return err
}

// unpack reads a JSON object.
func unpack[V any](text []byte, m *map[string]V) error {
	if string(text) == "{}" {
		*m = map[string]V{}
		return nil
	}
	return json.Unmarshal(text, m)
}

const groupColumns = `g.name, g.display_name, g.uuid::text, g.attributes, g.created_at, g.modified_at,
	ARRAY(SELECT a.login FROM group_members m JOIN accounts a ON a.id = m.account_id WHERE m.group_id = g.id AND a.enabled ORDER BY a.login)`

const listGroupsSQL = "SELECT " + groupColumns + " FROM groups g WHERE g.name > $1 ORDER BY g.name LIMIT $2"

const findGroupsSQL = `
WITH found AS (
	SELECT id FROM groups WHERE name = ANY ($1::text[])
	UNION
	SELECT id FROM groups WHERE uuid = ANY ($2::uuid[])
	UNION
	SELECT m.group_id FROM accounts a JOIN group_members m ON m.account_id = a.id WHERE a.login = ANY ($3::text[]) AND a.enabled
)
SELECT ` + groupColumns + ` FROM found f JOIN groups g ON g.id = f.id ORDER BY g.name LIMIT $4`

// FindGroups reads the groups that one of the keys selects, by name, byte by byte, each once; the first ones if there are more
// than limit, which is at most 1000.
func (d *Directory) FindGroups(ctx context.Context, keys []auth.GroupKey, limit int) ([]auth.Group, error) {
	var names, members, uuids []string
	for _, k := range keys {
		switch {
		case storable(k.Name, auth.MaxLogin):
			names = append(names, k.Name)
		case storable(k.Member, auth.MaxLogin):
			members = append(members, k.Member)
		case uuidForm.MatchString(k.UUID):
			uuids = append(uuids, k.UUID)
		}
	}
	if len(names)+len(members)+len(uuids) == 0 {
		return nil, nil
	}
	return d.groups(ctx, "find groups", findGroupsSQL, limit, pq.Array(names), pq.Array(uuids), pq.Array(members))
}

// Groups lists groups by name, byte by byte, beginning after the given one ("" for the first page). limit is at most 1000. A page
// shorter than the limit is the last.
func (d *Directory) Groups(ctx context.Context, after string, limit int) ([]auth.Group, error) {
	return d.groups(ctx, "list groups", listGroupsSQL, limit, after)
}

func (d *Directory) groups(ctx context.Context, what, query string, limit int, args ...any) ([]auth.Group, error) {
	if limit < 1 || limit > maxEntries {
		return nil, fmt.Errorf("%s: the limit is %d", what, limit)
	}
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	var list []auth.Group
	err := d.turn(ctx, false, func() error {
		return d.rows(ctx, query, func(rows *sql.Rows) error {
			g, err := scanGroup(rows)
			list = append(list, g)
			return err
		}, append(args, limit)...)
	})
	if err != nil {
		return nil, failed(what, err)
	}
	return list, nil
}

func scanGroup(row interface{ Scan(...any) error }) (auth.Group, error) {
	var g auth.Group
	var attributes []byte
	if err := row.Scan(&g.Name, &g.DisplayName, &g.UUID, &attributes, &g.CreatedAt, &g.ModifiedAt, pq.Array(&g.Members)); err != nil {
		return auth.Group{}, err
	}
	g.MemberCount = len(g.Members)
	return g, unpack(attributes, &g.Attributes)
}

// close refuses new calls, answers those that wait, and closes the connections.
func (d *Directory) close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		d.wait.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("finish directory queries: %w", ctx.Err())
	}
	_ = d.db.Close() // nothing is lost with it
	return err
}
