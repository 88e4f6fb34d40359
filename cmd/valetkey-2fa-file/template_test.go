package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin"
)

func TestTemplatePath(t *testing.T) {
	for _, tt := range []struct{ template, login, want string }{ // empty: refused
		{"/home/%u/.secret", "alice", "/home/alice/.secret"},
		{"/home/%u/.secret", "alice@example.org", "/home/alice@example.org/.secret"},
		{"/home/%d/%n/.secret", "alice@example.org", "/home/example.org/alice/.secret"},
		{"/100%%/%n", "alice@example.org", "/100%/alice"},
		{"/home/%u", "-rf", "/home/-rf"},
		{"/home/%u", "%u", "/home/%u"},
		{"/home/%d/%n", "alice", ""},
		{"/home/%n", "@example.org", ""},
		{"/home/%u", "..", ""},
		{"/home/%u", ".", ""},
		{"/home/.%u", ".", ""},
		{"/home/%u", ".ssh", ""},
		{"/home/%u", "../root", ""},
		{"/home/%u", "alice/../root", ""},
		{"/home/%n", "..@example.org", ""},
		{"/home/%d/x", "alice@..", ""},
		{"/home/%d/x", "alice@../..", ""},
		{"/home/%u", "alice\x00", ""},
		{"/home/%u", "alice\n", ""},
		{"/home/%u", strings.Repeat("x", 256), ""},
	} {
		c, err := newTemplate(tt.template, "")
		if err != nil {
			// %d alone is refused, but what it does in a path is to be seen.
			c = &template{text: tt.template}
		}
		if got, ok := c.path(tt.login); got != tt.want || ok != (tt.want != "") {
			t.Errorf("path(%q) in %q = %q, %v, want %q", tt.login, tt.template, got, ok, tt.want)
		}
	}
}

func TestNewTemplate(t *testing.T) {
	for text, want := range map[string]string{
		"home/%u": "not an absolute path", "/home/x": "neither %u nor %n", "/home/%d": "neither %u nor %n", "/home/%": "followed by none",
		"/home/%u/%x": "followed by none", "/home/%%u": "neither %u nor %n", "/home/%u": "", "/%%/%n": "",
	} {
		_, err := newTemplate(text, "")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("newTemplate(%q) = %v, want %q", text, err, want)
		}
	}
}

func TestTemplateCheck(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		if err := os.Mkdir(filepath.Join(home, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	secret := func(name string) string { return filepath.Join(home, name, "secret") }
	if err := os.WriteFile(secret("alice"), []byte("JBSWY3DP\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret("carol"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(secret("dave"), 0o700); err != nil {
		t.Fatal(err)
	}
	denied := func(string) (os.FileInfo, error) {
		return nil, &os.PathError{Op: "stat", Path: "x", Err: syscall.EACCES}
	}
	for _, tt := range []struct {
		login, witness string
		stat           func(string) (os.FileInfo, error)
		want           plugin.Status // zero: an error
		reason         string
	}{
		{"alice", "", nil, plugin.Enrolled, "file"},
		{"bob", "", nil, plugin.NotEnrolled, "no_file"},
		{"bob", home, nil, plugin.NotEnrolled, "no_file"},
		{"bob", filepath.Join(home, "witness"), nil, 0, ""},
		{"carol", "", nil, plugin.NotEnrolled, "empty_file"},
		{"dave", "", nil, plugin.NotEnrolled, "not_a_file"},
		{"erin", "", nil, 0, ""}, // no home: perhaps it is not mounted
		{"alice", "", denied, 0, ""},
		{"bob", "", denied, 0, ""},
		{"../alice", "", nil, plugin.AccountUnknown, "odd_login"},
	} {
		c, err := newTemplate(home+"/%u/secret", tt.witness)
		if err != nil {
			t.Fatal(err)
		}
		if tt.stat != nil {
			c.stat = tt.stat
		}
		a, err := c.Check(t.Context(), plugin.Request{Login: tt.login})
		if a.Status != tt.want || a.ReasonCode != tt.reason || (err != nil) != (tt.want == 0) {
			t.Errorf("Check(%s) = %v %q, %v, want %v %q", tt.login, a.Status, a.ReasonCode, err, tt.want, tt.reason)
		}
	}
}

// A disk that does not answer holds a bounded number of checks; the others end with their context.
func TestStuckDisk(t *testing.T) {
	c, err := newTemplate("/home/%u", "")
	if err != nil {
		t.Fatal(err)
	}
	release, stuck := make(chan struct{}), make(chan struct{}, 100)
	c.stat = func(string) (os.FileInfo, error) {
		stuck <- struct{}{}
		<-release
		return nil, os.ErrPermission
	}
	ended := make(chan error, 100)
	for range parallel {
		go func() {
			_, err := c.Check(context.Background(), plugin.Request{Login: "alice"})
			ended <- err
		}()
	}
	for range parallel {
		<-stuck
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Check(ctx, plugin.Request{Login: "bob"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Check with all slots taken = %v, want context.DeadlineExceeded", err)
	}
	close(release)
	for range parallel {
		<-ended
	}
}
