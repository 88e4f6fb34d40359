package auth

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// The short path for ASCII must give what the profile gives, for every ASCII string.
func TestNormaliseLoginASCII(t *testing.T) {
	check := func(name string) {
		t.Helper()
		want, wantErr := precis.UsernameCaseMapped.String(name)
		got, err := NormaliseLogin(name)
		if (err == nil) != (wantErr == nil) || err == nil && got != want {
			t.Errorf("NormaliseLogin(%q) = %q, %v, want as PRECIS: %q, %v", name, got, err, want, wantErr)
		}
		if err != nil && (got != "" || !errors.Is(err, ErrBadLogin)) {
			t.Errorf("NormaliseLogin(%q) = %q, %v, want empty and ErrBadLogin", name, got, err)
		}
	}
	for a := range 128 {
		check(string([]byte{byte(a)}))
		for b := range 128 {
			check(string([]byte{byte(a), byte(b)}))
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		name := make([]byte, 3+rnd.IntN(40))
		for i := range name {
			name[i] = byte(0x21 + rnd.IntN(0x5e))
		}
		if rnd.IntN(4) == 0 { // sometimes one that is not allowed
			name[rnd.IntN(len(name))] = byte(rnd.IntN(128))
		}
		check(string(name))
	}
}

func TestNormaliseLogin(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   string
		want string // empty: refused
	}{
		{"plain", "alice", "alice"},
		{"address", "Alice@Example.ORG", "alice@example.org"},
		{"all the ASCII punctuation", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"},
		{"digits only", "0815", "0815"},
		{"upper-case non-ASCII", "ÉLODIE", "élodie"},
		{"decomposed becomes composed", "e\u0301lodie", "\u00e9lodie"},
		{"composed stays", "\u00e9lodie", "\u00e9lodie"},
		{"full width becomes ASCII", "\uff21\uff4c\uff49ce", "alice"},
		{"half-width katakana", "\uff76\uff9e", "\u30ac"},
		{"Kelvin sign", "\u212a", "k"},
		{"Turkish capital I with dot: not the ASCII i", "\u0130", "i\u0307"},
		{"Turkish dotless i stays apart", "\u0131", "\u0131"},
		{"sharp s is not ss", "stra\u00dfe", "stra\u00dfe"},
		{"capital sharp s", "STRA\u1e9eE", "stra\u00dfe"},
		{"final sigma and sigma are different", "\u03c3\u03c2", "\u03c3\u03c2"},
		{"capital sigma at the end", "\u0391\u03a3", "\u03b1\u03c3"},
		{"Hebrew", "\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd"},
		{"512 bytes", strings.Repeat("a", MaxLogin), strings.Repeat("a", MaxLogin)},

		{"empty", "", ""},
		{"513 bytes", strings.Repeat("a", MaxLogin+1), ""},
		{"513 bytes of non-ASCII", strings.Repeat("é", MaxLogin/2) + "a", ""},
		{"64 KiB", strings.Repeat("é", 32<<10), ""},
		{"512 bytes that lower case makes longer", strings.Repeat("\u023a", MaxLogin/2), ""}, // 2 bytes become 3
		{"NUL", "alice\x00", ""},
		{"NUL alone", "\x00", ""},
		{"newline", "alice\nbob", ""},
		{"tab", "alice\tbob", ""},
		{"escape", "\x1b[2J", ""},
		{"DEL", "alice\x7f", ""},
		{"C1 control", "alice\u0085", ""},
		{"space", "alice bob", ""},
		{"space before", " alice", ""},
		{"space after", "alice ", ""},
		{"no-break space", "alice\u00a0bob", ""},
		{"ideographic space", "alice\u3000bob", ""},
		{"line separator", "alice\u2028bob", ""},
		{"zero-width space", "alice\u200bbob", ""},
		{"zero-width joiner", "ali\u200dce", ""},
		{"soft hyphen", "ali\u00adce", ""},
		{"byte order mark", "\ufeffalice", ""},
		{"right-to-left override", "alice\u202etxt", ""},
		{"mixed directions", "\u05e9\u05dc\u05d5\u05dda", ""},
		{"combining mark first", "\u0301alice", ""},
		{"invalid UTF-8", "alice\xff", ""},
		{"cut rune", "alice\xc3", ""},
		{"overlong", "alice\xc0\xaf", ""},
		{"surrogate", "alice\xed\xa0\x80", ""},
		{"ligature fi", "\ufb01", ""},
		{"emoji", "alice\U0001f511", ""},
		{"private use", "alice\ue000", ""},
		{"unassigned", "alice\U000e0080", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := NormaliseLogin(tt.in)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Fatalf("NormaliseLogin(%.60q) = %.60q, %v, want %.60q", tt.in, got, err, tt.want)
			}
			if err != nil {
				if !errors.Is(err, ErrBadLogin) {
					t.Errorf("NormaliseLogin(%.60q) = %v, which does not wrap ErrBadLogin", tt.in, err)
				}
				if len(err.Error()) > 200 {
					t.Errorf("NormaliseLogin(%.60q): the error has %d bytes, want at most 200", tt.in, len(err.Error()))
				}
				return
			}
			if again, err := NormaliseLogin(got); again != got || err != nil {
				t.Errorf("NormaliseLogin(%.60q) = %.60q, %v, want it unchanged", got, again, err)
			}
		})
	}
}

func TestNormaliseLoginConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				for _, in := range []string{"ÉLODIE", "e\u0301LODIE", "\uff25\u0301lodie"} {
					if got, err := NormaliseLogin(in); got != "élodie" || err != nil {
						t.Errorf("NormaliseLogin(%q) = %q, %v, want élodie", in, got, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func FuzzNormaliseLogin(f *testing.F) {
	f.Fuzz(func(t *testing.T, name string) {
		got, err := NormaliseLogin(name)
		if err != nil {
			if got != "" || !errors.Is(err, ErrBadLogin) {
				t.Errorf("NormaliseLogin(%q) = %q, %v, want empty and ErrBadLogin", name, got, err)
			}
			return
		}
		if got == "" || len(got) > MaxLogin || !utf8.ValidString(got) || !norm.NFC.IsNormalString(got) {
			t.Errorf("NormaliseLogin(%q) = %q, want 1 to %d bytes of UTF-8 in NFC", name, got, MaxLogin)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return r <= ' ' || r == 0x7f || 0x80 <= r && r < 0xa1 || r == 0x2028 || r == 0x2029 }); i >= 0 {
			t.Errorf("NormaliseLogin(%q) = %q, which holds a control or a space", name, got)
		}
		if again, err := NormaliseLogin(got); again != got || err != nil {
			t.Errorf("NormaliseLogin(%q) = %q; again = %q, %v, want it unchanged", name, got, again, err)
		}
		if want, err := precis.UsernameCaseMapped.String(name); got != want || err != nil {
			t.Errorf("NormaliseLogin(%q) = %q, want as PRECIS: %q, %v", name, got, want, err)
		}
	})
}

func TestCheckLabel(t *testing.T) {
	for _, tt := range []struct {
		name       string
		in         string
		shown, key string // empty: refused
	}{
		{"plain", "Phone", "Phone", "phone"},
		{"space around", "  Old phone\t\n", "Old phone", "old phone"},
		{"space inside is folded in the key only", "Old   phone", "Old   phone", "old phone"},
		{"no-break space", "Old\u00a0phone", "Old\u00a0phone", "old phone"},
		{"decomposed", "Te\u0301le\u0301phone", "T\u00e9l\u00e9phone", "t\u00e9l\u00e9phone"},
		{"full width", "\uff30hone", "\uff30hone", "phone"},
		{"emoji", "\U0001f4f1", "\U0001f4f1", "\U0001f4f1"},
		{"punctuation", `"; DROP TABLE--`, `"; DROP TABLE--`, `"; drop table--`},
		{"64 characters", strings.Repeat("é", MaxLabel), strings.Repeat("é", MaxLabel), strings.Repeat("é", MaxLabel)},
		{"64 characters after composition", strings.Repeat("e\u0301", MaxLabel), strings.Repeat("é", MaxLabel), strings.Repeat("é", MaxLabel)},

		{"emoji with a selector", "\u2764\ufe0f Mail", "\u2764\ufe0f Mail", "\u2764 mail"},
		{"joined emoji", "\U0001f469\U0001f3fd\u200d\U0001f4bb", "\U0001f469\U0001f3fd\u200d\U0001f4bb", "\U0001f469\U0001f3fd\U0001f4bb"},
		{"flag of four", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\U0001f308"},
		{"keycap", "1\ufe0f\u20e3", "1\ufe0f\u20e3", "1\u20e3"},
		{"joiner of a script", "\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"},
		{"non-joiner of a script", "\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"},
		{"right to left", "\u05d8\u05dc\u05e4\u05d5\u05df", "\u05d8\u05dc\u05e4\u05d5\u05df", "\u05d8\u05dc\u05e4\u05d5\u05df"},

		{"empty", "", "", ""},
		{"only space", " \t\u00a0\u3000 ", "", ""},
		{"65 characters", strings.Repeat("a", MaxLabel+1), "", ""},
		{"a megabyte", strings.Repeat("e\u0301", 1<<19), "", ""},
		{"newline inside", "Old\nphone", "", ""},
		{"tab inside", "Old\tphone", "", ""},
		{"NUL", "Phone\x00", "", ""},
		{"escape", "\x1b[31mPhone", "", ""},
		{"DEL", "Phone\x7f", "", ""},
		{"C1 control inside", "Old\u009bphone", "", ""},
		{"right-to-left override", "Phone\u202eenohP", "", ""},
		{"left-to-right isolate", "Phone\u2066x\u2069", "", ""},
		{"first strong isolate", "Phone\u2068", "", ""},
		{"left-to-right mark", "Phone\u200e", "", ""},
		{"Arabic letter mark", "Ph\u061cone", "", ""},
		{"byte order mark", "Ph\ufeffone", "", ""},
		{"soft hyphen", "Ph\u00adone", "", ""},
		{"tag character", "Phone\U000e0041", "", ""},
		{"joiner without symbols", "Pho\u200dne", "", ""},
		{"joiner at the end", "\U0001f469\u200d", "", ""},
		{"only a selector", "\ufe0f", "", ""},
		{"private use", "Ph\ue000one", "", ""},
		{"zero-width space", "Pho\u200bne", "", ""},
		{"line separator", "Old\u2028phone", "", ""},
		{"invalid UTF-8", "Phone\xff", "", ""},
		{"invalid UTF-8 only", "\xff", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shown, key, err := CheckLabel(tt.in)
			if shown != tt.shown || key != tt.key || (err == nil) != (tt.key != "") {
				t.Fatalf("CheckLabel(%.60q) = %.60q, %.60q, %v, want %.60q, %.60q", tt.in, shown, key, err, tt.shown, tt.key)
			}
			if err != nil && (!errors.Is(err, ErrBadLabel) || len(err.Error()) > 200) {
				t.Errorf("CheckLabel(%.60q) = %.300v, want a short error that wraps ErrBadLabel", tt.in, err)
			}
		})
	}
}

// flipCase changes the case of every ASCII letter.
func flipCase(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

func FuzzLabel(f *testing.F) {
	f.Fuzz(func(t *testing.T, label string) {
		shown, key, err := CheckLabel(label)
		if err != nil {
			if shown != "" || key != "" || !errors.Is(err, ErrBadLabel) {
				t.Errorf("CheckLabel(%q) = %q, %q, %v, want empty and ErrBadLabel", label, shown, key, err)
			}
			return
		}
		if key == "" || !utf8.ValidString(shown) || utf8.RuneCountInString(shown) > MaxLabel || strings.ContainsAny(shown+key, "\x00\r\n\t\x1b\x7f") {
			t.Errorf("CheckLabel(%q) = %q, %q, want 1 to %d characters without controls", label, shown, key, MaxLabel)
		}
		for _, r := range shown + key {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && r != '\u200c' && r != '\u200d' || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
				t.Errorf("CheckLabel(%q) = %q, %q, which has the character %U", label, shown, key, r)
			}
		}
		if shown2, key2, err := CheckLabel(shown); shown2 != shown || key2 != key || err != nil {
			t.Errorf("CheckLabel(%q) = %q, %q, %v, want %q, %q", shown, shown2, key2, err, shown, key)
		}
		if utf8.RuneCountInString(key) <= MaxLabel { // compatibility mappings may lengthen it
			if _, key2, err := CheckLabel(key); key2 != key || err != nil {
				t.Errorf("CheckLabel(%q) has the key %q; the key of that is %q, %v, want the same", label, key, key2, err)
			}
		}
		if _, key2, err := CheckLabel(flipCase(label)); key2 != key || err != nil {
			t.Errorf("CheckLabel(%q) has the key %q, want %q as for %q; %v", flipCase(label), key2, key, label, err)
		}
		if _, key2, err := CheckLabel(" " + label + "  "); key2 != key || err != nil {
			t.Errorf("CheckLabel(%q with space around) has the key %q, want %q; %v", label, key2, key, err)
		}
	})
}

func TestNormaliseService(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string // empty: refused
	}{
		{"imap", "imap"},
		{"IMAP", "imap"},
		{"Wiki_2.test-a", "wiki_2.test-a"},
		{"0", "0"},
		{".", "."},
		{strings.Repeat("s", MaxService), strings.Repeat("s", MaxService)},
		{"", ""},
		{strings.Repeat("s", MaxService+1), ""},
		{"im ap", ""},
		{"imap\n", ""},
		{"imap\x00", ""},
		{"im/ap", ""},
		{"imap@x", ""},
		{"\u00efmap", ""},
		{"imap\xff", ""},
		{"\u212a", ""}, // Kelvin sign
		{"/", ""}, {":", ""}, {"[", ""}, {"`", ""}, {"{", ""},
	} {
		got, err := NormaliseService(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("NormaliseService(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, ErrBadService) {
			t.Errorf("NormaliseService(%q) = %v, which does not wrap ErrBadService", tt.in, err)
		}
	}
}
