package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// ExemptAppPassword notes that no second factor is asked for when the app password that holds the label with this key is used, or, with
// an empty why, that it is asked for again. Whoever is exempt for the same reason already, or was not exempt, stays as he is, without an
// event, so that an interrupted command can be run again. [auth.ErrNoLabel]: no live app password has the label.
func (s *Store) ExemptAppPassword(ctx context.Context, login, key, why, by string) (auth.AppPassword, error) {
	var out auth.AppPassword
	err := s.transact(ctx, "exempt app password", func(ctx context.Context, tx *sql.Tx) error {
		if why == "" { // ending an exemption takes something away, as revoking does
			if err := commitEverywhere(ctx, tx); err != nil {
				return err
			}
		}
		a, err := lockAccount(ctx, tx, login)
		if err != nil {
			return err
		}
		out, err = scanAppPassword(tx.QueryRowContext(ctx, "SELECT "+appPasswordColumns+` FROM app_passwords
			WHERE account_id = $1 AND label_key = $2 AND holds_label AND revoked_at IS NULL AND NOT `+expired, a.id, key), a.login)
		if err != nil {
			return noRowsIs(err, auth.ErrNoLabel)
		}
		if out.ExemptWhy == why {
			return nil
		}
		before := out
		out, err = scanAppPassword(tx.QueryRowContext(ctx, `UPDATE app_passwords
			SET exempt_at = CASE WHEN $2::text IS NOT NULL THEN now() END, exempt_by = CASE WHEN $2::text IS NOT NULL THEN $3::text END, exempt_why = $2
			WHERE id = $1 RETURNING `+appPasswordColumns, out.ID, sql.NullString{String: why, Valid: why != ""}, by), a.login)
		if err != nil {
			return err
		}
		e := event{kind: eventExempted, actor: by, accountID: a.id, login: a.login, appPasswordID: out.ID, label: out.Label,
			detail: map[string]any{"why": why}}
		if why == "" {
			e.kind, e.detail = eventExemptionEnded, map[string]any{
				"since": before.ExemptAt.UTC().Format(time.RFC3339), "by": before.ExemptBy, "why": before.ExemptWhy,
			}
		}
		return addEvent(ctx, tx, e)
	})
	if err != nil {
		return auth.AppPassword{}, err
	}
	return out, nil
}
