package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that was started by a test.
type Process struct {
	Name string
	Log  *Log // standard output and standard error together

	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
	err  error         // of cmd.Wait; read after done
}

// spawn runs every start on one thread that lives as long as the test program: the kernel sends the parent death
// signal when the starting thread ends, not the process.
var spawn = sync.OnceValue(func() chan<- func() {
	requests := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range requests {
			f()
		}
	}()
	return requests
})

// Start starts cmd in a process group of its own and collects its output. It is ended with its group when owner, the test
// that it was started for, ends, and killed by the kernel when the test program dies. The owner may be a parent of t, so that a
// subtest can start again what it ended.
func Start(t, owner testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Name: name, Log: &Log{}, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A grandchild that keeps the pipe open must not make the wait endless.
	cmd.WaitDelay = 2 * time.Second
	started := make(chan error)
	spawn() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	owner.Cleanup(func() {
		if owner.Failed() {
			owner.Logf("last lines of %s (pid %d):\n%s", name, p.PID(), p.Log.Tail(30))
		}
		p.KillGroup()
	})
	return p
}

// PID is the process id; it stays the same after the end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running reports whether it has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the process alone. One that has ended is left in peace.
func (p *Process) Signal(sig syscall.Signal) {
	if p.Running() {
		_ = p.cmd.Process.Signal(sig)
	}
}

// Kill ends the process alone with SIGKILL, as a crash would, and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// KillGroup ends what is left of the process group and waits for the process.
func (p *Process) KillGroup() {
	// After the wait the number could belong to somebody else, unless a member of the group still holds it.
	if p.Running() || groupAlive(p.PID()) {
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
	<-p.done
}

// Wait returns the exit code, -1 for an end by a signal; ok is false if it still runs after within.
func (p *Process) Wait(within time.Duration) (code int, ok bool) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), true
	case <-time.After(within):
		return 0, false
	}
}

// groupAlive reports whether a process of ours still belongs to the group.
func groupAlive(pgid int) bool {
	alive := false
	eachProcess(func(pid int) {
		if got, err := syscall.Getpgid(pid); err == nil && got == pgid {
			alive = true
		}
	})
	return alive
}

func eachProcess(visit func(pid int)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			visit(pid)
		}
	}
}

// ProcessesIn lists the processes that work in dir or below it, such as the Postgres of a state directory.
func ProcessesIn(dir string) []int {
	var pids []int
	eachProcess(func(pid int) {
		cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
		if err != nil || !within(cwd, dir) || zombie(pid) {
			return
		}
		pids = append(pids, pid)
	})
	return pids
}

func within(path, dir string) bool {
	path = strings.TrimSuffix(path, " (deleted)")
	return path == dir || strings.HasPrefix(path, dir+"/")
}

func zombie(pid int) bool {
	state, _ := stat(pid)
	return state == "Z" || state == ""
}

// stat returns the state letter and the parent of a process; ("", 0) if there is none.
func stat(pid int) (state string, parent int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// The second field, the name in parentheses, may hold anything.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	f := strings.Fields(rest)
	if len(f) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(f[1])
	return f[0], parent
}

// Parent returns the id of the parent process, 0 if pid has ended.
func Parent(pid int) int {
	_, parent := stat(pid)
	return parent
}

// Descendants returns the children of pid, their children and so on.
func Descendants(pid int) []int {
	children := map[int][]int{}
	eachProcess(func(p int) {
		if parent := Parent(p); parent > 0 {
			children[parent] = append(children[parent], p)
		}
	})
	var all []int
	for next := children[pid]; len(next) > 0; {
		all = append(all, next...)
		var deeper []int
		for _, p := range next {
			deeper = append(deeper, children[p]...)
		}
		next = deeper
	}
	return all
}

// Run runs a short-lived program to its end and returns its exit code and output. stdin may be empty. Not starting, and not
// ending within [Patience], fail the test.
func Run(t testing.TB, stdin string, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = 2 * time.Second
	started := make(chan error)
	spawn() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	pid := cmd.Process.Pid
	timer := time.AfterFunc(Patience, func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%s did not end within %v; its output:\n%s%s", filepath.Base(cmd.Path), Patience, out.String(), errOut.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", cmd.Path, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}
