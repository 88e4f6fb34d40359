package httpauth_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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

// userAddress is where the users are, and not the peers.
const userAddress = "127.0.0.2"

var fromUser = net.Dialer{Timeout: harness.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(userAddress)}}

// session is a connection with lines.
type session struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr string) *session {
	t.Helper()
	conn, err := fromUser.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(2 * harness.Patience)); err != nil {
		t.Fatal(err)
	}
	return newSession(conn)
}

func newSession(conn net.Conn) *session { return &session{conn, bufio.NewReader(conn)} }

// send writes a line. That it was lost shows in what is read next.
func (s *session) send(format string, args ...any) { fmt.Fprintf(s.conn, format+"\r\n", args...) }

// line is what comes next; empty if the other side hung up or took too long.
func (s *session) line() string {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return line
}

// imap logs in, and after a login counts the messages of INBOX, which needs a good answer of the userdb.
func imap(addr string) login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		s := dial(t, addr)
		defer s.conn.Close()
		s.line()
		tagged := func(tag, command string) string {
			s.send("%s %s", tag, command)
			for {
				line := s.line()
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

func pop3(addr string) login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		s := dial(t, addr)
		defer s.conn.Close()
		s.line()
		s.send("USER %s", login)
		s.line()
		s.send("PASS %s", password)
		answer := shown(s.line())
		if strings.HasPrefix(answer, "+OK") {
			s.send("STAT")
			if status := s.line(); !strings.HasPrefix(status, "+OK ") {
				t.Errorf("after a login: %q, want the mailbox", status)
			}
		}
		return answer
	}
}

func smtp(addr string) login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		s := dial(t, addr)
		defer s.conn.Close()
		s.line()
		s.send("EHLO client.example.org")
		offered := ""
		for line := s.line(); len(line) > 4; line = s.line() {
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
		s.send("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+login+"\x00"+password)))
		return shown(s.line())
	}
}

// web puts something, as a calendar program does, and returns the status. What the application knows of the user must be right.
func web(addr string) login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		status, body := request(t, http.MethodPut, "http://"+addr+"/alice/calendar/1.ics", "BEGIN:VCALENDAR", login, password)
		if want := application(strings.TrimPrefix(login, alias)); strings.HasPrefix(status, "2") && body != want {
			t.Errorf("the application saw %q, want %q", body, want)
		}
		return status
	}
}

// caldav asks for the user's principal (RFC 5397), as a calendar program does first.
func caldav(addr string) login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		status, body := request(t, "PROPFIND", "http://"+addr+"/",
			`<propfind xmlns="DAV:"><prop><current-user-principal/></prop></propfind>`, login, password)
		want := "<href>/" + url.PathEscape(strings.TrimPrefix(login, alias)) + "/</href>"
		if strings.HasPrefix(status, "2") && !strings.Contains(strings.ReplaceAll(body, "%40", "@"), want) {
			t.Errorf("principal: %s, want %s", body, want)
		}
		return status
	}
}

func request(t *testing.T, method, target, content, login, password string) (status, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(login, password)
	for _, name := range []string{"Remote-User", "X-Remote-User"} {
		req.Header.Set(name, "mallory@example.org") // the user's own word
	}
	client := http.Client{Timeout: 2 * harness.Patience, Transport: &http.Transport{DialContext: fromUser.DialContext, DisableKeepAlives: true}}
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

// application is what [newApplication] answers a user who has logged in.
func application(login string) string { return login + ": BEGIN:VCALENDAR" }
