package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
)

// echo sends what another protocol would send and expects as many bytes back as that protocol would answer: the cost
// of sockets, scheduler and generator alone.
type echo struct {
	network, address string
	requests         [][]byte
	replySize        int
	each             bool // a connection for each login
}

// newDovecotEcho, newLDAPEcho and newMuxEcho have the sizes of those protocols' exchanges.
func newDovecotEcho(network, address string, creds []credential) *echo {
	e := &echo{network: network, address: address}
	const id = 1_000 // of typical length
	d := newDovecot("", "", creds)
	for i, tail := range d.tails {
		e.requests = append(e.requests, appendAuth(nil, id, tail))
		e.replySize = len("OK\t1000\n") + len(d.users[i])
	}
	return e
}

func newLDAPEcho(network, address string, creds []credential) *echo {
	const bindResponseSize = 16 // with a three-byte message id, no matched DN and no diagnostic
	return &echo{network: network, address: address, requests: newLDAP("", "", creds).requests, replySize: bindResponseSize}
}

func newMuxEcho(path string, creds []credential) *echo {
	return &echo{network: "unix", address: path, requests: muxRequests(creds), replySize: len("\x00\x02OK"), each: true}
}

func (e *echo) dial() (session, error) {
	if e.each {
		return (&mux{path: e.address, requests: e.requests, parse: e.check}).dial()
	}
	conn, err := net.Dial(e.network, e.address)
	if err != nil {
		return nil, err
	}
	return &echoSession{echo: e, conn: conn, in: make([]byte, e.replySize)}, nil
}

type echoSession struct {
	*echo
	conn net.Conn
	in   []byte
}

func (s *echoSession) login(i int) (bool, error) {
	if _, err := s.conn.Write(s.requests[i]); err != nil {
		return false, err
	}
	if _, err := io.ReadFull(s.conn, s.in); err != nil {
		return false, err
	}
	ok, _, err := s.check(s.requests[i], s.in)
	return ok, err
}

// check compares a reply with the request's beginning.
func (e *echo) check(request, reply []byte) (accepted, complete bool, err error) {
	switch {
	case len(reply) < e.replySize:
		return false, false, nil
	case len(reply) > e.replySize || !bytes.HasPrefix(request, reply):
		return false, false, fmt.Errorf("echo of %q is %q", request, reply)
	}
	return true, true, nil
}

func (s *echoSession) close() error { return s.conn.Close() }

// echoCommand as first argument turns this program into the echo server, so that the floor is measured across a
// process boundary, like everything else.
const echoCommand = "serve-echo"

func echoArgs(network, address string, replySize int) []string {
	return []string{echoCommand, network, address, strconv.Itoa(replySize)}
}

// serveEcho listens until it is killed.
func serveEcho(args []string) error {
	if len(args) != 3 {
		return errors.New("serve-echo: want network, address, reply size")
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("serve-echo: reply size: %w", err)
	}
	ln, err := net.Listen(args[0], args[1])
	if err != nil {
		return fmt.Errorf("serve-echo: %w", err)
	}
	return echoLoop(ln, size)
}

// echoLoop answers each read with its first replySize bytes. A read is a request: they are short, written whole, and
// a connection has one in flight.
func echoLoop(ln net.Listener, replySize int) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 4096)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if _, err := conn.Write(buf[:min(n, replySize)]); err != nil {
					return
				}
			}
		}()
	}
}

// startEcho starts this program again as an echo server.
func startEcho(dir, name, network, address string, replySize int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startProcess(dir, name, self, echoArgs(network, address, replySize)...)
}
