package httpauth_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// newApplication starts a web application that is told who its user is, and returns its host:port.
func newApplication(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "" {
			body = []byte("it was given the app password")
		}
		fmt.Fprintf(w, "%s: %s", strings.Join(r.Header.Values("Remote-User"), ", "), body)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// newRelay starts the SMTP server behind a proxy, and returns its port.
func newRelay(t *testing.T) int {
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
				relay(newSession(conn))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func relay(s *session) {
	s.send("220 mx.example.org ESMTP")
	for line := s.line(); line != ""; line = s.line() {
		if strings.HasPrefix(line, "QUIT") {
			s.send("221 bye")
			return
		}
		s.send("250 mx.example.org")
	}
}
