package child

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestTrusted(t *testing.T) {
	// The system's temporary folder is sticky, so that it may be on the way.
	dir := t.TempDir()
	program := filepath.Join(dir, "bin", "program")
	if err := os.Mkdir(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	byOpen := filepath.Join(open, "link")
	if err := os.Symlink(program, byOpen); err != nil {
		t.Fatal(err)
	}
	mode := func(path string, mode os.FileMode) func() { return func() { os.Chmod(path, mode) } }
	for _, tt := range []struct {
		name, path string
		before     func()
		want       string // part of the error; empty: trusted
	}{
		{"as it is", program, nil, ""},
		{"by a link", link, nil, ""},
		{"by a link that others can change", byOpen, nil, open + " can be written"},
		{"missing", filepath.Join(dir, "none"), nil, "no such file"},
		{"a folder", dir, nil, "not a plain file"},
		{"the group may write it", program, mode(program, 0o775), program + " can be written by its group"},
		{"others may write beside it", program, func() { os.Chmod(program, 0o755); os.Chmod(filepath.Dir(program), 0o757) }, filepath.Dir(program) + " can be written"},
		{"as before", program, mode(filepath.Dir(program), 0o755), ""},
	} {
		if tt.before != nil {
			tt.before()
		}
		real, err := Trusted(tt.path, os.Geteuid())
		if tt.want == "" && (err != nil || real != program) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: Trusted = %q, %v, want %q", tt.name, real, err, tt.want)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(program, 7, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Trusted(program, 0); err == nil || !strings.Contains(err.Error(), "belongs to user 7") {
			t.Errorf("Trusted of another user's = %v, want who that is", err)
		}
		if _, err := Trusted(program, 7); err != nil {
			t.Errorf("Trusted for that user = %v, want nil", err)
		}
	}
}

// The child leads a group of its own and has none of the descriptors that are open here.
func TestStart(t *testing.T) {
	open, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	inherited, err := syscall.Dup(int(open.Fd())) // without close-on-exec, as whoever starts a daemon may leave one
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(inherited)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", `ls /proc/$$/fd; echo group $(cut -d' ' -f5 /proc/$$/stat)`)
	cmd.Stdout = w
	err = Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 4096)
	n := 0
	for {
		m, err := r.Read(text[n:])
		if n += m; err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(text[:n]))
	if !strings.Contains(string(text[:n]), "group "+strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("the child says %q, want it to lead the group %d", got, cmd.Process.Pid)
	}
	for _, word := range got {
		if word == strconv.Itoa(inherited) && inherited > 2 {
			t.Errorf("the child has descriptor %d: %q", inherited, got)
		}
	}
}
