package secret

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// chiSquare compares counts with a uniform distribution.
func chiSquare(counts []int) float64 {
	total := 0
	for _, n := range counts {
		total += n
	}
	expected := float64(total) / float64(len(counts))
	var sum float64
	for _, n := range counts {
		d := float64(n) - expected
		sum += d * d / expected
	}
	return sum
}

// A uniform source exceeds this bound once in about 10^12 runs. Taking a byte modulo 26 without rejection gives about 2,000
// over all positions together.
const chiSquareBound25 = 115 // 25 degrees of freedom

// And this one, ten standard deviations above the mean, far less often.
const chiSquareBound675 = 1045 // 675 degrees of freedom

func TestGenerateIsUniform(t *testing.T) {
	const draws = 100_000
	seen := make(map[string]bool, draws)
	var position [DefaultLength][26]int
	var all [26]int
	var pair [26 * 26]int
	for range draws {
		s := Generate(DefaultLength)
		if len(s) != DefaultLength {
			t.Fatalf("Generate(%d) has %d letters, want %d", DefaultLength, len(s), DefaultLength)
		}
		if seen[s] {
			t.Fatalf("Generate(%d) drew the same text twice in %d draws", DefaultLength, draws)
		}
		seen[s] = true
		for i := range len(s) {
			if s[i] < 'a' || s[i] > 'z' {
				t.Fatalf("Generate(%d) holds the byte %#x, want only a-z", DefaultLength, s[i])
			}
			position[i][s[i]-'a']++
			all[s[i]-'a']++
			if i > 0 {
				pair[int(s[i-1]-'a')*26+int(s[i]-'a')]++
			}
		}
	}
	for i := range position {
		if x := chiSquare(position[i][:]); x > chiSquareBound25 {
			t.Errorf("position %d: chi-square = %.1f, want at most %d; counts %v", i, x, chiSquareBound25, position[i])
		}
	}
	if x := chiSquare(all[:]); x > chiSquareBound25 {
		t.Errorf("all positions: chi-square = %.1f, want at most %d; counts %v", x, chiSquareBound25, all)
	}
	if x := chiSquare(pair[:]); x > chiSquareBound675 {
		t.Errorf("neighbours: chi-square = %.1f, want at most %d", x, chiSquareBound675)
	}
}

func TestGenerateLengths(t *testing.T) {
	for n := -1; n <= 40; n++ {
		want := n == 16 || n == 20 || n == 24
		if got := ValidLength(n); got != want {
			t.Errorf("ValidLength(%d) = %v, want %v", n, got, want)
		}
		got, panicked := generate(n)
		if panicked == want {
			t.Errorf("Generate(%d) panicked: %v, want %v", n, panicked, !want)
		}
		if want && len(got) != n {
			t.Errorf("Generate(%d) has %d letters, want %d", n, len(got), n)
		}
		if norm, ok := Normalise(got); want && (norm != got || !ok) {
			t.Errorf("Normalise(Generate(%d)) = %q, %v, want it unchanged", n, norm, ok)
		}
	}
}

func generate(n int) (s string, panicked bool) {
	defer func() { panicked = recover() != nil }()
	return Generate(n), false
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"abcdefghijklmnop", "abcd-efgh-ijkl-mnop"},
		{"abcdefghijklmnopqrst", "abcd-efgh-ijkl-mnop-qrst"},
		{"abcdefghijklmnopqrstuvwx", "abcd-efgh-ijkl-mnop-qrst-uvwx"},
		{"", ""},
		{"abcde", "abcd-e"},
	} {
		if got := Format(tt.in); got != tt.want {
			t.Errorf("Format(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	for _, n := range []int{16, 20, 24} {
		s := Generate(n)
		if got, ok := Normalise(Format(s)); got != s || !ok {
			t.Errorf("Normalise(Format(s)) = %q, %v for %d letters, want s itself", got, ok, n)
		}
	}
}

func TestNormalise(t *testing.T) {
	const a16, a20, a24 = "abcdefghijklmnop", "abcdefghijklmnopqrst", "abcdefghijklmnopqrstuvwx"
	between := func(s, sep string) string { return strings.Join(strings.Split(s, ""), sep) }
	for _, tt := range []struct {
		name string
		in   string
		want string // empty: refused
	}{
		{"bare 16", a16, a16},
		{"bare 20", a20, a20},
		{"bare 24", a24, a24},
		{"as shown", "abcd-efgh-ijkl-mnop", a16},
		{"groups by spaces", "abcd efgh ijkl mnop", a16},
		{"upper case", "ABCD-EFGH-IJKL-MNOP", a16},
		{"bare upper case", strings.ToUpper(a16), a16},
		{"a phone's first capital", "Abcdefghijklmnop", a16},
		{"last letter in upper case", "abcdefghijklmnoP", a16},
		{"space around", "  " + a16 + " ", a16},
		{"hyphens around", "--" + a16 + "-", a16},
		{"no-break space", "abcd\u00a0efgh\u00a0ijkl\u00a0mnop", a16},
		{"narrow no-break space", "abcd\u202fefgh\u202fijkl\u202fmnop", a16},
		{"hyphen U+2010", "abcd\u2010efgh\u2010ijkl\u2010mnop", a16},
		{"no-break hyphen", "abcd\u2011efgh\u2011ijkl\u2011mnop", a16},
		{"figure dash", "abcd\u2012efgh\u2012ijkl\u2012mnop", a16},
		{"en dash", "abcd\u2013efgh\u2013ijkl\u2013mnop", a16},
		{"a three-byte separator after each of 24 letters", between(a24, "\u2011") + "\u2011", a24},
		{"bare letters of length 24 with 72 spaces", a24 + strings.Repeat(" ", 72), a24},

		{"empty", "", ""},
		{"only separators", " - \u00a0- ", ""},
		{"15 letters", a16[:15], ""},
		{"17 letters", a16 + "q", ""},
		{"18 letters", a20[:18], ""},
		{"19 letters", a20[:19], ""},
		{"21 letters", a24[:21], ""},
		{"23 letters", a24[:23], ""},
		{"25 letters", a24 + "y", ""},
		{"32 letters", a16 + a16, ""},
		{"16 bytes, 15 letters and a space", a16[:15] + " ", ""},
		{"97 bytes", a24 + strings.Repeat(" ", 73), ""},
		{"a megabyte", strings.Repeat("a", 1<<20), ""},
		{"digit", "abcdefghijklmno1", ""},
		{"digit beside 16 letters", a16 + "1", ""},
		{"look-alike 0", "abcdefghijklmn0p", ""},
		{"underscore", "abcd_efgh_ijkl_mnop", ""},
		{"dot", "abcd.efgh.ijkl.mnop", ""},
		{"tab", "abcd\tefgh\tijkl\tmnop", ""},
		{"newline at the end", a16 + "\n", ""},
		{"NUL", a16 + "\x00", ""},
		{"DEL", a16 + "\x7f", ""},
		{"before a", "`bcdefghijklmnop", ""},
		{"after z", "{bcdefghijklmnop", ""},
		{"before A", "@BCDEFGHIJKLMNOP", ""},
		{"after Z", "[BCDEFGHIJKLMNOP", ""},
		{"accent", "\u00e1bcdefghijklmno", ""},
		{"full width", "\uff41bcdefghijklmnop", ""},
		{"Kelvin sign, whose lower case is k", "abcdefghij\u212almnop", ""},
		{"dotless i", "abcdefgh\u0131jklmnop", ""},
		{"Cyrillic a", "\u0430bcdefghijklmnop", ""},
		{"invalid UTF-8", a16 + "\xff", ""},
		{"cut rune", a16 + "\xe2\x80", ""},
		{"overlong space", a16 + "\xc0\xa0", ""},
		{"surrogate", a16 + "\xed\xa0\x80", ""},
		{"the main password", "correct horse battery staple", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Normalise(tt.in)
			if got != tt.want || ok != (tt.want != "") {
				t.Errorf("Normalise(%.100q) = %q, %v, want %q, %v", tt.in, got, ok, tt.want, tt.want != "")
			}
			if !ok {
				return
			}
			if again, ok := Normalise(got); again != got || !ok {
				t.Errorf("Normalise(Normalise(%q)) = %q, %v, want %q", tt.in, again, ok, got)
			}
		})
	}
}

// flipCase changes the case of every ASCII letter and leaves all other bytes alone.
func flipCase(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

var separators = []string{" ", "-", "\u00a0", "\u202f", "\u2010", "\u2011", "\u2012", "\u2013"}

// scatter puts separators between the characters of s.
func scatter(s string, seed uint64) string {
	rnd := rand.New(rand.NewPCG(seed, seed))
	var b strings.Builder
	for i := 0; i < len(s); {
		for rnd.IntN(3) == 0 {
			b.WriteString(separators[rnd.IntN(len(separators))])
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		b.WriteString(s[i : i+size])
		i += size
	}
	return b.String()
}

func FuzzNormalise(f *testing.F) {
	f.Fuzz(func(t *testing.T, typed string, seed uint64) {
		got, ok := Normalise(typed)
		if !ok && got != "" {
			t.Errorf("Normalise(%q) = %q, false, want an empty text", typed, got)
		}
		if ok {
			if !ValidLength(len(got)) || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz") != "" {
				t.Errorf("Normalise(%q) = %q, want 16, 20 or 24 letters a-z", typed, got)
			}
			for _, s := range []string{got, Format(got), strings.ToUpper(got)} {
				if again, ok := Normalise(s); again != got || !ok {
					t.Errorf("Normalise(%q) = %q, %v, want %q", s, again, ok, got)
				}
			}
		}
		if flipped, flippedOK := Normalise(flipCase(typed)); flipped != got || flippedOK != ok {
			t.Errorf("Normalise(%q) = %q, %v, want what %q gives: %q, %v", flipCase(typed), flipped, flippedOK, typed, got, ok)
		}
		if s := scatter(typed, seed); len(s) <= maxTyped {
			if scattered, scatteredOK := Normalise(s); scattered != got || scatteredOK != ok {
				t.Errorf("Normalise(%q) = %q, %v, want what %q gives: %q, %v", s, scattered, scatteredOK, typed, got, ok)
			}
		} else if _, ok := Normalise(s); ok {
			t.Errorf("Normalise of %d bytes is accepted, want it refused above %d", len(s), maxTyped)
		}
	})
}

func BenchmarkNormalise(b *testing.B) {
	for _, s := range []string{"abcdefghijklmnop", "abcd-efgh-ijkl-mnop"} {
		b.Run(fmt.Sprintf("%d bytes", len(s)), func(b *testing.B) {
			for b.Loop() {
				Normalise(s)
			}
		})
	}
}
