package admin

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// texts parses a file and returns the string constants with one of these names or of this type, or what this function returns.
func texts(t *testing.T, file string, typ, function string, names ...string) (all []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, text)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			id, _ := n.Type.(*ast.Ident)
			if typ != "" && id != nil && id.Name == typ || slices.Contains(names, n.Names[0].Name) {
				add(n.Values[0])
			}
		case *ast.FuncDecl:
			if n.Name.Name == function {
				ast.Inspect(n.Body, func(n ast.Node) bool {
					if r, ok := n.(*ast.ReturnStmt); ok {
						add(r.Results[0])
					}
					return true
				})
			}
			return false
		}
		return true
	})
	return all
}

// TestReasonsAreExplained holds Reasons and docs/troubleshooting.md to the words that the program can log: each is explained, and nothing
// else is.
func TestReasonsAreExplained(t *testing.T) {
	words := texts(t, "../auth/decision.go", "Reason", "")
	words = append(words, texts(t, "../auth/authenticator.go", "", "undecidedReason")...)
	words = append(words, texts(t, "../../ldapbridge/bind.go", "", "", "badDN", "foreignDN")...)
	slices.Sort(words)
	if len(words) < 20 {
		t.Fatalf("the sources have only the reasons %q: they were not read", words)
	}
	if got := slices.Sorted(maps.Keys(Reasons)); !slices.Equal(got, words) {
		t.Errorf("Reasons explains %q, want %q", got, words)
	}
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for line := range strings.Lines(string(page)) {
		if heading, found := strings.CutPrefix(strings.TrimSpace(line), "### "); found {
			for _, word := range strings.Split(heading, ", ") {
				sections = append(sections, strings.Trim(word, "`"))
			}
		}
	}
	slices.Sort(sections)
	if !slices.Equal(sections, words) {
		t.Errorf("docs/troubleshooting.md has sections on %q, want %q", sections, words)
	}
	for word, e := range Reasons {
		if e.Meaning == "" || strings.ContainsAny(e.Meaning+e.Remedy, "\n\t") {
			t.Errorf("%s: %+v is not a clause on one line", word, e)
		}
	}
}
