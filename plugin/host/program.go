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

// verify checks the program before a start: a plain file that nobody but root and the daemon's user can change, nor a folder on the way to
// it, with the pinned
// checksum if there is one. It returns the path to start, without symbolic links.
//
// Between this check and the start the file could be changed by whoever may write it, so that is looked at, too.
func verify(path string, sum []byte) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("looking for the plugin: %w", err)
	}
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("reading the plugin: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("the plugin %s is not a plain file", real)
	}
	if err := trusted(real, info); err != nil {
		return "", err
	}
	// Whoever can change a folder above can put another one in its place, or a link to another program.
	for _, way := range []string{real, filepath.Clean(path)} {
		for dir := way; dir != "/"; {
			dir = filepath.Dir(dir)
			folder, err := os.Stat(dir)
			if err != nil {
				return "", err
			}
			if err := trusted(dir, folder); err != nil {
				return "", err
			}
		}
	}
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

// trusted reports who else could change the file or folder.
func trusted(path string, info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("the owner of %s cannot be told", path)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, who could put another program in its place; run: chown root %s", path, st.Uid, path)
	}
	sticky := info.IsDir() && info.Mode()&os.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%s can be written by its group or by everybody (mode %04o); run: chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

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
