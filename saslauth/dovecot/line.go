package dovecot

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// maxLine is the longest line in either direction in bytes, LF included (Dovecot AUTH_CLIENT_MAX_LINE_LENGTH).
const maxLine = 16384

// escapeByte starts an escape sequence in a field (Dovecot src/lib/strescape.c, "tab escaping").
const escapeByte = 0x01

// appendEscaped appends a field value so that it holds no byte that ends a field or a line.
func appendEscaped(dst []byte, value string) []byte {
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case 0x00:
			dst = append(dst, escapeByte, '0')
		case escapeByte:
			dst = append(dst, escapeByte, '1')
		case '\t':
			dst = append(dst, escapeByte, 't')
		case '\r':
			dst = append(dst, escapeByte, 'r')
		case '\n':
			dst = append(dst, escapeByte, 'n')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// unescape undoes [appendEscaped] in place. An unknown sequence stands for its second byte, an escape byte at the end
// of the field for nothing.
func unescape(field []byte) []byte {
	i := bytes.IndexByte(field, escapeByte)
	if i < 0 {
		return field
	}
	out := field[:i]
	for ; i < len(field); i++ {
		c := field[i]
		if c == escapeByte {
			i++
			if i == len(field) {
				break
			}
			switch c = field[i]; c {
			case '0':
				c = 0x00
			case '1':
				c = escapeByte
			case 't':
				c = '\t'
			case 'r':
				c = '\r'
			case 'n':
				c = '\n'
			}
		}
		out = append(out, c)
	}
	return out
}

// appendClean appends a text with every control byte replaced by a question mark: Postfix, Exim and Radicale do not
// undo the escaping, so what they show or log must not need any.
func appendClean(dst []byte, text string) []byte {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c < ' ' || c == 0x7f {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}

// fields walks over the TAB-separated fields of a line. A line always has at least one field, which may be empty.
type fields struct {
	rest []byte
	done bool
}

// next returns the next field, unescaped in place; ok is false after the last.
func (f *fields) next() (field []byte, ok bool) {
	if f.done {
		return nil, false
	}
	if i := bytes.IndexByte(f.rest, '\t'); i >= 0 {
		field, f.rest = f.rest[:i:i], f.rest[i+1:]
	} else {
		field, f.rest, f.done = f.rest, nil, true
	}
	return unescape(field), true
}

// parseNumber reads an unsigned 32-bit decimal number as Dovecot's str_to_uint does: digits only.
func parseNumber(field []byte) (uint32, bool) {
	if len(field) == 0 {
		return 0, false
	}
	var n uint64
	for _, c := range field {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n > math.MaxUint32 {
			return 0, false
		}
	}
	return uint32(n), true
}

// parseID reads the id of a request, 1 to 4294967295.
func parseID(field []byte) (uint32, bool) {
	n, ok := parseNumber(field)
	return n, ok && n != 0
}

// appendReply appends the first two fields of a reply.
func appendReply(dst []byte, word string, id uint32) []byte {
	dst = append(dst, word...)
	dst = append(dst, '\t')
	return strconv.AppendUint(dst, uint64(id), 10)
}

// hasNUL reports whether a SASL message has a NUL where RFC 4616 forbids one.
func hasNUL(text []byte) bool { return bytes.IndexByte(text, 0) >= 0 }

func equalFold(field []byte, name string) bool {
	return len(field) == len(name) && strings.EqualFold(string(field), name)
}
