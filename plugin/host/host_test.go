package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
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

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/plugin"
)

// daemonVar makes the test program a daemon with a host, for the test that kills it.
const daemonVar = "VALETKEY_TEST_DAEMON"

var fake string // the built testdata/fake

func TestMain(m *testing.M) {
	if args := os.Getenv(daemonVar); args != "" {
		beDaemon(args)
	}
	dir, err := os.MkdirTemp("", "fake")
	if err != nil {
		panic(err)
	}
	fake = filepath.Join(dir, "fake")
	if out, err := exec.Command("go", "build", "-o", fake, "./testdata/fake").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the fake plugin: %v\n%s", err, out)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// beDaemon runs a host until it is killed, and prints the plugin's process id.
func beDaemon(args string) {
	path, dir, _ := strings.Cut(args, "|")
	h, err := New(Config{Path: path, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	if _, _, err := h.Enrolled(context.Background(), 1, "alice", nil); err != nil {
		panic(err)
	}
	fmt.Println(h.Stats().PID)
	select {}
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// rig is a host with a fake plugin.
type rig struct {
	*Host
	notes string
	log   *syncBuffer
}

// newRig starts a host whose plugin behaves by mode. change may be nil.
func newRig(t *testing.T, mode string, change func(*Config)) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "vk") // shorter than t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("the host left %v (%v) in its folder", left, err)
		}
		os.RemoveAll(dir)
	})
	r := &rig{notes: t.TempDir(), log: &syncBuffer{}}
	cfg := Config{
		Path: fake, Args: []string{mode, r.notes}, Dir: dir, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	if r.Host, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pid := r.Stats().PID
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if pid != 0 && exists(pid) {
			t.Errorf("the plugin %d is still there after Close", pid)
		}
		if zombies := zombiesOf(os.Getpid()); len(zombies) > 0 {
			t.Errorf("zombies: %v", zombies)
		}
		if t.Failed() {
			t.Logf("log:\n%s", auth.Clip(r.log.String(), 20000))
		}
	})
	return r
}

const patience = 20 * time.Second

// eventually waits until f is true and returns how long that took.
func eventually(t *testing.T, what string, f func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(began)
}

func (r *rig) up(t *testing.T) Stats {
	t.Helper()
	eventually(t, "the plugin runs", func() bool { return r.Stats().Up })
	return r.Stats()
}

// note reads what the fake wrote.
func (r *rig) note(t *testing.T, name string) string {
	t.Helper()
	var b []byte
	eventually(t, "the note "+name, func() bool {
		var err error
		b, err = os.ReadFile(filepath.Join(r.notes, name))
		return err == nil
	})
	return string(b)
}

func (r *rig) calls() int {
	b, _ := os.ReadFile(filepath.Join(r.notes, "calls"))
	return bytes.Count(b, []byte("\n"))
}

// state returns the state letter of a process, "" if there is none.
func state(pid int) (letter string, parent int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	parent, _ = strconv.Atoi(f[1])
	return f[0], parent
}

// freeze stops a process and returns when all its threads have stopped, which takes a moment.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is frozen", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, file := range threads {
			b, _ := os.ReadFile(file)
			if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 0 && f[0] != "T" {
				return false
			}
		}
		return err == nil
	})
}

func exists(pid int) bool {
	letter, _ := state(pid)
	return letter != "" && letter != "Z"
}

func zombiesOf(parent int) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if letter, p := state(pid); letter == "Z" && p == parent {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func TestAnswers(t *testing.T) {
	r := newRig(t, "", nil)
	for _, tt := range []struct {
		login  string
		want   bool
		status plugin.Status
		reason string
	}{
		{"alice", true, plugin.Enrolled, "totp"},
		{"bob", false, plugin.NotEnrolled, "no_token"},
		{"carol", true, plugin.Exempt, ""},
		{"dave", false, plugin.AccountUnknown, ""},
	} {
		id := int64(len(tt.login)*1000 + int(tt.login[0]))
		got, _, err := r.Enrolled(t.Context(), id, tt.login, nil)
		if err != nil || got != tt.want {
			t.Errorf("Enrolled(%s) = %v, %v, want %v", tt.login, got, err, tt.want)
		}
		res, err := r.Check(t.Context(), id, tt.login, false)
		if err != nil || res.Source != FromCache || res.Answer.Status != tt.status || res.Answer.ReasonCode != tt.reason {
			t.Errorf("Check(%s) = %+v, %v, want status %v, reason %q from the cache", tt.login, res, err, tt.status, tt.reason)
		}
		if res, err = r.MayIssue(t.Context(), id, tt.login); err != nil || res.Source != FromPlugin || res.Allowed != tt.want {
			t.Errorf("MayIssue(%s) = %+v, %v, want it asked anew", tt.login, res, err)
		}
	}
	for _, login := range []string{"fails", "panics", "zero"} {
		if got, _, err := r.Enrolled(t.Context(), int64(len(login)), login, nil); err == nil || got {
			t.Errorf("Enrolled(%s) = %v, %v, want an error", login, got, err)
		} else if len(err.Error()) > 600 {
			t.Errorf("Enrolled(%s): an error of %d bytes", login, len(err.Error()))
		}
	}
	s := r.Stats()
	if !s.Up || s.Name != "fake" || s.Version != "1.2.3" || s.Ended != 0 || s.Known != 4 || s.Errors["plugin_error"] != 3 {
		t.Errorf("Stats = %+v", s)
	}
}

// A cold check costs one question however many ask.
func TestSingleFlight(t *testing.T) {
	r := newRig(t, "", nil)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if ok, _, err := r.Enrolled(t.Context(), 7, "waits", nil); !ok || err != nil {
				t.Errorf("Enrolled = %v, %v", ok, err)
			}
		})
	}
	wg.Wait()
	if n := r.calls(); n != 1 {
		t.Errorf("the plugin was asked %d times, want 1", n)
	}
}

// Whoever asked first may go; the question goes on for the others.
func TestImpatientLeader(t *testing.T) {
	r := newRig(t, "", nil)
	r.up(t)
	gone, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, _, err := r.Enrolled(gone, 7, "waits", nil)
		left <- err
	}()
	eventually(t, "the question is under way", func() bool { return r.Stats().Waiting == 1 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left got %v, want context.Canceled", err)
	}
	if ok, _, err := r.Enrolled(t.Context(), 7, "waits", nil); !ok || err != nil {
		t.Errorf("Enrolled = %v, %v", ok, err)
	}
	if n := r.calls(); n != 1 {
		t.Errorf("the plugin was asked %d times, want 1", n)
	}
}

// faults end or freeze a plugin that runs. Accounts with a known answer go on, and it is healthy again within 2 seconds.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name, mode string
		fault      func(t *testing.T, r *rig, pid int)
	}{
		{"kill -9", "", func(t *testing.T, r *rig, pid int) { syscall.Kill(pid, syscall.SIGKILL) }},
		{"SIGSTOP", "", func(t *testing.T, r *rig, pid int) { freeze(t, pid) }},
		{"SIGTERM", "", func(t *testing.T, r *rig, pid int) { syscall.Kill(pid, syscall.SIGTERM) }},
		{"exit in a check", "", func(t *testing.T, r *rig, pid int) {
			if ok, _, err := r.Enrolled(t.Context(), 99, "exits", nil); ok || err == nil {
				t.Errorf("Enrolled = %v, %v, want an error", ok, err)
			}
		}},
		{"kill -9 with a grandchild that holds the pipes", "grandchild", func(t *testing.T, r *rig, pid int) {
			syscall.Kill(pid, syscall.SIGKILL)
			child, _ := strconv.Atoi(r.note(t, "grandchild"))
			eventually(t, "the grandchild is gone", func() bool { return !exists(child) })
		}},
		{"kill -9 with one out of reach", "daemonised", func(t *testing.T, r *rig, pid int) { syscall.Kill(pid, syscall.SIGKILL) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.mode, nil)
			s := r.up(t)
			if ok, _, err := r.Enrolled(t.Context(), 1, "brief", nil); !ok || err != nil {
				t.Fatalf("Enrolled before the fault = %v, %v", ok, err)
			}
			began := time.Now()
			tt.fault(t, r, s.PID)
			// Known accounts get in all the time, whether or not their answer has run out.
			eventually(t, "another run", func() bool {
				if ok, _, err := r.Enrolled(t.Context(), 1, "brief", nil); !ok || err != nil {
					t.Fatalf("Enrolled(known) during the fault = %v, %v", ok, err)
				}
				now := r.Stats()
				return now.Up && now.PID != s.PID
			})
			if ok, _, err := r.Enrolled(t.Context(), 2, "alice", nil); !ok || err != nil {
				t.Errorf("Enrolled(unknown) after the fault = %v, %v", ok, err)
			}
			took := time.Since(began)
			if took > 2*time.Second {
				t.Errorf("healthy again after %v, want 2 s at most", took)
			}
			t.Logf("healthy again after %v", took)
			if exists(s.PID) {
				t.Errorf("the old plugin is still there")
			}
		})
	}
}

// A login in the moment of a crash waits for the next run and gets its answer.
func TestCrashIsBridged(t *testing.T) {
	r := newRig(t, "", nil)
	s := r.up(t)
	asked := make(chan error)
	go func() {
		ok, _, err := r.Enrolled(t.Context(), 5, "waits", nil)
		if !ok && err == nil {
			err = errors.New("refused")
		}
		asked <- err
	}()
	eventually(t, "the question arrived", func() bool { return r.calls() == 1 })
	syscall.Kill(s.PID, syscall.SIGKILL)
	if err := <-asked; err != nil {
		t.Errorf("Enrolled over a crash: %v", err)
	}
	if n := r.calls(); n != 2 {
		t.Errorf("the plugin was asked %d times, want 2", n)
	}
}

// A frozen plugin delays nobody beyond the timeout, and a caller's own deadline counts.
func TestFrozenIsBounded(t *testing.T) {
	r := newRig(t, "", func(c *Config) {
		c.HealthEvery = time.Hour
		c.HealthWithin = time.Hour
		c.Timeout = 300 * time.Millisecond
	})
	s := r.up(t)
	freeze(t, s.PID)
	began := time.Now()
	ok, _, err := r.Enrolled(t.Context(), 1, "alice", nil)
	if took := time.Since(began); ok || err == nil || took > 2*time.Second {
		t.Errorf("Enrolled = %v, %v after %v, want an error after 300ms", ok, err, took)
	}
	for i := range 10 { // until the breaker opens
		_, _, _ = r.Enrolled(t.Context(), int64(10+i), "alice", nil)
	}
	st := r.Stats()
	if !st.Open || st.Errors["breaker_open"] == 0 || st.Errors["timeout"] < 5 {
		t.Errorf("Stats = %+v, want an open breaker after 5 timeouts", st)
	}
	began = time.Now()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("Close of a frozen plugin took %v", took)
	}
	if exists(s.PID) {
		t.Error("the frozen plugin is still there after Close")
	}
}

// What never gets to a handshake is reported in a sentence, costs no memory, and is ended.
func TestBadStarts(t *testing.T) {
	for _, tt := range []struct{ mode, want string }{
		{"garbage", "Welcome to my plugin!"},
		{"endless", "Unrecognized remote plugin message"},
		{"silent", "did not start within 1s"},
		{"deaf", "did not start within 1s"},
		{"elsewhere", "not a Unix socket in the folder"},
		{"old", "incompatible API version"},
		{"exit", "starting"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			r := newRig(t, tt.mode, func(c *Config) { c.StartTimeout = time.Second })
			before := heap()
			eventually(t, "the problem is told", func() bool { return strings.Contains(r.Stats().Problem, tt.want) })
			if ok, _, err := r.Enrolled(t.Context(), 1, "alice", nil); ok || err == nil {
				t.Errorf("Enrolled = %v, %v, want an error", ok, err)
			}
			if grown := heap() - before; grown > 8<<20 {
				t.Errorf("the heap grew by %d bytes", grown)
			}
			for _, line := range strings.Split(r.log.String(), "\n") {
				if len(line) > lineBytes+200 || strings.Contains(line, "\x1b") {
					t.Errorf("a bad line in the log: %.300q", line)
				}
			}
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// A slow start is waited for within the time of a question.
func TestSlowStart(t *testing.T) {
	r := newRig(t, "slow", func(c *Config) { c.Timeout = 5 * time.Second })
	if ok, _, err := r.Enrolled(t.Context(), 1, "alice", nil); !ok || err != nil {
		t.Errorf("Enrolled during the start = %v, %v", ok, err)
	}
	impatient := newRig(t, "slow", func(c *Config) { c.Timeout = 50 * time.Millisecond })
	if ok, _, err := impatient.Enrolled(t.Context(), 1, "alice", nil); ok || err == nil {
		t.Errorf("Enrolled during the start = %v, %v, want an error", ok, err)
	}
	impatient.up(t)
}

// What breaks the limits of an answer is an error, and no memory.
func TestBadAnswers(t *testing.T) {
	r := newRig(t, "raw", func(c *Config) { c.Timeout = 10 * time.Second })
	s := r.up(t)
	for n, tt := range []struct{ login, reason string }{
		{"huge", "too_large"}, {"status", "bad_answer"}, {"unspecified", "bad_answer"}, {"reason", "bad_answer"}, {"error", ""},
	} {
		before := heap()
		ok, _, err := r.Enrolled(t.Context(), int64(n), tt.login, nil)
		if ok || err == nil || len(err.Error()) > 600 {
			t.Errorf("Enrolled(%s) = %v, %.700v, want a short error", tt.login, ok, err)
		}
		if grown := heap() - before; grown > 8<<20 {
			t.Errorf("%s: the heap grew by %d bytes", tt.login, grown)
		}
		if tt.reason != "" && r.Stats().Errors[tt.reason] == 0 {
			t.Errorf("%s: Stats.Errors = %v, want %s counted", tt.login, r.Stats().Errors, tt.reason)
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.Sys > 300<<20 {
		t.Errorf("the host took %d MiB from the system", m.Sys>>20)
	}
	if ok, _, err := r.Enrolled(t.Context(), 100, "fine", nil); r.Stats().PID == s.PID && (!ok || err != nil) && !r.Stats().Open {
		t.Errorf("Enrolled after bad answers = %v, %v", ok, err)
	}
}

func TestFlood(t *testing.T) {
	for _, mode := range []string{"flood", "flood-stdio"} {
		t.Run(mode, func(t *testing.T) {
			r := newRig(t, mode, nil)
			s := r.up(t)
			r.note(t, "flooded") // never blocked
			if ok, _, err := r.Enrolled(t.Context(), 1, "alice", nil); !ok || err != nil {
				t.Errorf("Enrolled = %v, %v", ok, err)
			}
			log := r.log.String()
			if len(log) > 4<<20 {
				t.Errorf("the log has %d bytes", len(log))
			}
			if strings.Contains(log, "\x1b") {
				t.Error("a control character got into the log")
			}
			if mode == "flood" && r.Stats().LinesDropped < 1_000_000 {
				t.Errorf("LinesDropped = %d of 2,000,000", r.Stats().LinesDropped)
			}
			if now := r.Stats(); now.PID != s.PID || !now.Up {
				t.Errorf("the flood ended the plugin: %+v", now)
			}
		})
	}
}

func TestChecksum(t *testing.T) {
	bin := t.TempDir()
	path := filepath.Join(bin, "plugin")
	program, err := os.ReadFile(fake)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	r := newRig(t, "", func(c *Config) { c.Path, c.SHA256 = path, sum })
	s := r.up(t)
	if ok, _, err := r.Enrolled(t.Context(), 1, "alice", nil); !ok || err != nil {
		t.Fatalf("Enrolled = %v, %v", ok, err)
	}
	// Started again with the same checksum, which go-plugin's own check fails at.
	syscall.Kill(s.PID, syscall.SIGKILL)
	eventually(t, "another run", func() bool { now := r.Stats(); return now.Up && now.PID != s.PID })

	// Replaced: what runs goes on; the next start is refused, and a known account still gets in.
	if err := os.WriteFile(path+".new", append(program, '\n'), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if res, err := r.MayIssue(t.Context(), 1, "alice"); err != nil || res.Source != FromPlugin {
		t.Errorf("MayIssue with a replaced program = %+v, %v", res, err)
	}
	syscall.Kill(r.Stats().PID, syscall.SIGKILL)
	eventually(t, "the refusal", func() bool { return strings.Contains(r.Stats().Problem, "another checksum") })
	if res, err := r.MayIssue(t.Context(), 1, "alice"); err != nil || !res.Allowed || res.Source != FromLastKnown {
		t.Errorf("MayIssue of a known account = %+v, %v, want it allowed by what was known", res, err)
	}
	if ok, _, err := r.Enrolled(t.Context(), 2, "alice", nil); ok || err == nil {
		t.Errorf("Enrolled of another account = %v, %v, want an error", ok, err)
	}
	// Put back: it heals by itself.
	if err := os.WriteFile(path+".new", program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	r.up(t)
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	path := func(name string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	inOpen := path("open/p", 0o755)
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(open, "deep")
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	inDeep := path("open/deep/p", 0o755)
	good := path("good", 0o755)
	linkInOpen := filepath.Join(open, "link")
	if err := os.Symlink(good, linkInOpen); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(inOpen, link); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("x"))
	for _, tt := range []struct {
		name, path string
		sum        []byte
		want       string // part of the error; empty: none
	}{
		{"plain", path("p", 0o755), nil, ""},
		{"pinned", path("p", 0o755), sum[:], ""},
		{"another", path("p", 0o755), make([]byte, 32), "another checksum"},
		{"group may write", path("g", 0o775), nil, "can be written"},
		{"all may write", path("w", 0o757), sum[:], "can be written"},
		{"folder", dir, nil, "not a plain file"},
		{"in a folder that all may write", inOpen, nil, "can be written"},
		{"link into one", link, nil, "can be written"},
		{"link in one", linkInOpen, nil, "can be written"},
		{"below one", inDeep, nil, "can be written"},
		{"none", filepath.Join(dir, "none"), nil, "no such file"},
	} {
		_, err := verify(tt.path, tt.sum)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: verify = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// The plugin sees nothing of the daemon: no variable, no open file, no standard input.
func TestIsolation(t *testing.T) {
	t.Setenv("PGPASSWORD", "hunter2")
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	// A descriptor that whoever started the daemon left open, without the flag that Go sets.
	var pair [2]int
	if err := syscall.Pipe(pair[:]); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	r := newRig(t, "environment", func(c *Config) { c.Env = []string{"SITE=example"} })
	r.up(t)
	for _, line := range strings.Split(r.note(t, "environment"), "\n") {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "LANG", "SITE", plugin.CookieKey, "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS",
			"PLUGIN_UNIX_SOCKET_DIR":
		default:
			t.Errorf("the plugin has the variable %q", line)
		}
	}
	if got := r.note(t, "stdin"); got != "0 bytes, <nil>" {
		t.Errorf("standard input of the plugin: %s", got)
	}
	if got := r.note(t, "wd"); got != "/" {
		t.Errorf("working folder of the plugin: %s", got)
	}
	for _, line := range strings.Split(r.note(t, "descriptors"), "\n") {
		fd, target, _ := strings.Cut(line, " ")
		if n, _ := strconv.Atoi(fd); n > 2 && (strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "socket:")) {
			t.Errorf("the plugin inherited %s", line)
		}
	}
}

// A plugin that was asked to end and does not is ended.
func TestStop(t *testing.T) {
	for _, mode := range []string{"", "stubborn", "grandchild", "silent"} {
		t.Run(mode, func(t *testing.T) {
			r := newRig(t, mode, nil)
			pid := 0
			if mode != "silent" {
				pid = r.up(t).PID
			}
			began := time.Now()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 1500*time.Millisecond {
				t.Errorf("Close took %v", took)
			}
			if pid != 0 && exists(pid) {
				t.Error("still there")
			}
			if ok, _, err := r.Enrolled(t.Context(), 1, "alice", nil); ok || err == nil {
				t.Errorf("Enrolled after Close = %v, %v, want an error", ok, err)
			}
		})
	}
}

// The plugin dies with a daemon that is killed.
func TestDaemonKilled(t *testing.T) {
	dir, err := os.MkdirTemp("", "vk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	daemon := exec.Command(os.Args[0])
	daemon.Env = append(os.Environ(), daemonVar+"="+fake+"|"+dir)
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	daemon.Stderr = os.Stderr
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	if err == nil && !exists(pid) {
		err = fmt.Errorf("no process %d", pid)
	}
	_ = daemon.Process.Kill()
	_ = daemon.Wait()
	if err != nil {
		t.Fatalf("the daemon did not get going: %v", err)
	}
	took := eventually(t, "the plugin is gone", func() bool { return !exists(pid) })
	t.Logf("gone after %v", took)

	// It had no time to remove its folder; the next daemon does.
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Fatalf("the killed daemon left %v (%v), want one folder", left, err)
	}
	h, err := New(Config{Path: fake, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := h.Enrolled(t.Context(), 1, "alice", nil); !ok || err != nil {
		t.Errorf("Enrolled = %v, %v", ok, err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

// No goroutine and no descriptor is left of runs that ended.
func TestNoLeak(t *testing.T) {
	r := newRig(t, "", nil)
	descriptors := func() int {
		entries, _ := os.ReadDir("/proc/self/fd")
		return len(entries)
	}
	crash := func() {
		pid := r.up(t).PID
		syscall.Kill(pid, syscall.SIGKILL)
		eventually(t, "another run", func() bool { now := r.Stats(); return now.Up && now.PID != pid })
	}
	crash()
	goroutines, open := runtime.NumGoroutine(), descriptors()
	for range 3 {
		crash()
	}
	eventually(t, "the goroutines and descriptors are gone", func() bool {
		return runtime.NumGoroutine() <= goroutines+2 && descriptors() <= open+2
	})
}
