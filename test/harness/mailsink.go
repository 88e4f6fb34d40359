package harness

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// MailSink is an SMTP server that takes every mail and keeps it: what stands behind a mail server under test.
type MailSink struct {
	Addr string // host:port; the same after [MailSink.Open]

	mu    sync.Mutex
	l     net.Listener // nil: closed
	mails []SunkMail
}

// SunkMail is a mail as it arrived.
type SunkMail struct {
	To   []string // envelope recipients
	Text string   // header and body, with CRLF
}

// NewMailSink starts one.
func NewMailSink(t testing.TB) *MailSink {
	t.Helper()
	s := &MailSink{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t))}
	s.Open(t)
	t.Cleanup(s.Close)
	return s
}

// Open listens again.
func (s *MailSink) Open(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.l = l
	s.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
}

// Close stops listening: the server is away.
func (s *MailSink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.l != nil {
		s.l.Close()
		s.l = nil
	}
}

// Mails are those that arrived so far.
func (s *MailSink) Mails() []SunkMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

func (s *MailSink) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * Patience))
	r := bufio.NewReader(conn)
	say := func(text string) { fmt.Fprintf(conn, "%s\r\n", text) }
	say("220 sink.example.org ESMTP")
	var m SunkMail
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(line); {
		case strings.HasPrefix(verb, "EHLO"):
			say("250-sink.example.org\r\n250 8BITMIME")
		case strings.HasPrefix(verb, "MAIL"):
			m = SunkMail{}
			say("250 ok")
		case strings.HasPrefix(verb, "RCPT"):
			_, rest, _ := strings.Cut(line, "<")
			to, _, _ := strings.Cut(rest, ">")
			m.To = append(m.To, to)
			say("250 ok")
		case strings.HasPrefix(verb, "DATA"):
			say("354 go on")
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				m.Text += strings.TrimPrefix(line, ".")
			}
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			say("250 kept")
		case strings.HasPrefix(verb, "QUIT"):
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}
