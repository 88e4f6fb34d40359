package ldapbridge

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// idleConnections is how many connections the measurement opens.
const idleConnections = 2000

// TestIdleServer is the other process of TestIdleMemory: it serves, and answers each line on standard input by its resident size in
// KiB, at "settled" after the garbage is gone.
func TestIdleServer(t *testing.T) {
	mode := os.Getenv("VALETKEY_IDLE_SERVER")
	if mode == "" {
		return // not asked for: TestIdleMemory is the test
	}
	debug.SetGCPercent(400) // as valetkeyd
	debug.SetMemoryLimit(200 << 20)
	cfg := Config{BaseDN: testBase, Limits: Limits{Connections: 2 * idleConnections, ConnectionsPerSource: 2 * idleConnections}}
	if mode != "plain" {
		cfg.TLS, cfg.LDAPS = testTLS(t), mode == "ldaps"
	}
	s, err := New(cfg, forgetful{}, fakeDirectory{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t, "tcp", "127.0.0.1:0")
	go s.Serve(ln)
	fmt.Fprintln(os.Stderr, "address", ln.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "settled" {
			runtime.GC() // stacks shrink by half at each
			runtime.GC()
			debug.FreeOSMemory()
		}
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		var size int
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		fmt.Sscan(rest, &size)
		fmt.Fprintln(os.Stderr, "resident", size)
	}
}

// forgetful keeps no record of what it was asked.
type forgetful struct{}

// TestIdleMemory measures what a connection costs that has bound and waits, as the growth of the process.
//
// Measured were 7.6 KiB in clear and 17 with TLS. What is asserted leaves room for another runtime, and catches a buffer of 4 KiB
// that every connection keeps.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		return // it multiplies all sizes
	}
	for _, c := range []struct {
		mode string
		most int // KiB
	}{
		{"plain", 11}, {"starttls", 40}, {"ldaps", 40},
	} {
		t.Run(c.mode, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestIdleServer$", "-test.timeout=120s")
			cmd.Env = append(os.Environ(), "VALETKEY_IDLE_SERVER="+c.mode)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer stdin.Close()
			answers := bufio.NewReader(stderr)
			var addr string
			if _, err := fmt.Fscanf(answers, "address %s\n", &addr); err != nil {
				t.Fatal(err)
			}
			resident := func(when string) (kib int) {
				t.Helper()
				io.WriteString(stdin, when+"\n")
				if _, err := fmt.Fscanf(answers, "resident %d\n", &kib); err != nil {
					t.Fatal(err)
				}
				return kib
			}
			open := func(n int) []net.Conn {
				conns := make([]net.Conn, n)
				var wg sync.WaitGroup
				next := make(chan int)
				for range 16 {
					wg.Go(func() {
						for i := range next {
							nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
							if err != nil {
								t.Error(err)
								return
							}
							conns[i] = nc
							switch c.mode {
							case "starttls":
								nc = secure(t, nc)
							case "ldaps":
								nc = tls.Client(nc, trusting)
							}
							if r := ask(t, nc, bindReq(1, aliceDN, alicePass)); r.code != success {
								t.Errorf("bind = %v", r)
							}
						}
					})
				}
				for i := range n {
					next <- i
				}
				close(next)
				wg.Wait()
				return conns
			}
			for _, nc := range open(50) { // what is there but once
				nc.Close()
			}
			before := resident("settled")
			conns := open(idleConnections)
			raw := resident("as it is") - before
			grown := resident("settled") - before
			for _, nc := range conns {
				nc.Close()
			}
			per := func(kib int) float64 { return float64(kib) / idleConnections }
			t.Logf("%s: %.1f KiB a connection, %.1f before the garbage is collected", c.mode, per(grown), per(raw))
			if per(grown) > float64(c.most) {
				t.Errorf("%s: %.1f KiB a connection, want at most %d", c.mode, per(grown), c.most)
			}
		})
	}
}

// Authenticate decides as the fake does.
func (forgetful) Stands(context.Context, *auth.Standing) (auth.Reason, error) {
	return auth.Accepted, nil
}

func (forgetful) Refused(context.Context, auth.Request) {}

func (forgetful) Authenticate(_ context.Context, req auth.Request) (auth.Decision, error) {
	return decideFake(req)
}
