package auth_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/valetkey/valetkey"

// topLevel are the folders that may stand beside go.mod. Hidden ones may, too, and bin and tmp, which git ignores.
var topLevel = []string{"cmd", "docs", "internal", "ldapbridge", "plugin", "saslauth", "store", "test"}

// rule says what the packages of one folder may import of this module, other than what lies below that folder. An entry that
// ends in /... means everything below, "..." means everything but commands.
type rule struct {
	folder string
	may    []string
}

// rules are DESIGN section 1. The longest folder that a package lies in decides; a package that lies in none is a fault, so
// that a new folder comes with a decision. Test files are free: a front end's tests may use the whole store.
var rules = []rule{
	{"cmd/*", []string{"..."}},
	{"test", []string{"..."}},
	{"docs", nil},

	{"ldapbridge", []string{"internal/auth", "internal/netserve"}},
	{"saslauth/*", []string{"internal/auth", "internal/netserve"}},
	{"store", []string{"internal/auth", "internal/pgdial"}},

	{"plugin", nil},
	{"plugin/host", []string{"internal/auth", "internal/child", "plugin"}},
	{"plugin/plugintest", []string{"plugin"}},

	{"internal/auth", nil},
	{"internal/secret", []string{"internal/auth"}},
	{"internal/logline", []string{"internal/auth"}},
	{"internal/netserve", nil},
	{"internal/pgdial", nil},
	{"internal/plugincmd", []string{"internal/auth", "plugin"}},
	{"internal/certs", nil},
	{"internal/manual", nil},
	{"internal/child", nil},
	{"internal/throttle", []string{"internal/auth"}},
	{"internal/config", []string{"internal/auth"}},
	{"internal/migrate", nil},
	{"internal/admin", []string{"internal/auth", "internal/secret"}},
	{"internal/metrics", []string{"internal/auth"}},
	{"internal/notice", []string{"internal/auth", "internal/child"}},
}

// ruleFor returns the rule of a package and the folder that it covers, with * replaced.
func ruleFor(pkg string) (r rule, folder string, found bool) {
	for _, candidate := range rules {
		parts := strings.Split(pkg, "/")
		depth := strings.Count(candidate.folder, "/") + 1
		if len(parts) < depth {
			continue
		}
		head := strings.Join(parts[:depth], "/")
		if ok, _ := path.Match(candidate.folder, head); ok && (!found || depth > strings.Count(folder, "/")+1) {
			r, folder, found = candidate, head, true
		}
	}
	return r, folder, found
}

func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// wrongArrows checks imports, package to imported packages, both as paths below the module, and returns a message for each
// one that points the wrong way.
func wrongArrows(imports map[string][]string) []string {
	var wrong []string
	for _, from := range slices.Sorted(maps.Keys(imports)) {
		r, folder, found := ruleFor(from)
		if !found {
			wrong = append(wrong, fmt.Sprintf("%s lies in no folder that DESIGN section 1 names: give it a rule in layout_test.go", from))
			continue
		}
		for _, to := range imports[from] {
			// A folder with a rule of its own inside this one is not part of it: plugin may not import plugin/host.
			_, toFolder, _ := ruleFor(to)
			switch {
			case within(to, folder) && toFolder == folder:
			case within(to, "cmd"):
				wrong = append(wrong, fmt.Sprintf("%s -> %s: commands are imported by nobody", from, to))
			case slices.Contains(r.may, "..."):
				if within(to, "test") {
					wrong = append(wrong, fmt.Sprintf("%s -> %s: what serves tests only is not imported by a program", from, to))
				}
			case slices.Contains(r.may, to):
			case len(r.may) == 0:
				wrong = append(wrong, fmt.Sprintf("%s -> %s: %s imports nothing of ours", from, to, folder))
			default:
				wrong = append(wrong, fmt.Sprintf("%s -> %s: %s may import only %s", from, to, folder, strings.Join(r.may, ", ")))
			}
		}
	}
	return wrong
}

// moduleRoot is the folder that holds go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}

// readImports reads what the non-test files of every package import of this module, whatever their build constraints.
func readImports(t *testing.T, root string) map[string][]string {
	t.Helper()
	imports := make(map[string][]string)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if file != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return filepath.SkipDir // as the go command does
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if _, seen := imports[pkg]; !seen {
			imports[pkg] = nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if to, ours := strings.CutPrefix(to, modulePath+"/"); ours && !slices.Contains(imports[pkg], to) {
				imports[pkg] = append(imports[pkg], to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}

func TestImportDirection(t *testing.T) {
	imports := readImports(t, moduleRoot(t))
	// The reader works: it sees an arrow that is there.
	if !slices.Contains(imports["internal/secret"], "internal/auth") {
		t.Fatalf("internal/secret imports %q, want internal/auth among them: the imports were not read", imports["internal/secret"])
	}
	for _, message := range wrongArrows(imports) {
		t.Error(message)
	}
}

func TestImportDirectionCatches(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		want     string // part of the message; empty: allowed
	}{
		{"cmd/valetkeyd", "store", ""},
		{"cmd/valetkeyd", "store/cluster", ""},
		{"cmd/valetkeyd", "internal/config", ""},
		{"cmd/valetkeyd", "plugin/host", ""},
		{"cmd/valetkeyd", "cmd/valetkeyd/internal/wiring", ""},
		{"cmd/valetkeyd", "cmd/valetkey", "imported by nobody"},
		{"cmd/valetkeyd", "test/harness", "not imported by a program"},
		{"test/bench", "store", ""},
		{"test/interop", "test/harness", ""},
		{"test/bench", "cmd/valetkeyd", "imported by nobody"},

		{"cmd/valetkey", "docs", ""},
		{"test/harness", "docs", ""},
		{"docs", "internal/auth", "docs imports nothing of ours"},
		{"internal/admin", "docs", "internal/admin may import only"},
		{"saslauth/dovecot", "docs", "saslauth/dovecot may import only"},

		{"ldapbridge", "internal/auth", ""},
		{"ldapbridge", "ldapbridge/internal/ber", ""},
		{"ldapbridge/internal/ber", "ldapbridge", ""},
		{"ldapbridge", "store", "ldapbridge -> store: ldapbridge may import only internal/auth"},
		{"ldapbridge/internal/ber", "internal/secret", "ldapbridge may import only internal/auth"},
		{"ldapbridge", "internal/logline", "ldapbridge may import only internal/auth"},
		{"ldapbridge", "internal/config", "ldapbridge may import only internal/auth"},
		{"ldapbridge", "saslauth/dovecot", "ldapbridge may import only internal/auth"},
		{"ldapbridge", "cmd/valetkeyd", "imported by nobody"},

		{"saslauth/dovecot", "internal/auth", ""},
		{"saslauth/dovecot", "saslauth/dovecot/wire", ""},
		{"saslauth/dovecot", "saslauth/saslauthd", "saslauth/dovecot may import only internal/auth"},
		{"saslauth/dovecot", "ldapbridge", "saslauth/dovecot may import only internal/auth"},
		{"saslauth/dovecot", "internal/throttle", "saslauth/dovecot may import only internal/auth"},
		{"saslauth", "internal/auth", "no folder"},

		{"store", "internal/auth", ""},
		{"store", "store/migrations", ""},
		{"store/storetest", "store", ""},
		{"store/storetest", "store/cluster", ""},
		{"store", "internal/secret", "store may import only internal/auth"},
		{"store/cluster", "internal/config", "store may import only internal/auth"},
		{"store", "ldapbridge", "store may import only internal/auth"},

		{"plugin", "plugin/internal/proto", ""},
		{"plugin", "internal/auth", "plugin imports nothing of ours"},
		{"plugin", "plugin/host", "plugin imports nothing of ours"},
		{"plugin/host", "plugin", ""},
		{"plugin/host", "internal/auth", ""},
		{"plugin/host", "store", "plugin/host may import only"},
		{"plugin/host", "plugin/internal/enrolmentpb", "plugin/host may import only"},
		{"plugin/host", "plugin/plugintest", "plugin/host may import only"},
		{"plugin/plugintest", "plugin", ""},
		{"plugin/plugintest", "internal/auth", "plugin/plugintest may import only plugin"},
		{"plugin/plugintest", "plugin/host", "plugin/plugintest may import only plugin"},
		{"cmd/valetkey-2fa-file", "plugin", ""},
		{"cmd/valetkey-2fa-sql", "internal/plugincmd", ""},
		{"internal/plugincmd", "plugin", ""},
		{"internal/plugincmd", "plugin/host", "internal/plugincmd may import only"},
		{"internal/plugincmd", "internal/config", "internal/plugincmd may import only"},
		{"plugin", "internal/plugincmd", "plugin imports nothing of ours"},
		{"store", "internal/pgdial", ""},
		{"ldapbridge", "internal/pgdial", "ldapbridge may import only"},

		{"internal/auth", "internal/secret", "internal/auth imports nothing of ours"},
		{"internal/auth", "store", "internal/auth imports nothing of ours"},
		{"internal/authz", "internal/auth", "no folder"},
		{"internal/secret", "internal/auth", ""},
		{"internal/secret", "internal/logline", "internal/secret may import only internal/auth"},
		{"internal/logline", "internal/secret", "internal/logline may import only internal/auth"},
		{"internal/config", "internal/auth", ""},
		{"internal/config", "saslauth/dovecot", "internal/config may import only internal/auth"},
		{"cmd/valetkeyd", "internal/certs", ""},
		{"internal/certs", "internal/config", "internal/certs imports nothing of ours"},
		{"ldapbridge", "internal/certs", "ldapbridge may import only internal/auth"},
		{"internal/notice", "internal/auth", ""},
		{"internal/notice", "store", "internal/notice may import only internal/auth"},
		{"internal/notice", "plugin/host", "internal/notice may import only internal/auth"},
		{"internal/admin", "internal/notice", "internal/admin may import only"},
		{"internal/admin", "internal/secret", ""},
		{"internal/admin", "store", "internal/admin may import only internal/auth, internal/secret"},
		{"internal/admin", "internal/logline", "internal/admin may import only"},
		{"internal/new", "internal/auth", "no folder"},
		{"util", "internal/auth", "no folder"},
	} {
		got := wrongArrows(map[string][]string{tt.from: {tt.to}})
		switch {
		case tt.want == "" && len(got) > 0:
			t.Errorf("%s -> %s: %q, want it allowed", tt.from, tt.to, got)
		case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
			t.Errorf("%s -> %s: %q, want one message with %q", tt.from, tt.to, got, tt.want)
		}
	}
}

// An arrow in a file that is not built on this system counts, one in a test file does not.
func TestReadImports(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"store/store.go":             "package store\nimport _ \"" + modulePath + "/internal/auth\"\n",
		"store/store_plan9.go":       "package store\nimport _ \"" + modulePath + "/ldapbridge\"\n",
		"store/tagged.go":            "//go:build never\n\npackage store\nimport _ \"" + modulePath + "/internal/config\"\n",
		"store/store_test.go":        "package store\nimport _ \"" + modulePath + "/internal/admin\"\n",
		"store/testdata/x.go":        "package x\nimport _ \"" + modulePath + "/cmd/valetkeyd\"\n",
		"store/_old/x.go":            "package x\nimport _ \"" + modulePath + "/cmd/valetkeyd\"\n",
		".hidden/x.go":               "package x\nimport _ \"" + modulePath + "/cmd/valetkeyd\"\n",
		"store/deep/er/package.go":   "package er\nimport \"fmt\"\nvar _ = fmt.Sprint\n",
		"store/deep/er/unrelated.md": "import \"" + modulePath + "/cmd/valetkeyd\"",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := readImports(t, root)
	for _, to := range got {
		slices.Sort(to)
	}
	want := map[string][]string{"store": {"internal/auth", "internal/config", "ldapbridge"}, "store/deep/er": nil}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("readImports = %v, want %v", got, want)
	}
}

func TestTopLevelFolders(t *testing.T) {
	entries, err := os.ReadDir(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		ignored := name == "bin" || name == "tmp" // .gitignore
		if e.IsDir() && !strings.HasPrefix(name, ".") && !ignored && !slices.Contains(topLevel, name) {
			t.Errorf("the folder %s stands at the top; DESIGN section 1 allows only %s", name, strings.Join(topLevel, ", "))
		}
		if !e.IsDir() && strings.HasSuffix(name, ".go") {
			t.Errorf("the file %s stands at the top, where no package is", name)
		}
	}
}
