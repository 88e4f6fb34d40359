package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Page is one of docs/peers. Its snippets are fenced blocks after a line `<!-- snippet: NAME -->`.
type Page struct {
	name, text string
}

// ReadPage reads docs/peers/NAME.md.
func ReadPage(t testing.TB, name string) *Page {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	name = filepath.Join("docs", "peers", name+".md")
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return &Page{name, string(b)}
}

// Snippet returns a snippet word for word but for the substitutions: pairs of what the page has, which must be there, and what
// takes its place on the test's machine.
func (p *Page) Snippet(t testing.TB, name string, substitutions ...string) string {
	t.Helper()
	_, rest, ok := strings.Cut(p.text, "\n<!-- snippet: "+name+" -->\n")
	if !ok {
		t.Fatalf("%s has no snippet %q", p.name, name)
	}
	opening, rest, _ := strings.Cut(rest, "\n")
	body, _, ok := strings.Cut(rest, "\n```\n")
	if !strings.HasPrefix(opening, "```") || !ok {
		t.Fatalf("%s: snippet %q is not a fenced block right after its marker", p.name, name)
	}
	body += "\n"
	for i := 0; i+1 < len(substitutions); i += 2 {
		if !strings.Contains(body, substitutions[i]) {
			t.Fatalf("%s: snippet %q has no %q to replace", p.name, name, substitutions[i])
		}
		body = strings.ReplaceAll(body, substitutions[i], substitutions[i+1])
	}
	return body
}

// WantOutcome fails the test unless a table of the page has a row for the outcome that shows this answer, in backquotes and
// to the character.
func (p *Page) WantOutcome(t testing.TB, outcome, answer string) {
	t.Helper()
	for line := range strings.Lines(p.text) {
		if strings.HasPrefix(line, "| "+outcome+" |") && strings.Contains(line, "`"+answer+"`") {
			return
		}
	}
	t.Errorf("%s has no row %q that shows `%s`", p.name, outcome, answer)
}
