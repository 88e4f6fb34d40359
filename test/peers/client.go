package peers

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// What differs from one answer to the next: the capabilities after a login, the place and time in Dovecot's temporary failures.
var (
	capability = regexp.MustCompile(`\[CAPABILITY [^\]]*\] `)
	hostTime   = regexp.MustCompile(` \[[^\] ]+:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]`)
)

func shown(answer string) string {
	return hostTime.ReplaceAllString(capability.ReplaceAllString(strings.TrimRight(answer, "\r\n"), ""), " [HOST:TIME]")
}

// UserAddress is where the users are, and not the peers.
const UserAddress = "127.0.0.2"

// FromUser connects as the user's own program does.
var FromUser = net.Dialer{Timeout: harness.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(UserAddress)}}

// Session is a connection with lines.
type Session struct {
	conn net.Conn
	r    *bufio.Reader
}

// Dial connects as the user's own program does.
func Dial(t *testing.T, addr string) *Session {
	t.Helper()
	conn, err := FromUser.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(2 * harness.Patience)); err != nil {
		t.Fatal(err)
	}
	return NewSession(conn)
}

// NewSession takes a connection.
func NewSession(conn net.Conn) *Session { return &Session{conn, bufio.NewReader(conn)} }

// Close hangs up.
func (s *Session) Close() { s.conn.Close() }

// Send writes a line. That it was lost shows in what is read next.
func (s *Session) Send(format string, args ...any) { fmt.Fprintf(s.conn, format+"\r\n", args...) }

// Line is what comes next; empty if the other side hung up or took too long.
func (s *Session) Line() string {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return line
}

// IMAP logs in, and after a login counts the messages of INBOX, which needs a good answer of the userdb.
func IMAP(addr string) Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		s := Dial(t, addr)
		defer s.Close()
		s.Line()
		tagged := func(tag, command string) string {
			s.Send("%s %s", tag, command)
			for {
				line := s.Line()
				if answer, ok := strings.CutPrefix(line, tag+" "); ok {
					return shown(answer)
				}
				if line == "" || strings.HasPrefix(line, "* BAD ") {
					return shown(line)
				}
			}
		}
		answer := tagged("a", fmt.Sprintf("LOGIN %q %q", login, password))
		if strings.HasPrefix(answer, "OK ") {
			if status := tagged("b", "STATUS INBOX (MESSAGES)"); !strings.HasPrefix(status, "OK ") {
				t.Errorf("after a login: %q, want INBOX", status)
			}
		}
		return answer
	}
}

// Quota logs in to an IMAP server and returns what it says of the quota of INBOX (RFC 9208).
func Quota(t *testing.T, addr, login, password string) (answer string) {
	t.Helper()
	s := Dial(t, addr)
	defer s.Close()
	s.Line()
	s.Send("a LOGIN %q %q", login, password)
	s.Send("b GETQUOTAROOT INBOX")
	for line := s.Line(); line != "" && !strings.HasPrefix(line, "b "); line = s.Line() {
		answer += line
	}
	return answer
}

// POP3 logs in, and after a login counts the messages, which needs a good answer of the userdb.
func POP3(addr string) Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		s := Dial(t, addr)
		defer s.Close()
		s.Line()
		s.Send("USER %s", login)
		s.Line()
		s.Send("PASS %s", password)
		answer := shown(s.Line())
		if strings.HasPrefix(answer, "+OK") {
			s.Send("STAT")
			if status := s.Line(); !strings.HasPrefix(status, "+OK ") {
				t.Errorf("after a login: %q, want the mailbox", status)
			}
		}
		return answer
	}
}

// SMTP logs in to a submission server.
func SMTP(addr string) Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		s := Dial(t, addr)
		defer s.Close()
		s.Line()
		s.Send("EHLO client.example.org")
		offered := ""
		for line := s.Line(); len(line) > 4; line = s.Line() {
			if mechanisms, ok := strings.CutPrefix(line[4:], "AUTH "); ok {
				offered = mechanisms
			}
			if line[3] == ' ' {
				break
			}
		}
		if !strings.Contains(offered, "PLAIN") || !strings.Contains(offered, "LOGIN") {
			t.Errorf("EHLO offers AUTH %q, want PLAIN and LOGIN", offered)
		}
		s.Send("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+login+"\x00"+password)))
		return shown(s.Line())
	}
}

// Request sends one with the user's credentials and returns the status line and the body. A challenge without a 401, or the other
// way round, is an error.
func Request(t *testing.T, method, target, content, login, password string) (status, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(login, password)
	for _, name := range []string{"Remote-User", "X-Remote-User"} {
		req.Header.Set(name, "mallory@example.org") // the user's own word
	}
	for _, name := range []string{"X-Real-IP", "X-Forwarded-For"} {
		req.Header.Set(name, "192.0.2.66")
	}
	client := http.Client{Timeout: 2 * harness.Patience, Transport: &http.Transport{DialContext: FromUser.DialContext, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if challenge := resp.Header.Get("WWW-Authenticate"); (challenge != "") != (resp.StatusCode == http.StatusUnauthorized) {
		t.Errorf("%s with the challenge %q", resp.Status, challenge)
	}
	return resp.Status, string(b)
}
