package checkpassword_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// qmail is the POP3 server of docs/peers/qmail.md, with stand-ins for the two programs of qmail.
type qmail struct {
	addr string
	home string // of its user
	proc *harness.Process

	page   *harness.Page
	daemon *harness.Daemon
}

// What an account of qmail's has.
const (
	qmailUser = "alice@example.org"

	qmailUID = 4711
	qmailGID = 4712
)

func newQmail(t *testing.T, d *harness.Daemon, page *harness.Page, substitutions ...string) *qmail {
	t.Helper()
	dir := harness.Dir(t)
	programs := filepath.Join(dir, "bin")
	q := &qmail{page: page, daemon: d, addr: peers.Addr(t), home: filepath.Join(dir, "home", "alice")}
	for _, dir := range []string{programs, q.home} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(q.home, qmailUID, qmailGID); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(q.home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"qmail-popup", "qmail-pop3d"} {
		program, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(programs, name), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := filepath.Join(dir, "run")
	_, port, _ := net.SplitHostPort(q.addr)
	text := page.Snippet(t, "run", append(substitutions, " 0 110 ", " 127.0.0.1 "+port+" ")...)
	if err := os.WriteFile(run, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(run)
	cmd.Env = []string{"PATH=" + programs + ":/usr/bin:/bin"}
	cmd.Dir = "/"
	q.proc = harness.Start(t, t, "tcpserver", cmd)
	harness.WaitFor(t, "tcpserver to listen", func() bool {
		if !q.proc.Running() {
			t.Fatalf("it ended:\n%s", q.proc.Log)
		}
		return strings.Contains(q.proc.Log.String(), "tcpserver: status: ")
	})
	return q
}

// userdb are the fields of its user.
func (q *qmail) userdb() []string {
	return []string{fmt.Sprintf("uid=%d", qmailUID), fmt.Sprintf("gid=%d", qmailGID), "home=" + q.home}
}

// who is what the program behind the login found itself to be, one line each; empty if there was none yet.
func (q *qmail) who() []string {
	b, _ := os.ReadFile(filepath.Join(q.home, "Maildir", "who"))
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// try logs in, and wants the exit status of valetkey-checkpassword, or of what it became, to be what the daemon decided: qmail-popup tells
// the user nothing of it.
func (q *qmail) try(t *testing.T, login, password string) string {
	t.Helper()
	before, mark := q.proc.Log.Mark(), q.daemon.Log().Mark()
	answer := peers.POP3(q.addr)(t, login, password)
	line, _ := q.proc.Log.Wait(before, 5*time.Second, func(line string) bool { return strings.HasPrefix(line, "exit status ") })
	want := "exit status 111"
	switch {
	case strings.HasPrefix(answer, "+OK"):
		want = "exit status 0"
	case q.daemon.Process().Running() && !q.daemon.Frozen():
		harness.Poll(5*time.Second, func() bool { return q.rejected(mark) || q.undecided(mark) })
		if q.rejected(mark) {
			want = "exit status 1"
		}
	}
	if line != want {
		t.Errorf("after %q: %q, want %s", answer, line, want)
	}
	return answer
}

func (q *qmail) rejected(mark int) bool  { return q.logged(mark, "fail") }
func (q *qmail) undecided(mark int) bool { return q.logged(mark, "undecided") }

// logged reports whether the daemon's log has this result for qmail's user.
func (q *qmail) logged(mark int, result string) bool {
	return slices.ContainsFunc(q.daemon.AuthLines(mark), func(a harness.AuthLine) bool {
		return a["result"] == result && a["user"] == qmailUser
	})
}

// opened wants the program behind the last login to have been the account's user, in its home and under the limit of the run file.
func (q *qmail) opened(t *testing.T) {
	want := []string{
		fmt.Sprintf("%d %d %[2]d", qmailUID, qmailGID), q.home, "USER=" + qmailUser, "HOME=" + q.home, "SHELL=/bin/sh",
		"address space: 19531", // of 1024 bytes: softlimit -m 20000000
	}
	if got := q.who(); !slices.Equal(got, want) {
		t.Errorf("qmail-pop3d ran with %q, want %q", got, want)
	}
}

// account wants an account as the page makes it to do.
func (q *qmail) account(t *testing.T) {
	const user = "bob@example.org"
	command := strings.Fields(q.page.Snippet(t, "account", "alice@example.org", user, "1001", strconv.Itoa(qmailUID), "/home/alice", q.home))
	q.daemon.Must(t, command[1:]...)
	if got, want := q.try(t, user, q.daemon.Create(t, user, "phone")), "+OK "; got != want {
		t.Errorf("the user sees %q, want %q", got, want)
	}
	if got, want := q.who()[0], fmt.Sprintf("%d %[1]d %[1]d", qmailUID); got != want {
		t.Errorf("qmail-pop3d ran with the ids %s, want %s", got, want)
	}
}
