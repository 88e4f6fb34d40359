package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// run replaces this process by the program. It returns only if that fails.
func (h *helper) run(program []string) error {
	if strings.Contains(program[0], "/") {
		if err := h.exec(program[0], program, h.environ); err != nil {
			return errors.New("cannot run the next program: " + err.Error())
		}
		return nil
	}
	// As execvp(3), but for entries relative to the working directory, which is a user's home by now.
	path := getenv(h.environ, "PATH")
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	failed := error(syscall.ENOENT)
	for dir := range strings.SplitSeq(path, ":") {
		if !strings.HasPrefix(dir, "/") {
			continue
		}
		err := h.exec(dir+"/"+program[0], program, h.environ)
		if err == nil {
			return nil
		}
		if err != syscall.ENOENT && err != syscall.ENOTDIR {
			failed = err
		}
	}
	return errors.New("cannot run the next program: " + failed.Error())
}

// become gives up root for good: group and groups first, which only root may change.
func become(uid, gid int) error {
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	if err := syscall.Setuid(uid); err != nil {
		return err
	}
	if os.Getuid() != uid || os.Geteuid() != uid || os.Getgid() != gid || os.Getegid() != gid {
		return errors.New("the ids have not changed")
	}
	return nil
}
