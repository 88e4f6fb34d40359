package harness

import (
	"bufio"
	"context"
	"encoding/base64"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// AuthForm is one of the four ways to give SMTP a user name and a password (RFC 4954 section 4, RFC 4616, LOGIN).
type AuthForm string

// The forms. The first two are those of swaks, the others are spoken by us.
const (
	PlainInitial AuthForm = "PLAIN with initial response"
	LoginPrompt  AuthForm = "LOGIN without initial response"
	PlainPrompt  AuthForm = "PLAIN without initial response"
	LoginInitial AuthForm = "LOGIN with initial response"
)

// SMTPReply is the answer to an AUTH command.
type SMTPReply struct {
	Code    int // 0: the server hung up
	Text    string
	Offered []string // mechanisms that EHLO offered
	Took    time.Duration
}

// Authenticate logs in to an SMTP server in a session of its own.
func Authenticate(t testing.TB, addr string, form AuthForm, login, password string) SMTPReply {
	t.Helper()
	switch form {
	case PlainInitial:
		return swaks(t, addr, "PLAIN", login, password)
	case LoginPrompt:
		return swaks(t, addr, "LOGIN", login, password)
	}
	s := DialSMTP(t, addr)
	defer s.Close()
	return s.Auth(t, form, login, password)
}

// Lines of a transcript of swaks: "<-  250-AUTH PLAIN LOGIN" is what came in, with ** or ~* for an error.
var (
	swaksReply = regexp.MustCompile(`^<(?:-|~\*|\*\*|~)\s+(\d{3})([ -])(.*)$`)
	swaksAuth  = regexp.MustCompile(`^\s*~?-> AUTH `)
)

func swaks(t testing.TB, addr, mechanism, login, password string) SMTPReply {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, out, errOut := Run(t, "", exec.Command(program(t, Swaks, "swaks"), "--server", host, "--port", port, "--ehlo", "client.example.org",
		"--auth", mechanism, "--auth-user", login, "--auth-password", password, "--quit-after", "AUTH", "--timeout", "20"))
	reply := SMTPReply{Took: time.Since(began)}
	asked := false
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		if swaksAuth.MatchString(line) {
			asked = true
			continue
		}
		m := swaksReply.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if rest, ok := strings.CutPrefix(m[3], "AUTH "); ok && !asked {
			reply.Offered = strings.Fields(rest)
		}
		if asked && m[1] != "334" && m[2] == " " {
			reply.Code, _ = strconv.Atoi(m[1])
			reply.Text = m[3]
			return reply
		}
	}
	t.Logf("swaks saw no answer to AUTH %s:\n%s%s", mechanism, out, errOut)
	return reply
}

// SMTPSession is a connection to an SMTP server, after EHLO.
type SMTPSession struct {
	conn    net.Conn
	r       *bufio.Reader
	offered []string
}

// DialSMTP connects and greets.
func DialSMTP(t testing.TB, addr string) *SMTPSession {
	t.Helper()
	return DialSMTPFrom(t, &net.Dialer{}, addr)
}

// DialSMTPFrom does so with this dialer, which can name the address to come from.
func DialSMTPFrom(t testing.TB, from *net.Dialer, addr string) *SMTPSession {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &SMTPSession{conn: conn, r: bufio.NewReader(conn)}
	if code, text := s.read(); code != 220 {
		t.Fatalf("SMTP greeting at %s: %d %q, want 220", addr, code, text)
	}
	code, text := s.command("EHLO client.example.org")
	if code != 250 {
		t.Fatalf("EHLO at %s: %d %q, want 250", addr, code, text)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "AUTH "); ok {
			s.offered = strings.Fields(rest)
		}
	}
	return s
}

// Close hangs up without a word.
func (s *SMTPSession) Close() { s.conn.Close() }

// Auth logs in. The server may be asked again after a refusal.
func (s *SMTPSession) Auth(t testing.TB, form AuthForm, login, password string) SMTPReply {
	t.Helper()
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	plain := b64("\x00" + login + "\x00" + password)
	// Postfix hands on the daemon's challenges as they are.
	const askLogin, askPassword = "VXNlcm5hbWU6", "UGFzc3dvcmQ6"
	var steps, challenges []string
	switch form {
	case PlainInitial:
		steps = []string{"AUTH PLAIN " + plain}
	case PlainPrompt:
		steps, challenges = []string{"AUTH PLAIN", plain}, []string{""}
	case LoginInitial:
		steps, challenges = []string{"AUTH LOGIN " + b64(login), b64(password)}, []string{askPassword}
	case LoginPrompt:
		steps, challenges = []string{"AUTH LOGIN", b64(login), b64(password)}, []string{askLogin, askPassword}
	default:
		t.Fatalf("no such form: %s", form)
	}
	began := time.Now()
	reply := SMTPReply{Offered: s.offered}
	for i, step := range steps {
		reply.Code, reply.Text = s.command(step)
		if reply.Code != 334 {
			break
		}
		if i >= len(challenges) || reply.Text != challenges[i] {
			t.Errorf("AUTH %s: challenge %d is %q, want %q", form, i, reply.Text, challenges)
		}
	}
	reply.Took = time.Since(began)
	return reply
}

// Abandon begins a login and goes away when the server asks for the rest (reference/mail-protocols.md section 0, item 5).
func (s *SMTPSession) Abandon(t testing.TB) {
	t.Helper()
	if code, text := s.command("AUTH LOGIN"); code != 334 {
		t.Errorf("AUTH LOGIN: %d %q, want 334", code, text)
	}
	if code, text := s.command("*"); code != 501 {
		t.Errorf("cancelled AUTH: %d %q, want 501", code, text)
	}
}

// Mail begins a message from this address.
func (s *SMTPSession) Mail(from string) (code int, text string) {
	return s.command("MAIL FROM:<" + from + ">")
}

func (s *SMTPSession) command(line string) (code int, text string) {
	if _, err := s.conn.Write([]byte(line + "\r\n")); err != nil {
		return 0, err.Error()
	}
	return s.read()
}

// read returns a reply with its lines joined by LF; code is 0 if the server hung up.
func (s *SMTPSession) read() (code int, text string) {
	_ = s.conn.SetReadDeadline(time.Now().Add(2 * Patience)) // some tests make a daemon hang for 30 s
	var lines []string
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return 0, err.Error()
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 4 {
			return 0, "not an SMTP reply: " + line
		}
		lines = append(lines, line[4:])
		if line[3] == ' ' {
			code, _ = strconv.Atoi(line[:3])
			return code, strings.Join(lines, "\n")
		}
	}
}
