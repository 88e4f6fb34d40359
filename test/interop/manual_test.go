package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestManual writes the manual pages, has mandoc read them, and holds them to the commands: one page for each, which names its flags.
//
// It would catch: a text that roff takes for a request, a command without a page or without a summary.
func TestManual(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, args := range [][]string{{"valetkey", "manual", dir}, {"valetkeyd", "--manual", dir}} {
		if code, _, stderr := harness.Run(t, "", exec.Command(harness.Program(t, args[0]), args[1:]...)); code != 0 {
			t.Fatalf("%q = %d, want 0\n%s", args, code, stderr)
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.[158]"))
	if err != nil {
		t.Fatal(err)
	}
	tabs := regexp.MustCompile(`WARNING: (tab in filled text|missing date)`)
	for _, page := range pages {
		_, stdout, _ := harness.Run(t, "", exec.Command("mandoc", "-T", "lint", "-W", "warning", page))
		for line := range strings.Lines(stdout) {
			if !tabs.MatchString(line) { // how cobra indents; no date is wanted
				t.Errorf("mandoc: %s", line)
			}
		}
	}
	commands := subcommands(t, nil)
	if len(commands) < 15 {
		t.Fatalf("valetkey --help shows the commands %v, want many", commands)
	}
	for _, command := range append(commands, nil) {
		name := strings.Join(append([]string{"valetkey"}, command...), "-") + ".1"
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%q has no page: %v", command, err)
			continue
		}
		help := help(t, command)
		for _, flag := range regexp.MustCompile(`(?m)^ +(?:-., )?(--[a-z-]+)`).FindAllStringSubmatch(help, -1) {
			if !strings.Contains(strings.ReplaceAll(string(text), `\-`, "-"), flag[1]) {
				t.Errorf("the page %s has no %s", name, flag[1])
			}
		}
	}
	config, err := os.ReadFile(filepath.Join(dir, "valetkeyd.toml.5"))
	if err != nil || !strings.Contains(string(config), "state_dir") {
		t.Errorf("the page of the configuration = %v, %d bytes, want its keys", err, len(config))
	}
}

func help(t *testing.T, command []string) string {
	t.Helper()
	code, stdout, stderr := harness.Run(t, "", exec.Command(harness.Program(t, "valetkey"), append(slices.Clone(command), "--help")...))
	if code != 0 {
		t.Fatalf("valetkey %q --help = %d\n%s", command, code, stderr)
	}
	return stdout
}

// subcommands returns the commands below one, as --help shows them.
func subcommands(t *testing.T, of []string) (all [][]string) {
	t.Helper()
	_, list, found := strings.Cut(help(t, of), "Available Commands:\n")
	if !found {
		return nil
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		if name := strings.Fields(line)[0]; name != "help" {
			command := append(slices.Clone(of), name)
			all = append(append(all, command), subcommands(t, command)...)
		}
	}
	return all
}

// TestCompletion has bash complete a login and a label of the running daemon, with the script that valetkey writes.
//
// It would catch: a script that bash does not take, a completion that asks nothing of the daemon.
func TestCompletion(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	d.AddAccount(t, "alfred")
	d.Create(t, "alice", "phone")

	// complete prints what bash would offer for the words; the last one is being typed.
	const complete = `
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; } # bash-completion's, as far as needed
eval "$(valetkey completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
__start_valetkey 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"`
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"valetkey", "list", "al"}, "alfred alice"},
		{[]string{"valetkey", "revoke", "alice", "ph"}, "phone"},
		{[]string{"valetkey", "sta"}, "status"},
	} {
		cmd := exec.Command("bash", append([]string{"-c", complete, "bash"}, c.words...)...)
		cmd.Env = append(os.Environ(), "VALETKEY_SOCKET="+d.Socket, "PATH="+filepath.Dir(harness.Program(t, "valetkey"))+":"+os.Getenv("PATH"))
		_, stdout, stderr := harness.Run(t, "", cmd)
		got := strings.Fields(stdout)
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("completion of %q = %q, want %q\n%s", c.words, got, c.want, stderr)
		}
	}
}
