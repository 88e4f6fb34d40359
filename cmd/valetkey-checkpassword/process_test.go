package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/saslauth/checkpassword"
	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// buildDir is where the program under test is built, once.
var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "valetkey-checkpassword")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// program builds the program as it is shipped: for 32 bits where the kernel runs that.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "valetkey-checkpassword")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if runtime.GOARCH == "amd64" {
		build.Env = append(build.Env, "GOARCH=386")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %v\n%s", err, out)
	}
	return path, nil
})

// canary is a password that must turn up nowhere.
const canary = "canary-5be1f0"

// site is an authenticator and a directory.
type site struct{ fields map[string]string }

func (s site) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	switch {
	case req.Login == "broken":
		return auth.Decision{}, errors.New("no database")
	case req.Login == "slow":
		<-ctx.Done()
		return auth.Decision{}, ctx.Err()
	case req.Password == canary || len(req.Password) > 500:
		return auth.Decision{OK: true, Login: req.Login + "@example.org"}, nil
	}
	return auth.Decision{Reason: auth.NoMatch}, nil
}

func (s site) Entry(_ context.Context, login string) (auth.Account, error) {
	switch name, _, _ := strings.Cut(login, "@"); name {
	case "broken":
		return auth.Account{}, errors.New("no database")
	case "nobody":
		return auth.Account{}, auth.ErrNoAccount
	case "disabled":
		return auth.Account{Login: login, Userdb: s.fields}, nil
	}
	return auth.Account{Login: login, Enabled: true, Userdb: s.fields}, nil
}

// serve runs the daemon's side.
func serve(t testing.TB, s site, lookups bool) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := checkpassword.New(checkpassword.Config{AllowLookup: lookups}, s, s, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
	})
	return socket
}

// run is one start of the program.
type run struct {
	args    []string
	environ []string
	stdin   string
	fd3     []string // pieces, each written by itself; nil: descriptor 3 is not open
	hold    bool     // descriptor 3 never ends
	limit   string   // sh's ulimit, before the start
}

// start runs the program to its end and returns its exit status and what it and the next program printed.
func (r run) start(t *testing.T) (status int, stdout, stderr string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	argv := append([]string{path}, r.args...)
	if r.limit != "" {
		argv = append([]string{"/bin/sh", "-c", "ulimit " + r.limit + ` && exec "$@"`, "sh"}, argv...)
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, r.environ...)
	cmd.Stdin = strings.NewReader(r.stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var write *os.File
	if r.fd3 != nil || r.hold {
		read, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		defer w.Close()
		write, cmd.ExtraFiles = w, []*os.File{read}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, piece := range r.fd3 {
		io.WriteString(write, piece)
	}
	if write != nil && !r.hold {
		write.Close()
	}
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// tell is a next program that prints its arguments and its environment as the kernel has them, and the ids and the
// directory that it runs with.
var tell = []string{"/bin/sh", "-c", `tr '\0' '\n' </proc/$$/cmdline; tr '\0' '\n' </proc/$$/environ; echo "ids=$(id -u):$(id -g):$(id -G)"; echo "in=$(pwd)"`}

func fd3(login, password string) []string { return []string{login + "\x00" + password + "\x00\x00"} }

// own are the ids that the qmail flavour is to run with: root becomes somebody else, anybody else stays.
func own() (uid, gid, groups string) {
	if os.Getuid() == 0 {
		return "65534", "65533", "65533"
	}
	ids, _ := os.Getgroups()
	all := []string{strconv.Itoa(os.Getgid())}
	for _, id := range ids {
		if id != os.Getgid() {
			all = append(all, strconv.Itoa(id))
		}
	}
	return strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid()), strings.Join(all, " ")
}

func TestProcess(t *testing.T) {
	uid, gid, groups := own()
	socket := serve(t, site{map[string]string{"uid": uid, "gid": gid, "home": "/", "quota": "1G"}}, true)
	noLookups := serve(t, site{}, false)
	dovecot := []string{"ORIG_UID=104", "SERVICE=imap", "TCPREMOTEIP=192.0.2.7", "HOME=/elsewhere"}
	lookup := append([]string{"AUTHORIZED=1"}, dovecot...)
	credentials := append([]string{"CREDENTIALS_LOOKUP=1"}, lookup...)
	pam := func(user string) []string { return []string{"PAM_TYPE=auth", "PAM_USER=" + user, "PAM_SERVICE=login"} }
	args := func(more ...string) []string { return append([]string{"-socket", socket}, append(more, tell...)...) }
	pamArgs := []string{"-socket", socket, "-pam"}
	inDovecot := []string{"USER=alice@example.org", "HOME=/", "EXTRA=userdb_gid userdb_quota_rule userdb_uid", "userdb_uid=" + uid,
		"userdb_gid=" + gid, "userdb_quota_rule=*:storage=1G", "ORIG_UID=104", fmt.Sprintf("ids=%d:", os.Getuid())}
	inQmail := []string{"USER=alice@example.org", "HOME=/", "SHELL=/bin/sh", "in=/", "ids=" + uid + ":" + gid + ":" + groups}

	for _, c := range []struct {
		name string
		run  run
		want int
		out  []string // lines, or beginnings of lines that end with ':'
	}{
		{"Dovecot, accepted", run{args: args(), environ: dovecot, fd3: fd3("alice", canary)}, 0, inDovecot},
		{"Dovecot, in pieces", run{args: args(), environ: dovecot, fd3: []string{"al", "ice\x00canary-", "5be1f0", "\x00", "\x00"}}, 0, inDovecot},
		{"Dovecot, rejected", run{args: args(), environ: dovecot, fd3: fd3("alice", canary+"x")}, 1, nil},
		{"Dovecot, undecided", run{args: args(), environ: dovecot, fd3: fd3("broken", canary)}, 111, nil},
		{"Dovecot, lookup", run{args: args(), environ: lookup, fd3: fd3("alice", "")}, 0, []string{"AUTHORIZED=2", "USER=alice", "HOME=/"}},
		{"Dovecot, lookup of nobody", run{args: args(), environ: lookup, fd3: fd3("nobody", "")}, 3, nil},
		{"Dovecot, lookup undecided", run{args: args(), environ: lookup, fd3: fd3("broken", "")}, 111, nil},
		{"Dovecot, lookup not allowed", run{args: append([]string{"-socket", noLookups}, tell...), environ: lookup, fd3: fd3("alice", "")}, 111, nil},
		{"Dovecot, lookup with a password", run{args: args(), environ: lookup, fd3: fd3("alice", canary)}, 2, nil},
		{"Dovecot, lookup of a disabled account", run{args: args(), environ: lookup, fd3: fd3("disabled", "")}, 0, []string{"USER=disabled"}},
		{"Dovecot, credentials lookup", run{args: args(), environ: credentials, fd3: fd3("alice", "")}, 0, []string{"AUTHORIZED=2"}},
		{"Dovecot, credentials lookup of a disabled account", run{args: args(), environ: credentials, fd3: fd3("disabled", "")}, 3, nil},
		{"Dovecot, empty password", run{args: args(), environ: dovecot, fd3: fd3("alice", "")}, 1, nil},

		{"qmail, accepted", run{args: args(), fd3: fd3("alice", canary)}, 0, inQmail},
		{"qmail, rejected", run{args: args(), fd3: fd3("alice", "x")}, 1, nil},
		{"qmail, undecided", run{args: args(), fd3: fd3("broken", canary)}, 111, nil},
		{"qmail, APOP", run{args: args(), fd3: []string{"alice\x00c4c9334bac560ecc979e58001b3e22fb\x00<1896.697170952@example.org>\x00"}}, 1, nil},
		{"qmail, account without a home", run{args: append([]string{"-socket", noLookups}, tell...), fd3: fd3("alice", canary)}, 111, nil},
		{"check, accepted", run{args: args("-check"), fd3: fd3("alice", canary)}, 0, []string{"USER=alice@example.org", fmt.Sprintf("ids=%d:", os.Getuid())}},
		{"check, rejected", run{args: args("-check"), fd3: fd3("alice", "x")}, 1, nil},

		{"pam, accepted", run{args: pamArgs, environ: pam("alice"), stdin: canary + "\x00"}, 0, nil},
		{"pam, rejected", run{args: pamArgs, environ: pam("alice"), stdin: "x\x00"}, 1, nil},
		{"pam, undecided", run{args: pamArgs, environ: pam("broken"), stdin: canary}, 111, nil},
		{"pam, no password", run{args: pamArgs, environ: pam("alice")}, 1, nil},
		{"pam, session line", run{args: pamArgs, environ: []string{"PAM_TYPE=open_session", "PAM_USER=alice"}, stdin: canary}, 2, nil},

		{"512 bytes", run{args: args(), environ: dovecot, fd3: fd3("alice", strings.Repeat("p", 504))}, 0, []string{"USER=alice@example.org"}},
		{"513 bytes", run{args: args(), environ: dovecot, fd3: fd3("alice", strings.Repeat("p", 505))}, 1, nil},
		{"no descriptor 3", run{args: args(), environ: dovecot}, 2, nil},
		{"nothing on descriptor 3", run{args: args(), environ: dovecot, fd3: []string{}}, 2, nil},
		{"no NUL on descriptor 3", run{args: args(), environ: dovecot, fd3: []string{"alice"}}, 2, nil},
		{"descriptor 3 stays open", run{args: args("-timeout", "1"), environ: dovecot, fd3: fd3("alice", canary), hold: true}, 111, nil},
		{"no program", run{args: []string{"-socket", socket}, environ: dovecot, fd3: fd3("alice", canary)}, 2, nil},
		{"program that does not exist", run{args: []string{"-socket", socket, "/nonexistent"}, environ: dovecot, fd3: fd3("alice", canary)}, 111, nil},
		{"program from PATH", run{args: []string{"-socket", socket, "-check", "env"}, fd3: fd3("alice", canary)}, 0, []string{"USER=alice@example.org"}},
		{"unknown option", run{args: args("-x"), environ: dovecot, fd3: fd3("alice", canary)}, 2, nil},
		{"status of the program", run{args: []string{"-socket", socket, "-check", "/bin/sh", "-c", "exit 77"}, fd3: fd3("alice", canary)}, 77, nil},
		{"version", run{args: []string{"-version"}}, 0, []string{"dev"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, stdout, stderr := c.run.start(t)
			if status != c.want {
				t.Errorf("exit status %d, want %d; standard error: %s", status, c.want, stderr)
			}
			lines := strings.Split(stdout, "\n")
			for _, want := range c.out {
				if !slices.ContainsFunc(lines, func(line string) bool {
					return line == want || strings.HasSuffix(want, ":") && strings.HasPrefix(line, want)
				}) {
					t.Errorf("the next program has no line %q:\n%s", want, stdout)
				}
			}
			if c.out == nil && stdout != "" {
				t.Errorf("standard output = %q, want nothing run", stdout)
			}
			if !slices.Contains(c.run.environ, "AUTHORIZED=1") && strings.Contains(stdout, "AUTHORIZED") {
				t.Errorf("the next program of a login has AUTHORIZED:\n%s", stdout)
			}
			if strings.Contains(stdout+stderr, canary) || strings.Contains(stderr, "alice") {
				t.Errorf("what the user typed turns up in the environment or in a message:\n%s%s", stdout, stderr)
			}
			if wantSaid := c.want == 2 || c.want == 111; wantSaid && !strings.HasPrefix(stderr, "valetkey-checkpassword: ") {
				t.Errorf("standard error = %q, want a reason", stderr)
			}
		})
	}
}

// TestPAMVariableTwice starts the program as pam_exec does for an application that lets its users add variables. Package
// exec would drop the duplicate.
func TestPAMVariableTwice(t *testing.T) {
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	socket := serve(t, site{}, false)
	for _, c := range []struct {
		environ []string
		want    int
	}{
		{[]string{"PAM_TYPE=auth", "PAM_USER=alice"}, accepted},
		{[]string{"PAM_USER=mallory", "PAM_TYPE=auth", "PAM_USER=alice"}, misused},
	} {
		stdin, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(write, canary)
		write.Close()
		p, err := os.StartProcess(path, []string{path, "-socket", socket, "-pam"}, &os.ProcAttr{Env: c.environ, Files: []*os.File{stdin}})
		if err != nil {
			t.Fatal(err)
		}
		state, err := p.Wait()
		stdin.Close()
		if err != nil || state.ExitCode() != c.want {
			t.Errorf("with %q: exit status %d, %v, want %d", c.environ, state.ExitCode(), err, c.want)
		}
	}
}

// TestDaemonTrouble: whatever the daemon does instead of answering is 111, within the time that was given.
func TestDaemonTrouble(t *testing.T) {
	listen := func(script func(net.Conn)) string {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer nc.Close()
					script(nc)
				}()
			}
		}()
		return path
	}
	// answer says something after the request, and waits for the helper to go.
	answer := func(text string) func(net.Conn) {
		return func(nc net.Conn) {
			nc.Read(make([]byte, wire.MaxRequest))
			io.WriteString(nc, text)
			io.Copy(io.Discard, nc)
		}
	}
	stopped := listen(func(net.Conn) {})
	os.Remove(stopped)
	for _, c := range []struct{ name, socket, says string }{
		{"stopped", stopped, "cannot connect to the daemon: no such file or directory"},
		{"hangs up", listen(func(nc net.Conn) { nc.Read(make([]byte, wire.MaxRequest)) }), "cannot read the daemon's answer: unexpected EOF"},
		{"silent", listen(answer("")), "cannot read the daemon's answer: no answer in time"},
		{"stops in the middle", listen(answer("\x01A\x00\x05\x00\x03a")), "cannot read the daemon's answer: no answer in time"},
		{"nonsense", listen(answer("HTTP/1.1 200 OK\r\n")), "cannot read the daemon's answer: malformed message"},
		{"slow", serve(t, site{}, false), "cannot read the daemon's answer: no answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, flavour := range []run{
				{environ: []string{"ORIG_UID=104"}, fd3: fd3("slow", canary), args: append([]string{"-socket", c.socket, "-timeout", "1"}, tell...)},
				{environ: []string{"PAM_TYPE=auth", "PAM_USER=slow"}, stdin: canary, args: []string{"-socket", c.socket, "-timeout", "1", "-pam"}},
			} {
				start := time.Now()
				status, stdout, stderr := flavour.start(t)
				if want := "valetkey-checkpassword: " + c.says + "\n"; status != undecided || stdout != "" || stderr != want {
					t.Errorf("exit status %d, output %q, %q, want %d and %q", status, stdout, stderr, undecided, want)
				}
				// Far beyond its own second, but less than what any of the daemons would take.
				if took := time.Since(start); took > time.Minute {
					t.Errorf("took %v with -timeout 1", took)
				}
			}
		})
	}
}
