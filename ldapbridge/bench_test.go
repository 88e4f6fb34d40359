package ldapbridge

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

type acceptAll struct{}

func (acceptAll) Stands(context.Context, *auth.Standing) (auth.Reason, error) {
	return auth.Accepted, nil
}

func (acceptAll) Refused(context.Context, auth.Request) {}

func (acceptAll) Authenticate(_ context.Context, req auth.Request) (auth.Decision, error) {
	return auth.Decision{OK: true, Reason: auth.Accepted, Login: req.Login}, nil
}

// benchmarkConnections sends one request after the other on each of the connections, answers being as long as the first.
func benchmarkConnections(b *testing.B, addr string, connections int, request []byte) {
	b.Helper()
	var wg sync.WaitGroup
	each := b.N/connections + 1
	conns := make([]net.Conn, connections)
	for i := range conns {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		conns[i] = nc
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, nc := range conns {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for range each {
				if _, err := nc.Write(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := nc.Read(buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// BenchmarkBind compares with BenchmarkEcho: the difference is what LDAP costs.
func BenchmarkBind(b *testing.B) {
	s, err := New(Config{BaseDN: testBase}, acceptAll{}, fakeDirectory{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Shutdown(b.Context())
	benchmarkConnections(b, ln.Addr().String(), 64, bindReq(1, aliceDN, alicePass))
}

func BenchmarkEcho(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				buf := make([]byte, 4096)
				for {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					if _, err := nc.Write(buf[:min(n, 14)]); err != nil {
						return
					}
				}
			}()
		}
	}()
	benchmarkConnections(b, ln.Addr().String(), 64, bindReq(1, aliceDN, alicePass))
}

// loopConn gives the same input for ever.
type loopConn struct {
	memConn
	pdu  []byte
	left int
}

func (l *loopConn) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	l.left--
	return copy(p, l.pdu), nil
}
func (l *loopConn) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkBindNoNetwork is a bind without system calls.
func BenchmarkBindNoNetwork(b *testing.B) {
	s, err := New(Config{BaseDN: testBase}, acceptAll{}, fakeDirectory{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	newConn(s, &loopConn{pdu: bindReq(1, aliceDN, alicePass), left: b.N}, "tcp:test").Serve()
}

func BenchmarkSearchOwnEntry(b *testing.B) {
	s, err := New(Config{BaseDN: testBase}, acceptAll{}, fakeDirectory{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	c := newConn(s, &loopConn{pdu: searchReq(1, searchSpec{base: testBase, scope: 2, filter: cons(filterEqual, str("uid"), str("alice"))}), left: b.N}, "tcp:test")
	c.login = "alice"
	b.ReportAllocs()
	c.Serve()
}

// oneAccount is a directory that finds the same account whatever it is asked.
type oneAccount struct {
	Directory
	found []auth.Account
}

func (d oneAccount) FindAccounts(context.Context, []auth.AccountKey, int, auth.Parts) ([]auth.Account, error) {
	return d.found, nil
}

// benchmarkReader plays requests of a reader without system calls.
func benchmarkReader(b *testing.B, pdus ...[]byte) {
	acct, err := fakeDirectory{}.Entry(b.Context(), "alice")
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{BaseDN: testBase}, acceptAll{}, oneAccount{found: []auth.Account{acct}}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	c := newConn(s, &loopConn{pdu: bytes.Join(pdus, nil), left: b.N}, "tcp:test")
	c.login, c.reader = "scan", true
	b.ReportAllocs()
	c.Serve()
	if n := s.Stats(); n.Requests != int64(b.N*len(pdus)) || n.Undecided+n.BindsRejected+n.Panics > 0 {
		b.Fatalf("%+v", n)
	}
}

func BenchmarkSearchByLogin(b *testing.B) {
	benchmarkReader(b, searchReq(1, searchSpec{base: testBase, scope: 2, filter: fEq("uid", "alice")}))
}

// BenchmarkSearchNarrow is Dovecot's.
func BenchmarkSearchNarrow(b *testing.B) {
	benchmarkReader(b, searchReq(1, searchSpec{base: people, scope: 2, attrs: []string{"uid"},
		filter: cons(filterAnd, fEq("objectClass", "posixAccount"), cons(filterOr, fEq("uid", "alice"), fEq("mail", "alice")))}))
}

func BenchmarkSearchInApplication(b *testing.B) {
	s, err := New(Config{BaseDN: testBase, Applications: []Application{{Name: "wiki"}}}, acceptAll{}, fakeDirectory{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	c := newConn(s, &loopConn{pdu: searchReq(1, searchSpec{base: wikiBase, scope: 2, filter: fEq("uid", "alice")}), left: b.N}, "tcp:test")
	c.login, c.reader = "scan", true
	b.ReportAllocs()
	c.Serve()
}

// BenchmarkSearchThenBind is a login at an application: the reader's bind, the search, the user's bind.
func BenchmarkSearchThenBind(b *testing.B) {
	benchmarkReader(b, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: testBase, scope: 2, filter: fEq("uid", "alice"), attrs: []string{"1.1"}}),
		bindReq(3, aliceDN, alicePass))
}
