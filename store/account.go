package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// Limits of [Store.Accounts].
const (
	defaultPage = 100
	maxPage     = 1000
)

const accountColumns = entryColumns + `, a.kind = 'reader', COALESCE(a.app_password_limit, 0),
	(SELECT count(*) FROM app_passwords WHERE account_id = a.id AND ` + counted + `)`

func scanAccount(row interface{ Scan(...any) error }) (auth.Account, error) {
	var a auth.Account
	var attributes, userdb []byte
	var reader bool
	err := row.Scan(&a.ID, &a.UUID, &a.Login, &a.DisplayName, &a.Enabled, &attributes, &userdb, &a.CreatedAt, &a.ModifiedAt,
		pq.Array(&a.Aliases), pq.Array(&a.Groups), &reader, &a.Limit, &a.AppPasswords)
	if err != nil {
		return auth.Account{}, err
	}
	if reader {
		a.Kind = auth.Reader
	}
	if err := unpack(attributes, &a.Attributes); err != nil {
		return auth.Account{}, err
	}
	return a, unpack(userdb, &a.Userdb)
}

// kindText is an account's kind as the database has it.
func kindText(k auth.Kind) string {
	if k == auth.Reader {
		return "reader"
	}
	return "person"
}

// AddAccount adds an enabled account. A login or alias that already means an account is [auth.ErrLoginTaken].
func (s *Store) AddAccount(ctx context.Context, n auth.NewAccount, by string) (auth.Account, error) {
	attributes, err := json.Marshal(nonNil(n.Attributes))
	if err != nil {
		return auth.Account{}, failed("add account", err)
	}
	userdb, err := json.Marshal(nonNil(n.Userdb))
	if err != nil {
		return auth.Account{}, failed("add account", err)
	}
	// Sorted, so that two transactions that add the same names wait for each other instead of dead-locking.
	logins := slices.Compact(slices.Sorted(slices.Values(append([]string{n.Login}, n.Aliases...))))
	var a auth.Account
	err = s.transact(ctx, "add account", func(ctx context.Context, tx *sql.Tx) error {
		var id int64
		err := tx.QueryRowContext(ctx, `INSERT INTO accounts (kind, login, display_name, attributes, userdb, keyed)
			VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
			kindText(n.Kind), n.Login, n.DisplayName, string(attributes), string(userdb), keyVersion).Scan(&id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO logins (login, account_id) SELECT unnest($1::text[]), $2",
			pq.Array(logins), id); err != nil {
			return err
		}
		if n.Kind == auth.Person { // nobody searches for readers
			if err := setSearchKeys(ctx, tx, n.Login, n.DisplayName, n.Attributes); err != nil {
				return err
			}
		}
		a, err = scanAccount(tx.QueryRowContext(ctx, "SELECT "+accountColumns+" FROM accounts a WHERE a.id = $1", id))
		if err != nil {
			return err
		}
		return addEvent(ctx, tx, event{kind: eventAccountAdded, actor: by, accountID: id, login: n.Login,
			detail: map[string]any{"aliases": a.Aliases, "kind": kindText(n.Kind)}})
	})
	if err != nil {
		return auth.Account{}, err
	}
	return a, nil
}

// nonNil makes an empty map of none, which is stored as {} and not as null.
func nonNil[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// Account returns the account that goes by a normalised login, canonical or alias. An unknown one is
// [auth.ErrNoAccount].
func (s *Store) Account(ctx context.Context, login string) (auth.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	a, err := scanAccount(s.db.QueryRowContext(ctx, "SELECT "+accountColumns+
		" FROM logins n JOIN accounts a ON a.id = n.account_id WHERE n.login = $1", login))
	if err != nil {
		return auth.Account{}, failed("read account", noRowsIs(err, auth.ErrNoAccount))
	}
	return a, nil
}

// Accounts lists accounts of one kind by canonical login, byte by byte, beginning after the given one ("" for the first page).
// limit is at most 1000; zero is 100. A page shorter than the limit is the last.
func (s *Store) Accounts(ctx context.Context, kind auth.Kind, after string, limit int) ([]auth.Account, error) {
	if limit <= 0 {
		limit = defaultPage
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	// The kind stands in the text, so that the planner can take the index on readers.
	rows, err := s.db.QueryContext(ctx, "SELECT "+accountColumns+" FROM accounts a WHERE a.login > $1 AND a.kind = '"+kindText(kind)+
		"' ORDER BY a.login LIMIT $2", after, min(limit, maxPage))
	if err != nil {
		return nil, failed("list accounts", err)
	}
	defer rows.Close()
	var accounts []auth.Account
	for rows.Next() {
		a, err := scanAccount(rows)
		if err != nil {
			return nil, failed("list accounts", err)
		}
		accounts = append(accounts, a)
	}
	return accounts, failed("list accounts", rows.Err())
}

// SetAccountEnabled lets the account's app passwords in or keeps all of them out. Setting what is already so is not an
// error and leaves no event. An unknown login is [auth.ErrNoAccount].
func (s *Store) SetAccountEnabled(ctx context.Context, login string, enabled bool, by string) error {
	_, err := s.ChangeAccount(ctx, login, auth.AccountChange{Enabled: &enabled}, by)
	return err
}

// ChangeAccount changes an account and returns what it is now. What is already so is not an error and leaves no event. An unknown
// login is [auth.ErrNoAccount], an alias that means another account [auth.ErrLoginTaken]; the canonical login cannot be removed,
// and removing it is none.
func (s *Store) ChangeAccount(ctx context.Context, login string, c auth.AccountChange, by string) (auth.Account, error) {
	var now auth.Account
	err := s.transact(ctx, "change account", func(ctx context.Context, tx *sql.Tx) error {
		if c.Enabled != nil {
			if err := commitEverywhere(ctx, tx); err != nil {
				return err
			}
		}
		locked, err := lockAccount(ctx, tx, login)
		if err != nil {
			return err
		}
		old, err := readAccount(ctx, tx, locked.id)
		if err != nil {
			return err
		}
		if err := changeEnabled(ctx, tx, &old, c.Enabled, by); err != nil {
			return err
		}
		if err := changeRecord(ctx, tx, &old, c, by); err != nil {
			return err
		}
		now, err = readAccount(ctx, tx, locked.id)
		return err
	})
	return now, err
}

func readAccount(ctx context.Context, tx *sql.Tx, id int64) (auth.Account, error) {
	return scanAccount(tx.QueryRowContext(ctx, "SELECT "+accountColumns+" FROM accounts a WHERE a.id = $1", id))
}

// changeEnabled also tells the groups, whose entries show enabled members only.
func changeEnabled(ctx context.Context, tx *sql.Tx, old *auth.Account, enabled *bool, by string) error {
	if enabled == nil || *enabled == old.Enabled {
		return nil
	}
	if _, err := tx.ExecContext(ctx, "UPDATE accounts SET enabled = $2, modified_at = now() WHERE id = $1", old.ID, *enabled); err != nil {
		return err
	}
	if err := touchGroups(ctx, tx, old.ID); err != nil {
		return err
	}
	kind := eventAccountDisabled
	if *enabled {
		kind = eventAccountEnabled
	}
	return addEvent(ctx, tx, event{kind: kind, actor: by, accountID: old.ID, login: old.Login})
}

// changeRecord changes everything else. The event names what was changed, without the values.
func changeRecord(ctx context.Context, tx *sql.Tx, old *auth.Account, c auth.AccountChange, by string) error {
	detail := map[string]any{}
	name := old.DisplayName
	if c.DisplayName != nil && *c.DisplayName != name {
		name = *c.DisplayName
		detail["display_name"] = true
	}
	attributes, changed := mergeAttributes(old.Attributes, c.Attributes)
	if len(changed) > 0 {
		detail["attributes"] = changed
	}
	userdb := maps.Clone(old.Userdb)
	for field, value := range c.Userdb {
		if value == "" {
			delete(userdb, field)
		} else {
			userdb[field] = value
		}
	}
	if !maps.Equal(userdb, old.Userdb) {
		detail["userdb"] = slices.Sorted(maps.Keys(c.Userdb))
	}
	limit := old.Limit
	if c.Limit != nil && *c.Limit != limit {
		limit = *c.Limit
		detail["limit"] = limit
	}
	var added, removed []string
	for _, a := range c.AddAliases {
		if a != old.Login && !slices.Contains(old.Aliases, a) {
			added = append(added, a)
		}
	}
	for _, a := range c.RemoveAliases {
		if slices.Contains(old.Aliases, a) {
			removed = append(removed, a)
		}
	}
	// Sorted, so that two transactions that take the same names wait for each other instead of dead-locking.
	slices.Sort(added)
	if added = slices.Compact(added); len(added) > 0 {
		detail["aliases_added"] = added
	}
	if len(removed) > 0 {
		detail["aliases_removed"] = removed
	}
	if len(detail) == 0 {
		return nil
	}
	texts, err := packed(attributes, userdb)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE accounts SET display_name = $2, attributes = $3, userdb = $4, keyed = $5, app_password_limit = NULLIF($6, 0),
		modified_at = now() WHERE id = $1`, old.ID, name, texts[0], texts[1], keyVersion, limit); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM logins WHERE account_id = $1 AND login = ANY ($2::text[])", old.ID, pq.Array(removed)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO logins (login, account_id) SELECT unnest($1::text[]), $2", pq.Array(added), old.ID); err != nil {
		return err
	}
	if old.Kind == auth.Person {
		if err := setSearchKeys(ctx, tx, old.Login, name, attributes); err != nil {
			return err
		}
	}
	return addEvent(ctx, tx, event{kind: eventAccountChanged, actor: by, accountID: old.ID, login: old.Login, detail: detail})
}

// mergeAttributes returns the attributes after a change, and the names of those that it changes, sorted. Names are compared
// without case; the change decides how one is written.
func mergeAttributes(old, change map[string][]string) (merged map[string][]string, changed []string) {
	merged = maps.Clone(old)
	for _, name := range slices.Sorted(maps.Keys(change)) {
		values := change[name]
		if slices.Equal(merged[name], values) {
			continue
		}
		for have := range merged {
			if strings.EqualFold(have, name) {
				delete(merged, have)
			}
		}
		if len(values) > 0 {
			merged[name] = values
		}
		changed = append(changed, name)
	}
	return merged, changed
}

// packed returns JSON texts.
func packed(values ...any) ([]string, error) {
	texts := make([]string, len(values))
	for i, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		texts[i] = string(text)
	}
	return texts, nil
}

// DeleteAccount removes the account with its logins and app passwords; the audit log stays. An unknown login is
// [auth.ErrNoAccount].
func (s *Store) DeleteAccount(ctx context.Context, login, by string) error {
	return s.transact(ctx, "delete account", func(ctx context.Context, tx *sql.Tx) error {
		if err := commitEverywhere(ctx, tx); err != nil {
			return err
		}
		a, err := lockAccount(ctx, tx, login)
		if err != nil {
			return err
		}
		if err := touchGroups(ctx, tx, a.id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM accounts WHERE id = $1", a.id); err != nil {
			return err
		}
		return addEvent(ctx, tx, event{kind: eventAccountDeleted, actor: by, accountID: a.id, login: a.login})
	})
}

// lockedAccount is what operations on an account need to know of it.
type lockedAccount struct {
	id      int64
	login   string // canonical
	enabled bool
	limit   int // live app passwords; 0: as the configuration says
}

// mayHave is how many live app passwords the account may have, given what the configuration says.
func (a lockedAccount) mayHave(configured int) int {
	if a.limit > 0 {
		configured = a.limit
	}
	return min(configured, maxLive)
}

// lockAccount makes the transactions that change an account or its app passwords wait for each other, so that each sees
// the rows that the ones before it left.
func lockAccount(ctx context.Context, tx *sql.Tx, login string) (lockedAccount, error) {
	var a lockedAccount
	err := tx.QueryRowContext(ctx, `SELECT a.id, a.login, a.enabled, COALESCE(a.app_password_limit, 0) FROM logins n JOIN accounts a ON a.id = n.account_id
		WHERE n.login = $1 FOR NO KEY UPDATE OF a`, login).Scan(&a.id, &a.login, &a.enabled, &a.limit)
	return a, noRowsIs(err, auth.ErrNoAccount)
}

// commitEverywhere makes the commit wait until synchronous standbys, if there are any, have applied it: with
// asynchronous replication, a failover would undo a revocation (reference/security.md section 2.4).
func commitEverywhere(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "SET LOCAL synchronous_commit = 'remote_apply'")
	return err
}
