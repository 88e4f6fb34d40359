package plugintest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin"
)

func build(t *testing.T, flags ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "fake")
	args := append(append([]string{"build"}, flags...), "-o", bin, "../host/testdata/fake")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("building the fake plugin: %v\n%s", err, out)
	}
	return bin
}

var good = []Account{
	{Login: "alice", Want: plugin.Enrolled},
	{Login: "bob", Want: plugin.NotEnrolled},
	{Login: "carol", Want: plugin.Exempt},
	{Login: "dave", Want: plugin.AccountUnknown},
}

func TestGoodPlugin(t *testing.T) { Run(t, Config{Path: build(t), Accounts: good}) }

// Authors test with the race detector, which by itself keeps a program from ending for a second.
func TestGoodPluginWithRaceDetector(t *testing.T) {
	bin := build(t, "-race")
	for _, p := range promises {
		if p.name == "clean exit" {
			for _, problem := range p.broken(Config{Path: bin, Accounts: good}) {
				t.Error(problem)
			}
		}
	}
}

// The suite finds what it is there to find, and nothing else.
func TestFindsFaults(t *testing.T) {
	bin := build(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string // the promises that are broken
	}{
		{"wrong answer", Config{Path: bin, Accounts: []Account{{Login: "alice", Want: plugin.NotEnrolled}, {Login: "bob", Want: plugin.Enrolled}}},
			[]string{"answers", "unknown account", "bad input", "deadline", "concurrency", "noise", "clean exit"}},
		{"all the same", Config{Path: bin, Accounts: good[:1]}, []string{"accounts"}},
		{"everybody is let in", Config{Path: bin, Args: []string{"raw"}, Accounts: []Account{good[0], {Login: "reason", Want: plugin.NotEnrolled}}},
			[]string{"answers", "unknown account", "bad input", "concurrency"}},
		{"hangs", Config{Path: bin, Accounts: append(slices.Clone(good), Account{Login: "hangs", Want: plugin.Enrolled}), Within: 100 * time.Millisecond},
			[]string{"answers", "concurrency"}},
		{"panics", Config{Path: bin, Accounts: append(slices.Clone(good), Account{Login: "panics", Want: plugin.Enrolled})},
			[]string{"answers", "concurrency"}},
		{"dies", Config{Path: bin, Accounts: append(slices.Clone(good), Account{Login: "exits", Want: plugin.Enrolled})},
			[]string{"answers", "concurrency"}},
		{"does not end", Config{Path: bin, Args: []string{"stubborn"}, Accounts: good}, []string{"clean exit"}},
		{"no plugin", Config{Path: script, Accounts: good}, nil},
	} {
		if tt.name == "no plugin" { // each promise waits for a start: one is enough
			if got := promises[len(promises)-1].broken(tt.cfg); len(got) == 0 || !strings.Contains(got[0].Error(), "does not end") {
				t.Errorf("%s: %v", tt.name, got)
			}
			continue
		}
		var broken []string
		for _, p := range promises {
			if problems := p.broken(tt.cfg); len(problems) > 0 {
				broken = append(broken, p.name)
			}
		}
		if !slices.Equal(broken, tt.want) {
			t.Errorf("%s: broken promises %q, want %q", tt.name, broken, tt.want)
		}
	}
}
