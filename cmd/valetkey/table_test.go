package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/valetkey/valetkey/internal/admin"
)

func TestDisplayWidth(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "phone": 5, "Büro": 4, "Bu\u0308ro": 4, "東京": 4, "ｐ": 2, "📱": 2, "한": 2, "a\u200db": 2, "é": 1,
	} {
		if got := displayWidth(s); got != want {
			t.Errorf("displayWidth(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{
		{"phone", 5, "phone"}, {"phones", 5, "phon…"}, {"東京都", 6, "東京都"}, {"東京都", 5, "東京…"}, {"東京都", 4, "東…"},
		{"Bu\u0308ros", 4, "Bu\u0308r…"}, {"phone", 1, "…"},
	} {
		got := shorten(tt.in, tt.n)
		if got != tt.want || displayWidth(got) > tt.n {
			t.Errorf("shorten(%q, %d) = %q, want %q", tt.in, tt.n, got, tt.want)
		}
	}
}

func TestTableFits(t *testing.T) {
	long := strings.Repeat("東", 40)
	for _, limit := range []int{0, 200, 80, 60, 40, 10, 1} {
		var out bytes.Buffer
		a := &app{out: &out, width: limit}
		tab := a.table("LOGIN", "LABEL", "SERVICES")
		for range 2 { // the second page has what the first had not
			tab.row("alice@example.org", long, "imap")
			tab.row("bob", "x", "all")
			if err := tab.print(); err != nil {
				t.Fatal(err)
			}
			long += "東"
		}
		lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
		if len(lines) != 5 {
			t.Errorf("limit %d: %d lines, want 5", limit, len(lines))
		}
		for _, line := range lines {
			if w := displayWidth(line); limit > 0 && w > limit {
				t.Errorf("limit %d: line %q takes %d columns", limit, line, w)
			}
		}
		if whole := strings.Count(out.String(), "…") == 0; whole != (limit == 0 || limit == 200) {
			t.Errorf("limit %d: whole is %v:\n%s", limit, whole, out.String())
		}
	}
	// A list of names and values stays whole: it takes more lines.
	var out bytes.Buffer
	tab := (&app{out: &out, width: 10}).table()
	tab.row("label", long)
	tab.print()
	if !strings.Contains(strings.Join(strings.Fields(out.String()), ""), "label"+strings.ReplaceAll(long, " ", "")) {
		t.Errorf("table without a header = %q, want it whole", out.String())
	}
}

func TestNotFormula(t *testing.T) {
	for in, guarded := range map[string]bool{
		"phone": false, "": false, "2 - 1": false, "a=b": false, " phone": false, "'quoted": false,
		"=1+1": true, "+1": true, "-1": true, "@x": true, "\t=1": true, "\r=1": true, "\n": true, " =1": true, "＝1": true, "＠x": true, "－": true, "\u3000=1": true,
	} {
		want := in
		if guarded {
			want = "'" + in
		}
		if got := notFormula(in); got != want {
			t.Errorf("notFormula(%q) = %q, want %q", in, got, want)
		}
	}
}

// Whatever is in an answer, none of it tells the terminal to do something.
func FuzzTable(f *testing.F) {
	f.Add("phone", 60)
	f.Add("\x1b[2J\x07", 20)
	f.Add("a\u202eb\u2066\u200d\u009b\xff", 8)
	f.Fuzz(func(t *testing.T, s string, width int) {
		var out bytes.Buffer
		l := (&app{out: &out, width: min(max(width, 0), 500)}).tableListing(true)
		l.page([]admin.AppPassword{{Login: s, Label: s, Status: s, Services: []string{s}, LastUsed: &admin.Use{Service: s, Address: s}}})
		if i := strings.IndexFunc(strings.ReplaceAll(out.String(), "\n", ""), func(r rune) bool {
			return unicode.IsControl(r) || unicode.In(r, unicode.Cf) && r != '\u200c' && r != '\u200d' || r == unicode.ReplacementChar && !strings.ContainsRune(s, r)
		}); i >= 0 {
			t.Errorf("table of %q = %q, which has a control character", s, out.String())
		}
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("table of %q has %d lines, want 2", s, n)
		}
	})
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		limit      int
		want       []string
	}{
		{"no terminal", "one two three", 0, []string{"one two three"}},
		{"it fits", "one two", 7, []string{"one two"}},
		{"at a space", "one two three", 9, []string{"one two", "  three"}},
		{"a long word", "one abcdefghij k", 8, []string{"one", "  abcdef", "  ghij k"}},
		{"wide ones", "東京 都の 携帯", 9, []string{"東京 都の", "  携帯"}},
		{"columns are kept", "12:00  a=b  c=d", 12, []string{"12:00  a=b", "  c=d"}},
		{"hardly any room", "one two", 3, []string{"one", "two"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := wrap(tt.text, "  ", tt.limit)
			if !slices.Equal(got, tt.want) {
				t.Errorf("wrap(%q, %d) = %q, want %q", tt.text, tt.limit, got, tt.want)
			}
		})
	}
}

func TestReflow(t *testing.T) {
	text := "One sentence that is\nbroken already. Two.\n\nSources:\n  a list  of\n  words\nand on"
	want := "One sentence\nthat is broken\nalready. Two.\n\nSources:\n  a list  of\n  words\nand on"
	if got := reflow(text, 15); got != want {
		t.Errorf("reflow = %q, want %q", got, want)
	}
}
