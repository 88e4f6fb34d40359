package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// keyVersion is the folding of [auth.SearchKey] that accounts.keyed speaks of. Accounts with a lower one are found by every search
// until their keys are made; the index accounts_unkeyed_idx has the number in its predicate.
const keyVersion = 1

const (
	keyBatch = 500 // accounts in a transaction
	keyPause = 5 * time.Second
)

// searchKeys returns the keys by which a person is found, each once.
func searchKeys(displayName string, attributes map[string][]string) []string {
	keys := map[string]bool{}
	add := func(name, value string) {
		// Nobody can look for what is not text, and Postgres would refuse the account because of it.
		if utf8.ValidString(value) && strings.IndexByte(value, 0) < 0 {
			keys[auth.SearchKey(name, value)] = true
		}
	}
	for name, values := range attributes {
		for _, v := range values {
			add(name, v)
		}
	}
	if displayName != "" {
		add("displayName", displayName)
	}
	return slices.Sorted(maps.Keys(keys))
}

// setSearchKeys makes the keys of an account those of what it has now, in the transaction that changes it.
func setSearchKeys(ctx context.Context, tx *sql.Tx, login, displayName string, attributes map[string][]string) error {
	keys := pq.Array(searchKeys(displayName, attributes))
	if _, err := tx.ExecContext(ctx, "DELETE FROM search_keys WHERE login = $1 AND key <> ALL ($2::text[])", login, keys); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO search_keys (key, login) SELECT unnest($2::text[]), $1 ON CONFLICT DO NOTHING", login, keys)
	return err
}

// keyMissing makes the keys of accounts that have none: after an upgrade those of all, later those that an older program, which
// still serves beside this one, has added. It returns at once; the work goes on until it is done or the store is closed.
func (s *Store) keyMissing() {
	if s.ctx.Err() != nil || !s.keying.CompareAndSwap(false, true) {
		return
	}
	s.background.Go(func() {
		defer s.keying.Store(false)
		begin, total := time.Now(), 0
		step, told := keyBatch, false
		for s.ctx.Err() == nil {
			n, err := s.keySome(s.ctx, step)
			if err != nil {
				step = max(1, step/2) // perhaps it took longer than a statement may
				if !told && s.ctx.Err() == nil {
					s.log.Warn("search keys cannot be made now, searches are slow until they are", "error", err)
					told = true
				}
				select {
				case <-time.After(keyPause):
				case <-s.ctx.Done():
				}
				continue
			}
			if total += n; n < step {
				if total > 0 {
					s.log.Info("made search keys", "accounts", total, "took", time.Since(begin).Round(time.Millisecond))
				}
				return
			}
			step = min(keyBatch, step+1)
		}
	})
}

// keySome makes the keys of so many accounts and says of how many there were any to make. Those that somebody is changing right now are passed over: the
// change makes their keys.
func (s *Store) keySome(ctx context.Context, most int) (n int, err error) {
	err = s.transact(ctx, "make search keys", func(ctx context.Context, tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, login, kind = 'person', display_name, attributes FROM accounts
			WHERE keyed < 1 ORDER BY login LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED`, most)
		if err != nil {
			return err
		}
		defer rows.Close()
		var ids []int64
		var keys, logins []string
		for rows.Next() {
			var id int64
			var login, name string
			var person bool
			var text []byte
			var attributes map[string][]string
			if err := rows.Scan(&id, &login, &person, &name, &text); err != nil {
				return err
			}
			if err := json.Unmarshal(text, &attributes); err != nil {
				return err
			}
			ids = append(ids, id)
			if !person {
				continue
			}
			for _, k := range searchKeys(name, attributes) {
				keys, logins = append(keys, k), append(logins, login)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		n = len(ids)
		if n == 0 {
			return nil
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM search_keys WHERE login IN (SELECT login FROM accounts WHERE id = ANY ($1))", pq.Array(ids)); err != nil {
			return err // of an older folding
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO search_keys (key, login) SELECT * FROM unnest($1::text[], $2::text[])",
			pq.Array(keys), pq.Array(logins)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE accounts SET keyed = $2 WHERE id = ANY ($1)", pq.Array(ids), keyVersion)
		return err
	})
	return n, err
}
