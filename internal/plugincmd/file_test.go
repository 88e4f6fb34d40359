package plugincmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin"
)

type fakeConfig struct {
	Settings
	Secret string         `toml:"secret_file"`
	CAFile string         `toml:"ca_file"`
	Body   map[string]any `toml:"body"`
}

func (*fakeConfig) FreeForm(key []string) bool { return key[0] == "body" }

// file writes a file with this mode, whatever the umask.
func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	secret := file(t, "  canary \r\nnext\n", 0o640)
	for _, tt := range []struct {
		name, text string
		want       []string // parts of the faults, in their order; none: it is good
	}{
		{"empty", "", nil},
		{"full", "timeout = \"300ms\"\nconnections = 64\nvalid_for = \"10m\"\nsecret_file = \"" + secret + "\"\n[body]\nx = [{y = [{z = 1}]}]", nil},
		{"every fault at once", "timeout = \"2m\"\nconnections = -1\nvalid_for = \"2h\"\nconections = 1\nca_file = \"" + secret + "\"",
			[]string{"conections: unknown key", `timeout: it must lie between`, "connections: it must lie", "valid_for: it must lie", "ca_file: " + secret + " has no certificate"}},
		{"no unit", `timeout = "5"`, []string{`"5" is not a time`}},
		{"a number", `timeout = 5`, []string{`"5" is not a time`}},
		{"wrong type", `connections = "many"`, []string{"connections"}},
		{"no TOML", "x = what\n", []string{"line 1: "}},
		{"relative", `secret_file = "x"`, []string{`secret_file: "x" is not an absolute path`}},
		{"missing", `secret_file = "/nowhere/x"`, []string{"secret_file: stat /nowhere/x: no such file"}},
		{"a folder", `secret_file = "/tmp"`, []string{"secret_file: /tmp is not a plain file"}},
		{"everybody reads it", `secret_file = "` + file(t, "canary", 0o644) + `"`, []string{"has mode 0644, which lets others in; run: chmod g-w,o= /"}},
		{"the group writes it", `secret_file = "` + file(t, "canary", 0o660) + `"`, []string{"has mode 0660"}},
		{"empty secret", `secret_file = "` + file(t, "\ncanary", 0o600) + `"`, []string{"secret_file: the first line"}},
	} {
		cfg := &fakeConfig{}
		got := ""
		_, faults := load(file(t, tt.text, 0o644), cfg, func(f *Faults) plugin.Checker {
			got = f.Secret("secret_file", cfg.Secret, false)
			f.Roots("ca_file", cfg.CAFile)
			return nil
		})
		if len(faults) != len(tt.want) {
			t.Errorf("%s: load = %q, want %q", tt.name, faults, tt.want)
			continue
		}
		for i, fault := range faults {
			if !strings.Contains(fault, tt.want[i]) || strings.Contains(fault, "canary") {
				t.Errorf("%s: load = %q, want %q", tt.name, fault, tt.want[i])
			}
		}
		if tt.name == "full" && got != "  canary " {
			t.Errorf("Secret = %q, want the first line as it is", got)
		}
	}
	if _, faults := load(file(t, "", 0o646), &fakeConfig{}, nil); len(faults) != 1 || !strings.Contains(faults[0], "chmod o-w") {
		t.Errorf("a file that everybody may write: %q", faults)
	}
}

func TestTemplate(t *testing.T) {
	for _, tt := range []struct{ text, login, want, fault string }{ // want empty: not ok
		{"(uid={login})", "alice", "(uid=<alice>)", ""},
		{"{name} at {domain}, {name}", "alice@example.org", "<alice> at <example.org>, <alice>", ""},
		{"nothing", "alice", "nothing", ""},
		{"{domain}", "alice", "", ""},
		{"{name}", "@example.org", "", ""},
		{"{login}", "{login}", "<{login}>", ""},
		{"{user}", "", "", "{user} is none of {login}, {name}, {domain}"},
		{"{login", "", "", "is none of"},
		{"login}", "", "", "a } without"},
	} {
		x, err := ParseTemplate(tt.text, LoginVariables)
		if (err != nil) != (tt.fault != "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("ParseTemplate(%q) = %v, want %q", tt.text, err, tt.fault)
		}
		if err != nil {
			continue
		}
		got, ok := x.Expand(OfLogin(tt.login), func(s string) string { return "<" + s + ">" })
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("Expand(%q) of %q = %q, %v, want %q", tt.login, tt.text, got, ok, tt.want)
		}
	}
}

func TestByHand(t *testing.T) {
	for _, tt := range []struct {
		name, login  string
		answer       plugin.Answer
		err          error
		status       int
		out, errPart string
	}{
		{"answer", "Alice", plugin.Answer{Status: plugin.Exempt, ReasonCode: "printer"}, nil, 0, "alice: exempt (printer)\n", ""},
		{"no reason", "alice", plugin.Answer{Status: plugin.NotEnrolled}, nil, 0, "alice: not_enrolled\n", ""},
		{"error", "alice", plugin.Answer{}, errors.New("no \x1b[2Jway\n"), 1, "", "x: no ?[2Jway?\n"},
		{"hint", "alice", plugin.Answer{}, WithHint(errors.New("no"), "do %s", "this\x07"), 1, "", "x: no\nhint: do this?\n"},
		{"no status", "alice", plugin.Answer{}, nil, 1, "", "no known status"},
		{"no login", "a\nb", plugin.Answer{Status: plugin.Enrolled}, nil, 1, "", "not a login name"},
	} {
		var out, errOut strings.Builder
		c := plugin.CheckerFunc(func(context.Context, plugin.Request) (plugin.Answer, error) { return tt.answer, tt.err })
		status := byHand("x", c, tt.login, &out, &errOut)
		if status != tt.status || out.String() != tt.out || !strings.Contains(errOut.String(), tt.errPart) || tt.errPart == "" && errOut.Len() > 0 {
			t.Errorf("%s: byHand = %d, %q, %q, want %d, %q, %q", tt.name, status, out.String(), errOut.String(), tt.status, tt.out, tt.errPart)
		}
	}
}

// The settings bound an answer also when the daemon does not.
func TestChecker(t *testing.T) {
	c := &checker{settings: &Settings{Timeout: Duration(10 * time.Millisecond), ValidFor: Duration(time.Minute)},
		Checker: plugin.CheckerFunc(func(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
			if r.Login == "late" {
				<-ctx.Done()
				return plugin.Answer{Status: plugin.Enrolled}, ctx.Err()
			}
			return plugin.Answer{Status: plugin.Enrolled}, nil
		})}
	if a, err := c.Check(t.Context(), plugin.Request{Login: "alice"}); err != nil || a.ValidFor != time.Minute {
		t.Errorf("Check = %+v, %v, want it valid for a minute", a, err)
	}
	if a, err := c.Check(t.Context(), plugin.Request{Login: "late"}); !errors.Is(err, context.DeadlineExceeded) || a.Status != 0 {
		t.Errorf("Check of one that waits = %+v, %v, want a deadline", a, err)
	}
}
