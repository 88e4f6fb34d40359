package main

import (
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/text/width"
)

// table prints columns that are as wide as their widest cell, two spaces apart. One with a header is shortened to fit the terminal; one
// without is a list of names and values, which are worth more whole.
type table struct {
	out   io.Writer
	limit int // columns of the terminal; 0: no limit
	rows  [][]string
	width []int // natural ones, of everything so far
}

func (a *app) table(header ...string) *table {
	t := &table{out: a.out}
	if len(header) > 0 {
		t.limit = a.width
		t.rows = append(t.rows, header)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = visible(c)
	}
	t.rows = append(t.rows, cells)
}

// print writes the rows so far and forgets them. More may follow.
func (t *table) print() error {
	for _, r := range t.rows {
		for i, c := range r {
			if i == len(t.width) {
				t.width = append(t.width, 0)
			}
			t.width[i] = max(t.width[i], displayWidth(c))
		}
	}
	columns := fit(t.width, t.limit)
	var text strings.Builder
	for _, r := range t.rows {
		var line strings.Builder
		for i, c := range r {
			if i > 0 {
				line.WriteString("  ")
			}
			c = shorten(c, columns[i])
			line.WriteString(c)
			line.WriteString(strings.Repeat(" ", columns[i]-displayWidth(c)))
		}
		s := strings.TrimRight(line.String(), " ")
		if t.limit > 0 {
			s = shorten(s, t.limit)
		}
		text.WriteString(s + "\n")
	}
	t.rows = nil
	_, err := io.WriteString(t.out, text.String())
	return err
}

// leastWidth is what a column keeps, if it can: what is shorter says nothing.
const leastWidth = 6

// fit takes from the widest columns until all fit into limit columns of a terminal, which 0 has without end.
func fit(natural []int, limit int) []int {
	width := slices.Clone(natural)
	if limit <= 0 || len(width) == 0 {
		return width
	}
	room := limit - 2*(len(width)-1)
	for sum(width) > room {
		widest := 0
		for i, w := range width {
			if w > width[widest] {
				widest = i
			}
		}
		if width[widest] <= leastWidth {
			return width // the line is cut instead
		}
		width[widest]--
	}
	return width
}

func sum(list []int) (n int) {
	for _, x := range list {
		n += x
	}
	return n
}

// displayWidth is how many columns of a terminal s takes: two for a wide character (UAX 11), none for a mark on the one before.
func displayWidth(s string) (n int) {
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300: // nearly always
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// shorten cuts s to n columns and marks the cut.
func shorten(s string, n int) string {
	if displayWidth(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		w := runeWidth(r)
		if used+w > n-1 {
			return s[:i] + "…"
		}
		used += w
	}
	return s
}

// terminalWidth is that of a terminal, or what COLUMNS says instead; 0 if neither is known.
func terminalWidth(f *os.File) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
		return int(w.Col)
	}
	return 0
}

// visible is s as it is if a terminal shows it without being told to do something, and quoted otherwise. The joiners that labels may have
// are as good as printed.
func visible(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\u200c' && r != '\u200d' }) || !utf8.ValidString(s) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

func day(t time.Time) string { return t.Local().Format("2006-01-02") }

func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
