package probes_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var page = filepath.Join("..", "..", "docs", "ldap-divergences.md")

// divergence is a row of the page.
type divergence struct{ slapd, ours string }

// trimmed leaves out who is bound in the end where that is the same.
func (d divergence) trimmed() divergence {
	const end = ", still "
	i, j := strings.LastIndex(d.slapd, end), strings.LastIndex(d.ours, end)
	if i > 0 && j > 0 && d.slapd != d.ours && d.slapd[i:] == d.ours[j:] {
		return divergence{d.slapd[:i], d.ours[:j]}
	}
	return d
}

// readPage reads the rows. Every table stands below a heading, and between the two it must name the section of a standard.
func readPage(t *testing.T) map[string]divergence {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]divergence{}
	section, reason := "", ""
	standard := regexp.MustCompile(`RFC \d{4}(,)? (section|appendix) \w`)
	row := regexp.MustCompile("^\\| ([^|`]+) \\| `([^`]+)` \\| `([^`]+)` \\|$")
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "## "):
			section, reason = line, ""
		case strings.HasPrefix(line, "| probe |"), strings.HasPrefix(line, "|---"):
		case strings.HasPrefix(line, "|"):
			m := row.FindStringSubmatch(line)
			if m == nil {
				t.Errorf("%s: not a row of three cells, the answers in backquotes: %s", page, line)
				continue
			}
			if !standard.MatchString(reason) {
				t.Errorf("%s: %q names no section of an RFC before its table", page, section)
				reason = "RFC 0000 section 0" // said once
			}
			if _, twice := rows[m[1]]; twice {
				t.Errorf("%s has two rows for %q", page, m[1])
			}
			rows[m[1]] = divergence{m[2], m[3]}
		default:
			reason += line + " "
		}
	}
	return rows
}

// TestProbes compares the answers of both, and the page with them.
//
// It would catch: an answer that changed without anybody's meaning it, a page that says what is no longer so, a corner of the protocol
// in which we answer otherwise than what clients were written against.
func TestProbes(t *testing.T) {
	t.Parallel()
	slapd, ours := startServers(t)
	rows := readPage(t)
	table := probes(slapd.passwords)
	got := map[string]divergence{}
	for _, part := range slices.Sorted(maps.Keys(table)) {
		for _, x := range table[part] {
			if _, twice := got[x.name]; twice {
				t.Errorf("two probes are called %q", x.name)
			}
			theirs, err := slapd.ask(&x)
			if err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
			mine, err := ours.ask(&x)
			if err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
			got[x.name] = divergence{theirs, mine}.trimmed()
		}
	}
	different := 0
	for _, name := range slices.Sorted(maps.Keys(got)) {
		x, onPage := got[name], divergence{}
		if x.slapd != x.ours {
			different++
		}
		switch row, found := rows[name]; {
		case !found && x.slapd == x.ours:
			continue
		case !found:
			t.Errorf("no row on %s, and the answers differ; if it is meant:\n| %s | `%s` | `%s` |", page, name, x.slapd, x.ours)
			continue
		case x.slapd == x.ours:
			t.Errorf("%s has a row %q, and both answer `%s`", page, name, x.ours)
			continue
		default:
			onPage = row
		}
		if onPage != x {
			t.Errorf("%s, row %q is not what they answer:\n| %s | `%s` | `%s` |", page, name, name, x.slapd, x.ours)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		if _, found := got[name]; !found {
			t.Errorf("%s has a row %q, of which there is no probe", page, name)
		}
	}
	t.Log(fmt.Sprintf("%d probes, %d answers differ", len(got), different))
}
