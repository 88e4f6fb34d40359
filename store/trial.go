package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// NoticeTargets lists whom some daemon tells of what, by name, each with the kinds that any of them wants.
func (s *Store) NoticeTargets(ctx context.Context) ([]auth.NoticeTarget, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, `SELECT target, array_agg(DISTINCT kind ORDER BY kind) FROM notice_targets, unnest(kinds) AS kind
		WHERE seen_at > now() - interval '1 day' GROUP BY target ORDER BY target`)
	if err != nil {
		return nil, failed("list notice targets", err)
	}
	defer rows.Close()
	var list []auth.NoticeTarget
	for rows.Next() {
		var t auth.NoticeTarget
		var kinds []string
		if err := rows.Scan(&t.Name, pq.Array(&kinds)); err != nil {
			return nil, failed("list notice targets", err)
		}
		for _, k := range kinds {
			t.Kinds = append(t.Kinds, auth.NoticeKind(k))
		}
		list = append(list, t)
	}
	return list, failed("list notice targets", rows.Err())
}

// testLabel is the label of the app password that a test is said to be about. There is none.
const testLabel = "test"

// TestNotice puts a notice of this kind for this target into the outbox, as if something had happened to an app password of the account. It is
// marked as a test, and so is its event in the audit log, which gives no other notice. [auth.ErrNoAccount]: nobody goes by the login.
func (s *Store) TestNotice(ctx context.Context, login, target string, kind auth.NoticeKind, by string) (auth.NoticeTest, error) {
	test := auth.NoticeTest{Kind: kind, Target: target}
	detail, err := json.Marshal(testDetail(target, kind))
	if err != nil {
		return test, err
	}
	err = s.transact(ctx, "test a notice", func(ctx context.Context, tx *sql.Tx) error {
		a, err := lockAccount(ctx, tx, login)
		if err != nil {
			return err
		}
		test.Login = a.login
		// Before all that waits: somebody looks on.
		return tx.QueryRowContext(ctx, `WITH e AS (
				INSERT INTO events (kind, actor, account_id, login, label, detail) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id)
			INSERT INTO notices (event_id, kind, target, account_id, due_at) SELECT e.id, $7, $8, $3, '-infinity' FROM e RETURNING id`,
			eventNoticeTested, by, a.id, a.login, testLabel, string(detail), string(kind), target).Scan(&test.ID)
	})
	return test, err
}

// testDetail is what an event of the kind says, with addresses of RFC 5737.
func testDetail(target string, kind auth.NoticeKind) map[string]any {
	d := map[string]any{"test": true, "target": target, "notice": kind}
	switch kind {
	case auth.NoticeCreated, auth.NoticeExpiresSoon:
		d["services"], d["networks"] = []string{"imap", "smtp"}, []string{}
		d["expires_at"] = time.Now().Add(14 * 24 * time.Hour).UTC().Truncate(time.Second)
	case auth.NoticeRevoked:
		d["why"] = "a test"
	case auth.NoticeFirstUse, auth.NoticeNewNetwork, auth.NoticeRevokedUse:
		d["service"], d["front_end"], d["address"], d["network"] = "imap", "dovecot", "192.0.2.1", "192.0.2.0/24"
	}
	return d
}

// NoticeTest says what has become of a test. [auth.ErrNoNotice]: there is none of this number, or it was done more than a day ago.
func (s *Store) NoticeTest(ctx context.Context, id int64) (auth.NoticeTest, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	test := auth.NoticeTest{ID: id}
	err := s.db.QueryRowContext(ctx, `SELECT n.kind, n.target, COALESCE(e.login, ''), COALESCE(n.outcome, ''), COALESCE(n.problem, '')
		FROM notices n JOIN events e ON e.id = n.event_id WHERE n.id = $1 AND e.kind = $2`, id, eventNoticeTested).
		Scan(&test.Kind, &test.Target, &test.Login, &test.Outcome, &test.Problem)
	return test, failed("read a notice", noRowsIs(err, auth.ErrNoNotice))
}
