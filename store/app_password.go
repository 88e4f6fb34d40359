package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

const (
	// maxLive is how many live app passwords an account may have, whatever the configuration says.
	maxLive = 1000
	// maxTombstones is how many revoked and expired ones are kept, so that what a login reads is bounded.
	maxTombstones = 1000
	// maxListed is how many app passwords are listed. Each live one may have an old secret beside the new one.
	maxListed = 2*maxLive + maxTombstones + auth.MaxImportedEver
)

// counted is true of the app passwords that count towards the limit of their account: what is live, but for old secrets that are about
// to end.
const counted = `revoked_at IS NULL AND replaced_at IS NULL AND NOT ` + expired

const appPasswordColumns = `id, account_id, label, services, networks::text[], origin, created_at, created_by, expires_at,
	(extract(epoch FROM expires_unused_for) * 1000000)::bigint, last_used_at, last_used_service, last_used_front_end,
	host(last_used_addr), revoked_at, revoked_by, revoked_why, COALESCE(replaces, 0), replaced_at, exempt_at, exempt_by, exempt_why, ` + expired

// scanAppPassword reads appPasswordColumns and then more.
func scanAppPassword(row interface{ Scan(...any) error }, login string, more ...any) (auth.AppPassword, error) {
	p := auth.AppPassword{Login: login}
	var networks []string
	var expiresAt, usedAt, revokedAt, replacedAt, exemptAt sql.NullTime
	var unusedFor sql.NullInt64
	var service, frontEnd, addr, revokedBy, revokedWhy, exemptBy, exemptWhy sql.NullString
	err := row.Scan(append([]any{&p.ID, &p.AccountID, &p.Label, pq.Array(&p.Services), pq.Array(&networks), &p.Origin, &p.CreatedAt,
		&p.CreatedBy, &expiresAt, &unusedFor, &usedAt, &service, &frontEnd, &addr, &revokedAt, &revokedBy, &revokedWhy, &p.Replaces,
		&replacedAt, &exemptAt, &exemptBy, &exemptWhy, &p.Expired}, more...)...)
	if err != nil {
		return auth.AppPassword{}, err
	}
	for _, n := range networks {
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			return auth.AppPassword{}, fmt.Errorf("read network of app password: %w", err)
		}
		p.Networks = append(p.Networks, prefix)
	}
	p.ExpiresAt, p.RevokedAt = expiresAt.Time, revokedAt.Time
	p.ExpiresUnusedFor = time.Duration(unusedFor.Int64) * time.Microsecond
	p.RevokedBy, p.RevokedWhy = revokedBy.String, revokedWhy.String
	p.ReplacedAt, p.ExemptAt, p.ExemptBy, p.ExemptWhy = replacedAt.Time, exemptAt.Time, exemptBy.String, exemptWhy.String
	if usedAt.Valid {
		p.LastUsed = &auth.Use{At: usedAt.Time, Service: service.String, FrontEnd: frontEnd.String}
		if addr.Valid {
			if p.LastUsed.Addr, err = netip.ParseAddr(addr.String); err != nil {
				return auth.AppPassword{}, fmt.Errorf("read last address of app password: %w", err)
			}
		}
	}
	return p, nil
}

// Tags returns the tags of all app passwords of the account, tombstones included, for the generator to avoid. An unknown
// login is [auth.ErrNoAccount].
func (s *Store) Tags(ctx context.Context, login string) ([]auth.Tag, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, `SELECT p.pepper_id, p.tag FROM logins n
		LEFT JOIN app_passwords p ON p.account_id = n.account_id AND p.tag IS NOT NULL WHERE n.login = $1`, login)
	if err != nil {
		return nil, failed("read tags", err)
	}
	defer rows.Close()
	var tags []auth.Tag
	known := false
	for rows.Next() {
		var pepper, value sql.NullInt32
		if err := rows.Scan(&pepper, &value); err != nil {
			return nil, failed("read tags", err)
		}
		known = true
		if value.Valid {
			tags = append(tags, auth.Tag{PepperID: pepper.Int32, Value: uint16(value.Int32)})
		}
	}
	if err := rows.Err(); err != nil {
		return nil, failed("read tags", err)
	}
	if !known {
		return nil, auth.ErrNoAccount
	}
	return tags, nil
}

// AddAppPassword stores an app password. Labels that only expired ones hold are free. The errors that a caller branches
// on are [auth.ErrNoAccount], [auth.ErrLabelTaken], [auth.ErrLimit], and [auth.ErrTagTaken], after which another
// password has to be generated: a row that is not revoked has the tag. A pepper that is not registered yet is
// registered with it. With MakeAccount an unknown login becomes an account; [auth.ErrLoginTaken] then means that somebody else
// made it at the same time.
func (s *Store) AddAppPassword(ctx context.Context, n auth.NewAppPassword) (auth.AppPassword, error) {
	var pepper, tag sql.NullInt32
	if n.Tag != nil {
		pepper = sql.NullInt32{Int32: n.Tag.PepperID, Valid: true}
		tag = sql.NullInt32{Int32: int32(n.Tag.Value), Valid: true}
	}
	networks := make([]string, len(n.Networks))
	for i, p := range n.Networks {
		networks[i] = p.Masked().String() // the type cidr refuses host bits
	}
	services := n.Services
	if services == nil {
		services = []string{}
	}
	var out auth.AppPassword
	err := s.transact(ctx, "add app password", func(ctx context.Context, tx *sql.Tx) error {
		a, err := lockAccount(ctx, tx, n.Login)
		if n.MakeAccount && errors.Is(err, auth.ErrNoAccount) {
			if err := insertAccount(ctx, tx, n.Login, n.CreatedBy); err != nil {
				return err
			}
			a, err = lockAccount(ctx, tx, n.Login)
		}
		if err != nil {
			return err
		}
		if err := releaseLabels(ctx, tx, a.id); err != nil {
			return err
		}
		var live int
		var labelTaken, tagTaken bool
		err = tx.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE `+counted+`),
			COALESCE(bool_or(holds_label AND label_key = $2), false), COALESCE(bool_or(pepper_id = $3 AND tag = $4), false)
			FROM app_passwords WHERE account_id = $1 AND revoked_at IS NULL`,
			a.id, n.LabelKey, pepper, tag).Scan(&live, &labelTaken, &tagTaken)
		switch {
		case err != nil:
			return err
		case labelTaken:
			return auth.ErrLabelTaken
		case live >= a.mayHave(n.LimitPerAccount):
			return auth.ErrLimit
		case tagTaken:
			return auth.ErrTagTaken
		}
		if pepper.Valid {
			if _, err := tx.ExecContext(ctx, "INSERT INTO peppers (id) VALUES ($1) ON CONFLICT DO NOTHING", pepper); err != nil {
				return err
			}
		}
		if err := dropOldTombstones(ctx, tx, a.id); err != nil {
			return err
		}
		out, err = scanAppPassword(tx.QueryRowContext(ctx, `INSERT INTO app_passwords (account_id, label, label_key, services, networks,
				phc, pepper_id, tag, origin, created_by, expires_at, expires_unused_for, exempt_at, exempt_by, exempt_why)
			VALUES ($1, $2, $3, $4, $5::cidr[], $6, $7, $8, $9, $10, $11, make_interval(secs => $12),
				CASE WHEN $13::text IS NOT NULL THEN now() END, CASE WHEN $13::text IS NOT NULL THEN $10::text END, $13)
			RETURNING `+appPasswordColumns,
			a.id, n.Label, n.LabelKey, pq.Array(services), pq.Array(networks), n.PHC, pepper, tag, string(n.Origin), n.CreatedBy,
			sql.NullTime{Time: n.ExpiresAt, Valid: !n.ExpiresAt.IsZero()},
			sql.NullFloat64{Float64: n.ExpiresUnusedFor.Seconds(), Valid: n.ExpiresUnusedFor != 0},
			sql.NullString{String: n.ExemptWhy, Valid: n.ExemptWhy != ""}), a.login)
		if err != nil {
			return err
		}
		detail := map[string]any{"origin": n.Origin, "services": services, "networks": networks}
		if !out.ExpiresAt.IsZero() {
			detail["expires_at"] = out.ExpiresAt
		}
		if n.ExpiresUnusedFor > 0 {
			detail["expires_unused_for"] = n.ExpiresUnusedFor.String()
		}
		if n.ExemptWhy != "" {
			detail["exempt_why"] = n.ExemptWhy
		}
		return addEvent(ctx, tx, event{kind: eventAppPasswordCreated, actor: n.CreatedBy, accountID: a.id, login: a.login,
			appPasswordID: out.ID, label: out.Label, detail: detail})
	})
	if err != nil {
		return auth.AppPassword{}, err
	}
	return out, nil
}

// releaseLabels frees the labels of the account's expired app passwords.
func releaseLabels(ctx context.Context, tx *sql.Tx, accountID int64) error {
	_, err := tx.ExecContext(ctx, "UPDATE app_passwords SET holds_label = false WHERE account_id = $1 AND holds_label AND "+expired,
		accountID)
	return err
}

// dropOldTombstones deletes the oldest tombstones of the account beyond maxTombstones. The audit log still tells of them. Those that were
// imported stay: by them the next import knows what it must not bring back. They are [auth.MaxImportedEver] at most.
func dropOldTombstones(ctx context.Context, tx *sql.Tx, accountID int64) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM app_passwords WHERE id IN (SELECT id FROM app_passwords
		WHERE account_id = $1 AND import_key IS NULL AND (revoked_at IS NOT NULL OR `+expired+`) ORDER BY id DESC OFFSET $2)`, accountID, maxTombstones)
	return err
}

// AppPasswords lists the live app passwords of the account by creation, or all of them with tombstones, of which the newest
// 1000 are kept. An unknown login is [auth.ErrNoAccount].
func (s *Store) AppPasswords(ctx context.Context, login string, all bool) ([]auth.AppPassword, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var id int64
	var canonical string
	err := s.db.QueryRowContext(ctx, "SELECT a.id, a.login FROM logins n JOIN accounts a ON a.id = n.account_id WHERE n.login = $1",
		login).Scan(&id, &canonical)
	if err != nil {
		return nil, failed("list app passwords", noRowsIs(err, auth.ErrNoAccount))
	}
	rows, err := s.db.QueryContext(ctx, `SELECT `+appPasswordColumns+` FROM app_passwords
		WHERE account_id = $1 AND ($2 OR (revoked_at IS NULL AND NOT `+expired+`)) ORDER BY id LIMIT $3`, id, all, maxListed)
	if err != nil {
		return nil, failed("list app passwords", err)
	}
	defer rows.Close()
	var list []auth.AppPassword
	for rows.Next() {
		p, err := scanAppPassword(rows, canonical)
		if err != nil {
			return nil, failed("list app passwords", err)
		}
		list = append(list, p)
	}
	return list, failed("list app passwords", rows.Err())
}

// insertAccount adds an account that has a login and nothing else.
func insertAccount(ctx context.Context, tx *sql.Tx, login, by string) error {
	var id int64
	if err := tx.QueryRowContext(ctx, "INSERT INTO accounts (login, keyed) VALUES ($1, $2) RETURNING id", login, keyVersion).Scan(&id); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO logins (login, account_id) VALUES ($1, $2)", login, id); err != nil {
		return err
	}
	return addEvent(ctx, tx, event{kind: eventAccountAdded, actor: by, accountID: id, login: login, detail: map[string]any{"aliases": []string{}}})
}
