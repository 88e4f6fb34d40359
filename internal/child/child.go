// Package child starts the programs that the daemon runs for a site: enrolment plugins, hooks, sendmail.
//
// It refuses to know what they are for and how they are spoken to. The one rule a newcomer would break: such a program runs with the daemon's
// rights, so what others could change or replace is not started, and what is started dies with the daemon.
package child

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// thread runs every start on one thread that lives as long as the daemon: the kernel sends the parent death signal when the starting
// thread ends, not the process (prctl(2), PR_SET_PDEATHSIG).
var thread = sync.OnceValue(func() chan<- func() {
	requests := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range requests {
			f()
		}
	}()
	return requests
})

// Start starts a command in a process group of its own, whose leader dies with the daemon. Descriptors that whoever started the daemon left
// open are not inherited; Go's own never are. Its standard streams must be files, so that no goroutine waits for their end.
func Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	thread() <- func() {
		_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
		started <- cmd.Start()
	}
	return <-started
}

// Trusted checks that nobody but root and the user of that id can change a program, or put another one in its place: a plain file, and every
// folder on the way to it, both as the path is written and without symbolic links. It returns the latter. The path must be absolute; the error
// has the cure.
func Trusted(path string, uid int) (real string, err error) {
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a plain file", real)
	}
	if err := trusted(real, info, uid); err != nil {
		return "", err
	}
	for _, way := range []string{real, filepath.Clean(path)} {
		for dir := way; dir != "/"; {
			dir = filepath.Dir(dir)
			folder, err := os.Stat(dir)
			if err != nil {
				return "", err
			}
			if err := trusted(dir, folder, uid); err != nil {
				return "", err
			}
		}
	}
	return real, nil
}

// trusted reports who else could change the file, or what is in the folder.
func trusted(path string, info os.FileInfo, uid int) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("the owner of %s cannot be told", path)
	}
	if st.Uid != 0 && int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to user %d, who could put another program in its place; run: chown root %s", path, st.Uid, path)
	}
	sticky := info.IsDir() && info.Mode()&os.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%s can be written by its group or by everybody (mode %04o); run: chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}
