package host

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin"
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestValidFor(t *testing.T) {
	for _, tt := range []struct {
		status     plugin.Status
		says, want time.Duration
	}{
		{plugin.Enrolled, 0, time.Minute},
		{plugin.Enrolled, time.Nanosecond, time.Second},
		{plugin.Enrolled, 5 * time.Minute, 5 * time.Minute},
		{plugin.Enrolled, 24 * time.Hour, 15 * time.Minute},
		{plugin.Exempt, 24 * time.Hour, 15 * time.Minute},
		{plugin.NotEnrolled, 0, 10 * time.Second},
		{plugin.NotEnrolled, 24 * time.Hour, 30 * time.Second},
		{plugin.NotEnrolled, time.Nanosecond, time.Second},
		{plugin.AccountUnknown, 24 * time.Hour, 30 * time.Second},
	} {
		if got := validFor(plugin.Answer{Status: tt.status, ValidFor: tt.says}); got != tt.want {
			t.Errorf("validFor(%v, %v) = %v, want %v", tt.status, tt.says, got, tt.want)
		}
	}
}

func TestCacheBound(t *testing.T) {
	c := newCache(3)
	for id := range int64(3) {
		c.put(&entry{account: id})
	}
	c.get(0) // now 1 is the one not looked up for longest
	c.put(&entry{account: 3})
	c.put(&entry{account: 3})
	for id, want := range []bool{true, false, true, true} {
		if got := c.get(int64(id)) != nil; got != want {
			t.Errorf("get(%d) found = %v, want %v", id, got, want)
		}
	}
	if len(c.entries) != 3 || c.recent.Len() != 3 {
		t.Errorf("%d and %d entries, want 3", len(c.entries), c.recent.Len())
	}
}

func TestBreaker(t *testing.T) {
	c := newClock()
	b := &breaker{now: c.Now}
	for n := range breakAfter {
		if !b.pass() {
			t.Fatalf("closed after %d failures", n)
		}
		b.note(false)
	}
	if b.pass() || !b.open() {
		t.Error("passes right after the last failure")
	}
	c.add(breakRetry)
	if !b.pass() {
		t.Error("no question passes after the interval")
	}
	if b.pass() {
		t.Error("a second question passes within the interval")
	}
	b.note(false)
	if b.pass() {
		t.Error("passes after the trial failed")
	}
	c.add(-time.Hour)
	if !b.pass() {
		t.Error("a clock that went back keeps it open")
	}
	b.note(true)
	if !b.pass() || !b.pass() || b.open() {
		t.Error("still open after a success")
	}
}

func TestBackoff(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 5: 1600 * time.Millisecond, 9: 25600 * time.Millisecond,
		10: 30 * time.Second, 1 << 40: 30 * time.Second,
	} {
		if got := backoff(failures); got != want {
			t.Errorf("backoff(%d) = %v, want %v", failures, got, want)
		}
	}
}

func TestWithoutPlugin(t *testing.T) {
	now := newClock().now
	problem := errors.New("away")
	at := func(s plugin.Status, age time.Duration) *entry {
		return &entry{answer: plugin.Answer{Status: s}, at: now.Add(-age), until: now.Add(-age + time.Second)}
	}
	for _, tt := range []struct {
		name    string
		known   *entry
		onError OnError
		want    Source // empty: undecided
	}{
		{"nothing known", nil, LastKnown, ""},
		{"nothing known", nil, Undecided, ""},
		{"nothing known", nil, Allow, FromAllow},
		{"enrolled", at(plugin.Enrolled, time.Hour), LastKnown, FromLastKnown},
		{"enrolled", at(plugin.Enrolled, time.Hour), Undecided, ""},
		{"enrolled", at(plugin.Enrolled, time.Hour), Allow, FromLastKnown},
		{"exempt", at(plugin.Exempt, time.Hour), LastKnown, FromLastKnown},
		{"just in time", at(plugin.Enrolled, 24*time.Hour), LastKnown, FromLastKnown},
		{"too long ago", at(plugin.Enrolled, 24*time.Hour+1), LastKnown, ""},
		{"too long ago", at(plugin.Enrolled, 24*time.Hour+1), Allow, FromAllow},
		{"in the future", at(plugin.Enrolled, -time.Hour), LastKnown, ""},
		{"refused", at(plugin.NotEnrolled, time.Hour), LastKnown, ""},
		{"refused", at(plugin.NotEnrolled, time.Hour), Allow, ""},
		{"unknown there", at(plugin.AccountUnknown, time.Hour), Allow, ""},
		{"refused in the future", at(plugin.NotEnrolled, -time.Hour), Allow, ""},
		{"refused long ago", at(plugin.NotEnrolled, 25*time.Hour), Allow, FromAllow},
	} {
		p := Policy{OnError: tt.onError}
		if err := p.complete(); err != nil {
			t.Fatal(err)
		}
		r, err := p.withoutPlugin(tt.known, now, problem)
		switch {
		case tt.want == "" && (r.Allowed || !errors.Is(err, problem)):
			t.Errorf("%s, %s: %+v, %v, want undecided", tt.name, tt.onError, r, err)
		case tt.want != "" && (!r.Allowed || err != nil || r.Source != tt.want || r.Problem == nil):
			t.Errorf("%s, %s: %+v, %v, want it allowed by %s", tt.name, tt.onError, r, err, tt.want)
		}
	}
}

// Losing the second factor refuses once the answer has run out; an outage never makes a refusal of it, nor a pass.
func TestPolicyOverTime(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "plugin")
	program, err := os.ReadFile(fake)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "", func(cfg *Config) { cfg.Now, cfg.Path = c.Now, path })
	pid := r.up(t).PID
	is := func(when, login string, id int64, want bool, wantErr bool) {
		t.Helper()
		got, _, err := r.Enrolled(t.Context(), id, login, nil)
		if got != want || (err != nil) != wantErr {
			t.Errorf("%s: Enrolled(%s) = %v, %v, want %v, error %v", when, login, got, err, want, wantErr)
		}
	}
	is("at first", "alice", 1, true, false)
	is("the answer holds", "bob", 1, true, false) // the same account, by another name: the cache answers
	c.add(59 * time.Second)
	is("still", "bob", 1, true, false)
	c.add(time.Second)
	is("it ran out", "bob", 1, false, false)
	is("enrolled, but the refusal holds", "alice", 1, false, false)
	if res, err := r.MayIssue(t.Context(), 1, "alice"); err != nil || !res.Allowed {
		t.Errorf("MayIssue = %+v, %v, want a new answer", res, err)
	}
	is("and logins know it", "bob", 1, true, false)
	is("a refusal", "bob", 2, false, false)
	r.Forget(1)
	is("forgotten", "bob", 1, false, false)
	r.Forget(1)
	is("forgotten", "alice", 1, true, false)

	// It dies, and the program is gone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "it is down", func() bool { return strings.Contains(r.Stats().Problem, "looking for the plugin") })
	is("down, answer holds", "alice", 1, true, false)
	is("down, refusal holds", "bob", 2, false, false)
	c.add(time.Hour)
	is("down, known", "alice", 1, true, false)
	is("down, refusal ran out", "bob", 2, false, true)
	is("down, not known", "alice", 3, false, true)
	c.add(24 * time.Hour)
	is("down for too long", "alice", 1, false, true)
	if r.Stats().Fallback != 1 {
		t.Errorf("Fallback = %d, want 1", r.Stats().Fallback)
	}
}

func TestRequire(t *testing.T) {
	for _, tt := range []struct {
		require      Require
		login, issue bool // what bob, who is not enrolled, may
	}{{Login, false, false}, {Issue, true, false}, {Off, true, true}} {
		r := newRig(t, "", func(c *Config) { c.Policy.Require = tt.require })
		login, _, err := r.Enrolled(t.Context(), 1, "bob", nil)
		if err != nil || login != tt.login {
			t.Errorf("%s: Enrolled = %v, %v, want %v", tt.require, login, err, tt.login)
		}
		issue, err := r.MayIssue(t.Context(), 1, "bob")
		if err != nil || issue.Allowed != tt.issue {
			t.Errorf("%s: MayIssue = %+v, %v, want %v", tt.require, issue, err, tt.issue)
		}
	}
}

func TestConfig(t *testing.T) {
	good := Config{Path: "/usr/bin/true", Dir: "/run", Log: slog.New(slog.DiscardHandler)}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"relative path", func(c *Config) { c.Path = "plugin" }, "not absolute"},
		{"checksum", func(c *Config) { c.SHA256 = "abc" }, "64 hexadecimal digits"},
		{"long folder", func(c *Config) { c.Dir = "/" + strings.Repeat("d", 50) }, "at most 48 bytes"},
		{"environment", func(c *Config) { c.Env = []string{"NOVALUE"} }, "NAME=VALUE"},
		{"require", func(c *Config) { c.Policy.Require = "always" }, "issue, login or off"},
		{"on error", func(c *Config) { c.Policy.OnError = "deny" }, "last_known, undecided or allow"},
		{"keep", func(c *Config) { c.Policy.Keep = -1 }, "cannot be kept"},
	} {
		cfg := good
		tt.change(&cfg)
		h, err := New(cfg)
		if err == nil {
			_ = h.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// What is warm costs no question and next to no time.
func BenchmarkWarm(b *testing.B) {
	h := &Host{cfg: Config{Policy: Policy{Require: Login}, Now: time.Now}, cache: newCache(10)}
	now := time.Now()
	h.policy.Store(&h.cfg.Policy)
	h.cache.put(&entry{account: 1, answer: plugin.Answer{Status: plugin.Enrolled}, at: now, until: now.Add(time.Hour)})
	b.ReportAllocs()
	for b.Loop() {
		if ok, _, err := h.Enrolled(b.Context(), 1, "alice", nil); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
