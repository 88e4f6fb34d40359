package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
)

// dovecot makes logins by the Dovecot authentication client protocol as Postfix does: one connection for many logins,
// mechanism PLAIN with the initial response in the AUTH line.
type dovecot struct {
	network, address string
	tails            [][]byte // of the AUTH line, by credential: all that follows the id
	users            [][]byte // what must follow "OK <id>", by credential
}

func newDovecot(network, address string, creds []credential) *dovecot {
	d := &dovecot{network: network, address: address}
	for _, c := range creds {
		resp := base64.StdEncoding.EncodeToString([]byte("\x00" + c.login + "\x00" + c.password))
		d.tails = append(d.tails, []byte("\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.1\trip=127.0.0.1\tresp="+resp+"\n"))
		d.users = append(d.users, []byte("\tuser="+c.login))
	}
	return d
}

// dovecotHello is the client's half of the handshake. Dovecot hangs up on a second connection with the same CPID.
func dovecotHello() []byte { return fmt.Appendf(nil, "VERSION\t1\t1\nCPID\t%d\n", clientPID.Add(1)) }

var clientPID atomic.Uint32

func (d *dovecot) dial() (session, error) {
	conn, err := net.Dial(d.network, d.address)
	if err != nil {
		return nil, err
	}
	s := &dovecotSession{dovecot: d, conn: conn}
	if err := s.handshake(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return s, nil
}

type dovecotSession struct {
	*dovecot
	conn net.Conn
	id   uint32
	out  []byte
	in   [4096]byte
}

// handshake sends our half at once, as Postfix does, and reads up to DONE.
func (s *dovecotSession) handshake() error {
	if _, err := s.conn.Write(dovecotHello()); err != nil {
		return err
	}
	for n := 0; ; {
		if n == len(s.in) {
			return errors.New("no DONE in the first 4096 bytes")
		}
		m, err := s.conn.Read(s.in[n:])
		if err != nil {
			return err
		}
		n += m
		if bytes.HasSuffix(s.in[:n], []byte("\nDONE\n")) {
			return nil
		}
	}
}

func (s *dovecotSession) login(i int) (bool, error) {
	if s.id++; s.id == 0 {
		s.id = 1
	}
	s.out = appendAuth(s.out[:0], s.id, s.tails[i])
	if _, err := s.conn.Write(s.out); err != nil {
		return false, err
	}
	n := 0
	for {
		m, err := s.conn.Read(s.in[n:])
		if err != nil {
			return false, err
		}
		if n += m; s.in[n-1] == '\n' {
			return checkAuthReply(s.in[:n], s.id, s.users[i])
		}
		if n == len(s.in) {
			return false, errors.New("reply is longer than 4096 bytes")
		}
	}
}

func (s *dovecotSession) close() error { return s.conn.Close() }

func appendAuth(dst []byte, id uint32, tail []byte) []byte {
	dst = append(dst, "AUTH\t"...)
	dst = strconv.AppendUint(dst, uint64(id), 10)
	return append(dst, tail...)
}

// checkAuthReply reads one reply line: true for OK with this id and user, false for FAIL with this id, else an error.
func checkAuthReply(line []byte, id uint32, user []byte) (bool, error) {
	var digits [10]byte
	want := strconv.AppendUint(digits[:0], uint64(id), 10)
	if rest, ok := bytes.CutPrefix(line, []byte("OK\t")); ok {
		if rest, ok = bytes.CutPrefix(rest, want); ok {
			if rest, ok = bytes.CutPrefix(rest, user); ok && (rest[0] == '\t' || rest[0] == '\n') {
				return true, nil
			}
		}
	}
	if rest, ok := bytes.CutPrefix(line, []byte("FAIL\t")); ok {
		if rest, ok = bytes.CutPrefix(rest, want); ok && (rest[0] == '\t' || rest[0] == '\n') && !bytes.Contains(rest, []byte("temp")) {
			return false, nil
		}
	}
	return false, fmt.Errorf("unexpected reply to request %d: %q", id, line)
}
