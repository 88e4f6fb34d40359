package main

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/config"
)

func TestAccess(t *testing.T) {
	got, faults := access(&config.Config{
		Admin: config.Admin{Group: "root", HelpDeskGroup: "daemon"},
		Self:  config.SelfService{Enabled: true, Domain: "example.org", MinUID: 500, Services: []string{"imap"}},
	})
	want := admin.Access{
		Admins: admin.UnixGroup{Name: "root"}, HelpDesk: admin.UnixGroup{Name: "daemon", ID: 1},
		Self: &admin.SelfService{Domain: "example.org", MinUID: 500, Services: []string{"imap"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(faults) > 0 {
		t.Errorf("access = %v, (-want +got):\n%s", faults, diff)
	}
	if got, _ := access(&config.Config{Self: config.SelfService{MinUID: 1000}}); got.Restricted() {
		t.Errorf("access without roles = %+v, want the socket's mode alone to decide", got)
	}
	_, faults = access(&config.Config{Admin: config.Admin{ReadOnlyGroup: "no-such-group"}})
	if err := faults.Error(); !strings.Contains(err, `admin.read_only_group: there is no group "no-such-group"`) || !strings.Contains(err, "groupadd") {
		t.Errorf("access with a group that is not there = %q, want the key and the cure", err)
	}
}

// The socket that everybody may connect to appears with its mode in one step, and takes the place of nothing but a socket.
func TestOpenSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.sock")
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	address := config.Address{Network: "unix", Address: path}
	if l, err := listen(address, permissions{mode: 0o666}, false); err == nil {
		l.Close()
		t.Fatal("listen took the place of a symbolic link")
	}
	if info, err := os.Stat(target); err != nil || info.Mode() != 0o600 {
		t.Errorf("the link's target is now %v, %v, want it untouched", info, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l, err := listen(address, permissions{mode: 0o666}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o666 {
		t.Errorf("mode = %v, %v, want a socket of 0666", info.Mode(), err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}
