package faults_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
	"github.com/valetkey/valetkey/saslauth/saslauthd"
	"github.com/valetkey/valetkey/test/harness"
)

// TestSocketActivation plays systemd: it opens a socket for each kind of listener, hands them over, and keeps them while the
// daemon is restarted. A peer that connects meanwhile waits and is served; none is refused.
//
// It catches: a front end that cannot have its socket from systemd, sockets mixed up, closed or unlinked by the daemon, or passed on to
// Postgres; READY=1 told too early or never.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	dir := harness.Dir(t)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notify.Close() })
	const webSecret = "secret-of-the-web-server"
	secretFile := filepath.Join(dir, "web-secret")
	if err := os.WriteFile(secretFile, []byte(webSecret), 0o600); err != nil {
		t.Fatal(err)
	}

	// asks is a question to each front end, for which it needs no account; it waits for a daemon that is not there yet.
	kinds := []struct {
		section, network string
		asks             func(t *testing.T, addr string) (answer string)
		want             string // its beginning
	}{
		{"dovecot", "unix", handshake, "VERSION\t1\t"},
		{"ldap", "tcp", func(_ *testing.T, addr string) string {
			c := harness.LDAPClient{Addr: addr}
			defer c.Close()
			outcome, detail := c.Login("nobody", neverIssued)
			return fmt.Sprint(outcome, " ", detail)
		}, "rejected"},
		{"saslauthd", "unix", func(t *testing.T, addr string) string {
			r, err := saslauthd.Check(t.Context(), addr, saslauthd.Query{Login: "nobody", Password: neverIssued, Service: "imap"})
			return fmt.Sprint(r.Outcome, err)
		}, "NO <nil>"},
		{"checkpassword", "unix", func(_ *testing.T, addr string) string {
			r, err := wire.Ask(addr, wire.Request{Op: wire.Check, User: "nobody", Password: neverIssued}, time.Now().Add(harness.Patience))
			return fmt.Sprintf("%c%v", r.Outcome, err)
		}, "R<nil>"},
		{"http", "tcp", func(t *testing.T, addr string) string {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/basic", nil)
			if err != nil {
				return err.Error()
			}
			req.Header.Set("X-Auth-Key", webSecret)
			c := http.Client{Timeout: harness.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := c.Do(req)
			if err != nil {
				return err.Error()
			}
			resp.Body.Close()
			return resp.Status
		}, "401 "},
	}
	// The names are those of no section, and not in their order.
	file := filepath.Join(dir, "valetkeyd.toml")
	text := fmt.Sprintf("state_dir = %q\n", filepath.Join(dir, "state"))
	sockets, addrs, listeners := map[string]*os.File{}, map[string]string{}, map[string]socketHolder{}
	for i, k := range kinds {
		name := fmt.Sprintf("unit-%d", (i+3)%len(kinds))
		text += fmt.Sprintf("[[%s]]\nlisten = \"systemd:%s\"\n", k.section, name)
		if k.section == "http" {
			text += fmt.Sprintf("[http.basic]\nsecret_file = %q\n", secretFile)
		}
		at := "127.0.0.1:0"
		if k.network == "unix" {
			at = filepath.Join(dir, k.section)
		}
		l, err := net.Listen(k.network, at)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(socketHolder).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); f.Close() })
		sockets[name], addrs[k.section], listeners[k.section] = f, l.Addr().String(), l.(socketHolder)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	start := func() *harness.Process {
		cmd := exec.Command(harness.Program(t, "valetkeyd"), "--config", file)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
		return harness.Start(t, t, "valetkeyd", harness.HandOver(cmd, sockets))
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
	// all asks every front end.
	all := func(when string) {
		t.Helper()
		for _, k := range kinds {
			if got := k.asks(t, addrs[k.section]); !strings.HasPrefix(got, k.want) {
				t.Errorf("%s, %s answers %q, want %q", when, k.section, got, k.want)
			}
		}
	}

	for round := range 2 {
		when := func(text string) string { return fmt.Sprintf("round %d, %s", round, text) }
		type answer struct{ section, got, want string }
		early := make(chan answer, len(kinds))
		waiting := 0
		for _, k := range kinds { // before the daemon is there, and its Postgres, which is made in the first round
			if round > 0 || k.section == "dovecot" || k.section == "http" {
				waiting++
				go func() { early <- answer{k.section, k.asks(t, addrs[k.section]), k.want} }()
			}
		}
		p := start()
		for range waiting {
			if a := <-early; !strings.HasPrefix(a.got, a.want) {
				t.Errorf("%s: %s answers %q, want %q", when("to a peer that came early"), a.section, a.got, a.want)
			}
		}
		told("READY=1")
		harness.WaitFor(t, "the private Postgres", func() bool { return strings.Contains(p.Log.String(), ": ready:") })
		all(when("started"))
		for section, l := range listeners {
			if children := holders(t, l, p); len(children) > 0 {
				t.Errorf("%s: processes %v, which the daemon started, hold the socket of %s", when("started"), children, section)
			}
		}

		// SIGHUP keeps the sockets.
		if err := os.WriteFile(file, []byte(text+"[log]\nlevel = \"debug\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Signal(syscall.SIGHUP)
		told("RELOADING=1")
		told("READY=1")
		all(when("after SIGHUP"))

		p.Signal(syscall.SIGTERM)
		told("STOPPING=1")
		if code, ok := p.Wait(harness.Patience); !ok || code != 0 {
			t.Fatalf("%s: exit code %d, %v, want 0:\n%s", when("after SIGTERM"), code, ok, p.Log)
		}
		for _, k := range kinds {
			c, err := net.Dial(k.network, addrs[k.section])
			if err != nil {
				t.Fatalf("%s: the daemon took the socket of %s away: %v", when("after SIGTERM"), k.section, err)
			}
			c.Close()
		}
	}
}

// socketHolder is a listener on a socket that the kernel knows.
type socketHolder interface {
	File() (*os.File, error)
	SyscallConn() (syscall.RawConn, error)
}

// handshake reads what the Dovecot protocol server says first.
func handshake(t *testing.T, path string) string {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(harness.Patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return line
}

// holders lists the processes, but for this test and the daemon, that have the socket open.
func holders(t *testing.T, l socketHolder, daemon *harness.Process) (pids []string) {
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
	t.Parallel()
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
