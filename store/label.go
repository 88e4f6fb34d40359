package store

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// byLabel reads the app password of a locked account that this key means: the one that holds the label, or else the newest that had
// it. [auth.ErrNoLabel]: none ever had.
func byLabel(ctx context.Context, tx *sql.Tx, a lockedAccount, key string) (auth.AppPassword, error) {
	p, err := scanAppPassword(tx.QueryRowContext(ctx, "SELECT "+appPasswordColumns+` FROM app_passwords
		WHERE account_id = $1 AND label_key = $2 ORDER BY holds_label DESC, id DESC LIMIT 1`, a.id, key), a.login)
	return p, noRowsIs(err, auth.ErrNoLabel)
}

func byID(ctx context.Context, tx *sql.Tx, id int64, login string) (auth.AppPassword, error) {
	return scanAppPassword(tx.QueryRowContext(ctx, "SELECT "+appPasswordColumns+" FROM app_passwords WHERE id = $1", id), login)
}

// AppPassword returns the app password with this label key: the one that holds the label, or else the newest that had it. old is the
// row with its old secret, if it was rotated and the new one has not been used. [auth.ErrNoLabel]: none ever had the label.
func (s *Store) AppPassword(ctx context.Context, login, key string) (p auth.AppPassword, old *auth.AppPassword, err error) {
	err = s.transact(ctx, "read app password", func(ctx context.Context, tx *sql.Tx) error {
		old = nil
		if _, err := tx.ExecContext(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
			return err
		}
		var a lockedAccount // for reading, no lock is needed
		err := tx.QueryRowContext(ctx, "SELECT a.id, a.login FROM logins n JOIN accounts a ON a.id = n.account_id WHERE n.login = $1",
			login).Scan(&a.id, &a.login)
		if err != nil {
			return noRowsIs(err, auth.ErrNoAccount)
		}
		if p, err = byLabel(ctx, tx, a, key); err != nil || p.Replaces == 0 {
			return err
		}
		o, err := byID(ctx, tx, p.Replaces, a.login)
		if err == nil && o.Live() {
			old = &o
		}
		return noRowsIs(err, nil) // as an old tombstone it may be gone
	})
	return p, old, err
}

// ChangeAppPassword changes the app password with this label key, all or nothing, and returns what it is now. What is already so is
// not an error and leaves no event. One that has expired lives again if the change gives it more time, as long as its label is free and
// the account may have one more.
//
// An old secret beside it has the new label, services, networks and time of disuse too, and an end that is no later than the new one's.
//
// Errors that a caller branches on: [auth.ErrNoLabel]; [auth.ErrRevoked]; [auth.ErrLabelTaken]; [auth.ErrLimit]; [auth.ErrLastScope], which keeps
// a removal from opening everything; [auth.ErrNoScope]; [auth.ErrScopes].
func (s *Store) ChangeAppPassword(ctx context.Context, login, key string, c auth.AppPasswordChange, by string) (auth.AppPassword, error) {
	var now auth.AppPassword
	err := s.transact(ctx, "change app password", func(ctx context.Context, tx *sql.Tx) error {
		if err := commitEverywhere(ctx, tx); err != nil { // it may take something away
			return err
		}
		a, err := lockAccount(ctx, tx, login)
		if err != nil {
			return err
		}
		old, err := byLabel(ctx, tx, a, key)
		if err != nil {
			return err
		}
		if !old.RevokedAt.IsZero() {
			return auth.ErrRevoked
		}
		if err := changeLabel(ctx, tx, a, old, c, by); err != nil {
			return err
		}
		if err := changeScope(ctx, tx, a, old, c, by); err != nil {
			return err
		}
		if now, err = byID(ctx, tx, old.ID, a.login); err != nil || !old.Expired || now.Expired {
			return err
		}
		// It has come back to life. A label that was given away meanwhile breaks the unique index, which says so.
		var live int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM app_passwords WHERE account_id = $1 AND id <> $2 AND "+counted,
			a.id, old.ID).Scan(&live); err != nil {
			return err
		}
		if live >= a.mayHave(c.LimitPerAccount) {
			return auth.ErrLimit
		}
		_, err = tx.ExecContext(ctx, "UPDATE app_passwords SET holds_label = true WHERE id = $1 AND replaced_at IS NULL", old.ID)
		return err
	})
	if err != nil {
		return auth.AppPassword{}, err
	}
	return now, nil
}

// changeLabel gives a new label to the row and to the one with its old secret. A label that differs only in case is allowed.
func changeLabel(ctx context.Context, tx *sql.Tx, a lockedAccount, p auth.AppPassword, c auth.AppPasswordChange, by string) error {
	if c.Label == "" || c.Label == p.Label {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `UPDATE app_passwords SET holds_label = false
		WHERE account_id = $1 AND holds_label AND label_key = $2 AND id <> $3 AND `+expired, a.id, c.LabelKey, p.ID); err != nil {
		return err
	}
	// A label that is still taken breaks the unique index, which says so.
	if _, err := tx.ExecContext(ctx, "UPDATE app_passwords SET label = $4, label_key = $5 WHERE account_id = $1 AND id IN ($2, $3)",
		a.id, p.ID, p.Replaces, c.Label, c.LabelKey); err != nil {
		return err
	}
	return addEvent(ctx, tx, event{kind: eventAppPasswordRenamed, actor: by, accountID: a.id, login: a.login,
		appPasswordID: p.ID, label: c.Label, detail: map[string]any{"from": p.Label}})
}

// changeScope changes what the row opens and for how long.
func changeScope(ctx context.Context, tx *sql.Tx, a lockedAccount, p auth.AppPassword, c auth.AppPasswordChange, by string) error {
	detail := map[string]any{}
	services, err := changedList(p.Services, c.Services, c.AddServices, c.RemoveServices, auth.MaxServices)
	if err != nil {
		return err
	}
	if !slices.Equal(services, p.Services) {
		detail["services"] = services
	}
	networks, err := changedList(p.Networks, c.Networks, c.AddNetworks, c.RemoveNetworks, auth.MaxNetworks)
	if err != nil {
		return err
	}
	texts := networkTexts(networks)
	if !slices.Equal(networks, p.Networks) {
		detail["networks"] = texts
	}
	expires := p.ExpiresAt
	if c.ExpiresAt != nil && !c.ExpiresAt.Equal(expires) {
		expires = *c.ExpiresAt
		detail["expires_at"] = nil // never, from now on
		if !expires.IsZero() {
			detail["expires_at"] = expires
		}
	}
	unused := p.ExpiresUnusedFor
	if c.ExpiresUnusedFor != nil && *c.ExpiresUnusedFor != unused {
		unused = *c.ExpiresUnusedFor
		detail["expires_unused_for"] = nil
		if unused > 0 {
			detail["expires_unused_for"] = unused.String()
		}
	}
	if len(detail) == 0 {
		return nil
	}
	// LEAST ignores NULL.
	if _, err := tx.ExecContext(ctx, `UPDATE app_passwords SET services = $4, networks = $5::cidr[], expires_unused_for = make_interval(secs => $7),
			expires_at = CASE WHEN id = $2 THEN $6 ELSE LEAST(expires_at, $6) END
		WHERE account_id = $1 AND id IN ($2, $3)`, a.id, p.ID, p.Replaces, pq.Array(services), pq.Array(texts),
		timeArg(expires), sql.NullFloat64{Float64: unused.Seconds(), Valid: unused != 0}); err != nil {
		return err
	}
	return addEvent(ctx, tx, event{kind: eventAppPasswordChanged, actor: by, accountID: a.id, login: a.login,
		appPasswordID: p.ID, label: p.Label, detail: detail})
}

// changedList is what a list of services or networks is after a change. An empty list is no limit at all, which therefore only
// whole, as an empty one, may ask for.
func changedList[T comparable](old []T, whole *[]T, add, remove []T, most int) ([]T, error) {
	list := append([]T{}, old...)
	if whole != nil {
		list = append([]T{}, *whole...)
	}
	if len(add) > 0 && len(list) == 0 {
		return nil, auth.ErrNoScope
	}
	for _, x := range add {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	had := len(list) > 0
	list = slices.DeleteFunc(list, func(x T) bool { return slices.Contains(remove, x) })
	switch {
	case had && len(list) == 0:
		return nil, auth.ErrLastScope
	case len(list) > most:
		return nil, auth.ErrScopes
	}
	return list, nil
}

// networkTexts are networks as the type cidr takes them, which refuses host bits.
func networkTexts(networks []netip.Prefix) []string {
	texts := make([]string, len(networks))
	for i, p := range networks {
		texts[i] = p.Masked().String()
	}
	return texts
}

// RotateAppPassword gives the app password with this label key a new secret: a new row takes over the label and everything else, and
// the row with the old secret stays good until the first use of the new one, or until r.KeepOldUntil. A zero time ends it at once. Rotating again
// before the new secret was used takes that one back, and the older one stays the old one.
//
// Errors that a caller branches on: [auth.ErrNoLabel]; [auth.ErrRevoked]; [auth.ErrExpired]; [auth.ErrNotMade]; [auth.ErrTagTaken], after which
// another secret has to be generated.
func (s *Store) RotateAppPassword(ctx context.Context, login, key string, r auth.Rotation) (now auth.AppPassword, old *auth.AppPassword, err error) {
	err = s.transact(ctx, "rotate app password", func(ctx context.Context, tx *sql.Tx) error {
		old = nil
		if err := commitEverywhere(ctx, tx); err != nil { // it may end something
			return err
		}
		a, err := lockAccount(ctx, tx, login)
		if err != nil {
			return err
		}
		p, err := byLabel(ctx, tx, a, key)
		switch {
		case err != nil:
			return err
		case !p.RevokedAt.IsZero():
			return auth.ErrRevoked
		case p.Expired:
			return auth.ErrExpired
		case r.Own && (p.CreatedBy != r.By || p.Origin != auth.Generated || !p.ExemptAt.IsZero()):
			return auth.ErrNotMade
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO peppers (id) VALUES ($1) ON CONFLICT DO NOTHING", r.Tag.PepperID); err != nil {
			return err
		}
		if err := dropOldTombstones(ctx, tx, a.id); err != nil {
			return err
		}
		before := p.ID // whose secret is to stay good
		if p.Replaces != 0 && p.LastUsed == nil {
			if o, err := byID(ctx, tx, p.Replaces, a.login); err == nil && o.Live() {
				before = o.ID
			} else if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		// First, since the label is held by one.
		if _, err := tx.ExecContext(ctx, `UPDATE app_passwords SET holds_label = false, replaced_at = now(), replaces = NULL,
				expires_at = CASE WHEN id = $2 THEN LEAST(expires_at, $3) ELSE expires_at END WHERE id IN ($1, $2)`,
			p.ID, before, timeArg(r.KeepOldUntil)); err != nil {
			return err
		}
		if before != p.ID {
			if _, err := revokeRows(ctx, tx, a, r.By, "rotated again before it was used", "account_id = $3 AND id = $4", a.id, p.ID); err != nil {
				return err
			}
		}
		if r.KeepOldUntil.IsZero() {
			if _, err := revokeRows(ctx, tx, a, r.By, "rotated", "account_id = $3 AND id = $4", a.id, before); err != nil {
				return err
			}
		}
		// A tag that is taken breaks the unique index, which says so.
		now, err = scanAppPassword(tx.QueryRowContext(ctx, `INSERT INTO app_passwords (account_id, label, label_key, services, networks, phc, pepper_id, tag,
				origin, created_by, expires_at, expires_unused_for, exempt_at, exempt_by, exempt_why, replaces)
			SELECT account_id, label, label_key, services, networks, $2, $3, $4, $5, $6, $7, expires_unused_for, exempt_at, exempt_by, exempt_why, $8
			FROM app_passwords WHERE id = $1 RETURNING `+appPasswordColumns,
			p.ID, r.PHC, r.Tag.PepperID, int32(r.Tag.Value), string(auth.Generated), r.By, timeArg(p.ExpiresAt),
			sql.NullInt64{Int64: before, Valid: !r.KeepOldUntil.IsZero()}), a.login)
		if err != nil {
			return err
		}
		detail := map[string]any{"replaces": before}
		if !r.KeepOldUntil.IsZero() {
			o, err := byID(ctx, tx, before, a.login)
			if err != nil {
				return err
			}
			old = &o
			detail["old_until"] = o.ExpiresAt
		}
		return addEvent(ctx, tx, event{kind: eventAppPasswordRotated, actor: r.By, accountID: a.id, login: a.login,
			appPasswordID: now.ID, label: now.Label, detail: detail})
	})
	if err != nil {
		return auth.AppPassword{}, nil, err
	}
	return now, old, nil
}

// RevokeAppPassword ends the app password with this label key and returns it; an old secret beside it ends too. When it returns, the
// next login anywhere is refused; with synchronous standbys this holds across a failover too. If the label is not held by any, the newest
// that had it counts: revoking one that is already revoked is not an error and changes nothing. [auth.ErrNoLabel]: none
// ever had the label.
func (s *Store) RevokeAppPassword(ctx context.Context, login, key, why, by string) (auth.AppPassword, error) {
	var out auth.AppPassword
	err := s.transact(ctx, "revoke app password", func(ctx context.Context, tx *sql.Tx) error {
		if err := commitEverywhere(ctx, tx); err != nil {
			return err
		}
		a, err := lockAccount(ctx, tx, login)
		if err != nil {
			return err
		}
		if out, err = byLabel(ctx, tx, a, key); err != nil {
			return err
		}
		if _, err := revokeRows(ctx, tx, a, by, why, "account_id = $3 AND id IN ($4, $5)", a.id, out.ID, out.Replaces); err != nil {
			return err
		}
		out, err = byID(ctx, tx, out.ID, a.login)
		return err
	})
	if err != nil {
		return auth.AppPassword{}, err
	}
	return out, nil
}

// revokeRows revokes the rows of a locked account for which the condition holds and which are not revoked, with an event for each. The condition's arguments
// begin at $3. It returns their number.
func revokeRows(ctx context.Context, tx *sql.Tx, a lockedAccount, by, why, condition string, args ...any) (int, error) {
	rows, err := tx.QueryContext(ctx, `UPDATE app_passwords SET revoked_at = now(), revoked_by = $1, revoked_why = $2, holds_label = false
		WHERE revoked_at IS NULL AND `+condition+" RETURNING id, label", append([]any{by, why}, args...)...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var list []event
	for rows.Next() {
		e := event{kind: eventAppPasswordRevoked, actor: by, accountID: a.id, login: a.login, detail: map[string]any{"why": why}}
		if err := rows.Scan(&e.appPasswordID, &e.label); err != nil {
			return 0, err
		}
		list = append(list, e)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, e := range list {
		if err := addEvent(ctx, tx, e); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// timeArg is a time, or NULL for the zero one.
func timeArg(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }
