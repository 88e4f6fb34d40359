package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oldestMajor is the oldest Postgres whose SQL the store uses (DESIGN section 3).
const oldestMajor = 15

// debianBinDirs is where Debian and Ubuntu put the server programs, outside PATH.
const debianBinDirs = "/usr/lib/postgresql/*/bin"

// ErrNoServer is wrapped when no usable server programs are installed. Its text carries the remedy.
var ErrNoServer = errors.New("no PostgreSQL server programs found")

// installation is one set of server programs.
type installation struct {
	dir   string // holds initdb and postgres
	major int
}

func (i installation) program(name string) string { return filepath.Join(i.dir, name) }

// findInstallations lists the installed server programs of a usable major version, newest first. binDir, if not empty,
// is the only place searched.
func findInstallations(ctx context.Context, binDir string) ([]installation, error) {
	var dirs []string
	if binDir != "" {
		dirs = []string{binDir}
	} else {
		dirs, _ = filepath.Glob(debianBinDirs) // fails only for a bad pattern
		if p, err := exec.LookPath("postgres"); err == nil {
			if p, err = filepath.EvalSymlinks(p); err == nil {
				dirs = append(dirs, filepath.Dir(p))
			}
		}
	}
	var found []installation
	var tooOld int
	for _, dir := range dirs {
		i := installation{dir: dir}
		if _, err := os.Stat(i.program("initdb")); err != nil {
			continue
		}
		major, err := serverMajor(ctx, i.program("postgres"))
		if err != nil {
			continue
		}
		if major < oldestMajor {
			tooOld = max(tooOld, major)
			continue
		}
		i.major = major
		found = append(found, i)
	}
	if len(found) == 0 {
		where := debianBinDirs + " or PATH"
		if binDir != "" {
			where = binDir
		}
		if tooOld > 0 {
			return nil, fmt.Errorf("%w in %s: version %d is too old, %d or newer is needed: "+
				"install the Debian package with: apt install postgresql", ErrNoServer, where, tooOld, oldestMajor)
		}
		return nil, fmt.Errorf("%w in %s: install the Debian package with: apt install postgresql (%d or newer), "+
			"or give the URL of a database", ErrNoServer, where, oldestMajor)
	}
	slices.SortStableFunc(found, func(a, b installation) int { return b.major - a.major })
	return found, nil
}

// serverMajor asks a postgres program for its major version.
func serverMajor(ctx context.Context, program string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	return parseMajor(string(out))
}

// parseMajor reads "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", also with "17beta1" for 15.14.
func parseMajor(version string) (int, error) {
	_, rest, ok := strings.Cut(version, "(PostgreSQL) ")
	if !ok {
		return 0, fmt.Errorf("read PostgreSQL version: unexpected form")
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	return strconv.Atoi(rest[:end])
}

// chooseInstallation picks the newest installation for a new cluster, and the one of the same major version for an
// existing one, since a data directory can be read by its own major version only.
func chooseInstallation(found []installation, dataDir string) (installation, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return found[0], nil
	}
	if err != nil {
		return installation{}, fmt.Errorf("read version of %s: %w", dataDir, err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return installation{}, fmt.Errorf("read version of %s: PG_VERSION is not a number", dataDir)
	}
	var have []string
	for _, i := range found {
		if i.major == major {
			return i, nil
		}
		have = append(have, strconv.Itoa(i.major))
	}
	return installation{}, fmt.Errorf("%s was made by PostgreSQL %d, but installed is %s: install the Debian package with: "+
		"apt install postgresql-%d, or move the data over with pg_upgrade or with pg_dump and pg_restore",
		dataDir, major, strings.Join(have, " and "), major)
}
