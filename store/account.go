package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// Limits of [Store.Accounts].
const (
	defaultPage = 100
	maxPage     = 1000
)

const accountColumns = `a.id, a.uuid::text, a.login, a.display_name, a.enabled, a.attributes, a.userdb, a.created_at, a.modified_at,
	ARRAY(SELECT l.login FROM logins l WHERE l.account_id = a.id AND l.login <> a.login ORDER BY l.login),
	(SELECT count(*) FROM app_passwords WHERE account_id = a.id AND revoked_at IS NULL AND NOT ` + expired + `)`

func scanAccount(row interface{ Scan(...any) error }) (auth.Account, error) {
	var a auth.Account
	var attributes, userdb []byte
	err := row.Scan(&a.ID, &a.UUID, &a.Login, &a.DisplayName, &a.Enabled, &attributes, &userdb, &a.CreatedAt, &a.ModifiedAt,
		pq.Array(&a.Aliases), &a.AppPasswords)
	if err != nil {
		return auth.Account{}, err
	}
	if err := json.Unmarshal(attributes, &a.Attributes); err != nil {
		return auth.Account{}, err
	}
	if err := json.Unmarshal(userdb, &a.Userdb); err != nil {
		return auth.Account{}, err
	}
	return a, nil
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
		err := tx.QueryRowContext(ctx, `INSERT INTO accounts (login, display_name, attributes, userdb)
			VALUES ($1, $2, $3, $4) RETURNING id`, n.Login, n.DisplayName, string(attributes), string(userdb)).Scan(&id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO logins (login, account_id) SELECT unnest($1::text[]), $2",
			pq.Array(logins), id); err != nil {
			return err
		}
		a, err = scanAccount(tx.QueryRowContext(ctx, "SELECT "+accountColumns+" FROM accounts a WHERE a.id = $1", id))
		if err != nil {
			return err
		}
		return addEvent(ctx, tx, event{kind: eventAccountAdded, actor: by, accountID: id, login: n.Login,
			detail: map[string]any{"aliases": a.Aliases}})
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

// Accounts lists accounts by canonical login, byte by byte, beginning after the given one ("" for the first page). limit
// is at most 1000; zero is 100. A page shorter than the limit is the last.
func (s *Store) Accounts(ctx context.Context, after string, limit int) ([]auth.Account, error) {
	if limit <= 0 {
		limit = defaultPage
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "SELECT "+accountColumns+" FROM accounts a WHERE a.login > $1 ORDER BY a.login LIMIT $2",
		after, min(limit, maxPage))
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
	return s.transact(ctx, "enable or disable account", func(ctx context.Context, tx *sql.Tx) error {
		if err := commitEverywhere(ctx, tx); err != nil {
			return err
		}
		a, err := lockAccount(ctx, tx, login)
		if err != nil || a.enabled == enabled {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE accounts SET enabled = $2, modified_at = now() WHERE id = $1",
			a.id, enabled); err != nil {
			return err
		}
		kind := eventAccountDisabled
		if enabled {
			kind = eventAccountEnabled
		}
		return addEvent(ctx, tx, event{kind: kind, actor: by, accountID: a.id, login: a.login})
	})
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
}

// lockAccount makes the transactions that change an account or its app passwords wait for each other, so that each sees
// the rows that the ones before it left.
func lockAccount(ctx context.Context, tx *sql.Tx, login string) (lockedAccount, error) {
	var a lockedAccount
	err := tx.QueryRowContext(ctx, `SELECT a.id, a.login, a.enabled FROM logins n JOIN accounts a ON a.id = n.account_id
		WHERE n.login = $1 FOR NO KEY UPDATE OF a`, login).Scan(&a.id, &a.login, &a.enabled)
	return a, noRowsIs(err, auth.ErrNoAccount)
}

// commitEverywhere makes the commit wait until synchronous standbys, if there are any, have applied it: with
// asynchronous replication, a failover would undo a revocation (reference/security.md section 2.4).
func commitEverywhere(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "SET LOCAL synchronous_commit = 'remote_apply'")
	return err
}
