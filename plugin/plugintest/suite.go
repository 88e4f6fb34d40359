package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"

	"github.com/valetkey/valetkey/plugin"
)

// Account is one that the plugin knows, in the state in which the test put it.
type Account struct {
	ID    int64 // zero: its place in the list, from 1
	Login string
	Want  plugin.Status
}

// Config names the plugin and what it should answer.
type Config struct {
	Path string   // of the program
	Args []string // without the program's name
	Env  []string // what the configuration of the daemon would add; the rest of the environment is as the daemon makes it

	// Accounts should hold one that is allowed and one that is refused.
	Accounts []Account
	// Unknown is a login that nobody has; empty: one that is hard to hit.
	Unknown string

	Within time.Duration // for an answer; zero: 1 second, as in the daemon
	// NoShutdown is for programs that do not serve go-plugin's Shutdown and are killed by the daemon.
	NoShutdown bool
}

// Run runs the suite. Each promise is a subtest.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			for _, problem := range p.broken(cfg) {
				t.Error(problem)
			}
		})
	}
}

// promise is one of those that the package plugin makes.
type promise struct {
	name  string
	check func(*session) // of a program that was started for it; nil: by hand
	alone func(*Config) []error
}

var promises = []promise{
	{name: "accounts", alone: wellFormed},
	{name: "description", check: describes},
	{name: "answers", check: answers},
	{name: "unknown account", check: unknown},
	{name: "bad input", check: badInput},
	{name: "deadline", check: deadline},
	{name: "concurrency", check: concurrency},
	{name: "noise", check: noise},
	{name: "clean exit", check: cleanExit},
	{name: "by hand", alone: byHand},
}

// broken returns in what ways the promise is not kept.
func (p promise) broken(cfg Config) []error {
	if cfg.Within <= 0 {
		cfg.Within = time.Second
	}
	if cfg.Unknown == "" {
		cfg.Unknown = "nobody-has-this-login-7d1f"
	}
	cfg.Accounts = append([]Account(nil), cfg.Accounts...)
	for i := range cfg.Accounts {
		if cfg.Accounts[i].ID == 0 {
			cfg.Accounts[i].ID = int64(i + 1)
		}
	}
	if p.alone != nil {
		return p.alone(&cfg)
	}
	s, err := start(cfg)
	if err != nil {
		return []error{err}
	}
	defer s.end()
	p.check(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) > 0 {
		s.problems = append(s.problems, fmt.Errorf("what the plugin printed last: %q", s.output.tail()))
	}
	return s.problems
}

// raceEnds makes a program that was built with Go's race detector end when it ends. Left alone, the detector waits for a second more, and
// every such program would seem to keep the daemon waiting. Config.Env comes after it, and has the last word.
const raceEnds = "GORACE=atexit_sleep_ms=0"

// session is a plugin that runs.
type session struct {
	Config
	client *goplugin.Client
	rpc    *plugin.Client
	cmd    *exec.Cmd
	addr   net.Addr
	dir    string
	output *tail

	mu       sync.Mutex
	problems []error
}

func start(cfg Config) (*session, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "2fa")
	if err != nil {
		return nil, err
	}
	s := &session{Config: cfg, dir: dir, output: &tail{}}
	s.cmd = exec.Command(path, cfg.Args...)
	s.cmd.Dir = "/"
	s.cmd.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PLUGIN_UNIX_SOCKET_DIR=" + dir, raceEnds}, cfg.Env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake,
		VersionedPlugins: plugin.Versions(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		SkipHostEnv:      true,
		Cmd:              s.cmd,
		StartTimeout:     10 * time.Second,
		GRPCDialOptions:  plugin.DialOptions(),
		Stderr:           s.output,
		SyncStdout:       s.output,
		SyncStderr:       s.output,
		Logger:           hclog.NewNullLogger(),
	})
	protocol, err := s.client.Client()
	if err == nil {
		s.rpc, err = plugin.NewClient(protocol)
	}
	if err != nil {
		s.end()
		return nil, fmt.Errorf("starting %s: %w; it printed %q", cfg.Path, err, s.output.tail())
	}
	if s.addr, err = s.client.Start(); err == nil && filepath.Dir(s.addr.String()) != dir {
		s.problem("the plugin listens on %s, which is not in $PLUGIN_UNIX_SOCKET_DIR: the daemon refuses that", s.addr)
	}
	return s, nil
}

// end ends the program if it still runs.
func (s *session) end() {
	if s.cmd.Process != nil {
		// The number is ours until go-plugin has waited for the program, and Exited is true from then on.
		if !s.client.Exited() {
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		}
		s.client.Kill()
	}
	_ = os.RemoveAll(s.dir)
}

func (s *session) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Errorf(format, args...))
	}
}

// ask checks one account within the time of the daemon.
func (s *session) ask(a Account) (plugin.Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Within)
	defer cancel()
	return s.rpc.Check(ctx, plugin.Request{AccountID: a.ID, Login: a.Login})
}

// alive looks whether it still answers.
func (s *session) alive(after string) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Within)
	defer cancel()
	if _, err := s.rpc.Describe(ctx); err != nil {
		s.problem("after %s the plugin gives no sign of life: %v", after, err)
	}
	if len(s.Accounts) > 0 {
		s.expect(after, s.Accounts[0])
	}
}

func (s *session) expect(when string, a Account) {
	began := time.Now()
	got, err := s.ask(a)
	switch {
	case err != nil:
		s.problem("%s: Check(%q) = %v after %v, want %v", when, a.Login, err, time.Since(began), a.Want)
	case got.Status != a.Want:
		s.problem("%s: Check(%q) = %v (%q), want %v", when, a.Login, got.Status, got.ReasonCode, a.Want)
	}
}

func wellFormed(cfg *Config) []error {
	var problems []error
	allowed, refused := false, false
	for _, a := range cfg.Accounts {
		if err := (plugin.Request{AccountID: a.ID, Login: a.Login}).Validate(); err != nil {
			problems = append(problems, fmt.Errorf("the suite was given a bad account: %w", err))
		}
		allowed, refused = allowed || a.Want.Allows(), refused || a.Want.Known() && !a.Want.Allows()
	}
	if !allowed || !refused {
		problems = append(problems, errors.New("the suite needs an account that is allowed and one that is refused"))
	}
	return problems
}

func describes(s *session) {
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), s.Within)
		_, err := s.rpc.Describe(ctx)
		cancel()
		if err != nil {
			s.problem("Describe = %v", err)
			return
		}
	}
}

// answers asks twice, in both orders: answers do not depend on what was asked before.
func answers(s *session) {
	for _, a := range s.Accounts {
		s.expect("first", a)
	}
	for i := len(s.Accounts) - 1; i >= 0; i-- {
		s.expect("again", s.Accounts[i])
	}
}

func unknown(s *session) {
	got, err := s.ask(Account{ID: 1 << 60, Login: s.Unknown})
	if err != nil {
		s.problem("Check(%q) = %v, want it refused: not knowing an account is an answer", s.Unknown, err)
	} else if got.Status.Allows() {
		s.problem("Check(%q) = %v, want it refused", s.Unknown, got.Status)
	}
	s.alive("an unknown account")
}

// badInput sends logins that mean something to a shell, a path, a database or a directory. None of them may pass.
func badInput(s *session) {
	logins := []string{
		"..", ".", "/", "../../etc/passwd", "x/../y", "*", "%", "%s%n", "%u", "*)(uid=*", "' or '1'='1", "\" or \"\"=\"", "; true", "$(true)", "`true`",
		"-", "--help", "\\", "\x01", "a\nb", "a\tb", "a\x00b", "\u202e", "\ufeff", "\U0001f511", "{{.Login}}", "<x>", "a b", "@", "@example.org", "a@",
		strings.Repeat("x", plugin.MaxLogin), strings.Repeat("é", plugin.MaxLogin/2), strings.Repeat("../", 100),
	}
	for _, a := range s.Accounts {
		if a.Want.Allows() {
			// Close to a name that passes. How case and spaces are folded has been decided before a plugin is asked.
			logins = append(logins, a.Login+"\x00", a.Login+"\n", a.Login+"/", "./"+a.Login, "../"+a.Login, a.Login+"*", a.Login+"%00")
		}
	}
	known := func(login string) bool {
		for _, a := range s.Accounts {
			if a.Login == login {
				return true
			}
		}
		return false
	}
	for i, login := range logins {
		if known(login) {
			continue
		}
		got, err := s.ask(Account{ID: int64(1<<50 + i), Login: login})
		if err == nil && got.Status.Allows() {
			s.problem("Check(%.100q) = %v, want it refused, or an error", login, got.Status)
		}
	}
	for _, login := range []string{"", strings.Repeat("x", plugin.MaxLogin+1)} {
		if got, err := s.ask(Account{ID: 1, Login: login}); err == nil {
			s.problem("Check(a login of %d bytes) = %v, want an error", len(login), got.Status)
		}
	}
	s.alive("bad input")
}

// deadline asks many times without waiting for the answer.
func deadline(s *session) {
	if len(s.Accounts) == 0 {
		return
	}
	for i := range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*50*time.Microsecond)
		_, _ = s.rpc.Check(ctx, plugin.Request{AccountID: s.Accounts[0].ID, Login: s.Accounts[0].Login})
		cancel()
	}
	s.alive("questions that were given up")
}

// concurrency asks as many at once as the plugin says it can bear.
func concurrency(s *session) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Within)
	defer cancel()
	about, err := s.rpc.Describe(ctx)
	if err != nil {
		s.problem("Describe = %v", err)
		return
	}
	parallel := 64
	if about.MaxParallel > 0 {
		parallel = min(parallel, about.MaxParallel)
	}
	var wg sync.WaitGroup
	for worker := range parallel {
		wg.Go(func() {
			for round := range 10 {
				if len(s.Accounts) > 0 {
					s.expect("at once", s.Accounts[(worker+round)%len(s.Accounts)])
				}
			}
		})
	}
	wg.Wait()
	s.alive("many questions at once")
}

// noise sends what is no gRPC to the socket.
func noise(s *session) {
	for _, text := range []string{"", "\n", "GET / HTTP/1.0\r\n\r\n", strings.Repeat("\xff", 100_000)} {
		c, err := net.DialTimeout(s.addr.Network(), s.addr.String(), s.Within)
		if err != nil {
			s.problem("connecting to the plugin: %v", err)
			return
		}
		_ = c.SetDeadline(time.Now().Add(s.Within))
		_, _ = c.Write([]byte(text))
		_ = c.Close()
	}
	s.alive("noise on its socket")
}

// cleanExit asks the program to end. go-plugin gives it 2 seconds and kills it then.
func cleanExit(s *session) {
	s.alive("the start")
	ended := make(chan struct{})
	go func() {
		s.client.Kill()
		close(ended)
	}()
	began := time.Now()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		s.problem("the plugin has not ended within 10 s: does a program that it started hold its standard output or error?")
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		return
	}
	took := time.Since(began)
	if s.NoShutdown {
		return
	}
	if took > time.Second {
		s.problem("the plugin ended %v after it was asked to, and the daemon waits half a second", took)
	}
	if state := s.cmd.ProcessState; state != nil && !state.Success() {
		s.problem("the plugin ended with %v when it was asked to end", state)
	}
	if left, err := os.ReadDir(s.dir); err == nil && len(left) > 0 {
		s.problem("the plugin left %v in $PLUGIN_UNIX_SOCKET_DIR", left[0].Name())
	}
}

// byHand starts the program as a person would, without the daemon's cookie.
func byHand(cfg *Config) []error {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return []error{err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, cfg.Args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}, cfg.Env...)
	cmd.WaitDelay = time.Second
	var out, errOut tail
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return []error{errors.New("started by hand, without the cookie, the program does not end; it should say that it is a plugin")}
	case !errors.As(err, &exit):
		return []error{fmt.Errorf("started by hand, without the cookie, the program ended with %v, want a failure", err)}
	case errOut.tail() == "":
		return []error{errors.New("started by hand, the program says nothing on standard error")}
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b[max(0, len(b)-tailBytes):]...)
	t.b = t.b[max(0, len(t.b)-tailBytes):]
	return len(b), nil
}

func (t *tail) tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
