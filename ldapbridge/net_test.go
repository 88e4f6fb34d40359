package ldapbridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// pipeListener hands out what is put into it.
type pipeListener struct {
	conns chan any // net.Conn or error
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan any), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case x := <-l.conns:
		if err, ok := x.(error); ok {
			return nil, err
		}
		return x.(net.Conn), nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 389} }

// dial returns the client's end of a connection from this address.
func (l *pipeListener) dial(from string) net.Conn {
	client, server := net.Pipe()
	l.conns <- pipeConn{server, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	return client
}

type pipeConn struct {
	net.Conn
	remote net.Addr
}

func (p pipeConn) RemoteAddr() net.Addr { return p.remote }

// serveTest runs the server on a pipeListener inside a synctest bubble and shuts it down at the end.
func serveTest(t *testing.T, s *Server) *pipeListener {
	t.Helper()
	ln := newPipeListener()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil after Shutdown", err)
		}
	})
	return ln
}

// ask sends a request and reads one answer.
func ask(t testing.TB, nc net.Conn, request []byte) reply {
	t.Helper()
	if _, err := nc.Write(request); err != nil {
		t.Fatal(err)
	}
	return readReply(t, nc)
}

func readReply(t testing.TB, nc net.Conn) reply {
	t.Helper()
	r, err := tryReply(nc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryReply(nc net.Conn) (reply, error) {
	var buf []byte
	for {
		one := make([]byte, 1)
		if _, err := nc.Read(one); err != nil {
			return reply{}, err
		}
		buf = append(buf, one...)
		_, head, length, err := ber.Header(buf)
		if err == nil && len(buf) == head+length {
			replies, err := parseReplies(buf)
			if err != nil {
				return reply{}, err
			}
			return replies[0], nil
		}
	}
}

func TestDeadlines(t *testing.T) {
	tests := []struct {
		name   string
		before []byte // a request with an answer
		send   []byte
		pause  time.Duration // between bytes of send
		want   time.Duration // from the last answer, or from the start, to the end of the connection
	}{
		{"never says anything", nil, nil, 0, 30 * time.Second},
		{"root DSE, then silent", searchReq(1, searchSpec{filter: tagged(filterPresent, "x")}), nil, 0, 30 * time.Second},
		{"failed bind, then silent", bindReq(1, aliceDN, "wrong"), nil, 0, 30 * time.Second},
		{"anonymous bind, then silent", bindReq(1, "", ""), nil, 0, 15 * time.Minute},
		{"bound, then silent", bindReq(1, aliceDN, alicePass), nil, 0, 15 * time.Minute},
		{"one byte, then silent", nil, []byte{0x30}, 0, 10 * time.Second},
		{"all but one byte", nil, whoami(1)[:len(whoami(1))-1], 0, 10 * time.Second},
		{"slow-loris", nil, whoami(1), 5 * time.Second, 10 * time.Second},
		{"slow-loris, bound", bindReq(1, aliceDN, alicePass), whoami(1), time.Second, 10 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, _ := newTestServer(t, Config{})
				nc := serveTest(t, s).dial("192.0.2.1:1")
				defer nc.Close()
				if tt.before != nil {
					ask(t, nc, tt.before)
				}
				start := time.Now()
				go func() {
					for i := range tt.send {
						if _, err := nc.Write(tt.send[i : i+1]); err != nil {
							return
						}
						time.Sleep(tt.pause)
					}
				}()
				got, err := io.ReadAll(nc)
				if took := time.Since(start); len(got) > 0 || err != nil || took < tt.want-time.Second || took > tt.want+time.Second {
					t.Errorf("connection ended after %v with % x, %v; want %v, nothing", took, got, err, tt.want)
				}
				time.Sleep(6 * time.Second) // the slow one notices
			})
		})
	}
}

// A client that keeps asking is never cut off, however the deadlines are spared.
func TestBusyConnectionLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{})
		nc := serveTest(t, s).dial("192.0.2.1:1")
		defer nc.Close()
		for i, pause := range []time.Duration{0, 29 * time.Second, 100 * time.Millisecond, 28900 * time.Millisecond, 29 * time.Second} {
			time.Sleep(pause)
			if r := ask(t, nc, whoami(1)); r.code != success {
				t.Fatalf("request %d: %v", i, r)
			}
		}
		ask(t, nc, bindReq(1, "", ""))
		time.Sleep(15*time.Minute - 2*time.Second)
		ask(t, nc, whoami(2))
	})
}

func TestClientThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newTestServer(t, Config{})
		nc := serveTest(t, s).dial("192.0.2.1:1") // a pipe has no buffer: the first write waits
		defer nc.Close()
		start := time.Now()
		n := 0
		for {
			if _, err := nc.Write(bindReq(1, aliceDN, alicePass)); err != nil {
				break
			}
			n++
		}
		if took := time.Since(start); took > 12*time.Second || n > 100 {
			t.Errorf("cut off after %v and %d requests, want about 10 s and few", took, n)
		}
		synctest.Wait()
		if got := s.Stats().Connections; got != 0 {
			t.Errorf("connections = %d, want 0", got)
		}
	})
}

func TestDecisionDeadlineIsUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, _ := newTestServer(t, Config{})
		a.hook = func(ctx context.Context, _ auth.Request) (auth.Decision, error) {
			<-ctx.Done()
			return auth.Decision{}, ctx.Err()
		}
		nc := serveTest(t, s).dial("192.0.2.1:1")
		defer nc.Close()
		start := time.Now()
		if r := ask(t, nc, bindReq(1, aliceDN, alicePass)); r.code != other || time.Since(start) != 20*time.Second {
			t.Errorf("answer = %v after %v, want 80 after 20s", r, time.Since(start))
		}
	})
}

func TestConnectionLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, logged := newTestServer(t, Config{Limits: Limits{Connections: 5, ConnectionsPerSource: 2}})
		ln := serveTest(t, s)
		var open []net.Conn
		dial := func(from string, want bool) {
			t.Helper()
			nc := ln.dial(from)
			t.Cleanup(func() { nc.Close() })
			go nc.Write(bindReq(1, aliceDN, alicePass)) // who has not bound would give way
			if _, err := tryReply(nc); (err == nil) != want {
				t.Errorf("connection from %s: %v, want it accepted: %v", from, err, want)
			}
			open = append(open, nc)
		}
		dial("192.0.2.1:1", true)
		dial("192.0.2.1:2", true)
		dial("192.0.2.1:3", false)
		dial("[::ffff:192.0.2.1]:4", false) // the same address
		dial("[2001:db8::1]:1", true)
		dial("[2001:db8::2]:1", true)
		dial("[2001:db8::3]:1", false) // the same /64
		dial("[2001:db8:0:1::1]:1", true)
		dial("192.0.2.9:1", false) // the sixth in all
		open[0].Close()
		synctest.Wait()
		dial("192.0.2.1:5", true)
		st := s.Stats()
		if st.Connections != 5 || st.Accepted != 6 || st.Refused != 4 {
			t.Errorf("Stats = %+v, want 5 open, 6 accepted, 4 refused", st)
		}
		if n := strings.Count(logged.String(), "too many connections"); n != 1 {
			t.Errorf("log = %q, want one line for all refusals", logged)
		}
	})
}

// Silence, half a PDU, an anonymous bind, a failed bind: all that costs an attacker nothing keeps nobody out.
func TestIdlersGiveWay(t *testing.T) {
	for _, tt := range []struct {
		name string
		send [][]byte // each but the last has an answer
		half bool     // the last has none
		want bool     // gives way
	}{
		{"silent", nil, false, true},
		{"half a PDU", [][]byte{whoami(1)[:5]}, true, true},
		{"root DSE", [][]byte{searchReq(1, searchSpec{filter: tagged(filterPresent, "x")})}, false, true},
		{"anonymous", [][]byte{bindReq(1, "", "")}, false, true},
		{"wrong password", [][]byte{bindReq(1, aliceDN, "wrong")}, false, true},
		{"reads no answer", [][]byte{searchReq(1, searchSpec{filter: tagged(filterPresent, "x")})}, true, true}, // a pipe has no buffer
		{"logged in", [][]byte{bindReq(1, aliceDN, alicePass)}, false, false},
		{"logged in, and then anonymous", [][]byte{bindReq(1, aliceDN, alicePass), bindReq(2, "", "")}, false, false},
		{"being decided", [][]byte{bindReq(1, "uid=slow,ou=people,"+testBase, "x")}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, a, _ := newTestServer(t, Config{Limits: Limits{Connections: 2}})
				a.hook = func(ctx context.Context, req auth.Request) (auth.Decision, error) {
					if req.Login == "slow" {
						<-ctx.Done()
						return auth.Decision{}, ctx.Err()
					}
					return decideFake(req)
				}
				ln := serveTest(t, s)
				kept := ln.dial("192.0.2.1:1")
				defer kept.Close()
				ask(t, kept, bindReq(1, aliceDN, alicePass))
				old := ln.dial("192.0.2.2:1")
				defer old.Close()
				for i, b := range tt.send {
					if tt.half && i == len(tt.send)-1 {
						old.Write(b)
					} else {
						ask(t, old, b)
					}
				}
				synctest.Wait()
				newcomer := ln.dial("192.0.2.3:1")
				defer newcomer.Close()
				go newcomer.Write(bindReq(1, aliceDN, alicePass))
				if _, err := tryReply(newcomer); (err == nil) != tt.want {
					t.Errorf("newcomer: %v, want it let in: %v", err, tt.want)
				}
				if r := ask(t, kept, whoami(2)); r.code != success {
					t.Errorf("who had logged in: %v", r)
				}
				if got := s.Stats(); got.Yielded != map[bool]int64{true: 1}[tt.want] || got.Connections != 2 {
					t.Errorf("Stats = %+v, want 2 connections, and that one gave way: %v", got, tt.want)
				}
			})
		})
	}
}

func TestAcceptFailureIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, logged := newTestServer(t, Config{})
		ln := serveTest(t, s)
		start := time.Now()
		for range 12 {
			ln.conns <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		nc := ln.dial("192.0.2.1:1")
		defer nc.Close()
		ask(t, nc, whoami(1))
		if took := time.Since(start); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("12 failures took %v, want pauses of 5 ms doubling up to 1 s", took)
		}
		if n := strings.Count(logged.String(), "cannot accept a connection"); n != 12 {
			t.Errorf("log = %q, want one line for each failure", logged)
		}
		ln.conns <- errors.New("whatever") // and Shutdown does not wait for the pause
	})
}

func TestListenerClosedByOthers(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	ln := newPipeListener()
	ln.Close()
	if err := s.Serve(ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want net.ErrClosed", err)
	}
}

func TestPanicEndsOnlyItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, logged := newTestServer(t, Config{})
		a.hook = func(_ context.Context, req auth.Request) (auth.Decision, error) {
			if req.Login == "panic" {
				panic("with the password " + req.Password)
			}
			return decideFake(req)
		}
		ln := serveTest(t, s)
		good, bad := ln.dial("192.0.2.1:1"), ln.dial("192.0.2.1:2")
		defer good.Close()
		defer bad.Close()
		ask(t, good, bindReq(1, aliceDN, alicePass))
		bad.Write(bindReq(1, "uid=panic,"+people, "pass-word"))
		if got, err := io.ReadAll(bad); len(got) > 0 || err != nil {
			t.Errorf("answer to the one that panicked = % x, %v, want a close", got, err)
		}
		if r := ask(t, good, whoami(2)); r.value != "dn:"+aliceDN {
			t.Errorf("WhoAmI elsewhere = %v", r)
		}
		if s.Stats().Panics != 1 || !strings.Contains(logged.String(), "fault of the program") || strings.Contains(logged.String(), "pass-word") {
			t.Errorf("panics = %d, log = %q", s.Stats().Panics, logged)
		}
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, _ := newTestServer(t, Config{})
		a.hook = func(ctx context.Context, req auth.Request) (auth.Decision, error) {
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
				return auth.Decision{}, ctx.Err()
			}
			return decideFake(req)
		}
		ln := serveTest(t, s)
		silent, partial, busy := ln.dial("192.0.2.1:1"), ln.dial("192.0.2.1:2"), ln.dial("192.0.2.1:3")
		ask(t, silent, whoami(1))
		partial.Write(whoami(1)[:3])
		busy.Write(append(bindReq(1, aliceDN, alicePass), whoami(2)...))
		synctest.Wait()

		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- s.Shutdown(t.Context()) }()
		for name, nc := range map[string]net.Conn{"silent": silent, "partial": partial, "busy": busy} {
			if name == "busy" {
				if r := readReply(t, nc); r.op != opBindResponse || r.code != success {
					t.Errorf("operation under way = %v, want its answer", r)
				}
			}
			if name == "busy" { // its next request has arrived and is not answered
				if r := readReply(t, nc); r.id != 0 || r.code != unavailable || r.name != oidNotice {
					t.Errorf("%s: %v, want a notice of disconnection", name, r)
				}
			}
			if rest, err := io.ReadAll(nc); len(rest) > 0 || err != nil {
				t.Errorf("%s: % x, %v, want the end", name, rest, err)
			}
		}
		if err := <-done; err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("Shutdown = %v after %v, want nil after the operation's 3s", err, time.Since(start))
		}
		if err := s.Serve(newPipeListener()); err != nil {
			t.Errorf("Serve after Shutdown = %v, want nil", err)
		}
	})
}

func TestShutdownLosesPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, _ := newTestServer(t, Config{})
		released := make(chan struct{})
		a.hook = func(context.Context, auth.Request) (auth.Decision, error) {
			<-released // deaf to the context
			return auth.Decision{}, errBroken
		}
		ln := newPipeListener()
		go s.Serve(ln)
		nc := ln.dial("192.0.2.1:1")
		nc.Write(bindReq(1, aliceDN, alicePass))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Shutdown = %v after %v, want the context's error after 1s", err, time.Since(start))
		}
		if rest, err := io.ReadAll(nc); len(rest) > 0 || err != nil {
			t.Errorf("client got % x, %v, want the end", rest, err)
		}
		close(released)
	})
}

// startServer serves the listener until the test ends.
func startServer(t *testing.T, s *Server, ln net.Listener) string {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return ln.Addr().String()
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// The notice must arrive although the client has sent more than we read.
func TestNoticeSurvivesUnreadInput(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	addr := startServer(t, s, listen(t, "tcp", "127.0.0.1:0"))
	for range 20 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.Write(append(bindReq(0, "", ""), make([]byte, 30000)...))
		if r, err := tryReply(nc); err != nil || r.code != protocolError || r.name != oidNotice {
			t.Errorf("answer = %v, %v, want a notice", r, err)
		}
		nc.Close()
	}
}

func TestGoLDAPClient(t *testing.T) {
	s, a, _ := newTestServer(t, Config{RequireTLS: true})
	socket := filepath.Join(t.TempDir(), "ldap")
	startServer(t, s, listen(t, "unix", socket))

	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := ldap.NewConn(nc, false)
	c.SetTimeout(10 * time.Second)
	c.Start()
	defer c.Close()
	code := func(err error) uint16 {
		if err == nil {
			return 0
		}
		var e *ldap.Error
		if !errors.As(err, &e) {
			t.Fatalf("no LDAP error: %v", err)
		}
		return e.ResultCode
	}
	check := func(what string, err error, want uint16) {
		t.Helper()
		if got := code(err); got != want {
			t.Errorf("%s = %d, want %d", what, got, want)
		}
	}
	check("anonymous bind", c.UnauthenticatedBind(""), 0)
	check("unauthenticated bind", c.UnauthenticatedBind(aliceDN), 53)
	check("wrong password", c.Bind(aliceDN, "wrong"), 49)
	check("undecided", c.Bind("uid=broken,"+people, "x"), 80)
	check("bind", c.Bind(aliceDN, alicePass), 0)
	req := a.asked()[len(a.asked())-1]
	if req.TLS != auth.TLSYes || req.Addr.IsValid() || req.Listener != "unix:"+socket {
		t.Errorf("request over a Unix socket = TLS %v, address %v, listener %q", req.TLS, req.Addr, req.Listener)
	}
	if who, err := c.WhoAmI(nil); err != nil || who.AuthzID != "dn:"+aliceDN {
		t.Errorf("WhoAmI = %v, %v", who, err)
	}
	res, err := c.Search(ldap.NewSearchRequest(testBase, ldap.ScopeWholeSubtree, ldap.DerefAlways, 1, 10, false,
		"(&(objectClass=inetOrgPerson)(|(uid=alice)(mail=alice))(cn=al*ice*ams)(!(uid=bob))(cn:caseIgnoreMatch:=ALICE ADAMS)(createTimestamp<=20270101000000Z))", []string{"memberOf", "dn"}, nil))
	if err != nil || len(res.Entries) != 1 || res.Entries[0].DN != aliceDN || res.Entries[0].GetAttributeValue("memberOf") == "" {
		t.Errorf("search = %v, %v", res, err)
	}
	_, err = c.Search(ldap.NewSearchRequest("dc=com", 0, 0, 0, 0, false, "(objectClass=*)", nil, nil))
	check("search elsewhere", err, 32)
	_, err = c.Search(ldap.NewSearchRequest(aliceDN, 0, 0, 0, 0, false, "(objectClass=*)", nil, []ldap.Control{ldap.NewControlPaging(10)}))
	check("paged search, not critical", err, 0)
	_, err = c.Search(ldap.NewSearchRequest(aliceDN, 0, 0, 0, 0, false, "(objectClass=*)", nil, []ldap.Control{ldap.NewControlString("1.2.3", true, "")}))
	check("critical control", err, 12)
	if ok, err := c.Compare(aliceDN, "uid", "ALICE"); err != nil || !ok {
		t.Errorf("compare = %v, %v", ok, err)
	}
	check("delete", c.Del(ldap.NewDelRequest(aliceDN, nil)), 53)
	check("modify", c.Modify(&ldap.ModifyRequest{DN: aliceDN}), 53)
	check("bind as another", c.Bind("uid=bob,"+people, "bobs"), 0)
	check("StartTLS", c.StartTLS(&tls.Config{InsecureSkipVerify: true}), 2) // go-ldap reads no more after that
}

func TestTLSListener(t *testing.T) {
	s, a, _ := newTestServer(t, Config{RequireTLS: true, TLS: testTLS(t), LDAPS: true, Limits: Limits{PDU: 2 * time.Second}})
	addr := startServer(t, s, listen(t, "tcp", "127.0.0.1:0"))
	nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if r := ask(t, nc, bindReq(1, aliceDN, alicePass)); r.code != success {
		t.Errorf("bind over TLS = %v", r)
	}
	if req := a.asked()[0]; req.TLS != auth.TLSYes || req.Addr.String() != "127.0.0.1" {
		t.Errorf("request over TLS = %v from %v", req.TLS, req.Addr)
	}
	half, err := net.Dial("tcp", addr) // never begins the handshake
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	half.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := half.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) || isTimeout(err) {
		t.Errorf("half-open TLS = %v, want the end of the connection", err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func testTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
}
