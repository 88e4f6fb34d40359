package manual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestCommands(t *testing.T) {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "tool", Short: "Do things"}
	add := &cobra.Command{Use: "add NAME", Short: "Add a thing", Long: "Add a thing that lasts.", Example: "  tool add x", Run: run}
	add.Flags().String("why", "", "`REASON`, for the log")
	root.AddCommand(add, &cobra.Command{Use: "secret", Short: "Nobody asks for it", Hidden: true, Run: run})
	dir := t.TempDir()
	for range 2 { // again is no error
		if err := Commands(root, "1", dir); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 2 {
		t.Errorf("pages = %v, want those of tool and add", names)
	}
	page := read(t, dir, "tool-add.1")
	for _, want := range []string{`.TH "TOOL-ADD" "1" "" "Valetkey"`, "tool-add - Add a thing", "Add a thing that lasts.", "REASON", "tool add x", "tool(1)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
	if err := Commands(root, "1", filepath.Join(dir, "none")); err == nil {
		t.Error("Commands into a directory that is not there = nil, want an error")
	}
}

// What roff takes for its own at the beginning of a line or anywhere stands on the page as it is in the example.
func TestConfig(t *testing.T) {
	dir := t.TempDir()
	if err := Config("tool.toml", "configuration of tool", "# a comment\n.key = \"C:\\\\x\"\n'quoted'\n", dir); err != nil {
		t.Fatal(err)
	}
	page := read(t, dir, "tool.toml.5")
	for _, want := range []string{"tool.toml \\- configuration of tool", "# a comment\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
	for _, line := range strings.Split(page, "\n") {
		if strings.HasPrefix(line, ".key") || strings.HasPrefix(line, "'quoted") {
			t.Errorf("roff takes the line %q for a request", line)
		}
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
