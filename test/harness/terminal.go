package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudo terminal, for what a program does only where somebody looks (pty(7)).
type Terminal struct {
	master, slave *os.File

	mu   sync.Mutex
	text strings.Builder
	done chan struct{} // closed when all was read
}

// NewTerminal opens one of so many columns. It is closed at the end of the test.
func NewTerminal(t testing.TB, columns int) *Terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("open a pseudo terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &Terminal{master: master, slave: slave, done: make(chan struct{})}
	t.Cleanup(func() { slave.Close() })
	go x.read()
	return x
}

// read keeps what the program writes until nobody has the terminal open any more, which the kernel says with an error.
func (x *Terminal) read() {
	defer close(x.done)
	buf := make([]byte, 4096)
	for {
		n, err := x.master.Read(buf)
		x.mu.Lock()
		x.text.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Text is what was written to the terminal so far, what was typed included, with \n for ends of line.
func (x *Terminal) Text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.ReplaceAll(x.text.String(), "\r\n", "\n")
}

// Run runs a program at the terminal, types a line once it has written what waitFor says, and returns its exit code and all that was
// written. Without a waitFor nothing is typed. A terminal is for one run.
func (x *Terminal) Run(t testing.TB, cmd *exec.Cmd, waitFor, line string) (code int, text string) {
	t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = x.slave, x.slave, x.slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	x.slave.Close()
	if waitFor != "" {
		WaitFor(t, "the program to ask", func() bool { return strings.Contains(x.Text(), waitFor) })
		if _, err := x.master.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	timer := time.AfterFunc(Patience, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	defer timer.Stop()
	_ = cmd.Wait() // the code tells
	<-x.done
	return cmd.ProcessState.ExitCode(), x.Text()
}

// ValetkeyAt runs the companion command at a terminal.
func (d *Daemon) ValetkeyAt(t testing.TB, x *Terminal, waitFor, line string, args ...string) (code int, text string) {
	t.Helper()
	cmd := exec.Command(Program(t, "valetkey"), append([]string{"--socket", d.Socket}, args...)...)
	cmd.Env = environment()
	return x.Run(t, cmd, waitFor, line)
}
