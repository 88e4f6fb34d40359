package harness

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// SASLTest runs a command line with testsaslauthd and returns what it printed, on one line. run is the directory that it
// sees as /run.
func SASLTest(t testing.TB, commandLine, run string) (code int, printed string) {
	t.Helper()
	program(t, SASLBin, "testsaslauthd")
	cmd := exec.Command("/bin/sh", "-c", commandLine)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin"}
	code, out, errOut := Run(t, "", mounted(t, cmd, map[string]string{"/run": run}))
	return code, strings.Join(strings.Fields(out+errOut), " ")
}
