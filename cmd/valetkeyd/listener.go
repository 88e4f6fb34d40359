package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/valetkey/valetkey/internal/config"
)

// permissions are those of a Unix socket. Empty names mean the daemon's own.
type permissions struct {
	mode         fs.FileMode
	owner, group string
}

// listener is a bound listener that takes its Unix socket away when it is closed.
type listener struct {
	net.Listener
	path string // of a Unix socket; empty otherwise
	keep atomic.Bool
}

// keepFile leaves the socket in place at Close, because it belongs to another listener now.
func (l *listener) keepFile() { l.keep.Store(true) }

// Close stops listening.
func (l *listener) Close() error {
	err := l.Listener.Close()
	if l.path != "" && !l.keep.Swap(true) {
		os.Remove(l.path)
	}
	return err
}

// inherited are the sockets that systemd opened for this process, by the names of their units' FileDescriptorName=. They stay
// open here, so that a listener on one can be replaced at a reload.
var inherited = sync.OnceValue(func() map[string]*os.File {
	files := map[string]*os.File{}
	for _, f := range activation.Files(true) { // sets close-on-exec and clears the environment: Postgres must not get them
		files[f.Name()] = f
	}
	return files
})

// takeOver listens on a socket of systemd's. Its file and permissions are systemd's affair.
func takeOver(name string) (*listener, error) {
	f := inherited()[name]
	if f == nil {
		return nil, hinted{fmt.Errorf("systemd handed over no socket named %q", name),
			"the .socket unit needs FileDescriptorName=" + name + " and Service= with this daemon's unit"}
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("taking over the socket %q of systemd: %w", name, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return &listener{Listener: l}, nil
}

// listen binds an address. A Unix socket appears with its permissions in one step, and replaces one that nobody listens on, or
// any if replace is set.
func listen(a config.Address, p permissions, replace bool) (*listener, error) {
	if a.Network == "systemd" {
		return takeOver(a.Address)
	}
	if a.Network != "unix" {
		l, err := net.Listen(a.Network, a.Address)
		if err != nil {
			return nil, bindError(a, err)
		}
		return &listener{Listener: l}, nil
	}
	if info, err := os.Lstat(a.Address); err == nil && !replace {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, hinted{fmt.Errorf("%s exists and is not a socket", a.Address), "remove it, or choose another path"}
		}
		if c, err := net.DialTimeout("unix", a.Address, time.Second); err == nil {
			c.Close()
			return nil, hinted{fmt.Errorf("another process listens on %s", a.Address), "stop it first, or choose another path"}
		} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("looking whether somebody listens on %s: %w", a.Address, err)
		}
	}
	var random [4]byte
	rand.Read(random[:])
	temporary := filepath.Join(filepath.Dir(a.Address), "."+hex.EncodeToString(random[:]))
	l, err := net.Listen("unix", temporary)
	if err != nil {
		return nil, bindError(a, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the name changes below
	if err = p.apply(temporary); err == nil {
		err = os.Rename(temporary, a.Address)
	}
	if err != nil {
		l.Close()
		os.Remove(temporary)
		return nil, err
	}
	return &listener{Listener: l, path: a.Address}, nil
}

func bindError(a config.Address, err error) error {
	err = fmt.Errorf("listening on %s: %w", a, err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return hinted{err, "another process has the port: ss -ltnp shows it; --ldap or the configuration moves ours"}
	case errors.Is(err, fs.ErrPermission):
		return hinted{err, "ports below 1024 and other users' directories need root or systemd"}
	case errors.Is(err, fs.ErrNotExist):
		return hinted{err, "make the directory first; its owner decides who reaches the socket"}
	}
	return err
}

func (p permissions) apply(path string) error {
	uid, gid := -1, -1
	if p.owner != "" {
		u, err := user.Lookup(p.owner)
		if err != nil {
			return fmt.Errorf("owner of the socket: %w", err)
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return fmt.Errorf("owner of the socket: %w", err)
		}
	}
	if p.group != "" {
		g, err := user.LookupGroup(p.group)
		if err != nil {
			return fmt.Errorf("group of the socket: %w", err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return fmt.Errorf("group of the socket: %w", err)
		}
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(path, uid, gid); err != nil {
			return hinted{fmt.Errorf("giving the socket its owner and group: %w", err), "the daemon must be root or a member of the group"}
		}
	}
	return os.Chmod(path, p.mode)
}
