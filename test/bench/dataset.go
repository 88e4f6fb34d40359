package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

// dataset is what goes into the database before anything is measured: accounts with passwordsPerAccount app passwords
// each. One password of each account that logs in is real; all others are rows of the same form that nothing matches,
// because their hashes would take 22 ms each to compute.
type dataset struct {
	creds  []credential
	hashes []string // PHC strings of the first credentials' passwords
	tag    func(normalised string) uint16
	pepper int32
}

// storedPassword is an app password as the database keeps it.
type storedPassword struct {
	account int // index of the credential
	number  int // 0 to passwordsPerAccount-1
	phc     string
	tag     uint16
}

// newDataset computes the hashes on all cores.
func newDataset(ctx context.Context, creds []credential, logins int, ring *secret.Ring) (*dataset, error) {
	d := &dataset{
		creds:  creds,
		hashes: make([]string, logins),
		tag:    func(normalised string) uint16 { return ring.Tag(normalised).Value },
		pepper: ring.Active(),
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
			for n := range passwordsPerAccount {
				p := storedPassword{account: i, number: n}
				if n == i%passwordsPerAccount && i < len(d.hashes) {
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
	err = copyRows(ctx, tx, "accounts", []string{"login", "display_name"}, func(yield func([]any) bool) {
		for _, c := range d.creds {
			if !yield([]any{c.login, "Person " + c.login}) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	ids, err := accountIDs(ctx, tx)
	if err != nil {
		return err
	}
	err = copyRows(ctx, tx, "logins", []string{"login", "account_id"}, func(yield func([]any) bool) {
		for _, c := range d.creds {
			if !yield([]any{c.login, ids[c.login]}) {
				return
			}
		}
	})
	if err != nil {
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

func accountIDs(ctx context.Context, tx *sql.Tx) (map[string]int64, error) {
	rows, err := tx.QueryContext(ctx, "SELECT login, id FROM accounts")
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	defer rows.Close()
	ids := map[string]int64{}
	for rows.Next() {
		var login string
		var id int64
		if err := rows.Scan(&login, &id); err != nil {
			return nil, fmt.Errorf("read accounts: %w", err)
		}
		ids[login] = id
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
