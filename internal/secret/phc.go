package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What we write: the OWASP minimum for Argon2id, about 22 ms on one core (reference/security.md section 1.3).
const (
	argonMemory  = 19456 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16 // bytes
	argonOutput  = 32 // bytes
)

// What we read at most. A stored hash is data: one with a huge cost would be a denial of service.
const (
	maxArgonMemory  = 256 << 10 // KiB
	maxArgonTime    = 16
	maxArgonThreads = 16
	maxStored       = 512 // bytes of a stored hash
)

// ErrBadHash is wrapped by every error of [Verify]: the stored hash cannot be read, its scheme is not known, or its cost
// is above our caps. It says nothing about the password.
var ErrBadHash = errors.New("stored hash cannot be used")

func badHash(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadHash}, args...)...)
}

var b64 = base64.RawStdEncoding.Strict() // PHC string format: no padding

// decode refuses line breaks, which encoding/base64 passes over even when strict.
func decode(e *base64.Encoding, s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break in base64")
	}
	return e.DecodeString(s)
}

// Hash returns the PHC string of a normalised app password: Argon2id with a fresh salt. It takes about 22 ms.
func Hash(normalised string) string {
	var salt [argonSalt]byte
	rand.Read(salt[:])
	sum := argon2.IDKey([]byte(normalised), salt[:], argonTime, argonMemory, argonThreads, argonOutput)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b64.EncodeToString(salt[:]), b64.EncodeToString(sum))
}

// argonHash is a parsed PHC string of the Argon2 family.
type argonHash struct {
	id      bool // argon2id; otherwise argon2i
	memory  uint32
	time    uint32
	threads uint8
	salt    []byte
	sum     []byte
}

// parseArgon reads a PHC string (github.com/P-H-C/phc-string-format) strictly: these parameters, in this order, in
// canonical decimal, below the caps.
func parseArgon(stored string) (h argonHash, err error) {
	f := strings.Split(stored, "$")
	if len(f) != 6 || f[0] != "" {
		return h, badHash("argon2: it must have five fields")
	}
	switch f[1] {
	case "argon2id":
		h.id = true
	case "argon2i":
	default:
		return h, badHash("argon2: unknown variant")
	}
	if f[2] != "v=19" {
		return h, badHash("argon2: version must be 19")
	}
	p := strings.Split(f[3], ",")
	if len(p) != 3 {
		return h, badHash("argon2: parameters must be m, t, p")
	}
	memory, err := parameter(p[0], "m=", maxArgonMemory)
	if err != nil {
		return h, err
	}
	time, err := parameter(p[1], "t=", maxArgonTime)
	if err != nil {
		return h, err
	}
	threads, err := parameter(p[2], "p=", maxArgonThreads)
	if err != nil {
		return h, err
	}
	if memory < 8*threads {
		return h, badHash("argon2: m is below 8 per lane") // RFC 9106 section 3.1
	}
	h.memory, h.time, h.threads = uint32(memory), uint32(time), uint8(threads)
	if h.salt, err = decode(b64, f[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return h, badHash("argon2: salt must be 8 to 64 bytes in base64")
	}
	if h.sum, err = decode(b64, f[5]); err != nil || len(h.sum) < 16 || len(h.sum) > 64 {
		return h, badHash("argon2: output must be 16 to 64 bytes in base64")
	}
	return h, nil
}

// parameter reads one "x=123" of a PHC string: 1 to limit, without sign or leading zero.
func parameter(field, name string, limit int) (int, error) {
	digits, found := strings.CutPrefix(field, name)
	n, err := strconv.ParseUint(digits, 10, 31)
	if !found || err != nil || digits[0] == '0' {
		return 0, badHash("argon2: parameter %s is missing or malformed", strings.TrimSuffix(name, "="))
	}
	if int(n) > limit {
		return 0, badHash("argon2: parameter %s is above %d", strings.TrimSuffix(name, "="), limit)
	}
	return int(n), nil
}

func (h argonHash) verify(password string) bool {
	var sum []byte
	if h.id {
		sum = argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(len(h.sum)))
	} else {
		sum = argon2.Key([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(len(h.sum)))
	}
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// Verify reports whether password hashes to what is stored, comparing in constant time. It reads Argon2id and Argon2i PHC
// strings, bcrypt, SHA-crypt, PBKDF2 and the SHA schemes of LDAP directories and Dovecot ([Schemes]). Every error wraps
// [ErrBadHash]. It may take as long as the stored parameters say, up to seconds at the caps.
func Verify(stored, password string) (bool, error) {
	match, err := parse(stored)
	if err != nil {
		return false, err
	}
	return match(password)
}

// Check reports whether [Verify] can read what is stored. It computes no hash. Every error wraps [ErrBadHash] and quotes nothing
// of it.
func Check(stored string) error {
	_, err := parse(stored)
	return err
}

func parse(stored string) (matcher, error) {
	if len(stored) > maxStored {
		return nil, badHash("longer than %d bytes", maxStored)
	}
	if strings.HasPrefix(stored, "$argon2") {
		h, err := parseArgon(stored)
		if err != nil {
			return nil, err
		}
		return func(password string) (bool, error) { return h.verify(password), nil }, nil
	}
	return parseImported(stored)
}

// Replaceable reports whether a stored hash of that password is to be replaced by one of [Hash] as soon as the password is known:
// everything but Argon2id of at least our cost. Of bcrypt it is not if the password is longer than what bcrypt looks at: the
// replacement would look at all of it, and shut out who types the rest otherwise.
func Replaceable(stored, password string) bool {
	if bare := stored[len(cryptWrapper(stored)):]; strings.HasPrefix(bare, "$2") {
		return len(password) <= bcryptMaxLength
	}
	return !Strong(stored)
}

// cryptWrapper is what OpenLDAP writes before a hash of crypt(3), in any case, or empty.
func cryptWrapper(stored string) string {
	const wrapper = "{CRYPT}"
	if len(stored) >= len(wrapper) && strings.EqualFold(stored[:len(wrapper)], wrapper) {
		return stored[:len(wrapper)]
	}
	return ""
}

// Strong reports whether a stored hash is Argon2id of at least the cost of [Hash].
func Strong(stored string) bool {
	h, err := parseArgon(stored)
	return err == nil && h.id && h.memory >= argonMemory && h.time*h.memory >= argonTime*argonMemory
}
