package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       map[string]plugin.Status
		err        string // part of it; empty: none
	}{
		{"plain", "alice\nbob\n", map[string]plugin.Status{"alice": plugin.Enrolled, "bob": plugin.Enrolled}, ""},
		{"comments and spaces", "# who\n\n  alice # since May\r\nprinter\texempt\r\n", map[string]plugin.Status{
			"alice": plugin.Enrolled, "printer": plugin.Exempt}, ""},
		{"normalised", "\ufeffAlice@Example.ORG\nÉlise\n", map[string]plugin.Status{"alice@example.org": plugin.Enrolled, "élise": plugin.Enrolled}, ""},
		{"no end of line", "alice", map[string]plugin.Status{"alice": plugin.Enrolled}, ""},
		{"twice the same", "alice\nALICE\n", map[string]plugin.Status{"alice": plugin.Enrolled}, ""},
		{"twice differently", "alice\nalice exempt\n", nil, "line 2"},
		{"empty", "", nil, "no login"},
		{"only comments", "# none yet\n", nil, "no login"},
		{"two words", "alice\nbob smith\n", nil, "line 2"},
		{"not a login", "alice\nb\x01b\n", nil, "line 2"},
		{"not UTF-8", "\xff\n", nil, "line 1"},
		{"endless line", strings.Repeat("x", 1<<17), nil, "too long"},
	} {
		got, err := parse([]byte(tt.text))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: parse = %v, %v, want an error with %q", tt.name, got, err, tt.err)
			}
			continue
		}
		if err != nil || len(got) != len(tt.want) {
			t.Errorf("%s: parse = %v, %v, want %v", tt.name, got, err, tt.want)
			continue
		}
		for login, status := range tt.want {
			if got[login] != status {
				t.Errorf("%s: parse: %s is %v, want %v", tt.name, login, got[login], status)
			}
		}
	}
}

// What is written is seen by the next Check, however fast it follows; a file that is gone or spoilt is an error, not a refusal.
func TestListFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	l, err := newList(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	is := func(when string, want plugin.Status) {
		t.Helper()
		a, err := l.Check(t.Context(), plugin.Request{Login: "alice"})
		if a.Status != want || (err != nil) != (want == 0) {
			t.Errorf("%s: Check = %v, %v, want %v", when, a.Status, err, want)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is("no file yet", 0)
	for range 20 { // the same size, within one tick of the file's time
		write("alice")
		is("listed", plugin.Enrolled)
		write("bobby")
		is("replaced", plugin.NotEnrolled)
	}
	write("")
	is("being written", 0)
	write("alice exempt\n")
	is("written", plugin.Exempt)
	write("alice exempt\nbob smith\n")
	is("spoilt", 0)
	write("alice\n")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	is("settled", plugin.Enrolled)
	if !l.settled {
		t.Error("a file of an hour ago is read at each check")
	}
	is("not read again", plugin.Enrolled)
	if err := os.WriteFile(path+".new", []byte("bobby\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path+".new", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	is("another file of the same size and time", plugin.NotEnrolled)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	is("gone", 0)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	is("a folder", 0)
}
