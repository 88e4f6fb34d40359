// Package docs holds the pages about peers, for the programs and tests that read their snippets: the configuration that a page
// tells an admin to paste.
//
// It refuses to know what the snippets mean and where they go. The one rule a newcomer would break: a snippet is the page's text
// to the byte. Whoever needs other values replaces them in the copy and leaves the page as it is for people.
package docs

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
)

//go:embed peers/*.md
var files embed.FS

// Page is a page about one peer.
type Page struct {
	Name     string // of the file, without .md: "dovecot-2.3"
	Title    string // of the heading
	Text     string
	Snippets []Snippet // in the order of the page
}

// Snippet is a fenced block right after a line `<!-- snippet: NAME -->`.
type Snippet struct {
	Name     string // on the page: "dovecot.conf grant"
	File     string // first word of the name: "dovecot.conf"
	Language string // of the fence, such as "toml"; often empty
	Text     string // ends in a newline
}

// Peers returns the pages about peers, by name.
func Peers() []Page {
	entries, err := files.ReadDir("peers")
	if err != nil {
		panic(err) // they are part of the program
	}
	var pages []Page
	for _, e := range entries {
		text, err := files.ReadFile(path.Join("peers", e.Name()))
		if err != nil {
			panic(err)
		}
		page, err := Parse(strings.TrimSuffix(e.Name(), ".md"), string(text))
		if err != nil {
			panic(err) // the tests parse every page
		}
		pages = append(pages, page)
	}
	slices.SortFunc(pages, func(a, b Page) int { return strings.Compare(a.Name, b.Name) })
	return pages
}

// Parse reads a page. A marker without its block, a block without its end and a second snippet of the same name are errors.
func Parse(name, text string) (Page, error) {
	page := Page{Name: name, Text: text}
	const marker, fence = "<!-- snippet: ", "```"
	lines := strings.SplitAfter(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSuffix(lines[i], "\n")
		if title, ok := strings.CutPrefix(line, "# "); ok && page.Title == "" {
			page.Title = title
		}
		rest, ok := strings.CutPrefix(line, marker)
		if !ok {
			continue
		}
		s := Snippet{Name: strings.TrimSuffix(rest, " -->")}
		s.File, _, _ = strings.Cut(s.Name, " ")
		if s.File == "" || s.Name == rest {
			return Page{}, fmt.Errorf("%s, line %d: a marker is written <!-- snippet: NAME -->", name, i+1)
		}
		if _, taken := page.Snippet(s.Name); taken {
			return Page{}, fmt.Errorf("%s, line %d: there are two snippets %q", name, i+1, s.Name)
		}
		if i+1 == len(lines) || !strings.HasPrefix(lines[i+1], fence) {
			return Page{}, fmt.Errorf("%s, line %d: no fenced block right after the marker of %q", name, i+1, s.Name)
		}
		s.Language = strings.TrimSuffix(strings.TrimPrefix(lines[i+1], fence), "\n")
		end := slices.IndexFunc(lines[i+2:], func(l string) bool { return strings.TrimSuffix(l, "\n") == fence })
		if end < 0 {
			return Page{}, fmt.Errorf("%s, line %d: the block of %q has no end", name, i+2, s.Name)
		}
		s.Text = strings.Join(lines[i+2:i+2+end], "")
		page.Snippets = append(page.Snippets, s)
		i += 2 + end
	}
	return page, nil
}

// Snippet returns the snippet of this name.
func (p Page) Snippet(name string) (Snippet, bool) {
	i := slices.IndexFunc(p.Snippets, func(s Snippet) bool { return s.Name == name })
	if i < 0 {
		return Snippet{}, false
	}
	return p.Snippets[i], true
}
