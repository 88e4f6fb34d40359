package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// emptyCheckpassword reads descriptor 3 and runs the next program.
const emptyCheckpassword = `
#include <unistd.h>
int main(int argc, char **argv) {
	char up[513];
	int len = 0, r;
	while ((r = read(3, up + len, sizeof up - len)) > 0) len += r;
	if (argc < 2) return 2;
	execv(argv[1], argv + 1);
	return 111;
}
`

// BenchmarkLogin measures the CPU time of a login, user and system, from the start of the program to the end of the one
// that it runs, and the same for a checkpassword program that checks nothing. It needs a C compiler (CC, or cc). The
// difference is to be 3 ms at most.
func BenchmarkLogin(b *testing.B) {
	path, err := program()
	if err != nil {
		b.Fatal(err)
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	dir := b.TempDir()
	source, empty := filepath.Join(dir, "empty.c"), filepath.Join(dir, "empty")
	if err := os.WriteFile(source, []byte(emptyCheckpassword), 0o600); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.Command(cc, "-O2", "-o", empty, source).CombinedOutput(); err != nil {
		b.Fatalf("compiling the empty program: %v\n%s", err, out)
	}
	socket := serve(b, site{}, false)
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"empty", []string{empty, "/bin/true"}},
		{"helper", []string{path, "-socket", socket, "-check", "/bin/true"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var cpu time.Duration
			for b.Loop() {
				read, write, err := os.Pipe()
				if err != nil {
					b.Fatal(err)
				}
				write.WriteString("alice\x00" + canary + "\x00\x00")
				write.Close()
				p, err := os.StartProcess(c.argv[0], c.argv, &os.ProcAttr{Files: []*os.File{nil, nil, nil, read}})
				if err != nil {
					b.Fatal(err)
				}
				state, err := p.Wait()
				read.Close()
				if err != nil || !state.Success() {
					b.Fatalf("%v, %v", state, err)
				}
				usage := state.SysUsage().(*syscall.Rusage)
				cpu += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
			}
			b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/login")
		})
	}
}
