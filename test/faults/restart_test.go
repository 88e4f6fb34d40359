package faults_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

const (
	idle  = 20       // smtpd processes that have logged somebody in
	fresh = 4        // smtpd processes that may come up later, and must have the handshake before they greet
	kept  = idle / 2 // of the idle ones: without a session; the others keep one open
)

// noMechanisms is what smtpd says as it ends before the greeting, and no mail is taken.
const noMechanisms = "no SASL authentication mechanisms"

// smtpLogin is one login through Postfix, in a session that the test opened before or in one of its own.
type smtpLogin struct {
	step  string // of the first that failed: "connect", "greeting", "EHLO", "AUTH"; empty: logged in
	code  int    // of the reply then; 0: the server hung up
	text  string
	took  time.Duration
	began time.Time
}

func (l smtpLogin) String() string {
	if l.step == "" {
		return "235"
	}
	return fmt.Sprintf("%s: %d %s (after %v)", l.step, l.code, l.text, l.took.Round(time.Millisecond))
}

// refused reports what no restart may cause: a client that is told to give up.
func (l smtpLogin) refused() bool { return l.code >= 500 }

// logIn logs in, in this session or, if that is nil, in a new one, and hangs up.
func logIn(addr string, s *smtp.Client, secret string) (l smtpLogin) {
	l.began = time.Now()
	fail := func(step string, err error) smtpLogin {
		l.step, l.text, l.took = step, err.Error(), time.Since(l.began)
		var reply *textproto.Error
		if errors.As(err, &reply) {
			l.code, l.text = reply.Code, reply.Msg
		}
		return l
	}
	if s == nil {
		var err error
		var step string
		if s, step, err = openSession(addr); err != nil {
			return fail(step, err)
		}
	}
	defer s.Close()
	if err := s.Auth(smtp.PlainAuth("", "alice", secret, "127.0.0.1")); err != nil {
		return fail("AUTH", err)
	}
	_ = s.Quit()
	l.took = time.Since(l.began)
	return l
}

// openSession has the greeting and the answer to EHLO, with AUTH offered.
func openSession(addr string) (s *smtp.Client, step string, err error) {
	conn, err := net.DialTimeout("tcp", addr, harness.Patience)
	if err != nil {
		return nil, "connect", err
	}
	_ = conn.SetDeadline(time.Now().Add(2 * harness.Patience))
	if s, err = smtp.NewClient(conn, "127.0.0.1"); err != nil {
		conn.Close()
		return nil, "greeting", err
	}
	if err = s.Hello("client.example.org"); err == nil {
		if offered, mechanisms := s.Extension("AUTH"); !offered || mechanisms != "PLAIN LOGIN" {
			err = fmt.Errorf("EHLO offers AUTH %q", mechanisms)
		}
	}
	if err != nil {
		s.Close()
		return nil, "EHLO", err
	}
	return s, "", nil
}

// openSessions opens n at once, so that each has an smtpd process of its own.
func openSessions(t *testing.T, addr string, n int) []*smtp.Client {
	t.Helper()
	all := make([]*smtp.Client, n)
	for i := range all {
		s, step, err := openSession(addr)
		if err != nil {
			t.Fatalf("session %d: %s: %v", i, step, err)
		}
		t.Cleanup(func() { s.Close() })
		all[i] = s
	}
	return all
}

var smtpdConnect = regexp.MustCompile(`smtpd\[(\d+)\]: connect from`)

// smtpds are the ids of the smtpd processes that have greeted anybody.
func smtpds(m *harness.Mailer) []string {
	var ids []string
	for _, match := range smtpdConnect.FindAllStringSubmatch(m.LogText(), -1) {
		ids = append(ids, match[1])
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// warm makes 20 smtpd processes, logs in through each, and returns new sessions with some of them; the others are idle.
func warm(t *testing.T, m *harness.Mailer, addr, secret string) (sessions []*smtp.Client) {
	t.Helper()
	for i, s := range openSessions(t, addr, idle) {
		if l := logIn(addr, s, secret); l.step != "" {
			t.Fatalf("login %d before the restart: %v", i, l)
		}
	}
	if n := len(smtpds(m)); n < idle {
		t.Fatalf("%d smtpd processes, want %d", n, idle)
	}
	return openSessions(t, addr, idle-kept)
}

// logins runs logins through Postfix without a pause, each in a session of its own, until stop is called.
func logins(addr, secret string, workers int) (stop func() []smtpLogin) {
	var mu sync.Mutex
	var all []smtpLogin
	var running sync.WaitGroup
	done := make(chan struct{})
	for range workers {
		running.Go(func() {
			for {
				l := logIn(addr, nil, secret)
				mu.Lock()
				all = append(all, l)
				mu.Unlock()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	return func() []smtpLogin {
		close(done)
		running.Wait()
		return all
	}
}

// endings are how a daemon comes to be restarted.
var endings = []struct {
	name string
	end  func(*testing.T, *harness.Daemon)
	// clean: the daemon could answer what it had read.
	clean bool
}{
	{"SIGTERM", func(t *testing.T, d *harness.Daemon) { d.Stop(t) }, true},
	{"SIGKILL", func(_ *testing.T, d *harness.Daemon) { d.Process().Kill() }, false},
}

// TestRestartUnnoticed restarts the daemon behind a Postfix whose smtpd processes know it, with the socket held as docs/operations.md
// tells systemd to, word for word, and Postfix as docs/peers/postfix.md has it.
//
// It would catch: a daemon that takes the socket away when it stops, or closes it for others; a connection that was accepted and
// then closed without the handshake; a login that was read and not answered; a login that is decided before there is a database.
func TestRestartUnnoticed(t *testing.T) {
	t.Parallel()
	operations, page := harness.ReadPage(t, "../operations"), harness.ReadPage(t, "postfix")
	units, err := harness.ParseUnits(operations.Snippet(t, "units"))
	if err != nil {
		t.Fatal(err)
	}
	service := &harness.SMTPService{Chroot: true, Processes: idle + fresh}
	mailer := harness.NewMailerWith(t, page.Snippet(t, "main.cf"), nil, service)
	socket := openUnit(t, units["valetkeyd-postfix.socket"], "/var/spool/postfix/", mailer.Queue()+"/")

	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	d.Sections = operations.Snippet(t, "valetkeyd.toml")
	d.Sockets = map[string]*os.File{socket.name: socket.file}
	d.Start(t)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "phone")

	for _, ending := range endings {
		t.Run(ending.name, func(t *testing.T) {
			sessions := warm(t, mailer, service.Addr, secret)
			before := smtpds(mailer)
			ending.end(t, d)
			if socket.waiting(t) != 0 {
				t.Fatal("somebody waits for the daemon already")
			}
			// The open sessions, the processes that are idle, and new processes, all at once and with nobody there.
			answers := make(chan smtpLogin, idle+fresh)
			for i := range idle + fresh {
				var s *smtp.Client
				if i < len(sessions) {
					s = sessions[i]
				}
				go func() { answers <- logIn(service.Addr, s, secret) }()
			}
			harness.WaitFor(t, "every smtpd to wait for the daemon", func() bool { return socket.waiting(t) == idle+fresh })
			d.StartListening(t)
			for range idle + fresh {
				if l := <-answers; l.step != "" {
					t.Errorf("login while the daemon was restarted: %v, want 235", l)
				}
			}
			if n := len(smtpds(mailer)); n <= len(before) && ending.clean {
				t.Errorf("%d smtpd processes, %d before the restart: none came up meanwhile", n, len(before))
			}
			d.WaitReady(t)
		})
	}
	cut := 0
	for _, ending := range endings {
		t.Run(ending.name+" under load", func(t *testing.T) {
			const rounds = 5
			stop := logins(service.Addr, secret, 8)
			type dying struct{ from, to time.Time }
			var killed []dying
			for range rounds {
				mark := d.Log().Mark()
				harness.WaitFor(t, "logins to run", func() bool { return len(d.AuthLines(mark)) >= 20 })
				began := time.Now()
				ending.end(t, d)
				if !ending.clean {
					killed = append(killed, dying{began, time.Now()})
				}
				d.Start(t)
			}
			mark := d.Log().Mark()
			harness.WaitFor(t, "logins after the restart", func() bool { return len(d.AuthLines(mark)) >= 20 })
			all := stop()
			later := 0
			for _, l := range all {
				// A question dies with the daemon that has it.
				lost := slices.ContainsFunc(killed, func(k dying) bool { return l.began.Before(k.to) && l.began.Add(l.took).After(k.from) })
				switch {
				case l.step == "":
				case l.step == "AUTH" && l.code == 454 && lost:
					later++
				case l.step == "greeting" && l.code == 0 && lost: // so does a handshake that it had begun, and the new smtpd with it
					cut++
				default:
					t.Errorf("login under load: %v, want 235", l)
				}
			}
			t.Logf("%d logins over %d restarts, %d of them told to try later", len(all), rounds, later)
		})
	}
	if n := strings.Count(mailer.LogText(), noMechanisms); n > cut {
		t.Errorf("Postfix had to say %q %d times, want %d, for those in the handshake when the daemon was killed", noMechanisms, n, cut)
	}
}

// TestRestartNoticed does the same without systemd's sockets: what docs/peers/postfix.md warns of.
//
// It would catch: a refusal instead of "try again later", an smtpd process that does not recover, a page that promises too much.
func TestRestartNoticed(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "phone")
	service := &harness.SMTPService{SASLPath: "unix:" + d.DovecotUnix, Processes: idle + fresh}
	mailer := harness.NewMailer(t, service)

	for _, ending := range endings {
		t.Run(ending.name, func(t *testing.T) {
			sessions := warm(t, mailer, service.Addr, secret)
			// Nobody asked while it was away: nobody noticed.
			ending.end(t, d)
			d.Start(t)
			for _, s := range append(sessions, make([]*smtp.Client, kept)...) {
				if l := logIn(service.Addr, s, secret); l.step != "" {
					t.Errorf("login after the restart: %v, want 235", l)
				}
			}

			sessions = openSessions(t, service.Addr, idle)
			ending.end(t, d)
			for i, s := range sessions[:kept] {
				if l := logIn(service.Addr, s, secret); l.step != "AUTH" || l.code != 454 {
					t.Errorf("login %d in an old session while the daemon is away: %v, want 454", i, l)
				}
			}
			d.Start(t)
			for i, s := range sessions[kept:] {
				if l := logIn(service.Addr, s, secret); l.step != "" {
					t.Errorf("login %d in a session that did not ask meanwhile: %v, want 235", i, l)
				}
			}
		})
	}
	t.Run("new process", func(t *testing.T) {
		d.Stop(t)
		// More than there are processes that know the mechanisms: the last ones would have to ask.
		var greeted []*smtp.Client
		var turnedAway smtpLogin
		for range idle + fresh {
			s, step, err := openSession(service.Addr)
			if err != nil {
				turnedAway = smtpLogin{step: step, text: err.Error()}
				if !errors.Is(err, io.EOF) {
					t.Errorf("a new smtpd process while the daemon is away: %s: %v, want it to hang up", step, err)
				}
				break
			}
			greeted = append(greeted, s)
		}
		for _, s := range greeted {
			s.Close()
		}
		if turnedAway.step != "greeting" {
			t.Errorf("a new smtpd process while the daemon is away: %v, want it to hang up before the greeting", turnedAway)
		}
		if !strings.Contains(mailer.LogText(), noMechanisms) {
			t.Errorf("Postfix did not say %q, as the page has it", noMechanisms)
		}
		d.Start(t)
		// service_throttle_time is 1 s here.
		harness.WaitFor(t, "all processes to greet again", func() bool {
			for range idle + fresh {
				s, _, err := openSession(service.Addr)
				if err != nil {
					return false
				}
				defer s.Close()
			}
			return true
		})
	})
	t.Run("quick restarts under load", func(t *testing.T) {
		stop := logins(service.Addr, secret, 8)
		for _, ending := range endings {
			mark := d.Log().Mark()
			harness.WaitFor(t, "logins to run", func() bool { return len(d.AuthLines(mark)) >= 20 })
			ending.end(t, d)
			d.Start(t)
		}
		mark := d.Log().Mark()
		harness.WaitFor(t, "logins after the restart", func() bool { return len(d.AuthLines(mark)) >= 20 })
		told := map[string]int{}
		for _, l := range stop() {
			told[fmt.Sprint(l.step, " ", l.code)]++
			if l.refused() {
				t.Errorf("login under load: %v, want none refused for good", l)
			}
		}
		t.Logf("logins over quick restarts, by the step that failed: %v", told)
		harness.WaitFor(t, "every login to work", func() bool { return logIn(service.Addr, nil, secret).step == "" })
	})
}

// unitSocket is a Unix socket that the test holds as a socket unit would.
type unitSocket struct {
	name, path string
	file       *os.File
}

// openUnit does what systemd does with a socket unit, but for its path.
func openUnit(t *testing.T, u harness.Unit, has, replacement string) unitSocket {
	t.Helper()
	get := func(key string) string {
		value := u.Get("Socket", key)
		if value == "" {
			t.Fatalf("the socket unit has not one %s=: %v", key, u)
		}
		return value
	}
	path, ok := strings.CutPrefix(get("ListenStream"), has)
	if !ok {
		t.Fatalf("ListenStream=%s, want something below %s", get("ListenStream"), has)
	}
	path = filepath.Join(replacement, path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	mode, err := strconv.ParseUint(get("SocketMode"), 8, 32)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := user.Lookup(get("SocketUser"))
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroup(get("SocketGroup"))
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(group.Gid)
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, os.FileMode(mode)); err != nil {
		t.Fatal(err)
	}
	return unitSocket{get("FileDescriptorName"), path, f}
}

// waiting counts the connections that nobody has accepted: they have no inode yet (proc(5), unix_diag).
func (s unitSocket) waiting(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		// Num RefCount Protocol Flags Type St Inode Path
		if f := strings.Fields(line); len(f) == 8 && f[7] == s.path && f[6] == "0" {
			n++
		}
	}
	return n
}
