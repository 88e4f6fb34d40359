package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMuxRequests(t *testing.T) {
	for _, c := range []struct{ login, want string }{
		{"alice", "\x00\x05alice\x00\x09abcd-efgh\x00\x04smtp\x00\x00"},
		{"alice@example.org", "\x00\x05alice\x00\x09abcd-efgh\x00\x04smtp\x00\x0bexample.org"},
		{"a@b@c", "\x00\x03a@b\x00\x09abcd-efgh\x00\x04smtp\x00\x01c"},
	} {
		t.Run(c.login, func(t *testing.T) {
			if got := string(muxRequests([]credential{{c.login, "abcd-efgh"}})[0]); got != c.want {
				t.Errorf("muxRequests(%q) = %q, want %q", c.login, got, c.want)
			}
		})
	}
}

func TestParseMuxReply(t *testing.T) {
	for _, c := range []struct {
		name, reply                string
		accepted, complete, failed bool
	}{
		{"OK", "\x00\x02OK", true, true, false},
		{"OK with text", "\x00\x06OK yes", true, true, false},
		{"NO", "\x00\x02NO", false, true, false},
		{"NO with text", "\x00\x0aNO account", false, true, false},
		{"nothing yet", "", false, false, false},
		{"half of the count", "\x00", false, false, false},
		{"half of the text", "\x00\x02O", false, false, false},
		{"OK, but the text goes on", "\x00\x06OK y", false, false, false},
		{"bytes after the text", "\x00\x02OK!", false, false, true},
		{"bytes after the reason", "\x00\x06OK yes!", false, false, true},
		{"two replies", "\x00\x02OK\x00\x02OK", false, false, true},
		{"no text", "\x00\x00", false, false, true},
		{"one byte", "\x00\x01O", false, false, true},
		{"other word", "\x00\x02ER", false, false, true},
		{"longer word", "\x00\x04OKAY", false, false, true},
		{"lower case", "\x00\x02ok", false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			accepted, complete, err := parseMuxReply(nil, []byte(c.reply))
			if accepted != c.accepted || complete != c.complete || (err != nil) != c.failed {
				t.Errorf("parseMuxReply(%q) = %v, %v, %v, want %v, %v, error %v", c.reply, accepted, complete, err, c.accepted, c.complete, c.failed)
			}
		})
	}
}

// muxServer answers each connection with the pieces of the next reply, and with nothing when there is none.
func muxServer(t *testing.T, replies ...[]string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mux")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for i := 0; ; i++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1024))
			if i < len(replies) {
				for _, piece := range replies[i] {
					io.WriteString(conn, piece)
				}
			}
			conn.Close()
		}
	}()
	return path
}

func TestMuxSession(t *testing.T) {
	path := muxServer(t, []string{"\x00\x02OK"}, []string{"\x00", "\x02N", "O"}, []string{"\x00\x02O"}, []string{"\x00\x02ER"})
	s, err := newMux(path, []credential{{"alice", "abcd-efgh"}}).dial()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i, want := range []string{"true <nil>", "false <nil>", "false after 3 bytes", "false unexpected", "false after 0 bytes"} {
		ok, err := s.login(0)
		if got := fmt.Sprintf("%v %v", ok, err); !strings.HasPrefix(got, want) {
			t.Errorf("login %d = %s, want %s", i, got, want)
		}
	}
}

// TestConnectWaiting fills the queue of a listener.
func TestConnectWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mux")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	type dialed struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialed, 1)
	go func() {
		conn, err := connectWaiting(path)
		done <- dialed{conn, err}
	}()
	accepted, _, err := syscall.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(accepted)
	select {
	case d := <-done:
		if d.err != nil {
			t.Fatalf("connectWaiting = %v, want a connection", d.err)
		}
		d.conn.Close()
	case <-time.After(10 * time.Second):
		t.Fatal("connectWaiting does not return although there is room")
	}
}

func TestMuxSessionClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mux")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, err := newMux(path, []credential{{"alice", "abcd-efgh"}}).dial()
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { _, err := s.login(0); failed <- err }()
	if _, err := ln.Accept(); err != nil {
		t.Fatal(err)
	}
	s.close()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("login under way = nil, want an error")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("close did not end the login under way")
	}
	if _, err := s.login(0); err == nil {
		t.Error("login after close = nil, want an error")
	}
}

func TestMuxEcho(t *testing.T) {
	path := filepath.Join(t.TempDir(), "echo")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	e := newMuxEcho(path, newCredentials(10))
	go echoLoop(ln, e.replySize)
	if r, err := generate(t.Context(), e, shortLoad, func() {}, func() {}); err != nil || r.logins == 0 {
		t.Errorf("generate = %d logins, %v, want some", r.logins, err)
	}
	other := muxServer(t, []string{"\x00\x02OK"})
	s, err := newMuxEcho(other, newCredentials(1)).dial()
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := s.login(0); ok || err == nil {
		t.Errorf("login with another answer than the echo = %v, %v, want an error", ok, err)
	}
}
