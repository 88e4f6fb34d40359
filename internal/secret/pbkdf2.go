package secret

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strconv"
	"strings"
)

// Caps of PBKDF2: a round is one or two SHA compressions, so that the most expensive hash that is read takes about a second.
const (
	maxPBKDF2Rounds = 2_000_000
	maxPBKDF2Salt   = 128 // bytes
	maxPBKDF2Output = 64  // bytes: more would be computed in blocks, each at the full price
)

// parseDovecotPBKDF2 reads "$1$salt$rounds$hex", what Dovecot writes behind {PBKDF2}: PBKDF2-HMAC-SHA1, the salt as it stands
// (Dovecot, src/auth/password-scheme-pbkdf2.c). mailcow reads the same (functions.inc.php, verify_hash).
func parseDovecotPBKDF2(text string) (matcher, error) {
	f := strings.Split(text, "$")
	if len(f) != 5 || f[0] != "" || f[1] != "1" {
		return nil, badHash("PBKDF2: malformed")
	}
	rounds, err := pbkdf2Rounds(f[3])
	if err != nil {
		return nil, err
	}
	want, err := hex.DecodeString(f[4])
	if err != nil || len(want) != sha1.Size {
		return nil, badHash("PBKDF2: malformed")
	}
	return pbkdf2Matcher(sha1.New, []byte(f[2]), rounds, want)
}

// passlibHashes are the digests by the names that passlib gives them; the one without a name is SHA-1.
var passlibHashes = map[string]func() hash.Hash{"": sha1.New, "-sha256": sha256.New, "-sha512": sha512.New}

// parsePasslib reads "$pbkdf2-sha256$rounds$salt$checksum" of Python's passlib, whose base 64 has a point for the plus and no
// padding (passlib.hash.pbkdf2_sha256, "Format & Algorithm").
func parsePasslib(stored string) (matcher, error) {
	f := strings.Split(strings.TrimPrefix(stored, "$pbkdf2"), "$")
	if len(f) != 4 {
		return nil, badHash("PBKDF2: malformed")
	}
	newHash := passlibHashes[f[0]]
	if newHash == nil {
		return nil, badHash("PBKDF2: unknown digest")
	}
	rounds, err := pbkdf2Rounds(f[1])
	if err != nil {
		return nil, err
	}
	plain := func(s string) ([]byte, error) {
		if strings.Contains(s, "+") {
			return nil, badHash("PBKDF2: malformed")
		}
		return decode(base64.RawStdEncoding, strings.ReplaceAll(s, ".", "+"))
	}
	salt, err := plain(f[2])
	if err != nil {
		return nil, badHash("PBKDF2: malformed")
	}
	want, err := plain(f[3])
	if err != nil || len(want) != newHash().Size() {
		return nil, badHash("PBKDF2: malformed")
	}
	return pbkdf2Matcher(newHash, salt, rounds, want)
}

func pbkdf2Rounds(digits string) (int, error) {
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 || digits[0] == '0' {
		return 0, badHash("PBKDF2: malformed rounds")
	}
	if n > maxPBKDF2Rounds {
		return 0, badHash("PBKDF2: rounds are above %d", maxPBKDF2Rounds)
	}
	return int(n), nil
}

func pbkdf2Matcher(newHash func() hash.Hash, salt []byte, rounds int, want []byte) (matcher, error) {
	if len(salt) > maxPBKDF2Salt || len(want) > maxPBKDF2Output {
		return nil, badHash("PBKDF2: malformed")
	}
	return func(password string) (bool, error) {
		got, err := pbkdf2.Key(newHash, password, salt, rounds, len(want))
		if err != nil {
			return false, badHash("PBKDF2: it cannot be computed here") // FIPS mode refuses short salts
		}
		return subtle.ConstantTimeCompare(got, want) == 1, nil
	}, nil
}

// parseUnsalted reads a bare digest in hexadecimal digits.
func parseUnsalted(digits string, newHash func() hash.Hash) (matcher, error) {
	want, err := hex.DecodeString(digits)
	if err != nil || len(want) != newHash().Size() {
		return nil, badHash("digest: malformed")
	}
	return func(password string) (bool, error) {
		h := newHash()
		h.Write([]byte(password))
		return subtle.ConstantTimeCompare(h.Sum(nil), want) == 1, nil
	}, nil
}
