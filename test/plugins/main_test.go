// Package plugins_test runs the enrolment plugins that ask a server against the real thing: slapd, Postgres, an HTTPS server. The
// configuration of each is that of its page.
package plugins_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin"
	"github.com/valetkey/valetkey/plugin/plugintest"
	"github.com/valetkey/valetkey/test/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, harness.PostgresServer, harness.Slapd, harness.LDAPUtils, harness.PythonGRPC))
}

// write makes a file that nobody else may read.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// program is one of our plugins with its configuration.
type program struct {
	t            *testing.T
	path, config string
}

func newProgram(t *testing.T, name, text string) *program {
	t.Helper()
	return &program{t, harness.Program(t, name), write(t, name+".toml", text)}
}

// check asks by hand and returns what it printed, both streams, and the exit status.
func (p *program) check(login string) (output string, status int) {
	p.t.Helper()
	status, out, errOut := harness.Run(p.t, "", exec.Command(p.path, "-config", p.config, "-check", login))
	return out + errOut, status
}

// want asks by hand about each login; the text is LOGIN: ANSWER (REASON) for an answer and a part of the output for an error.
func (p *program) want(logins ...string) {
	p.t.Helper()
	for _, line := range logins {
		login, _, _ := strings.Cut(line, ": ")
		if login == "alice" {
			login = "ALICE" // the program normalises
		}
		if got, status := p.check(login); status != 0 || !strings.HasPrefix(got, line+"\n") {
			p.t.Errorf("-check %s: exit status %d, %q, want %q", login, status, got, line)
		}
	}
}

// fails asks by hand about a login of which nothing can be found out, and looks for the texts in what it prints. No test has a secret
// without "canary" in it, and none may be printed.
func (p *program) fails(login string, texts ...string) {
	p.t.Helper()
	got, status := p.check(login)
	if status != 1 {
		p.t.Errorf("-check %s: exit status %d, %q, want 1", login, status, got)
	}
	if strings.Contains(got, "canary") {
		p.t.Errorf("-check %s printed %q", login, got)
	}
	for _, text := range texts {
		if !strings.Contains(got, text) {
			p.t.Errorf("-check %s printed %q, want %q in it", login, got, text)
		}
	}
}

// suite holds the program to what the daemon expects of a plugin.
func (p *program) suite(accounts ...plugintest.Account) {
	p.t.Helper()
	plugintest.Run(p.t, plugintest.Config{Path: p.path, Args: []string{"-config", p.config}, Accounts: accounts, Within: 10 * time.Second})
}

func enrolled(login string) plugintest.Account {
	return plugintest.Account{Login: login, Want: plugin.Enrolled}
}

func notEnrolled(login string) plugintest.Account {
	return plugintest.Account{Login: login, Want: plugin.NotEnrolled}
}

func exempt(login string) plugintest.Account {
	return plugintest.Account{Login: login, Want: plugin.Exempt}
}

func unknown(login string) plugintest.Account {
	return plugintest.Account{Login: login, Want: plugin.AccountUnknown}
}
