package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dovecotConfig is Dovecot 2.3 without any mail protocol: the auth service, and what all of Dovecot needs. Nothing in it slows
// an accepted login down, and the accounts and the log are where Dovecot is fastest: in memory, and nowhere.
const dovecotConfig = `base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = /dev/stderr
protocols =
ssl = no
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[4]s
auth_mechanisms = plain
disable_plaintext_auth = no
auth_verbose = no
auth_debug = no
auth_failure_delay = 0
auth_cache_size = 100 M
auth_cache_ttl = 1 day
auth_cache_negative_ttl = 0
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}
service auth {
  client_limit = 4096
  unix_listener auth-client {
    mode = 0666
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
`

// dovecotAuth is Debian's Dovecot 2.3 in a directory of its own.
type dovecotAuth struct {
	process *process
	socket  string
}

// startDovecotAuth returns when every credential has logged in. The value is not nil if something was started, whatever the error.
func startDovecotAuth(ctx context.Context, dir string, creds []credential, logins int, scheme string) (*dovecotAuth, error) {
	program, err := findProgram("dovecot", "dovecot-core")
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, program, "--version").Output(); err != nil || !strings.HasPrefix(string(out), "2.3.") {
		return nil, fmt.Errorf("%s --version: %q, %v; this benchmark is configured for Dovecot 2.3", program, out, err)
	}
	home := filepath.Join(dir, "dovecot")
	// The auth service runs as another user, if we are root.
	if err := os.Mkdir(home, 0o711); err != nil {
		return nil, err
	}
	users, err := os.OpenFile(filepath.Join(home, "users"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer users.Close()
	if err := writePasswdFile(ctx, users, creds, scheme); err != nil {
		return nil, err
	}
	internal, group, login := "dovecot", "dovecot", "dovenull"
	if os.Geteuid() != 0 {
		me, err := user.Current()
		if err != nil {
			return nil, err
		}
		ours, err := user.LookupGroupId(me.Gid)
		if err != nil {
			return nil, err
		}
		internal, group, login = me.Username, ours.Name, me.Username
	}
	config := filepath.Join(home, "dovecot.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, dovecotConfig, home, internal, group, login), 0o644); err != nil {
		return nil, err
	}
	d := &dovecotAuth{socket: filepath.Join(home, "run", "auth-client")}
	if d.process, err = startLeashed(dir, dovecotAuthTarget, program, "-F", "-c", config); err != nil {
		return nil, err
	}
	err = d.process.ready(ctx, func() error { return prove(newDovecot("unix", d.socket, rightAndWrong(creds[0]))) })
	if err != nil {
		return d, err
	}
	return d, logInAll(ctx, d.process, newDovecot("unix", d.socket, creds[:logins]), logins)
}

// writePasswdFile writes an account a line, each with one password: the format has no room for 25.
func writePasswdFile(ctx context.Context, w io.Writer, creds []credential, scheme string) error {
	b := bufio.NewWriter(w)
	for i, c := range creds {
		hash, err := hashFor(ctx, scheme, c.password)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s:%s\n", c.login, hash)
		if i > 0 && i%500 == 0 && scheme != defaultScheme {
			progress("%s: %d of %d hashes", dovecotAuthTarget, i, len(creds))
		}
	}
	return b.Flush()
}

// defaultScheme is as fast as slapd's; the default of doveadm pw is CRYPT, and what people are told to use is slow on purpose.
const defaultScheme = "SSHA"

// hashFor returns the password in a scheme of Dovecot's, with its name in braces.
func hashFor(ctx context.Context, scheme, password string) (string, error) {
	if scheme == defaultScheme {
		return ssha(password), nil
	}
	out, err := exec.CommandContext(ctx, "doveadm", "-c", "/dev/null", "pw", "-s", scheme, "-p", password).CombinedOutput()
	hash := strings.TrimSpace(string(out))
	if err != nil || !strings.HasPrefix(hash, "{"+scheme+"}") {
		return "", fmt.Errorf("doveadm pw -s %s: %q, %v", scheme, hash, err)
	}
	return hash, nil
}

// cacheUse says how many of the logins so far Dovecot took from its cache. It tells in its log when it gets SIGUSR2.
func (d *dovecotAuth) cacheUse(ctx context.Context) (string, error) {
	pid := 0
	for _, p := range descendants(d.process.pid) {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p)); err == nil && string(name) == "auth\n" {
			pid = p
		}
	}
	if pid == 0 {
		return "", errors.New("no auth process of Dovecot runs")
	}
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		return "", fmt.Errorf("signal Dovecot's auth process: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if hits, total, ok := parseCacheHits(d.process.lastWords()); ok {
			if total == 0 {
				return "auth_cache on, and not asked: Dovecot keeps a passwd-file in memory", nil
			}
			return fmt.Sprintf("auth_cache on, %.1f%% hits", 100*float64(hits)/float64(total)), nil
		}
		if ctx.Err() != nil {
			return "", errors.New("Dovecot does not log the hits of its cache")
		}
		sleepUntil(ctx, time.Now().Add(20*time.Millisecond))
	}
}

var cacheHits = regexp.MustCompile(`Authentication cache hits (\d+)/(\d+) `)

// parseCacheHits reads the last such line of Dovecot's log.
func parseCacheHits(log string) (hits, total uint64, ok bool) {
	all := cacheHits.FindAllStringSubmatch(log, -1)
	if len(all) == 0 {
		return 0, 0, false
	}
	last := all[len(all)-1]
	hits, err := strconv.ParseUint(last[1], 10, 64)
	if err != nil {
		return 0, 0, false
	}
	total, err = strconv.ParseUint(last[2], 10, 64)
	return hits, total, err == nil
}
