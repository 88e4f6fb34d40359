package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// cyrus is Debian's saslauthd with its cache on. What it asks when the cache has no answer is an IMAP server of ours (-a
// rimap), which counts: so it is known that the cache answers what is measured, and then the mechanism makes no difference.
type cyrus struct {
	process *process
	socket  string
	backend *imapLogins
	warm    int64 // logins that the backend was asked for before anything was measured
}

// The number of processes is saslauthd's default and Debian's. There is no -l, as in Debian: without its lock around accept, saslauthd
// measures faster at one connection and slower at eight.
const (
	cyrusProcesses = "5"
	cyrusCache     = "16384" // KiB: no entry gives way to another
)

// startCyrus returns when every credential is in the cache. The value is not nil if something was started, whatever the error.
func startCyrus(ctx context.Context, dir string, creds []credential, logins int) (*cyrus, error) {
	program, err := findProgram("saslauthd", "sasl2-bin")
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, "saslauthd")
	if err := os.Mkdir(home, 0o711); err != nil {
		return nil, err
	}
	backend, err := serveIMAPLogins(creds)
	if err != nil {
		return nil, err
	}
	c := &cyrus{socket: filepath.Join(home, "mux"), backend: backend}
	host, port, _ := net.SplitHostPort(backend.listener.Addr().String())
	// -d would keep it in the foreground, but print a line for each login. -r joins login and realm for the backend.
	c.process, err = startLeashed(dir, cyrusTarget, program,
		"-a", "rimap", "-O", host+"/"+port, "-r", "-c", "-s", cyrusCache, "-t", "86400", "-n", cyrusProcesses, "-m", home)
	if err != nil {
		backend.listener.Close()
		return nil, err
	}
	err = c.process.ready(ctx, func() error { return prove(newMux(c.socket, rightAndWrong(creds[0]))) })
	if err != nil {
		return c, err
	}
	if err := logInAll(ctx, c.process, newMux(c.socket, creds[:logins]), logins); err != nil {
		return c, err
	}
	c.warm = backend.asked.Load()
	return c, nil
}

// cacheCheck tells how often the cache did not know since it was warm.
func (c *cyrus) cacheCheck(logins int) check {
	past := c.backend.asked.Load() - c.warm
	return check{
		Name: "saslauthd's logins past its cache", Got: thousands(float64(past)), Want: fmt.Sprintf("at most %d, in all rounds", logins/100),
		Met: past <= int64(logins/100),
	}
}

// imapLogins is as much of an IMAP server as saslauthd's rimap talks to.
type imapLogins struct {
	listener net.Listener
	password map[string]string // by login
	asked    atomic.Int64
}

// serveIMAPLogins listens on loopback until the listener is closed.
func serveIMAPLogins(creds []credential) (*imapLogins, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &imapLogins{listener: ln, password: map[string]string{}}
	for _, c := range creds {
		s.password[c.login] = c.password
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				s.serve(conn)
			}()
		}
	}()
	return s, nil
}

func (s *imapLogins) serve(conn io.ReadWriter) {
	io.WriteString(conn, "* OK ready\r\n")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		words := strings.Fields(lines.Text())
		answer := "* BAD what?"
		switch {
		case len(words) == 4 && words[1] == "LOGIN":
			s.asked.Add(1)
			answer = words[0] + " NO"
			if password, ok := s.password[unquote(words[2])]; ok && password == unquote(words[3]) {
				answer = words[0] + " OK"
			}
		case len(words) == 2 && words[1] == "LOGOUT":
			answer = "* BYE\r\n" + words[0] + " OK"
		}
		if _, err := io.WriteString(conn, answer+" done\r\n"); err != nil {
			return
		}
	}
}

// unquote takes the quotes off a quoted string without escapes, which no login or password of the data set needs.
func unquote(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`) }
