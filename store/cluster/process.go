package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pidFile is what a postmaster writes into postmaster.pid (Postgres src/include/utils/pidfile.h).
type pidFile struct {
	pid    int
	status string // line 8: "starting", "ready", "stopping", "standby"
}

func readPidFile(dataDir string) (pidFile, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 1 {
		return pidFile{}, fmt.Errorf("%s: no process id", filepath.Join(dataDir, "postmaster.pid"))
	}
	f := pidFile{pid: pid}
	if len(lines) >= 8 {
		f.status = strings.TrimSpace(lines[7])
	}
	return f, nil
}

// isPostgresOf reports whether a process is a Postgres server process of this data directory: all of them run the
// program "postgres" with the data directory as working directory. A process id alone proves nothing, as it may have
// been given to another process.
func isPostgresOf(pid int, dataDir string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(dataDir)
	if err != nil || cwd != real {
		return false
	}
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return false
	}
	// A package upgrade replaces the program under a running server.
	return filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "postgres"
}

// serverProcesses lists the Postgres server processes of a data directory.
func serverProcesses(dataDir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && isPostgresOf(pid, dataDir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killOrphans ends server processes whose postmaster is gone. They leave by themselves unless they are frozen or in a
// long computation; until then the shared memory is in use and no new postmaster starts. Killing them is a crash, which
// the recovery of the next start is made for.
func killOrphans(dataDir string) int {
	pids := serverProcesses(dataDir)
	for _, pid := range pids {
		// The process was verified a moment ago; a reused id would need the whole range to wrap in between.
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(pids)
}

// removeLeftOver ends a server that an earlier daemon left behind on this data directory, waits until it is gone, and
// removes its lock files. It must be called with the lock on the directory held. It returns the number of processes that
// it found.
func removeLeftOver(ctx context.Context, dataDir, sockDir string) (int, error) {
	n, err := endLeftOver(ctx, dataDir)
	if err != nil {
		return n, err
	}
	// Postgres takes a lock file for valid if a process of the same user has the id in it, whatever that process is, and
	// refuses an empty one for ever. Nothing runs on the directory now, so they are stale. Should that be wrong all the
	// same, Postgres also checks that nobody is attached to the shared memory.
	for _, path := range []string{
		filepath.Join(dataDir, "postmaster.pid"),
		filepath.Join(sockDir, ".s.PGSQL."+port+".lock"),
		filepath.Join(sockDir, ".s.PGSQL."+port),
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return n, fmt.Errorf("remove stale lock file: %w", err)
		}
	}
	return n, nil
}

func endLeftOver(ctx context.Context, dataDir string) (int, error) {
	n := len(serverProcesses(dataDir))
	if n == 0 {
		return 0, nil
	}
	f, err := readPidFile(dataDir)
	if err != nil {
		f.pid = 0 // no process has it: only orphans are left
	}
	// First politely: the dead parent's signal has usually set off a fast shutdown already.
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, 2 * time.Second}, {syscall.SIGQUIT, 3 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if step.sig == syscall.SIGKILL {
			killOrphans(dataDir)
		} else if isPostgresOf(f.pid, dataDir) {
			_ = syscall.Kill(f.pid, step.sig)
		}
		for end := time.Now().Add(step.wait); time.Now().Before(end); {
			if len(serverProcesses(dataDir)) == 0 {
				return n, nil
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return n, fmt.Errorf("wait for the left-over Postgres of %s to end: %w", dataDir, err)
			}
		}
	}
	return n, fmt.Errorf("the left-over Postgres of %s (process %d) does not end", dataDir, f.pid)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
