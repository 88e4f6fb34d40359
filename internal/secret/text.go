package secret

import (
	"crypto/rand"
	"fmt"
	"strings"
	"unicode/utf8"
)

// DefaultLength is the number of letters of a generated app password: 26^16 is 75.2 bits.
const DefaultLength = 16

// ValidLength reports whether generated app passwords may have n letters: 16, 20 (94 bits) or 24 (112.8 bits, where NIST
// SP 800-63B-4 section 3.1.2.2 would accept a fast hash).
func ValidLength(n int) bool { return n == 16 || n == 20 || n == 24 }

// Generate draws the normalised text of a new app password: n letters a-z, uniform, from crypto/rand, by rejection
// sampling. It panics if n is not a [ValidLength].
func Generate(n int) string {
	if !ValidLength(n) {
		panic(fmt.Sprintf("secret.Generate: length %d", n))
	}
	const fair = 256 - 256%26 // bytes from here up would favour the first letters
	out := make([]byte, 0, n)
	var buf [32]byte
	for {
		rand.Read(buf[:]) // never fails: Go 1.24 aborts the process instead
		for _, b := range buf {
			if b >= fair {
				continue
			}
			if out = append(out, 'a'+b%26); len(out) == n {
				return string(out)
			}
		}
	}
}

// Format writes a normalised app password in groups of four, as it is shown once: "abcd-efgh-ijkl-mnop".
func Format(normalised string) string {
	var b strings.Builder
	for i := 0; i < len(normalised); i += 4 {
		if i > 0 {
			b.WriteByte('-')
		}
		b.WriteString(normalised[i:min(i+4, len(normalised))])
	}
	return b.String()
}

// maxTyped bounds what Normalise looks at, in bytes: the longest text with a three-byte separator after each letter.
const maxTyped = 24 * 4

// Normalise folds what a person may type or paste into the text that was issued: case is folded, spaces and hyphens are
// dropped, also the no-break space and the typographic hyphens that phones and web pages put in their place. ok is false if
// the rest is not 16, 20 or 24 letters a-z, which no generated app password is. It is idempotent.
func Normalise(typed string) (normalised string, ok bool) {
	if len(typed) > maxTyped {
		return "", false
	}
	if plain := len(typed); ValidLength(plain) { // a client that stored the bare letters
		i := 0
		for i < plain && 'a' <= typed[i] && typed[i] <= 'z' {
			i++
		}
		if i == plain {
			return typed, true
		}
	}
	var out [24]byte
	n := 0
	for i := 0; i < len(typed); {
		c := typed[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
			fallthrough
		case 'a' <= c && c <= 'z':
			if n == len(out) {
				return "", false
			}
			out[n] = c
			n++
			i++
		case c == ' ' || c == '-':
			i++
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(typed[i:])
			if !separator(r) {
				return "", false
			}
			i += size
		default:
			return "", false
		}
	}
	if !ValidLength(n) {
		return "", false
	}
	return string(out[:n]), true
}

func separator(r rune) bool {
	switch r {
	case 0x00A0, 0x202F, // no-break space, narrow no-break space
		0x2010, 0x2011, 0x2012, 0x2013: // hyphen, no-break hyphen, figure dash, en dash
		return true
	}
	return false
}
