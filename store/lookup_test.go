package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

func TestLookup(t *testing.T) {
	s, _ := storetest.New(t)
	alice := addAccount(t, s, "alice@example.org", "alice", `a"li\ce,{}`, "αλίκη")
	addAccount(t, s, "bob@example.org")
	addAccount(t, s, "carol@example.org")
	addAccount(t, s, "dave@example.org")
	addAppPassword(t, s, "alice", "one", tag(1, 1))
	addAppPassword(t, s, "alice", "two", tag(1, 2))
	addAppPassword(t, s, "alice", "max", tag(1, 65535))
	revoked := addAppPassword(t, s, "alice", "old", tag(1, 3))
	if _, err := s.RevokeAppPassword(t.Context(), "alice", "old", "lost", "admin"); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "alice", "scoped", tag(1, 4), func(n *auth.NewAppPassword) {
		n.Services = []string{"imap", "smtp"}
		n.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::1/128")}
	})
	addAppPassword(t, s, "alice", "rotated", tag(2, 1))
	addAppPassword(t, s, "bob@example.org", "one", tag(1, 1))
	addAppPassword(t, s, "bob@example.org", "imported", nil)
	addAppPassword(t, s, "bob@example.org", "imported revoked", nil)
	if _, err := s.RevokeAppPassword(t.Context(), "bob@example.org", "imported revoked", "", "admin"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetAccountEnabled(t.Context(), "carol@example.org", false, "admin"); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "dave@example.org", "of two years ago", tag(3, 1))

	ring := func(value uint16) []auth.Tag {
		return []auth.Tag{{PepperID: 1, Value: value}, {PepperID: 2, Value: value}}
	}
	// Peppers 1 to 3 are in use.
	all := func(v1, v2, v3 uint16) []auth.Tag {
		return []auth.Tag{{PepperID: 1, Value: v1}, {PepperID: 2, Value: v2}, {PepperID: 3, Value: v3}}
	}
	tests := []struct {
		name  string
		login string
		tags  []auth.Tag
		want  string
	}{
		{"right tag", "alice", all(2, 9, 9), "map[two:1]"},
		{"greatest tag", "alice", all(65535, 9, 9), "map[max:1]"},
		{"by canonical login", "alice@example.org", all(2, 9, 9), "map[two:1]"},
		{"special characters", `a"li\ce,{}`, all(2, 9, 9), "map[two:1]"},
		{"not ASCII", "αλίκη", all(2, 9, 9), "map[two:1]"},
		{"no such tag", "alice", all(9, 9, 9), "map[]"},
		{"tombstone", "alice", all(3, 9, 9), "map[old:1]"},
		{"value under another pepper", "alice", all(9, 1, 9), "map[rotated:1]"},
		{"several of the ring", "alice", all(1, 1, 1), "map[one:1 rotated:1]"},
		{"of another account", "bob@example.org", all(2, 9, 9), "map[imported:1 imported revoked:1]"},
		{"untagged come along once", "bob@example.org", all(1, 1, 1), "map[imported:1 imported revoked:1 one:1]"},
		{"no tags", "bob@example.org", nil, "map[imported:1 imported revoked:1]"},
		{"no tags, no untagged", "alice", nil, "map[]"},
		{"pepper that the ring lacks", "dave@example.org", ring(9), "map[of two years ago:1]"},
		{"pepper that the ring lacks, no tags", "dave@example.org", nil, "map[]"},
		{"one pepper of three", "alice", []auth.Tag{{PepperID: 1, Value: 2}}, "map[rotated:1 two:1]"},
		{"account without any", "carol@example.org", all(1, 1, 1), "map[]"},
		{"unknown", "nobody@example.org", all(1, 1, 1), "unknown"},
		{"case is not ours to fold", "Alice", all(1, 1, 1), "unknown"},
		{"pattern", "alice%", all(1, 1, 1), "unknown"},
		{"empty", "", all(1, 1, 1), "unknown"},
		{"NUL", "alice\x00", all(1, 1, 1), "unknown"},
		{"invalid UTF-8", "alice\xff", all(1, 1, 1), "unknown"},
		{"too long", strings.Repeat("x", auth.MaxLogin+1), all(1, 1, 1), "unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, err := s.Lookup(t.Context(), tt.login, tt.tags)
			if err != nil {
				t.Fatal(err)
			}
			if got := labels(found); got != tt.want {
				t.Errorf("Lookup(%q, %v) = %s, want %s", tt.login, tt.tags, got, tt.want)
			}
		})
	}
	// A login with one tag alone has a query of its own, which must find the same.
	t.Run("alone and in company", func(t *testing.T) {
		for _, login := range []string{"alice", "alice@example.org", `a"li\ce,{}`, "αλίκη", "bob@example.org", "carol@example.org", "dave@example.org", "nobody@example.org", "Alice", "NULL"} {
			for pepper := int32(0); pepper <= 4; pepper++ {
				for _, value := range []uint16{1, 2, 3, 4, 9, 65535} {
					tags := []auth.Tag{{PepperID: pepper, Value: value}}
					if pepper == 0 {
						tags = nil
					}
					alone, err := s.LookupBatch([]string{login}, [][]auth.Tag{tags})
					if err != nil {
						t.Fatal(err)
					}
					company, err := s.LookupBatch([]string{login, "nobody@example.org"}, [][]auth.Tag{tags, tags})
					if err != nil {
						t.Fatal(err)
					}
					byID := cmpopts.SortSlices(func(a, b auth.Candidate) bool { return a.ID < b.ID })
					same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
					if d := cmp.Diff(company[0], alone[0], byID, same); d != "" {
						t.Errorf("%q, %v (-in company +alone):\n%s", login, tags, d)
					}
				}
			}
		}
	})
	// All at once, with different rings in one queue.
	t.Run("together", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 50 {
			for _, tt := range tests {
				wg.Go(func() {
					found, err := s.Lookup(t.Context(), tt.login, tt.tags)
					if got := labels(found); err != nil || got != tt.want {
						t.Errorf("%s: Lookup(%q, %v) = %s, %v, want %s", tt.name, tt.login, tt.tags, got, err, tt.want)
					}
				})
			}
		}
		wg.Wait()
		if st := s.LookupStats(); st.Batches >= st.Lookups {
			t.Errorf("LookupStats() = %+v, want fewer batches than lookups", st)
		}
	})

	found, err := s.Lookup(t.Context(), "alice", all(3, 9, 9))
	if err != nil {
		t.Fatal(err)
	}
	want := &auth.Found{AccountID: alice.ID, Login: "alice@example.org", Enabled: true, Candidates: []auth.Candidate{
		{ID: revoked.ID, Label: "old", PHC: phc, Origin: auth.Generated, Revoked: true}}}
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("tombstone (-want +got):\n%s", d)
	}
	found, err = s.Lookup(t.Context(), "alice@example.org", all(4, 9, 9))
	if err != nil {
		t.Fatal(err)
	}
	want = &auth.Found{AccountID: alice.ID, Login: "alice@example.org", Enabled: true, Candidates: []auth.Candidate{
		{Label: "scoped", PHC: phc, Origin: auth.Generated, Services: []string{"imap", "smtp"},
			Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")}}}}
	if d := cmp.Diff(want, found, cmpopts.IgnoreFields(auth.Candidate{}, "ID"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("scoped (-want +got):\n%s", d)
	}
	if found, err = s.Lookup(t.Context(), "carol@example.org", nil); err != nil || found.Enabled {
		t.Errorf("disabled account: %+v, %v, want Enabled false", found, err)
	}
	if found, err = s.Lookup(t.Context(), "bob@example.org", nil); err != nil || found.Candidates[0].Origin != auth.Imported {
		t.Errorf("imported row: %+v, %v", found, err)
	}
}

func TestLookupExpiry(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	tests := []struct {
		name, set string
		want      bool
	}{
		{"never", "created_at = now() - interval '50 years'", false},
		{"date to come", "expires_at = now() + interval '1 hour'", false},
		{"date past", "expires_at = now() - interval '1 microsecond'", true},
		{"unused since creation", "expires_unused_for = '30 days', created_at = now() - interval '31 days'", true},
		{"created lately", "expires_unused_for = '30 days', created_at = now() - interval '29 days'", false},
		{"used lately", "expires_unused_for = '30 days', created_at = now() - interval '90 days', last_used_at = now() - interval '29 days'", false},
		{"used long ago", "expires_unused_for = '30 days', created_at = now() - interval '90 days', last_used_at = now() - interval '31 days'", true},
		{"date past, used lately", "expires_at = now() - interval '1 day', expires_unused_for = '30 days', last_used_at = now()", true},
		{"date to come, used long ago", "expires_at = now() + interval '1 day', expires_unused_for = '1 day', last_used_at = now() - interval '2 days'", true},
		{"longest", "expires_unused_for = '36500 days', last_used_at = now()", false},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := addAppPassword(t, s, "alice", tt.name, tag(1, uint16(i)))
			if _, err := db.Exec("UPDATE app_passwords SET "+tt.set+" WHERE id = $1", p.ID); err != nil {
				t.Fatal(err)
			}
			found, err := s.Lookup(t.Context(), "alice", []auth.Tag{{PepperID: 1, Value: uint16(i)}})
			if err != nil || len(found.Candidates) != 1 {
				t.Fatalf("Lookup = %+v, %v, want one candidate", found, err)
			}
			if got := found.Candidates[0].Expired; got != tt.want {
				t.Errorf("Lookup: expired = %v, want %v", got, tt.want)
			}
			list, err := s.AppPasswords(t.Context(), "alice", true)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range list {
				if l.ID == p.ID && l.Expired != tt.want {
					t.Errorf("AppPasswords: expired = %v, want %v", l.Expired, tt.want)
				}
			}
		})
	}
}

// TestLookupSeesCommit holds the lookup to the promise that a committed change counts for the next login everywhere.
func TestLookupSeesCommit(t *testing.T) {
	s1, url := storetest.New(t)
	s2 := storetest.Open(t, store.Config{URL: url})
	addAccount(t, s1, "alice")
	tags := []auth.Tag{{PepperID: 1, Value: 7}}

	stop := make(chan struct{}) // load, so that queries are under way all the time
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s2.Lookup(t.Context(), "alice", tags)
				}
			}
		})
	}
	for i := range 50 {
		p := addAppPassword(t, s1, "alice", "phone", tag(1, 7))
		for _, s := range []*store.Store{s1, s2} {
			found, err := s.Lookup(t.Context(), "alice", tags)
			if err != nil || len(found.Candidates) != i+1 {
				t.Fatalf("Lookup after adding = %+v, %v", found, err)
			}
		}
		if _, err := s1.RevokeAppPassword(t.Context(), "alice", "phone", "", "admin"); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*store.Store{s1, s2} {
			found, err := s.Lookup(t.Context(), "alice", tags)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range found.Candidates {
				if c.ID == p.ID && !c.Revoked {
					t.Fatal("a lookup after the revocation found the row unrevoked")
				}
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestLookupPlan makes sure that the one plan of a session uses the indexes, also when it was made before there were any
// rows or statistics.
func TestLookupPlan(t *testing.T) {
	_, url := storetest.New(t)
	db := storetest.DB(t, url)
	db.SetMaxOpenConns(1)
	for k, v := range store.LookupSettings {
		if _, err := db.Exec("SELECT set_config($1, $2, false)", k, v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec("PREPARE hot AS " + store.LookupSQL + "; PREPARE one AS " + store.LookupOneSQL); err != nil {
		t.Fatal(err)
	}
	explain := func(execute string) string {
		var lines []string
		rows, err := db.Query("EXPLAIN (ANALYZE, TIMING off, COSTS off) EXECUTE " + execute)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var l string
			if err := rows.Scan(&l); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
		return strings.Join(lines, "\n")
	}
	check := func(when string) {
		for execute, cond := range map[string]string{
			"hot('{user1,user2}', '{1,1}', '{1,70}', '{1}')": "Index Cond: ((account_id = a.id) AND (tag = q.tag))",
			"one('user1', 1, 32)":                            "Index Cond: ((account_id = a.id) AND (tag = $3))",
		} {
			plan := explain(execute)
			for _, want := range []string{"logins_pkey", "accounts_pkey", "app_passwords_account_tag_idx", "app_passwords_untagged_idx", cond, "never executed"} {
				if !strings.Contains(plan, want) {
					t.Errorf("plan %s of %s has no %q:\n%s", when, execute, want, plan)
				}
			}
			for _, no := range []string{"Hash Join", "Merge Join", "Bitmap", "Seq Scan on app_passwords", "Seq Scan on accounts"} {
				if strings.Contains(plan, no) {
					t.Errorf("plan %s of %s has %q:\n%s", when, execute, no, plan)
				}
			}
		}
	}
	check("without rows")
	writer := storetest.DB(t, url)
	fill(t, writer, 200, 25)
	check("with rows")
	if _, err := writer.Exec("ANALYZE"); err != nil {
		t.Fatal(err)
	}
	check("with statistics")
}

// fill adds accounts user1.. with so many app passwords each; the tag of the k-th of account n is (n*31+k)%65536.
func fill(t testing.TB, db *sql.DB, accounts, each int) {
	t.Helper()
	for _, q := range []string{
		`INSERT INTO peppers (id) VALUES (1) ON CONFLICT DO NOTHING`,
		`INSERT INTO accounts (login) SELECT 'user' || n FROM generate_series(1, ` + strconv.Itoa(accounts) + `) n ORDER BY n`,
		`INSERT INTO logins SELECT login, id FROM accounts WHERE login LIKE 'user%'`,
		`INSERT INTO app_passwords (account_id, label, label_key, phc, pepper_id, tag, origin, created_by)
		 SELECT a.id, 'label ' || k, 'label ' || k, '` + phc + `', 1, (substr(a.login, 5)::int * 31 + k) % 65536, 'generated', 'admin'
		 FROM accounts a, generate_series(1, ` + strconv.Itoa(each) + `) k WHERE a.login LIKE 'user%' ORDER BY k, a.id`,
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
}

func userTag(n, k int) []auth.Tag {
	return []auth.Tag{{PepperID: 1, Value: uint16((n*31 + k) % 65536)}}
}

// load looks existing logins up until stopped, and counts what must never be: an answer that says "no such login" or
// leaves a row out.
type load struct {
	ok, undecided, wrong atomic.Int64
	slowest              atomic.Int64 // nanoseconds
	stop                 chan struct{}
	wg                   sync.WaitGroup
}

func startLoad(t *testing.T, s *store.Store, workers, accounts int) *load {
	l := &load{stop: make(chan struct{})}
	for w := range workers {
		l.wg.Go(func() {
			for i := w; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				n := i%accounts + 1
				begin := time.Now()
				found, err := s.Lookup(context.Background(), "user"+strconv.Itoa(n), userTag(n, 1))
				took := int64(time.Since(begin))
				for old := l.slowest.Load(); took > old && !l.slowest.CompareAndSwap(old, took); old = l.slowest.Load() {
				}
				switch {
				case err != nil:
					l.undecided.Add(1)
					time.Sleep(time.Millisecond)
				case found == nil || len(found.Candidates) != 1 || found.Login != "user"+strconv.Itoa(n):
					l.wrong.Add(1)
				default:
					l.ok.Add(1)
				}
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// more waits until so many more lookups succeeded.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	from := l.ok.Load()
	eventually(t, "lookups succeed", func() bool { return l.ok.Load() >= from+n })
}

// TestLookupPostgresKilled: F1 and F2 of the test plan.
func TestLookupPostgresKilled(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	fill(t, db, 100, 2)
	l := startLoad(t, s, 16, 100)
	l.more(t, 100)
	c := storetest.Cluster(t)
	for range 3 {
		// A backend in the middle of its work: Postgres restarts all of them.
		victim := backends(t, db, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")[0]
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		l.more(t, 100)
		pid := c.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a new postmaster runs", func() bool { p := c.PID(); return p != 0 && p != pid && db.Ping() == nil })
		l.more(t, 100)
	}
	l.end()
	t.Logf("ok %d, undecided %d, slowest %v", l.ok.Load(), l.undecided.Load(), time.Duration(l.slowest.Load()))
	if n := l.wrong.Load(); n != 0 {
		t.Errorf("%d of %d lookups of existing logins were answered as if there were none", n, n+l.ok.Load())
	}
}

func backends(t *testing.T, db *sql.DB, query string) []int {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var pids []int
	for rows.Next() {
		var pid int
		if err := rows.Scan(&pid); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) == 0 {
		t.Fatalf("no process: %s", query)
	}
	return pids
}

// TestLookupConnectionsCut: connections that end between and during queries are replaced without an error, since there
// is time for it.
func TestLookupConnectionsCut(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	fill(t, db, 10, 1)
	for range 20 {
		if _, err := s.Lookup(t.Context(), "user1", userTag(1, 1)); err != nil {
			t.Fatalf("Lookup after the connection was cut: %v", err)
		}
		if _, err := db.Exec(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLookupPostgresFrozen: F3 of the test plan.
func TestLookupPostgresFrozen(t *testing.T) {
	s, url := storetest.New(t)
	fill(t, storetest.DB(t, url), 100, 2)
	l := startLoad(t, s, 16, 100)
	l.more(t, 100)

	thaw := freeze(t, storetest.Cluster(t).PID())
	from := l.undecided.Load()
	eventually(t, "each worker got an error", func() bool { return l.undecided.Load() >= from+32 })
	thaw()
	l.more(t, 100)
	l.end()
	t.Logf("ok %d, undecided %d, slowest %v", l.ok.Load(), l.undecided.Load(), time.Duration(l.slowest.Load()))
	if n := l.wrong.Load(); n != 0 {
		t.Errorf("%d lookups of existing logins were answered as if there were none", n)
	}
	// 1.2 seconds by design; the rest is for a busy machine.
	if d := time.Duration(l.slowest.Load()); d > 5*time.Second {
		t.Errorf("a lookup took %v", d)
	}
}

// freeze stops the postmaster and all its children and returns what thaws them.
func freeze(t *testing.T, postmaster int) func() {
	t.Helper()
	pids := []int{postmaster}
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil { // first, so that no child is added
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(e)
		if err != nil {
			continue // ended meanwhile
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(postmaster) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
			if err := syscall.Kill(pid, syscall.SIGSTOP); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	var once sync.Once
	thaw := func() {
		once.Do(func() {
			for _, pid := range pids {
				syscall.Kill(pid, syscall.SIGCONT)
			}
		})
	}
	t.Cleanup(thaw)
	return thaw
}

// TestLookupSecondLane: one dead connection does not hold the others up.
func TestLookupSecondLane(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	fill(t, db, 10, 1)
	if _, err := s.Lookup(t.Context(), "user1", userTag(1, 1)); err != nil {
		t.Fatal(err)
	}
	lane := backends(t, db, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%FROM logins l%' AND pid <> pg_backend_pid()")[0]
	if err := syscall.Kill(lane, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(lane, syscall.SIGCONT)
	first := make(chan error, 1)
	batches := s.LookupStats().Batches
	go func() {
		_, err := s.Lookup(context.Background(), "user1", userTag(1, 1))
		first <- err
	}()
	eventually(t, "the first lane is under way", func() bool { return s.LookupStats().Batches > batches })
	eventually(t, "the second lane answers", func() bool {
		found, err := s.Lookup(t.Context(), "user2", userTag(2, 1))
		return err == nil && found != nil && s.LookupStats().SecondLane > 0
	})
	if err := <-first; err == nil {
		t.Error("the lookup on the frozen connection succeeded")
	}
}

// TestLookupTableLocked: F10 of the test plan, a lock as a migration by hand might take it.
func TestLookupTableLocked(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	fill(t, db, 10, 1)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("LOCK TABLE app_passwords IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Lookup(t.Context(), "user1", userTag(1, 1)); err == nil {
		t.Errorf("Lookup of a locked table = %+v, nil, want an error", found)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Lookup(t.Context(), "user1", userTag(1, 1)); err != nil || found == nil {
		t.Errorf("Lookup after the lock = %+v, %v", found, err)
	}
}

func TestLookupWithoutSchema(t *testing.T) {
	s := storetest.Open(t, store.Config{URL: storetest.URL(t)})
	if found, err := s.Lookup(t.Context(), "alice", nil); err == nil {
		t.Errorf("Lookup without tables = %+v, nil, want an error", found)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Lookup(t.Context(), "alice", nil); found != nil || err != nil {
		t.Errorf("Lookup after migrating = %+v, %v, want nil, nil", found, err)
	}
}

func TestLookupNoDatabase(t *testing.T) {
	s := storetest.Open(t, store.Config{URL: "postgres://u:sesame@127.0.0.1:1/d?sslmode=disable"})
	found, err := s.Lookup(t.Context(), "alice", nil)
	if err == nil {
		t.Fatalf("Lookup = %+v, nil, want an error", found)
	}
	if strings.Contains(err.Error(), "sesame") {
		t.Errorf("error holds the password: %v", err)
	}
}

// TestLookupAbandoned: callers that give up neither block the others nor get mixed up with them.
func TestLookupAbandoned(t *testing.T) {
	s, url := storetest.New(t)
	fill(t, storetest.DB(t, url), 100, 1)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			tags := make([]auth.Tag, 1) // used again at once, also after giving up
			for i := range 100 {
				n := (w*100+i)%100 + 1
				copy(tags, userTag(n, 1))
				ctx, cancel := context.WithCancel(t.Context())
				if i%2 == 0 {
					go cancel()
				}
				found, err := s.Lookup(ctx, "user"+strconv.Itoa(n), tags)
				cancel()
				switch {
				case errors.Is(err, context.Canceled) && i%2 == 0:
				case err != nil:
					t.Errorf("Lookup: %v", err)
				case found == nil || found.Login != "user"+strconv.Itoa(n) || len(found.Candidates) != 1:
					t.Errorf("Lookup(user%d) = %+v", n, found)
				}
			}
		})
	}
	wg.Wait()
}

func TestLookupOverload(t *testing.T) {
	release := make(chan struct{})
	l := store.NewLookups(func(context.Context) (driver.Conn, error) {
		<-release
		return nil, errors.New("refused")
	}, 8)
	var wg sync.WaitGroup
	var overloaded, failed atomic.Int64
	for range 600 { // two lanes take a batch each, eight wait
		wg.Go(func() {
			switch found, err := l.Lookup(t.Context(), "alice", nil); {
			case errors.Is(err, auth.ErrOverloaded):
				overloaded.Add(1)
			case err != nil:
				failed.Add(1)
			default:
				t.Errorf("Lookup = %+v, nil, want an error", found)
			}
		})
	}
	wg.Wait()
	close(release)
	if overloaded.Load() == 0 || failed.Load() == 0 {
		t.Errorf("%d overloaded, %d failed, want some of each", overloaded.Load(), failed.Load())
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Lookup(t.Context(), "alice", nil); !errors.Is(err, auth.ErrShuttingDown) {
		t.Errorf("Lookup after Close = %v, want ErrShuttingDown", err)
	}
}

func TestLookupPanic(t *testing.T) {
	var calls atomic.Int64
	l := store.NewLookups(func(context.Context) (driver.Conn, error) {
		calls.Add(1)
		panic("driver fault")
	}, 100)
	for i := range 3 {
		if found, err := l.Lookup(t.Context(), "alice", nil); err == nil || found != nil {
			t.Errorf("Lookup = %+v, %v, want an error", found, err)
		}
		if got := calls.Load(); got != int64(i+1) {
			t.Errorf("%d connections tried, want %d: the lane is gone", got, i+1)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLookupClose(t *testing.T) {
	s, url := storetest.New(t)
	fill(t, storetest.DB(t, url), 10, 1)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				found, err := s.Lookup(t.Context(), "user1", userTag(1, 1))
				if errors.Is(err, auth.ErrShuttingDown) {
					return
				}
				if err != nil || found == nil {
					t.Errorf("Lookup while closing = %+v, %v", found, err)
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond) // some load; nothing depends on it
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
}

func BenchmarkLookup(b *testing.B) {
	const accounts, each = 20_000, 25
	s, url := storetest.New(b)
	db := storetest.DB(b, url)
	fill(b, db, accounts, each)
	if _, err := db.Exec("VACUUM ANALYZE"); err != nil {
		b.Fatal(err)
	}
	for _, c := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", c), func(b *testing.B) {
			before := s.LookupStats()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range c {
				wg.Go(func() {
					for {
						i := int(next.Add(1))
						if i > b.N {
							return
						}
						n := i*7919%accounts + 1
						found, err := s.Lookup(context.Background(), "user"+strconv.Itoa(n), userTag(n, i%each+1))
						if err != nil || found == nil || len(found.Candidates) != 1 {
							b.Errorf("Lookup = %+v, %v", found, err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			after := s.LookupStats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
			b.ReportMetric(float64(after.Lookups-before.Lookups)/float64(after.Batches-before.Batches), "lookups/batch")
		})
	}
}
