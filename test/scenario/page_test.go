package scenario

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// shownCommand is a line of a page with a prompt: who types it, what, and what it exits with.
var shownCommand = regexp.MustCompile(`^(# |[a-z]+\$ )(.*?)(?:   # exits with ([0-9]+))?$`)

// session is a block of a page: commands, each with what is shown of its output.
type session struct {
	prompt, command, code string
	shown                 []string
}

// sessions reads the blocks without a marker that begin with a prompt.
func sessions(text string) (list []session) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if !strings.HasPrefix(lines[i], "```") {
			continue
		}
		of := -1 // the block has no command yet
		for i++; lines[i] != "```"; i++ {
			m := shownCommand.FindStringSubmatch(lines[i])
			switch {
			case m != nil && strings.Contains(m[2], " "):
				list = append(list, session{prompt: strings.TrimSpace(m[1]), command: m[2], code: m[3]})
				of = len(list) - 1
			case of >= 0:
				list[of].shown = append(list[of].shown, lines[i])
			}
		}
	}
	return list
}

var (
	// What differs from one time to the next: secrets, dates and times.
	varying = regexp.MustCompile(`[a-z]{4}(?:-[a-z]{4}){3}|[0-9]{4}-[0-9]{2}-[0-9]{2}(?: [0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?`)
	spaces  = regexp.MustCompile(`\\?\s+`)
)

// looksLike reports whether a text has the lines that are shown of it, in their order: "..." stands for any lines or for the rest of one.
func looksLike(text string, shown []string) (missing string) {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for _, line := range shown {
		if line == "..." {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		rest := strings.Split(strings.TrimRight(line, " "), "...")
		for i, part := range rest {
			if i > 0 {
				pattern.WriteString(`.*`)
			}
			last := 0
			for _, at := range varying.FindAllStringIndex(part, -1) {
				pattern.WriteString(spaces.ReplaceAllString(regexp.QuoteMeta(part[last:at[0]]), ` *`) + varying.String())
				last = at[1]
			}
			pattern.WriteString(spaces.ReplaceAllString(regexp.QuoteMeta(part[last:]), ` *`))
		}
		pattern.WriteString(" *\n")
	}
	re := regexp.MustCompile(pattern.String() + `\z`)
	if !re.MatchString(text) {
		return re.String()
	}
	return ""
}

// TestAdminPage does what docs/admin.md says, command by command. Its people are Debian's own users here, and its groups too.
func TestAdminPage(t *testing.T) {
	page := harness.ReadPage(t, "../admin")
	here := strings.NewReplacer("alice", "games", "henry", "lp", "valetkey-admin", "adm", "valetkey-help", "operator").Replace

	d := harness.NewDaemon(t, "")
	roles, ok := strings.CutPrefix(here(page.Snippet(t, "valetkeyd.toml roles")), "[admin]\n")
	if !ok {
		t.Fatal("the snippet about roles does not begin with [admin]")
	}
	admin, self, _ := strings.Cut(roles, "\n[self_service]\n")
	d.Admin = admin
	d.Sections = "\n[self_service]\nmin_uid = 5\n" + self + "\n[mail]\ndomain = \"example.org\"\n[mail.imap]\nhost = \"imap.example.org\"\n[mail.smtp]\nhost = \"smtp.example.org\"\n"
	d.Start(t)

	dir := harness.Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "old.csv"), []byte(page.Snippet(t, "old.csv")), 0o644); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(harness.Program(t, "valetkey")) // where other users may run it
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "valetkey"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "VALETKEY_SOCKET="+d.Socket, "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	all := sessions(page.Text)
	if len(all) < 40 {
		t.Fatalf("the page has %d commands: they were not read", len(all))
	}
	for _, s := range all {
		args := []string{"sh", "-c", here(s.command)}
		if name, isUser := strings.CutSuffix(here(s.prompt), "$"); isUser {
			u, err := user.Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			groups := "--clear-groups"
			if name == here("henry") {
				groups = "--groups=" + here("valetkey-help")
			}
			args = append([]string{"setpriv", "--reuid", u.Uid, "--regid", u.Gid, groups}, args...)
		}
		check := func() (string, string) {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env, cmd.Dir = env, dir
			out, err := cmd.CombinedOutput()
			code := "0"
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = strings.TrimPrefix(exit.Error(), "exit status ")
			} else if err != nil {
				t.Fatal(err)
			}
			want := s.code
			if want == "" {
				want = "0"
			}
			if code != want {
				return "it exits with " + code, string(out)
			}
			if missing := looksLike(string(out), strings.Split(here(strings.Join(s.shown, "\n")), "\n")); len(s.shown) > 0 && missing != "" {
				return "the page shows something else: " + missing, string(out)
			}
			return "", ""
		}
		fault, out := check()
		if strings.Contains(s.command, " why ") { // which tell what is written down a moment later
			harness.Poll(harness.Patience, func() bool {
				if fault != "" {
					fault, out = check()
				}
				return fault == ""
			})
		}
		if fault != "" {
			t.Errorf("%s %s\n%s\n%s\nthe page shows\n%s", s.prompt, s.command, fault, out, strings.Join(s.shown, "\n"))
		}
	}
}

func TestLooksLike(t *testing.T) {
	for name, tc := range map[string]struct {
		text  string
		shown string
		want  bool
	}{
		"word for word":         {"a b\nc\n", "a b\nc", true},
		"other widths":          {"a      b\n", "a b", true},
		"another secret":        {"abcd-efgh-ijkl-mnop\n", "kiey-imjy-emch-gkvd", true},
		"no secret":             {"abcd\n", "kiey-imjy-emch-gkvd", false},
		"another day":           {"on 2027-01-02 03:04 x\n", "on 2026-11-26 14:00 x", true},
		"lines left out":        {"a\nb\nc\n", "a\n...\nc", true},
		"the rest of a line":    {"a of 7\nc\n", "a ...\nc", true},
		"a line more":           {"a\nb\n", "a", false},
		"a line that is gone":   {"a\n", "a\nb", false},
		"another word":          {"a b\n", "a c", false},
		"nothing but something": {"", "...", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := looksLike(tc.text, strings.Split(tc.shown, "\n")) == ""; got != tc.want {
				t.Errorf("looksLike(%q, %q) = %t, want %t", tc.text, tc.shown, got, tc.want)
			}
		})
	}
}
