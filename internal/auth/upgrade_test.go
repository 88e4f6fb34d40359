package auth_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// fakeUpgrade replaces everything that does not begin with "phc:new". It keeps what it was asked.
type fakeUpgrade struct {
	mu       sync.Mutex
	replaced []string // "id old new"
	hashing  chan struct{}
	err      error
	lost     bool // somebody was faster
	panics   bool
}

func (f *fakeUpgrade) Replaceable(phc, _ string) bool { return !strings.HasPrefix(phc, "phc:new") }

func (f *fakeUpgrade) Hash(password string) string {
	if f.hashing != nil {
		<-f.hashing
	}
	return "phc:new" + password
}

func (f *fakeUpgrade) ReplacePHC(_ context.Context, id int64, old, new string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panics {
		panic("a fault of the driver")
	}
	f.replaced = append(f.replaced, old+" "+new)
	return !f.lost, f.err
}

func (f *fakeUpgrade) calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.replaced...)
}

// upgrading is alice with these rows, and a replacement behind the logins. Each login must be made in a bubble of synctest.
func upgrading(t *testing.T, u *fakeUpgrade, candidates ...auth.Candidate) *fixture {
	t.Helper()
	f := newFixture(t, nil)
	f.alice.Candidates = candidates
	f.Authenticator = auth.New(auth.Config{Rows: f.rows, Secrets: f.secrets, Enrolment: f.enrolment, Log: f.logger(), Upgrade: u})
	t.Cleanup(f.Close)
	return f
}

func (f *fixture) login(password string) bool {
	f.t.Helper()
	d, err := f.Authenticate(f.t.Context(), auth.Request{Login: "alice", Password: password, Service: "imap"})
	if err != nil {
		f.t.Fatal(err)
	}
	return d.OK
}

// TestUpgrade would catch: a hash that is replaced although the login was refused, one of a generated row, one that is replaced by that
// of another password, and a login after it that computes a slow hash although the password is known.
func TestUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpgrade{}
		revoked := imported(3, "revoked one")
		revoked.Revoked = true
		f := upgrading(t, u, imported(1, "old one"), generated(2, "abcdefghijklmnop"), revoked)
		for password, want := range map[string]bool{"wrong": false, "revoked one": false, "abcdefghijklmnop": true} {
			if got := f.login(password); got != want {
				t.Errorf("login with %q = %v, want %v", password, got, want)
			}
		}
		synctest.Wait()
		f.enrolment.enrolled = false
		f.login("old one")
		f.enrolment.enrolled = true
		synctest.Wait()
		if got := u.calls(); len(got) != 0 {
			t.Fatalf("replaced %q, want nothing yet", got)
		}
		f.login("old one")
		synctest.Wait()
		f.login("old one")
		synctest.Wait()
		got := u.calls()
		if len(got) != 2 || got[0] != "phc:old one phc:newold one" { // the second because the row of this test stays as it was
			t.Fatalf("replaced %q, want the old hash by one of the password", got)
		}

		// The row has the new hash now, which the memo knows, and the fake could not verify.
		f.alice.Candidates[0].PHC = "phc:newold one"
		f.secrets.calls() // those before
		if !f.login("old one") {
			t.Error("the login after the replacement failed")
		}
		if n := f.secrets.calls(); n != 0 {
			t.Errorf("the login after the replacement computed %d hashes, want none", n)
		}
		synctest.Wait()
		if len(u.calls()) != 2 {
			t.Error("our own hash was replaced")
		}
	})
}

// A login never waits for a replacement, whatever it does, and the passwords that wait for one are bounded.
func TestUpgradeNeverDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpgrade{hashing: make(chan struct{})}
		const rows = 400
		var candidates []auth.Candidate
		for i := range rows {
			candidates = append(candidates, imported(int64(i+1), "password "+strings.Repeat("x", i)))
		}
		f := upgrading(t, u)
		for i := range rows { // an account with one row at a time
			f.alice.Candidates = candidates[i : i+1]
			for range 2 {
				if !f.login("password " + strings.Repeat("x", i)) {
					t.Fatalf("login %d failed", i)
				}
			}
		}
		close(u.hashing)
		synctest.Wait()
		if n := len(u.calls()); n < 256 || n > 257 {
			t.Errorf("%d hashes were replaced, want those that found room: 256, and the one at work", n)
		}
	})
}

// What the database says does not reach the login. A row that somebody changed meanwhile is left alone: the memo learns nothing.
func TestUpgradeFails(t *testing.T) {
	for name, u := range map[string]*fakeUpgrade{"error": {err: errors.New("read-only transaction")}, "changed meanwhile": {lost: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := upgrading(t, u, imported(1, "old one"))
				for range 2 {
					if !f.login("old one") {
						t.Error("the login failed")
					}
					synctest.Wait()
				}
				if n := len(u.calls()); n != 2 {
					t.Errorf("it was tried %d times, want at each login", n)
				}
				f.alice.Candidates[0].PHC = "phc:newold one"
				if f.login("old one") {
					t.Error("the memo knows a hash that was never stored")
				}
			})
		})
	}
}

// A password waits for the replacement of its hash for half a minute at most, also where every turn comes late.
func TestUpgradeForgetsPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpgrade{hashing: make(chan struct{})}
		f := upgrading(t, u, imported(1, "first one"), imported(2, "second one"))
		f.login("first one")
		synctest.Wait() // at work
		f.login("second one")
		time.Sleep(time.Minute)
		close(u.hashing)
		synctest.Wait()
		if got := u.calls(); len(got) != 1 || got[0] != "phc:first one phc:newfirst one" {
			t.Errorf("replaced %q, want the first only: the second has waited for a minute", got)
		}
		f.login("second one")
		synctest.Wait()
		if got := u.calls(); len(got) != 2 {
			t.Errorf("replaced %q, want the second after its next login", got)
		}
	})
}

// What goes wrong in a replacement is not the end of the daemon.
func TestUpgradePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpgrade{panics: true}
		f := upgrading(t, u, imported(1, "first one"))
		f.login("first one")
		synctest.Wait()
		if lines := f.lines(); !strings.Contains(lines, "panic") || strings.Contains(lines, "first one") {
			t.Errorf("logged %q, want the panic, without the password", lines)
		}
		u.panics = false
		f.login("first one")
		synctest.Wait()
		if got := u.calls(); len(got) != 1 {
			t.Errorf("replaced %q, want it after the next login", got)
		}
	})
}
