package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/docs"
)

// Page is one of docs/peers. Its snippets are fenced blocks after a line `<!-- snippet: NAME -->`.
type Page struct {
	name string
	docs.Page
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
	file := filepath.Join("docs", "peers", name+".md")
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	page, err := docs.Parse(name, string(b))
	if err != nil {
		t.Fatal(err)
	}
	return &Page{file, page}
}

// Snippet returns a snippet word for word but for the substitutions: pairs of what the page has, which must be there, and what
// takes its place on the test's machine.
func (p *Page) Snippet(t testing.TB, name string, substitutions ...string) string {
	t.Helper()
	s, ok := p.Page.Snippet(name)
	if !ok {
		t.Fatalf("%s has no snippet %q", p.name, name)
	}
	body := s.Text
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
	for line := range strings.Lines(p.Text) {
		if strings.HasPrefix(line, "| "+outcome+" |") && strings.Contains(line, "`"+answer+"`") {
			return
		}
	}
	t.Errorf("%s has no row %q that shows `%s`", p.name, outcome, answer)
}
