package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRunCheckpassword runs a program that checks one login by itself.
func TestRunCheckpassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	const script = `#!/bin/sh
login=$(tr '\0' '\n' <&3)
test "$login" = "alice
abcd-efgh" || exit 1
exec "$@"
`
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		argv []string
		cred credential
		want int
	}{
		{"accepted", []string{path, "/bin/true"}, credential{"alice", "abcd-efgh"}, 0},
		{"the next program's exit code", []string{path, "/bin/sh", "-c", "exit 7"}, credential{"alice", "abcd-efgh"}, 7},
		{"rejected", []string{path, "/bin/true"}, credential{"alice", "abcd-efgi"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, cpu, err := runCheckpassword(c.argv, c.cred)
			if code != c.want || err != nil {
				t.Errorf("runCheckpassword = %d, %v, want %d", code, err, c.want)
			}
			if cpu <= 0 {
				t.Errorf("CPU time %v, want some", cpu)
			}
		})
	}
	if _, _, err := runCheckpassword([]string{path + ".none"}, credential{}); err == nil {
		t.Error("runCheckpassword of no program = nil, want an error")
	}
}

func TestHelperCheck(t *testing.T) {
	for _, c := range []struct {
		helper, empty time.Duration
		met           bool
		got           string
	}{
		{3500 * time.Microsecond, 1300 * time.Microsecond, true, "2.20 ms (3.50 and 1.30, means of 300)"},
		{4 * time.Millisecond, time.Millisecond, true, "3.00 ms (4.00 and 1.00, means of 300)"},
		{4001 * time.Microsecond, time.Millisecond, false, "3.00 ms (4.00 and 1.00, means of 300)"},
	} {
		if got := helperCheck(c.helper, c.empty, 300); got.Met != c.met || got.Got != c.got || !got.Timed {
			t.Errorf("helperCheck(%v, %v) = %+v, want met %v, got %q, timed", c.helper, c.empty, got, c.met, c.got)
		}
	}
}
