package host

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/valetkey/valetkey/internal/child"
)

// Verify checks a program as a start would: an absolute path to a plain file that others cannot change and that can be executed, with
// this checksum unless it is empty. The error has the cure.
func Verify(path, sha256 string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("the path of the plugin is not absolute: %q", path)
	}
	sum, err := parseSum(sha256)
	if err != nil {
		return err
	}
	real, err := verify(path, sum)
	if err != nil {
		return err
	}
	if err := unix.Access(real, unix.X_OK); err != nil {
		return fmt.Errorf("%s cannot be executed: %w; run: chmod a+x %s", real, err, real)
	}
	return nil
}

// verify checks the program before a start: that nobody but root and the daemon's user can change it, and that it has the pinned checksum if
// there is one. It returns the path to start, without symbolic links.
func verify(path string, sum []byte) (string, error) {
	real, err := child.Trusted(path, os.Geteuid())
	if err != nil {
		return "", fmt.Errorf("looking for the plugin: %w", err)
	}
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("reading the plugin: %w", err)
	}
	defer f.Close()
	if sum == nil {
		return real, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading the plugin: %w", err)
	}
	if got := h.Sum(nil); subtle.ConstantTimeCompare(got, sum) != 1 {
		return "", fmt.Errorf("%w: %s has %x, and %x is pinned; if the program was replaced on purpose, pin what sha256sum prints", errChecksum, real, got, sum)
	}
	return real, nil
}

var errChecksum = errors.New("the plugin has another checksum than the configuration")

// parseSum reads a SHA-256 in hexadecimal; empty is nil.
func parseSum(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	sum, err := hex.DecodeString(s)
	if err != nil || len(sum) != sha256.Size {
		return nil, errors.New("a checksum is 64 hexadecimal digits, as sha256sum prints them")
	}
	return sum, nil
}
