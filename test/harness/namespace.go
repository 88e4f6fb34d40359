package harness

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mounted returns cmd as it must be run to see other files or directories at some paths: in a mount namespace of its own, so
// that a peer with paths compiled in needs nothing of the machine's and changes nothing there. The keys are the paths, which
// must exist, the values what is seen there.
func mounted(t testing.TB, cmd *exec.Cmd, at map[string]string) *exec.Cmd {
	t.Helper()
	args := []string{"unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec",
		`while [ "$1" != -- ]; do mount --bind "$2" "$1"; shift 2; done; shift; exec "$@"`, "sh"}
	for _, path := range slices.Sorted(maps.Keys(at)) {
		args = append(args, path, at[path])
	}
	args = append(append(args, "--", cmd.Path), cmd.Args[1:]...)
	if code, _, errOut := Run(t, "", exec.Command(args[0], "--mount", "true")); code != 0 {
		t.Fatalf("%s needs a mount namespace: run this test as root, in a container with CAP_SYS_ADMIN: %s", cmd.Path, strings.TrimSpace(errOut))
	}
	wrapped := exec.Command(args[0], args[1:]...)
	wrapped.Env, wrapped.Dir = cmd.Env, cmd.Dir
	return wrapped
}

// leashed returns cmd as a daemon must be run that changes its user, which takes the parent death signal away: a shell
// ends it when its own standard input ends, which it does with the test program however that ends. The shell must outlive the
// test program for it, so that it gives up the signal too.
func leashed(t testing.TB, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	shell := exec.Command("setpriv", append([]string{"--pdeathsig", "clear", "/bin/sh", "-c",
		`"$@" </dev/null & read -r _; kill $!; wait`, "sh", cmd.Path}, cmd.Args[1:]...)...)
	shell.Env, shell.Dir = cmd.Env, cmd.Dir
	if _, err := shell.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	return shell
}
