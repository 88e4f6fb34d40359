package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/valetkey/valetkey/internal/config"
)

// prepareStateDir makes the state directory and takes its lock, which is held as long as the file is open. Peers and the private
// cluster's user pass through the directory, so it can be entered by all; what is secret in it has modes of its own.
func prepareStateDir(cfg *config.Config) (*os.File, error) {
	if err := makeDir(cfg.StateDir, 0o711); err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Join(cfg.StateDir, "run"), 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(cfg.StateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, hinted{fmt.Errorf("another valetkeyd uses %s", cfg.StateDir), "stop it first, or choose another --state-dir"}
		}
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	return lock, nil
}

func makeDir(path string, mode fs.FileMode) error {
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.Mkdir(path, mode)
	}
	switch {
	case err == nil:
		return os.Chmod(path, mode) // whatever the umask
	case errors.Is(err, fs.ErrExist):
		return nil // its mode is the admin's choice
	case errors.Is(err, fs.ErrPermission):
		return hinted{fmt.Errorf("making the state directory: %w", err), "run as a user who may, or choose another --state-dir"}
	}
	return fmt.Errorf("making the state directory: %w", err)
}
