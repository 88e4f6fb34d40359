package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestHashAndVerify(t *testing.T) {
	const password = "abcdefghijklmnop"
	stored := Hash(password)
	if !regexp.MustCompile(`^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`).MatchString(stored) {
		t.Errorf("Hash = %q, want a PHC string of Argon2id with m=19456,t=2,p=1, 16 bytes of salt and 32 of output", stored)
	}
	if again := Hash(password); again == stored {
		t.Errorf("Hash twice of one text = the same string, want a fresh salt")
	}
	for _, tt := range []struct {
		password string
		want     bool
	}{
		{password, true},
		{"abcdefghijklmnoq", false},
		{"", false},
		{password + "\x00", false},
		{"ABCDEFGHIJKLMNOP", false}, // Verify compares bytes; folding is Normalise's
	} {
		if got, err := Verify(stored, tt.password); got != tt.want || err != nil {
			t.Errorf("Verify(Hash(%q), %q) = %v, %v, want %v, nil", password, tt.password, got, err, tt.want)
		}
	}
}

// The vectors with the salt "somesalt" are those of the reference implementation's test.c
// (github.com/P-H-C/phc-winner-argon2); the last one was made by OpenLDAP's slappasswd with its argon2 module.
func TestVerifyArgon(t *testing.T) {
	for _, tt := range []struct{ stored, password string }{
		{"$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8", "password"},
		{"$argon2i$v=19$m=256,t=2,p=2$c29tZXNhbHQ$T/XOJ2mh1/TIpJHfCdQan76Q5esCFVoT5MAeIM1Oq2E", "password"},
		{"$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA", "password"},
		{"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"},
		{"$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc", "password"},
		{"$argon2i$v=19$m=4096,t=3,p=1$gF4AbuCuTzZy9XtaQyEVog$Val67jaQWPAc8kRxQO/ixwwGGHSM23OM7uPQbOMCNWs", "secret"},
	} {
		if got, err := Verify(tt.stored, tt.password); !got || err != nil {
			t.Errorf("Verify(%q, %q) = %v, %v, want true, nil", tt.stored, tt.password, got, err)
		}
		if got, err := Verify(tt.stored, tt.password+"x"); got || err != nil {
			t.Errorf("Verify(%q, wrong password) = %v, %v, want false, nil", tt.stored, got, err)
		}
	}
}

func TestParseArgon(t *testing.T) {
	const salt, sum = "c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	raw := func(n int) string { return base64.RawStdEncoding.EncodeToString(make([]byte, n)) }
	with := func(params string) string { return "$argon2id$v=19$" + params + "$" + salt + "$" + sum }
	salted := func(s string) string { return "$argon2id$v=19$m=256,t=2,p=1$" + s + "$" + sum }
	summed := func(s string) string { return "$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + s }
	for _, tt := range []struct {
		name   string
		stored string
		ok     bool
	}{
		{"plain", with("m=256,t=2,p=1"), true},
		{"argon2i", strings.Replace(with("m=256,t=2,p=1"), "argon2id", "argon2i", 1), true},
		{"m at the cap", with("m=262144,t=1,p=1"), true},
		{"t at the cap", with("m=256,t=16,p=1"), true},
		{"p at the cap", with("m=256,t=1,p=16"), true},
		{"least memory", with("m=8,t=1,p=1"), true},
		{"least memory of two lanes", with("m=16,t=1,p=2"), true},

		{"m above the cap", with("m=262145,t=1,p=1"), false},
		{"t above the cap", with("m=256,t=17,p=1"), false},
		{"p above the cap", with("m=256,t=1,p=17"), false},
		{"p of 256, which is 0 in a byte", with("m=4096,t=1,p=256"), false},
		{"p of 257, which is 1 in a byte", with("m=4096,t=1,p=257"), false},
		{"m of 2^32+256", with("m=4294967552,t=1,p=1"), false},
		{"m of 2^64", with("m=18446744073709551616,t=1,p=1"), false},
		{"m below 8 a lane", with("m=7,t=1,p=1"), false},
		{"m below 8 a lane, two lanes", with("m=15,t=1,p=2"), false},
		{"m zero", with("m=0,t=1,p=1"), false},
		{"t zero", with("m=256,t=0,p=1"), false},
		{"p zero", with("m=256,t=1,p=0"), false},
		{"m empty", with("m=,t=1,p=1"), false},
		{"leading zero", with("m=0256,t=1,p=1"), false},
		{"plus sign", with("m=+256,t=1,p=1"), false},
		{"minus sign", with("m=-256,t=1,p=1"), false},
		{"underscore", with("m=25_6,t=1,p=1"), false},
		{"hex", with("m=0x100,t=1,p=1"), false},
		{"space", with("m= 256,t=1,p=1"), false},
		{"other digits", with("m=\u0662\u0665\u0666,t=1,p=1"), false},
		{"other order", with("t=2,m=256,p=1"), false},
		{"parameter missing", with("m=256,t=2"), false},
		{"parameter added", with("m=256,t=2,p=1,keyid=AA"), false},
		{"parameter twice", with("m=256,m=256,p=1"), false},
		{"upper-case parameter", with("M=256,t=2,p=1"), false},
		{"no parameters", with(""), false},

		{"version 16", strings.Replace(with("m=256,t=2,p=1"), "v=19", "v=16", 1), false},
		{"version 0x13", strings.Replace(with("m=256,t=2,p=1"), "v=19", "v=0x13", 1), false},
		{"version 019", strings.Replace(with("m=256,t=2,p=1"), "v=19", "v=019", 1), false},
		{"no version", "$argon2id$m=256,t=2,p=1$" + salt + "$" + sum, false},
		{"argon2d", strings.Replace(with("m=256,t=2,p=1"), "argon2id", "argon2d", 1), false},
		{"upper-case scheme", strings.Replace(with("m=256,t=2,p=1"), "argon2id", "ARGON2ID", 1), false},
		{"argon2idx", strings.Replace(with("m=256,t=2,p=1"), "argon2id", "argon2idx", 1), false},

		{"salt of 8 bytes", salted(raw(8)), true},
		{"salt of 7 bytes", salted(raw(7)), false},
		{"salt of 64 bytes", salted(raw(64)), true},
		{"salt of 65 bytes", salted(raw(65)), false},
		{"no salt", salted(""), false},
		{"padded salt", salted("c29tZXNhbHQ="), false},
		{"salt in URL alphabet", salted("c29tZXNh-_Q"), false},
		{"salt with other trailing bits", salted("c29tZXNhbHR"), false},
		{"salt with a newline", salted("c29tZX\nNhbHQ"), false},
		{"salt with a carriage return", salted("c29tZX\rNhbHQ"), false},
		{"output of 16 bytes", summed(raw(16)), true},
		{"output of 15 bytes", summed(raw(15)), false},
		{"output of 64 bytes", summed(raw(64)), true},
		{"output of 65 bytes", summed(raw(65)), false},
		{"no output", summed(""), false},
		{"padded output", summed(sum + "="), false},
		{"output with a newline at the end", summed(sum + "\n"), false},
		{"output with a space at the end", summed(sum + " "), false},
		{"output with NUL", summed(sum + "\x00"), false},

		{"field added", with("m=256,t=2,p=1") + "$", false},
		{"field missing", "$argon2id$v=19$m=256,t=2,p=1$" + salt, false},
		{"only the scheme", "$argon2id", false},
		{"only dollars", "$argon2id$$$$", false},
		{"something before", "x" + with("m=256,t=2,p=1"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parseArgon(tt.stored)
			if tt.ok != (err == nil) {
				t.Fatalf("parseArgon(%q) = %v, want accepted: %v", tt.stored, err, tt.ok)
			}
			if err != nil {
				wantBadHash(t, tt.stored, err)
				if got, err := Verify(tt.stored, "password"); got || !errors.Is(err, ErrBadHash) {
					t.Errorf("Verify(%q) = %v, %v, want false, ErrBadHash", tt.stored, got, err)
				}
				return
			}
			if got := encodeArgon(h); got != tt.stored {
				t.Errorf("parseArgon(%q) read %q", tt.stored, got)
			}
		})
	}
}

// wantBadHash checks that an error is of the documented kind and tells nothing of the hash.
func wantBadHash(t *testing.T, stored string, err error) {
	t.Helper()
	if !errors.Is(err, ErrBadHash) {
		t.Errorf("error %v does not wrap ErrBadHash", err)
	}
	for i := 0; i+8 <= len(stored); i++ {
		if part := stored[i : i+8]; strings.Contains(err.Error(), part) {
			t.Errorf("error %q holds %q of the stored hash", err, part)
			return
		}
	}
}

// encodeArgon writes what was parsed in the one form that should be accepted.
func encodeArgon(h argonHash) string {
	variant := "argon2i"
	if h.id {
		variant = "argon2id"
	}
	return fmt.Sprintf("$%s$v=19$m=%d,t=%d,p=%d$%s$%s", variant, h.memory, h.time, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.sum))
}

func TestVerifyHugeStored(t *testing.T) {
	for _, stored := range []string{
		"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 10<<20),
		strings.Repeat("$", 1<<20),
		"$argon2id" + strings.Repeat("$", 1<<20),
		"$6$rounds=1000$" + strings.Repeat("a", 1<<20),
		"{SSHA}" + strings.Repeat("A", 1<<20),
		strings.Repeat("{CRYPT}", 1<<17),
		"{CRYPT}$6$" + strings.Repeat("{CRYPT}$6$", 40),
		strings.Repeat("A", maxStored+1),
	} {
		got, err := Verify(stored, "password")
		if got || !errors.Is(err, ErrBadHash) {
			t.Errorf("Verify(%d bytes beginning with %.20q) = %v, %v, want false, ErrBadHash", len(stored), stored, got, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("Verify(%d bytes beginning with %.20q): the error has %d bytes, want at most 200", len(stored), stored, len(err.Error()))
		}
	}
}

// FuzzPHC runs the parser only: what it accepts could cost seconds to verify.
func FuzzPHC(f *testing.F) {
	f.Fuzz(func(t *testing.T, stored string) {
		h, err := parseArgon(stored)
		if err != nil {
			if !errors.Is(err, ErrBadHash) {
				t.Errorf("parseArgon(%q) = %v, which does not wrap ErrBadHash", stored, err)
			}
			return
		}
		switch {
		case h.memory < 8*uint32(h.threads) || h.memory > maxArgonMemory,
			h.time < 1 || h.time > maxArgonTime,
			h.threads < 1 || h.threads > maxArgonThreads,
			len(h.salt) < 8 || len(h.salt) > 64,
			len(h.sum) < 16 || len(h.sum) > 64:
			t.Errorf("parseArgon(%q) = m=%d t=%d p=%d, %d bytes of salt, %d of output: above the caps",
				stored, h.memory, h.time, h.threads, len(h.salt), len(h.sum))
		}
		if got := encodeArgon(h); got != stored {
			t.Errorf("parseArgon accepts %q, which is not the canonical %q", stored, got)
		}
	})
}
