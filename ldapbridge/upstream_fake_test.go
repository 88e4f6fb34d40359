package ldapbridge

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

const (
	serviceDN   = "cn=bridge,dc=example,dc=org"
	servicePass = "the bridge's own"
)

// fakeUpstream is a directory that does what a test says. It accepts the service account alone, and keeps what it was asked.
type fakeUpstream struct {
	ln     net.Listener
	search func(l *fakeLink, q fakeSearch)

	mu       sync.Mutex
	binds    []string // DN and password
	searches []fakeSearch
	links    []*fakeLink
	refuse   bool // binds
}

// fakeLink is a connection to it.
type fakeLink struct {
	net.Conn
	n int // searches before
}

// fakeSearch is a search that it was asked.
type fakeSearch struct {
	id     int32
	base   string
	filter []byte
	attrs  []string
	size   int32 // of the paged results control
	cookie string
}

func newFakeUpstream(t testing.TB, search func(l *fakeLink, q fakeSearch)) *fakeUpstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeUpstream{ln: ln, search: search}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			l := &fakeLink{Conn: nc}
			f.mu.Lock()
			f.links = append(f.links, l)
			f.mu.Unlock()
			wg.Go(func() { f.serve(l) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		f.cut()
		wg.Wait()
	})
	return f
}

func (f *fakeUpstream) url() string { return "ldap://" + f.ln.Addr().String() }

// cut closes every connection.
func (f *fakeUpstream) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.links {
		l.Close()
	}
}

func (f *fakeUpstream) asked() (binds []string, searches []fakeSearch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append(binds, f.binds...), append(searches, f.searches...)
}

// users counts the searches other than those of the base, whose only purpose is to see that the tree is there.
func (f *fakeUpstream) users() (n int) {
	_, searches := f.asked()
	for _, q := range searches {
		if q.base != testBase {
			n++
		}
	}
	return n
}

func (f *fakeUpstream) setRefuse(refuse bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

func readPDU(in *bufio.Reader) ([]byte, error) {
	var b []byte
	for {
		c, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		b = append(b, c)
		if _, head, length, err := ber.Header(b); err == nil {
			b = append(b, make([]byte, length)...)
			_, err := io.ReadFull(in, b[head:])
			return b[head:], err
		} else if !errors.Is(err, ber.ErrShort) {
			return nil, err
		}
	}
}

func (f *fakeUpstream) serve(l *fakeLink) {
	defer l.Close()
	for in := bufio.NewReader(l); ; {
		body, err := readPDU(in)
		if err != nil {
			return
		}
		var m message
		if m.decode(body, 16) != nil {
			return
		}
		switch m.op {
		case opBindRequest:
			var b bindRequest
			if b.decode(m.body) != nil {
				return
			}
			f.mu.Lock()
			f.binds = append(f.binds, string(b.name)+" "+string(b.credentials))
			refuse := f.refuse
			f.mu.Unlock()
			r := result{}
			if refuse || string(b.name) != serviceDN || string(b.credentials) != servicePass {
				r.code = invalidCredentials
			}
			l.Write(appendResponse(nil, m.id, opBindResponse, r))
		case opSearchRequest:
			var s searchRequest
			if s.decode(m.body) != nil {
				return
			}
			q := fakeSearch{id: m.id, base: string(s.base), filter: bytes.Clone(s.filter)}
			for r := ber.NewReader(s.attributes); !r.Empty(); {
				a, _ := r.Expect(ber.OctetString)
				q.attrs = append(q.attrs, string(a))
			}
			for _, c := range m.controls {
				if string(c.oid) == "1.2.840.113556.1.4.319" {
					outer := ber.NewReader(c.value)
					seq, _ := outer.Expect(ber.Sequence)
					r := ber.NewReader(seq)
					q.size, _ = r.Int()
					cookie, _ := r.Expect(ber.OctetString)
					q.cookie = string(cookie)
				}
			}
			f.mu.Lock()
			f.searches = append(f.searches, q)
			f.mu.Unlock()
			f.search(l, q)
			l.n++
		default:
			return
		}
	}
}

// rawEntry makes a SearchResultEntry; attrs are a name and its values.
func rawEntry(id int32, dn string, attrs ...[]string) []byte {
	var list [][]byte
	for _, a := range attrs {
		var values [][]byte
		for _, v := range a[1:] {
			values = append(values, str(v))
		}
		list = append(list, cons(ber.Sequence, str(a[0]), cons(ber.Set, values...)))
	}
	return pdu(id, cons(opSearchEntry, str(dn), cons(ber.Sequence, list...)))
}

func rawDone(id int32, code resultCode, more ...[]byte) []byte {
	return pdu(id, cons(opSearchDone, enum(int32(code)), str(""), str("")), more...)
}

func pagingControl(cookie string) []byte {
	return controls(ctl(str("1.2.840.113556.1.4.319"), str(string(cons(ber.Sequence, integ(0), str(cookie))))))
}

// answerAlice is a directory with one user.
func answerAlice(l *fakeLink, q fakeSearch) {
	if q.base == testBase && q.size == 0 && len(q.attrs) == 1 && q.attrs[0] == "1.1" { // whether the tree is there at all
		l.Write(append(rawEntry(q.id, testBase), rawDone(q.id, success)...))
		return
	}
	l.Write(append(rawEntry(q.id, aliceDN, []string{"uid", "Alice"}), rawDone(q.id, success)...))
}

func testUpstream(t testing.TB, limits UpstreamLimits, fakes ...*fakeUpstream) (*upstream, *bytes.Buffer) {
	t.Helper()
	c := Upstream{BindDN: serviceDN, Password: servicePass, Limits: limits}
	for _, f := range fakes {
		c.URLs = append(c.URLs, f.url())
	}
	root, err := parseDN(testBase, defaultLimits(t))
	if err != nil {
		t.Fatal(err)
	}
	logged := &bytes.Buffer{}
	u, err := newUpstream(c, root, defaultLimits(t), slog.New(slog.NewTextHandler(&lockedWriter{w: logged}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	return u, logged
}

func mustDN(t testing.TB, s string) *dn {
	t.Helper()
	d, err := parseDN(s, defaultLimits(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// brisk are limits for upstreams that are never going to answer.
var brisk = UpstreamLimits{Wait: time.Second, Dial: time.Second, Search: time.Second}
