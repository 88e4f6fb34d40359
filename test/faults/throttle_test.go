package faults_test

import (
	"bufio"
	"database/sql"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/lib/pq" // its driver "postgres"

	"github.com/valetkey/valetkey/test/harness"
)

// loginProcess speaks the Dovecot protocol as a login process does: for many users over one connection, without waiting for one answer
// before the next question.
type loginProcess struct {
	t       testing.TB
	conn    net.Conn
	id      int
	answers chan string // of the questions that want one
	refused atomic.Int64
}

func newLoginProcess(t testing.TB, path string) *loginProcess {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &loginProcess{t: t, conn: conn, answers: make(chan string, 16)}
	r := bufio.NewReader(conn)
	for line := ""; line != "DONE\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fmt.Fprint(conn, "VERSION\t1\t2\nCPID\t4711\n"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if strings.HasPrefix(line, "OK\t") {
				p.answers <- line
			} else {
				p.refused.Add(1)
			}
		}
	}()
	return p
}

func (p *loginProcess) ask(rip, login, password string) error {
	p.id++
	resp := base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
	p.conn.SetWriteDeadline(time.Now().Add(harness.Patience)) // a daemon whose workers are all held up reads nothing
	_, err := fmt.Fprintf(p.conn, "AUTH\t%d\tPLAIN\tservice=imap\trip=%s\tresp=%s\n", p.id, rip, resp)
	return err
}

// right logs in with the right password and returns how long the answer took.
func (p *loginProcess) right(rip, login, password string) (time.Duration, error) {
	begun := time.Now()
	if err := p.ask(rip, login, password); err != nil {
		return 0, err
	}
	select {
	case line := <-p.answers:
		if !strings.Contains(line, "user="+login) {
			return 0, fmt.Errorf("answer %q", line)
		}
		return time.Since(begun), nil
	case <-time.After(harness.Patience):
		return 0, fmt.Errorf("no answer within %v", harness.Patience)
	}
}

// resident is how much memory a process has, in KiB.
func resident(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestGuessingStorm guesses from thousands of addresses and from one, at an account, at many and at none, over the connection of a login
// process that serves users meanwhile. Nobody with the right password waits for any of it, also where the guesses come from; memory and
// the database stay bounded; and the daemon stops at once although hundreds of answers are held back.
func TestGuessingStorm(t *testing.T) {
	cluster := harness.NewCluster(t)
	dsn, _ := cluster.Database(t)
	d := harness.StartDaemon(t, dsn)
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	d.AddAccount(t, "alice")
	d.AddAccount(t, "bob")
	secret := d.Create(t, "alice", "phone")
	const office = "192.0.2.200" // a guesser sits there, too

	p := newLoginProcess(t, d.DovecotUnix)
	if _, err := p.right(office, "alice", secret); err != nil {
		t.Fatal(err)
	}
	before := resident(t, d.Process().PID())
	const rounds, each = 30, 200
	var took []time.Duration
	for round := range rounds {
		for i := range each {
			n := round*each + i
			rip, login := fmt.Sprintf("10.%d.%d.%d", n%7, n>>8&0xff, n&0xff), "alice"
			switch n % 4 {
			case 1:
				rip = office
			case 2:
				login = "bob"
			case 3:
				login = fmt.Sprint("nobody", n)
			}
			if err := p.ask(rip, login, fmt.Sprintf("Guess %d!", n)); err != nil {
				t.Fatal(err)
			}
		}
		for _, rip := range []string{office, "198.51.100.7"} {
			wait, err := p.right(rip, "alice", secret)
			if err != nil {
				t.Fatalf("round %d: the right password from %s: %v\n%s", round, rip, err, d.Log().Tail(5))
			}
			took = append(took, wait)
		}
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > time.Second {
		t.Errorf("the right password is answered after %v (median) and %v (at most) in the storm: it waits for the guesses", median, took[len(took)-1])
	}
	t.Logf("%d guesses, %d answered so far; the right password took %v (median), %v (at most)", rounds*each, p.refused.Load(), took[len(took)/2], took[len(took)-1])
	if held := int64(rounds*each) - p.refused.Load(); held < 100 {
		t.Errorf("%d answers are held back, want hundreds: nothing slows the guesses down", held)
	}
	if grown := resident(t, d.Process().PID()) - before; grown > 96<<10 {
		t.Errorf("the daemon grew by %d KiB in the storm", grown)
	}
	rows := func() (n int) {
		if err := db.QueryRow("SELECT count(*) FROM attempts").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	harness.WaitFor(t, "the storm to be in the history", func() bool { return rows() > 0 })
	if n := rows(); n > 3*2*16 {
		t.Errorf("%d rows in the history of two accounts", n)
	}
	out := d.Must(t, "why", "alice", "--from", office)
	for _, want := range []string{"live app passwords would open", "192.0.2.200/32: ", "this login was accepted from there lately"} {
		if !strings.Contains(out, want) {
			t.Errorf("valetkey why does not tell %q:\n%s", want, out)
		}
	}
	if code, out, _ := d.Valetkey(t, "", "why", "nobody5999"); code != 1 || !strings.Contains(out, "unknown_login") {
		t.Errorf("valetkey why of an unknown login: %d\n%s", code, out)
	}
	begun := time.Now()
	d.Stop(t)
	if took := time.Since(begun); took > 8*time.Second { // after 10 it cuts connections off
		t.Errorf("the daemon stopped after %v: it waited for what is held back", took)
	}
}
