package store_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

func TestParseURL(t *testing.T) {
	tests := []struct {
		name, url string
		want      string // redacted, or part of the error if it begins with "!"
	}{
		{"url", "postgres://u:sesame@db.example.org:6432/vk?sslmode=verify-full", "u@db.example.org:6432/vk sslmode=verify-full"},
		{"keywords", "host=db.example.org user=u password=sesame dbname=vk sslmode=verify-full", "u@db.example.org:5432/vk sslmode=verify-full"},
		{"several hosts", "host=a,b port=1,2 user=u password=sesame dbname=vk sslmode=verify-full", "u@a:1,b:2/vk sslmode=verify-full"},
		{"socket", "postgres:///vk?host=/run/pg&user=u&sslmode=disable", "u@/run/pg/.s.PGSQL.5432/vk sslmode=disable"},
		{"socket, keywords", "host=/run/pg user=u dbname=vk sslmode=disable", "u@/run/pg/.s.PGSQL.5432/vk sslmode=disable"},
		{"no sslmode", "postgres://u:sesame@h/vk", "!add sslmode=verify-full"},
		{"empty sslmode", "postgres://u:sesame@h/vk?sslmode=", "!add sslmode=verify-full"},
		{"no sslmode, keywords", "host=h user=u password=sesame", "!add sslmode=verify-full"},
		{"no sslmode, word in another value", "host=h user=u password='sesame sslmode=disable'", "!add sslmode=verify-full"},
		{"no sslmode, socket", "host=/run/pg user=u password=sesame", "!add sslmode=verify-full"},
		{"no sslmode, system roots", "host=h user=u password=sesame sslrootcert=system", "!add sslmode=verify-full"},
		{"unknown sslmode", "postgres://u:sesame@h/vk?sslmode=strict", `!"strict" is not supported`},
		{"bad port", "postgres://u:sesame@h:99999999/vk?sslmode=disable", "!database.url: "},
		{"unescaped password", "postgres://u:ses/ame@h/vk?sslmode=disable", "!percent-encode"},
		{"unescaped space", "host=h password=open sesame sslmode=disable", "!percent-encode"},
		{"bad escape", "postgres://u:sesame%zz@h/vk?sslmode=disable", "!percent-encode"},
		{"empty", " ", "!empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := store.Redact(tt.url)
			want, wantErr := strings.CutPrefix(tt.want, "!")
			switch {
			case wantErr && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "database.url")):
				t.Errorf("parseURL(%q) = %q, %v, want an error with %q", tt.url, got, err, want)
			case !wantErr && (err != nil || got != want):
				t.Errorf("parseURL(%q) = %q, %v, want %q", tt.url, got, err, want)
			}
			if s := fmt.Sprint(got, err); strings.Contains(s, "sesame") || strings.Contains(s, "ame@") {
				t.Errorf("the password shows: %s", s)
			}
		})
	}
}

func TestOpenWarns(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://u:sesame@h/vk?sslmode=require":         true,
		"postgres://u:sesame@h/vk?sslmode=verify-full":     false,
		"postgres://u:sesame@127.0.0.1/vk?sslmode=disable": false,
	} {
		var log bytes.Buffer
		s, err := store.Open(store.Config{URL: url, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(log.String(), "not protected"); got != want || strings.Contains(log.String(), "sesame") {
			t.Errorf("Open(%s) logs %q, want a warning: %v", url, log.String(), want)
		}
	}
}

func TestMigrateTogether(t *testing.T) {
	url := storetest.URL(t)
	var wg sync.WaitGroup
	for range 3 {
		s := storetest.Open(t, store.Config{URL: url})
		wg.Go(func() {
			if err := s.Migrate(t.Context()); err != nil {
				t.Errorf("Migrate: %v", err)
			}
		})
	}
	wg.Wait()
	s := storetest.Open(t, store.Config{URL: url})
	st, err := s.Status(t.Context())
	if err != nil || st.Schema != store.SchemaTarget || st.Pending || st.Newer || st.ServerVersion == "" || st.ClockOffset.Abs() > 5*time.Second {
		t.Errorf("Status = %+v, %v", st, err)
	}
	addAccount(t, s, "alice")
}

// TestMigrateKilled: U2 of the test plan.
func TestMigrateKilled(t *testing.T) {
	dump := func(url string) string {
		var lines strings.Builder
		rows, err := storetest.DB(t, url).Query(`SELECT c.relkind::text || ' ' || c.relname || ' ' || COALESCE(string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum), '')
			FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
			WHERE c.relnamespace = 'public'::regnamespace GROUP BY c.oid ORDER BY 1`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var l string
			if err := rows.Scan(&l); err != nil {
				t.Fatal(err)
			}
			lines.WriteString(l + "\n")
		}
		return lines.String()
	}
	_, good := storetest.New(t)
	for _, after := range []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 40 * time.Millisecond} {
		url := storetest.URL(t)
		s := storetest.Open(t, store.Config{URL: url})
		db := storetest.DB(t, url)
		done := make(chan error, 1)
		go func() { done <- s.Migrate(t.Context()) }()
		time.Sleep(after) // anywhere in the migration; the outcome must not depend on it
		for _, pid := range backends(t, db, "SELECT pid FROM pg_stat_activity WHERE datname = current_database()") {
			_ = syscall.Kill(pid, syscall.SIGTERM) // a backend ends at once, rolling back
		}
		<-done
		eventually(t, "migrating again succeeds", func() bool { return s.Migrate(t.Context()) == nil })
		if got, want := dump(url), dump(good); got != want {
			t.Errorf("schema after an interruption:\n%s\nwant\n%s", got, want)
		}
	}
}

func TestMigrateNewer(t *testing.T) {
	_, url := storetest.New(t)
	if _, err := storetest.DB(t, url).Exec("INSERT INTO " + store.VersionTable + " (version_id, is_applied) VALUES (99, true)"); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := storetest.Open(t, store.Config{URL: url, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := s.Migrate(t.Context()); err != nil {
		t.Errorf("Migrate = %v, want nil", err)
	}
	if !strings.Contains(log.String(), "newer schema") {
		t.Errorf("log = %q, want it to tell of the newer schema", log.String())
	}
	if st, err := s.Status(t.Context()); err != nil || !st.Newer || st.Schema != 99 {
		t.Errorf("Status = %+v, %v, want Newer", st, err)
	}
	addAccount(t, s, "alice")
	if f, err := s.Lookup(t.Context(), "alice", nil); err != nil || f == nil {
		t.Errorf("Lookup = %+v, %v", f, err)
	}
}

func TestMigrateNoDatabase(t *testing.T) {
	s := storetest.Open(t, store.Config{URL: "postgres://u:sesame@127.0.0.1:1/d?sslmode=disable"})
	if err := s.Migrate(t.Context()); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("Migrate = %v, want an error without the password", err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("Ping = nil, want an error")
	}
	if _, err := s.Status(t.Context()); err == nil {
		t.Error("Status = nil, want an error")
	}
}

// proxy stands between the store and Postgres and can misbehave (F4 of the test plan).
type proxy struct {
	addr string
	mu   sync.Mutex
	drip bool // deliver a byte now and then
	hole bool // deliver nothing
}

func startProxy(t *testing.T, socket string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &proxy{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				up, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer up.Close()
				go func() { io.Copy(up, c); up.Close() }()
				b := make([]byte, 4096)
				for {
					n, err := up.Read(b)
					if err != nil {
						return
					}
					for i := range n {
						p.mu.Lock()
						drip, hole := p.drip, p.hole
						p.mu.Unlock()
						switch {
						case hole:
							continue
						case drip:
							time.Sleep(100 * time.Millisecond)
						}
						if _, err := c.Write(b[i : i+1]); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return p
}

func (p *proxy) set(drip, hole bool) { p.mu.Lock(); p.drip, p.hole = drip, hole; p.mu.Unlock() }

func TestLookupBadLink(t *testing.T) {
	direct, url := storetest.New(t)
	fill(t, storetest.DB(t, url), 10, 1)
	name := database(t, url)
	st, err := direct.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(strings.TrimSuffix(strings.Fields(st.Where)[0], "/"+name), "valetkey@")
	p := startProxy(t, socket)
	host, port, _ := net.SplitHostPort(p.addr)
	s := storetest.Open(t, store.Config{URL: "host=" + host + " port=" + port + " user=valetkey sslmode=disable dbname=" + name})
	works := func() bool {
		f, err := s.Lookup(t.Context(), "user1", userTag(1, 1))
		if err == nil && (f == nil || len(f.Candidates) != 1) {
			t.Fatalf("Lookup = %+v, nil", f)
		}
		return err == nil
	}
	for name, set := range map[string]func(){"drip": func() { p.set(true, false) }, "hole": func() { p.set(false, true) }} {
		t.Run(name, func(t *testing.T) {
			eventually(t, "lookups work", works)
			set()
			begin := time.Now()
			if works() {
				t.Error("Lookup over a bad link succeeded")
			}
			if d := time.Since(begin); d > 5*time.Second { // 1.2 seconds by design
				t.Errorf("Lookup over a bad link took %v", d)
			}
			p.set(false, false)
		})
	}
	eventually(t, "lookups work", works)
}

// TestConnectionsRefused: F10 of the test plan. A store that has its connection keeps working; another one gets errors.
func TestConnectionsRefused(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	if _, err := s.Lookup(t.Context(), "alice", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("ALTER DATABASE " + database(t, url) + " CONNECTION LIMIT 0"); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Lookup(t.Context(), "alice", nil); err != nil || f == nil {
		t.Errorf("Lookup on an open connection = %+v, %v", f, err)
	}
	other := storetest.Open(t, store.Config{URL: url})
	if f, err := other.Lookup(t.Context(), "alice", nil); err == nil {
		t.Errorf("Lookup without a connection = %+v, nil, want an error", f)
	}
	if _, err := db.Exec("ALTER DATABASE " + database(t, url) + " CONNECTION LIMIT -1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it works", func() bool { f, err := other.Lookup(t.Context(), "alice", nil); return err == nil && f != nil })
}

func TestPrivilegeLost(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	if _, err := db.Exec("REVOKE SELECT ON app_passwords FROM valetkey"); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Lookup(t.Context(), "alice", []auth.Tag{{PepperID: 1}}); err == nil {
		t.Errorf("Lookup without the privilege = %+v, nil, want an error", f)
	}
	if _, err := db.Exec("GRANT SELECT ON app_passwords TO valetkey"); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Lookup(t.Context(), "alice", []auth.Tag{{PepperID: 1}}); err != nil || f == nil {
		t.Errorf("Lookup = %+v, %v", f, err)
	}
}

func database(t *testing.T, url string) string {
	t.Helper()
	path, _, ok := strings.Cut(strings.TrimPrefix(url, "postgres:///"), "?")
	if !ok {
		t.Fatalf("URL %q", url)
	}
	return path
}

// TestImports keeps this package below the front ends (DESIGN section 1).
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, ".", "./cluster").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		ours, found := strings.CutPrefix(line, "github.com/valetkey/valetkey/")
		if found && ours != "internal/auth" && ours != "internal/pgdial" {
			t.Errorf("package imports %s", line)
		}
	}
}
