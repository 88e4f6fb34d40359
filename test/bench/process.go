package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is a server that this program started. Its output goes to a file.
type process struct {
	name    string
	pid     int
	cmd     *exec.Cmd
	logPath string
	leashed bool          // what it started is the server, see startLeashed
	done    chan struct{} // closed when it has ended
}

// startProcess must be called from the main goroutine, which is locked to the main thread: the kernel ends the process
// when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG), so that nothing is left behind by kill -9.
func startProcess(dir, name, program string, args ...string) (*process, error) {
	p := &process{name: name, logPath: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.pid = p.cmd.Process.Pid
	go func() { p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// ready polls until try succeeds, the process ends, or a minute is over.
func (p *process) ready(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %v; its last words:\n%s", p.name, p.cmd.ProcessState, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its last words:\n%s", p.name, err, p.lastWords())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop asks the process to end, and makes it after 30 s.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// dropLog empties the log, so that a daemon that writes a line per login does not fill the disk. The file is open for
// appending, so the next line starts at its beginning.
func (p *process) dropLog() { os.Truncate(p.logPath, 0) }

// lastWords is the end of the log, to explain a failure.
func (p *process) lastWords() string {
	f, err := os.Open(p.logPath)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 2000
	if info, err := f.Stat(); err == nil && info.Size() > most {
		f.Seek(-most, 2)
	}
	b := make([]byte, most)
	n, _ := f.Read(b)
	return string(b[:n])
}

// explain adds the end of the server's log to an error of a load, unless the person at the keyboard ended it.
func (p *process) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w; last words of %s:\n%s", err, p.name, p.lastWords())
}

// freeAddress returns a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// findProgram looks in PATH and where Debian puts servers.
func findProgram(name, debianPackage string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		return path, nil
	}
	return "", errors.New(name + " is not installed\nhint: apt-get install " + debianPackage)
}
