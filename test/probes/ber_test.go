package probes_test

import (
	"bufio"
	"errors"
	"io"

	"github.com/valetkey/valetkey/test/harness"
)

// A name for what stands in every line.
var tlv, num = harness.BER, harness.BERInteger

func str(s string) []byte { return tlv(0x04, []byte(s)) }

func integer(v int) []byte    { return num(0x02, v) }
func enumerated(v int) []byte { return num(0x0a, v) }

func boolean(v bool) []byte {
	if v {
		return tlv(0x01, []byte{0xff})
	}
	return tlv(0x01, []byte{0})
}

var errBER = errors.New("not BER")

// element takes the first element off b.
func element(b []byte) (tag byte, value, rest []byte, err error) {
	if len(b) < 2 {
		return 0, nil, nil, errBER
	}
	tag, n, at := b[0], int(b[1]), 2
	if n&0x80 != 0 {
		octets := n & 0x7f
		if octets == 0 || octets > 4 || len(b) < 2+octets {
			return 0, nil, nil, errBER
		}
		n = 0
		for _, c := range b[2 : 2+octets] {
			n = n<<8 | int(c)
		}
		at += octets
	}
	if n < 0 || n > len(b)-at {
		return 0, nil, nil, errBER
	}
	return tag, b[at : at+n], b[at+n:], nil
}

// elements splits the contents of a constructed element.
func elements(b []byte) (tags []byte, values [][]byte, err error) {
	for len(b) > 0 {
		tag, value, rest, err := element(b)
		if err != nil {
			return nil, nil, err
		}
		tags, values, b = append(tags, tag), append(values, value), rest
	}
	return tags, values, nil
}

func toInt(b []byte) int {
	if len(b) == 0 || len(b) > 4 {
		return -1 << 31
	}
	v := int(int8(b[0]))
	for _, c := range b[1:] {
		v = v<<8 | int(c)
	}
	return v
}

// readMessage reads the contents of the next LDAPMessage.
func readMessage(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	n := 2
	if head[1]&0x80 != 0 {
		n += int(head[1] & 0x7f)
	}
	if head, err = r.Peek(n); err != nil {
		return nil, err
	}
	length := int(head[1])
	if n > 2 {
		length = 0
		for _, c := range head[2:] {
			length = length<<8 | int(c)
		}
	}
	if head[0] != 0x30 || length > 1<<24 {
		return nil, errBER
	}
	if _, err := r.Discard(n); err != nil {
		return nil, err
	}
	message := make([]byte, length)
	_, err = io.ReadFull(r, message)
	return message, err
}
