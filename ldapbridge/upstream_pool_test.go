package ldapbridge

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

func TestUpstreamResolve(t *testing.T) {
	f := newFakeUpstream(t, answerAlice)
	u, _ := testUpstream(t, brisk, f)
	for range 3 {
		got, err := u.resolve(t.Context(), mustDN(t, "UID=alice , ou=People,dc=example,dc=org"))
		if err != nil || got.login != "alice" || got.name.String() != aliceDN {
			t.Fatalf("resolve = %+v, %v, want alice", got, err)
		}
	}
	if _, err := u.resolve(t.Context(), mustDN(t, "uid=alice,dc=other")); err != errNoEntry {
		t.Errorf("resolve of a foreign name = %v, want %v", err, errNoEntry)
	}
	binds, searches := f.asked()
	if len(binds) != 1 || binds[0] != serviceDN+" "+servicePass || len(searches) != 6 {
		t.Errorf("the upstream saw the binds %q and %d searches, want one bind of the service account and 6", binds, len(searches))
	}
}

// Whatever an upstream sends in place of alice's entry, nobody is taken for alice, and an outage is not a missing entry.
func TestUpstreamHostile(t *testing.T) {
	junk := func(b ...byte) func(*fakeLink, fakeSearch) {
		return func(l *fakeLink, _ fakeSearch) { l.Write(b) }
	}
	entry := func(dn string, attrs ...[]string) func(*fakeLink, fakeSearch) {
		return func(l *fakeLink, q fakeSearch) {
			l.Write(append(rawEntry(q.id, dn, attrs...), rawDone(q.id, success)...))
		}
	}
	code := func(c resultCode) func(*fakeLink, fakeSearch) {
		return func(l *fakeLink, q fakeSearch) { l.Write(rawDone(q.id, c)) }
	}
	for _, tt := range []struct {
		name    string
		answer  func(*fakeLink, fakeSearch)
		nobody  bool // the answer is clear: there is no such user
		message string
	}{
		{"nothing found", code(success), true, ""},
		{"no such object", code(noSuchObject), true, ""},
		{"no such name by its schema", code(invalidDNSyntax), true, ""},
		{"no login", entry(aliceDN, []string{"cn", "Alice"}), true, ""},
		{"two logins", entry(aliceDN, []string{"uid", "alice", "al"}), true, ""},
		{"two logins apart", entry(aliceDN, []string{"uid", "alice"}, []string{"UID", "al"}), true, ""},
		{"a login that is none", entry(aliceDN, []string{"uid", "al ice"}), true, ""},
		{"another entry", entry("uid=bob,ou=people,dc=example,dc=org", []string{"uid", "alice"}), true, ""},
		{"entry of elsewhere", entry("uid=alice,dc=other", []string{"uid", "alice"}), false, "a name"},
		{"a name that is none", entry("alice", []string{"uid", "alice"}), false, "a name"},
		{"references only", func(l *fakeLink, q fakeSearch) {
			l.Write(append(pdu(q.id, cons(opSearchReference, str("ldap://evil.example/"))), rawDone(q.id, success)...))
		}, true, ""},
		{"referral", func(l *fakeLink, q fakeSearch) {
			l.Write(pdu(q.id, cons(opSearchDone, enum(10), str(""), str(""), cons(0xa3, str("ldap://evil.example/")))))
		}, false, "result code 10"},
		{"invalid credentials", code(invalidCredentials), false, "result code 49"},
		{"busy", code(51), false, "result code 51"},
		{"size limit", code(sizeLimitExceeded), false, "result code 4"},
		{"time limit", code(timeLimitExceeded), false, "result code 3"},
		{"silence", func(*fakeLink, fakeSearch) {}, false, "deadline"},
		{"one byte", junk(0x30), false, "deadline"},
		{"closes", func(l *fakeLink, _ fakeSearch) { l.Close() }, false, "broke"},
		{"closes in the middle", func(l *fakeLink, q fakeSearch) {
			l.Write(rawEntry(q.id, aliceDN, []string{"uid", "alice"}))
			l.Close()
		}, false, "broke"},
		{"entry and silence", func(l *fakeLink, q fakeSearch) { l.Write(rawEntry(q.id, aliceDN, []string{"uid", "alice"})) }, false, "deadline"},
		{"HTTP", junk([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")...), false, "not LDAP"},
		{"indefinite length", junk(0x30, 0x80, 0, 0), false, "not LDAP"},
		{"announces 2 GiB", junk(0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 2, 1, 2), false, "too large"},
		{"nested", func(l *fakeLink, q fakeSearch) {
			b := str("x")
			for range 30 {
				b = cons(ber.Sequence, b)
			}
			l.Write(pdu(q.id, cons(opSearchEntry, str(aliceDN), cons(ber.Sequence, b))))
		}, false, "not LDAP"},
		{"a million small parts", func(l *fakeLink, q fakeSearch) {
			l.Write(pdu(q.id, cons(opSearchEntry, str(aliceDN), cons(ber.Sequence, bytes.Repeat([]byte{5, 0}, 1<<20)))))
		}, false, "too large"},
		{"entries without end", func(l *fakeLink, q fakeSearch) {
			for e := rawEntry(q.id, aliceDN, []string{"uid", "alice"}); ; {
				if _, err := l.Write(e); err != nil {
					return
				}
			}
		}, false, "result code 4"},
		{"attributes without a set", func(l *fakeLink, q fakeSearch) {
			l.Write(pdu(q.id, cons(opSearchEntry, str(aliceDN), cons(ber.Sequence, cons(ber.Sequence, str("uid"))))))
		}, false, "broke"},
		{"too many attributes", func(l *fakeLink, q fakeSearch) {
			var attrs [][]string
			for range maxUpstreamAttributes + 1 {
				attrs = append(attrs, []string{"uid", "alice"})
			}
			entry(aliceDN, attrs...)(l, q)
		}, false, "too many attributes"},
		{"notice of disconnection", func(l *fakeLink, _ fakeSearch) { l.Write(appendNotice(nil, unavailable, "bye")) }, false, "broke"},
		{"answer to a bind", func(l *fakeLink, q fakeSearch) { l.Write(appendResponse(nil, q.id, opBindResponse, result{})) }, false, "deadline"},
		{"answer to a write", func(l *fakeLink, q fakeSearch) { l.Write(appendResponse(nil, q.id, opAddResponse, result{})) }, false, "not asked for"},
		{"a control that is none", func(l *fakeLink, q fakeSearch) {
			l.Write(rawDone(q.id, success, controls(ctl(str("1.2.840.113556.1.4.319"), str("\x30\x84")))))
		}, false, "broke"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
				if q.base == testBase { // whether the tree is there at all
					entry(testBase)(l, q)
					return
				}
				tt.answer(l, q)
			})
			u, _ := testUpstream(t, brisk, f)
			start := time.Now()
			got, err := u.resolve(t.Context(), mustDN(t, aliceDN))
			if tt.nobody != errors.Is(err, errNobody) || err == nil || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("resolve = %q, %v, want nobody: %v, %q", got.login, err, tt.nobody, tt.message)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("resolve took %v", took)
			}
		})
	}
}

func TestUpstreamMemory(t *testing.T) {
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		l.Write(pdu(q.id, cons(opSearchEntry, str(aliceDN), cons(ber.Sequence, bytes.Repeat([]byte{5, 0}, 1<<20)))))
	})
	u, _ := testUpstream(t, UpstreamLimits{}, f)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	u.resolve(t.Context(), mustDN(t, aliceDN))
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("2 MiB of small parts took %d bytes of memory", n)
	}
}

func TestUpstreamServersInOrder(t *testing.T) {
	first, second := newFakeUpstream(t, answerAlice), newFakeUpstream(t, answerAlice)
	addr := first.ln.Addr().String()
	u, logged := testUpstream(t, brisk, first, second)
	var clock struct {
		sync.Mutex
		time.Time
	}
	clock.Time = time.Now()
	u.pool.now = func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return clock.Time
	}
	count := func() (int, int) {
		return first.users(), second.users()
	}
	resolve := func() {
		t.Helper()
		if got, err := u.resolve(t.Context(), mustDN(t, aliceDN)); err != nil || got.login != "alice" {
			t.Fatalf("resolve = %q, %v, want alice", got.login, err)
		}
	}
	resolve()
	if a, b := count(); a != 1 || b != 0 {
		t.Fatalf("searches = %d, %d, want the first server's", a, b)
	}
	first.ln.Close()
	first.cut()
	resolve()
	resolve()
	if a, b := count(); a != 1 || b != 2 {
		t.Fatalf("searches = %d, %d, want the second server's", a, b)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	back := newFakeUpstream(t, answerAlice)
	back.ln.Close()
	back.ln = ln
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			l := &fakeLink{Conn: nc}
			back.mu.Lock()
			back.links = append(back.links, l)
			back.mu.Unlock()
			go back.serve(l)
		}
	}()
	clock.Lock()
	clock.Time = clock.Add(lastBackOff)
	clock.Unlock()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		resolve() // the probe runs beside it
		if _, s := back.asked(); len(s) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the first server is not used again\n%s", logged)
		}
	}
	for _, line := range []string{"an upstream does not answer", "an upstream answers again"} {
		if n := strings.Count(logged.String(), line); n != 1 {
			t.Errorf("the log says %q %d times:\n%s", line, n, logged)
		}
	}
}

func TestUpstreamStaleConnection(t *testing.T) {
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		if l.n == 1 {
			l.Close() // as a server does that closes idle connections, at the worst moment
			return
		}
		answerAlice(l, q)
	})
	u, _ := testUpstream(t, brisk, f)
	for i := range 4 {
		if got, err := u.resolve(t.Context(), mustDN(t, aliceDN)); err != nil || got.login != "alice" {
			t.Fatalf("resolve %d = %q, %v, want alice", i, got.login, err)
		}
	}
}

func TestUpstreamRefusedAccount(t *testing.T) {
	f := newFakeUpstream(t, answerAlice)
	f.setRefuse(true)
	u, logged := testUpstream(t, brisk, f)
	for range 10 {
		if _, err := u.resolve(t.Context(), mustDN(t, aliceDN)); !errors.Is(err, errUpstreamAccount) {
			t.Fatalf("resolve = %v, want %v", err, errUpstreamAccount)
		}
	}
	if binds, _ := f.asked(); len(binds) != 1 {
		t.Errorf("%d binds as the service account, want one: a directory may lock it", len(binds))
	}
	if strings.Contains(logged.String(), servicePass) {
		t.Errorf("the log has the password:\n%s", logged)
	}
	f.setRefuse(false)
	later := time.Now().Add(refusedTime + time.Second)
	u.pool.now = func() time.Time { return later }
	if got, err := u.resolve(t.Context(), mustDN(t, aliceDN)); err != nil || got.login != "alice" {
		t.Errorf("resolve afterwards = %q, %v, want alice", got.login, err)
	}
}

func TestUpstreamBusy(t *testing.T) {
	release := make(chan struct{})
	f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		if q.size > 0 { // a long search
			<-release
		}
		answerAlice(l, q)
	})
	t.Cleanup(func() { close(release) })
	u, _ := testUpstream(t, UpstreamLimits{Connections: 4, Wait: 100 * time.Millisecond, Search: 5 * time.Second}, f)
	srv, _, _ := newTestServer(t, Config{})
	q := &query{viewer: viewer{login: "wiki", reader: true}, base: mustDN(t, testBase), scope: scopeSubordinate, filter: tagged(filterPresent, "cn"), srv: srv}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 8 {
		wg.Go(func() { u.search(ctx, q, func(*entry, string) bool { return true }) })
	}
	for len(u.pool.long) < cap(u.pool.long) {
		time.Sleep(time.Millisecond)
	}
	if err := u.search(ctx, q, func(*entry, string) bool { return true }); !errors.Is(err, errUpstreamBusy) {
		t.Errorf("one search more = %v, want %v", err, errUpstreamBusy)
	}
	if got, err := u.resolve(t.Context(), mustDN(t, aliceDN)); err != nil || got.login != "alice" {
		t.Errorf("resolve beside long searches = %q, %v, want alice", got.login, err)
	}
}

func TestParseUpstreamURL(t *testing.T) {
	for _, tt := range []struct {
		in, addr string
		tls, ok  bool
	}{
		{"ldap://ldap.example.org", "ldap.example.org:389", false, true},
		{"ldaps://ldap.example.org/", "ldap.example.org:636", true, true},
		{"ldap://[::1]:3389", "[::1]:3389", false, true},
		{"ldap://", "", false, false},
		{"http://ldap.example.org", "", false, false},
		{"ldap.example.org", "", false, false},
		{"ldap://a:b@ldap.example.org", "", false, false},
		{"ldap://ldap.example.org/dc=example", "", false, false},
		{"ldap://ldap.example.org?x", "", false, false},
	} {
		u, err := parseUpstreamURL(tt.in, false)
		if (err == nil) != tt.ok || err == nil && (u.addr != tt.addr || u.tls != tt.tls) {
			t.Errorf("parseUpstreamURL(%q) = %+v, %v, want %q, TLS %v, ok %v", tt.in, u, err, tt.addr, tt.tls, tt.ok)
		}
	}
	if _, err := parseUpstreamURL("ldaps://ldap.example.org", true); err == nil {
		t.Error("StartTLS over TLS is accepted")
	}
}
