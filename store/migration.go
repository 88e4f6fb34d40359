package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

const (
	// schemaTarget is the version of the newest file in migrations.
	schemaTarget = 12

	versionTable = "valetkey_migrations"

	// migrationLockID is the advisory lock that one migrating process holds: "valetkey" in ASCII.
	migrationLockID int64 = 0x76616c65746b6579

	migrationExchange = 10 * time.Minute // building an index may take long; keepalive finds a dead link
	migrationTries    = 10
	migrationPause    = time.Second
)

// migrationSettings: a migration that waits for a lock makes everybody behind it wait too, logins included. So it gives
// up soon and is tried again (U1 of the test plan).
var migrationSettings = map[string]string{
	"lock_timeout":        "2s",
	"statement_timeout":   "0",
	"client_min_messages": "warning",
}

// Migrate brings the schema up to the version of this program. Processes that do so at once wait for each other. A newer
// schema is left as it is and no error: a newer program serves beside this one, and migrations only add.
func (s *Store) Migrate(ctx context.Context) error {
	c, err := connector(s.cfg, migrationExchange, migrationSettings)
	if err != nil {
		return failed("migrate the database", err)
	}
	db := sql.OpenDB(c)
	defer db.Close()
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(0) // a file that failed half-way has left its settings in its connection

	for try := 1; ; try++ {
		version, err := schemaVersion(ctx, db)
		if err == nil {
			if version > schemaTarget {
				s.log.Warn("the database has a newer schema than this program knows; serving with it as it is",
					"schema", version, "known", schemaTarget)
				return nil
			}
			if version < schemaTarget {
				err = s.migrate(ctx, db)
			}
			if err == nil {
				s.keyMissing()
				return nil
			}
		}
		if try == migrationTries || pq.As(err, pqerror.LockNotAvailable) == nil && !isConflict(err) {
			return failed("migrate the database", err)
		}
		s.log.Warn("migration could not have a lock in the database, trying again", "try", try)
		select {
		case <-time.After(migrationPause):
		case <-ctx.Done():
			return failed("migrate the database", ctx.Err())
		}
	}
}

func (s *Store) migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLockID), lock.WithLockTimeout(1, 300))
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versionTable),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		s.log.Info("migrated the database", "schema", r.Source.Version, "took", r.Duration.Round(time.Millisecond))
	}
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		return fmt.Errorf("to schema %d: %w", partial.Failed.Source.Version, partial.Err)
	}
	return err
}

// schemaVersion reads the version of the schema, 0 if there is none. It takes no lock and creates nothing.
func schemaVersion(ctx context.Context, db *sql.DB) (int64, error) {
	var there bool
	if err := db.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", versionTable).Scan(&there); err != nil || !there {
		return 0, err
	}
	var v int64
	err := db.QueryRowContext(ctx, "SELECT COALESCE(max(version_id), 0) FROM "+versionTable+" WHERE is_applied").Scan(&v)
	return v, err
}
