package notice

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// outbox is the queue in memory. Waits are kept and not waited for: the test lets the time pass.
type outbox struct {
	mu       sync.Mutex
	waiting  []*auth.Notice
	leased   map[int64]*auth.Notice
	outcomes map[int64]string
	problems map[int64]string
	waits    map[int64][]time.Duration
	targets  []auth.NoticeTarget
	held     map[int64]bool // postponed, until pass
	sent     [3]int         // answer of SentNotices: account, all, same
	expiries int
	down     error
	next     int64
}

func newOutbox() *outbox {
	return &outbox{leased: map[int64]*auth.Notice{}, outcomes: map[int64]string{}, problems: map[int64]string{}, waits: map[int64][]time.Duration{}, held: map[int64]bool{}}
}

func (o *outbox) add(target string, n auth.Notice) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	n.ID, n.Target, n.Tries = o.next, target, 0
	o.waiting = append(o.waiting, &n)
	return n.ID
}

func (o *outbox) pass() { o.mu.Lock(); defer o.mu.Unlock(); clear(o.held) }

func (o *outbox) SetNoticeTargets(_ context.Context, _ string, targets []auth.NoticeTarget) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.targets = targets
	return o.down
}

func (o *outbox) TakeNotices(_ context.Context, slots []auth.NoticeSlots, _ time.Duration) (taken []auth.Notice, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down != nil {
		return nil, o.down
	}
	for _, s := range slots {
		free := s.Free
		o.waiting = slices.DeleteFunc(o.waiting, func(n *auth.Notice) bool {
			if n.Target != s.Target || free == 0 || o.held[n.ID] {
				return false
			}
			free--
			n.Tries++
			o.leased[n.ID] = n
			taken = append(taken, *n)
			return true
		})
	}
	return taken, nil
}

func (o *outbox) FinishNotice(_ context.Context, n auth.Notice, outcome string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.leased, n.ID)
	o.outcomes[n.ID], o.problems[n.ID] = outcome, n.Problem
	return nil
}

func (o *outbox) PostponeNotice(_ context.Context, n auth.Notice, wait time.Duration, counted bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.leased[n.ID]
	delete(o.leased, n.ID)
	if !counted {
		x.Tries--
	}
	o.held[n.ID] = true
	o.waits[n.ID] = append(o.waits[n.ID], wait)
	o.waiting = append(o.waiting, x)
	return nil
}

func (o *outbox) SentNotices(context.Context, auth.Notice) (int, int, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent[0], o.sent[1], o.sent[2] > 0, nil
}

func (o *outbox) TellExpiries(context.Context, time.Duration) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expiries++
	return 0, nil
}

func (o *outbox) PurgeNotices(context.Context, time.Duration) (int, error) { return 0, nil }

func (o *outbox) outcome(id int64) string { o.mu.Lock(); defer o.mu.Unlock(); return o.outcomes[id] }
func (o *outbox) waited(id int64) []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.waits[id])
}

// lines is a log that the test reads.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(b) }
func (l *lines) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func running(t *testing.T, o *outbox, c Config) (*Service, *lines) {
	t.Helper()
	log := &lines{}
	s := New(o, "test", slog.New(slog.NewTextHandler(log, nil)))
	s.Configure(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(longEnough):
			t.Error("Run does not end")
		}
	})
	return s, log
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(longEnough); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so within %v: %s", longEnough, what)
		}
	}
}

func hook(name, path string, args ...string) Hook {
	return Hook{Name: name, Kinds: auth.NoticeKinds, Command: append([]string{path}, args...), TimeLimit: longEnough}
}

func TestHooks(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	o := newOutbox()
	service, log := running(t, o, Config{Hooks: []Hook{
		hook("good", script(t, `cat >> "$1"; echo done`), out), hook("bad", script(t, "echo no >&2; exit 3")),
	}})
	n := notice(auth.NoticeNewNetwork, "phone", map[string]any{"service": "imap", "front_end": "dovecot", "address": "198.51.100.7", "network": "198.51.100.0/24"})
	good, bad := o.add("hook:good", n), o.add("hook:bad", n)
	gone := o.add("hook:good", auth.Notice{Kind: auth.NoticeRevoked})
	until(t, "the good one is told", func() bool { return o.outcome(good) == Sent })
	until(t, "an event that is gone is no trouble", func() bool { return o.outcome(gone) == Gone })
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(got, &e); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"event": "new_network", "login": "alice", "label": "phone", "mail": "alice@example.org", "display_name": "Alice Ädams",
		"address": "198.51.100.7", "network": "198.51.100.0/24", "service": "imap", "at": "2026-11-26T12:00:00.000005Z"} {
		if e[key] != want {
			t.Errorf("the hook read %s = %v, want %q", key, e[key], want)
		}
	}
	until(t, "the bad one is given up", func() bool { o.pass(); return o.outcome(bad) == Failed })
	waits := o.waited(bad)
	if len(waits) != hookTries-1 || waits[0] != firstWait || waits[1] != 2*firstWait {
		t.Errorf("the bad one was tried again after %v, want %d times, each time after twice as long", waits, hookTries-1)
	}
	// The last one is counted just before the outbox knows it.
	if got := service.Totals(); got[Sent] != 1 || got[Gone] != 1 || got[Failed] != 1 || got[Later] != hookTries-1 {
		t.Errorf("Totals = %v, want one sent, one gone, one failed after %d that were put off", got, hookTries-1)
	}
	if text := log.String(); !strings.Contains(text, `hook=good event=42 output=done`) || !strings.Contains(text, "exit code 3 and said: no") {
		t.Errorf("the log does not tell of both:\n%s", text)
	}
}

// A hook that hangs holds up neither another one nor the mails, and no more than two of it run at a time.
func TestAHungHookHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	o := newOutbox()
	_, _ = running(t, o, Config{Hooks: []Hook{hook("hangs", script(t, `touch "$1/$$"; exec sleep 1000`), dir), hook("good", script(t, "exit 0"))}})
	n := notice(auth.NoticeRevoked, "phone", nil)
	for range 10 {
		o.add("hook:hangs", n)
	}
	until(t, "two hang", func() bool { all, _ := os.ReadDir(dir); return len(all) == perTarget })
	var good []int64
	for range 10 {
		good = append(good, o.add("hook:good", n))
	}
	until(t, "the others are told", func() bool {
		return !slices.ContainsFunc(good, func(id int64) bool { return o.outcome(id) != Sent })
	})
	if all, _ := os.ReadDir(dir); len(all) != perTarget {
		t.Errorf("%d of the hanging hook run, want %d", len(all), perTarget)
	}
}

// received is what a mail server got.
type received struct {
	from, to, auth string
	data           string
}

// smtpServer is a mail server that says what reply says, by command: "" means yes.
type smtpServer struct {
	net.Listener
	reply func(command string) string
	mu    sync.Mutex
	mails []received
	conns int
}

func newSMTP(t *testing.T, addr string, reply func(string) string) *smtpServer {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &smtpServer{Listener: l, reply: reply}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			go s.serve(conn)
		}
	}()
	return s
}

func (s *smtpServer) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	say := func(text string) { fmt.Fprint(conn, text, "\r\n") }
	say("220 mx.example.org ESMTP")
	var m received
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if s.reply != nil {
			if text := s.reply(line); text != "" {
				say(text)
				continue
			}
		}
		verb, _, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-mx.example.org\r\n250-AUTH PLAIN\r\n250 8BITMIME")
		case "AUTH":
			raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, "AUTH PLAIN "))
			m.auth = string(raw)
			say("235 ok")
		case "MAIL":
			m.from = line
			say("250 ok")
		case "RCPT":
			m.to = line
			say("250 ok")
		case "DATA":
			say("354 go on")
			var b strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				b.WriteString(strings.TrimPrefix(line, "."))
			}
			m.data = b.String()
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			say("250 queued")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 what?")
		}
	}
}

func (s *smtpServer) got() []received { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.mails) }

func mailing(t *testing.T, addr string) *Mail {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return &Mail{From: from, Templates: builtIn(t), Kinds: MailKinds, PerAccount: 10, PerHour: 100,
		SMTP: &SMTP{Host: "127.0.0.1", Port: a.Port, TLS: NoTLS, Username: "valetkey", Password: "hunter2", Hello: "host.example.org"}}
}

func TestMails(t *testing.T) {
	server := newSMTP(t, "127.0.0.1:0", func(line string) string {
		switch {
		case strings.Contains(line, "refused@"):
			return "550 5.1.1 no such user"
		case strings.Contains(line, "grey@"):
			return "451 4.7.1 later"
		}
		return ""
	})
	o := newOutbox()
	s, log := running(t, o, Config{Mail: mailing(t, server.Addr().String())})
	to := func(kind auth.NoticeKind, address string) auth.Notice {
		n := notice(kind, "phone", nil)
		n.Account.Attributes["mail"] = []string{address}
		return n
	}
	reader := to(auth.NoticeCreated, "alice@example.org")
	reader.Account.Kind = auth.Reader
	ids := map[string]int64{
		Sent: o.add("mail", to(auth.NoticeCreated, "alice@example.org")), Failed: o.add("mail", to(auth.NoticeCreated, "refused@example.org")),
		NoRecipient: o.add("mail", to(auth.NoticeCreated, "nonsense")), "": o.add("mail", to(auth.NoticeCreated, "grey@example.org")),
	}
	ofReader := o.add("mail", reader)
	for want, id := range ids {
		until(t, "outcome "+want, func() bool { return o.outcome(id) == want && (want != "" || len(o.waited(id)) > 0) })
	}
	until(t, "a reader is not mailed", func() bool { return o.outcome(ofReader) == NoRecipient })
	got := server.got()
	if len(got) != 1 || got[0].from != "MAIL FROM:<postmaster@example.org> BODY=8BITMIME" || got[0].to != "RCPT TO:<alice@example.org>" || got[0].auth != "\x00valetkey\x00hunter2" {
		t.Fatalf("the server got %+v, want one mail", got)
	}
	if _, subject, _ := letter(t, []byte(got[0].data)); !strings.Contains(subject, `"phone"`) {
		t.Errorf("subject %q", subject)
	}

	// The limits: what is too much waits, and counts as no try.
	o.mu.Lock()
	o.sent = [3]int{10, 10, 0}
	o.mu.Unlock()
	tooMuch := o.add("mail", to(auth.NoticeCreated, "alice@example.org"))
	until(t, "the account's limit", func() bool { return len(o.waited(tooMuch)) == 1 })
	o.mu.Lock()
	o.sent = [3]int{0, 100, 1}
	o.mu.Unlock()
	repeated := o.add("mail", to(auth.NoticeRevokedUse, "alice@example.org"))
	until(t, "an old phone is told of once a day", func() bool { return o.outcome(repeated) == Repeated })
	o.pass()
	until(t, "the site's limit", func() bool { return len(o.waited(tooMuch)) == 2 })
	o.mu.Lock()
	o.sent = [3]int{}
	o.mu.Unlock()
	o.pass()
	s.Configure(Config{Mail: mailing(t, server.Addr().String())}) // the limit is looked at again
	until(t, "then it is sent", func() bool { return o.outcome(tooMuch) == Sent })

	s.Configure(Config{}) // nobody is told any more
	left := o.add("mail", to(auth.NoticeCreated, "alice@example.org"))
	until(t, "the outbox knows", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.targets) == 0 })
	if o.outcome(left) != "" {
		t.Error("a mail was sent after the notices were switched off")
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Error("the log holds the password of the mail server")
	}
}

// A test is marked wherever it arrives, and tried once: somebody waits for the outcome.
func TestTests(t *testing.T) {
	server := newSMTP(t, "127.0.0.1:0", func(line string) string {
		if strings.Contains(line, "grey@") {
			return "451 4.7.1 later"
		}
		return ""
	})
	o, out := newOutbox(), filepath.Join(t.TempDir(), "out")
	running(t, o, Config{Mail: mailing(t, server.Addr().String()), Hooks: []Hook{
		hook("good", script(t, `{ cat; env; } > "$1"`), out), hook("bad", script(t, "echo no such user; exit 67"))}})
	test := func(address string) auth.Notice {
		n := notice(auth.NoticeCreated, "test", map[string]any{"test": true})
		n.Account.Attributes["mail"] = []string{address}
		return n
	}
	for _, tt := range []struct {
		target, address, outcome, problem string
	}{
		{"mail", "alice@example.org", Sent, ""},
		{"mail", "grey@example.org", Failed, `451 "4.7.1 later"`},
		{"hook:good", "alice@example.org", Sent, ""},
		{"hook:bad", "alice@example.org", Failed, "it ended with exit code 67 and said: no such user"},
	} {
		id := o.add(tt.target, test(tt.address))
		until(t, tt.target+" has an outcome", func() bool { return o.outcome(id) != "" })
		o.mu.Lock()
		problem := o.problems[id]
		o.mu.Unlock()
		if got := o.outcome(id); got != tt.outcome || problem != tt.problem || len(o.waited(id)) > 0 {
			t.Errorf("a test to %s at %s: %q with the problem %q, want %q and %q at once", tt.address, tt.target, got, problem, tt.outcome, tt.problem)
		}
	}
	if got, _ := os.ReadFile(out); !strings.Contains(string(got), `"test":true`) || !strings.Contains(string(got), "VALETKEY_TEST=1\n") {
		t.Errorf("the hook got %s", got)
	}
	_, subject, body := letter(t, []byte(server.got()[0].data))
	if !strings.HasPrefix(subject, "[Test] ") || !strings.HasPrefix(body, "This is a test by root whether notices arrive. Nothing has happened.\n\n") {
		t.Errorf("the mail is not marked: %q, %q", subject, body)
	}
}

// Beyond the site's limit the mails stay where they are: turning all of them over, again and again, would keep the database busy.
func TestSiteLimitHolds(t *testing.T) {
	server := newSMTP(t, "127.0.0.1:0", func(string) string { return "" })
	o := newOutbox()
	o.sent = [3]int{0, 100, 0}
	var ids []int64
	for range 200 {
		ids = append(ids, o.add("mail", notice(auth.NoticeCreated, "phone", nil)))
	}
	running(t, o, Config{Mail: mailing(t, server.Addr().String()), Hooks: []Hook{hook("good", script(t, "exit 0"))}})
	for range 5 { // so that the outbox was asked so often
		id := o.add("hook:good", notice(auth.NoticeRevoked, "phone", nil))
		until(t, "a hook is run meanwhile", func() bool { return o.outcome(id) == Sent })
	}
	turned := 0
	for _, id := range ids {
		turned += len(o.waited(id))
	}
	if turned == 0 || turned > perTarget {
		t.Errorf("%d mails were taken and put back, want 1 to %d", turned, perTarget)
	}
}

// While the server is away nothing is lost and not every mail tries it; then all arrive.
func TestServerIsAwayForAWhile(t *testing.T) {
	server := newSMTP(t, "127.0.0.1:0", nil)
	addr := server.Addr().String()
	server.Close()
	o := newOutbox()
	_, log := running(t, o, Config{Mail: mailing(t, addr)})
	var ids []int64
	for range 20 {
		ids = append(ids, o.add("mail", notice(auth.NoticeCreated, "phone", nil)))
	}
	until(t, "a try failed", func() bool { return strings.Contains(log.String(), "a notice could not be told") })
	server = newSMTP(t, addr, nil)
	until(t, "all arrive", func() bool {
		o.pass()
		return len(server.got()) >= len(ids)
	})
	for _, id := range ids {
		until(t, "each is done", func() bool { return o.outcome(id) == Sent })
	}
	if n := len(server.got()); n != len(ids) {
		t.Errorf("%d mails arrived, want %d", n, len(ids))
	}
	until(t, "the log says so", func() bool { return strings.Contains(log.String(), "notices arrive again") })
	if n := strings.Count(log.String(), "level=WARN"); n > 2 {
		t.Errorf("%d warnings, want one for the time that the server was away:\n%s", n, log)
	}
}

// A server that wants the password refused, offers no STARTTLS or never answers costs a try, and tells nobody the password.
func TestServersThatDoNotPlay(t *testing.T) {
	for _, tt := range []struct {
		name, tls string
		reply     func(string) string
		want      string
	}{
		{"password refused, and repeated", NoTLS, func(l string) string {
			if strings.HasPrefix(l, "AUTH") {
				return "535 5.7.8 wrong: " + l
			}
			return ""
		}, "refuses our user name and password with code 535"},
		{"no STARTTLS", StartTLS, nil, "does not offer STARTTLS"},
		{"not TLS", TLS, nil, "tls: first record does not look like a TLS handshake"},
		{"endless reply", NoTLS, func(string) string { return strings.Repeat("250-x\r\n", 100_000) + "250 x" }, "says too much"},
		{"endless line", NoTLS, func(string) string { return "250 " + strings.Repeat("x", 1<<20) }, "does not offer AUTH"}, // the line is cut,
		{"sender refused", NoTLS, func(l string) string {
			if strings.HasPrefix(l, "MAIL") {
				return "553 no"
			}
			return ""
		}, "553"},
	} {
		server := newSMTP(t, "127.0.0.1:0", tt.reply)
		m := mailing(t, server.Addr().String())
		m.SMTP.TLS = tt.tls
		err := m.send(t.Context(), "alice@example.org", []byte("Subject: x\r\n\r\nx\r\n"))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte("\x00valetkey\x00hunter2"))) {
			t.Errorf("%s: send = %v, want %q", tt.name, err, tt.want)
		}
		if _, down := err.(unreachable); !down {
			t.Errorf("%s: %T is not the server's", tt.name, err)
		}
	}
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := mailing(t, mute.Addr().String()).send(ctx, "alice@example.org", nil); err == nil {
		t.Error("send to a mute server = nil")
	}
}

func TestSendmail(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	m := &Mail{From: &mail.Address{Address: "postmaster@example.org"}, Sendmail: []string{script(t, `f=$1; shift; printf '%s|' "$@" > "$f"; cat >> "$f"`), out}}
	if err := m.send(t.Context(), "alice@example.org", []byte("Subject: x\r\n\r\n.\r\ny\r\n")); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(out); string(got) != "-i|-f|postmaster@example.org|--|alice@example.org|Subject: x\n\n.\ny\n" {
		t.Errorf("sendmail got %q", got)
	}
	for code, forGood := range map[int]bool{67: true, 65: true, 75: false, 1: false} {
		m.Sendmail = []string{script(t, fmt.Sprint("exit ", code))}
		err := m.send(t.Context(), "alice@example.org", nil)
		if _, got := err.(permanent); err == nil || got != forGood {
			t.Errorf("sendmail that ends with %d: %v, for good %v, want %v", code, err, got, forGood)
		}
	}
}

// Trouble with the outbox is told once, and passes.
func TestOutboxIsAway(t *testing.T) {
	o := newOutbox()
	o.down = fmt.Errorf("connection refused")
	_, log := running(t, o, Config{Hooks: []Hook{hook("good", script(t, "exit 0"))}, ExpiresSoon: time.Hour})
	id := o.add("hook:good", notice(auth.NoticeRevoked, "phone", nil))
	until(t, "the log says so", func() bool { return strings.Contains(log.String(), "notices wait") })
	o.mu.Lock()
	o.down = nil
	o.mu.Unlock()
	until(t, "then it is told", func() bool { return o.outcome(id) == Sent })
	until(t, "ends that are near are looked for", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.expiries > 0 })
	if n := strings.Count(log.String(), "notices wait"); n != 1 {
		t.Errorf("the log says %d times that notices wait, want once", n)
	}
}
