package notice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/valetkey/valetkey/internal/child"
)

// Bounds of what a program may print: what is kept for the log, and what ends it.
const (
	keptOutput = 2 << 10
	maxOutput  = 1 << 20
)

// drainTime is how long the pipe of a program that has ended is still read: its last words.
const drainTime = 100 * time.Millisecond

// CheckProgram checks a command before it is started: an absolute path to a plain file that may be run, and that nobody but root and
// the daemon's user can change or replace. It returns the path without symbolic links.
func CheckProgram(argv []string) (string, error) { return CheckProgramOf(argv, os.Geteuid()) }

// CheckProgramOf is [CheckProgram] for a daemon of another user.
func CheckProgramOf(argv []string, uid int) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", errors.New("no program is given; write the absolute path and the arguments, each in quotes")
	}
	if !filepath.IsAbs(argv[0]) {
		return "", fmt.Errorf("%q is not an absolute path", argv[0])
	}
	for _, a := range argv {
		if strings.Contains(a, "\x00") {
			return "", errors.New("an argument holds a NUL")
		}
	}
	real, err := child.Trusted(argv[0], uid)
	if err != nil {
		return "", err
	}
	if unix.Access(real, unix.X_OK) != nil {
		return "", fmt.Errorf("%s may not be run; run: chmod +x %s", real, real)
	}
	return real, nil
}

// exitError is a program that ended otherwise than with 0.
type exitError struct {
	code   int    // -1: by a signal
	output string // the beginning of what it printed, cleaned
}

func (e *exitError) Error() string {
	s := fmt.Sprintf("it ended with exit code %d", e.code)
	if e.code < 0 {
		s = "it was killed by a signal"
	}
	if e.output != "" {
		s += " and said: " + e.output
	}
	return s
}

// run starts a program that [CheckProgram] accepted, gives it the input, and waits for its end. It has nothing of the daemon's environment,
// a process group of its own, which is killed as a whole when the time is over, when it prints without end, and when it has ended; and it
// dies with the daemon. The error tells what went wrong; nil means exit code 0. What it printed is returned for the log.
func run(ctx context.Context, argv []string, environment []string, input []byte, limit time.Duration) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	path, err := CheckProgram(argv)
	if err != nil {
		return "", err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer inW.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		return "", err
	}
	defer outR.Close()
	cmd := exec.Command(path)
	cmd.Args = argv
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}, environment...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, outW // files: exec starts no goroutine that would wait for their end
	err = child.Start(cmd)
	inR.Close()
	outW.Close()
	if err != nil {
		return "", err
	}
	pid := cmd.Process.Pid

	var wg sync.WaitGroup
	wg.Go(func() { // a program that does not read its input loses it, and that is all: SIGPIPE does not end the daemon
		_, _ = inW.Write(input)
		inW.Close()
	})
	var kept bytes.Buffer
	flooded := make(chan struct{})
	wg.Go(func() {
		buf := make([]byte, 16<<10)
		for total := 0; ; {
			n, err := outR.Read(buf)
			if room := keptOutput - kept.Len(); room > 0 {
				kept.Write(buf[:min(n, room)])
			}
			if before := total; before <= maxOutput && before+n > maxOutput {
				close(flooded)
			}
			total += n
			if err != nil {
				return
			}
		}
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			// Not yet taken from the kernel, so that the number stays ours for the kill below.
			if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	var why error
	select {
	case <-ended:
	case <-flooded:
		why = fmt.Errorf("it printed more than %d bytes and was killed", maxOutput)
	case <-ctx.Done():
		if why = ctx.Err(); errors.Is(why, context.DeadlineExceeded) {
			why = fmt.Errorf("it did not end within %v and was killed", limit)
		}
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // it and its children
	<-ended
	_ = syscall.Kill(-pid, syscall.SIGKILL) // and those that it started at that moment
	_ = cmd.Wait()
	// A child that left the group may hold the pipes for ever.
	outR.SetReadDeadline(time.Now().Add(drainTime))
	inW.SetWriteDeadline(time.Now())
	wg.Wait()
	output = summary(kept.Bytes())
	if why != nil {
		return output, why
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return output, &exitError{code: code, output: output}
	}
	return output, nil
}

// summary makes one line of what a program printed.
func summary(b []byte) string {
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(clean(line)); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
