package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// The doctor looks at programs that are run, templates and the mail server as the daemon would use them.
func TestDoctorNotices(t *testing.T) {
	dir := harness.Dir(t)
	hook, templates := filepath.Join(dir, "hook"), filepath.Join(dir, "templates")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(templates, 0o755); err != nil {
		t.Fatal(err)
	}
	sink := harness.NewMailSink(t)
	_, port, _ := strings.Cut(sink.Addr, ":")
	d := harness.NewDaemon(t, "")
	d.Sections = fmt.Sprintf(`
[[hook]]
name = "tell"
command = [%q]
events = ["revoked"]
[notices]
events = ["created"]
from = "postmaster@example.org"
templates = %q
[notices.smtp]
host = "127.0.0.1"
port = %s
tls = "none"
`, hook, templates, port)
	d.Start(t)
	check := func(code int, want ...string) {
		t.Helper()
		got, out, errOut := d.Valetkey(t, "", "doctor")
		if got != code {
			t.Errorf("exit code %d, want %d", got, code)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("the doctor does not say %q:\n%s%s", w, out, errOut)
			}
		}
	}
	check(0, hook+" can be run, as ", "the templates in "+templates+" can be used", "the mail server 127.0.0.1 answers and takes us")

	sink.Close()
	if err := os.Chmod(hook, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(templates, "created.txt"), []byte("Subject: x\n\n{{.Secret}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	check(1, "wrong    hook tell      "+hook+" can be written by its group or by everybody (mode 0777)", "can't evaluate field Secret",
		"the mail server 127.0.0.1 does not take mails of ours: dial tcp 127.0.0.1:"+port+": connect: connection refused")
}
