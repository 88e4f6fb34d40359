package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/valetkey/valetkey/internal/child"
)

// maxHandshake bounds the one line that a plugin prints for go-plugin, in bytes.
const maxHandshake = 4 << 10

// drainTime is how long the pipes of a plugin that has ended are still read: its last words.
const drainTime = 100 * time.Millisecond

// process is go-plugin's runner.Runner for a program in a process group of its own.
//
// go-plugin waits for the end of both pipes before it waits for the program, and a grandchild that holds them makes that endless.
// So it gets only the handshake line, and the pipes are read here.
type process struct {
	cmd    *exec.Cmd
	dir    string // where its socket must be
	output *output

	out, err  *os.File // the ends that we read
	handshake *io.PipeReader
	toReader  *io.PipeWriter

	mu      sync.Mutex
	killed  bool // not to be started any more
	reaped  bool // the number may belong to somebody else
	done    chan struct{}
	waitErr error // read after done
}

// newProcess returns one that go-plugin has still to complete with an environment and a folder.
func newProcess(path string, args []string, out *output) *process {
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	p := &process{cmd: cmd, output: out, done: make(chan struct{})}
	p.handshake, p.toReader = io.Pipe()
	return p
}

// Start starts the program. After an error nothing is left behind, and go-plugin never waits for it.
func (p *process) Start(context.Context) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		if err != nil {
			p.reaped = true
			close(p.done)
		}
	}()
	if p.killed {
		return errors.New("stopped before it was started")
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, outR.Close(), outW.Close())
	}
	p.cmd.Stdout, p.cmd.Stderr = outW, errW // files: exec starts no goroutine that would wait for their end
	err = child.Start(p.cmd)
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		return err
	}
	p.out, p.err = outR, errR
	var pipes sync.WaitGroup
	pipes.Go(p.readStdout)
	pipes.Go(func() { p.output.drain("stderr", errR) })
	go p.reap(&pipes)
	return nil
}

// readStdout hands the first line on and logs the rest.
func (p *process) readStdout() {
	r := bufio.NewReaderSize(p.out, maxHandshake)
	line, _ := r.ReadSlice('\n') // what does not fit is garbage, which go-plugin refuses
	_, _ = p.toReader.Write(line)
	p.toReader.Close()
	p.output.drain("stdout", r)
}

// reap waits for the end, ends what is left of the group and closes the pipes.
func (p *process) reap(pipes *sync.WaitGroup) {
	pid := p.cmd.Process.Pid
	for {
		// Not yet taken from the kernel, so that the number stays ours for the kill below.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	_ = syscall.Kill(-pid, syscall.SIGKILL) // grandchildren
	err := p.cmd.Wait()
	p.reaped = true
	p.mu.Unlock()

	// A grandchild in another group may hold the pipes for ever.
	deadline := time.Now().Add(drainTime)
	p.out.SetReadDeadline(deadline)
	p.err.SetReadDeadline(deadline)
	pipes.Wait()
	p.out.Close()
	p.err.Close()
	p.waitErr = err
	close(p.done)
}

// kill ends the group at once. It does not wait.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	if !p.reaped && p.cmd.Process != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// ended reports whether the program is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// pid is 0 before the start.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Wait waits for the end.
func (p *process) Wait(context.Context) error {
	<-p.done
	return p.waitErr
}

// Kill ends the group at once.
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// Stdout has the handshake line only.
func (p *process) Stdout() io.ReadCloser { return p.handshake }

// Stderr is empty for go-plugin, which would let the plugin choose the level of its lines and log any number of them.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name is the path of the program.
func (p *process) Name() string { return p.cmd.Path }

// ID is the process id, empty before the start.
func (p *process) ID() string {
	if pid := p.pid(); pid != 0 {
		return strconv.Itoa(pid)
	}
	return ""
}

// Diagnose adds nothing.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost accepts only a socket in the private folder: a plugin does not choose whom we talk to.
func (p *process) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || filepath.Dir(filepath.Clean(addr)) != p.dir {
		return "", "", fmt.Errorf("the plugin listens on %s %.200q, which is not a Unix socket in the folder it was given", network, addr)
	}
	return network, addr, nil
}

// HostToPlugin changes nothing.
func (p *process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
