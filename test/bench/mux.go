package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
)

// mux makes logins by the saslauthd protocol as libsasl2 does: a connection for each login, the request in one write,
// the login cut at its last "@".
type mux struct {
	path     string
	requests [][]byte // by credential
	parse    func(request, reply []byte) (accepted, complete bool, err error)
}

func newMux(path string, creds []credential) *mux {
	return &mux{path: path, requests: muxRequests(creds), parse: parseMuxReply}
}

func muxRequests(creds []credential) [][]byte {
	var requests [][]byte
	for _, c := range creds {
		login, realm := c.login, ""
		if at := strings.LastIndexByte(login, '@'); at >= 0 {
			login, realm = login[:at], login[at+1:]
		}
		var b []byte
		for _, field := range []string{login, c.password, "smtp", realm} {
			b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
			b = append(b, field...)
		}
		requests = append(requests, b)
	}
	return requests
}

// dial connects nowhere: each login does.
func (m *mux) dial() (session, error) {
	return &muxSession{mux: m, to: &net.UnixAddr{Net: "unix", Name: m.path}}, nil
}

type muxSession struct {
	*mux
	to *net.UnixAddr
	in [1024]byte // libsasl2 takes no more

	mu     sync.Mutex
	conn   net.Conn // of the login under way
	closed bool
}

func (s *muxSession) login(i int) (bool, error) {
	conn, err := s.connect()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if _, err := conn.Write(s.requests[i]); err != nil {
		return false, err
	}
	for n := 0; n < len(s.in); {
		m, err := conn.Read(s.in[n:])
		if err != nil {
			return false, fmt.Errorf("after %d bytes of the reply: %w", n, err)
		}
		n += m
		if accepted, complete, err := s.parse(s.requests[i], s.in[:n]); complete || err != nil {
			return accepted, err
		}
	}
	return false, errors.New("reply is longer than 1024 bytes")
}

func (s *muxSession) connect() (net.Conn, error) {
	var conn net.Conn
	conn, err := net.DialUnix("unix", nil, s.to)
	if errors.Is(err, syscall.EAGAIN) {
		conn, err = connectWaiting(s.path)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	s.conn = conn
	return conn, nil
}

// connectWaiting waits for room in the listener's queue, which is 32 long with saslauthd, as libsasl2 does. Go's own connect does not
// wait, and its connections cost less.
func connectWaiting(path string) (net.Conn, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileConn takes a copy
	for {
		if err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

func (s *muxSession) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// parseMuxReply reads a counted text that begins with the word OK or NO; a reason may follow the word.
func parseMuxReply(_, reply []byte) (accepted, complete bool, err error) {
	if len(reply) < 2 {
		return false, false, nil
	}
	n := int(binary.BigEndian.Uint16(reply))
	if n >= 2 && len(reply) < 2+n {
		return false, false, nil
	}
	word, _, _ := strings.Cut(string(reply[2:]), " ")
	switch {
	case len(reply) != 2+n:
	case word == "OK":
		return true, true, nil
	case word == "NO":
		return false, true, nil
	}
	return false, false, fmt.Errorf("unexpected reply %q", reply)
}
