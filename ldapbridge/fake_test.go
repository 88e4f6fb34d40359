package ldapbridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

const (
	testBase  = "dc=example,dc=org"
	people    = "ou=people,dc=example,dc=org"
	aliceDN   = "uid=alice,ou=people,dc=example,dc=org"
	alicePass = "abcd-efgh-ijkl-mnop"
)

var errBroken = errors.New("the database is gone")

// fakeAuth accepts alice and al (her alias) with alicePass and bob with bobs; broken is undecided.
type fakeAuth struct {
	mu    sync.Mutex
	calls []auth.Request
	hook  func(context.Context, auth.Request) (auth.Decision, error)

	stands func() (auth.Reason, error) // nil: every bind does

	refused []auth.Request // without being asked
}

func (f *fakeAuth) Refused(_ context.Context, req auth.Request) {
	f.mu.Lock()
	f.refused = append(f.refused, req)
	f.mu.Unlock()
}

func (f *fakeAuth) Stands(context.Context, *auth.Standing) (auth.Reason, error) {
	if f.stands != nil {
		return f.stands()
	}
	return auth.Accepted, nil
}

func (f *fakeAuth) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	f.mu.Lock()
	f.calls = append(f.calls, req)
	f.mu.Unlock()
	if f.hook != nil {
		return f.hook(ctx, req)
	}
	return decideFake(req)
}

func decideFake(req auth.Request) (auth.Decision, error) {
	login, err := auth.NormaliseLogin(req.Login)
	switch {
	case err != nil:
		return auth.Decision{Reason: auth.UnknownLogin}, nil
	case req.Reader:
		if login == "scan" && req.Password == "scans" {
			return auth.Decision{OK: true, Reason: auth.Accepted, Login: "scan", AccountID: 9}, nil
		}
		if login == "probe" && req.Password == "probes" {
			return auth.Decision{OK: true, Reason: auth.Accepted, Login: "probe", AccountID: 10}, nil
		}
		return auth.Decision{Reason: auth.NoMatch}, nil
	case login == "broken":
		return auth.Decision{}, errBroken
	case (login == "alice" || login == "al") && req.Password == alicePass:
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: "alice", AccountID: 1}, nil
	case login == "bob" && req.Password == "bobs":
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: "bob", AccountID: 2}, nil
	case login == "nameless" && req.Password == "nameless":
		return auth.Decision{OK: true, Reason: auth.Accepted}, nil
	case login == "gone" && req.Password == "gone":
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: "gone"}, nil
	case login == "off" && req.Password == "off":
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: "off"}, nil
	case login == "sick" && req.Password == "sick":
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: "sick"}, nil
	}
	return auth.Decision{Reason: auth.NoMatch}, nil
}

func (f *fakeAuth) asked() []auth.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]auth.Request(nil), f.calls...)
}

// fakeDirectory holds the accounts of fakePeople.
type fakeDirectory struct{}

func (fakeDirectory) Entry(_ context.Context, login string) (auth.Account, error) {
	if login == "sick" {
		return auth.Account{}, errBroken
	}
	return fakePeople.Entry(context.TODO(), login)
}
func (fakeDirectory) FindAccounts(_ context.Context, keys []auth.AccountKey, limit int, parts auth.Parts) ([]auth.Account, error) {
	return fakePeople.FindAccounts(context.TODO(), keys, limit, parts)
}
func (fakeDirectory) Accounts(_ context.Context, after string, limit int, parts auth.Parts) ([]auth.Account, error) {
	return fakePeople.Accounts(context.TODO(), after, limit, parts)
}
func (fakeDirectory) FindGroups(_ context.Context, keys []auth.GroupKey, limit int) ([]auth.Group, error) {
	if slices.Contains(keys, auth.GroupKey{Member: "sick"}) {
		return nil, errBroken
	}
	return fakePeople.FindGroups(context.TODO(), keys, limit)
}
func (fakeDirectory) Groups(_ context.Context, after string, limit int) ([]auth.Group, error) {
	return fakePeople.Groups(context.TODO(), after, limit)
}

var fakePeople = &memDirectory{
	accounts: []auth.Account{
		{
			ID: 1, UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", Login: "alice", Aliases: []string{"al"}, DisplayName: "Alice Adams", Enabled: true, Groups: []string{"staff"},
			Attributes: map[string][]string{
				"MAIL": {"alice@example.org", "a.adams@example.org"}, "surname": {"Adams"}, "memberOf": {"cn=forged,ou=groups,dc=example,dc=org"},
				"uidNumber": {"1001"}, "gidNumber": {"100"}, "homeDirectory": {"/home/alice"}, "userPassword": {"{SSHA}secret"}, "x-Room": {"B 12"},
				"sambaNTPassword": {"secret"}, "jpegPhoto": {"\xff\xd8\x00"}, "entryUUID": {"forged"}, "empty": nil, "bad name": {"x"},
			},
			CreatedAt: time.Date(2026, 11, 22, 1, 2, 3, 0, time.FixedZone("", 3600)), ModifiedAt: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		},
		{ID: 2, UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430c9", Login: "bob", Enabled: true, Groups: []string{"admins"},
			Attributes: map[string][]string{"mail": {"bob@example.org"}}},
		{ID: 3, Login: "off"},
		{ID: 9, Login: "scan", Kind: auth.Reader, Enabled: true},
	},
	groups: []auth.Group{
		{Name: "admins", UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430d1", Members: []string{"bob"}},
		{Name: "empty", DisplayName: "Nobody at all", UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430d2"},
		{Name: "staff", UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430d3", Members: []string{"alice"}, Attributes: map[string][]string{"gidNumber": {"100"}}},
	},
}

// memDirectory keeps the promises of [Directory] by looking at everything.
type memDirectory struct {
	accounts []auth.Account
	groups   []auth.Group

	mu    sync.Mutex
	calls []string // what was asked, if not nil
}

// asked returns how often it was.
func (m *memDirectory) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.calls)
}

func (m *memDirectory) note(call string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls != nil {
		m.calls = append(m.calls, strings.TrimSpace(call+" "+fmt.Sprint(args...)))
	}
}

func (m *memDirectory) Entry(_ context.Context, login string) (auth.Account, error) {
	m.note("entry", login)
	for _, a := range m.accounts {
		if a.Login == login || slices.Contains(a.Aliases, login) {
			return a, nil
		}
	}
	return auth.Account{}, auth.ErrNoAccount
}

func (m *memDirectory) FindAccounts(_ context.Context, keys []auth.AccountKey, limit int, parts auth.Parts) ([]auth.Account, error) {
	m.note("find", keys)
	var found []auth.Account
	for _, a := range m.accounts {
		if slices.ContainsFunc(keys, func(k auth.AccountKey) bool {
			switch {
			case k.Login != "":
				return a.Login == k.Login || slices.Contains(a.Aliases, k.Login)
			case k.UUID != "":
				return a.UUID == k.UUID
			case k.Group != "":
				return slices.Contains(a.Groups, k.Group)
			}
			for name, values := range a.Attributes {
				if slices.ContainsFunc(values, func(v string) bool { return auth.SearchKey(name, v) == k.Search }) {
					return true
				}
			}
			return auth.SearchKey("displayName", a.DisplayName) == k.Search
		}) {
			found = append(found, only(a, parts))
		}
	}
	slices.SortFunc(found, func(a, b auth.Account) int { return strings.Compare(a.Login, b.Login) })
	return found[:min(limit, len(found))], nil
}

func (m *memDirectory) Accounts(_ context.Context, after string, limit int, parts auth.Parts) ([]auth.Account, error) {
	m.note("list", after, limit)
	var found []auth.Account
	for _, a := range m.accounts {
		if a.Login > after && a.Kind == auth.Person {
			found = append(found, only(a, parts))
		}
	}
	slices.SortFunc(found, func(a, b auth.Account) int { return strings.Compare(a.Login, b.Login) })
	return found[:min(limit, len(found))], nil
}

// only leaves out what was not asked for.
func only(a auth.Account, parts auth.Parts) auth.Account {
	if parts&auth.PartAliases == 0 {
		a.Aliases = nil
	}
	if parts&auth.PartGroups == 0 {
		a.Groups = nil
	}
	if parts&auth.PartUserdb == 0 {
		a.Userdb = nil
	}
	return a
}

func (m *memDirectory) FindGroups(_ context.Context, keys []auth.GroupKey, limit int) ([]auth.Group, error) {
	m.note("find groups", keys)
	var found []auth.Group
	for _, g := range m.groups {
		if slices.ContainsFunc(keys, func(k auth.GroupKey) bool {
			return k.Name != "" && k.Name == g.Name || k.UUID != "" && k.UUID == g.UUID || k.Member != "" && slices.Contains(g.Members, k.Member)
		}) {
			found = append(found, g)
		}
	}
	slices.SortFunc(found, func(a, b auth.Group) int { return strings.Compare(a.Name, b.Name) })
	return found[:min(limit, len(found))], nil
}

func (m *memDirectory) Groups(_ context.Context, after string, limit int) ([]auth.Group, error) {
	m.note("list groups", after, limit)
	var found []auth.Group
	for _, g := range m.groups {
		if g.Name > after {
			found = append(found, g)
		}
	}
	slices.SortFunc(found, func(a, b auth.Group) int { return strings.Compare(a.Name, b.Name) })
	return found[:min(limit, len(found))], nil
}

func newTestServer(t testing.TB, cfg Config) (*Server, *fakeAuth, *bytes.Buffer) {
	t.Helper()
	if cfg.BaseDN == "" {
		cfg.BaseDN = testBase
	}
	a, logged := &fakeAuth{}, &bytes.Buffer{}
	s, err := New(cfg, a, fakeDirectory{}, slog.New(slog.NewTextHandler(&lockedWriter{w: logged}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, a, logged
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// memConn is a connection whose input is given and whose output is kept. Every Read returns at most chunk bytes.
type memConn struct {
	in     []byte
	chunk  int
	out    bytes.Buffer
	writes int
	remote net.Addr
}

func (m *memConn) Read(p []byte) (int, error) {
	if len(m.in) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(m.in))
	if m.chunk > 0 {
		n = min(n, m.chunk)
	}
	copy(p, m.in[:n])
	m.in = m.in[n:]
	return n, nil
}
func (m *memConn) Write(p []byte) (int, error)      { m.writes++; return m.out.Write(p) }
func (m *memConn) Close() error                     { return nil }
func (m *memConn) LocalAddr() net.Addr              { return m.RemoteAddr() }
func (m *memConn) SetDeadline(time.Time) error      { return nil }
func (m *memConn) SetReadDeadline(time.Time) error  { return nil }
func (m *memConn) SetWriteDeadline(time.Time) error { return nil }
func (m *memConn) RemoteAddr() net.Addr {
	if m.remote == nil {
		return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
	}
	return m.remote
}

// talk plays the input to the server on one connection and returns all that it answered.
func talk(t testing.TB, s *Server, in ...[]byte) []reply {
	t.Helper()
	return talkOn(t, s, &memConn{in: bytes.Join(in, nil)})
}

func talkOn(t testing.TB, s *Server, m *memConn) []reply {
	t.Helper()
	newConn(s, m, "tcp:test").Serve()
	replies, err := parseReplies(m.out.Bytes())
	if err != nil {
		t.Fatalf("answer is not well-formed LDAP: %v: % x", err, m.out.Bytes())
	}
	return replies
}

// reply is a response, as a strict client reads it.
type reply struct {
	id      int32
	op      byte
	code    resultCode
	matched string
	diag    string
	name    string // responseName, or the DN of an entry
	value   string // responseValue
	hasVal  bool
	attrs   map[string][]string

	controls []byte // of the message
}

func (r reply) String() string {
	if r.op == opSearchEntry {
		return fmt.Sprintf("%d entry %q", r.id, r.name)
	}
	s := fmt.Sprintf("%d %#x %d", r.id, r.op, r.code)
	for _, x := range []string{r.matched, r.diag, r.name, r.value} {
		if x != "" {
			s += fmt.Sprintf(" %q", x)
		}
	}
	return s
}

// strict refuses what no server should send: length octets that are longer than necessary.
func strict(r *ber.Reader) (tag byte, body []byte, err error) {
	whole := *r
	tag, body, err = r.Next()
	if err != nil {
		return
	}
	full, _ := whole.NextElement()
	if want := ber.AppendString(nil, tag, body); !bytes.Equal(want, full) {
		return 0, nil, fmt.Errorf("not minimal: % x", full)
	}
	return
}

func parseReplies(out []byte) (replies []reply, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	must := func(r *ber.Reader, want byte) []byte {
		tag, body, err := strict(r)
		if err != nil {
			panic(err)
		}
		if tag != want {
			panic(fmt.Sprintf("tag %#x, want %#x", tag, want))
		}
		return body
	}
	number := func(r *ber.Reader, want byte) int32 {
		v, err := ber.ParseInt(must(r, want))
		if err != nil {
			panic(err)
		}
		return v
	}
	for r := ber.NewReader(out); !r.Empty(); {
		var x reply
		m := ber.NewReader(must(&r, ber.Sequence))
		x.id = number(&m, ber.Integer)
		tag, body, err := strict(&m)
		if err != nil {
			return nil, err
		}
		x.op = tag
		b := ber.NewReader(body)
		switch tag {
		case opSearchEntry:
			x.name, x.attrs = string(must(&b, ber.OctetString)), map[string][]string{}
			for list := ber.NewReader(must(&b, ber.Sequence)); !list.Empty(); {
				one := ber.NewReader(must(&list, ber.Sequence))
				name := string(must(&one, ber.OctetString))
				if _, twice := x.attrs[name]; twice {
					return nil, fmt.Errorf("attribute %s twice", name)
				}
				x.attrs[name] = []string{}
				for set := ber.NewReader(must(&one, ber.Set)); !set.Empty(); {
					x.attrs[name] = append(x.attrs[name], string(must(&set, ber.OctetString)))
				}
			}
		case opBindResponse, opSearchDone, opModifyResponse, opAddResponse, opDelResponse, opModDNResponse, opCompareResponse, opExtendedResponse:
			x.code = resultCode(number(&b, ber.Enumerated))
			x.matched, x.diag = string(must(&b, ber.OctetString)), string(must(&b, ber.OctetString))
			if tag == opExtendedResponse && b.Peek() == 0x8a {
				x.name = string(must(&b, 0x8a))
			}
			if tag == opExtendedResponse && b.Peek() == 0x8b {
				x.value, x.hasVal = string(must(&b, 0x8b)), true
			}
		default:
			return nil, fmt.Errorf("unknown response %#x", tag)
		}
		if m.Peek() == 0xa0 {
			x.controls = must(&m, 0xa0)
		}
		if !b.Empty() || !m.Empty() {
			return nil, errors.New("trailing bytes")
		}
		replies = append(replies, x)
	}
	return replies, nil
}

// Builders of requests.

func cons(tag byte, parts ...[]byte) []byte {
	return ber.AppendString(nil, tag, bytes.Join(parts, nil))
}

func str(s string) []byte            { return ber.AppendString(nil, ber.OctetString, s) }
func tagged(t byte, s string) []byte { return ber.AppendString(nil, t, s) }
func integ(v int32) []byte           { return ber.AppendInt(nil, ber.Integer, v) }
func enum(v int32) []byte            { return ber.AppendInt(nil, ber.Enumerated, v) }

func pdu(id int32, op []byte, more ...[]byte) []byte {
	return cons(ber.Sequence, integ(id), op, bytes.Join(more, nil))
}

func bindReq(id int32, name, password string, more ...[]byte) []byte {
	return pdu(id, cons(opBindRequest, integ(3), str(name), tagged(0x80, password)), more...)
}

func whoami(id int32, more ...[]byte) []byte {
	return pdu(id, cons(opExtendedRequest, tagged(0x80, oidWhoAmI)), more...)
}

func unbind(id int32) []byte { return pdu(id, []byte{opUnbindRequest, 0}) }

type searchSpec struct {
	base         string
	scope, deref int32
	size, time   int32
	typesOnly    bool
	filter       []byte // default: (objectClass=*)
	attrs        []string
}

func searchReq(id int32, s searchSpec, more ...[]byte) []byte {
	if s.filter == nil {
		s.filter = tagged(filterPresent, "objectClass")
	}
	var attrs []byte
	for _, a := range s.attrs {
		attrs = append(attrs, str(a)...)
	}
	return pdu(id, cons(opSearchRequest, str(s.base), enum(s.scope), enum(s.deref), integ(s.size), integ(s.time),
		ber.AppendBool(nil, ber.Boolean, s.typesOnly), s.filter, cons(ber.Sequence, attrs)), more...)
}

func compareReq(id int32, entry, attr, value string, more ...[]byte) []byte {
	return pdu(id, cons(opCompareRequest, str(entry), cons(ber.Sequence, str(attr), str(value))), more...)
}

func ctl(parts ...[]byte) []byte { return cons(ber.Sequence, parts...) }

func controls(list ...[]byte) []byte { return cons(0xa0, list...) }

var (
	yes = []byte{ber.Boolean, 1, 0xff}
	no  = []byte{ber.Boolean, 1, 0}
)
