package faults

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// TestSocketActivation plays systemd: it opens the sockets, hands them over, and keeps them while the daemon is restarted. A peer
// that connects meanwhile waits and is served; none is refused. Postfix, which refuses all mail when it cannot get the
// handshake, never notices.
//
// It catches: sockets taken without their names, closed or unlinked by the daemon, passed on to Postgres; READY=1 told too
// early or never.
func TestSocketActivation(t *testing.T) {
	dir := harness.Dir(t)
	path := filepath.Join(dir, "auth")
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(); tcp.Close(); notify.Close() })
	unixFile, err := unix.File()
	if err != nil {
		t.Fatal(err)
	}
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(dir, "valetkeyd.toml")
	text := fmt.Sprintf("state_dir = %q\n[[dovecot]]\nlisten = \"systemd:mail\"\n[[ldap]]\nlisten = \"systemd:wiki\"\n", filepath.Join(dir, "state"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *harness.Process {
		// LISTEN_PID must be that of the daemon itself (sd_listen_fds(3)).
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" --config "$1"`, harness.Program(t, "valetkeyd"), file)
		cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=mail:wiki", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
		cmd.ExtraFiles = []*os.File{unixFile, tcpFile}
		return harness.Start(t, t, "valetkeyd", cmd)
	}
	// handshake reads what the Dovecot protocol server says first; it waits for a daemon that is not there yet.
	handshake := func() string {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("connecting = %v: the socket must be there all the time", err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(harness.Patience))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatalf("reading the handshake: %v", err)
		}
		return line
	}
	told := func(want string) {
		t.Helper()
		notify.SetReadDeadline(time.Now().Add(harness.Patience))
		buf := make([]byte, 4096)
		n, err := notify.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), want) {
			t.Errorf("systemd was told %q, %v, want %s", buf[:n], err, want)
		}
	}

	for round := range 2 {
		early := make(chan string, 1)
		go func() { early <- handshake() }() // before the daemon is there
		p := start()
		if got := <-early; !strings.HasPrefix(got, "VERSION\t1\t") {
			t.Errorf("round %d: a peer that came early got %q, want the handshake", round, got)
		}
		told("READY=1")
		if c, err := net.Dial("tcp", tcp.Addr().String()); err != nil {
			t.Errorf("round %d: LDAP: %v", round, err)
		} else {
			c.Close()
		}
		harness.WaitFor(t, "the private Postgres", func() bool { return strings.Contains(p.Log.String(), ": ready:") })
		if children := holders(t, unix, p); len(children) > 0 {
			t.Errorf("round %d: processes that the daemon started hold the socket: %v", round, children)
		}

		// SIGHUP keeps the sockets.
		if err := os.WriteFile(file, []byte(text+"[log]\nlevel = \"debug\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Signal(syscall.SIGHUP)
		told("RELOADING=1")
		told("READY=1")
		if got := handshake(); !strings.HasPrefix(got, "VERSION\t1\t") {
			t.Errorf("round %d: after SIGHUP a peer got %q, want the handshake", round, got)
		}

		p.Signal(syscall.SIGTERM)
		told("STOPPING=1")
		if code, ok := p.Wait(harness.Patience); !ok || code != 0 {
			t.Fatalf("round %d: exit code %d, %v, want 0:\n%s", round, code, ok, p.Log)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Fatalf("round %d: the daemon took the socket of systemd away: %v", round, err)
		}
	}
}

// holders lists the processes, but for this test and the daemon, that have the socket open.
func holders(t *testing.T, l *net.UnixListener, daemon *harness.Process) (pids []string) {
	t.Helper()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var socket string
	raw.Control(func(fd uintptr) { socket, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) })
	if err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		pid := strings.Split(fd, "/")[2]
		if pid == fmt.Sprint(os.Getpid()) || pid == fmt.Sprint(daemon.PID()) {
			continue
		}
		if target, err := os.Readlink(fd); err == nil && target == socket {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A name that systemd did not hand over is told at the start, not at the first mail.
func TestSocketActivationWithoutSocket(t *testing.T) {
	dir := harness.Dir(t)
	file := filepath.Join(dir, "valetkeyd.toml")
	text := fmt.Sprintf("state_dir = %q\n[[ldap]]\nlisten = \"systemd:wiki\"\n", filepath.Join(dir, "state"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(harness.Program(t, "valetkeyd"), "--config", file)
	cmd.Env = os.Environ()
	p := harness.Start(t, t, "valetkeyd", cmd)
	if code, ok := p.Wait(harness.Patience); !ok || code != 1 || !strings.Contains(p.Log.String(), `handed over no socket named "wiki"`) {
		t.Errorf("exit code %d, %v, want 1 and the name of the socket:\n%s", code, ok, p.Log)
	}
}
