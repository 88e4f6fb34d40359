package wire

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// daemon listens on a socket and lets script talk with each peer. What script keeps open is closed at the end.
func daemon(t *testing.T, script func(net.Conn)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				script(nc)
			}()
		}
	}()
	return path
}

func takeRequest(nc net.Conn) {
	var header [HeaderSize]byte
	io.ReadFull(nc, header[:])
	n, _ := RequestLength(header)
	io.CopyN(io.Discard, nc, int64(n))
}

func say(pieces ...string) func(net.Conn) {
	return func(nc net.Conn) {
		takeRequest(nc)
		for _, p := range pieces {
			io.WriteString(nc, p)
		}
	}
}

var request = Request{Op: Login, User: "alice", Password: "secret", Service: "imap"}

func TestAskGetsTheReply(t *testing.T) {
	whole := "\x01A\x00\x17\x00\x05alice\x00\x03uid\x00\x018\x00\x04free\x00\x00"
	bytewise := make([]string, len(whole))
	for i := range whole {
		bytewise[i] = whole[i : i+1]
	}
	for _, c := range []struct {
		name   string
		pieces []string
		want   Outcome
		fields int
	}{
		{"accepted", []string{whole}, Accepted, 2},
		{"in single bytes", bytewise, Accepted, 2},
		{"rejected", []string{"\x01R\x00\x00"}, Rejected, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply, err := Ask(daemon(t, say(c.pieces...)), request, time.Now().Add(time.Minute))
			if err != nil || reply.Outcome != c.want || len(reply.Fields) != c.fields {
				t.Errorf("Ask() = %+v, %v, want outcome %c with %d fields", reply, err, c.want, c.fields)
			}
		})
	}
}

// TestAskWithoutAReply: whatever the daemon does instead of replying is an error.
func TestAskWithoutAReply(t *testing.T) {
	hold := func(nc net.Conn) { io.Copy(io.Discard, nc) } // until the client is gone
	for _, c := range []struct {
		name   string
		script func(net.Conn)
		want   error
	}{
		{"hangs up at once", func(net.Conn) {}, nil}, // a reset or an end, as it comes
		{"hangs up after the request", say(), io.ErrUnexpectedEOF},
		{"hangs up in the header", say("\x01A\x00"), io.ErrUnexpectedEOF},
		{"hangs up in the fields", say("\x01A\x00\x17\x00\x05ali"), io.ErrUnexpectedEOF},
		{"says something else", say("NO\x00\x00"), ErrMalformed},
		{"announces too much", say("\x01A\xff\xff"), ErrMalformed},
		{"says nothing", hold, ErrTimeout},
		{"stops half-way", func(nc net.Conn) { say("\x01A\x00\x17\x00\x05a")(nc); hold(nc) }, ErrTimeout},
		{"trickles", func(nc net.Conn) {
			takeRequest(nc)
			io.WriteString(nc, "\x01A\x80\x00")
			for {
				if _, err := io.WriteString(nc, "\x00"); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}, ErrTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := daemon(t, c.script)
			patience := time.Minute
			if c.want == ErrTimeout {
				patience = 200 * time.Millisecond
			}
			reply, err := Ask(path, request, time.Now().Add(patience))
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("Ask() = %+v, %v, want %v", reply, err, c.want)
			}
			if reply.Outcome != 0 {
				t.Errorf("Ask() = %+v with an error, want the zero Reply", reply)
			}
		})
	}
}

func TestAskWithoutADaemon(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"no socket", filepath.Join(dir, "none"), syscall.ENOENT},
		{"nobody listens", stale, syscall.ECONNREFUSED},
	} {
		t.Run(c.name, func(t *testing.T) {
			if reply, err := Ask(c.path, request, time.Now().Add(time.Minute)); !errors.Is(err, c.want) {
				t.Errorf("Ask() = %+v, %v, want %v", reply, err, c.want)
			}
		})
	}
}

// TestAskWithAFullBacklog has a daemon that accepts nobody, and as many peers waiting as the kernel lets.
func TestAskWithAFullBacklog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	var last error
	for range 4 {
		_, last = Ask(path, request, time.Now().Add(100*time.Millisecond))
		if !errors.Is(last, ErrTimeout) {
			t.Fatalf("Ask() = %v, want ErrTimeout", last)
		}
		if e := new(Error); errors.As(last, &e) && e.Step == "connect to the daemon" {
			return
		}
		// The one that hung up stays in the backlog: nobody has accepted it.
	}
	t.Errorf("Ask() = %v, want the connecting to time out in the end", last)
}

func TestAskTooMuch(t *testing.T) {
	r := request
	r.Session = string(make([]byte, MaxRequest))
	if _, err := Ask("/nonexistent", r, time.Now().Add(time.Minute)); !errors.Is(err, ErrTooLong) {
		t.Errorf("Ask(a session of %d bytes) = %v, want ErrTooLong", MaxRequest, err)
	}
}
