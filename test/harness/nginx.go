package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// NginxServer is nginx. Its mail module is looked for by [NewNginx].
var NginxServer = Peer{"nginx", "nginx"}

// NewNginx starts an nginx of the test's own with this text at the top level of nginx.conf, which says where it listens, and waits
// until it does at addrs.
func NewNginx(t testing.TB, conf string, addrs ...string) {
	t.Helper()
	const module = "/usr/lib/nginx/modules/ngx_mail_module.so"
	if _, err := os.Stat(module); err != nil {
		t.Fatalf("%v: install the Debian package libnginx-mod-mail", err)
	}
	dir := Dir(t)
	main := fmt.Sprintf(`load_module %s;
daemon off;
worker_processes 1;
pid %s/pid;
events {}
`, module, dir)
	if os.Geteuid() == 0 {
		main += "user root;\n" // its temporary files are in our directory
	}
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(main+conf), 0o600); err != nil {
		t.Fatal(err)
	}
	// The places compiled in are the machine's; -p is where relative ones begin.
	proc := Start(t, t, "nginx", leashed(t, exec.Command(program(t, NginxServer, "nginx"), "-p", dir, "-c", path, "-e", "stderr",
		"-g", "error_log stderr notice;")))
	for _, addr := range addrs {
		WaitFor(t, "nginx to listen", func() bool {
			if !proc.Running() {
				t.Fatalf("nginx ended:\n%s", proc.Log)
			}
			conn, err := Dial(addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
}

// port is that of a host:port.
func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
