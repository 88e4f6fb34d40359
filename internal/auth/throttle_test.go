package auth_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/throttle"
)

// throttled is an Authenticator with a real throttle and the clock of the bubble that it is made in.
func throttled(f *fixture, hashes *auth.Admission) (*auth.Authenticator, *throttle.Throttle) {
	th := throttle.New(throttle.Config{})
	return auth.New(auth.Config{Rows: f.rows, Secrets: f.secrets, Recorder: f.recorder, Strangers: strangers{f.recorder}, Throttle: th, Hashes: hashes,
		Log: slog.New(slog.DiscardHandler)}), th
}

// strangers takes attempts at unknown logins as if they were of an account with the id -1.
type strangers struct{ to *fakeRecorder }

func (s strangers) RecordStranger(login string, a auth.Attempt) {
	a.AccountID = -1
	if login != "nobody" {
		panic(login)
	}
	s.to.Record(a)
}

func holding(r auth.Request) auth.Request {
	r.Holding = &auth.Holding{Limit: 100}
	return r
}

// A guess is logged and recorded at once and answered late; meanwhile nothing is kept that others need. A right password is answered
// at once, whatever was counted.
func TestHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good), imported(2, chosen))
		a, _ := throttled(f, auth.NewAdmission(1, 1)) // one slow hash at a time: a held one would show
		try := func(login, password string) (auth.Decision, time.Duration) {
			begun := time.Now()
			d, err := a.Authenticate(t.Context(), holding(request(login, password)))
			if err != nil {
				t.Errorf("Authenticate(%q, %q) = %v", login, password, err)
			}
			return d, time.Since(begun)
		}
		for i, want := range []time.Duration{0, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
			if d, took := try("alice", "wrong"+strings.Repeat("x", i)); d.OK || took != want {
				t.Errorf("guess %d: %+v after %v, want it after %v", i+1, d, took, want)
			}
		}
		done := make(chan time.Duration)
		go func() {
			_, took := try("alice", "another wrong one")
			done <- took
		}()
		synctest.Wait() // it is held back now
		if n := len(f.recorder.attempts); n != 5 {
			t.Errorf("%d attempts are recorded, want 5: also the one whose answer is held back", n)
		}
		for _, password := range []string{good, chosen} {
			if d, took := try("alice", password); !d.OK || took != 0 {
				t.Errorf("the right password: %+v after %v, want it at once", d, took)
			}
		}
		if took := <-done; took != 15*time.Second {
			t.Errorf("the guess was held back for %v", took)
		}
		if d, took := try("nobody", good); d.OK || took == 0 {
			t.Errorf("an unknown login: %+v after %v", d, took)
		}
		if last := f.recorder.attempts[len(f.recorder.attempts)-1]; last.AccountID != -1 || last.Reason != auth.UnknownLogin {
			t.Errorf("recorded %+v, want the stranger", last)
		}
	})
}

// Whatever is not a guess of somebody with an address is answered at once, again and again.
func TestNotHeldBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*auth.Request)
		err  error
	}{
		{"no address", func(r *auth.Request) { r.Addr = netip.Addr{} }, nil},
		{"loopback", func(r *auth.Request) { r.Addr = netip.MustParseAddr("127.0.0.1") }, nil},
		{"loopback in IPv6", func(r *auth.Request) { r.Addr = netip.MustParseAddr("::ffff:127.0.0.1") }, nil},
		{"a listener that holds nothing back", func(r *auth.Request) { r.Holding = nil }, nil},
		{"undecided", func(*auth.Request) {}, errors.New("down")},
		{"empty password", func(r *auth.Request) { r.Password = "" }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil, generated(1, good))
				f.rows.err = tt.err
				a, th := throttled(f, nil)
				begun := time.Now()
				for i := range 20 {
					req := holding(request("alice", "wrong"+strings.Repeat("x", i)))
					tt.edit(&req)
					if _, err := a.Authenticate(t.Context(), req); (err != nil) != (tt.err != nil) {
						t.Errorf("Authenticate = %v", err)
					}
				}
				if took := time.Since(begun); took != 0 {
					t.Errorf("20 tries took %v", took)
				}
				if s := th.Stats(); s.Counted != 0 {
					t.Errorf("Stats = %+v, want nothing counted", s)
				}
			})
		})
	}
}

// Too many guesses at a time are undecided, without a lookup, and never "wrong password".
func TestThrottledIsUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		a, _ := throttled(f, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		const all = 100
		for i := range all {
			go func() {
				_, err := a.Authenticate(ctx, holding(request("alice", "wrong"+strings.Repeat("x", i))))
				ended <- err
			}()
			synctest.Wait()
		}
		refused := 0
		cancel() // the answers go out
		for range all {
			if err := <-ended; errors.Is(err, auth.ErrThrottled) {
				refused++
			} else if err != nil {
				t.Errorf("Authenticate = %v", err)
			}
		}
		if refused == 0 || len(f.rows.logins) != all-refused {
			t.Errorf("%d undecided, %d lookups, want no lookup for the undecided ones", refused, len(f.rows.logins))
		}
		if d, err := a.Authenticate(t.Context(), fromElsewhere(holding(request("alice", good)))); err != nil || !d.OK {
			t.Errorf("the right password from elsewhere: %+v, %v", d, err)
		}
	})
}

func fromElsewhere(r auth.Request) auth.Request {
	r.Addr = netip.MustParseAddr("198.51.100.2")
	return r
}

// The log's count= is the throttle's class: fail2ban must not ban for a device that repeats itself.
func TestCountInLog(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	a := auth.New(auth.Config{Rows: f.rows, Secrets: f.secrets, Log: f.logger(), Throttle: throttle.New(throttle.Config{}), Now: func() time.Time { return f.now }})
	for i, tt := range []struct{ password, want string }{
		{other, "reason=no_match count=yes"}, {other, "reason=no_match count=no"}, {"main", "reason=bad_format count=yes"}, {"main", "reason=bad_format count=no"},
		{other, "reason=no_match count=no"}, {other[1:] + "b", "reason=no_match count=yes"},
	} {
		req := request("alice", tt.password)
		req.Holding = &auth.Holding{} // which has no room to hold anything back
		a.Authenticate(t.Context(), req)
		if line := f.lines(); !strings.HasPrefix(line, "<6>auth: result=fail rip=192.0.2.7 "+tt.want+" proto=dovecot") {
			t.Errorf("try %d: logged %q, want %s", i+1, line, tt.want)
		}
	}
}
