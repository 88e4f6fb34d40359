package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/plugin"
	"github.com/valetkey/valetkey/plugin/plugintest"
)

func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "valetkey-2fa-file")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return bin
}

func TestPlugin(t *testing.T) {
	bin, dir := build(t), t.TempDir()
	for name, text := range map[string]string{
		"list": "Alice\nprinter exempt\n", "home/alice/.google_authenticator": "JBSWY3DPEHPK3PXP\n", "home/bob/.bashrc": "x",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("list", func(t *testing.T) {
		plugintest.Run(t, plugintest.Config{Path: bin, Args: []string{"-list", dir + "/list", "-valid-for", "5m"}, Accounts: []plugintest.Account{
			{Login: "alice", Want: plugin.Enrolled}, {Login: "bob", Want: plugin.NotEnrolled}, {Login: "printer", Want: plugin.Exempt},
		}})
	})
	t.Run("path", func(t *testing.T) {
		plugintest.Run(t, plugintest.Config{Path: bin, Args: []string{"-path", dir + "/home/%u/.google_authenticator"}, Unknown: "../nobody",
			Accounts: []plugintest.Account{{Login: "alice", Want: plugin.Enrolled}, {Login: "bob", Want: plugin.NotEnrolled}}})
	})

	// By hand.
	list := dir + "/list"
	for _, tt := range []struct {
		args   string
		status int
		out    string // all of standard output, or a part of standard error
	}{
		{"-list " + list + " -check ALICE", 0, "alice: enrolled (listed)\n"},
		{"-list " + list + " -check bob", 0, "bob: not_enrolled (not_listed)\n"},
		{"-path " + dir + "/home/%u/.google_authenticator -check alice", 0, "alice: enrolled (file)\n"},
		{"-list " + dir + "/none -check bob", 1, "no such file"},
		{"-list list", 2, "not absolute"},
		{"", 2, "either -list or -path"},
		{"-list " + list + " -path /x/%u", 2, "either -list or -path"},
		{"-list " + list + " -witness /x", 2, "-witness belongs to -path"},
		{"-list " + list + " -valid-for -1s", 2, "negative"},
		{"-list " + list + " extra", 2, "unexpected argument"},
		{"-list " + list, 1, "valetkeyd starts"},
	} {
		cmd := exec.Command(bin, strings.Fields(tt.args)...)
		var out, errOut strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errOut
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != tt.status {
			t.Errorf("%q: exit status %d, want %d; it printed %q", tt.args, got, tt.status, errOut.String())
		}
		if tt.status == 0 && out.String() != tt.out || tt.status != 0 && !strings.Contains(errOut.String(), tt.out) {
			t.Errorf("%q: printed %q and %q, want %q", tt.args, out.String(), errOut.String(), tt.out)
		}
	}
}
