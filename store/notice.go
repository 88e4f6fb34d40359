package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// noticeKeep is how long done notices are kept: the limits count them. noticePurge is how many are deleted at a time.
const (
	noticeKeep  = 24 * time.Hour
	noticePurge = 5000
)

// SetNoticeTargets says whom this daemon tells of what, until it says otherwise or has been silent for a day. Events that any daemon
// writes from now on become notices for these targets.
func (s *Store) SetNoticeTargets(ctx context.Context, daemon string, targets []auth.NoticeTarget) error {
	names, networks := []string{}, false
	err := s.transact(ctx, "register for notices", func(ctx context.Context, tx *sql.Tx) error {
		names = names[:0]
		for _, t := range targets {
			kinds := make([]string, len(t.Kinds))
			for i, k := range t.Kinds {
				kinds[i] = string(k)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO notice_targets (daemon, target, kinds) VALUES ($1, $2, $3)
				ON CONFLICT (daemon, target) DO UPDATE SET kinds = excluded.kinds, seen_at = now()`, daemon, t.Name, pq.Array(kinds)); err != nil {
				return err
			}
			names = append(names, t.Name)
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM notice_targets WHERE daemon = $1 AND target <> ALL ($2) OR seen_at < now() - interval '2 days'",
			daemon, pq.Array(names)); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM notice_targets WHERE $1 = ANY (kinds) AND seen_at > now() - interval '1 day')",
			string(auth.NoticeNewNetwork)).Scan(&networks)
	})
	if err == nil {
		s.recorder.networks.Store(networks)
	}
	return err
}

// Those of a target that are due, oldest first. SKIP LOCKED: what another daemon takes at this moment is not ours. tries is the lease's
// number: whoever lost the lease has an old one.
const takeNoticesSQL = `
WITH due AS (
	SELECT x.id FROM unnest($1::text[], $2::integer[]) AS w (target, free) CROSS JOIN LATERAL (
		SELECT n.id FROM notices n WHERE n.target = w.target AND n.done_at IS NULL AND n.due_at <= now()
		ORDER BY n.due_at LIMIT w.free FOR UPDATE SKIP LOCKED) x
), taken AS (
	UPDATE notices n SET tries = n.tries + 1, due_at = now() + make_interval(secs => $3) FROM due WHERE n.id = due.id
	RETURNING n.id, n.target, n.kind, n.tries, n.created_at, n.event_id, n.account_id, n.app_password_id
)
SELECT t.id, t.target, t.kind, t.tries, t.created_at, t.account_id, t.app_password_id, e.id, e.at, e.actor, e.login, e.label, e.detail,
	a.login, a.uuid, a.display_name, a.enabled, a.kind, a.attributes, a.userdb
FROM taken t LEFT JOIN events e ON e.id = t.event_id LEFT JOIN accounts a ON a.id = t.account_id ORDER BY t.id`

// TakeNotices leases notices that are due to the caller, who must finish or postpone each before the lease ends; then somebody
// else takes it.
func (s *Store) TakeNotices(ctx context.Context, slots []auth.NoticeSlots, lease time.Duration) ([]auth.Notice, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var targets []string
	var free []int64
	for _, x := range slots {
		targets, free = append(targets, x.Target), append(free, int64(x.Free))
	}
	rows, err := s.db.QueryContext(ctx, takeNoticesSQL, pq.Array(targets), pq.Array(free), lease.Seconds())
	if err != nil {
		return nil, failed("take notices", err)
	}
	defer rows.Close()
	var list []auth.Notice
	for rows.Next() {
		n, err := scanNotice(rows)
		if err != nil {
			return nil, failed("take notices", err)
		}
		list = append(list, n)
	}
	return list, failed("take notices", rows.Err())
}

func scanNotice(row interface{ Scan(...any) error }) (auth.Notice, error) {
	var n auth.Notice
	var accountID, appPasswordID, eventID sql.NullInt64
	var at sql.NullTime
	var actor, login, label, canonical, uuid, name, kind sql.NullString
	var enabled sql.NullBool
	var detail, attributes, userdb []byte
	if err := row.Scan(&n.ID, &n.Target, &n.Kind, &n.Tries, &n.CreatedAt, &accountID, &appPasswordID, &eventID, &at, &actor, &login, &label, &detail,
		&canonical, &uuid, &name, &enabled, &kind, &attributes, &userdb); err != nil {
		return n, err
	}
	n.AccountID, n.AppPasswordID, n.EventID, n.At = accountID.Int64, appPasswordID.Int64, eventID.Int64, at.Time
	n.Actor, n.Login, n.Label = actor.String, login.String, label.String
	if detail != nil {
		if err := json.Unmarshal(detail, &n.Detail); err != nil {
			return n, err
		}
	}
	if !canonical.Valid {
		return n, nil
	}
	n.Account = &auth.Account{ID: n.AccountID, UUID: uuid.String, Login: canonical.String, DisplayName: name.String, Enabled: enabled.Bool}
	if kind.String == "reader" {
		n.Account.Kind = auth.Reader
	}
	if err := json.Unmarshal(attributes, &n.Account.Attributes); err != nil {
		return n, err
	}
	return n, json.Unmarshal(userdb, &n.Account.Userdb)
}

// FinishNotice ends a notice with an outcome: "sent", or why it was not. [auth.ErrLeaseLost] means that the lease ended before.
func (s *Store) FinishNotice(ctx context.Context, n auth.Notice, outcome string) error {
	return s.changeNotice(ctx, "finish a notice", "UPDATE notices SET done_at = now(), outcome = $3, problem = NULLIF($4, '') WHERE id = $1 AND tries = $2 AND done_at IS NULL",
		n.ID, n.Tries, outcome, auth.Clip(n.Problem, auth.MaxNoticeProblem))
}

// PostponeNotice gives a notice back, to be taken again after a while. counted tells whether this was a try.
func (s *Store) PostponeNotice(ctx context.Context, n auth.Notice, wait time.Duration, counted bool) error {
	return s.changeNotice(ctx, "postpone a notice", `UPDATE notices SET due_at = now() + make_interval(secs => $3), tries = tries - CASE WHEN $4 THEN 0 ELSE 1 END,
		problem = COALESCE(NULLIF($5, ''), problem) WHERE id = $1 AND tries = $2 AND done_at IS NULL`,
		n.ID, n.Tries, wait.Seconds(), counted, auth.Clip(n.Problem, auth.MaxNoticeProblem))
}

func (s *Store) changeNotice(ctx context.Context, what, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	result, err := s.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return failed(what, err)
	}
	if changed, err := result.RowsAffected(); err != nil || changed == 0 {
		return auth.ErrLeaseLost
	}
	return nil
}

// SentNotices counts what was sent to the target in the last hour: about the account, and in all. same tells whether the app
// password was the matter of one of the same kind in the last 24 hours.
func (s *Store) SentNotices(ctx context.Context, n auth.Notice) (account, all int, same bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	err = s.db.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM notices WHERE account_id = $1 AND target = $2 AND outcome = 'sent' AND done_at > now() - interval '1 hour'),
		(SELECT count(*) FROM notices WHERE target = $2 AND outcome = 'sent' AND done_at > now() - interval '1 hour'),
		EXISTS (SELECT FROM notices WHERE account_id = $1 AND target = $2 AND outcome = 'sent' AND done_at > now() - interval '1 day'
			AND kind = $3 AND app_password_id = $4)`,
		n.AccountID, n.Target, string(n.Kind), n.AppPasswordID).Scan(&account, &all, &same)
	return account, all, same, failed("count notices", err)
}

// TellExpiries writes an event for each live app password that ends within this time and of whose end nobody was told yet, once
// for all daemons. One whose whole life is shorter gives no cause: its owner was told of the end when it was made. So it is with what is left
// to an old secret after a rotation.
func (s *Store) TellExpiries(ctx context.Context, within time.Duration) (told int, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	err = s.db.QueryRowContext(ctx, `
WITH due AS (
	SELECT id FROM app_passwords
	WHERE revoked_at IS NULL AND expires_at IS NOT NULL AND expiry_told_for IS DISTINCT FROM expires_at
		AND expires_at > now() AND expires_at <= now() + make_interval(secs => $1)
	ORDER BY expires_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED
), told AS (
	UPDATE app_passwords p SET expiry_told_for = p.expires_at FROM due WHERE p.id = due.id
	RETURNING p.id, p.account_id, p.label, p.expires_at, COALESCE(p.replaced_at, p.created_at) AS since
), written AS (
	INSERT INTO events (kind, actor, account_id, login, app_password_id, label, detail)
	SELECT $2, '', a.id, a.login, t.id, t.label, jsonb_build_object('expires_at', t.expires_at)
	FROM told t JOIN accounts a ON a.id = t.account_id WHERE t.expires_at - t.since > make_interval(secs => $1)
)
SELECT count(*) FROM told`, within.Seconds(), eventAppPasswordExpiresSoon).Scan(&told)
	return told, failed("look for app passwords that end soon", err)
}

// PurgeNotices ends what nobody has told for so long, and deletes what was done a day ago.
func (s *Store) PurgeNotices(ctx context.Context, maxAge time.Duration) (tooOld int, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	err = s.db.QueryRowContext(ctx, `
WITH late AS (
	UPDATE notices SET done_at = now(), outcome = 'too_old' WHERE id IN (
		SELECT id FROM notices WHERE done_at IS NULL AND created_at < now() - make_interval(secs => $1) AND due_at <= now()
		ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED)
	RETURNING id
), gone AS (
	DELETE FROM notices WHERE id IN (
		SELECT id FROM notices WHERE done_at < now() - make_interval(secs => $2) ORDER BY done_at LIMIT $3 FOR UPDATE SKIP LOCKED)
)
SELECT count(*) FROM late`, maxAge.Seconds(), noticeKeep.Seconds(), noticePurge).Scan(&tooOld)
	return tooOld, failed("clean up notices", err)
}

// NoticeQueue describes the outbox.
func (s *Store) NoticeQueue(ctx context.Context) (auth.NoticeQueue, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	q := auth.NoticeQueue{Outcomes: map[string]int{}}
	var oldest sql.NullTime
	var outcomes []byte
	err := s.db.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM (SELECT FROM notices WHERE done_at IS NULL LIMIT 10000) w),
		(SELECT created_at FROM notices WHERE done_at IS NULL ORDER BY created_at LIMIT 1),
		ARRAY(SELECT DISTINCT target FROM notice_targets WHERE seen_at > now() - interval '1 day' ORDER BY 1),
		(SELECT COALESCE(jsonb_object_agg(outcome, n), '{}') FROM (
			SELECT outcome, count(*) AS n FROM notices WHERE done_at > now() - interval '1 day' GROUP BY outcome) o)`).
		Scan(&q.Waiting, &oldest, pq.Array(&q.Targets), &outcomes)
	if err != nil {
		return q, failed("read the state of the notices", err)
	}
	q.Oldest = oldest.Time
	return q, json.Unmarshal(outcomes, &q.Outcomes)
}
