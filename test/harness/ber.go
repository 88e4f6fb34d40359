package harness

import (
	"bytes"
	"encoding/binary"
)

// BER encodes an element with a definite length in the fewest octets (X.690); the values of a constructed one are joined.
func BER(tag byte, values ...[]byte) []byte {
	v := bytes.Join(values, nil)
	out := []byte{tag}
	switch n := len(v); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 1<<8:
		out = append(out, 0x81, byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x82), uint16(n))
	default:
		out = binary.BigEndian.AppendUint32(append(out, 0x84), uint32(n))
	}
	return append(out, v...)
}

// BERInteger encodes an INTEGER or ENUMERATED, with at most four octets.
func BERInteger(tag byte, v int) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(int32(v)))
	for len(b) > 1 && (b[0] == 0 && b[1] < 0x80 || b[0] == 0xff && b[1] >= 0x80) {
		b = b[1:]
	}
	return BER(tag, b)
}
