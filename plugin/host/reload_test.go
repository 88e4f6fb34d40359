package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A new policy holds from the next question on, and what is known stays known.
func TestSetPolicy(t *testing.T) {
	r := newRig(t, "", nil)
	is := func(when, login string, id int64, want bool, note string) {
		t.Helper()
		got, n, err := r.Enrolled(t.Context(), id, login, nil)
		if got != want || n != note || err != nil {
			t.Errorf("%s: Enrolled(%s) = %v, %q, %v, want %v, %q", when, login, got, n, err, want, note)
		}
	}
	is("login", "alice", 1, true, "")
	is("login", "bob", 2, false, "no_token")
	is("login", "nobody", 3, false, "account_unknown")
	if err := r.SetPolicy(Policy{Require: Issue}); err != nil {
		t.Fatal(err)
	}
	is("issue", "bob", 2, true, "")
	if may, err := r.MayIssue(t.Context(), 2, "bob"); err != nil || may.Allowed {
		t.Errorf("issue: MayIssue(bob) = %+v, %v, want a refusal", may, err)
	}
	if err := r.SetPolicy(Policy{Require: "always"}); err == nil {
		t.Error("SetPolicy of an unknown policy = nil, want an error")
	}
	is("after a policy that was refused", "bob", 2, true, "")
	if err := r.SetPolicy(Policy{Require: Login}); err != nil {
		t.Fatal(err)
	}
	calls := r.calls()
	is("login again", "bob", 2, false, "no_token")
	if now := r.calls(); now != calls {
		t.Errorf("the change of the policy cost %d questions", now-calls)
	}
}

// Accounts that are only about to be made have no number, and must not be taken for one account.
func TestUnnumbered(t *testing.T) {
	r := newRig(t, "", nil)
	r.up(t)
	var wg sync.WaitGroup
	for range 10 {
		for login, want := range map[string]bool{"alice": true, "bob": false, "carol": true, "nobody": false} {
			wg.Go(func() {
				if got, err := r.MayIssue(t.Context(), 0, login); err != nil || got.Allowed != want {
					t.Errorf("MayIssue(0, %s) = %+v, %v, want %v", login, got, err, want)
				}
			})
		}
	}
	wg.Wait()
	if s := r.Stats(); s.Known != 0 || s.Waiting != 0 {
		t.Errorf("Stats = %+v, want nothing kept", s)
	}
	for line := range strings.Lines(r.note(t, "calls")) {
		if !strings.HasPrefix(line, "0 ") {
			t.Errorf("the plugin was asked about %q, want number 0", line)
		}
	}
}

func TestStarted(t *testing.T) {
	for mode, want := range map[string]string{"": "", "slow": "", "exit": "Failed to read any lines", "garbage": "starting"} {
		r := newRig(t, mode, nil)
		err := r.Started(t.Context())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: Started = %v, want %q", mode, err, want)
		}
	}
	r := newRig(t, "silent", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Started(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Started without patience = %v, want %v", err, context.Canceled)
	}
}

func TestVerifyExported(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/true\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return path
	}
	good := write("good", 0o755)
	const sum = "26cb6ee3e6e65e05b6ec76bfd85c39a09eb60b3ccc76e5e8b6a5ab5b5de1c05b" // of something else
	for _, tt := range []struct{ name, path, sum, want string }{
		{"good", good, "", ""},
		{"relative", "good", "", "not absolute"},
		{"missing", filepath.Join(dir, "none"), "", "no such file"},
		{"folder", dir, "", "not a plain file"},
		{"not executable", write("text", 0o644), "", "run: chmod a+x"},
		{"written by others", write("open", 0o777), "", "run: chmod go-w"},
		{"short sum", good, "abc", "64 hexadecimal digits"},
		{"another sum", good, sum, "pin what sha256sum prints"},
	} {
		err := Verify(tt.path, tt.sum)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Verify = %v, want %q", tt.name, err, tt.want)
		}
	}
}
