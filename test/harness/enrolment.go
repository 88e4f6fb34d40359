package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// EnrolledList is the list that valetkey-2fa-file reads.
type EnrolledList struct{ Path string }

// NewEnrolledList makes a list of those who have a second factor. It is never empty, since an empty one counts as being written.
func NewEnrolledList(t testing.TB, logins ...string) *EnrolledList {
	t.Helper()
	l := &EnrolledList{filepath.Join(Dir(t), "enrolled")}
	l.Set(t, logins...)
	return l
}

// Set replaces the list in one step.
func (l *EnrolledList) Set(t testing.TB, logins ...string) {
	t.Helper()
	text := strings.Join(append(logins, "somebody-else"), "\n") + "\n"
	if err := os.WriteFile(l.Path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.Path+".new", l.Path); err != nil {
		t.Fatal(err)
	}
}

// Enrolment is a section of the configuration with that plugin and further lines.
func (l *EnrolledList) Enrolment(t testing.TB, lines ...string) string {
	t.Helper()
	return EnrolmentSection(Program(t, "valetkey-2fa-file"), []string{"-list", l.Path, "-valid-for", "1s"}, lines...)
}

// EnrolmentSection is a section of the configuration with a plugin and further lines.
func EnrolmentSection(plugin string, args []string, lines ...string) string {
	quoted, _ := json.Marshal(append([]string{}, args...)) // which is TOML, too
	return fmt.Sprintf("\n[enrolment]\nplugin = %q\nargs = %s\n%s\n", plugin, quoted, strings.Join(lines, "\n"))
}

// Reload writes the configuration file again and sends SIGHUP. It returns when the daemon has said that it reloaded.
func (d *Daemon) Reload(t testing.TB) {
	t.Helper()
	d.WriteConfig(t, "")
	mark := d.Log().Mark()
	d.Process().Signal(syscall.SIGHUP)
	if _, ok := d.Log().Wait(mark, Patience, func(line string) bool { return strings.HasSuffix(line, ": reloaded") }); !ok {
		t.Fatalf("the daemon did not reload:\n%s", d.Log().Tail(10))
	}
}

// PluginState is what `valetkey plugin status --json` says.
type PluginState struct {
	Require  string           `json:"require"`
	Path     string           `json:"path"`
	Error    string           `json:"error"`
	Up       bool             `json:"up"`
	PID      int              `json:"pid"`
	Problem  string           `json:"problem"`
	Restarts int64            `json:"restarts"`
	Checks   int64            `json:"checks"`
	Fallback int64            `json:"fallback"`
	Errors   map[string]int64 `json:"errors"`
}

// Plugin asks the daemon how its plugin is. Exit code 3 is for one that does not run.
func (d *Daemon) Plugin(t testing.TB) (s PluginState) {
	t.Helper()
	code, out, errOut := d.Valetkey(t, "", "plugin", "status", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("valetkey plugin status --json: exit code %d, %v\n%s%s", code, err, out, errOut)
	}
	if (code == 0) != (s.Up || s.Path == "") || code != 0 && code != 3 {
		t.Errorf("valetkey plugin status: exit code %d, up %v", code, s.Up)
	}
	return s
}

// PluginUp waits until the plugin runs, as another process than the given one.
func (d *Daemon) PluginUp(t testing.TB, before int) (s PluginState) {
	t.Helper()
	WaitFor(t, "the plugin to run", func() bool {
		s = d.Plugin(t)
		return s.Up && s.PID != before
	})
	return s
}
