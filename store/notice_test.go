package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

// told takes all notices that are due for the target, and returns them as "kind login/label" in the order of their events.
func told(t *testing.T, s *store.Store, target string) []string {
	t.Helper()
	taken, err := s.TakeNotices(t.Context(), []auth.NoticeSlots{{Target: target, Free: 100}}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range taken {
		list = append(list, fmt.Sprintf("%s %s/%s", n.Kind, n.Login, n.Label))
		if err := s.FinishNotice(t.Context(), n, "sent"); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func register(t *testing.T, s *store.Store, daemon string, targets ...auth.NoticeTarget) {
	t.Helper()
	if err := s.SetNoticeTargets(t.Context(), daemon, targets); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: notices %q, want %q", what, got, want)
	}
}

// Every event of a kind that somebody wants becomes a notice for each who wants it, in the transaction of the event.
func TestNoticesOfEvents(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "before", tag(1, 1)) // nobody wants to know
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: auth.NoticeKinds},
		auth.NoticeTarget{Name: "hook:kick", Kinds: []auth.NoticeKind{auth.NoticeRevoked, auth.NoticeAccountDisabled, auth.NoticeAccountDeleted}})
	register(t, s, "two", auth.NoticeTarget{Name: "mail", Kinds: []auth.NoticeKind{auth.NoticeCreated}}) // no second notice

	addAppPassword(t, s, "alice", "phone", tag(1, 2))
	addAppPassword(t, s, "alice", "imported", nil) // gives none
	for range 2 {                                  // the second time changes nothing
		if _, err := s.RevokeAppPassword(t.Context(), "alice", "phone", "lost", "admin"); err != nil {
			t.Fatal(err)
		}
	}
	off := false
	if _, err := s.ChangeAccount(t.Context(), "alice", auth.AccountChange{Enabled: &off}, "admin"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddAppPassword(t.Context(), newAppPassword("alice", "before", tag(1, 9))); !errors.Is(err, auth.ErrLabelTaken) {
		t.Fatal(err)
	}
	want(t, "mail", told(t, s, "mail"), "created alice/phone", "revoked alice/phone", "account_disabled alice/")
	want(t, "hook", told(t, s, "hook:kick"), "revoked alice/phone", "account_disabled alice/")
	want(t, "mail again", told(t, s, "mail"))

	if err := s.DeleteAccount(t.Context(), "alice", "admin"); err != nil {
		t.Fatal(err)
	}
	want(t, "hook after the account", told(t, s, "hook:kick"), "account_deleted alice/")
	told(t, s, "mail")

	// A daemon that wants nothing any more does not take away what another one wants.
	register(t, s, "one")
	addAccount(t, s, "bob")
	addAppPassword(t, s, "bob", "phone", tag(1, 3))
	want(t, "still wanted by the other", told(t, s, "mail"), "created bob/phone")
	// Nor does one count that has been silent for a day.
	if _, err := db.ExecContext(t.Context(), "UPDATE notice_targets SET seen_at = now() - interval '25 hours'"); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "bob", "tablet", tag(1, 4))
	want(t, "silent for a day", told(t, s, "mail"))
}

func TestNoticeLeases(t *testing.T) {
	s, url := storetest.New(t)
	db, ctx := storetest.DB(t, url), t.Context()
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: auth.NoticeKinds})
	if _, err := s.AddAccount(ctx, auth.NewAccount{Login: "alice", DisplayName: "Alice", Attributes: map[string][]string{"mail": {"a@example.org"}},
		Userdb: map[string]string{"quota": "1G"}}, "admin"); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	take := func() []auth.Notice {
		t.Helper()
		n, err := s.TakeNotices(ctx, []auth.NoticeSlots{{Target: "mail", Free: 10}, {Target: "hook:other", Free: 10}}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	pass := func() { // as if the time had come
		t.Helper()
		if _, err := db.ExecContext(ctx, "UPDATE notices SET due_at = now() WHERE done_at IS NULL"); err != nil {
			t.Fatal(err)
		}
	}
	first := take()
	if len(first) != 1 || first[0].Tries != 1 || first[0].Account == nil || first[0].Account.Attributes["mail"][0] != "a@example.org" ||
		first[0].Account.Userdb["quota"] != "1G" || first[0].Actor != "admin" || first[0].Detail["origin"] != "generated" {
		t.Fatalf("TakeNotices = %+v, want the one with its account", first)
	}
	if text, _ := json.Marshal(first); strings.Contains(string(text), "argon2") {
		t.Errorf("a notice holds a hash: %s", text)
	}
	if again := take(); len(again) != 0 {
		t.Errorf("TakeNotices during the lease = %+v, want none", again)
	}
	pass() // the daemon died: the lease ended
	second := take()
	if len(second) != 1 || second[0].Tries != 2 {
		t.Fatalf("TakeNotices after the lease = %+v, want the notice with its second try", second)
	}
	if err := s.FinishNotice(ctx, first[0], "sent"); !errors.Is(err, auth.ErrLeaseLost) {
		t.Errorf("FinishNotice with the lost lease = %v, want ErrLeaseLost", err)
	}
	if err := s.PostponeNotice(ctx, second[0], time.Hour, false); err != nil {
		t.Fatal(err)
	}
	if early := take(); len(early) != 0 {
		t.Errorf("TakeNotices before the hour = %+v, want none", early)
	}
	pass()
	third := take()
	if len(third) != 1 || third[0].Tries != 2 {
		t.Fatalf("TakeNotices after a postponement that does not count = %+v, want the second try again", third)
	}
	if err := s.FinishNotice(ctx, third[0], "sent"); err != nil {
		t.Fatal(err)
	}
	if account, all, same, err := s.SentNotices(ctx, third[0]); account != 1 || all != 1 || !same || err != nil {
		t.Errorf("SentNotices = %d, %d, %v, %v, want 1, 1, true", account, all, same, err)
	}
	q, err := s.NoticeQueue(ctx)
	if err != nil || q.Waiting != 0 || q.Outcomes["sent"] != 1 || !slices.Equal(q.Targets, []string{"mail"}) {
		t.Errorf("NoticeQueue = %+v, %v", q, err)
	}

	// What nobody takes ends by age, and what is done is deleted after a day.
	addAppPassword(t, s, "alice", "tablet", tag(1, 2))
	if q, err := s.NoticeQueue(ctx); err != nil || q.Waiting != 1 || q.Oldest.IsZero() {
		t.Errorf("NoticeQueue = %+v, %v, want one that waits", q, err)
	}
	if _, err := db.ExecContext(ctx, "UPDATE notices SET created_at = now() - interval '3 days', done_at = CASE WHEN done_at IS NOT NULL THEN now() - interval '25 hours' END"); err != nil {
		t.Fatal(err)
	}
	if old, err := s.PurgeNotices(ctx, 48*time.Hour); old != 1 || err != nil {
		t.Errorf("PurgeNotices = %d, %v, want 1", old, err)
	}
	if q, err := s.NoticeQueue(ctx); err != nil || q.Waiting != 0 || q.Outcomes["too_old"] != 1 || q.Outcomes["sent"] != 0 {
		t.Errorf("NoticeQueue = %+v, %v, want the old one ended and the done one gone", q, err)
	}
}

// Many takers at once never get the same notice.
func TestNoticesAreTakenOnce(t *testing.T) {
	s, url := storetest.New(t)
	other := storetest.Open(t, store.Config{URL: url})
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: auth.NoticeKinds})
	addAccount(t, s, "alice")
	const n = 20
	for i := range n {
		addAppPassword(t, s, "alice", fmt.Sprint("phone ", i), tag(1, uint16(i)))
	}
	var mu sync.Mutex
	times := map[int64]int{}
	var wg sync.WaitGroup
	for i := range 6 {
		from := []*store.Store{s, other}[i%2]
		wg.Go(func() {
			for range 2 * n {
				taken, err := from.TakeNotices(t.Context(), []auth.NoticeSlots{{Target: "mail", Free: 2}}, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, x := range taken {
					times[x.ID]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(times) != n {
		t.Errorf("%d notices were taken, want %d", len(times), n)
	}
	for id, got := range times {
		if got != 1 {
			t.Errorf("notice %d was taken %d times", id, got)
		}
	}
}

func TestNoticesOfUse(t *testing.T) {
	s, db, c, p := recording(t)
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: auth.NoticeKinds})
	use := func(addr string) {
		s.Record(auth.Attempt{At: c.now(), AccountID: p.AccountID, AppPasswordID: p.ID, OK: true, Service: "imap", FrontEnd: "dovecot", Addr: netip.MustParseAddr(addr)})
	}
	settle := func(what string, want ...string) {
		t.Helper()
		var got []string
		flush(t, s)
		eventually(t, what+": what is pending is written", func() bool { return s.BookkeepingStats().Pending == 0 })
		eventually(t, fmt.Sprintf("%s: notices %q", what, want), func() bool {
			got = append(got, told(t, s, "mail")...)
			return len(got) >= len(want)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s: notices %q, want %q", what, got, want)
		}
	}
	use("192.0.2.1")
	settle("first use", "first_use alice/phone")
	use("192.0.2.200")
	settle("the same network")
	// The stranger's login comes between two of the owner, within the second.
	use("198.51.100.7")
	use("192.0.2.1")
	settle("a stranger in between", "new_network alice/phone")
	use("127.0.0.1")
	use("2001:db8:1:2::3")
	settle("another", "new_network alice/phone")
	c.add(2 * time.Hour)
	use("2001:db8:1:ffff::3")
	use("198.51.100.9")
	settle("known ones, after the memory has faded")

	var detail string
	if err := db.QueryRowContext(t.Context(), "SELECT detail FROM events WHERE kind = 'app_password.new_network' ORDER BY id LIMIT 1").Scan(&detail); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"address": "198.51.100.7"`, `"network": "198.51.100.0/24"`, `"service": "imap"`} {
		if !strings.Contains(detail, part) {
			t.Errorf("the event says %s, want %s in it", detail, part)
		}
	}

	// Nobody wants to know: nothing is kept.
	register(t, s, "one")
	use("203.0.113.1")
	settle("nobody wants to know")
	var kept int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM app_password_networks").Scan(&kept); err != nil || kept != 3 {
		t.Errorf("%d networks are kept (%v), want 3", kept, err)
	}
}

func TestTellExpiries(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: []auth.NoticeKind{auth.NoticeExpiresSoon}})
	addAccount(t, s, "alice")
	end := func(d time.Duration) func(*auth.NewAppPassword) {
		return func(n *auth.NewAppPassword) { n.ExpiresAt = time.Now().Add(d) }
	}
	addAppPassword(t, s, "alice", "soon", tag(1, 1), end(48*time.Hour))
	addAppPassword(t, s, "alice", "revoked", tag(1, 2), end(48*time.Hour))
	addAppPassword(t, s, "alice", "late", tag(1, 3), end(1000*time.Hour))
	addAppPassword(t, s, "alice", "never", tag(1, 4))
	older := func() {
		if _, err := db.ExecContext(t.Context(), "UPDATE app_passwords SET created_at = now() - interval '90 days'"); err != nil {
			t.Fatal(err)
		}
	}
	older()
	addAppPassword(t, s, "alice", "for a day", tag(1, 5), end(24*time.Hour)) // its life is shorter than the notice
	if _, err := s.RevokeAppPassword(t.Context(), "alice", "revoked", "", "admin"); err != nil {
		t.Fatal(err)
	}
	const week = 7 * 24 * time.Hour
	for i, want := range []int{2, 0} {
		if got, err := s.TellExpiries(t.Context(), week); got != want || err != nil {
			t.Errorf("TellExpiries, time %d = %d, %v, want %d", i+1, got, err, want)
		}
	}
	want(t, "week", told(t, s, "mail"), "expires_soon alice/soon")
	// Another end is another notice.
	if _, err := db.ExecContext(t.Context(), "UPDATE app_passwords SET expires_at = now() + interval '3 days' WHERE label = 'soon'"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.TellExpiries(t.Context(), week); got != 1 || err != nil {
		t.Errorf("TellExpiries after the end was moved = %d, %v, want 1", got, err)
	}
	want(t, "moved", told(t, s, "mail"), "expires_soon alice/soon")
}

// Of a secret that was rotated the user was told the end when it was, as of one that lives for a short time.
func TestTellExpiriesOfRotated(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: []auth.NoticeKind{auth.NoticeExpiresSoon}})
	addAccount(t, s, "alice")
	for i, label := range []string{"week", "quarter"} {
		addAppPassword(t, s, "alice", label, tag(1, uint16(i+1)))
		if _, err := db.ExecContext(t.Context(), "UPDATE app_passwords SET created_at = now() - interval '90 days'"); err != nil {
			t.Fatal(err)
		}
		keep := time.Now().Add(time.Duration(i*80+7) * 24 * time.Hour)
		if _, _, err := s.RotateAppPassword(t.Context(), "alice", label, auth.Rotation{PHC: phc, Tag: *tag(1, uint16(i+11)), KeepOldUntil: keep, By: "admin"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE app_passwords SET expires_at = expires_at - interval '80 days', replaced_at = replaced_at - interval '80 days'
		WHERE label = 'quarter' AND replaced_at IS NOT NULL`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.TellExpiries(t.Context(), 14*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	want(t, "after rotations", told(t, s, "mail"), "expires_soon alice/quarter")
}

// The table is bounded, and an event is written all the same.
func TestNoticesAreBounded(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: auth.NoticeKinds})
	addAccount(t, s, "alice")
	addAppPassword(t, s, "alice", "one", tag(1, 1))
	if _, err := db.ExecContext(t.Context(), "ALTER TABLE notices ALTER COLUMN id RESTART WITH 2000000"); err != nil {
		t.Fatal(err)
	}
	addAppPassword(t, s, "alice", "two", tag(1, 2))
	addAppPassword(t, s, "alice", "three", tag(1, 3))
	want(t, "full", told(t, s, "mail"), "created alice/one", "created alice/two")
	var events int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM events WHERE kind = 'app_password.created'").Scan(&events); err != nil || events != 3 {
		t.Errorf("%d events (%v), want 3", events, err)
	}
}

// A test goes the way of a real notice, to the one target, and is told from one.
func TestTestNotice(t *testing.T) {
	s, url := storetest.New(t)
	db, ctx := storetest.DB(t, url), t.Context()
	register(t, s, "one", auth.NoticeTarget{Name: "mail", Kinds: []auth.NoticeKind{auth.NoticeCreated, auth.NoticeRevoked}},
		auth.NoticeTarget{Name: "hook:kick", Kinds: []auth.NoticeKind{auth.NoticeRevoked}})
	register(t, s, "two", auth.NoticeTarget{Name: "mail", Kinds: []auth.NoticeKind{auth.NoticeCreated, auth.NoticeFirstUse}})
	addAccount(t, s, "alice", "al")
	if got, err := s.NoticeTargets(ctx); err != nil || fmt.Sprint(got) != "[{hook:kick [revoked]} {mail [created first_use revoked]}]" {
		t.Errorf("NoticeTargets = %v, %v", got, err)
	}
	if _, err := s.TestNotice(ctx, "nobody", "mail", auth.NoticeCreated, "root"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("TestNotice of nobody = %v, want ErrNoAccount", err)
	}
	for _, kind := range auth.NoticeKinds {
		x, err := s.TestNotice(ctx, "al", "mail", kind, "root")
		if err != nil || x.ID == 0 || x.Login != "alice" || x.Outcome != "" {
			t.Fatalf("TestNotice(%s) = %+v, %v", kind, x, err)
		}
		taken, err := s.TakeNotices(ctx, []auth.NoticeSlots{{Target: "mail", Free: 5}, {Target: "hook:kick", Free: 5}}, time.Minute)
		if err != nil || len(taken) != 1 || !taken[0].Test() || taken[0].ID != x.ID || taken[0].Kind != kind || taken[0].Account.Login != "alice" || taken[0].Actor != "root" {
			t.Fatalf("taken %+v, %v, want the test of %s alone", taken, err, kind)
		}
		n := taken[0]
		n.Problem = strings.Repeat("ä", 400)
		if err := s.FinishNotice(ctx, n, "failed"); err != nil {
			t.Fatal(err)
		}
		if got, err := s.NoticeTest(ctx, x.ID); err != nil || got.Outcome != "failed" || !strings.HasPrefix(n.Problem, got.Problem[:200]) || got.Target != "mail" || got.Kind != kind || got.Login != "alice" {
			t.Errorf("NoticeTest = %+v, %v", got, err)
		}
	}
	// Another notice is none of an admin's tests.
	addAppPassword(t, s, "alice", "phone", tag(1, 1))
	var id int64
	if err := db.QueryRowContext(ctx, "SELECT max(id) FROM notices").Scan(&id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.NoticeTest(ctx, id); !errors.Is(err, auth.ErrNoNotice) {
		t.Errorf("NoticeTest of a real one = %v, want ErrNoNotice", err)
	}
}
