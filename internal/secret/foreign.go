package secret

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Adopted is what becomes of a password as another program keeps it.
type Adopted struct {
	Stored   string // what [Verify] reads, and [Check] has read; empty if the password itself is given
	Password string // in clear: to be hashed, never to be stored
	Unsalted bool   // a plain digest, which falls to guessing at billions a second
}

// refusedSchemes are what nobody should rely on any more, or what cannot be checked against a password that a peer hands over.
var refusedSchemes = map[string]string{
	"MD5":           "MD5-crypt is broken by speed",
	"MD5-CRYPT":     "MD5-crypt is broken by speed",
	"DES-CRYPT":     "DES-crypt looks at 8 characters only",
	"SMD5":          "MD5 is broken by speed",
	"LDAP-MD5":      "MD5 without a salt is broken by speed",
	"PLAIN-MD5":     "MD5 without a salt is broken by speed",
	"MD5RAW":        "MD5 without a salt is broken by speed",
	"PLAIN-MD4":     "MD4 without a salt is broken by speed",
	"NTLM":          "MD4 without a salt is broken by speed",
	"LANMAN":        "LAN Manager's hash looks at 14 characters in capitals only",
	"SHA":           "SHA-1 without a salt is broken by speed",
	"SHA1":          "SHA-1 without a salt is broken by speed",
	"CRAM-MD5":      "MD5 is broken by speed",
	"HMAC-MD5":      "MD5 is broken by speed",
	"DIGEST-MD5":    "MD5 is broken by speed",
	"SCRAM-SHA-1":   "the keys of SCRAM cannot be verified here",
	"SCRAM-SHA-256": "the keys of SCRAM cannot be verified here",
	"OTP":           "a one-time password is no app password",
	"SKEY":          "a one-time password is no app password",
	"RPA":           "it serves RPA only",
	"PLAIN-TRUNC":   "a part of a password cannot be checked as a whole one",
}

// refusedCrypts are the schemes of crypt(3) that Verify does not read, by their prefix.
var refusedCrypts = []struct{ prefix, why string }{
	{"$1$", "MD5-crypt is broken by speed"},
	{"$apr1$", "Apache's MD5-crypt is broken by speed"},
	{"$P$", "phpass is MD5"},
	{"$H$", "phpass is MD5"},
	{"$y$", "yescrypt cannot be verified here"},
	{"$gy$", "yescrypt cannot be verified here"},
	{"$7$", "scrypt cannot be verified here"},
	{"$3$", "the NT hash is MD4 without a salt"},
	{"$sha1$", "SHA-1-crypt cannot be verified here"},
	{"$2x$", "bcrypt $2x$ was made by a version with a fault"},
}

// Adopt reads a password as Dovecot, LDAP directories, PHP and passlib keep it: "{SCHEME}hash", where the scheme may end in .HEX or
// .B64, or a bare hash of crypt(3). Where there is no scheme and no crypt(3) prefix, it is of defaultScheme, if that is not empty.
//
// Errors say which scheme it is and why it is not taken over, for people. They quote nothing of the hash and need not wrap
// [ErrBadHash].
func Adopt(text, defaultScheme string) (Adopted, error) {
	scheme, rest := "", text
	if strings.HasPrefix(text, "{") {
		name, after, found := strings.Cut(text[1:], "}")
		if found && len(name) <= 32 {
			scheme, rest = strings.ToUpper(name), after
		}
	}
	if scheme == "" && !strings.HasPrefix(text, "$") {
		scheme = strings.ToUpper(defaultScheme)
	}
	if rest == "" {
		return Adopted{}, fmt.Errorf("there is no password")
	}
	name, coding, _ := strings.Cut(scheme, ".")
	if why, refused := refusedSchemes[name]; refused {
		return Adopted{}, fmt.Errorf("{%s}: %s", name, why)
	}
	var a Adopted
	var err error
	switch name {
	case "PLAIN", "CLEAR", "CLEARTEXT":
		a.Password, err = plain(rest, coding)
		return a, err
	case "SSHA", "SSHA256", "SSHA512":
		var raw []byte
		if raw, err = digest(rest, coding); err == nil {
			a.Stored = "{" + name + "}" + base64.StdEncoding.EncodeToString(raw)
		}
	case "SHA256", "SHA512":
		var raw []byte
		if raw, err = digest(rest, coding); err == nil {
			// Some write both salted and unsalted digests so: the length tells.
			size := map[string]int{"SHA256": sha256.Size, "SHA512": sha512.Size}[name]
			if len(raw) > size {
				a.Stored = "{S" + name + "}" + base64.StdEncoding.EncodeToString(raw)
			} else {
				a.Stored, a.Unsalted = "{"+name+".HEX}"+hex.EncodeToString(raw), true
			}
		}
	case "PBKDF2":
		var inner string
		if inner, err = plain(rest, coding); err == nil {
			a.Stored = "{PBKDF2}" + inner
		}
	case "PBKDF2-SHA256", "PBKDF2-SHA512": // passlib.hash.ldap_pbkdf2_sha256
		a.Stored = "$" + strings.ToLower(name) + "$" + rest
	case "", "CRYPT", "BLF-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "ARGON2I", "ARGON2ID", "ARGON2", "BCRYPT":
		if a.Stored, err = plain(rest, coding); err != nil {
			break
		}
		if !strings.HasPrefix(a.Stored, "$") {
			if name == "" {
				return Adopted{}, fmt.Errorf("it has no scheme, and is no hash of crypt(3)")
			}
			return Adopted{}, fmt.Errorf("{%s}: it is no hash of crypt(3) that is known here, such as bcrypt or SHA-crypt", name)
		}
		for _, r := range refusedCrypts {
			if strings.HasPrefix(a.Stored, r.prefix) {
				return Adopted{}, fmt.Errorf("%s", r.why)
			}
		}
	default:
		return Adopted{}, fmt.Errorf("{%s} is not a scheme that is known here", printableScheme(name))
	}
	if err != nil {
		return Adopted{}, fmt.Errorf("{%s}: malformed", printableScheme(scheme))
	}
	if err := Check(a.Stored); err != nil {
		return Adopted{}, err
	}
	return a, nil
}

// printableScheme is a scheme's name as a terminal may see it.
func printableScheme(name string) string {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !('A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return "?"
		}
	}
	return name
}

// plain undoes Dovecot's encodings of a text: {PLAIN.b64}, {SHA512-CRYPT.HEX}.
func plain(text, coding string) (string, error) {
	switch coding {
	case "":
		return text, nil
	case "HEX":
		raw, err := hex.DecodeString(text)
		return string(raw), err
	case "B64", "BASE64":
		raw, err := decode(base64.StdEncoding, text)
		return string(raw), err
	}
	return "", badHash("unknown encoding")
}

// digest undoes Dovecot's encodings of a digest, of which base 64 is the usual one. glauth and ap4rc write hexadecimal digits.
func digest(text, coding string) ([]byte, error) {
	switch coding {
	case "HEX":
		return hex.DecodeString(text)
	case "", "B64", "BASE64":
		return decode(base64.StdEncoding, text)
	}
	return nil, badHash("unknown encoding")
}
