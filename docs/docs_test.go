package docs

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const block = "<!-- snippet: main.cf submission -->\n```\na = b\n\n  c\n```\n"
	for _, tc := range []struct {
		name, text string
		want       []Snippet
		fault      string // part of it
	}{
		{name: "none", text: "# Page\n\n```\nnot marked\n```\n"},
		{name: "two", text: "# Page\n" + block + "text\n<!-- snippet: x -->\n```toml\n# no title\n```", want: []Snippet{
			{"main.cf submission", "main.cf", "", "a = b\n\n  c\n"}, {"x", "x", "toml", "# no title\n"}}},
		{name: "marker within a block", text: "# Page\n<!-- snippet: x -->\n```\n<!-- snippet: y -->\n```\n", want: []Snippet{
			{"x", "x", "", "<!-- snippet: y -->\n"}}},
		{name: "empty block", text: "<!-- snippet: x -->\n```\n```\n", want: []Snippet{{"x", "x", "", ""}}},
		{name: "no name", text: "<!-- snippet:  -->\n```\n```\n", fault: "line 1: a marker is written"},
		{name: "no end of the marker", text: "<!-- snippet: x\n```\n```\n", fault: "line 1: a marker is written"},
		{name: "no block", text: "# Page\n<!-- snippet: x -->\n\n```\n```\n", fault: `line 2: no fenced block right after the marker of "x"`},
		{name: "nothing after the marker", text: "<!-- snippet: x -->", fault: "no fenced block"},
		{name: "no end of the block", text: "<!-- snippet: x -->\n```\na\n", fault: `the block of "x" has no end`},
		{name: "twice", text: block + block, fault: `there are two snippets "main.cf submission"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse("page", tc.text)
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) {
					t.Errorf("Parse = %v, want an error with %q", err, tc.fault)
				}
				return
			}
			if err != nil || !slices.Equal(got.Snippets, tc.want) {
				t.Errorf("Parse = %q, %v, want %q", got.Snippets, err, tc.want)
			}
			if strings.HasPrefix(tc.text, "# ") && got.Title != "Page" {
				t.Errorf("Title = %q, want Page", got.Title)
			}
		})
	}
}

// Every page can be read, and is about something.
func TestPeers(t *testing.T) {
	pages := Peers()
	if i := slices.IndexFunc(pages, func(p Page) bool { return p.Name == "postfix" }); i < 0 {
		t.Fatalf("Peers() has no page postfix")
	}
	for _, p := range pages {
		if p.Title == "" {
			t.Errorf("%s has no title", p.Name)
		}
		if marked := strings.Count("\n"+p.Text, "\n<!-- snippet:"); marked != len(p.Snippets) {
			t.Errorf("%s has %d markers and %d snippets", p.Name, marked, len(p.Snippets))
		}
	}
	for _, name := range []string{"main.cf", "valetkeyd.toml"} {
		page := pages[slices.IndexFunc(pages, func(p Page) bool { return p.Name == "postfix" })]
		if s, ok := page.Snippet(name); !ok || !strings.HasSuffix(s.Text, "\n") {
			t.Errorf("Snippet(%s) = %q, %t, want whole lines", name, s.Text, ok)
		}
	}
}
