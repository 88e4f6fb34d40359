package plugincmd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/valetkey/valetkey/plugin"
)

// maxFile bounds the files that are read, in bytes.
const maxFile = 1 << 20

// Faults are what is wrong with a file, one text each: the key, then what and how to mend it.
type Faults []string

// Add adds one.
func (f *Faults) Add(key, format string, args ...any) {
	*f = append(*f, key+": "+fmt.Sprintf(format, args...))
}

// FreeForm is what a configuration implements in which some tables may have any keys: the TOML library reports what lies deeper in them as
// unknown.
type FreeForm interface {
	FreeForm(key []string) bool
}

// load reads the file into cfg and opens what it describes.
func load(path string, cfg Configurable, open func(f *Faults) plugin.Checker) (plugin.Checker, Faults) {
	var faults Faults
	text, err := readFile(path, 0o002)
	if err != nil {
		// Whoever may write the file can have the secrets sent to a server of his own.
		return nil, Faults{err.Error()}
	}
	about, err := toml.Decode(text, cfg)
	if err != nil {
		if parse := (toml.ParseError{}); errors.As(err, &parse) {
			return nil, Faults{fmt.Sprintf("line %d: %s", parse.Position.Line, parse.Message)}
		}
		return nil, Faults{strings.TrimPrefix(err.Error(), "toml: ")}
	}
	free, _ := cfg.(FreeForm)
	for _, key := range about.Undecoded() {
		if free != nil && free.FreeForm(key) {
			continue
		}
		faults.Add(key.String(), "unknown key; docs/enrolment-*.md lists those that are known")
	}
	cfg.settings().check(&faults)
	source := open(&faults)
	return source, faults
}

// readFile reads a plain file whose mode has none of the bits of forbidden.
func readFile(path string, forbidden os.FileMode) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not an absolute path; a plugin runs in /", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() { // before it is opened: opening a pipe waits
		return "", fmt.Errorf("%s is not a plain file", path)
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		cure := "o-w"
		if forbidden&0o004 != 0 {
			cure = "g-w,o="
		}
		return "", fmt.Errorf("%s has mode %04o, which lets others in; run: chmod %s %s", path, mode, cure, path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d KiB", path, maxFile>>10)
	}
	return string(text), err
}

// Secret reads the first line of the file that the value of key names. Others than owner and group must not be able to read it, nor
// the group to write it: root may own it, and the daemon's group read it. An empty path is a fault if it is required.
func (f *Faults) Secret(key, path string, required bool) string {
	if path == "" {
		if required {
			f.Add(key, "it is missing; write the secret into a file of mode 0600 and name that")
		}
		return ""
	}
	text, err := readFile(path, 0o027)
	if err != nil {
		f.Add(key, "%v", err)
		return ""
	}
	secret, _, _ := strings.Cut(text, "\n")
	if secret = strings.TrimSuffix(secret, "\r"); secret == "" {
		f.Add(key, "the first line of %s is empty; it must be the secret", path)
	}
	return secret
}

// Roots reads certificates in PEM. An empty path means those of the system, and nil.
func (f *Faults) Roots(key, path string) *x509.CertPool {
	if path == "" {
		return nil
	}
	text, err := readFile(path, 0o002)
	if err != nil {
		f.Add(key, "%v", err)
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		f.Add(key, "%s has no certificate in PEM; it must begin with -----BEGIN CERTIFICATE-----", path)
	}
	return pool
}

// Loopback reports whether a host of a URL is this machine, so that what is sent there stays here.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
