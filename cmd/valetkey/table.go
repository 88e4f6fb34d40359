package main

import (
	"bytes"
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
// without is a list of names and values, which are worth more whole: those that do not fit go on below themselves.
type table struct {
	out   io.Writer
	limit int // columns of the terminal; 0: no limit
	lines int // the same of a list, whose values may take several lines
	rows  [][]string
	width []int // natural ones, of everything so far: columns of a later page may be wider, never narrower
	text  bytes.Buffer
}

func (a *app) table(header ...string) *table {
	t := &table{out: a.out, lines: a.width}
	if len(header) > 0 {
		t.limit, t.lines = a.width, 0
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
	t.text.Reset()
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
		indent := ""
		if len(r) > 1 {
			indent = strings.Repeat(" ", columns[0]+2)
		}
		for _, l := range wrap(s, indent, t.lines) {
			t.text.WriteString(l + "\n")
		}
	}
	clear(t.rows)
	t.rows = t.rows[:0]
	_, err := t.out.Write(t.text.Bytes())
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

// narrow reports whether the terminal is too small for tables of many columns.
func (a *app) narrow() bool { return a.width > 0 && a.width < narrowTerminal }

// narrowTerminal is where not all columns have room to say anything.
const narrowTerminal = 90

// say writes a text without control characters, on a terminal in lines that fit it: those after the first begin with the indent.
func (a *app) say(indent, text string) error {
	_, err := io.WriteString(a.out, strings.Join(wrap(visible(text), indent, a.width), "\n")+"\n")
	return err
}

// wrap breaks a text at its spaces into lines of at most limit columns; 0: it is one line. A word that is longer is broken where it must be.
func wrap(text, indent string, limit int) []string {
	if limit <= 0 || displayWidth(text) <= limit {
		return []string{text}
	}
	if len(indent) > limit/2 {
		indent = ""
	}
	var lines []string
	line, used, begin := "", 0, true
	end := func() {
		lines = append(lines, strings.TrimRight(line, " "))
		line, used, begin = indent, len(indent), true
	}
	for _, word := range strings.SplitAfter(text, " ") {
		bare := strings.TrimRight(word, " ")
		if !begin && used+displayWidth(bare) > limit {
			end()
		}
		for _, r := range word {
			w := runeWidth(r)
			if used+w > limit {
				if r == ' ' {
					continue
				}
				end()
			}
			line += string(r)
			used += w
		}
		begin = false
	}
	return append(lines, strings.TrimRight(line, " "))
}

// reflow breaks the paragraphs of a text anew, for lines of at most limit columns. What begins with a space stays as it is: a list.
func reflow(text string, limit int) string {
	var out []string
	for _, paragraph := range strings.Split(text, "\n\n") {
		var lines []string
		joined := ""
		flush := func() {
			if joined != "" {
				lines = append(lines, wrap(joined, "", limit)...)
			}
			joined = ""
		}
		for _, line := range strings.Split(paragraph, "\n") {
			if strings.HasPrefix(line, " ") {
				flush()
				lines = append(lines, line)
				continue
			}
			joined = strings.TrimLeft(joined+" "+line, " ")
		}
		flush()
		out = append(out, strings.Join(lines, "\n"))
	}
	return strings.Join(out, "\n\n")
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

// visibleLines is [visible] of each line: errors that were joined have several.
func visibleLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = visible(lines[i])
	}
	return strings.Join(lines, "\n")
}

func day(t time.Time) string { return t.Local().Format("2006-01-02") }

func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
