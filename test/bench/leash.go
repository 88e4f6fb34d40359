package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// leashCommand as first argument turns this program into the parent of a server that cannot be started by startProcess
// alone: one that goes into the background (saslauthd, unless it is to print each login) or that starts processes under other users
// (Dovecot). They all stay descendants of the leash, and end with it.
const leashCommand = "leash"

// startLeashed is startProcess for such a server. All that it starts counts as the server.
func startLeashed(dir, name, program string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(dir, name, self, append([]string{leashCommand, program}, args...)...)
	if err == nil {
		p.leashed = true
	}
	return p, err
}

// leash runs a program until it and all its descendants have ended, which SIGTERM, sent by startProcess when the bench dies, makes them do.
func leash(args []string) error {
	if len(args) == 0 {
		return errors.New("leash: want a program and its arguments")
	}
	// Before anything can be orphaned: orphans become our children (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("leash: %w", err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, os.Interrupt)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("leash: %w", err)
	}
	go func() {
		<-end
		signalAll(syscall.SIGTERM)
		// Sooner than the bench gives up on us.
		time.Sleep(10 * time.Second)
		for {
			signalAll(syscall.SIGKILL)
			time.Sleep(100 * time.Millisecond)
		}
	}()
	for {
		// Not cmd.Wait: others end here, too.
		if _, err := syscall.Wait4(-1, nil, 0, nil); err == syscall.ECHILD {
			return nil
		} else if err != nil && err != syscall.EINTR {
			return fmt.Errorf("leash: %w", err)
		}
	}
}

func signalAll(sig syscall.Signal) {
	for _, pid := range descendants(os.Getpid()) {
		syscall.Kill(pid, sig)
	}
}
