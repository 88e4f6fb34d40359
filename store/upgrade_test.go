package store_test

import (
	"testing"

	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

// An older program serves while the schema is brought up to date. A transaction of it may hold what the migration wants, and want what that
// holds: then the database ends one of the two, and if that is the migration it is tried again.
func TestMigrateDeadlock(t *testing.T) {
	s, url := storetest.New(t)
	db, ctx := storetest.DB(t, url), t.Context()
	addAccount(t, s, "alice")
	for _, back := range []string{ // to schema 5
		"DROP TRIGGER events_give_notice ON events", "DROP FUNCTION events_give_notice()",
		"DROP TABLE notices, notice_targets, app_password_networks, attempts",
		"DROP INDEX events_login_idx, events_kind_idx",
		"ALTER TABLE app_passwords DROP COLUMN expiry_told_for, DROP COLUMN import_key, DROP COLUMN upgraded_at",
		"DELETE FROM " + store.VersionTable + " WHERE version_id > 5",
	} {
		if _, err := db.ExecContext(ctx, back); err != nil {
			t.Fatalf("%s: %v", back, err)
		}
	}
	older, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer older.Rollback()
	if _, err := older.ExecContext(ctx, "INSERT INTO events (kind, actor) VALUES ('account.added', 'older')"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Migrate(ctx) }()
	eventually(t, "the migration waits for the table of events", func() bool {
		var waits bool
		if err := db.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted)").Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	var n int
	served := older.QueryRowContext(ctx, "SELECT count(*) FROM app_passwords").Scan(&n)
	if served == nil {
		served = older.Commit()
	} else {
		older.Rollback()
	}
	if err := <-done; err != nil {
		t.Errorf("Migrate after a dead-lock = %v, want nil", err)
	}
	if st, err := s.Status(ctx); err != nil || st.Schema != store.SchemaTarget {
		t.Errorf("Status = %+v, %v (the older program: %v)", st, err, served)
	}
}
