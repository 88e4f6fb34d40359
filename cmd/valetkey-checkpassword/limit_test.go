//go:build amd64 || 386

package main

import (
	"strings"
	"testing"
)

// TestAddressSpace starts the program under the limit that Dovecot's auth service sets by default (default_vsz_limit =
// 256M), and under one that qmail sites give to softlimit -a.
func TestAddressSpace(t *testing.T) {
	socket := serve(t, site{map[string]string{"home": "/"}}, false)
	for _, c := range []struct{ name, kilobytes string }{
		{"Dovecot", "262144"},
		{"softlimit", "40960"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run{limit: "-v " + c.kilobytes, environ: []string{"ORIG_UID=104"}, fd3: fd3("alice", canary),
				args: append([]string{"-socket", socket}, "/bin/sh", "-c", "ulimit -v; echo $USER")}
			status, stdout, stderr := r.start(t)
			if want := c.kilobytes + "\nalice@example.org\n"; status != 0 || stdout != want {
				t.Errorf("exit status %d, output %q, want 0 and %q; standard error: %s", status, stdout, want, firstLine(stderr))
			}
		})
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
