package store

import (
	"context"
	"database/sql"
	"encoding/json"
)

// Kinds of events in the audit log.
const (
	eventAccountAdded       = "account.added"
	eventAccountEnabled     = "account.enabled"
	eventAccountDisabled    = "account.disabled"
	eventAccountDeleted     = "account.deleted"
	eventAccountChanged     = "account.changed"
	eventGroupAdded         = "group.added"
	eventGroupChanged       = "group.changed"
	eventGroupDeleted       = "group.deleted"
	eventMemberAdded        = "group.member_added"
	eventMemberRemoved      = "group.member_removed"
	eventAppPasswordCreated = "app_password.created"
	eventAppPasswordRenamed = "app_password.renamed"
	eventAppPasswordChanged = "app_password.changed"
	eventAppPasswordRotated = "app_password.rotated"
	eventAppPasswordRevoked = "app_password.revoked"
	eventExempted           = "app_password.exempted"
	eventExemptionEnded     = "app_password.exemption_ended"
	eventLoginRejected      = "login.rejected" // of a login whose password matched

	eventNoticeTested = "notice.tested"

	eventAppPasswordFirstUsed   = "app_password.first_used"
	eventAppPasswordNewNetwork  = "app_password.new_network"  // written only while somebody wants to be told
	eventAppPasswordExpiresSoon = "app_password.expires_soon" // the same
)

// EventKinds are the kinds of entries that this version writes; the database may have others, of newer ones.
func EventKinds() []string {
	return []string{eventAccountAdded, eventAccountChanged, eventAccountDeleted, eventAccountDisabled, eventAccountEnabled,
		eventAppPasswordChanged, eventAppPasswordCreated, eventExemptionEnded, eventExempted, eventAppPasswordExpiresSoon, eventAppPasswordFirstUsed,
		eventAppPasswordNewNetwork, eventAppPasswordRenamed, eventAppPasswordRevoked, eventAppPasswordRotated,
		eventGroupAdded, eventGroupChanged, eventGroupDeleted, eventMemberAdded, eventMemberRemoved, eventLoginRejected,
		eventNoticeTested}
}

// event is one entry of the audit log. It is written in the transaction of what it tells of.
type event struct {
	kind          string
	actor         string
	accountID     int64  // 0: none
	login         string // canonical, as it was then; empty: none
	appPasswordID int64  // 0: none
	label         string // empty: none
	detail        map[string]any
}

func addEvent(ctx context.Context, tx *sql.Tx, e event) error {
	detail := []byte("{}")
	if len(e.detail) > 0 {
		var err error
		if detail, err = json.Marshal(e.detail); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO events (kind, actor, account_id, login, app_password_id, label, detail)
		VALUES ($1, $2, NULLIF($3, 0::bigint), NULLIF($4, ''), NULLIF($5, 0::bigint), NULLIF($6, ''), $7)`,
		e.kind, e.actor, e.accountID, e.login, e.appPasswordID, e.label, string(detail))
	return err
}
