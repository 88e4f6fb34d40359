package saslauthd

import (
	"context"
	"fmt"
	"io"
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

// BenchmarkLogin is one login as libsasl2 asks for it: connect, one write, the reply, close. BenchmarkEcho moves the same
// bytes and does nothing else: the floor.
func BenchmarkLogin(b *testing.B) {
	path := filepath.Join(b.TempDir(), "mux")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	s := New(Config{}, acceptAll{}, discard)
	go s.Serve(l)
	defer s.Shutdown(context.Background())
	askAll(b, path)
}

func BenchmarkEcho(b *testing.B) {
	path := filepath.Join(b.TempDir(), "mux")
	l, err := net.Listen("unix", path)
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
				if _, err := nc.Read(buf); err == nil {
					io.WriteString(nc, replyOK)
				}
			}()
		}
	}()
	askAll(b, path)
}

func askAll(b *testing.B, path string) {
	for _, conns := range []int{1, 8} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) { ask(b, path, conns) })
	}
}

// ask makes b.N logins, conns at a time.
func ask(b *testing.B, path string, conns int) {
	request := []byte(counted("alice", "abcd-efgh-ijkl-mnop", "smtp", "example.org"))
	var done sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for i := range conns {
		n := b.N / conns
		if i < b.N%conns {
			n++
		}
		done.Go(func() {
			buf := make([]byte, 16)
			for range n {
				nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
				if err != nil {
					b.Error(err)
					return
				}
				nc.Write(request)
				got, err := io.ReadFull(nc, buf[:len(replyOK)])
				nc.Close()
				if err != nil {
					b.Errorf("read %d bytes, %v, want %d", got, err, len(replyOK))
					return
				}
			}
		})
	}
	done.Wait()
	b.StopTimer()
}
