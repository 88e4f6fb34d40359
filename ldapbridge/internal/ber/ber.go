// Package ber reads and writes the subset of BER that LDAP uses (RFC 4511 section 5.1): definite lengths, one-octet tags,
// primitive strings.
//
// It refuses to know any LDAP message. The one rule a newcomer would break: what a Reader returns points into the buffer it
// was given, so it must be copied before the buffer is read into again.
package ber

import (
	"errors"
	"math"
)

// Universal tags.
const (
	Boolean     = 0x01
	Integer     = 0x02
	OctetString = 0x04
	Enumerated  = 0x0a
	Sequence    = 0x30
	Set         = 0x31
)

var (
	// ErrShort means that the bytes are the beginning of an element and more must follow.
	ErrShort = errors.New("element is cut short")
	// ErrSyntax means that no further bytes can make this an element: indefinite length, a length of more than four
	// octets or more than 2^31-1, a tag of several octets, or another tag or size than was asked for.
	ErrSyntax = errors.New("not a BER element that LDAP allows")
)

// Header reads identifier and length octets from the start of b. The element takes head+length bytes, which b need not hold.
// Length octets that are longer than necessary are accepted (84 00 00 00 0c), since Active Directory and old libraries
// send them.
func Header(b []byte) (tag byte, head, length int, err error) {
	if len(b) == 0 {
		return 0, 0, 0, ErrShort
	}
	tag = b[0]
	if tag&0x1f == 0x1f {
		return 0, 0, 0, ErrSyntax
	}
	if len(b) == 1 {
		return 0, 0, 0, ErrShort
	}
	if b[1] < 0x80 {
		return tag, 2, int(b[1]), nil
	}
	octets := int(b[1] & 0x7f)
	if octets == 0 || octets > 4 {
		return 0, 0, 0, ErrSyntax
	}
	if len(b) < 2+octets {
		return 0, 0, 0, ErrShort
	}
	var n uint32
	for _, c := range b[2 : 2+octets] {
		n = n<<8 | uint32(c)
	}
	if n > math.MaxInt32 {
		return 0, 0, 0, ErrSyntax
	}
	return tag, 2 + octets, int(n), nil
}

// Reader walks the elements that stand one after another in a byte slice. Its zero value is at the end.
type Reader struct{ rest []byte }

// NewReader returns a Reader of the contents of a constructed element.
func NewReader(contents []byte) Reader { return Reader{contents} }

// Empty reports whether there is nothing left.
func (r *Reader) Empty() bool { return len(r.rest) == 0 }

// Peek returns the tag of the next element, or 0 at the end.
func (r *Reader) Peek() byte {
	if len(r.rest) == 0 {
		return 0
	}
	return r.rest[0]
}

// Next returns the next element of whatever tag.
func (r *Reader) Next() (tag byte, contents []byte, err error) {
	tag, head, length, err := Header(r.rest)
	if err != nil {
		return 0, nil, err
	}
	if length > len(r.rest)-head {
		return 0, nil, ErrShort
	}
	contents = r.rest[head : head+length : head+length]
	r.rest = r.rest[head+length:]
	return tag, contents, nil
}

// NextElement returns the next element whole, with its header.
func (r *Reader) NextElement() ([]byte, error) {
	before := r.rest
	if _, _, err := r.Next(); err != nil {
		return nil, err
	}
	n := len(before) - len(r.rest)
	return before[:n:n], nil
}

// Expect returns the contents of the next element, which must have this tag.
func (r *Reader) Expect(tag byte) ([]byte, error) {
	got, contents, err := r.Next()
	if err == nil && got != tag {
		err = ErrSyntax
	}
	if err != nil {
		return nil, err
	}
	return contents, nil
}

// Int reads an INTEGER of 32 bits.
func (r *Reader) Int() (int32, error) { return r.int(Integer) }

// Enum reads an ENUMERATED.
func (r *Reader) Enum() (int32, error) { return r.int(Enumerated) }

func (r *Reader) int(tag byte) (int32, error) {
	contents, err := r.Expect(tag)
	if err != nil {
		return 0, err
	}
	return ParseInt(contents)
}

// Bool reads a BOOLEAN. Every value but zero is true, since old libraries send 01.
func (r *Reader) Bool() (bool, error) {
	contents, err := r.Expect(Boolean)
	if err != nil {
		return false, err
	}
	return ParseBool(contents)
}

// ParseInt reads the contents of an INTEGER. Leading octets that are not necessary are accepted as long as there are at
// most four in all: a longer one is refused, never cut.
func ParseInt(contents []byte) (int32, error) {
	if len(contents) == 0 || len(contents) > 4 {
		return 0, ErrSyntax
	}
	v := int32(int8(contents[0]))
	for _, c := range contents[1:] {
		v = v<<8 | int32(c)
	}
	return v, nil
}

// ParseBool reads the contents of a BOOLEAN.
func ParseBool(contents []byte) (bool, error) {
	if len(contents) != 1 {
		return false, ErrSyntax
	}
	return contents[0] != 0, nil
}

// AppendInt appends an integer in the fewest octets, under the tag INTEGER, ENUMERATED or a context tag.
func AppendInt(dst []byte, tag byte, v int32) []byte {
	n := 1
	for n < 4 && (v>>(8*n-1) != 0 && v>>(8*n-1) != -1) {
		n++
	}
	dst = append(dst, tag, byte(n))
	for n--; n >= 0; n-- {
		dst = append(dst, byte(v>>(8*n)))
	}
	return dst
}

// AppendBool appends a BOOLEAN under the tag.
func AppendBool(dst []byte, tag byte, v bool) []byte {
	var b byte
	if v {
		b = 0xff
	}
	return append(dst, tag, 1, b)
}

// AppendString appends a primitive element.
func AppendString[T ~string | ~[]byte](dst []byte, tag byte, s T) []byte {
	dst = append(dst, tag)
	dst = appendLength(dst, len(s))
	return append(dst, s...)
}

func appendLength(dst []byte, n int) []byte {
	switch {
	case n < 1<<7:
		return append(dst, byte(n))
	case n < 1<<8:
		return append(dst, 0x81, byte(n))
	case n < 1<<16:
		return append(dst, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		return append(dst, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// Begin opens a constructed element: append its contents, then call [End] with the mark. Elements nest.
func Begin(dst []byte, tag byte) (out []byte, mark int) {
	dst = append(dst, tag, 0)
	return dst, len(dst)
}

// End closes the element that [Begin] opened by writing its length in the fewest octets.
func End(dst []byte, mark int) []byte {
	n := len(dst) - mark
	if n < 1<<7 {
		dst[mark-1] = byte(n)
		return dst
	}
	var buf [5]byte
	length := appendLength(buf[:0], n)
	dst = append(dst, length[1:]...) // room only
	copy(dst[mark-1+len(length):], dst[mark:mark+n])
	copy(dst[mark-1:], length)
	return dst
}
