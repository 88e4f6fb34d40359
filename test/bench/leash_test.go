package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/store/storetest"
)

// TestMain lets the leash start this test program as it starts the bench.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == leashCommand {
		if leash(os.Args[2:]) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	storetest.Main(m)
}

func TestLeashEndsWhatWentIntoTheBackground(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	p, err := startLeashed(dir, "server", "/bin/sh", "-c",
		`setsid sh -c 'trap "" HUP; sleep 60 & echo $! $$ >"$1.new"; mv "$1.new" "$1"; wait' sh "$1" & exit 0`, "sh", ready)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	err = p.ready(t.Context(), func() error {
		_, err := os.Stat(ready)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pids, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(descendants(p.pid)); n != 2 {
		t.Errorf("descendants of the leash: %d, want 2: the shell in the background and its child", n)
	}
	p.stop()
	for pid := range strings.FieldsSeq(string(pids)) {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s outlived its leash", pid)
			if n, err := strconv.Atoi(pid); err == nil {
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
	}
}

func TestLeashEndsWithItsProgram(t *testing.T) {
	p, err := startLeashed(t.TempDir(), "server", "/bin/sh", "-c", "echo 'cannot start'; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the leash outlived its program")
	}
	if got := p.lastWords(); got != "cannot start\n" {
		t.Errorf("lastWords = %q, want the program's", got)
	}
}
