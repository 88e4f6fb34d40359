package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Radicale is a CalDAV server.
var Radicale = Peer{"radicale", "radicale"}

// NewRadicale starts a Radicale of the test's own with this as /etc/radicale/config, which makes it listen at addr.
func NewRadicale(t testing.TB, config, addr string) {
	t.Helper()
	dir := Dir(t)
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, Radicale, "radicale"), "--config", path, "--storage-filesystem-folder", filepath.Join(dir, "collections"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1"}
	cmd.Dir = dir
	proc := Start(t, t, "radicale", cmd)
	WaitFor(t, "Radicale to listen", func() bool {
		if !proc.Running() {
			t.Fatalf("Radicale ended:\n%s", proc.Log)
		}
		conn, err := Dial(addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
