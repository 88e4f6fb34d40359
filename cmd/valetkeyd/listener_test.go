package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/config"
)

func unixAddress(t *testing.T) config.Address {
	return config.Address{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
}

func TestUnixSocketHasItsMode(t *testing.T) {
	a := unixAddress(t)
	l, err := listen(a, permissions{mode: 0o640}, false)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(a.Address)
	if err != nil || info.Mode().Perm() != 0o640 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("Lstat = %v, %v, want a socket of mode 0640", info, err)
	}
	if others, _ := filepath.Glob(filepath.Dir(a.Address) + "/.*"); len(others) != 0 {
		t.Errorf("left behind: %v", others)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(a.Address); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat after Close = %v, want nothing there", err)
	}
}

func TestListenInAnothersPlace(t *testing.T) {
	a := unixAddress(t)
	first, err := listen(a, permissions{mode: 0o600}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(a, permissions{mode: 0o600}, false); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("listen where somebody listens = %v, want a refusal", err)
	}

	// At a reload ours gives way in one step, and does not take the new one's socket with it.
	second, err := listen(a, permissions{mode: 0o600}, true)
	if err != nil {
		t.Fatal(err)
	}
	first.keepFile()
	first.Close()
	c, err := net.Dial("unix", a.Address)
	if err != nil {
		t.Fatalf("Dial after the replacement = %v, want the new listener", err)
	}
	c.Close()

	// One that nobody listens on any more, as kill -9 leaves it, is replaced.
	second.keepFile()
	second.Close()
	third, err := listen(a, permissions{mode: 0o600}, false)
	if err != nil {
		t.Fatalf("listen over a stale socket = %v, want nil", err)
	}
	third.Close()
}

func TestListenRefusesAFile(t *testing.T) {
	a := unixAddress(t)
	if err := os.WriteFile(a.Address, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(a, permissions{mode: 0o600}, false); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("listen over a file = %v, want a refusal", err)
	}
	if text, err := os.ReadFile(a.Address); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v, want it untouched", text, err)
	}
}

func TestListenFaultsHaveHints(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, tc := range map[string]struct {
		a    config.Address
		p    permissions
		want string
	}{
		"port taken":        {config.Address{Network: "tcp", Address: busy.Addr().String()}, permissions{}, "ss -ltnp"},
		"directory missing": {config.Address{Network: "unix", Address: "/nonexistent/s"}, permissions{}, "make the directory first"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := listen(tc.a, tc.p, false)
			if err == nil || !strings.Contains(hintOf(err), tc.want) {
				t.Errorf("listen = %v, hint %q, want %q in the hint", err, hintOf(err), tc.want)
			}
		})
	}
	a := unixAddress(t)
	if _, err := listen(a, permissions{mode: 0o600, group: "no-such-group-here"}, false); err == nil {
		t.Error("listen with an unknown group = nil, want an error")
	}
	if entries, _ := os.ReadDir(filepath.Dir(a.Address)); len(entries) != 0 {
		t.Errorf("a failed listen left %v", entries)
	}
}
