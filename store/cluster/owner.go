package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// owner is the operating system user whose processes and files the cluster is.
type owner struct {
	uid, gid uint32
	name     string
	self     string // name of the user that this process runs as
	switched bool   // this process runs as root and must change over
}

// findOwner picks that user: ourselves, or, because Postgres refuses to run as root, an unprivileged one when we are
// root: whoever owns an existing data directory, else "postgres", else "nobody".
func findOwner(dataDir string) (owner, error) {
	me, err := user.Current()
	if err != nil {
		return owner{}, fmt.Errorf("look up own user: %w", err)
	}
	uid := uint32(os.Geteuid())
	st, statErr := os.Stat(dataDir)
	if statErr != nil && !errors.Is(statErr, os.ErrNotExist) {
		return owner{}, fmt.Errorf("inspect data directory: %w", statErr)
	}
	var of *syscall.Stat_t
	if statErr == nil {
		of = st.Sys().(*syscall.Stat_t)
	}
	if uid != 0 {
		if of != nil && of.Uid != uid {
			return owner{}, fmt.Errorf("%s belongs to user %s, not to %s: run as that user or as root",
				dataDir, userName(of.Uid), me.Username)
		}
		return owner{uid: uid, gid: uint32(os.Getegid()), name: me.Username, self: me.Username}, nil
	}
	if of != nil {
		if of.Uid == 0 {
			return owner{}, fmt.Errorf("%s belongs to root, and Postgres refuses to run as root: "+
				"give it to an unprivileged user with: chown -R postgres %s", dataDir, dataDir)
		}
		return owner{uid: of.Uid, gid: of.Gid, name: userName(of.Uid), self: me.Username, switched: true}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 != nil || err2 != nil || uid == 0 {
			continue
		}
		return owner{uid: uint32(uid), gid: uint32(gid), name: name, self: me.Username, switched: true}, nil
	}
	return owner{}, errors.New("Postgres refuses to run as root, and there is neither a user postgres nor a user nobody " +
		"to run it as: create one with: adduser --system --group postgres")
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// attr is how a process of the cluster is started: as the owner, in a process group of its own so that an interrupt
// typed at the daemon's terminal does not reach it, and told to end when the starting thread does.
func (o owner) attr(onParentDeath syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: onParentDeath}
	if o.switched {
		a.Credential = &syscall.Credential{Uid: o.uid, Gid: o.gid}
	}
	return a
}

// makeDir makes a directory that only the owner may enter, or corrects an existing one.
func (o owner) makeDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if o.switched {
		// Lchown: path may have been planted by somebody who can write the parent.
		if err := os.Lchown(path, int(o.uid), int(o.gid)); err != nil {
			return err
		}
	}
	return os.Chmod(path, 0o700)
}

// checkReach makes sure that the owner can reach dir. It lets the kernel judge, by starting a harmless program there as
// the owner, so that access control lists and security modules count too. program must be executable by everybody.
func (o owner) checkReach(ctx context.Context, program, dir string) error {
	if !o.switched {
		return nil
	}
	try := func(dir string) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "--version")
		cmd.Dir = dir
		cmd.Env = []string{"LC_ALL=C"}
		cmd.SysProcAttr = o.attr(0)
		return cmd.Run()
	}
	err := try(dir)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("run %s as user %s: %w", program, o.name, err)
	}
	if err := try("/"); err != nil {
		return fmt.Errorf("run %s as user %s: %w", program, o.name, err)
	}
	path := "/"
	for _, part := range strings.Split(strings.Trim(dir, "/"), "/") {
		path = filepath.Join(path, part)
		if err := try(path); err != nil {
			return fmt.Errorf("user %s, who runs the private Postgres because the daemon is root, may not enter %s: "+
				"allow it with: chmod o+x %s, or choose another state directory", o.name, path, path)
		}
	}
	return fmt.Errorf("user %s may not enter %s: %w", o.name, dir, err)
}
