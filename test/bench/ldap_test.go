package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestBindRequest(t *testing.T) {
	// RFC 4511 section 4.2: SEQUENCE { messageID, [APPLICATION 0] { version, name, simple [0] } }.
	want := []byte("\x30\x13\x02\x03\x01\x00\x00\x60\x0c\x02\x01\x03\x04\x03o=x\x80\x02pw")
	got := bindRequest("o=x", "pw")
	if !bytes.Equal(got, want) {
		t.Fatalf("bindRequest = % x, want % x", got, want)
	}
	putMessageID(got, lastMessageID)
	copy(want[4:], "\x7f\xff\xff")
	if !bytes.Equal(got, want) {
		t.Errorf("after putMessageID: % x, want % x", got, want)
	}
}

func TestPutMessageIDWithLongLengths(t *testing.T) {
	for _, size := range []int{100, 127, 128, 200, 255, 256, 4000} {
		pdu := bindRequest(strings.Repeat("x", size), "pw")
		putMessageID(pdu, 0x123456)
		msg, complete, err := cutTLV(pdu, tagSequence)
		if err != nil || !complete {
			t.Fatalf("name of %d bytes: cutTLV = %v, %v, want the whole PDU", size, complete, err)
		}
		id, rest, err := innerTLV(msg, tagInteger)
		if err != nil || !bytes.Equal(id, []byte{0x12, 0x34, 0x56}) {
			t.Errorf("name of %d bytes: message id % x, %v, want 12 34 56", size, id, err)
		}
		if _, rest, err = innerTLV(rest, tagBindRequest); err != nil || len(rest) != 0 {
			t.Errorf("name of %d bytes: %d bytes after the bind request, %v, want 0", size, len(rest), err)
		}
	}
}

func TestParseBindResponse(t *testing.T) {
	for _, c := range []struct {
		name     string
		pdu      string
		code     byte
		complete bool
		fails    bool
	}{
		{"success", "\x30\x0e\x02\x03\x01\x00\x00\x61\x07\x0a\x01\x00\x04\x00\x04\x00", 0, true, false},
		{"invalid credentials", "\x30\x0e\x02\x03\x01\x00\x00\x61\x07\x0a\x01\x31\x04\x00\x04\x00", 49, true, false},
		{"long form of length", "\x30\x84\x00\x00\x00\x12\x02\x03\x01\x00\x00\x61\x84\x00\x00\x00\x07\x0a\x01\x50\x04\x00\x04\x00", 80, true, false},
		{"diagnostic text", "\x30\x10\x02\x03\x01\x00\x00\x61\x09\x0a\x01\x35\x04\x00\x04\x02no", 53, true, false},
		{"nothing yet", "", 0, false, false},
		{"half", "\x30\x0e\x02\x03\x01", 0, false, false},
		{"half of a length", "\x30\x84\x00", 0, false, false},
		{"other message id", "\x30\x0e\x02\x03\x01\x00\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00", 0, false, true},
		{"notice of disconnection", "\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x34\x04\x00\x04\x00", 0, false, true},
		{"other operation", "\x30\x0e\x02\x03\x01\x00\x00\x65\x07\x0a\x01\x00\x04\x00\x04\x00", 0, false, true},
		{"inner length too long", "\x30\x0e\x02\x03\x01\x00\x00\x61\x7f\x0a\x01\x00\x04\x00\x04\x00", 0, false, true},
		{"indefinite length", "\x30\x80\x02\x03\x01\x00\x00", 0, false, true},
		{"no BER", "HTTP/1.1 400", 0, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, complete, err := parseBindResponse([]byte(c.pdu), firstMessageID)
			if code != c.code || complete != c.complete || (err != nil) != c.fails {
				t.Errorf("parseBindResponse = %d, %v, %v, want %d, %v, error %v", code, complete, err, c.code, c.complete, c.fails)
			}
			if err != nil && !errors.Is(err, errNotAnswer) {
				t.Errorf("error %v, want errNotAnswer", err)
			}
		})
	}
}
