package store_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

// findAll reads all pages of this size and returns logins with labels.
func findAll(t *testing.T, s *store.Store, f auth.AppPasswordFilter, order auth.Order, size int) (found []string) {
	t.Helper()
	for after, pages := "", 0; ; pages++ {
		p, err := s.FindAppPasswords(t.Context(), f, order, after, size)
		if err != nil || len(p.AppPasswords) > size || pages > 1000 {
			t.Fatalf("FindAppPasswords(%+v, %q, %q) = %d rows, %v", f, order, after, len(p.AppPasswords), err)
		}
		for _, x := range p.AppPasswords {
			found = append(found, x.Login+" "+x.Label)
		}
		f.AsOf = p.AsOf
		if after = p.Next; after == "" {
			return found
		}
	}
}

func TestFindAppPasswords(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	for _, login := range []string{"carol", "alice", "bob", "zoe"} {
		addAccount(t, s, login)
	}
	add := func(login, label string, v uint16, set string, edit ...func(*auth.NewAppPassword)) {
		t.Helper()
		p := addAppPassword(t, s, login, label, tag(1, v), edit...)
		if set != "" {
			if _, err := db.Exec("UPDATE app_passwords SET "+set+" WHERE id = $1", p.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("carol", "phone", 1, "created_at = now() - interval '200 days', last_used_at = now() - interval '100 days', used_about = now() - interval '106 days'",
		func(n *auth.NewAppPassword) { n.Services = []string{"imap"} })
	add("alice", "wiki", 2, "created_at = now() - interval '200 days', last_used_at = now() - interval '1 day', used_about = now() - interval '2 days'",
		func(n *auth.NewAppPassword) {
			n.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
		})
	add("alice", "old", 3, "created_at = now() - interval '95 days'")
	add("bob", "printer", 4, "exempt_at = now(), exempt_by = 'root', exempt_why = 'no hands'", func(n *auth.NewAppPassword) {
		n.Services, n.CreatedBy = []string{"smtp", "imap"}, "help"
	})
	// An older program noted its use and knows no used_about: it is found among the old ones, and sorted out.
	add("bob", "new", 5, "created_at = now() - interval '300 days', last_used_at = now() - interval '89 days'", func(n *auth.NewAppPassword) {
		n.ExpiresAt = time.Now().Add(10 * 24 * time.Hour)
	})
	add("bob", "idle", 6, "created_at = now() - interval '85 days'", func(n *auth.NewAppPassword) { n.ExpiresUnusedFor = 90 * 24 * time.Hour })
	add("zoe", "100% sure", 7, "expires_at = now() - interval '1 day'")
	add("zoe", "gone", 8, "revoked_at = now(), holds_label = false")
	addAppPassword(t, s, "zoe", "import", nil)
	addAppPassword(t, s, "zoe", "import, used since", nil)
	if _, err := db.Exec("UPDATE app_passwords SET upgraded_at = now() WHERE label = 'import, used since'"); err != nil {
		t.Fatal(err)
	}

	day := 24 * time.Hour
	live := []string{"alice old", "alice wiki", "bob idle", "bob new", "bob printer", "carol phone", "zoe import", "zoe import, used since"}
	for _, tt := range []struct {
		name string
		f    auth.AppPasswordFilter
		want []string
	}{
		{"live", auth.AppPasswordFilter{}, live},
		{"unused", auth.AppPasswordFilter{UnusedFor: 90 * day}, []string{"alice old", "carol phone"}},
		{"unused for longer", auth.AppPasswordFilter{UnusedFor: 97 * day}, []string{"carol phone"}},
		{"expiring", auth.AppPasswordFilter{ExpiringWithin: 14 * day}, []string{"bob idle", "bob new"}},
		{"expiring sooner", auth.AppPasswordFilter{ExpiringWithin: 6 * day}, []string{"bob idle"}},
		{"never used", auth.AppPasswordFilter{NeverUsed: true}, []string{"alice old", "bob idle", "bob printer", "zoe import", "zoe import, used since"}},
		{"service", auth.AppPasswordFilter{Service: "imap"}, []string{"bob printer", "carol phone"}},
		{"address", auth.AppPasswordFilter{Network: netip.MustParsePrefix("192.0.2.7/32")}, []string{"alice wiki"}},
		{"network", auth.AppPasswordFilter{Network: netip.MustParsePrefix("2001:db8:7::/48")}, []string{"alice wiki"}},
		{"wider network", auth.AppPasswordFilter{Network: netip.MustParsePrefix("192.0.0.0/8").Masked()}, []string{"alice wiki"}},
		{"other network", auth.AppPasswordFilter{Network: netip.MustParsePrefix("198.51.100.0/24")}, nil},
		{"exempt", auth.AppPasswordFilter{Exempt: true}, []string{"bob printer"}},
		{"imported", auth.AppPasswordFilter{Imported: true}, []string{"zoe import"}},
		{"by", auth.AppPasswordFilter{By: "help"}, []string{"bob printer"}},
		{"part of a label", auth.AppPasswordFilter{Label: auth.LabelPattern("RINT")}, []string{"bob printer"}},
		{"pattern", auth.AppPasswordFilter{Label: auth.LabelPattern("p*")}, []string{"bob printer", "carol phone"}},
		{"LIKE's own characters", auth.AppPasswordFilter{Label: auth.LabelPattern("0% s"), Expired: true}, []string{"zoe 100% sure"}},
		{"no wildcard of LIKE's", auth.AppPasswordFilter{Label: auth.LabelPattern("_ld")}, nil},
		{"expired", auth.AppPasswordFilter{Expired: true}, []string{"zoe 100% sure"}},
		{"revoked", auth.AppPasswordFilter{Revoked: true}, []string{"zoe gone"}},
		{"all", auth.AppPasswordFilter{Live: true, Expired: true, Revoked: true}, append(slices.Clone(live), "zoe 100% sure", "zoe gone")},
		{"account", auth.AppPasswordFilter{Login: "bob", NeverUsed: true}, []string{"bob idle", "bob printer"}},
		{"as of yesterday", auth.AppPasswordFilter{Login: "bob", AsOf: time.Now().Add(-day)}, []string{"bob idle", "bob new"}},
	} {
		for _, order := range []auth.Order{"", auth.ByLogin, auth.ByLabel, auth.ByCreation, auth.ByLastUse, auth.ByExpiry} {
			for _, size := range []int{1, 2, 100} {
				got := findAll(t, s, tt.f, order, size)
				slices.Sort(got)
				want := slices.Sorted(slices.Values(tt.want))
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s, by %q, %d to a page (-want +got):\n%s", tt.name, order, size, d)
				}
			}
		}
	}
	for order, want := range map[auth.Order][]string{
		auth.ByLogin:    {"alice wiki", "alice old", "bob printer", "bob new", "bob idle", "carol phone", "zoe import", "zoe import, used since"},
		auth.ByLabel:    {"bob idle", "zoe import", "zoe import, used since", "bob new", "alice old", "carol phone", "bob printer", "alice wiki"},
		auth.ByCreation: {"carol phone", "alice wiki", "alice old", "bob printer", "bob new", "bob idle", "zoe import", "zoe import, used since"},
		auth.ByExpiry:   {"bob new", "carol phone", "alice wiki", "alice old", "bob printer", "bob idle", "zoe import", "zoe import, used since"},
		auth.ByLastUse:  {"bob new", "carol phone", "alice old", "bob idle", "alice wiki", "bob printer", "zoe import", "zoe import, used since"},
	} {
		if d := cmp.Diff(want, findAll(t, s, auth.AppPasswordFilter{}, order, 3)); d != "" {
			t.Errorf("by %s (-want +got):\n%s", order, d)
		}
	}
	if _, err := s.FindAppPasswords(t.Context(), auth.AppPasswordFilter{Login: "nobody"}, "", "", 0); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("FindAppPasswords of an unknown login = %v, want ErrNoAccount", err)
	}
	page, err := s.FindAppPasswords(t.Context(), auth.AppPasswordFilter{}, auth.ByLogin, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for _, bad := range []string{"x", "é", page.Next + "AA", raw(`{"o":"created","i":1,"x":2}`), raw(`{"o":"created","i":"1"}`), raw(`{"o":"created","t":"\u0000","i":1}`),
		raw(`{"o":"created","m":"-0001-01-01T00:00:00Z","i":1}`), strings.Repeat("A", 1<<16), page.Next} {
		if _, err := s.FindAppPasswords(t.Context(), auth.AppPasswordFilter{}, auth.ByCreation, bad, 1); !errors.Is(err, auth.ErrBadCursor) {
			t.Errorf("FindAppPasswords from %.40q = %v, want ErrBadCursor", bad, err)
		}
	}
}

// Each page looks at so many rows and no more, and says where the next one begins, even if it found nothing.
func TestFindIsBounded(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	for _, q := range []string{
		"INSERT INTO accounts (login, keyed) SELECT 'u' || to_char(n, 'FM00000'), 1 FROM generate_series(1, 4500) n",
		"INSERT INTO logins SELECT login, id FROM accounts",
		`INSERT INTO app_passwords (account_id, label, label_key, phc, origin, created_by, created_at, last_used_at, used_about)
			SELECT a.id, 'l' || n, 'l' || n, 'x', 'generated', CASE WHEN a.login = 'u04400' AND n = 5 THEN 'root' ELSE 'help' END, now() - interval '400 days',
				CASE WHEN a.id % 9 = 0 AND n = 1 THEN now() - interval '100 days' ELSE now() END, CASE WHEN a.id % 9 = 0 AND n = 1 THEN now() - interval '100 days' ELSE now() END
			FROM accounts a, generate_series(1, 10) n`,
		"ANALYZE",
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	for order, least := range map[auth.Order]int{auth.ByLogin: 3, auth.ByCreation: 3, auth.ByLastUse: 3, auth.ByExpiry: 3, auth.ByLabel: 1} {
		pages, found := 0, 0
		for after := ""; ; pages++ {
			p, err := s.FindAppPasswords(t.Context(), auth.AppPasswordFilter{By: "root"}, order, after, 100)
			if err != nil {
				t.Fatal(err)
			}
			found += len(p.AppPasswords)
			if after = p.Next; after == "" {
				break
			}
		}
		if found != 1 || pages+1 < least {
			t.Errorf("by %s: %d found on %d pages, want 1 on %d at least", order, found, pages+1, least)
		}
	}
	if got := findAll(t, s, auth.AppPasswordFilter{UnusedFor: 90 * 24 * time.Hour}, "", 77); len(got) != 500 {
		t.Errorf("%d unused ones found, want 500", len(got))
	}
	if got := findAll(t, s, auth.AppPasswordFilter{}, auth.ByLogin, 1000); len(got) != 45000 || !slices.IsSortedFunc(got, func(a, b string) int {
		return strings.Compare(a[:6], b[:6])
	}) {
		t.Errorf("%d found, sorted %v, want 45000 by login", len(got), false)
	}
}

// Uses that are noted change no index, but for one a week.
func TestUsesAreHOT(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	p := addAppPassword(t, s, "alice", "phone", tag(1, 1))
	about := func() (used, about time.Time) {
		if err := db.QueryRow("SELECT last_used_at, used_about FROM app_passwords WHERE id = $1", p.ID).Scan(&used, &about); err != nil {
			t.Fatal(err)
		}
		return used, about
	}
	start := time.Now().Add(-20 * 24 * time.Hour)
	use := func(at time.Time) {
		t.Helper()
		s.Record(auth.Attempt{At: at, AppPasswordID: p.ID, OK: true, Service: "imap", FrontEnd: "dovecot"})
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	use(start)
	used, first := about()
	if !used.Equal(first) {
		t.Errorf("used_about = %v at the first use, want %v", first, used)
	}
	use(start.Add(6 * 24 * time.Hour))
	if used, same := about(); !same.Equal(first) || !used.After(first) {
		t.Errorf("used_about = %v six days later, want it to stay %v", same, first)
	}
	use(start.Add(8 * 24 * time.Hour))
	if used, next := about(); !used.Equal(next) {
		t.Errorf("used_about = %v eight days later, want %v", next, used)
	}
	for i := range 20 {
		use(start.Add(8*24*time.Hour + time.Duration(i+1)*time.Hour))
	}
	eventually(t, "Postgres has counted", func() bool {
		var all, hot int
		if err := db.QueryRow("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'app_passwords'").Scan(&all, &hot); err != nil {
			t.Fatal(err)
		}
		return all == 23 && hot == 21
	})
}

func TestRevokeAppPasswords(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	for i := range 3 {
		login := fmt.Sprint("user", i)
		addAccount(t, s, login)
		for j := range 100 {
			addAppPassword(t, s, login, fmt.Sprint("l", j), tag(1, uint16(j)), func(n *auth.NewAppPassword) {
				n.Services, n.LimitPerAccount = []string{[]string{"imap", "wiki"}[j%2]}, 1000
			})
		}
	}
	_, old := rotate(t, s, "user1", "l1", 5000, time.Now().Add(time.Hour))
	f := auth.AppPasswordFilter{Service: "wiki"}
	seen, err := s.FindAppPasswords(t.Context(), f, "", "", 1)
	if err != nil {
		t.Fatal(err)
	}
	f.AsOf = seen.AsOf
	addAppPassword(t, s, "user2", "made since", tag(1, 6000), func(n *auth.NewAppPassword) { n.Services, n.LimitPerAccount = []string{"wiki"}, 1000 })
	got := 0
	for after := ""; ; {
		p, err := s.RevokeAppPasswords(t.Context(), f, after, 0, "closed", "root")
		if err != nil || len(p.AppPasswords) > 101 {
			t.Fatalf("RevokeAppPasswords = %d, %v, want 101 at most", len(p.AppPasswords), err)
		}
		for _, x := range p.AppPasswords {
			got++
			if x.Live() || x.RevokedBy != "root" || x.RevokedWhy != "closed" || !slices.Contains(x.Services, "wiki") || !strings.HasPrefix(x.Login, "user") {
				t.Errorf("RevokeAppPasswords revoked %+v", x)
			}
		}
		if after = p.Next; after == "" {
			break
		}
	}
	if got != 151 {
		t.Errorf("%d revoked, want 151: 150 and the old secret of one", got)
	}
	if n := count(t, db, "SELECT count(*) FROM events WHERE kind = 'app_password.revoked' AND actor = 'root' AND login LIKE 'user%'"); n != 151 {
		t.Errorf("%d events, want 151", n)
	}
	if n := count(t, db, "SELECT count(*) FROM app_passwords WHERE revoked_at IS NULL"); n != 151 {
		t.Errorf("%d live, want 151: 150 of another service, and one made since", n)
	}
	if c := candidate(t, s, "user1", 1); !c.Revoked || c.ID != old.ID {
		t.Errorf("the old secret beside a revoked one = %+v, want it revoked", c)
	}
	if p, err := s.RevokeAppPasswords(t.Context(), f, "", 0, "closed", "root"); err != nil || len(p.AppPasswords) != 0 {
		t.Errorf("the same again = %d, %v, want nothing", len(p.AppPasswords), err)
	}
}
