package main

import (
	"errors"
	"fmt"
	"net"
)

// ldap makes simple binds (RFC 4511 section 4.2), one after another on each connection.
type ldap struct {
	network, address string
	requests         [][]byte // by credential; the message id is put in for each bind
}

// peopleDN is where the accounts live, in slapd and in valetkeyd.
const (
	baseDN   = "dc=example,dc=org"
	peopleDN = "ou=people," + baseDN
	groupsDN = "ou=groups," + baseDN
)

func personDN(c credential) string { return "uid=" + c.login + "," + peopleDN }
func readerDN(c credential) string { return "cn=" + c.login + ",ou=readers," + baseDN }

func newLDAP(network, address string, creds []credential) *ldap {
	l := &ldap{network: network, address: address}
	for _, c := range creds {
		l.requests = append(l.requests, bindRequest(personDN(c), c.password))
	}
	return l
}

func (l *ldap) dial() (session, error) { return l.open() }

func (l *ldap) open() (*ldapSession, error) {
	conn, err := net.Dial(l.network, l.address)
	if err != nil {
		return nil, err
	}
	return &ldapSession{ldap: l, conn: conn, id: firstMessageID}, nil
}

type ldapSession struct {
	*ldap
	conn net.Conn
	id   int
	out  []byte
	in   [4096]byte
}

// Message ids that take three bytes, so that all PDUs of a credential have one length and an id can be patched in.
const (
	firstMessageID = 0x010000
	lastMessageID  = 0x7fffff
)

func (s *ldapSession) login(i int) (bool, error) { return s.bind(s.requests[i]) }

func (s *ldapSession) bind(request []byte) (bool, error) {
	var code byte
	err := s.exchange(request, func(b []byte, id int) (complete bool, err error) {
		code, complete, err = parseBindResponse(b, id)
		return complete, err
	})
	switch {
	case err != nil:
		return false, err
	case code == resultSuccess:
		return true, nil
	case code == resultInvalidCredentials:
		return false, nil
	}
	return false, fmt.Errorf("bind answered with result code %d", code)
}

// exchange sends a request with the next message id and reads until parse, which is given all that came, says that the answer to that id is
// complete.
func (s *ldapSession) exchange(request []byte, parse func(b []byte, id int) (complete bool, err error)) error {
	if s.id++; s.id > lastMessageID {
		s.id = firstMessageID
	}
	s.out = append(s.out[:0], request...)
	putMessageID(s.out, s.id)
	if _, err := s.conn.Write(s.out); err != nil {
		return err
	}
	for n := 0; ; {
		m, err := s.conn.Read(s.in[n:])
		if err != nil {
			return err
		}
		n += m
		complete, err := parse(s.in[:n], s.id)
		switch {
		case err != nil:
			return fmt.Errorf("%w: % x", err, s.in[:n])
		case complete:
			return nil
		case n == len(s.in):
			return fmt.Errorf("answer is longer than %d bytes", n)
		}
	}
}

func (s *ldapSession) close() error {
	s.conn.Write([]byte{0x30, 0x05, 0x02, 0x01, 0x01, 0x42, 0x00}) // unbind; the server may be gone
	return s.conn.Close()
}

// RFC 4511 appendix A.
const (
	resultSuccess            = 0
	resultInvalidCredentials = 49
)

// BER identifiers of what a bind needs.
const (
	tagInteger      = 0x02
	tagOctetString  = 0x04
	tagEnumerated   = 0x0a
	tagSequence     = 0x30
	tagBindRequest  = 0x60
	tagBindResponse = 0x61
	tagSimple       = 0x80
)

// bindRequest returns the PDU of a simple bind with message id firstMessageID.
func bindRequest(dn, password string) []byte {
	op := appendTLV(nil, tagInteger, []byte{3})
	op = appendTLV(op, tagOctetString, []byte(dn))
	op = appendTLV(op, tagSimple, []byte(password))
	return message(tagBindRequest, op)
}

// message returns the PDU of an operation with message id firstMessageID.
func message(tag byte, op []byte) []byte {
	msg := appendTLV(nil, tagInteger, []byte{firstMessageID >> 16, firstMessageID >> 8 & 0xff, firstMessageID & 0xff})
	msg = appendTLV(msg, tag, op)
	return appendTLV(nil, tagSequence, msg)
}

// putMessageID puts another three-byte message id into a PDU of message.
func putMessageID(pdu []byte, id int) {
	at := 4 // identifier, one byte of length, identifier and length of the id
	if n := pdu[1]; n >= 0x80 {
		at += int(n & 0x7f)
	}
	pdu[at], pdu[at+1], pdu[at+2] = byte(id>>16), byte(id>>8), byte(id)
}

func appendTLV(dst []byte, tag byte, content []byte) []byte {
	dst = append(dst, tag)
	switch n := len(content); {
	case n < 0x80:
		dst = append(dst, byte(n))
	case n < 0x100:
		dst = append(dst, 0x81, byte(n))
	default:
		dst = append(dst, 0x82, byte(n>>8), byte(n))
	}
	return append(dst, content...)
}

var errNotAnswer = errors.New("not the answer")

// parseBindResponse returns the result code of the bind response that b begins with. complete is false if b ends too
// early. A response to another message id is an error: a connection has one bind in flight.
func parseBindResponse(b []byte, id int) (code byte, complete bool, err error) {
	tag, op, _, complete, err := cutMessage(b, id)
	if err != nil || !complete {
		return 0, false, err
	}
	if tag != tagBindResponse {
		return 0, false, errNotAnswer
	}
	result, _, err := innerTLV(op, tagEnumerated)
	if err != nil || len(result) != 1 {
		return 0, false, errNotAnswer
	}
	return result[0], true, nil
}

// cutMessage returns the operation of the message that b begins with, and what follows; complete is false if b ends before it does. One
// with another message id is an error.
func cutMessage(b []byte, id int) (tag byte, op, rest []byte, complete bool, err error) {
	msg, complete, err := cutTLV(b, tagSequence)
	if err != nil || !complete {
		return 0, nil, nil, false, err
	}
	_, rest, err = innerTLV(b, tagSequence)
	if err != nil {
		return 0, nil, nil, false, err
	}
	number, body, err := innerTLV(msg, tagInteger)
	if err != nil {
		return 0, nil, nil, false, err
	}
	got := 0
	for _, c := range number {
		got = got<<8 | int(c)
	}
	if got != id || len(body) == 0 {
		return 0, nil, nil, false, fmt.Errorf("%w to request %d", errNotAnswer, id)
	}
	op, _, err = innerTLV(body, body[0])
	return body[0], op, rest, err == nil, err
}

// cutTLV returns the content of the element that b begins with; complete is false if b ends before it does.
func cutTLV(b []byte, tag byte) (content []byte, complete bool, err error) {
	if len(b) < 2 {
		return nil, false, nil
	}
	if b[0] != tag {
		return nil, false, errNotAnswer
	}
	n, head := int(b[1]), 2
	if n >= 0x80 {
		size := n & 0x7f
		if size == 0 || size > 4 {
			return nil, false, errNotAnswer
		}
		if len(b) < 2+size {
			return nil, false, nil
		}
		n = 0
		for _, c := range b[2 : 2+size] {
			n = n<<8 | int(c)
		}
		head += size
	}
	if len(b) < head+n {
		return nil, false, nil
	}
	return b[head : head+n : head+n], true, nil
}

// innerTLV is cutTLV inside of a complete element, with what follows.
func innerTLV(b []byte, tag byte) (content, rest []byte, err error) {
	content, complete, err := cutTLV(b, tag)
	if err != nil || !complete {
		return nil, nil, errNotAnswer
	}
	head := 2
	if b[1] >= 0x80 {
		head += int(b[1] & 0x7f)
	}
	return content, b[head+len(content):], nil
}
