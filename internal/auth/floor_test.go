package auth_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/throttle"
)

// evened is an Authenticator with a floor and the clock of the bubble that it is made in. alice has imported rows and an app password,
// each hash of which takes so long; of carol the lookup finds no row, as it does of an account that has only tagged ones.
func evened(f *fixture, hash time.Duration, edit func(*auth.Config)) (*auth.Authenticator, *auth.Floor) {
	f.secrets.hook = func(string) { time.Sleep(hash) }
	f.rows.accounts["carol"] = &auth.Found{AccountID: 8, Login: "carol", Enabled: true}
	cfg := auth.Config{Rows: f.rows, Secrets: f.secrets, Recorder: f.recorder, Floor: new(auth.Floor), Hashes: auth.NewAdmission(1, 100),
		Log: slog.New(slog.DiscardHandler)}
	if edit != nil {
		edit(&cfg)
	}
	return auth.New(cfg), cfg.Floor
}

// tried is how long an answer took, which must be as wanted.
func tried(t *testing.T, a *auth.Authenticator, req auth.Request, ok bool) time.Duration {
	t.Helper()
	begun := time.Now()
	d, err := a.Authenticate(t.Context(), req)
	if err != nil || d.OK != ok {
		t.Errorf("Authenticate(%q, %q) = %+v, %v, want OK = %v", req.Login, req.Password, d, err, ok)
	}
	return time.Since(begun)
}

// Whatever a refusal is for, and whatever it cost, the answer comes at the same moment.
func TestRefusalsTakeAlike(t *testing.T) {
	const hash = 22 * time.Millisecond
	for _, tt := range []struct {
		name string
		edit func(*auth.Config)
		req  func(auth.Request) auth.Request
		want time.Duration
	}{
		{"without a throttle", nil, func(r auth.Request) auth.Request { return r }, 100 * time.Millisecond},
		{"with a penalty", func(c *auth.Config) { c.Throttle = throttle.New(throttle.Config{}) }, func(r auth.Request) auth.Request {
			r.Holding = &auth.Holding{Limit: 100, FailureDelay: 15 * time.Second} // the longest, so that what was guessed before adds nothing
			return r
		}, 15 * time.Second},
		{"with no room for the penalty", func(c *auth.Config) { c.Throttle = throttle.New(throttle.Config{Held: 1}) }, func(r auth.Request) auth.Request {
			r.Holding = &auth.Holding{Limit: 1, FailureDelay: 15 * time.Second}
			r.Holding.Take()
			return r
		}, 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil, imported(2, chosen), but(imported(3, "an old one"), revoked))
				a, _ := evened(f, hash, tt.edit)
				for _, try := range []struct{ name, login, password string }{
					{"an unknown login", "nobody", "wrong"},
					{"no login at all", "a b", "wrong"},
					{"an account with tagged rows only", "carol", other},
					{"the same, and what cannot be an app password", "carol", "wrong"},
					{"an account with imported rows", "alice", "wrong"},
					{"the same again, which the memo knows", "alice", "wrong"},
					{"the same, and what looks like an app password", "alice", other},
					{"a revoked one", "alice", "an old one"},
				} {
					if took := tried(t, a, tt.req(request(try.login, try.password)), false); took != tt.want {
						t.Errorf("%s: answered after %v, want %v", try.name, took, tt.want)
					}
				}
				if n := f.secrets.calls(); n == 0 {
					t.Error("no slow hash was computed: this shows nothing")
				}
				for i, want := range []time.Duration{hash, 0} {
					if took := tried(t, a, tt.req(request("alice", chosen)), true); took != want {
						t.Errorf("the right password, login %d: after %v, want %v", i+1, took, want)
					}
				}
				if took := tried(t, a, tt.req(request("alice", "")), false); took != 0 {
					t.Errorf("no attempt at all: answered after %v, want at once", took)
				}
			})
		})
	}
}

// A site where wrong passwords cost no hash has nothing to hide.
func TestNoFloorWithoutNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		a, floor := evened(f, 0, nil)
		for _, tt := range []struct {
			need bool
			want time.Duration
		}{{false, 0}, {true, 100 * time.Millisecond}, {false, 0}} {
			floor.Need(tt.need)
			if took := tried(t, a, request("nobody", "wrong"), false); took != tt.want {
				t.Errorf("needed %v: after %v, want %v", tt.need, took, tt.want)
			}
		}
		for _, need := range []bool{true, false} {
			floor.Need(need)
			begun := time.Now()
			a.Refused(t.Context(), auth.Request{})
			if took := time.Since(begun); took != map[bool]time.Duration{true: 100 * time.Millisecond}[need] {
				t.Errorf("needed %v: refused by the front end after %v", need, took)
			}
		}
		f.alice.Candidates = []auth.Candidate{imported(2, chosen)} // since we were told that there are none
		for _, login := range []string{"alice", "nobody"} {
			if took := tried(t, a, request(login, "wrong"), false); took != 100*time.Millisecond {
				t.Errorf("%s is answered after %v, want 100ms", login, took)
			}
		}
	})
}

// The floor learns what a refusal with slow hashes takes here, and no more than it may be; what it takes to be accepted, or to be told from
// the memo, teaches it nothing.
func TestFloorLearns(t *testing.T) {
	ms := time.Millisecond
	for _, tt := range []struct {
		hash, want time.Duration
	}{{1 * ms, 100 * ms}, {37 * ms, 100 * ms}, {38 * ms, 200 * ms}, {60 * ms, 200 * ms}, {150 * ms, 400 * ms}, {3 * time.Second, 800 * ms}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, nil, imported(2, chosen), imported(3, "another")) // two hashes for each guess
			a, floor := evened(f, tt.hash, nil)
			tried(t, a, request("alice", chosen), true)
			tried(t, a, request("nobody", "wrong"), false)
			if floor.Time() != 100*ms {
				t.Errorf("hash of %v: the floor is %v before a refusal needed more", tt.hash, floor.Time())
			}
			tried(t, a, request("alice", "wrong"), false)
			if floor.Time() != tt.want {
				t.Errorf("hash of %v: the floor is %v, want %v", tt.hash, floor.Time(), tt.want)
			}
			if tt.want < 800*ms {
				for _, login := range []string{"nobody", "carol", "alice"} {
					if took := tried(t, a, request(login, "wrong again"), false); took != tt.want {
						t.Errorf("hash of %v: %s is answered after %v, want %v", tt.hash, login, took, tt.want)
					}
				}
			}
		})
	}
}

// What is not needed any more goes, by halves.
func TestFloorForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, imported(2, chosen))
		a, floor := evened(f, 0, nil)
		slow := 200 * time.Millisecond
		f.secrets.hook = func(string) { time.Sleep(slow) }
		tried(t, a, request("alice", "wrong"), false)
		slow = time.Millisecond
		for i, want := range []time.Duration{400, 200, 100, 100} {
			if floor.Time() != want*time.Millisecond {
				t.Errorf("after %d hours: %v, want %v", i, floor.Time(), want*time.Millisecond)
			}
			tried(t, a, request("alice", "wrong "+strings.Repeat("x", i)), false) // within the hour: nothing changes
			time.Sleep(time.Hour + time.Second)
			tried(t, a, request("alice", "wrong, too "+strings.Repeat("x", i)), false)
		}
	})
}

// On a connection whose requests wait for each other the floor takes a bounded share of the time, and a right password waits for a
// guess before it seldom and not for long.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, imported(2, chosen))
		a, _ := evened(f, 0, nil)
		var pace auth.Pace
		busy := time.Duration(0)
		begun := time.Now()
		for time.Since(begun) < time.Minute {
			req := request("nobody", "wrong")
			req.Pace = &pace
			busy += tried(t, a, req, false)
			time.Sleep(time.Millisecond)
		}
		if most := time.Minute/10 + time.Second; busy > most || busy < time.Minute/20 {
			t.Errorf("a storm of guesses held the connection for %v of a minute, want %v at most, and not nothing", busy, most)
		}
		time.Sleep(time.Minute)
		req := request("nobody", "wrong")
		req.Pace = &pace
		if took := tried(t, a, req, false); took != 100*time.Millisecond {
			t.Errorf("after the storm: answered after %v, want 100ms", took)
		}
	})
}

type countingHolder int

func (h *countingHolder) Held() { *h++ }

// The front end is told once, whichever of the two holds the answer back. When it stops, the answer goes out.
func TestFloorAndFrontEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		a, _ := evened(f, 0, func(c *auth.Config) { c.Throttle = throttle.New(throttle.Config{}) })
		stopping := make(chan struct{})
		for _, delay := range []time.Duration{0, time.Millisecond, time.Second} {
			req := request("nobody", "wrong")
			told := countingHolder(0)
			req.Holder, req.Holding = &told, &auth.Holding{Limit: 1, FailureDelay: delay, Stopping: stopping}
			if tried(t, a, req, false); told != 1 {
				t.Errorf("failure delay %v: told %d times, want once", delay, told)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ended, end := context.WithCancel(t.Context())
		end()
		close(stopping)
		for name, tt := range map[string]struct {
			ctx  context.Context
			want time.Duration
		}{"stopping": {t.Context(), 0}, "a deadline that leaves the time": {ctx, 0}, "a caller who is gone": {ended, 0}} {
			req := fromElsewhere(request("nobody", "wrong"))
			if name != "a caller who is gone" {
				req.Holding = &auth.Holding{Limit: 1, Stopping: stopping}
			}
			begun := time.Now()
			a.Authenticate(tt.ctx, req)
			if took := time.Since(begun); took != tt.want {
				t.Errorf("%s: answered after %v, want %v", name, took, tt.want)
			}
		}
	})
}
