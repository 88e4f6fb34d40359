package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

// dataset is what goes into the database before anything is measured: accounts with the same number of app passwords
// each, in groups, and one reader. One password of each account that logs in is real, and the reader's only one; all others are rows of
// the same form that nothing matches, because their hashes would take 22 ms each to compute.
type dataset struct {
	creds  []credential
	each   int      // app passwords of an account
	hashes []string // PHC strings of the first credentials' passwords
	tag    func(normalised string) uint16
	pepper int32

	reader     credential
	readerHash string
}

// storedPassword is an app password as the database keeps it.
type storedPassword struct {
	account int // index of the credential
	number  int // 0 to passwordsPerAccount-1
	phc     string
	tag     uint16
}

// newDataset computes the hashes on all cores.
func newDataset(ctx context.Context, creds []credential, each, logins int, reader credential, ring *secret.Ring) (*dataset, error) {
	d := &dataset{
		creds:      creds,
		each:       each,
		hashes:     make([]string, logins),
		tag:        func(normalised string) uint16 { return ring.Tag(normalised).Value },
		pepper:     ring.Active(),
		reader:     reader,
		readerHash: secret.Hash(normalised(reader)),
	}
	var (
		next, done atomic.Int64
		wg         sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= logins {
					return
				}
				d.hashes[i] = secret.Hash(normalised(creds[i]))
				done.Add(1)
			}
		})
	}
	watch(ctx, &done, logins, func(done int) { progress("data set: %d of %d hashes", done, logins) })
	wg.Wait()
	return d, ctx.Err()
}

func normalised(c credential) string {
	text, ok := secret.Normalise(c.password)
	if !ok {
		panic("password of the data set is not a generated one")
	}
	return text
}

// passwords yields the rows account by account. The real one stands at another place from account to account. Tags are
// distinct within an account, as the daemon's own generator makes them.
func (d *dataset) passwords() iter.Seq[storedPassword] {
	return func(yield func(storedPassword) bool) {
		for i, c := range d.creds {
			used := map[uint16]bool{}
			own := d.tag(normalised(c))
			used[own] = true
			for n := range d.each {
				p := storedPassword{account: i, number: n}
				if n == i%d.each && i < len(d.hashes) {
					p.phc, p.tag = d.hashes[i], own
				} else {
					p.phc, p.tag = randomPHC(), randomTag(used)
				}
				if !yield(p) {
					return
				}
			}
		}
	}
}

// randomPHC returns a hash of the form and cost that secret.Hash writes, of no known password.
func randomPHC() string {
	var b [48]byte
	rand.Read(b[:])
	enc := base64.RawStdEncoding
	return "$argon2id$v=19$m=19456,t=2,p=1$" + enc.EncodeToString(b[:16]) + "$" + enc.EncodeToString(b[16:])
}

// randomTag returns a tag that is not used, and marks it.
func randomTag(used map[uint16]bool) uint16 {
	for {
		var b [2]byte
		rand.Read(b[:])
		if tag := binary.BigEndian.Uint16(b[:]); !used[tag] {
			used[tag] = true
			return tag
		}
	}
}

// write puts the data set into an empty database.
func (d *dataset) write(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // no effect after Commit
	if err := d.writeAccounts(ctx, tx); err != nil {
		return err
	}
	ids, err := idsOf(ctx, tx, "accounts", "login")
	if err != nil {
		return err
	}
	err = copyRows(ctx, tx, "logins", []string{"login", "account_id"}, func(yield func([]any) bool) {
		for login, id := range ids {
			if !yield([]any{login, id}) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if err := d.writeKeys(ctx, tx); err != nil {
		return err
	}
	if err := d.writeGroups(ctx, tx, ids); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO peppers (id) VALUES ($1) ON CONFLICT DO NOTHING", d.pepper); err != nil {
		return fmt.Errorf("insert into peppers: %w", err)
	}
	columns := []string{"account_id", "label", "label_key", "phc", "pepper_id", "tag", "origin", "created_by"}
	err = copyRows(ctx, tx, "app_passwords", columns, func(yield func([]any) bool) {
		for p := range d.passwords() {
			label := fmt.Sprintf("device %d", p.number+1)
			if !yield([]any{ids[d.creds[p.account].login], label, label, p.phc, d.pepper, int(p.tag), string(auth.Generated), "bench"}) {
				return
			}
		}
		yield([]any{ids[d.reader.login], "bench", "bench", d.readerHash, d.pepper, int(d.tag(normalised(d.reader))), string(auth.Generated), "bench"})
	})
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	// Now rather than by autovacuum in the middle of a cell.
	_, err = db.ExecContext(ctx, "VACUUM (ANALYZE)")
	return err
}

// keyVersion is what accounts.keyed says of rows whose search keys are those of writeKeys (store/search_key.go).
const keyVersion = 1

// writeAccounts writes the people, then the reader.
func (d *dataset) writeAccounts(ctx context.Context, tx *sql.Tx) error {
	return copyRows(ctx, tx, "accounts", []string{"login", "display_name", "kind", "attributes", "keyed"}, func(yield func([]any) bool) {
		for _, c := range d.creds {
			attributes, err := json.Marshal(c.attributes())
			if err != nil {
				panic(err) // of a map of strings
			}
			if !yield([]any{c.login, c.displayName(), "person", string(attributes), keyVersion}) {
				return
			}
		}
		yield([]any{d.reader.login, "", "reader", "{}", keyVersion})
	})
}

// writeKeys writes the rows that the daemon makes of an account's attributes and display name. A reader has none.
func (d *dataset) writeKeys(ctx context.Context, tx *sql.Tx) error {
	return copyRows(ctx, tx, "search_keys", []string{"key", "login"}, func(yield func([]any) bool) {
		for _, c := range d.creds {
			if !yield([]any{auth.SearchKey("displayName", c.displayName()), c.login}) {
				return
			}
			for name, values := range c.attributes() {
				for _, v := range values {
					if !yield([]any{auth.SearchKey(name, v), c.login}) {
						return
					}
				}
			}
		}
	})
}

func (d *dataset) writeGroups(ctx context.Context, tx *sql.Tx, accounts map[string]int64) error {
	err := copyRows(ctx, tx, "groups", []string{"name", "display_name"}, func(yield func([]any) bool) {
		for i := range groupCount(len(d.creds)) {
			if !yield([]any{groupName(i), "Group " + groupName(i)}) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	ids, err := idsOf(ctx, tx, "groups", "name")
	if err != nil {
		return err
	}
	return copyRows(ctx, tx, "group_members", []string{"group_id", "account_id"}, func(yield func([]any) bool) {
		for i, c := range d.creds {
			if !yield([]any{ids[groupName(i/groupSize)], accounts[c.login]}) {
				return
			}
		}
	})
}

// idsOf reads the ids that a table gave its rows, by the column that names them.
func idsOf(ctx context.Context, tx *sql.Tx, table, column string) (map[string]int64, error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+column+", id FROM "+table)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	defer rows.Close()
	ids := map[string]int64{}
	for rows.Next() {
		var name string
		var id int64
		if err := rows.Scan(&name, &id); err != nil {
			return nil, fmt.Errorf("read %s: %w", table, err)
		}
		ids[name] = id
	}
	return ids, rows.Err()
}

// copyRows writes rows with COPY.
func copyRows(ctx context.Context, tx *sql.Tx, table string, columns []string, rows iter.Seq[[]any]) error {
	stmt, err := tx.PrepareContext(ctx, "COPY "+table+" ("+strings.Join(columns, ", ")+") FROM STDIN")
	if err != nil {
		return fmt.Errorf("copy to %s: %w", table, err)
	}
	defer stmt.Close()
	for values := range rows {
		if _, err := stmt.ExecContext(ctx, values...); err != nil {
			return fmt.Errorf("copy to %s: %w", table, err)
		}
	}
	if _, err := stmt.ExecContext(ctx); err != nil {
		return fmt.Errorf("copy to %s: %w", table, err)
	}
	return nil
}
