package secret

import (
	"errors"
	"strings"
	"testing"
)

// Of the password "secret". Made by doveadm pw, PHP, passlib and sha256sum.
var foreign = []struct {
	name, text, scheme string
	stored             string // its beginning
	unsalted           bool
}{
	{"doveadm PBKDF2", "{PBKDF2}$1$s641OzgW21g4BMat$5000$6b770bab21c8f864f939a65aaf0303f933668028", "", "{PBKDF2}$1$", false},
	{"doveadm SHA256", "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=", "", "{SHA256.HEX}2bb80d53", true},
	{"doveadm SHA256.HEX", "{SHA256.HEX}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "", "{SHA256.HEX}2bb80d53", true},
	{"doveadm SHA512", "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==", "", "{SHA512.HEX}bd2b1aaf", true},
	{"doveadm SSHA", "{SSHA}Pz/nMkw+9qh3Q/OFghMgoCZr6y6QwQDa", "", "{SSHA}", false},
	{"doveadm SSHA256", "{SSHA256}LPfA5pRkS4yV8/mPsgm8W3OgLp5MtyPdcz7q/svf2J+Kw2Ql", "", "{SSHA256}", false},
	{"doveadm SSHA256.HEX", "{SSHA256.HEX}5d3bb8eb0309b0b138f5d6cc9934dcdbc5c9ff8aed4ce5ab2a610725cd165a6e7fc68f55", "", "{SSHA256}", false},
	{"salted, called SHA256", "{SHA256}LPfA5pRkS4yV8/mPsgm8W3OgLp5MtyPdcz7q/svf2J+Kw2Ql", "", "{SSHA256}", false},
	{"doveadm BLF-CRYPT", "{BLF-CRYPT}$2y$05$nBEToiQPHH/PHpMQtcSV/Of7lIet8SLx0LRHeotXzVljq2MSw8jw2", "", "$2y$05$", false},
	{"doveadm SHA512-CRYPT", "{SHA512-CRYPT}$6$OKoyOs.74dmZrebW$XWCxvxfbBjPLER2QzUclbHbymMSwEGqMI7LHRTAzt55sa7ihJawTZfLaBswchp5rAMGzN.Kryk8Fb2BDRJDh10", "", "$6$", false},
	{"doveadm SHA256-CRYPT", "{SHA256-CRYPT}$5$OLaIUG67ZQQz2jsb$kteuC8LvGRlFM4BnIPZadMxCsXxEsLRKGfMNrfJ0WQ3", "", "$5$", false},
	{"doveadm ARGON2ID", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$/sHFe7h0JWgznrqO9MfCSQ$bulb9Gm+OS8eyeVyAsVaeEs+nrhi4sfSXPWvoiiZNm8", "", "$argon2id$", false},
	{"doveadm ARGON2I", "{argon2i}$argon2i$v=19$m=32768,t=4,p=1$jhCQiu2NlQCcG4QxfpFkCA$5FAHJ7zKkQT42yH0XEt1YuiTdsING9lLW6N7c8/XdCU", "", "$argon2i$", false},
	{"passlib ldap_pbkdf2_sha256", "{PBKDF2-SHA256}1000$d865t1bqvVeqtXaulVLKmQ$SAQbiBZYcQzM.c2SWaieZZph/s3jamArBXyVZ.XHTL4", "", "$pbkdf2-sha256$", false},
	{"without a scheme, as the default says", "Pz/nMkw+9qh3Q/OFghMgoCZr6y6QwQDa", "SSHA", "{SSHA}", false},
	{"of crypt(3), whatever the default says", "$2y$05$nBEToiQPHH/PHpMQtcSV/Of7lIet8SLx0LRHeotXzVljq2MSw8jw2", "PLAIN", "$2y$05$", false},
}

func TestAdopt(t *testing.T) {
	for _, tt := range foreign {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Adopt(tt.text, tt.scheme)
			if err != nil || !strings.HasPrefix(a.Stored, tt.stored) || a.Password != "" || a.Unsalted != tt.unsalted {
				t.Fatalf("Adopt = %+v, %v, want %s..., unsalted %v", a, err, tt.stored, tt.unsalted)
			}
			verifies(t, a.Stored, "secret")
		})
	}
	for _, tt := range []struct{ text, scheme string }{{"{PLAIN}secret", ""}, {"{clear}secret", ""}, {"{PLAIN.b64}c2VjcmV0", ""}, {"{CLEARTEXT.HEX}736563726574", ""}, {"secret", "plain"}} {
		if a, err := Adopt(tt.text, tt.scheme); err != nil || a != (Adopted{Password: "secret"}) {
			t.Errorf("Adopt(%q, %q) = %+v, %v, want the password", tt.text, tt.scheme, a, err)
		}
	}
}

// Every refusal says why, for a person, and shows nothing of the hash.
func TestAdoptRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, scheme, why string }{
		{"MD5-crypt", "{MD5-CRYPT}$1$a4Hpms8f$9AU.9Ptjbcx8rhOv18uih.", "", "MD5-crypt is broken"},
		{"MD5-crypt without a scheme", "$1$a4Hpms8f$9AU.9Ptjbcx8rhOv18uih.", "", "MD5-crypt is broken"},
		{"MD5-crypt in CRYPT", "{CRYPT}$1$a4Hpms8f$9AU.9Ptjbcx8rhOv18uih.", "", "MD5-crypt is broken"},
		{"SHA-1", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "", "SHA-1 without a salt"},
		{"DES", "{DES-CRYPT}gHPe4KdNWfhZM", "", "8 characters"},
		{"DES in CRYPT", "{CRYPT}gHPe4KdNWfhZM", "", "no hash of crypt(3) that is known"},
		{"yescrypt", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", "", "yescrypt"},
		{"SCRAM", "{SCRAM-SHA-256}4096,LT5pxKBi8RMm9H2ZMpTCog==,Q,c", "", "SCRAM"},
		{"phpass", "$P$984478476IagS59wHZvyQMArzfx58u.", "", "phpass"},
		{"unknown scheme", "{ROT13}frperg", "", "{ROT13} is not a scheme"},
		{"unknown scheme with an escape", "{\x1b[2J}x", "", "{?} is not a scheme"},
		{"no scheme", "5ebe2294ecd0e0f08eab7690d2a6ee69", "", "it has no scheme"},
		{"empty", "", "CRYPT", "there is no password"},
		{"empty behind a scheme", "{SSHA}", "", "there is no password"},
		{"cut", "{SSHA256}LPfA5pRkS4yV8", "", "malformed"},
		{"bcrypt, cost too high", "{BLF-CRYPT}$2y$15$nBEToiQPHH/PHpMQtcSV/Of7lIet8SLx0LRHeotXzVljq2MSw8jw2", "", "cost is above 14"},
		{"PBKDF2, too many rounds", "{PBKDF2}$1$salt$2000001$6b770bab21c8f864f939a65aaf0303f933668028", "", "rounds are above"},
		{"PBKDF2, no rounds", "{PBKDF2}$1$salt$0$6b770bab21c8f864f939a65aaf0303f933668028", "", "malformed rounds"},
		{"PBKDF2, short", "{PBKDF2}$1$salt$1000$6b77", "", "malformed"},
		{"passlib, unknown digest", "$pbkdf2-md5$1000$c2FsdA$AAAA", "", "unknown digest"},
		{"bad hex", "{SSHA.HEX}zz", "", "malformed"},
		{"unknown encoding", "{PLAIN.ROT13}x", "", "unknown encoding"},
		{"Argon2, too much memory", "$argon2id$v=19$m=4194304,t=3,p=1$/sHFe7h0JWgznrqO9MfCSQ$bulb9Gm+OS8eyeVyAsVaeEs+nrhi4sfSXPWvoiiZNm8", "", "m is above"},
		{"too long", "{SSHA512}" + strings.Repeat("A", 600), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Adopt(tt.text, tt.scheme)
			if err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("Adopt = %+v, %v, want an error with %q", a, err, tt.why)
			}
			if _, rest, _ := strings.Cut(tt.text, "}"); len(rest) > 8 && strings.Contains(err.Error(), rest) {
				t.Errorf("the error quotes the hash: %v", err)
			}
		})
	}
}

// Made by passlib.
func TestVerifyPBKDF2(t *testing.T) {
	for _, stored := range []string{
		"$pbkdf2-sha512$1000$MWZMqfU.59xbqxUihHCulQ$2/YI8B0BaJDzPXqneoCcNeLBZkt.Td4QFDg9kzTrfhM7UKq91Rsh2s.EvZUJ/Tj5P8a9Z1uE81KeEL9fJElPXg",
		"$pbkdf2$1000$KgXAWItRKiXk3FtLKeW89w$lbMgC1wYzUuwatgKYWjpIXQNtrw",
		"$pbkdf2-sha256$1000$d865t1bqvVeqtXaulVLKmQ$SAQbiBZYcQzM.c2SWaieZZph/s3jamArBXyVZ.XHTL4",
	} {
		verifies(t, stored, "secret")
	}
	verifies(t, "{PBKDF2}$1$s641OzgW21g4BMat$5000$6b770bab21c8f864f939a65aaf0303f933668028", "secret")
	for _, stored := range []string{
		"$pbkdf2-sha256$1000$d865t1bqvVeqtXaulVLKmQ$SAQbiBZYcQzM+c2SWaieZZph/s3jamArBXyVZ.XHTL4", // a plus
		"$pbkdf2-sha256$01000$d865t1bqvVeqtXaulVLKmQ$SAQbiBZYcQzM.c2SWaieZZph/s3jamArBXyVZ.XHTL4",
		"$pbkdf2-sha256$1000$d865t1bqvVeqtXaulVLKmQ$SAQbiBZYcQ",
		"$pbkdf2-sha256$1000$d865t1bqvVeqtXaulVLKmQ",
	} {
		if _, err := Verify(stored, "password"); !errors.Is(err, ErrBadHash) {
			t.Errorf("Verify(%q) = %v, want ErrBadHash", stored, err)
		}
	}
}

func TestReplaceable(t *testing.T) {
	long := strings.Repeat("x", 73)
	bcrypt := "$2y$05$nBEToiQPHH/PHpMQtcSV/Of7lIet8SLx0LRHeotXzVljq2MSw8jw2"
	for _, tt := range []struct {
		name, stored, password string
		want                   bool
	}{
		{"ours", Hash("secret"), "secret", false},
		{"stronger Argon2id", "$argon2id$v=19$m=65536,t=3,p=1$/sHFe7h0JWgznrqO9MfCSQ$bulb9Gm+OS8eyeVyAsVaeEs+nrhi4sfSXPWvoiiZNm8", "secret", false},
		{"weaker Argon2id", "$argon2id$v=19$m=4096,t=3,p=1$/sHFe7h0JWgznrqO9MfCSQ$bulb9Gm+OS8eyeVyAsVaeEs+nrhi4sfSXPWvoiiZNm8", "secret", true},
		{"Argon2i", "$argon2i$v=19$m=32768,t=4,p=1$jhCQiu2NlQCcG4QxfpFkCA$5FAHJ7zKkQT42yH0XEt1YuiTdsING9lLW6N7c8/XdCU", "secret", true},
		{"bcrypt", bcrypt, "secret", true},
		{"bcrypt of 72 bytes", bcrypt, long[:72], true},
		{"bcrypt of more than it looks at", bcrypt, long, false},
		{"bcrypt in CRYPT of more", "{CRYPT}" + bcrypt, long, false},
		{"the same in small letters", "{crypt}" + bcrypt, long, false},
		{"SSHA", "{SSHA}Pz/nMkw+9qh3Q/OFghMgoCZr6y6QwQDa", long, true},
	} {
		if got := Replaceable(tt.stored, tt.password); got != tt.want {
			t.Errorf("%s: Replaceable = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// What is taken over can be read, and what can be read is what is stored: Adopt of it is itself.
func FuzzAdopt(f *testing.F) {
	for _, tt := range foreign {
		f.Add(tt.text, tt.scheme)
	}
	f.Add("$1$a4Hpms8f$9AU.9Ptjbcx8rhOv18uih.", "CRYPT")
	f.Add("{PLAIN.b64}c2VjcmV0", "")
	f.Fuzz(func(t *testing.T, text, scheme string) {
		a, err := Adopt(text, scheme)
		if err != nil {
			if len(text) > 12 && strings.Contains(err.Error(), text) {
				t.Errorf("the error quotes the text: %v", err)
			}
			return
		}
		if (a.Stored == "") == (a.Password == "") {
			t.Fatalf("Adopt(%q, %q) = %+v: neither or both", text, scheme, a)
		}
		if a.Stored == "" {
			return
		}
		if err := Check(a.Stored); err != nil {
			t.Errorf("Adopt(%q, %q) = %q, which Check refuses: %v", text, scheme, a.Stored, err)
		}
		if again, err := Adopt(a.Stored, ""); err != nil || again.Stored != a.Stored {
			t.Errorf("Adopt of what is stored, %q, = %q, %v", a.Stored, again.Stored, err)
		}
	})
}
