package store

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/valetkey/valetkey/internal/auth"
)

// constraintErrors are the constraints whose violation a caller can do something about.
var constraintErrors = map[string]error{
	"logins_pkey":                  auth.ErrLoginTaken,
	"accounts_login_key":           auth.ErrLoginTaken,
	"groups_name_key":              auth.ErrGroupTaken,
	"app_passwords_label_held_key": auth.ErrLabelTaken,
	"app_passwords_tag_held_key":   auth.ErrTagTaken,
}

// failed says what failed. The sentinels of package auth are returned as they are; what Postgres says is reduced to what
// cannot quote a stored value, since values include hashes.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	for _, sentinel := range []error{auth.ErrNoAccount, auth.ErrLoginTaken, auth.ErrNoLabel, auth.ErrLabelTaken,
		auth.ErrTagTaken, auth.ErrLimit, auth.ErrRevoked, auth.ErrExpired, auth.ErrLastScope, auth.ErrNoScope, auth.ErrScopes, auth.ErrBadCursor, auth.ErrNoGroup, auth.ErrGroupTaken, auth.ErrGroupLimit, auth.ErrNotPerson, auth.ErrNoNotice,
		auth.ErrShuttingDown, auth.ErrOverloaded} {
		if errors.Is(err, sentinel) {
			return sentinel
		}
	}
	e, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	if sentinel := constraintErrors[e.Constraint]; sentinel != nil {
		return sentinel
	}
	switch e.Code.Class() {
	case "23":
		return fmt.Errorf("%s: the value breaks the rule %q of the database (SQLSTATE %s)", what, e.Constraint, e.Code)
	case "22":
		return fmt.Errorf("%s: a value is not acceptable to the database (SQLSTATE %s)", what, e.Code)
	}
	return fmt.Errorf("%s: %w", what, e) // its text is the message alone, without detail, hint or statement
}

// isConflict reports that a transaction lost against another one and may be tried again.
func isConflict(err error) bool {
	return pq.As(err, pqerror.TRDeadlockDetected, pqerror.TRSerializationFailure) != nil
}

// noRowsIs turns the absence of a row into what it means.
func noRowsIs(err, meaning error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return meaning
	}
	return err
}
