// Package storetest gives tests a real Postgres: one private cluster for the test binary, one database for each test.
//
// It refuses to know what is tested. The one rule a newcomer would break: a package whose tests call [New] must have a
// TestMain that calls [Main], which stops the cluster at the end.
package storetest

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/lib/pq" // the driver "postgres"

	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/cluster"
)

const template = "valetkey_template"

var (
	running  atomic.Bool // Main was called
	mu       sync.Mutex
	current  *cluster.Cluster
	startErr error
	number   int
)

// Main runs the tests and exits. The cluster is started by the first test that asks for a database.
func Main(m *testing.M) {
	running.Store(true)
	dir, err := os.MkdirTemp("/tmp", "vk") // short, because the path of a Unix socket is
	if err == nil {
		err = os.Chmod(dir, 0o711) // if the tests run as root, Postgres runs as another user
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storetest:", err)
		os.Exit(1)
	}
	clusterDir = filepath.Join(dir, "pg")
	code := m.Run()
	if current != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := current.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "storetest:", err)
		}
		cancel()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var clusterDir string

// Cluster returns the cluster that all tests of the binary share. Whoever kills or freezes it must not run in parallel
// with others.
func Cluster(t testing.TB) *cluster.Cluster {
	t.Helper()
	if !running.Load() {
		t.Fatal("storetest: the package's TestMain does not call storetest.Main")
	}
	mu.Lock()
	defer mu.Unlock()
	if current == nil && startErr == nil {
		current, startErr = cluster.Start(context.Background(), cluster.Config{Dir: clusterDir, Log: slog.New(slog.DiscardHandler)})
		if startErr == nil {
			startErr = makeTemplate(context.Background())
		}
	}
	if startErr != nil {
		t.Fatalf("storetest: %v", startErr)
	}
	return current
}

// makeTemplate migrates the database that the tests' databases are copied from.
func makeTemplate(ctx context.Context) error {
	if err := execute(ctx, "CREATE DATABASE "+template); err != nil {
		return err
	}
	s, err := store.Open(store.Config{URL: named(template), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Close(ctx) // a template must have no connections
	return s.Migrate(ctx)
}

func execute(ctx context.Context, statement string) error {
	db, err := sql.Open("postgres", current.URL())
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// named is the URL of another database of the cluster.
func named(database string) string {
	u, err := url.Parse(current.URL())
	if err != nil {
		panic(err) // we made it
	}
	u.Path = "/" + database
	return u.String()
}

// URL makes an empty, not migrated database and returns its URL.
func URL(t testing.TB) string {
	t.Helper()
	Cluster(t)
	return create(t, "template1")
}

// New makes a migrated database with nothing in it and opens a store on it, which is closed at the end of the test.
func New(t testing.TB) (*store.Store, string) {
	t.Helper()
	Cluster(t)
	u := create(t, template)
	return Open(t, store.Config{URL: u}), u
}

// Open opens another store, which is closed at the end of the test. Without a Log it logs nothing.
func Open(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatalf("storetest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Close(ctx) // a test that wants to know closes it itself
	})
	return s
}

// DB opens a plain connection pool, for what a test wants to see or spoil behind the store's back.
func DB(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatalf("storetest: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Migration returns the statements of a migration, for what a test wants to start from an older schema. name is that of its file.
func Migration(t testing.TB, name string) string {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(self), "..", "migrations", name))
	if err != nil {
		t.Fatalf("storetest: %v", err)
	}
	return string(text)
}

func create(t testing.TB, from string) string {
	t.Helper()
	mu.Lock() // a template can be copied by one at a time
	defer mu.Unlock()
	number++
	name := fmt.Sprintf("test%d", number)
	if err := execute(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+from); err != nil {
		t.Fatalf("storetest: make database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = execute(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") // the cluster is thrown away anyway
	})
	return named(name)
}
