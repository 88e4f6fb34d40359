package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// emptyCheckpassword is the least that a checkpassword program can be: it reads descriptor 3 and runs its argument.
const emptyCheckpassword = `#include <unistd.h>
int main(int argc, char **argv) {
	char buf[513];
	size_t len = 0;
	ssize_t n;
	while (len < sizeof buf && (n = read(3, buf + len, sizeof buf - len)) > 0) len += n;
	if (argc < 2) return 2;
	execv(argv[1], argv + 1);
	return 111;
}
`

const helperPackage = "github.com/valetkey/valetkey/cmd/valetkey-checkpassword"

// maxHelperCPU is the promise for a login.
const maxHelperCPU = 3 * time.Millisecond

// checkpasswords are the two programs that are compared.
type checkpasswords struct{ helper, empty string }

// buildCheckpasswords builds the helper as the Makefile does: for 32 bits where the machine is amd64.
func buildCheckpasswords(ctx context.Context, dir string) (checkpasswords, error) {
	c := checkpasswords{filepath.Join(dir, "valetkey-checkpassword"), filepath.Join(dir, "empty-checkpassword")}
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "386"
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", c.helper, helperPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		return c, fmt.Errorf("build: %w\n%s", err, out)
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	compile := exec.CommandContext(ctx, cc, "-O2", "-o", c.empty, "-x", "c", "-")
	compile.Stdin = bytes.NewReader([]byte(emptyCheckpassword))
	if out, err := compile.CombinedOutput(); err != nil {
		return c, fmt.Errorf("compile the empty checkpassword program: %w\n%shint: apt-get install gcc libc6-dev, or --checkpassword 0", err, out)
	}
	return c, nil
}

// measure lets the credentials log in by the helper and by the empty program in turn, n times each, and compares the processor
// time of the two. Both run /bin/true in the end.
func (c checkpasswords) measure(ctx context.Context, socket string, creds []credential, n int) (check, error) {
	const next = "/bin/true"
	helper := []string{c.helper, "-socket", socket, "-service", "imap", "-check", next}
	if code, _, err := runCheckpassword(helper, credential{creds[0].login, "not " + creds[0].password}); err != nil || code != 1 {
		return check{}, fmt.Errorf("valetkey-checkpassword: a wrong password: exit code %d, %v, want 1", code, err)
	}
	var used, floor time.Duration
	for i := range n {
		if ctx.Err() != nil {
			return check{}, context.Cause(ctx)
		}
		for _, p := range []struct {
			argv []string
			sum  *time.Duration
		}{{helper, &used}, {[]string{c.empty, next}, &floor}} {
			code, cpu, err := runCheckpassword(p.argv, creds[i%len(creds)])
			if err == nil && code != 0 {
				err = errRejected
			}
			if err != nil {
				return check{}, fmt.Errorf("%s: credential %d: exit code %d: %w", filepath.Base(p.argv[0]), i%len(creds), code, err)
			}
			*p.sum += cpu
		}
	}
	return helperCheck(used/time.Duration(n), floor/time.Duration(n), n), nil
}

// helperCheck compares the means of n logins.
func helperCheck(helper, empty time.Duration, n int) check {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return check{
		Name:  "CPU of a checkpassword login above an empty program",
		Got:   fmt.Sprintf("%.2f ms (%.2f and %.2f, means of %d)", ms(helper-empty), ms(helper), ms(empty), n),
		Want:  fmt.Sprintf("at most %g ms", ms(maxHelperCPU)),
		Met:   helper-empty <= maxHelperCPU,
		Timed: true,
	}
}

// runCheckpassword runs a checkpassword program as Dovecot and qmail do and returns its exit code and processor time, which
// is that of the program that it becomes, too.
func runCheckpassword(argv []string, c credential) (code int, cpu time.Duration, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, 0, err
	}
	defer read.Close()
	_, err = write.WriteString(c.login + "\x00" + c.password + "\x00\x00")
	write.Close()
	if err != nil {
		return 0, 0, err
	}
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Env: []string{}, Files: []*os.File{nil, nil, os.Stderr, read}})
	if err != nil {
		return 0, 0, err
	}
	state, err := p.Wait()
	if err != nil {
		return 0, 0, err
	}
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, 0, errors.New("no resource usage of the process")
	}
	return state.ExitCode(), time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
