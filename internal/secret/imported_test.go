package secret

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// verifies checks one stored hash with the right password and with three wrong ones.
func verifies(t *testing.T, stored, password string) {
	t.Helper()
	if got, err := Verify(stored, password); !got || err != nil {
		t.Errorf("Verify(%q, %.60q) = %v, %v, want true, nil", stored, password, got, err)
	}
	for _, wrong := range []string{"x" + password, password + "x", flipCase(password) + "y"} {
		if got, err := Verify(stored, wrong); got || err != nil {
			t.Errorf("Verify(%q, %.60q) = %v, %v, want false, nil", stored, wrong, got, err)
		}
	}
}

// The first seven of each scheme are Drepper's vectors, in the form that crypt(3) prints: salt cut to 16 characters, rounds
// raised to 1000. The others were made by glibc's crypt(3).
func TestVerifyCrypt(t *testing.T) {
	for _, tt := range []struct{ password, stored string }{
		{"Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"},
		{"Hello world!", "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"},
		{"This is just a test", "$5$rounds=5000$toolongsaltstrin$Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5"},
		{"a very much longer text to encrypt.  This one even stretches over morethan one line.", "$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1"},
		{"we have a short salt string but not a short password", "$5$rounds=77777$short$JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/"},
		{"a short string", "$5$rounds=123456$asaltof16chars..$gP3VQ/6X7UUEW3HkBn2w1/Ptq2jxPyzV/cZKmF/wJvD"},
		{"the minimum number is still observed", "$5$rounds=1000$roundstoolow$yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC"},
		{"", "$5$rounds=1000$saltsalt$Naw4j7Jsi9DJmo461n8iSYTXTcY98Ufoq.Xsn7KkFN7"},
		{strings.Repeat("x", 64), "$5$rounds=1000$x$tQx/wjkKtg5VZSJ46Vnvd/DM93pXv.iaiL7x2LOhfC3"},
		{strings.Repeat("long ", 100), "$5$rounds=1000$sixteen.letters.$i975GzuOio1g7GivGFJa3Uwczg75ou0HVJ/ayJdcn7."},
		{"paßwort 🔑", "$5$rounds=1000$a/b.c$ESbKOsvdqPiyLTmVk6//IPpb48niBmD7C4Mm8INDhD8"},
		{"Hello world!", "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"},
		{"Hello world!", "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."},
		{"This is just a test", "$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0"},
		{"a very much longer text to encrypt.  This one even stretches over morethan one line.", "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1"},
		{"we have a short salt string but not a short password", "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0"},
		{"a short string", "$6$rounds=123456$asaltof16chars..$BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevoBK25fs2xXgMNrCzIMVcgEJAstJeonj1"},
		{"the minimum number is still observed", "$6$rounds=1000$roundstoolow$kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHHrsX."},
		{"", "$6$rounds=1000$saltsalt$VEHSITfYmhRDpD6t31S9LUhNne.FOx10qNSjfu2skYK5wKPYCkdF/995SUbfpqIy5BFbEit9G4aDmW4aq4oX9."},
		{strings.Repeat("x", 64), "$6$rounds=1000$x$nFZlEXhDJsA9FI8fuUI0m9Xk5WLnNliqb.XO6qOsGWc39T3Ns51W36EXqJAhtEoAWAd6RktKXV.kU.W1OXcDb."},
		{strings.Repeat("long ", 100), "$6$rounds=1000$sixteen.letters.$qlhpptWXhAMP7k.qxV8CKRJ3QStq5Go6wf.kkde4MyH84N0.0ykeY9Njcr7bVbp2.y7c.DcDRaFfni7E21Lsq0"},
		{"paßwort 🔑", "$6$rounds=1000$a/b.c$GxmQ4bgnVjBE08jhGSpd0zr1kBpNNa8BwVyVkg/coFkiaCZ3e1PmZl7zk2AilrU9vFN84LdfNiSyfaBT.QQEU1"},
	} {
		if got, err := Verify(tt.stored, tt.password); !got || err != nil {
			t.Errorf("Verify(%q, %.60q) = %v, %v, want true, nil", tt.stored, tt.password, got, err)
		}
		if got, err := Verify(tt.stored, tt.password+"x"); got || err != nil {
			t.Errorf("Verify(%q, wrong password) = %v, %v, want false, nil", tt.stored, got, err)
		}
	}
	// "rounds=10" means 1000 (Drepper's specification, step 22), though crypt(3) never prints it so.
	verifies(t, "$5$rounds=10$roundstoolow$yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC", "the minimum number is still observed")
	// slappasswd -h {CRYPT} -c '$6$%.16s', and the scheme in other case.
	verifies(t, "{CRYPT}$6$yvjdPMFgrSrrVPmF$CEt1w9Autdgc/VTmUXof/LbohRIa108qpGvf6FRw5BT5zBTnZxkQl0KmUIBjU0afIH4If3KPUjJUCtDpeLOAM.", "secret")
	verifies(t, "{crypt}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!")
}

// Made by libxcrypt's crypt(3); the 8-bit one is crypt_blowfish's own, where the broken $2x$ differs.
func TestVerifyBcrypt(t *testing.T) {
	long := strings.Repeat("long ", 30)
	for _, tt := range []struct{ stored, password string }{
		{"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
		{"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
		{"$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
		{"$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.", ""},
		{"$2b$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "\xff\xff\xa3"},
		{"$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "\xff\xff\xa3"},
		{"$2b$05$abcdefghijklmnopqrstuuSKEyMALx6JnPqFKTOOjCmHkXJZdKOTe", strings.Repeat("abc123!", 9)},
		{"{CRYPT}$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	} {
		verifies(t, tt.stored, tt.password)
	}
	// Only the first 72 bytes count.
	for _, stored := range []string{
		"$2a$04$abcdefghijklmnopqrstuuIAle5L4ue5XyAG2HTzAX6K2n8ZK1yhi",
		"$2b$04$abcdefghijklmnopqrstuuIAle5L4ue5XyAG2HTzAX6K2n8ZK1yhi",
		"$2y$04$abcdefghijklmnopqrstuuIAle5L4ue5XyAG2HTzAX6K2n8ZK1yhi",
	} {
		for _, tt := range []struct {
			name, password string
			want           bool
		}{
			{"150 bytes", long, true},
			{"72 bytes", long[:72], true},
			{"512 bytes", long + strings.Repeat("z", 512-150), true},
			{"71 bytes", long[:71], false},
			{"other byte 72", long[:71] + "X" + long[72:], false},
		} {
			if got, err := Verify(stored, tt.password); got != tt.want || err != nil {
				t.Errorf("%s: Verify(%q) = %v, %v, want %v, nil", tt.name, stored, got, err, tt.want)
			}
		}
	}
}

// Made by OpenLDAP's slappasswd, with its module pw-sha2 for the longer ones.
func TestVerifySalted(t *testing.T) {
	for _, stored := range []string{
		"{SSHA}JC981stXI9q3vQ1mTfFCAVJHAydcwywR",
		"{SSHA}on8EYbHGSbKhgqHPSELuU/CFn64Kmm0d",
		"{SSHA256}oXn5nT7iG6AmcAdGk2T6AuxoqAPJd0wB1OZtwvrtAAQ+k7oJ7PBHmQ==",
		"{SSHA512}D3Z6B0Z3Qp9jMwCsjnuNaqb3tR8DHHhO3hEjlSrMbL5qeCRipsTW8ZAEJEZEFf5tS2zRvbsNy3qjX+0Mgn6pgxPOKucN/Ppw",
		"{ssha}JC981stXI9q3vQ1mTfFCAVJHAydcwywR", // RFC 2307 section 3: the scheme is not case-sensitive
	} {
		verifies(t, stored, "secret")
	}
	salt := strings.Repeat("s", maxSaltedExtra)
	sum := sha256.Sum256([]byte("secret" + salt))
	verifies(t, "{SSHA256}"+base64.StdEncoding.EncodeToString(append(sum[:], salt...)), "secret")
}

func TestVerifyRefuses(t *testing.T) {
	const crypt256sum = "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
	const bcryptSum = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
	long := sha256.Sum256([]byte("x"))
	for _, tt := range []struct{ name, stored string }{
		{"empty", ""},
		{"clear text", "secret"},
		{"dollar", "$"},
		{"MD5-crypt", "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/"},
		{"yescrypt", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"},
		{"scrypt", "$7$CU..../....2Q9obwLhin8qvQl6sisAO/$sYayJj/h68"},
		{"SHA without salt", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="},
		{"clear-text scheme", "{CLEARTEXT}secret"},
		{"plain scheme", "{PLAIN}secret"},
		{"DES crypt", "{CRYPT}ab01FAX.bQRSU"},
		{"CRYPT in CRYPT", "{CRYPT}{CRYPT}$5$saltstring$" + crypt256sum},
		{"SSHA in CRYPT", "{CRYPT}{SSHA}JC981stXI9q3vQ1mTfFCAVJHAydcwywR"},
		{"no scheme", "{}secret"},
		{"brace only", "}"},

		{"bcrypt cost above the cap", "$2b$15$" + bcryptSum},
		{"bcrypt cost 31", "$2b$31$" + bcryptSum},
		{"bcrypt cost 99", "$2b$99$" + bcryptSum},
		{"bcrypt cost 03", "$2b$03$" + bcryptSum},
		{"bcrypt cost with a sign", "$2b$+5$" + bcryptSum},
		{"bcrypt cost with a space", "$2b$ 5$" + bcryptSum},
		{"bcrypt cost in letters", "$2b$xx$" + bcryptSum},
		{"bcrypt with an unknown minor version", "$2q$05$" + bcryptSum},
		{"bcrypt with crypt_blowfish's sign bug", "$2x$05$" + bcryptSum},
		{"bcrypt with another separator after the version", "$2b!05$" + bcryptSum},
		{"bcrypt with another separator after the cost", "$2b$05!" + bcryptSum},
		{"bcrypt with something after it", "$2b$05$" + bcryptSum + "x"},
		{"bcrypt with a newline after it", "$2b$05$" + bcryptSum + "\n"},
		{"bcrypt cut by one", "$2b$05$" + bcryptSum[:52]},
		{"bcrypt cut by two", "$2b$05$" + bcryptSum[:51]},
		{"bcrypt with a character outside the alphabet in the salt", "$2b$05$!" + bcryptSum[1:]},
		{"bcrypt with a character outside the alphabet in the hash", "$2b$05$" + bcryptSum[:52] + "!"},
		{"bcrypt, prefix only", "$2"},

		{"sha-crypt rounds above the cap", "$5$rounds=1000001$saltstring$" + crypt256sum},
		{"sha-crypt rounds 999999999", "$6$rounds=999999999$saltstring$" + crypt256sum},
		{"sha-crypt rounds 2^63", "$5$rounds=9223372036854775808$saltstring$" + crypt256sum},
		{"sha-crypt rounds negative", "$5$rounds=-1$saltstring$" + crypt256sum},
		{"sha-crypt rounds empty", "$5$rounds=$saltstring$" + crypt256sum},
		{"sha-crypt rounds not a number", "$5$rounds=5k$saltstring$" + crypt256sum},
		{"sha-crypt rounds twice", "$5$rounds=1000$rounds=1000$saltstring$" + crypt256sum},
		{"sha-crypt rounds only", "$5$rounds=1000"},
		{"sha-crypt without hash", "$5$saltstring"},
		{"sha-crypt with an empty hash", "$5$saltstring$"},
		{"sha-crypt with a salt of 17", "$5$saltstringsaltstr$" + crypt256sum},
		{"sha-crypt with a hash of the other size", "$6$saltstring$" + crypt256sum},
		{"sha-crypt with a hash cut by one", "$5$saltstring$" + crypt256sum[:42]},
		{"sha-crypt with a hash longer by one", "$5$saltstring$" + crypt256sum + "."},
		{"sha-crypt with a field after it", "$5$saltstring$" + crypt256sum + "$"},
		{"sha-crypt with a character outside the alphabet in the hash", "$5$saltstring$!" + crypt256sum[1:]},

		{"SSHA not base64", "{SSHA}!!!"},
		{"SSHA empty", "{SSHA}"},
		{"SSHA shorter than its digest", "{SSHA}" + base64.StdEncoding.EncodeToString(long[:19])},
		{"SSHA256 shorter than its digest", "{SSHA256}" + base64.StdEncoding.EncodeToString(long[:31])},
		{"SSHA512 with a SHA-256 digest", "{SSHA512}" + base64.StdEncoding.EncodeToString(long[:])},
		{"SSHA with a huge salt", "{SSHA}" + base64.StdEncoding.EncodeToString(make([]byte, 20+maxSaltedExtra+1))},
		{"SSHA unpadded", "{SSHA256}oXn5nT7iG6AmcAdGk2T6AuxoqAPJd0wB1OZtwvrtAAQ+k7oJ7PBHmQ"},
		{"SSHA with a newline", "{SSHA}JC981stXI9q3\nvQ1mTfFCAVJHAydcwywR"},
		{"SSHA with something before it", " {SSHA}JC981stXI9q3vQ1mTfFCAVJHAydcwywR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, password := range []string{"secret", "", "U*U", "Hello world!"} {
				got, err := Verify(tt.stored, password)
				if got || err == nil {
					t.Fatalf("Verify(%q, %q) = %v, %v, want false and an error", tt.stored, password, got, err)
				}
				wantBadHash(t, tt.stored, err)
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("Verify(%q): the error %q holds the password", tt.stored, err)
				}
			}
		})
	}
}

var (
	bcryptShape = regexp.MustCompile(`^\$2[aby]?\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)
	cryptShape  = regexp.MustCompile(`^\$[56]\$(rounds=([0-9]+)\$)?[^$]{0,16}\$([./A-Za-z0-9]{43}|[./A-Za-z0-9]{86})$`)
	saltedShape = regexp.MustCompile(`^\{(?i:SSHA|SSHA256|SSHA512)\}[A-Za-z0-9+/]+={0,2}$`)
)

// FuzzImported looks for malformed strings that are taken for a hash. Expensive ones are not computed.
func FuzzImported(f *testing.F) {
	f.Fuzz(func(t *testing.T, stored, password string) {
		bare := stored
		if len(bare) > 7 && strings.EqualFold(bare[:7], "{CRYPT}") {
			bare = bare[7:]
		}
		if strings.HasPrefix(bare, "$argon2") || len(password) > 512 {
			return // FuzzPHC's
		}
		if cost, err := bcrypt.Cost([]byte(bare)); err == nil && cost > 4 && cost <= maxBcryptCost {
			return
		}
		if _, digits, found := strings.Cut(bare, "rounds="); found {
			digits, _, _ = strings.Cut(digits, "$")
			if n, err := strconv.Atoi(digits); err == nil && n > 1000 && n <= maxCryptRounds {
				return
			}
		}
		_, err := Verify(stored, password)
		if err != nil {
			if !errors.Is(err, ErrBadHash) {
				t.Errorf("Verify(%q) = %v, which does not wrap ErrBadHash", stored, err)
			}
			return
		}
		if !bcryptShape.MatchString(bare) && !cryptShape.MatchString(bare) && !saltedShape.MatchString(stored) {
			t.Errorf("Verify takes %q for a hash", stored)
		}
	})
}
