package dovecot

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

type acceptAll struct{}

func (acceptAll) Authenticate(_ context.Context, req auth.Request) (auth.Decision, error) {
	return auth.Decision{OK: true, Login: req.Login}, nil
}

// BenchmarkLogin is one PLAIN login as Postfix sends it, over Unix sockets with one request in flight on each
// connection. BenchmarkEcho moves the same bytes and does nothing else: the floor.
func BenchmarkLogin(b *testing.B) {
	address := filepath.Join(b.TempDir(), "auth")
	l, err := net.Listen("unix", address)
	if err != nil {
		b.Fatal(err)
	}
	s := New(Config{}, acceptAll{}, slog.New(slog.DiscardHandler))
	go s.Serve(l)
	defer s.Shutdown(context.Background())
	askAll(b, address, true)
}

func BenchmarkEcho(b *testing.B) {
	address := filepath.Join(b.TempDir(), "auth")
	l, err := net.Listen("unix", address)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				buf := make([]byte, 1024)
				for {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					// As many bytes out as the login has.
					if _, err := nc.Write(buf[:min(n, len(benchReply))]); err != nil {
						return
					}
				}
			}()
		}
	}()
	askAll(b, address, false)
}

const (
	benchRequest = "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.1\trip=203.0.113.9\tresp=AGFsaWNlAGFiY2QtZWZnaC1pamtsLW1ub3A=\n"
	benchReply   = "OK\t1\tuser=alice\n"
)

func askAll(b *testing.B, address string, handshake bool) {
	for _, conns := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) { ask(b, address, conns, handshake) })
	}
}

// ask keeps connections busy with benchRequest.
func ask(b *testing.B, address string, conns int, handshake bool) {
	var ready, done sync.WaitGroup
	begin := make(chan struct{})
	for i := range conns {
		n := b.N / conns
		if i < b.N%conns {
			n++
		}
		nc, err := net.Dial("unix", address)
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		ready.Add(1)
		done.Go(func() {
			buf := make([]byte, 1024)
			if handshake {
				io.WriteString(nc, "VERSION\t1\t0\nCPID\t4711\n")
				nc.Read(buf)
			}
			ready.Done()
			<-begin
			request := []byte(benchRequest)
			for range n {
				if _, err := nc.Write(request); err != nil {
					b.Error(err)
					return
				}
				got, err := nc.Read(buf)
				if err != nil || got != len(benchReply) {
					b.Errorf("read %d bytes, %v, want %d", got, err, len(benchReply))
					return
				}
			}
		})
	}
	ready.Wait()
	b.ReportAllocs()
	b.ResetTimer()
	close(begin)
	done.Wait()
	b.StopTimer()
}
