package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The daemon outlives who reads its log, and what it starts has the default back, whoever started the daemon.
func TestSurvivePipes(t *testing.T) {
	if path := os.Getenv("VALETKEY_TEST_PIPE"); path != "" { // the daemon
		survivePipes()
		if _, err := os.Stdout.WriteString("nobody reads this\n"); err == nil {
			t.Error("the write to a pipe without a reader succeeded")
		}
		// A child that is not killed by the signal says so.
		out, err := exec.Command("/bin/sh", "-c", "kill -PIPE $$; echo survived").CombinedOutput()
		if err == nil || len(out) > 0 {
			t.Errorf("a child that gets SIGPIPE: %v, %q, want it killed", err, out)
		}
		result := "good"
		if t.Failed() {
			result = "bad"
		}
		if err := os.WriteFile(path, []byte(result), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	for name, before := range map[string]string{"from a shell": "", "from systemd": "trap '' PIPE; "} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			defer w.Close()
			result := t.TempDir() + "/result"
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", before+`exec "$0" -test.run='^TestSurvivePipes$'`, os.Args[0])
			cmd.Env = append(os.Environ(), "VALETKEY_TEST_PIPE="+result)
			var words strings.Builder
			cmd.Stdout, cmd.Stderr = w, &words
			err = cmd.Run()
			if got, _ := os.ReadFile(result); string(got) != "good" {
				t.Errorf("the daemon says %q and ended with %v; %s", got, err, words.String())
			}
		})
	}
}
