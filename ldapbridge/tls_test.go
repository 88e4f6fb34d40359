package ldapbridge

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/auth"
)

func startTLSReq(id int32, more ...[]byte) []byte {
	return pdu(id, cons(opExtendedRequest, append([][]byte{tagged(0x80, oidStartTLS)}, more...)...))
}

var trusting = &tls.Config{InsecureSkipVerify: true}

// secure asks for StartTLS and returns the connection after the handshake.
func secure(t testing.TB, nc net.Conn) *tls.Conn {
	t.Helper()
	if r := ask(t, nc, startTLSReq(7)); r.code != success || r.id != 7 || r.name != oidStartTLS || r.hasVal {
		t.Fatalf("StartTLS = %v, want 0 with its own name", r)
	}
	c := tls.Client(nc, trusting)
	if err := c.Handshake(); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return c
}

func TestStartTLS(t *testing.T) {
	s, a, _ := newTestServer(t, Config{TLS: testTLS(t), RequireTLS: true})
	addr := startServer(t, s, listen(t, "tcp", "127.0.0.1:0"))
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if r := ask(t, nc, bindReq(1, aliceDN, alicePass)); r.code != confidentialityRequired {
		t.Errorf("bind in clear = %v, want 13", r)
	}
	if n := len(a.asked()); n != 0 {
		t.Errorf("the password was looked at %d times before TLS, want never", n)
	}
	c := secure(t, nc)
	if r := ask(t, c, startTLSReq(8)); r.code != operationsError || r.diag != "TLS already started" {
		t.Errorf("second StartTLS = %v, want 1", r)
	}
	if r := ask(t, c, bindReq(9, aliceDN, alicePass)); r.code != success {
		t.Errorf("bind over TLS = %v, want 0", r)
	}
	if req := a.asked(); len(req) != 1 || req[0].TLS != auth.TLSYes || req[0].Addr.String() != "127.0.0.1" {
		t.Errorf("requests = %+v, want one over TLS from 127.0.0.1", req)
	}
	if r := ask(t, c, startTLSReq(10)); r.code != operationsError {
		t.Errorf("StartTLS after the bind = %v, want 1", r)
	}
	if r := ask(t, c, whoami(11)); r.value != "dn:"+aliceDN {
		t.Errorf("WhoAmI after a refused StartTLS = %v, want alice", r)
	}
	// The end of TLS is the end of the connection (RFC 4511 section 4.14.3).
	c.CloseWrite()
	nc.Write(whoami(12))
	nc.SetReadDeadline(time.Now().Add(30 * time.Second))
	rest, err := io.ReadAll(nc)
	if replies, bad := parseReplies(rest); err != nil && isTimeout(err) || bad == nil && len(replies) > 0 {
		t.Errorf("in clear after TLS: %v, %v, want the end", replies, err)
	}
}

// Every case plays in clear. In those that are refused the connection goes on as before.
func TestStartTLSRefused(t *testing.T) {
	conf := testTLS(t)
	unix := &net.UnixAddr{Name: "/run/ldap", Net: "unix"}
	for _, c := range []struct {
		name   string
		cfg    Config
		remote net.Addr
		in     [][]byte
		want   []string
	}{
		{"no certificate", Config{}, nil, [][]byte{startTLSReq(1)}, []string{`1 0x78 2 "StartTLS is not supported"`}},
		{"Unix socket", Config{TLS: conf}, unix, [][]byte{startTLSReq(1)}, []string{`1 0x78 2 "StartTLS is not supported"`}},
		{"with a value", Config{TLS: conf}, nil, [][]byte{startTLSReq(1, tagged(0x81, "x"))}, []string{`1 0x78 2 "no request value expected" "` + oidStartTLS + `"`}},
		{"unknown critical control", Config{TLS: conf}, nil, [][]byte{pdu(1, cons(opExtendedRequest, tagged(0x80, oidStartTLS)), controls(ctl(str("1.2.3"), yes)))},
			[]string{`1 0x78 12 "` + oidStartTLS + `"`}},
		{"a request behind it", Config{TLS: conf}, nil, [][]byte{startTLSReq(1), whoami(2)},
			[]string{`1 0x78 1 "cannot start TLS when operations are outstanding" "` + oidStartTLS + `"`, `2 0x78 0`}},
		{"part of a request behind it", Config{TLS: conf}, nil, [][]byte{startTLSReq(1), whoami(2)[:1]},
			[]string{`1 0x78 1 "cannot start TLS when operations are outstanding" "` + oidStartTLS + `"`}},
		{"unbind behind it", Config{TLS: conf}, nil, [][]byte{startTLSReq(1), unbind(2)},
			[]string{`1 0x78 1 "cannot start TLS when operations are outstanding" "` + oidStartTLS + `"`}},
		{"identity stays when it is refused", Config{TLS: conf}, nil, [][]byte{bindReq(1, aliceDN, alicePass), startTLSReq(2), whoami(3)},
			[]string{`1 0x61 0`, `2 0x78 1 "cannot start TLS when operations are outstanding" "` + oidStartTLS + `"`, `3 0x78 0 "dn:` + aliceDN + `"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, _ := newTestServer(t, c.cfg)
			var got []string
			for _, r := range talkOn(t, s, &memConn{in: bytes.Join(c.in, nil), remote: c.remote}) {
				got = append(got, r.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("answers = %q, want %q", got, c.want)
			}
		})
	}
}

// What was said in clear, by whomever, is forgotten (RFC 4513 section 3.1.5): the identity, and all that came with it.
func TestStartTLSForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{TLS: testTLS(t)})
		nc := serveTest(t, s).dial("192.0.2.1:1")
		defer nc.Close()
		if r := ask(t, nc, bindReq(1, aliceDN, alicePass)); r.code != success {
			t.Fatalf("bind = %v", r)
		}
		c := secure(t, nc)
		if r := ask(t, c, whoami(2)); r.code != success || r.value != "" {
			t.Errorf("WhoAmI after StartTLS = %v, want anonymous", r)
		}
		if r := ask(t, c, searchReq(3, searchSpec{base: aliceDN})); r.code != insufficientAccess {
			t.Errorf("search after StartTLS = %v, want 50", r)
		}
		start := time.Now() // the patience with one who bound is forgotten, too
		if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil || time.Since(start) > 31*time.Second {
			t.Errorf("silence: % x, %v after %v, want the end of an anonymous connection, told as TLS does", rest, err, time.Since(start))
		}
	})
}

// Clear text that arrives between the request and the handshake is never taken for what came through TLS. It is in the socket, not in
// our buffer, so it meets the handshake.
func TestStartTLSInjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, _ := newTestServer(t, Config{TLS: testTLS(t)})
		nc := serveTest(t, s).dial("192.0.2.1:1")
		defer nc.Close()
		if r := ask(t, nc, startTLSReq(1)); r.code != success {
			t.Fatalf("StartTLS = %v", r)
		}
		go nc.Write(bindReq(2, aliceDN, alicePass)) // a pipe's Write waits for the reader
		got, _ := io.ReadAll(nc)
		if replies, err := parseReplies(got); err == nil && len(replies) > 0 {
			t.Errorf("answers in clear after StartTLS = %v, want none", replies)
		}
		if n := len(a.asked()); n != 0 {
			t.Errorf("the injected bind was decided %d times, want never", n)
		}
		if got := s.Stats(); got.HandshakesFailed != 1 {
			t.Errorf("Stats = %+v, want one failed handshake", got)
		}
	})
}

func TestRootDSEOffersStartTLS(t *testing.T) {
	conf := testTLS(t)
	extensions := func(t *testing.T, nc net.Conn) []string {
		t.Helper()
		nc.Write(searchReq(1, searchSpec{attrs: []string{"supportedExtension"}}))
		e := readReply(t, nc)
		readReply(t, nc)
		return e.attrs["supportedExtension"]
	}
	for _, c := range []struct {
		name string
		cfg  Config
		tls  bool // asked after StartTLS, or LDAPS
		want bool
	}{
		{"no certificate", Config{}, false, false},
		{"StartTLS", Config{TLS: conf}, false, true},
		{"StartTLS done", Config{TLS: conf}, true, false},
		{"LDAPS", Config{TLS: conf, LDAPS: true}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, _ := newTestServer(t, c.cfg)
			nc, err := net.Dial("tcp", startServer(t, s, listen(t, "tcp", "127.0.0.1:0")))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if c.cfg.LDAPS {
				nc = tls.Client(nc, trusting)
			} else if c.tls {
				nc = secure(t, nc)
			}
			if got := slices.Contains(extensions(t, nc), oidStartTLS); got != c.want {
				t.Errorf("StartTLS offered: %v, want %v", got, c.want)
			}
		})
	}
}

func TestRequireTLSOnLoopback(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
	for _, c := range []struct {
		name   string
		trust  bool
		remote net.Addr
		want   resultCode
	}{
		{"trusted", true, loopback, success},
		{"trusted, IPv6", true, &net.TCPAddr{IP: net.IPv6loopback, Port: 1}, success},
		{"not trusted", false, loopback, confidentialityRequired},
		{"from elsewhere", true, nil, confidentialityRequired},
		{"Unix socket", false, &net.UnixAddr{Net: "unix"}, success},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, _ := newTestServer(t, Config{TLS: testTLS(t), RequireTLS: true, TrustLoopback: c.trust})
			got := talkOn(t, s, &memConn{in: bindReq(1, aliceDN, alicePass), remote: c.remote})
			if len(got) != 1 || got[0].code != c.want {
				t.Errorf("bind = %v, want %d", got, c.want)
			}
		})
	}
}

func TestHandshakeThatStalls(t *testing.T) {
	hello := clientHello(t)
	for _, c := range []struct {
		name string
		cfg  Config
		send []byte
	}{
		{"nothing", Config{}, nil},
		{"one byte", Config{}, hello[:1]},
		{"half a ClientHello", Config{}, hello[:len(hello)/2]},
		{"a ClientHello and no more", Config{}, hello},
		{"LDAPS, nothing", Config{LDAPS: true}, nil},
		{"LDAPS, half a ClientHello", Config{LDAPS: true}, hello[:len(hello)/2]},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.TLS = testTLS(t)
				s, _, logged := newTestServer(t, c.cfg)
				nc := serveTest(t, s).dial("192.0.2.1:1")
				defer nc.Close()
				if !c.cfg.LDAPS {
					ask(t, nc, startTLSReq(1))
				}
				start := time.Now()
				go nc.Write(c.send)
				io.Copy(io.Discard, nc)
				if took := time.Since(start); took < 9*time.Second || took > 11*time.Second {
					t.Errorf("cut off after %v, want 10 s", took)
				}
				synctest.Wait()
				if got := s.Stats(); got.Connections != 0 || got.HandshakesFailed != 1 || logged.Len() > 0 {
					t.Errorf("Stats = %+v, log %q, want no connection, one failure, no line", got, logged)
				}
			})
		})
	}
}

// clientHello is the first flight of a client.
func clientHello(t testing.TB) []byte {
	t.Helper()
	client, server := net.Pipe()
	go tls.Client(client, trusting).Handshake()
	buf := make([]byte, 16<<10)
	n, err := server.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	return buf[:n]
}

func TestHandshakeGarbage(t *testing.T) {
	for name, garbage := range map[string][]byte{
		"LDAP":         bindReq(1, aliceDN, alicePass),
		"HTTP":         []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"zeros":        make([]byte, 4096),
		"huge record":  {0x16, 3, 1, 0xff, 0xff, 1, 2, 3},
		"SSL 3":        {0x16, 3, 0, 0, 5, 1, 0, 0, 1, 0},
		"empty record": {0x16, 3, 1, 0, 0},
		"alert":        {0x15, 3, 1, 0, 2, 2, 48},
	} {
		for _, ldaps := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, LDAPS %v", name, ldaps), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, a, logged := newTestServer(t, Config{TLS: testTLS(t), LDAPS: ldaps})
					ln := serveTest(t, s)
					for range 3 {
						nc := ln.dial("192.0.2.1:1")
						if !ldaps {
							ask(t, nc, startTLSReq(1))
						}
						go nc.Write(garbage)
						io.Copy(io.Discard, nc)
						nc.Close()
					}
					synctest.Wait()
					if got := s.Stats(); got.Connections != 0 || got.HandshakesFailed != 3 || got.Panics != 0 || len(a.asked()) != 0 {
						t.Errorf("Stats = %+v, %d binds, want three failures and nothing else", got, len(a.asked()))
					}
					if n := strings.Count(logged.String(), "TLS handshake failed"); n > 1 {
						t.Errorf("log = %q, want one line for all within 10 s", logged)
					}
					if strings.Contains(logged.String(), alicePass) {
						t.Errorf("the log has the password: %q", logged)
					}
				})
			})
		}
	}
}

// Who began a handshake and does nothing gives way; who goes through is served, also in a flood.
func TestHandshakesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 128
		s, _, _ := newTestServer(t, Config{TLS: testTLS(t), LDAPS: true})
		ln := serveTest(t, s)
		hello := clientHello(t)
		start := time.Now()
		for i := range 1000 {
			nc := ln.dial(fmt.Sprintf("192.0.2.%d:1", i%250))
			defer nc.Close()
			if i%2 == 0 {
				go nc.Write(hello[:len(hello)/2])
			}
			if i%100 == 99 {
				synctest.Wait()
				if n := s.Stats().Connections; n > most {
					t.Errorf("%d half-open connections, want at most %d", n, most)
				}
				good := tls.Client(ln.dial("198.51.100.1:1"), trusting)
				if r := ask(t, good, bindReq(1, aliceDN, alicePass)); r.code != success {
					t.Errorf("bind among the others = %v", r)
				}
				good.Close()
			}
		}
		synctest.Wait()
		if st := s.Stats(); st.Connections < most-1 || st.Connections > most || st.HandshakesCut < 1000-most || st.Refused != 0 {
			t.Errorf("Stats = %+v, want %d connections, all others cut, none refused", st, most)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v, want no wait", took)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if n := s.Stats().Connections; n != 0 {
			t.Errorf("%d connections after the deadline, want 0", n)
		}
	})
}

// A handshake that is not done gives way too, where a listener takes fewer connections than handshakes. StartTLS takes the protection of a
// login away.
func TestHandshakeGivesWay(t *testing.T) {
	for name, ldaps := range map[string]bool{"LDAPS": true, "StartTLS": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, _ := newTestServer(t, Config{TLS: testTLS(t), LDAPS: ldaps, Limits: Limits{Connections: 1}})
				ln := serveTest(t, s)
				for i := range 3 {
					nc := ln.dial(fmt.Sprintf("192.0.2.1:%d", i+1))
					defer nc.Close()
					if !ldaps {
						ask(t, nc, bindReq(1, aliceDN, alicePass))
						ask(t, nc, startTLSReq(2))
					}
					synctest.Wait()
				}
				if got := s.Stats(); got.Connections != 1 || got.Yielded != 2 {
					t.Errorf("Stats = %+v, want that two gave way", got)
				}
			})
		})
	}
}

func TestShutdownDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{TLS: testTLS(t)})
		ln := newPipeListener()
		go s.Serve(ln)
		stalled, bound := ln.dial("192.0.2.1:1"), ln.dial("192.0.2.1:2")
		defer stalled.Close()
		defer bound.Close()
		ask(t, stalled, startTLSReq(1))
		c := secure(t, bound)
		ask(t, c, bindReq(2, aliceDN, alicePass))
		synctest.Wait()
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
			t.Errorf("over TLS: % x, %v, want the end, told as TLS does", rest, err)
		}
		io.Copy(io.Discard, stalled)
		if err := <-done; err != nil || time.Since(start) > time.Second {
			t.Errorf("Shutdown = %v after %v, want nil at once", err, time.Since(start))
		}
	})
}

func TestPanicInHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("out of order") }}
		s, _, logged := newTestServer(t, Config{TLS: conf, LDAPS: true})
		nc := serveTest(t, s).dial("192.0.2.1:1")
		defer nc.Close()
		if err := tls.Client(nc, trusting).Handshake(); err == nil {
			t.Error("handshake succeeded")
		}
		synctest.Wait()
		if got := s.Stats(); got.Panics != 1 || got.Connections != 0 || !strings.Contains(logged.String(), "fault of the program") {
			t.Errorf("Stats = %+v, log %q", got, logged)
		}
	})
}

// A connection that was busy keeps no large buffer, and no bytes of a password.
func TestBuffersAreReleased(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	long := searchReq(1, searchSpec{base: aliceDN, attrs: []string{strings.Repeat("x", 20000)}})
	m := &memConn{in: bytes.Join([][]byte{long, bindReq(2, aliceDN, strings.Repeat("s3cret", 80)), bindReq(3, aliceDN, alicePass), searchReq(4, searchSpec{base: aliceDN})}, nil), chunk: 100}
	c := newConn(s, m, "tcp:test")
	c.Serve()
	replies, err := parseReplies(m.out.Bytes())
	if err != nil || len(replies) != 5 {
		t.Fatalf("answers = %v, %v, want five", replies, err)
	}
	if len(c.in) != idleBuffer || cap(c.out) > keepIdle {
		t.Errorf("read buffer %d, write buffer %d bytes, want %d and at most %d", len(c.in), cap(c.out), idleBuffer, keepIdle)
	}
	for range 100 {
		b := readBuffers.Get().(*[readBuffer]byte)
		if i := slices.IndexFunc(b[:], func(x byte) bool { return x != 0 }); i >= 0 {
			t.Fatalf("a buffer that is lent again has %q", b[i:min(i+20, len(b))])
		}
	}
}

// Requests of all sizes in pieces of all sizes are answered alike.
func TestBufferSizes(t *testing.T) {
	var in []byte
	var want int
	for i, n := range []int{1, 400, 440, 460, 500, 512, 600, 3900, 4000, 4096, 5000, 9000, 10, 20, 30} {
		in = append(in, compareReq(int32(i+1), aliceDN, "cn", strings.Repeat("x", n))...)
		want++
	}
	for _, chunk := range []int{1, 7, 511, 512, 513, 1000, 4096, 0} {
		s, _, _ := newTestServer(t, Config{})
		replies := talkOn(t, s, &memConn{in: in, chunk: chunk})
		if len(replies) != want {
			t.Errorf("pieces of %d: %d answers, want %d", chunk, len(replies), want)
		}
		for i, r := range replies {
			if r.id != int32(i+1) || r.code != insufficientAccess {
				t.Errorf("pieces of %d: answer %d = %v", chunk, i, r)
			}
		}
	}
}

func TestStartTLSWithGoLDAP(t *testing.T) {
	s, _, _ := newTestServer(t, Config{TLS: testTLS(t), RequireTLS: true})
	addr := startServer(t, s, listen(t, "tcp", "127.0.0.1:0"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := ldap.DialURL("ldap://" + addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := c.StartTLS(trusting); err != nil {
				t.Errorf("StartTLS = %v", err)
				return
			}
			for range 20 {
				if err := c.Bind(aliceDN, alicePass); err != nil {
					t.Errorf("Bind = %v", err)
				}
			}
			if _, err := c.Search(ldap.NewSearchRequest(aliceDN, 0, 0, 0, 0, false, "(objectClass=*)", nil, nil)); err != nil {
				t.Errorf("Search = %v", err)
			}
		})
	}
	wg.Wait()
}

func TestLDAPSNeedsACertificate(t *testing.T) {
	_, err := New(Config{BaseDN: testBase, LDAPS: true}, nil, nil, nil)
	if err == nil || errors.Unwrap(err) != nil {
		t.Errorf("New = %v, want a fault", err)
	}
}
