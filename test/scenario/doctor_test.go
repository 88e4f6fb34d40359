package scenario

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// The doctor of a daemon that is well, of one that is not, and of one that is down.
func TestDoctor(t *testing.T) {
	d := harness.NewDaemon(t, "")
	d.Sections = fmt.Sprintf("\n[[saslauthd]]\nlisten = %q\ngroup = \"mail\"\n", "unix:"+filepath.Join(d.Dir, "closed", "mux"))
	closed := filepath.Join(d.Dir, "closed")
	if err := os.MkdirAll(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	d.Start(t)
	file, pepper := filepath.Join(filepath.Dir(d.Dir), "valetkeyd.toml"), filepath.Join(d.Dir, "pepper")

	type finding struct{ Check, State, Text, Hint string }
	// doctor wants the exit code, and of each finding that is not "ok" that it is listed: "CHECK STATE part of the text".
	doctor := func(t *testing.T, code int, want []string, args ...string) {
		t.Helper()
		got, out, errOut := d.Valetkey(t, "", append([]string{"doctor", "--json"}, args...)...)
		var all struct{ Findings []finding }
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("doctor: %v\n%s%s", err, out, errOut)
		}
		if got != code {
			t.Errorf("exit code %d, want %d\n%s", got, code, out)
		}
		for _, f := range all.Findings {
			line := f.Check + " " + f.State + " " + f.Text
			i := slices.IndexFunc(want, func(w string) bool {
				head, text, _ := strings.Cut(w, ": ")
				return strings.HasPrefix(line, head+" ") && strings.Contains(f.Text, text)
			})
			switch {
			case i >= 0:
				want = slices.Delete(slices.Clone(want), i, i+1)
			case f.State != "ok":
				t.Errorf("it finds %q, hint %q, which is not expected", line, f.Hint)
			}
			if f.State == "wrong" && f.Hint == "" {
				t.Errorf("no hint for %q", line)
			}
		}
		if len(want) > 0 {
			t.Errorf("it does not find %q:\n%s", want, out)
		}
	}

	t.Run("well", func(t *testing.T) {
		doctor(t, 0, []string{"daemon ok: version", "configuration ok: " + file, "database ok: Postgres", "clock ok: agrees", "pepper ok: " + pepper,
			"ldap[1] ok: takes connections", "dovecot[1] ok: takes connections", "dovecot[1] ok: everybody may connect", "saslauthd[1] ok: takes connections",
			"saslauthd[1] ok: the group mail may connect"})
		_, out, _ := d.Valetkey(t, "", "doctor")
		if !strings.Contains(out, "ok       database       Postgres ") {
			t.Errorf("the table has no line for the database:\n%s", out)
		}
	})
	t.Run("a directory keeps the peer out", func(t *testing.T) {
		if err := os.Chmod(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(closed, 0o755)
		doctor(t, 1, []string{"saslauthd[1] wrong: may not enter " + closed})
	})
	t.Run("a socket was taken away", func(t *testing.T) {
		if err := os.Rename(d.DovecotUnix, d.DovecotUnix+".gone"); err != nil {
			t.Fatal(err)
		}
		defer os.Rename(d.DovecotUnix+".gone", d.DovecotUnix)
		doctor(t, 1, []string{"dovecot[1] wrong: no connection to", "dovecot[1] wrong: is no socket any more"})
	})
	t.Run("the pepper can be read by all", func(t *testing.T) {
		if err := os.Chmod(pepper, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(pepper, 0o600)
		doctor(t, 1, []string{"pepper wrong: " + pepper})
	})
	t.Run("the pepper is gone", func(t *testing.T) {
		if err := os.Rename(pepper, pepper+".gone"); err != nil {
			t.Fatal(err)
		}
		defer os.Rename(pepper+".gone", pepper)
		doctor(t, 1, []string{"pepper wrong: is gone"})
		if _, err := os.Stat(pepper); err == nil {
			t.Error("the doctor made a pepper")
		}
	})
	t.Run("the file was changed", func(t *testing.T) {
		d.WriteConfig(t, "\n[[http]]\nlisten = \"127.0.0.1:1\"\n[http.basic]\n")
		defer d.WriteConfig(t, "")
		doctor(t, 1, []string{"configuration wrong: does not listen on tcp:127.0.0.1:1"})
	})
	t.Run("the file has faults", func(t *testing.T) {
		d.WriteConfig(t, "\n[password]\nlength = 3\nlimt = 1\n")
		defer d.WriteConfig(t, "")
		doctor(t, 1, []string{"configuration wrong: password.length", "configuration wrong: password.limt"})
	})
	t.Run("down", func(t *testing.T) {
		d.Stop(t)
		doctor(t, 1, []string{"daemon wrong: cannot reach valetkeyd", "configuration ok: " + file, "database warning: a private one", "pepper ok: " + pepper}, "--config", file)
		doctor(t, 1, []string{"daemon wrong: cannot reach valetkeyd", "configuration warning: not known"})
	})
}
