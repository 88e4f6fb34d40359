package notice

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script writes a program for /bin/sh.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const longEnough = 30 * time.Second

func TestRun(t *testing.T) {
	t.Setenv("VALETKEY_CANARY", "from the daemon's environment")
	out := filepath.Join(t.TempDir(), "out")
	said, err := run(t.Context(), []string{script(t, `cat > "$1"; env >> "$1"; pwd >> "$1"; ls /proc/self/fd >> "$1"; echo " hello "; printf 'wor\033[31mld' >&2`), out},
		[]string{"VALETKEY_EVENT=created"}, []byte("the input\n"), longEnough)
	if err != nil || said != "hello; wor[31mld" {
		t.Errorf("run = %q, %v", said, err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the input\n", "VALETKEY_EVENT=created\n", "PATH=/usr/local/sbin:", "\n/\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the program saw no %q:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "CANARY") || strings.Contains(string(got), "HOME=") {
		t.Errorf("the program has the daemon's environment:\n%s", got)
	}
	if !strings.HasSuffix(string(got), "\n0\n1\n2\n3\n") { // 3 is the folder that ls reads
		t.Errorf("the program has further descriptors:\n%s", got)
	}
}

func TestRunFailures(t *testing.T) {
	for _, tt := range []struct {
		name, script, want string
	}{
		{"exit code", "echo no such user >&2; exit 67", "it ended with exit code 67 and said: no such user"},
		{"signal", "kill -9 $$", "it was killed by a signal"},
		{"hang", "sleep 1000", "it did not end within 500ms and was killed"},
		{"hang that ignores SIGTERM", "trap '' TERM; while :; do sleep 1; done", "it did not end within 500ms and was killed"},
		{"flood", "exec cat /dev/zero", "it printed more than 1048576 bytes and was killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limit := longEnough
			if strings.HasPrefix(tt.name, "hang") {
				limit = 500 * time.Millisecond
			}
			said, err := run(t.Context(), []string{script(t, tt.script)}, nil, []byte("x"), limit)
			if err == nil || err.Error() != tt.want {
				t.Errorf("run = %v, want %q", err, tt.want)
			}
			if len(said) > 2*keptOutput {
				t.Errorf("%d bytes of the output were kept", len(said))
			}
		})
	}
	if _, err := run(t.Context(), []string{script(t, "exit 0")}, nil, make([]byte, 1<<20), longEnough); err != nil {
		t.Errorf("a program that does not read its input: %v, want no error", err)
	}
}

// A child ends with its parent, in the group or not in the foreground; one that left the group cannot hold us up.
func TestRunEndsTheGroup(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	began := time.Now()
	_, err := run(t.Context(), []string{script(t, `
sleep 1000 & echo $! >> "$1"
(sleep 1000 & echo $! >> "$1"; sleep 1000) &
setsid sleep 30 &
while [ "$(wc -l < "$1")" -lt 2 ]; do sleep 0.01; done
`), pids}, nil, nil, longEnough)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("run took %v: a process that left the group held it up", took)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	if len(strings.Fields(string(text))) < 2 {
		t.Fatalf("the children: %q, want two", text)
	}
	for _, field := range strings.Fields(string(text)) {
		pid, _ := strconv.Atoi(field)
		for end := time.Now().Add(longEnough); alive(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("process %d of the group is still there", pid)
				break
			}
		}
	}
}

// alive reports whether the process runs. One that waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestCheckProgram(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", 0o755)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	inOpen := file("open/hook", 0o755)
	deepInOpen := file("open2/deep/hook", 0o755)
	for _, d := range []string{"open", "open2"} {
		if err := os.Chmod(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	stranger := file("stranger", 0o755)
	if os.Geteuid() == 0 {
		if err := os.Chown(stranger, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		argv []string
		want string // empty: accepted
	}{
		{"good", []string{good, "any", "argument"}, ""},
		{"link to it", []string{link}, ""},
		{"none", nil, "no program is given"},
		{"relative", []string{"doveadm"}, "not an absolute path"},
		{"missing", []string{filepath.Join(dir, "missing")}, "no such file"},
		{"folder", []string{dir}, "not a plain file"},
		{"not to be run", []string{file("text", 0o644)}, "chmod +x"},
		{"writable by everybody", []string{file("w", 0o757)}, "chmod go-w"},
		{"writable by the group", []string{file("g", 0o775)}, "chmod go-w"},
		{"in a folder that others may write", []string{inOpen}, "chmod go-w"},
		{"deep in one", []string{deepInOpen}, "chmod go-w"},
		{"of somebody else", []string{stranger}, "belongs to user 65534"},
		{"NUL", []string{good, "a\x00b"}, "NUL"},
	} {
		if tt.name == "of somebody else" && os.Geteuid() != 0 {
			continue // only root can give a file away
		}
		path, err := CheckProgram(tt.argv)
		switch {
		case tt.want == "" && (err != nil || path != good):
			t.Errorf("%s: CheckProgram = %q, %v, want %q", tt.name, path, err, good)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: CheckProgram = %q, %v, want an error with %q", tt.name, path, err, tt.want)
		}
	}
	// It is looked at before each start, not only with the configuration.
	if err := os.Chmod(good, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t.Context(), []string{good}, nil, nil, longEnough); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("run of a program that everybody may write = %v, want a refusal", err)
	}
	if err := os.Remove(good); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t.Context(), []string{good}, nil, nil, longEnough); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("run of a missing program = %v, want ENOENT", err)
	}
}
