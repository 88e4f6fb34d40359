package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Caddy is a web server.
var Caddy = Peer{"caddy", "caddy"}

// NewCaddy starts a Caddy of the test's own with these sites as its Caddyfile, without TLS and on loopback, and waits until it listens
// at addrs.
func NewCaddy(t testing.TB, sites string, addrs ...string) {
	t.Helper()
	dir := Dir(t)
	// The admin endpoint would be a port of the machine's. A site's name says nothing of where it listens.
	const options = `{
	admin off
	auto_https off
	default_bind 127.0.0.1
}
`
	path := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(options+sites), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, Caddy, "caddy"), "run", "--adapter", "caddyfile", "--config", path)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_CONFIG_HOME=" + dir + "/config", "XDG_DATA_HOME=" + dir + "/data"}
	proc := Start(t, t, "caddy", cmd)
	for _, addr := range addrs {
		WaitFor(t, "Caddy to listen", func() bool {
			if !proc.Running() {
				t.Fatalf("Caddy ended:\n%s", proc.Log)
			}
			conn, err := Dial(addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
}
