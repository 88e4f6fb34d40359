package secret

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Schemes are the hashes that [Verify] reads, for people to see.
var Schemes = []string{"argon2id", "argon2i", "bcrypt", "sha256-crypt", "sha512-crypt", "SSHA", "SSHA256", "SSHA512", "PBKDF2", "SHA256.HEX", "SHA512.HEX"}

// Caps of imported hashes, with the same reason as those of Argon2.
const (
	maxBcryptCost   = 14
	maxCryptRounds  = 1_000_000
	cryptRounds     = 5000 // if the hash names none
	minCryptRounds  = 1000
	maxCryptSalt    = 16
	maxSaltedExtra  = 64 // bytes of salt after an SSHA digest
	bcryptMaxLength = 72 // bytes of a password that bcrypt looks at
)

// matcher compares a password with the one hash that it was made of. It is as slow as the hash says.
type matcher func(password string) (bool, error)

// parseImported reads a hash that is not of the Argon2 family without computing anything.
func parseImported(stored string) (matcher, error) {
	switch {
	case strings.HasPrefix(stored, "$2"):
		return parseBcrypt(stored)
	case strings.HasPrefix(stored, "$5$"):
		return parseCrypt(stored, sha256.New, crypt256)
	case strings.HasPrefix(stored, "$6$"):
		return parseCrypt(stored, sha512.New, crypt512)
	case strings.HasPrefix(stored, "$pbkdf2"):
		return parsePasslib(stored)
	}
	if scheme, rest, found := strings.Cut(stored, "}"); found {
		switch strings.ToUpper(scheme) {
		case "{SSHA":
			return parseSalted(rest, sha1.New)
		case "{SSHA256":
			return parseSalted(rest, sha256.New)
		case "{SSHA512":
			return parseSalted(rest, sha512.New)
		case "{SHA256.HEX":
			return parseUnsalted(rest, sha256.New)
		case "{SHA512.HEX":
			return parseUnsalted(rest, sha512.New)
		case "{PBKDF2":
			return parseDovecotPBKDF2(rest)
		case "{CRYPT": // OpenLDAP's wrapper of crypt(3)
			if strings.HasPrefix(rest, "$") {
				return parse(rest)
			}
		}
	}
	return nil, badHash("unknown scheme")
}

// bcryptForm is stricter than x/crypto, which passes over separators, an unknown minor version, a sign in the cost and
// anything after the hash. $2x$ marks hashes of a version with a fault; they never match here.
var bcryptForm = regexp.MustCompile(`^\$2[aby]?\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

func parseBcrypt(stored string) (matcher, error) {
	if !bcryptForm.MatchString(stored) {
		return nil, badHash("bcrypt: malformed")
	}
	cost, err := bcrypt.Cost([]byte(stored))
	if err != nil {
		return nil, badHash("bcrypt: malformed")
	}
	if cost > maxBcryptCost {
		return nil, badHash("bcrypt: cost is above %d", maxBcryptCost)
	}
	return func(password string) (bool, error) {
		// Other programs hashed only the first 72 bytes; x/crypto refuses to hash more, but compares as they do.
		if len(password) > bcryptMaxLength {
			password = password[:bcryptMaxLength]
		}
		switch err := bcrypt.CompareHashAndPassword([]byte(stored), []byte(password)); {
		case err == nil:
			return true, nil
		case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
			return false, nil
		default:
			return false, badHash("bcrypt: malformed")
		}
	}, nil
}

// parseSalted reads base64(digest || salt), as RFC 2307 implementations write it.
func parseSalted(encoded string, newHash func() hash.Hash) (matcher, error) {
	raw, err := decode(base64.StdEncoding, encoded)
	size := newHash().Size()
	if err != nil || len(raw) < size || len(raw) > size+maxSaltedExtra {
		return nil, badHash("salted digest: malformed")
	}
	return func(password string) (bool, error) {
		h := newHash()
		h.Write([]byte(password))
		h.Write(raw[size:])
		return subtle.ConstantTimeCompare(h.Sum(nil), raw[:size]) == 1, nil
	}, nil
}

// SHA-crypt's own base 64 takes the digest's bytes in these orders, three at a time, least significant six bits first
// (Ulrich Drepper, "Unix crypt using SHA-256 and SHA-512", version 0.6). -1 pads the last group.
var crypt256 = [][3]int{
	{0, 10, 20}, {21, 1, 11}, {12, 22, 2}, {3, 13, 23}, {24, 4, 14}, {15, 25, 5}, {6, 16, 26}, {27, 7, 17}, {18, 28, 8},
	{9, 19, 29}, {-1, 31, 30},
}

var crypt512 = [][3]int{
	{0, 21, 42}, {22, 43, 1}, {44, 2, 23}, {3, 24, 45}, {25, 46, 4}, {47, 5, 26}, {6, 27, 48}, {28, 49, 7}, {50, 8, 29},
	{9, 30, 51}, {31, 52, 10}, {53, 11, 32}, {12, 33, 54}, {34, 55, 13}, {56, 14, 35}, {15, 36, 57}, {37, 58, 16},
	{59, 17, 38}, {18, 39, 60}, {40, 61, 19}, {62, 20, 41}, {-1, -1, 63},
}

const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func parseCrypt(stored string, newHash func() hash.Hash, order [][3]int) (matcher, error) {
	f := strings.Split(stored[3:], "$")
	rounds := cryptRounds
	if digits, found := strings.CutPrefix(f[0], "rounds="); found {
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil {
			return nil, badHash("sha-crypt: malformed rounds")
		}
		if n > maxCryptRounds {
			return nil, badHash("sha-crypt: rounds are above %d", maxCryptRounds)
		}
		rounds = max(int(n), minCryptRounds)
		f = f[1:]
	}
	if len(f) != 2 || len(f[0]) > maxCryptSalt {
		return nil, badHash("sha-crypt: malformed")
	}
	want := f[1]
	if strings.Trim(want, cryptAlphabet) != "" {
		return nil, badHash("sha-crypt: malformed")
	}
	if size := newHash().Size(); len(want) != (size*8+5)/6 {
		return nil, badHash("sha-crypt: malformed")
	}
	return func(password string) (bool, error) {
		got := shaCrypt([]byte(password), []byte(f[0]), rounds, newHash, order)
		return subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1, nil
	}, nil
}

// shaCrypt follows the numbered steps of Drepper's specification.
func shaCrypt(password, salt []byte, rounds int, newHash func() hash.Hash, order [][3]int) string {
	sum := func(parts ...[]byte) []byte {
		h := newHash()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	stretch := func(block []byte, n int) []byte {
		out := make([]byte, 0, n+len(block))
		for len(out) < n {
			out = append(out, block...)
		}
		return out[:n]
	}

	b := sum(password, salt, password)       // steps 4-8
	h := newHash()                           // 1
	h.Write(password)                        // 2
	h.Write(salt)                            // 3
	h.Write(stretch(b, len(password)))       // 9-10
	for n := len(password); n > 0; n >>= 1 { // 11
		if n&1 == 1 {
			h.Write(b)
		} else {
			h.Write(password)
		}
	}
	a := h.Sum(nil) // 12

	h = newHash() // 13
	for range password {
		h.Write(password) // 14
	}
	p := stretch(h.Sum(nil), len(password)) // 15-16

	h = newHash() // 17
	for range 16 + int(a[0]) {
		h.Write(salt) // 18
	}
	s := stretch(h.Sum(nil), len(salt)) // 19-20

	for i := range rounds { // 21
		h = newHash()
		if i%2 == 1 {
			h.Write(p)
		} else {
			h.Write(a)
		}
		if i%3 != 0 {
			h.Write(s)
		}
		if i%7 != 0 {
			h.Write(p)
		}
		if i%2 == 1 {
			h.Write(a)
		} else {
			h.Write(p)
		}
		a = h.Sum(a[:0])
	}

	var out strings.Builder // 22
	for _, group := range order {
		var w uint32
		chars := 1
		for _, index := range group {
			w <<= 8
			if index >= 0 {
				w |= uint32(a[index])
				chars++
			}
		}
		for range chars {
			out.WriteByte(cryptAlphabet[w&0x3f])
			w >>= 6
		}
	}
	return out.String()
}
