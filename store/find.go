package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

const (
	// findWindow is how many rows a page looks at, at most: the work for a page is bounded whatever is looked for, and however
	// seldom it is.
	findWindow = 20_000
	// findAccounts is the same in accounts, where they give the order.
	findAccounts = 2_000
	// revokeBatch is how many are revoked in a transaction.
	revokeBatch = 100
	maxCursor   = 4096
)

// findSettings keep the planner, which cannot know that a page is often full after some rows, from reading and sorting the whole
// table for it: every order but that of labels has an index.
const findSettings = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; " + findAlways

const findAlways = "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0"

// usedAbout is what app_passwords_idle_idx is made of: not later than the last use, or the creation if there was none.
const usedAbout = "COALESCE(used_about, created_at)"

// cursor is a place in a list. It is no secret and grants nothing: it only says where the rows that the filter lets through begin.
type cursor struct {
	Order auth.Order `json:"o"`
	Text  string     `json:"t,omitempty"` // login or label key
	Time  *time.Time `json:"m,omitempty"`
	ID    int64      `json:"i"`
}

func (c cursor) String() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // it has none of the types that could not be written
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// parseCursor reads a place in a list of this order; the empty text is its beginning. The error is [auth.ErrBadCursor].
func parseCursor(text string, order auth.Order) (cursor, error) {
	if text == "" {
		return cursor{Order: order}, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if len(text) > maxCursor || err != nil {
		return cursor{}, auth.ErrBadCursor
	}
	var c cursor
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || c.Order != order || strings.IndexByte(c.Text, 0) >= 0 || !utf8.ValidString(c.Text) {
		return cursor{}, auth.ErrBadCursor
	}
	if c.Time != nil && (c.Time.Year() < 1 || c.Time.Year() > 9999) {
		return cursor{}, auth.ErrBadCursor
	}
	return c, nil
}

// query collects the arguments of a statement.
type query struct{ args []any }

// arg adds an argument and returns its placeholder.
func (q *query) arg(v any) string {
	q.args = append(q.args, v)
	return fmt.Sprintf("$%d", len(q.args))
}

// conditions of a filter, in SQL. Those in walk belong to the index that has the order: nothing else is looked at. The others
// decide on the rows that are. accountID is that of the filter's login.
func (q *query) conditions(f auth.AppPasswordFilter, order auth.Order, accountID int64, asOf time.Time) (walk, rest []string) {
	now := q.arg(asOf) + "::timestamptz"
	seconds := func(d time.Duration) string { return "make_interval(secs => " + q.arg(d.Seconds()) + ")" }
	rest = append(rest, "created_at <= "+now)
	if accountID != 0 {
		walk = append(walk, "account_id = "+q.arg(accountID))
	}
	var states []string
	if f.Live || !f.Expired && !f.Revoked {
		states = append(states, "revoked_at IS NULL AND NOT "+expired)
	}
	if f.Expired {
		states = append(states, "revoked_at IS NULL AND "+expired)
	}
	if f.Revoked {
		states = append(states, "revoked_at IS NOT NULL")
	} else if order == auth.ByLastUse || order == auth.ByExpiry {
		walk = append(walk, "revoked_at IS NULL")
	}
	rest = append(rest, "("+strings.Join(states, " OR ")+")")
	if f.UnusedFor > 0 {
		before := "(" + now + " - " + seconds(f.UnusedFor) + ")"
		if order == auth.ByLastUse {
			walk = append(walk, usedAbout+" <= "+before) // which lets some more through
		}
		rest = append(rest, "COALESCE(last_used_at, created_at) <= "+before)
	}
	if f.ExpiringWithin > 0 {
		by := "(" + now + " + " + seconds(f.ExpiringWithin) + ")"
		rest = append(rest, "NOT "+expired+" AND (expires_at <= "+by+" OR COALESCE(last_used_at, created_at) + expires_unused_for <= "+by+")")
	}
	if f.NeverUsed {
		rest = append(rest, "last_used_at IS NULL")
	}
	if f.Service != "" {
		rest = append(rest, q.arg(f.Service)+" = ANY (services)")
	}
	if f.Network.IsValid() {
		rest = append(rest, "EXISTS (SELECT FROM unnest(networks) AS n WHERE n && "+q.arg(f.Network.Masked().String())+"::inet)")
	}
	indexed := &rest
	if order == auth.ByCreation {
		indexed = &walk
	}
	if f.Exempt {
		*indexed = append(*indexed, "exempt_at IS NOT NULL")
	}
	if f.Imported {
		*indexed = append(*indexed, "origin = 'imported'")
		rest = append(rest, "upgraded_at IS NULL")
	}
	if f.Label != "" {
		rest = append(rest, "label_key LIKE "+q.arg(f.Label))
	}
	if f.By != "" {
		rest = append(rest, "created_by = "+q.arg(f.By))
	}
	return walk, rest
}

// FindAppPasswords returns some of the app passwords that the filter means, in this order, from the place after; an empty one is the
// beginning. limit is at most 1000; zero is 100. The empty order is the one that is found fastest. See [auth.AppPasswordPage] for where the end is.
// An unknown login is [auth.ErrNoAccount], a place of another order [auth.ErrBadCursor].
func (s *Store) FindAppPasswords(ctx context.Context, f auth.AppPasswordFilter, order auth.Order, after string, limit int) (auth.AppPasswordPage, error) {
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	if order == "" {
		order = quickest(f)
	}
	at, err := parseCursor(after, order)
	if err != nil {
		return auth.AppPasswordPage{}, err
	}
	var page auth.AppPasswordPage
	err = s.transact(ctx, "find app passwords", func(ctx context.Context, tx *sql.Tx) error {
		page, err = findPage(ctx, tx, f, order, at, limit)
		return err
	})
	return page, err
}

// quickest is the order whose index has what the filter means together, or else the one that people expect.
func quickest(f auth.AppPasswordFilter) auth.Order {
	switch {
	case f.Exempt, f.Imported, f.Login != "":
		return auth.ByCreation
	case f.UnusedFor > 0:
		return auth.ByLastUse
	}
	return auth.ByLogin
}

func findPage(ctx context.Context, tx *sql.Tx, f auth.AppPasswordFilter, order auth.Order, at cursor, limit int) (auth.AppPasswordPage, error) {
	settings := findSettings
	if f.Login != "" || order == auth.ByLabel {
		settings = findAlways
	}
	// Read only, and planned for what it is: no arguments, so that they go together.
	if _, err := tx.ExecContext(ctx, settings); err != nil {
		return auth.AppPasswordPage{}, err
	}
	page := auth.AppPasswordPage{AsOf: f.AsOf}
	var accountID sql.NullInt64
	err := tx.QueryRowContext(ctx, "SELECT now(), (SELECT account_id FROM logins WHERE login = $1)", f.Login).Scan(&page.AsOf, &accountID)
	if err != nil {
		return page, err
	}
	if f.Login != "" && !accountID.Valid {
		return page, auth.ErrNoAccount
	}
	if !f.AsOf.IsZero() {
		page.AsOf = f.AsOf
	}
	var q query
	text := q.statement(f, order, at, accountID.Int64, page.AsOf, limit)
	rows, err := tx.QueryContext(ctx, text, q.args...)
	if err != nil {
		return page, err
	}
	defer rows.Close()
	var last cursor
	ended := true
	for rows.Next() {
		var login string
		var matched, border bool
		var key sql.NullTime
		var label sql.NullString
		p, err := scanAppPassword(rows, "", &login, &key, &label, &matched, &border)
		if err != nil {
			return page, err
		}
		p.Login = login
		last = cursor{Order: order, ID: p.ID, Text: label.String}
		if key.Valid {
			last.Time = &key.Time
		}
		if border {
			ended = false
		}
		if matched {
			page.AppPasswords = append(page.AppPasswords, p)
		}
	}
	if err := rows.Err(); err != nil {
		return page, err
	}
	switch {
	case len(page.AppPasswords) == limit || !ended:
		page.Next = last.String()
	case order == auth.ByExpiry && at.Text == "": // those without a date come after those with one
		page.Next = cursor{Order: order, Text: noDate}.String()
	}
	return page, nil
}

// noDate in a cursor of [auth.ByExpiry] says that those with a date are through.
const noDate = "never"

// statement writes the query. Its columns are those of an app password, its login, the time and the text of the order, whether the row
// is one that is meant, and whether it is the border of the window.
func (q *query) statement(f auth.AppPasswordFilter, order auth.Order, at cursor, accountID int64, asOf time.Time, limit int) string {
	walk, rest := q.conditions(f, order, accountID, asOf)
	key, label, sort, outer := "NULL::timestamptz", "NULL", "id", "id"
	switch order {
	case auth.ByLogin:
		if accountID == 0 {
			return q.findByLogin(slices.Concat(walk, rest), at, limit)
		}
		walk = append(walk, "id > "+q.arg(at.ID))
	case auth.ByLastUse:
		key, sort, outer = usedAbout, usedAbout+", id", "key, id"
		if at.Time != nil {
			walk = append(walk, "("+usedAbout+", id) > ("+q.arg(*at.Time)+"::timestamptz, "+q.arg(at.ID)+"::bigint)")
		}
	case auth.ByExpiry:
		if at.Text == noDate {
			label = "'" + noDate + "'"
			walk = append(walk, "expires_at IS NULL", "id > "+q.arg(at.ID))
			break
		}
		key, sort, outer = "expires_at", "expires_at, id", "key, id"
		walk = append(walk, "expires_at IS NOT NULL")
		if at.Time != nil {
			walk = append(walk, "(expires_at, id) > ("+q.arg(*at.Time)+"::timestamptz, "+q.arg(at.ID)+"::bigint)")
		}
	case auth.ByLabel: // no index: all that is meant is read for every page
		label, sort = "label_key", "label_key, id"
		if at.Text != "" {
			walk = append(walk, "(label_key, id) > ("+q.arg(at.Text)+"::text, "+q.arg(at.ID)+"::bigint)")
		}
		return `SELECT ` + appPasswordColumns + `, (SELECT login FROM accounts WHERE id = account_id), ` + key + `, ` + label + `, true, false
			FROM app_passwords WHERE ` + strings.Join(slices.Concat(walk, rest), " AND ") + `
			ORDER BY ` + sort + ` LIMIT ` + q.arg(limit)
	default:
		walk = append(walk, "id > "+q.arg(at.ID))
	}
	if len(walk) == 0 { // all of the index
		walk = append(walk, "true")
	}
	meant := "COALESCE(" + strings.Join(rest, " AND ") + ", false)"
	border := "border = " + q.arg(findWindow)
	// The key is a column of the inner query, so that the planner sees that its rows are in order already and stops at the limit,
	// instead of reading the whole window to sort it.
	return `SELECT ` + appPasswordColumns + `, (SELECT a.login FROM accounts a WHERE a.id = account_id), key, ` + label + `, ` + meant + `, ` + border + `
		FROM (SELECT *, ` + key + ` AS key, row_number() OVER (ORDER BY ` + sort + `) AS border FROM app_passwords
			WHERE ` + strings.Join(walk, " AND ") + ` ORDER BY ` + sort + ` LIMIT ` + q.arg(findWindow) + `) p
		WHERE ` + meant + ` OR ` + border + ` ORDER BY ` + outer + ` LIMIT ` + q.arg(limit)
}

// findByLogin walks along the accounts. A row behind those of the last account says that the window ends there.
func (q *query) findByLogin(conditions []string, at cursor, limit int) string {
	meant := strings.Join(conditions, " AND ")
	from, id, most := q.arg(at.Text), q.arg(at.ID), q.arg(findAccounts)
	return `SELECT p.* FROM (SELECT id, login, row_number() OVER (ORDER BY login) AS border FROM accounts
			WHERE login >= ` + from + ` ORDER BY login LIMIT ` + most + `) a
		CROSS JOIN LATERAL (
			(SELECT ` + appPasswordColumns + `, a.login, NULL::timestamptz, a.login AS at, true, false FROM app_passwords
			WHERE account_id = a.id AND (a.login > ` + from + ` OR id > ` + id + `) AND ` + meant + `)
			UNION ALL
			SELECT 9223372036854775807, 0, '', '{}', '{}', '', now(), '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, false,
				a.login, NULL, a.login, false, true
			WHERE a.border = ` + most + `
		) p ORDER BY a.login, p.id LIMIT ` + q.arg(limit)
}

// RevokeAppPasswords revokes some of the app passwords that the filter means, at most 100, each with the old secret beside it, and
// returns those that it did revoke, as they are now. What has changed since it was found, so that it is not meant any more, stays.
// after and Next are as of [Store.FindAppPasswords]. When it returns, the next login anywhere is refused.
func (s *Store) RevokeAppPasswords(ctx context.Context, f auth.AppPasswordFilter, after string, limit int, why, by string) (auth.AppPasswordPage, error) {
	order := quickest(f)
	at, err := parseCursor(after, order)
	if err != nil {
		return auth.AppPasswordPage{}, err
	}
	if limit <= 0 || limit > revokeBatch {
		limit = revokeBatch
	}
	var page auth.AppPasswordPage
	err = s.transact(ctx, "revoke app passwords", func(ctx context.Context, tx *sql.Tx) error {
		if err := commitEverywhere(ctx, tx); err != nil {
			return err
		}
		found, err := findPage(ctx, tx, f, order, at, limit)
		if err != nil {
			return err
		}
		page = auth.AppPasswordPage{Next: found.Next, AsOf: found.AsOf}
		logins := map[int64]string{}
		var ids, accounts, old []int64
		for _, p := range found.AppPasswords {
			logins[p.AccountID] = p.Login
			ids, accounts, old = append(ids, p.ID), append(accounts, p.AccountID), append(old, p.Replaces)
		}
		if len(ids) == 0 {
			return nil
		}
		if _, err := tx.ExecContext(ctx, "RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_sort"); err != nil {
			return err
		}
		// The accounts first, as everybody who changes app passwords, and all in one order.
		if _, err := tx.ExecContext(ctx, "SELECT FROM accounts WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", pq.Array(accounts)); err != nil {
			return err
		}
		var q query
		walk, rest := q.conditions(f, order, 0, found.AsOf)
		if page.AppPasswords, err = revokeFound(ctx, tx, &q, logins, why, by, "id = ANY ("+q.arg(pq.Array(ids))+") AND "+
			strings.Join(slices.Concat(walk, rest), " AND ")); err != nil {
			return err
		}
		var gone []int64 // old secrets of those that were
		for _, p := range page.AppPasswords {
			gone = append(gone, p.Replaces)
		}
		var q2 query
		more, err := revokeFound(ctx, tx, &q2, logins, why, by, "id = ANY ("+q2.arg(pq.Array(gone))+")")
		page.AppPasswords = append(page.AppPasswords, more...)
		return err
	})
	if err != nil {
		return auth.AppPasswordPage{}, err
	}
	return page, nil
}

// revokeFound revokes rows of locked accounts, whose logins are known, with an event for each.
func revokeFound(ctx context.Context, tx *sql.Tx, q *query, logins map[int64]string, why, by, condition string) ([]auth.AppPassword, error) {
	rows, err := tx.QueryContext(ctx, `UPDATE app_passwords SET revoked_at = now(), revoked_by = `+q.arg(by)+`, revoked_why = `+q.arg(why)+`,
		holds_label = false WHERE revoked_at IS NULL AND `+condition+" RETURNING "+appPasswordColumns, q.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []auth.AppPassword
	for rows.Next() {
		p, err := scanAppPassword(rows, "")
		if err != nil {
			return nil, err
		}
		p.Login = logins[p.AccountID]
		list = append(list, p)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, p := range list {
		if err := addEvent(ctx, tx, event{kind: eventAppPasswordRevoked, actor: by, accountID: p.AccountID, login: p.Login,
			appPasswordID: p.ID, label: p.Label, detail: map[string]any{"why": why}}); err != nil {
			return nil, err
		}
	}
	return list, nil
}
