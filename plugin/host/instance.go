package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/valetkey/valetkey/plugin"
)

// instance is one run of the program. go-plugin's client serves for one run only: started again, it returns the old address.
type instance struct {
	proc   *process
	client *goplugin.Client
	dir    string // holds the socket, and nothing else that is to be kept

	rpc   *plugin.Client
	about plugin.Description
	since time.Time
	slots chan struct{} // one for each Check that may be under way
}

// environment is all that a plugin gets beside go-plugin's variables and what the configuration adds.
var environment = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}

// start starts the program and returns when it has answered a first question, within StartTimeout. After an error, the end
// of ctx among them, nothing is left of it.
func (h *Host) start(ctx context.Context) (*instance, error) {
	path, err := verify(h.cfg.Path, h.sum)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(h.cfg.Dir, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("making a folder for the plugin's socket: %w", err)
	}
	i := &instance{dir: dir, proc: newProcess(path, h.cfg.Args, h.out)}
	i.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake,
		VersionedPlugins: plugin.Versions(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		SkipHostEnv:      true,
		RunnerFunc: func(_ hclog.Logger, template *exec.Cmd, socketDir string) (runner.Runner, error) {
			i.proc.dir = socketDir
			i.proc.cmd.Env = append(append(append(i.proc.cmd.Env, environment...), h.cfg.Env...), template.Env...)
			return i.proc, nil
		},
		StartTimeout:     h.cfg.StartTimeout,
		GRPCDialOptions:  plugin.DialOptions(),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		SyncStdout:       h.out.writer("stdout"),
		SyncStderr:       h.out.writer("stderr"),
		Logger:           hclog.NewNullLogger(),
	})

	ctx, cancel := context.WithTimeoutCause(ctx, h.cfg.StartTimeout, fmt.Errorf("the plugin did not start within %v", h.cfg.StartTimeout))
	defer cancel()
	connected := make(chan error, 1)
	go func() { connected <- i.connect(ctx) }()
	select {
	case err = <-connected:
	case <-ctx.Done():
		i.proc.kill() // which ends every wait in connect
		if err = <-connected; err == nil {
			err = ctx.Err()
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		i.stop(0)
		return nil, fmt.Errorf("starting %s: %w", path, brief(err))
	}
	parallel := h.cfg.MaxParallel
	if want := i.about.MaxParallel; want > 0 {
		parallel = min(parallel, want)
	}
	i.slots = make(chan struct{}, parallel)
	i.since = h.cfg.Now()
	return i, nil
}

func (i *instance) connect(ctx context.Context) error {
	protocol, err := i.client.Client()
	if err != nil {
		return err
	}
	if i.rpc, err = plugin.NewClient(protocol); err != nil {
		return err
	}
	i.about, err = i.rpc.Describe(ctx)
	return err
}

// alive asks for a sign of life.
func (i *instance) alive(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := i.rpc.Describe(ctx)
	return err
}

// stop asks the program to end, waits for that as long as grace, and kills what is left of its group. It returns when the program
// is gone, and after a second at the latest when the kernel does not let go of it.
func (i *instance) stop(grace time.Duration) {
	closed := make(chan struct{})
	go func() {
		i.client.Kill() // asks without a deadline: a frozen program keeps it waiting until the kill below
		close(closed)
	}()
	if grace > 0 {
		select {
		case <-i.proc.done:
		case <-time.After(grace):
		}
	}
	i.proc.kill()
	bound := time.After(time.Second)
	for _, c := range []chan struct{}{i.proc.done, closed} {
		if i.proc.pid() == 0 && c == i.proc.done {
			continue // never started
		}
		select {
		case <-c:
		case <-bound:
		}
	}
	_ = os.RemoveAll(i.dir)
}
