package peers

import (
	"net"
	"strings"
	"testing"
)

// NewRelay starts the SMTP server behind a submission server or proxy, and returns its port.
func NewRelay(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				relay(NewSession(conn))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func relay(s *Session) {
	s.Send("220 mx.example.org ESMTP")
	for line := s.Line(); line != ""; line = s.Line() {
		if strings.HasPrefix(line, "QUIT") {
			s.Send("221 bye")
			return
		}
		s.Send("250 mx.example.org")
	}
}
