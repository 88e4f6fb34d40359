package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/logline"
)

// Passwords of the shape that the fake secrets take for generated ones, and others.
const (
	good    = "goodgoodgoodgood"
	other   = "otherotherothera"
	chosen  = "Chosen by a person 1"
	another = "Another main password"
)

// fakeRows is a table of accounts by login. It returns all rows of an account, as the store may.
type fakeRows struct {
	mu       sync.Mutex
	accounts map[string]*auth.Found
	err      error
	logins   []string // asked for
	tags     [][]auth.Tag
	hook     func(ctx context.Context)
}

func (f *fakeRows) Lookup(ctx context.Context, login string, tags []auth.Tag) (*auth.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logins = append(f.logins, login)
	f.tags = append(f.tags, slices.Clone(tags))
	if f.hook != nil {
		f.hook(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	found := f.accounts[login]
	if found == nil {
		return nil, nil
	}
	c := *found
	c.Candidates = slices.Clone(found.Candidates)
	return &c, nil
}

// fakeSecrets hashes a password to "phc:" and itself, takes sixteen letters for a generated one, and counts.
type fakeSecrets struct {
	mu       sync.Mutex
	verified []string // stored hashes, in the order of the calls
	hook     func(phc string)
}

var errBroken = errors.New("stored hash cannot be used")

func (f *fakeSecrets) Normalise(password string) (string, bool) {
	s := strings.ToLower(strings.ReplaceAll(password, "-", ""))
	if len(s) != 16 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") != "" {
		return "", false
	}
	return s, true
}

func (f *fakeSecrets) Tags(dst []auth.Tag, normalised string) []auth.Tag {
	return append(dst, auth.Tag{PepperID: 1, Value: uint16(normalised[0])}, auth.Tag{PepperID: 2, Value: uint16(normalised[1])})
}

func (f *fakeSecrets) Verify(phc, password string) (bool, error) {
	f.mu.Lock()
	f.verified = append(f.verified, phc)
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		hook(phc)
	}
	if strings.HasPrefix(phc, "broken") {
		return false, fmt.Errorf("%w: unknown scheme", errBroken)
	}
	return strings.TrimRight(phc, "!") == "phc:"+password, nil // any number of "!" makes another hash of the same text
}

// calls is how many slow hashes were computed since the last call.
func (f *fakeSecrets) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.verified)
	f.verified = nil
	return n
}

type fakeEnrolment struct {
	enrolled bool
	note     string
	err      error
	mu       sync.Mutex
	asked    int
	service  string
}

func (f *fakeEnrolment) Enrolled(_ context.Context, accountID int64, login string, req *auth.Request) (bool, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	f.service = req.Service
	if accountID != 7 || login != "alice" {
		return false, "", fmt.Errorf("asked for account %d, %q", accountID, login)
	}
	if req.Password != "" {
		return false, "", errors.New("was given the password")
	}
	return f.enrolled, f.note, f.err
}

type fakeRecorder struct {
	mu       sync.Mutex
	attempts []auth.Attempt
}

func (f *fakeRecorder) Record(a auth.Attempt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts = append(f.attempts, a)
}

// fixture is an Authenticator on fakes with one account: alice, alias al, id 7.
type fixture struct {
	*auth.Authenticator
	t         *testing.T
	rows      *fakeRows
	secrets   *fakeSecrets
	enrolment *fakeEnrolment
	recorder  *fakeRecorder
	alice     *auth.Found
	now       time.Time
	log       bytes.Buffer
	writer    *logline.Writer
}

func newFixture(t *testing.T, hashes *auth.Admission, candidates ...auth.Candidate) *fixture {
	f := &fixture{
		t:         t,
		secrets:   &fakeSecrets{},
		enrolment: &fakeEnrolment{enrolled: true},
		recorder:  &fakeRecorder{},
		alice:     &auth.Found{AccountID: 7, Login: "alice", Enabled: true, Candidates: candidates},
		now:       time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	f.rows = &fakeRows{accounts: map[string]*auth.Found{"alice": f.alice, "al": f.alice}}
	f.writer = logline.NewWriter(&f.log)
	t.Cleanup(f.writer.Close)
	f.Authenticator = auth.New(auth.Config{
		Rows: f.rows, Secrets: f.secrets, Enrolment: f.enrolment, Recorder: f.recorder, Hashes: hashes,
		Log: f.logger(), Now: func() time.Time { return f.now },
	})
	return f
}

func (f *fixture) logger() *slog.Logger {
	return slog.New(logline.NewHandler(logline.Config{Out: f.writer, Level: new(slog.LevelVar), Journal: true}))
}

// lines returns what was logged since the last call.
func (f *fixture) lines() string {
	f.writer.Flush()
	s := f.log.String()
	f.log.Reset()
	return s
}

func generated(id int64, password string) auth.Candidate {
	return auth.Candidate{ID: id, Label: fmt.Sprintf("label %d", id), PHC: "phc:" + password, Origin: auth.Generated}
}

func imported(id int64, password string) auth.Candidate {
	c := generated(id, password)
	c.Origin = auth.Imported
	return c
}

// but changes a candidate.
func but(c auth.Candidate, change ...func(*auth.Candidate)) auth.Candidate {
	for _, f := range change {
		f(&c)
	}
	return c
}

func revoked(c *auth.Candidate) { c.Revoked = true }
func expired(c *auth.Candidate) { c.Expired = true }
func broken(c *auth.Candidate)  { c.PHC = "broken " + c.PHC }
func service(names ...string) func(*auth.Candidate) {
	return func(c *auth.Candidate) { c.Services = names }
}
func network(prefixes ...string) func(*auth.Candidate) {
	return func(c *auth.Candidate) {
		for _, p := range prefixes {
			c.Networks = append(c.Networks, netip.MustParsePrefix(p))
		}
	}
}

func request(login, password string) auth.Request {
	return auth.Request{
		Login: login, Password: password, Service: "imap", FrontEnd: "dovecot", Session: "8f3a",
		Addr: netip.MustParseAddr("192.0.2.7"),
	}
}

func TestReasons(t *testing.T) {
	for _, tt := range []struct {
		name     string
		rows     []auth.Candidate
		login    string // default alice
		password string // default good
		service  string // default imap
		addr     string // default 192.0.2.7; "-" is not known
		disabled bool
		bare     bool // not enrolled
		want     auth.Reason
		label    string
		verified int // slow hashes
	}{
		{name: "accepted", rows: []auth.Candidate{generated(1, good)}, want: auth.Accepted, label: "label 1", verified: 1},
		{name: "accepted by an alias", rows: []auth.Candidate{generated(1, good)}, login: "AL", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "accepted as typed", rows: []auth.Candidate{generated(1, good)}, password: "Good-good-GOOD-good", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "accepted imported", rows: []auth.Candidate{imported(1, chosen)}, password: chosen, want: auth.Accepted, label: "label 1", verified: 1},
		{name: "accepted imported of generated shape", rows: []auth.Candidate{imported(1, "GOOD-goodgoodgood")}, password: "GOOD-goodgoodgood", want: auth.Accepted, label: "label 1", verified: 1},

		{name: "no rows", want: auth.NoMatch},
		{name: "no match", rows: []auth.Candidate{generated(1, good)}, password: other, want: auth.NoMatch, verified: 1},
		{name: "no match among two", rows: []auth.Candidate{generated(1, good), generated(2, good+"!")}, password: other, want: auth.NoMatch, verified: 2},
		{name: "imported is compared byte for byte", rows: []auth.Candidate{imported(1, chosen)}, password: strings.ToLower(chosen), want: auth.NoMatch, verified: 1},
		{name: "imported is not normalised", rows: []auth.Candidate{imported(1, good)}, password: "good-good-good-good", want: auth.NoMatch, verified: 1},
		{name: "unshaped beside an imported row", rows: []auth.Candidate{generated(1, good), imported(2, chosen)}, password: another, want: auth.NoMatch, verified: 1},

		{name: "bad format", rows: []auth.Candidate{generated(1, good)}, password: another, want: auth.BadFormat},
		{name: "bad format, no rows", password: another, want: auth.BadFormat},
		{name: "bad format, newline", rows: []auth.Candidate{generated(1, good)}, password: good + "\n", want: auth.BadFormat},

		{name: "unknown login", login: "bob", want: auth.UnknownLogin},
		{name: "unknown login, unshaped", login: "bob", password: another, want: auth.UnknownLogin},
		{name: "login that no account can have", login: "al ice", want: auth.UnknownLogin},
		{name: "login with NUL", login: "alice\x00", want: auth.UnknownLogin},
		{name: "empty login", login: "\x00empty", want: auth.UnknownLogin},

		{name: "revoked", rows: []auth.Candidate{but(generated(1, good), revoked)}, want: auth.Revoked, label: "label 1", verified: 1},
		{name: "expired", rows: []auth.Candidate{but(generated(1, good), expired)}, want: auth.Expired, label: "label 1", verified: 1},
		{name: "wrong password for a revoked one", rows: []auth.Candidate{but(generated(1, good), revoked)}, password: other, want: auth.NoMatch, verified: 1},
		{name: "service not allowed", rows: []auth.Candidate{but(generated(1, good), service("smtp", "ldap"))}, want: auth.ServiceNotAllowed, label: "label 1", verified: 1},
		{name: "service allowed", rows: []auth.Candidate{but(generated(1, good), service("smtp", "imap"))}, want: auth.Accepted, label: "label 1", verified: 1},
		{name: "service in upper case", rows: []auth.Candidate{but(generated(1, good), service("imap"))}, service: "IMAP", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "service that only begins so", rows: []auth.Candidate{but(generated(1, good), service("imap"))}, service: "imaps", want: auth.ServiceNotAllowed, label: "label 1", verified: 1},
		{name: "malformed service, restricted", rows: []auth.Candidate{but(generated(1, good), service("imap"))}, service: "im ap", want: auth.ServiceNotAllowed, label: "label 1", verified: 1},
		{name: "malformed service, unrestricted", rows: []auth.Candidate{generated(1, good)}, service: "im ap\n", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "huge service, unrestricted", rows: []auth.Candidate{generated(1, good)}, service: strings.Repeat("s", 1<<16), want: auth.Accepted, label: "label 1", verified: 1},
		{name: "no service, restricted", rows: []auth.Candidate{but(generated(1, good), service("imap"))}, service: "-", want: auth.ServiceNotAllowed, label: "label 1", verified: 1},

		{name: "network allowed", rows: []auth.Candidate{but(generated(1, good), network("198.51.100.0/24", "192.0.2.0/24"))}, want: auth.Accepted, label: "label 1", verified: 1},
		{name: "network not allowed", rows: []auth.Candidate{but(generated(1, good), network("198.51.100.0/24"))}, want: auth.NetworkNotAllowed, label: "label 1", verified: 1},
		{name: "address next to the network", rows: []auth.Candidate{but(generated(1, good), network("192.0.2.0/29"))}, addr: "192.0.2.8", want: auth.NetworkNotAllowed, label: "label 1", verified: 1},
		{name: "address not known, restricted", rows: []auth.Candidate{but(generated(1, good), network("0.0.0.0/0", "::/0"))}, addr: "-", want: auth.NetworkNotAllowed, label: "label 1", verified: 1},
		{name: "address not known, unrestricted", rows: []auth.Candidate{generated(1, good)}, addr: "-", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "IPv4-mapped address", rows: []auth.Candidate{but(generated(1, good), network("192.0.2.0/24"))}, addr: "::ffff:192.0.2.7", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "IPv4-mapped address is not IPv6", rows: []auth.Candidate{but(generated(1, good), network("::/0"))}, addr: "::ffff:192.0.2.7", want: auth.NetworkNotAllowed, label: "label 1", verified: 1},
		{name: "IPv6", rows: []auth.Candidate{but(generated(1, good), network("2001:db8::/32"))}, addr: "2001:db8::1", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "IPv6 not allowed", rows: []auth.Candidate{but(generated(1, good), network("2001:db8::/32"))}, addr: "2001:db9::1", want: auth.NetworkNotAllowed, label: "label 1", verified: 1},
		{name: "IPv6 with a zone", rows: []auth.Candidate{but(generated(1, good), network("fe80::/10"))}, addr: "fe80::1%eth0", want: auth.Accepted, label: "label 1", verified: 1},
		{name: "IPv4 in an IPv6 network", rows: []auth.Candidate{but(generated(1, good), network("::/0"))}, want: auth.NetworkNotAllowed, label: "label 1", verified: 1},

		{name: "account disabled", rows: []auth.Candidate{generated(1, good)}, disabled: true, want: auth.AccountDisabled, label: "label 1", verified: 1},
		{name: "account disabled, wrong password", rows: []auth.Candidate{generated(1, good)}, disabled: true, password: other, want: auth.NoMatch, verified: 1},
		{name: "not enrolled", rows: []auth.Candidate{generated(1, good)}, bare: true, want: auth.NotEnrolled, label: "label 1", verified: 1},

		// If several apply, the log tells one: account, then row, then service, then network, then second factor.
		{name: "disabled before revoked", rows: []auth.Candidate{but(generated(1, good), revoked, expired)}, disabled: true, want: auth.AccountDisabled, label: "label 1", verified: 1},
		{name: "revoked before expired", rows: []auth.Candidate{but(generated(1, good), revoked, expired, service("smtp"))}, want: auth.Revoked, label: "label 1", verified: 1},
		{name: "expired before service", rows: []auth.Candidate{but(generated(1, good), expired, service("smtp"))}, want: auth.Expired, label: "label 1", verified: 1},
		{name: "service before network", rows: []auth.Candidate{but(generated(1, good), service("smtp"), network("::/0"))}, want: auth.ServiceNotAllowed, label: "label 1", verified: 1},
		{name: "network before enrolment", rows: []auth.Candidate{but(generated(1, good), network("::/0"))}, bare: true, want: auth.NetworkNotAllowed, label: "label 1", verified: 1},

		// A row that refuses never hides one that accepts.
		{name: "tombstone before a live row", rows: []auth.Candidate{but(imported(1, chosen), revoked), imported(2, chosen)}, password: chosen, want: auth.Accepted, label: "label 2", verified: 1},
		{name: "live row before a tombstone", rows: []auth.Candidate{imported(2, chosen), but(imported(1, chosen), revoked)}, password: chosen, want: auth.Accepted, label: "label 2", verified: 1},
		{name: "generated tombstone and imported live row", rows: []auth.Candidate{but(generated(1, good), revoked), imported(2, good)}, want: auth.Accepted, label: "label 2", verified: 1},
		{name: "same password for two services, the first", rows: []auth.Candidate{but(imported(1, chosen), service("imap")), but(imported(2, chosen), service("smtp"))}, password: chosen, want: auth.Accepted, label: "label 1", verified: 1},
		{name: "same password for two services, the second", rows: []auth.Candidate{but(imported(1, chosen), service("imap")), but(imported(2, chosen), service("smtp"))}, password: chosen, service: "smtp", want: auth.Accepted, label: "label 2", verified: 1},
		{name: "same password for two networks", rows: []auth.Candidate{but(imported(1, chosen), network("::/0")), but(imported(2, chosen), network("192.0.2.0/24"))}, password: chosen, want: auth.Accepted, label: "label 2", verified: 1},
		{name: "same password for neither service", rows: []auth.Candidate{but(imported(1, chosen), service("smtp")), but(imported(2, chosen), revoked)}, password: chosen, want: auth.ServiceNotAllowed, label: "label 1", verified: 1},
		{name: "other live row, matching tombstone", rows: []auth.Candidate{generated(1, other), but(generated(2, good), revoked)}, want: auth.Revoked, label: "label 2", verified: 2},

		// A row that cannot be compared does not spoil one that can.
		{name: "broken row before a good one", rows: []auth.Candidate{but(imported(1, chosen), broken), imported(2, chosen)}, password: chosen, want: auth.Accepted, label: "label 2", verified: 2},
		{name: "broken row after a good one", rows: []auth.Candidate{imported(2, chosen), but(imported(1, chosen), broken)}, password: chosen, want: auth.Accepted, label: "label 2", verified: 1},
		{name: "broken tombstone before a good row", rows: []auth.Candidate{but(imported(1, chosen), broken, revoked), imported(2, chosen)}, password: chosen, want: auth.Accepted, label: "label 2", verified: 1},
		{name: "broken tombstone before a matching one", rows: []auth.Candidate{but(imported(1, chosen), broken, revoked), but(imported(2, chosen), expired)}, password: chosen, want: auth.Expired, label: "label 2", verified: 2},
		{name: "broken generated row is not compared with a password of other shape", rows: []auth.Candidate{but(generated(1, good), broken)}, password: another, want: auth.BadFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil, tt.rows...)
			f.alice.Enabled = !tt.disabled
			f.enrolment.enrolled = !tt.bare
			req := request("alice", good)
			if tt.login != "" {
				req.Login = strings.TrimPrefix(tt.login, "\x00empty")
			}
			if tt.password != "" {
				req.Password = tt.password
			}
			if tt.service != "" {
				req.Service = strings.TrimPrefix(tt.service, "-")
			}
			switch tt.addr {
			case "":
			case "-":
				req.Addr = netip.Addr{}
			default:
				req.Addr = netip.MustParseAddr(tt.addr)
			}

			got, err := f.Authenticate(t.Context(), req)
			if err != nil {
				t.Fatalf("Authenticate = %v, want decided", err)
			}
			want := auth.Decision{OK: tt.want == auth.Accepted, Reason: tt.want, Label: tt.label}
			if tt.want != auth.UnknownLogin {
				want.AccountID = 7
			}
			if want.OK {
				want.Login = "alice"
			}
			if got != want {
				t.Errorf("Authenticate = %+v, want %+v", got, want)
			}
			if n := f.secrets.calls(); n != tt.verified {
				t.Errorf("Authenticate computed %d slow hashes, want %d", n, tt.verified)
			}

			// The second factor is asked for only when nothing else refuses: before, it would be an oracle.
			if asked := f.enrolment.asked; asked == 1 != (want.OK || want.Reason == auth.NotEnrolled) || asked > 1 {
				t.Errorf("the enrolment was asked %d times for %s", asked, want.Reason)
			}

			// Exactly one record for a known account, none otherwise.
			var attempts []auth.Attempt
			if want.AccountID != 0 {
				a := auth.Attempt{
					At: f.now, AccountID: 7, OK: want.OK, Reason: want.Reason,
					Service: strings.ToLower(req.Service), FrontEnd: "dovecot", Addr: req.Addr.Unmap().WithZone(""),
				}
				if want.Label != "" {
					fmt.Sscanf(want.Label, "label %d", &a.AppPasswordID)
				}
				attempts = append(attempts, a)
			}
			if !slices.Equal(f.recorder.attempts, attempts) {
				t.Errorf("recorded %+v, want %+v", f.recorder.attempts, attempts)
			}

			// And exactly one line in any case.
			lines := f.lines()
			if strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " reason="+string(want.Reason)+" ") {
				t.Errorf("logged %q, want one line with reason=%s", lines, want.Reason)
			}
			if strings.Contains(lines, req.Password) {
				t.Errorf("logged %q, which holds the password", lines)
			}
		})
	}
}

func TestEmptyPassword(t *testing.T) {
	f := newFixture(t, nil, generated(1, ""), imported(2, ""))
	for _, login := range []string{"alice", "bob", "", "al\x00ice"} {
		got, err := f.Authenticate(t.Context(), request(login, ""))
		if want := (auth.Decision{Reason: auth.EmptyPassword}); got != want || err != nil {
			t.Errorf("Authenticate(%q, empty password) = %+v, %v, want %+v, nil", login, got, err, want)
		}
	}
	if len(f.rows.logins) != 0 || f.secrets.calls() != 0 || len(f.recorder.attempts) != 0 {
		t.Errorf("an empty password caused %d lookups, want none, no hash and no record", len(f.rows.logins))
	}
}

func TestReasonCounts(t *testing.T) {
	for reason, want := range map[auth.Reason]bool{
		auth.NoMatch: true, auth.UnknownLogin: true, auth.BadFormat: true,
		auth.Accepted: false, auth.EmptyPassword: false, auth.Revoked: false, auth.Expired: false, auth.ServiceNotAllowed: false,
		auth.NetworkNotAllowed: false, auth.AccountDisabled: false, auth.NotEnrolled: false, auth.ReaderOnly: false, auth.GroupNotAllowed: false, "": false,
	} {
		if got := reason.Counts(); got != want {
			t.Errorf("%q.Counts() = %v, want %v", reason, got, want)
		}
	}
}

// Long input is answered without a hash; what cannot be the text of any row is not compared.
func TestLongAndOddPasswords(t *testing.T) {
	exact := strings.Repeat("p", auth.MaxPassword)
	for _, tt := range []struct {
		name     string
		password string
		verified int
	}{
		{"at the limit", exact, 1},
		{"above the limit", exact + "p", 0},
		{"a megabyte", strings.Repeat("p", 1<<20), 0},
		{"NUL inside", "secret\x00more", 0}, // crypt(3) and bcrypt would end at the NUL
		{"NUL at the end", good + "\x00", 0},
		{"invalid UTF-8", "p\xff", 1},
	} {
		f := newFixture(t, nil, imported(1, tt.password), generated(2, good))
		got, err := f.Authenticate(t.Context(), request("alice", tt.password))
		if err != nil || got.OK != (tt.verified == 1) {
			t.Errorf("%s: Authenticate = %+v, %v, want OK %v", tt.name, got, err, tt.verified == 1)
		}
		if n := f.secrets.calls(); n != tt.verified {
			t.Errorf("%s: %d slow hashes, want %d", tt.name, n, tt.verified)
		}
	}
}

func TestLookupIsAskedForTheNormalisedLoginAndEveryTag(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	for _, tt := range []struct {
		login, password string
		want            string // empty: no lookup
		tags            []auth.Tag
	}{
		{"ALICE", good, "alice", []auth.Tag{{PepperID: 1, Value: 'g'}, {PepperID: 2, Value: 'o'}}},
		{"\uff21lice", "Other-otherothera", "alice", []auth.Tag{{PepperID: 1, Value: 'o'}, {PepperID: 2, Value: 't'}}},
		{"alice", another, "alice", nil},
		{"al ice", good, "", nil},
		{strings.Repeat("a", auth.MaxLogin+1), good, "", nil},
	} {
		f.rows.logins, f.rows.tags = nil, nil
		if _, err := f.Authenticate(t.Context(), request(tt.login, tt.password)); err != nil {
			t.Errorf("Authenticate(%.20q) = %v, want decided", tt.login, err)
		}
		if tt.want == "" {
			if len(f.rows.logins) != 0 {
				t.Errorf("Authenticate(%.20q) looked up %q, want no lookup", tt.login, f.rows.logins)
			}
			continue
		}
		if !slices.Equal(f.rows.logins, []string{tt.want}) || !slices.Equal(f.rows.tags[0], tt.tags) {
			t.Errorf("Authenticate(%q, %q) looked up %q %v, want %q %v", tt.login, tt.password, f.rows.logins, f.rows.tags, tt.want, tt.tags)
		}
	}
}

func TestRequestIsNotChanged(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	req := request("ALICE", good)
	req.Service, req.Addr = "IMAP", netip.MustParseAddr("::ffff:192.0.2.7")
	before := req
	if _, err := f.Authenticate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if req != before {
		t.Errorf("Authenticate changed the caller's request to %+v", req)
	}
	if f.enrolment.service != "imap" {
		t.Errorf("the enrolment was asked for the service %q, want imap", f.enrolment.service)
	}
}

func TestWithoutEnrolmentAndRecorder(t *testing.T) {
	rows := &fakeRows{accounts: map[string]*auth.Found{"alice": {AccountID: 7, Login: "alice", Enabled: true, Candidates: []auth.Candidate{generated(1, good)}}}}
	a := auth.New(auth.Config{Rows: rows, Secrets: &fakeSecrets{}, Log: slog.New(slog.DiscardHandler)})
	for _, tt := range []struct {
		password string
		want     bool
	}{{good, true}, {other, false}} {
		if got, err := a.Authenticate(t.Context(), request("alice", tt.password)); got.OK != tt.want || err != nil {
			t.Errorf("Authenticate = %+v, %v, want OK %v", got, err, tt.want)
		}
	}
}

// undecided checks an attempt that must end without a decision.
func (f *fixture) undecided(ctx context.Context, req auth.Request, wantErr error, word string) {
	f.t.Helper()
	f.recorder.attempts = nil
	before := f.Counters()
	got, err := f.Authenticate(ctx, req)
	if err == nil || wantErr != nil && !errors.Is(err, wantErr) {
		f.t.Errorf("Authenticate = %+v, %v, want the error %v", got, err, wantErr)
		return
	}
	if got != (auth.Decision{}) {
		f.t.Errorf("Authenticate = %+v with the error %v, want the zero Decision", got, err)
	}
	if len(f.recorder.attempts) != 0 {
		f.t.Errorf("an undecided attempt was recorded: %+v", f.recorder.attempts)
	}
	after := f.Counters()
	if after.Undecided != before.Undecided+1 || after.OK != before.OK || after.Fail != before.Fail {
		f.t.Errorf("Counters() = %+v after %+v, want one more undecided", after, before)
	}
	lines := f.lines()
	if strings.Count(lines, "\n") != 1 || !strings.HasPrefix(lines, "<4>auth: result=undecided ") || !strings.Contains(lines, " reason="+word+" count=no ") {
		f.t.Errorf("logged %q, want one line with result=undecided reason=%s count=no", lines, word)
	}
	for _, text := range []string{lines, err.Error()} {
		if strings.Contains(text, req.Password) || strings.Contains(text, "phc:") {
			f.t.Errorf("%q holds the password or the stored hash", text)
		}
	}
}

func TestUndecided(t *testing.T) {
	outage := errors.New("the database is down")
	t.Run("lookup", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		f.rows.err = outage
		for _, password := range []string{good, other, another} {
			f.undecided(t.Context(), request("alice", password), outage, "unavailable")
		}
		f.undecided(t.Context(), request("bob", good), outage, "unavailable")
		f.rows.err = fmt.Errorf("reading: %w", context.DeadlineExceeded)
		f.undecided(t.Context(), request("alice", good), context.DeadlineExceeded, "timeout")
		f.rows.err = auth.ErrShuttingDown
		f.undecided(t.Context(), request("alice", good), auth.ErrShuttingDown, "shutting_down")
		f.rows.err = auth.ErrOverloaded
		f.undecided(t.Context(), request("alice", good), auth.ErrOverloaded, "overloaded")
		f.rows.err = nil
		if got, err := f.Authenticate(t.Context(), request("alice", good)); !got.OK || err != nil {
			t.Errorf("Authenticate after the outage = %+v, %v, want accepted", got, err)
		}
	})
	t.Run("verify", func(t *testing.T) {
		f := newFixture(t, nil, but(generated(1, good), broken))
		for range 2 { // an error is not remembered
			f.undecided(t.Context(), request("alice", good), errBroken, "unavailable")
			if n := f.secrets.calls(); n != 1 {
				t.Errorf("%d slow hashes, want 1", n)
			}
		}
		f.alice.Candidates[0] = generated(1, good)
		if got, err := f.Authenticate(t.Context(), request("alice", good)); !got.OK || err != nil {
			t.Errorf("Authenticate after the repair = %+v, %v, want accepted", got, err)
		}
	})
	t.Run("broken row, no other matches", func(t *testing.T) {
		f := newFixture(t, nil, but(imported(1, chosen), broken), imported(2, another))
		f.undecided(t.Context(), request("alice", chosen), errBroken, "unavailable")
		f = newFixture(t, nil, imported(2, another), but(imported(1, chosen), broken))
		f.undecided(t.Context(), request("alice", chosen), errBroken, "unavailable")
	})
	t.Run("broken tombstone, no other matches", func(t *testing.T) { // the reason is not known, nor whether it counts
		f := newFixture(t, nil, but(imported(1, chosen), broken, revoked), imported(2, another))
		f.undecided(t.Context(), request("alice", chosen), errBroken, "unavailable")
	})
	t.Run("broken good row beside a matching tombstone", func(t *testing.T) {
		f := newFixture(t, nil, but(imported(1, chosen), revoked), but(imported(2, chosen), broken))
		f.undecided(t.Context(), request("alice", chosen), errBroken, "unavailable")
	})
	t.Run("broken good row beside a matching row for another service", func(t *testing.T) {
		f := newFixture(t, nil, but(imported(1, chosen), service("smtp")), but(imported(2, chosen), broken))
		f.undecided(t.Context(), request("alice", chosen), errBroken, "unavailable")
	})
	t.Run("enrolment", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		for _, enrolled := range []bool{true, false} {
			f.enrolment.enrolled, f.enrolment.err = enrolled, outage
			f.undecided(t.Context(), request("alice", good), outage, "unavailable")
		}
		got, err := f.Authenticate(t.Context(), request("alice", other)) // it would not be asked
		if got.Reason != auth.NoMatch || err != nil {
			t.Errorf("Authenticate of a wrong password during the plugin's outage = %+v, %v, want no_match", got, err)
		}
	})
	t.Run("context ended before", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		f.undecided(ctx, request("alice", good), context.Canceled, "client_gone")
		f.undecided(ctx, request("alice", other), context.Canceled, "client_gone")
		ctx, cancel = context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancel()
		f.undecided(ctx, request("alice", good), context.DeadlineExceeded, "timeout")
		if n := f.secrets.calls(); n != 0 {
			t.Errorf("%d slow hashes after the context ended, want none", n)
		}
	})
}

func TestUndecidedWhenOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hashes := auth.NewAdmission(1, 1)
		f := newFixture(t, hashes, imported(1, chosen), imported(2, another))
		defer f.writer.Close()
		end := make(chan struct{})
		for range 2 { // one runs, one waits
			go hashes.Do(t.Context(), func() { <-end })
			synctest.Wait()
		}
		if got := f.Counters().Waiting; got != 1 {
			t.Errorf("Counters().Waiting = %d, want 1", got)
		}
		for _, password := range []string{chosen, another, "wrong"} {
			f.undecided(t.Context(), request("alice", password), auth.ErrOverloaded, "overloaded")
		}
		if n := f.secrets.calls(); n != 0 {
			t.Errorf("%d slow hashes while overloaded, want none", n)
		}
		close(end)
		synctest.Wait()
		if got, err := f.Authenticate(t.Context(), request("alice", another)); !got.OK || err != nil {
			t.Errorf("Authenticate after the overload = %+v, %v, want accepted", got, err)
		}
	})
}

func TestUndecidedWhenTheTurnDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hashes := auth.NewAdmission(1, 10)
		f := newFixture(t, hashes, generated(1, good))
		defer f.writer.Close()
		end := make(chan struct{})
		go hashes.Do(t.Context(), func() { <-end })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.undecided(ctx, request("alice", good), context.DeadlineExceeded, "timeout")
		if n := f.secrets.calls(); n != 0 {
			t.Errorf("%d slow hashes, want none", n)
		}
		close(end)
	})
}

// If the context ends while the first of two rows is compared, the second may be the right one: nothing is decided.
func TestContextEndsBetweenRows(t *testing.T) {
	for _, rows := range [][]auth.Candidate{
		{imported(1, another), imported(2, chosen)},
		{imported(1, another), imported(2, "third"), imported(3, chosen)},
		{imported(1, another), but(imported(2, chosen), revoked)},
	} {
		f := newFixture(t, nil, rows...)
		ctx, cancel := context.WithCancel(t.Context())
		f.secrets.hook = func(string) { cancel() }
		f.undecided(ctx, request("alice", chosen), context.Canceled, "client_gone")
		cancel()
	}
	// With every row compared the answer is known, whether or not somebody still waits for it.
	f := newFixture(t, nil, imported(1, another), imported(2, chosen))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.secrets.hook = func(phc string) {
		if phc == "phc:"+chosen {
			cancel()
		}
	}
	if got, err := f.Authenticate(ctx, request("alice", "wrong")); got.Reason != auth.NoMatch || err != nil {
		t.Errorf("Authenticate = %+v, %v, want no_match: every row was compared", got, err)
	}
}

func TestMemo(t *testing.T) {
	login := func(f *fixture, password string, want auth.Reason, verified int) {
		f.t.Helper()
		got, err := f.Authenticate(f.t.Context(), request("alice", password))
		if got.Reason != want || err != nil {
			f.t.Errorf("Authenticate = %+v, %v, want %s", got, err, want)
		}
		if n := f.secrets.calls(); n != verified {
			f.t.Errorf("%d slow hashes, want %d", n, verified)
		}
	}
	t.Run("second login", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		login(f, good, auth.Accepted, 1)
		login(f, good, auth.Accepted, 0)
		login(f, "GOOD-good-good-good", auth.Accepted, 0)
		if len(f.rows.logins) != 3 {
			t.Errorf("%d lookups for 3 logins, want the row read each time", len(f.rows.logins))
		}
	})
	t.Run("a wrong guess repeated", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		login(f, other, auth.NoMatch, 1)
		login(f, other, auth.NoMatch, 0)
		login(f, good, auth.Accepted, 1)
	})
	t.Run("what the row allows is never remembered", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		login(f, good, auth.Accepted, 1)
		f.alice.Candidates[0].Revoked = true
		login(f, good, auth.Revoked, 0)
		f.alice.Candidates[0].Revoked, f.alice.Candidates[0].Expired = false, true
		login(f, good, auth.Expired, 0)
		f.alice.Candidates[0].Expired, f.alice.Candidates[0].Services = false, []string{"smtp"}
		login(f, good, auth.ServiceNotAllowed, 0)
		f.alice.Candidates[0].Services = nil
		f.alice.Enabled = false
		login(f, good, auth.AccountDisabled, 0)
		f.alice.Enabled = true
		f.enrolment.enrolled = false
		login(f, good, auth.NotEnrolled, 0)
		f.alice.Candidates = nil
		login(f, good, auth.NoMatch, 0)
	})
	t.Run("changed hash", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		login(f, good, auth.Accepted, 1)
		f.alice.Candidates[0].PHC += "!"
		login(f, good, auth.Accepted, 1)
		f.alice.Candidates[0].PHC = "phc:" + other
		login(f, good, auth.NoMatch, 1)
	})
	t.Run("other row", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		login(f, good, auth.Accepted, 1)
		f.alice.Candidates[0].ID = 2
		login(f, good, auth.Accepted, 1)
	})
	t.Run("a match in the memo is found before any hash is computed", func(t *testing.T) {
		f := newFixture(t, nil, imported(2, chosen))
		login(f, chosen, auth.Accepted, 1)
		f.alice.Candidates = []auth.Candidate{imported(1, another), imported(2, chosen), imported(3, another)}
		login(f, chosen, auth.Accepted, 0)
	})
	t.Run("a tombstone in the memo does not hide a live row that is not", func(t *testing.T) {
		f := newFixture(t, nil, but(imported(1, chosen), revoked))
		login(f, chosen, auth.Revoked, 1)
		f.alice.Candidates = append(f.alice.Candidates, imported(2, chosen))
		login(f, chosen, auth.Accepted, 1)
	})
	t.Run("lifetime by origin", func(t *testing.T) {
		for _, tt := range []struct {
			row      auth.Candidate
			password string
			ttl      time.Duration
		}{
			{generated(1, good), good, 24 * time.Hour},
			{imported(1, chosen), chosen, time.Hour},
		} {
			f := newFixture(t, nil, tt.row)
			login(f, tt.password, auth.Accepted, 1)
			f.now = f.now.Add(tt.ttl - time.Second)
			login(f, tt.password, auth.Accepted, 0)
			f.now = f.now.Add(time.Second) // and use does not lengthen it
			login(f, tt.password, auth.Accepted, 1)
		}
	})
	t.Run("ForgetVerifications", func(t *testing.T) {
		f := newFixture(t, nil, generated(1, good))
		login(f, good, auth.Accepted, 1)
		f.ForgetVerifications()
		login(f, good, auth.Accepted, 1)
		login(f, good, auth.Accepted, 0)
	})
}

// Many devices of one person come back at once: with one turn, the first of them computes the hash for all.
func TestOneHashForManyDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, auth.NewAdmission(1, 100), generated(1, good))
		defer f.writer.Close()
		end := make(chan struct{})
		f.secrets.hook = func(string) { <-end }
		const n = 20
		var accepted atomic.Int64
		for range n {
			go func() {
				got, err := f.Authenticate(t.Context(), request("alice", good))
				if err != nil || !got.OK {
					t.Errorf("Authenticate = %+v, %v, want accepted", got, err)
					return
				}
				accepted.Add(1)
			}()
		}
		synctest.Wait()
		close(end)
		synctest.Wait()
		if accepted.Load() != n {
			t.Errorf("%d of %d accepted", accepted.Load(), n)
		}
		if calls := f.secrets.calls(); calls != 1 {
			t.Errorf("%d slow hashes for %d devices, want 1", calls, n)
		}
		if got := f.Counters(); got.Argon2 != 1 || got.OK != n {
			t.Errorf("Counters() = %+v, want 1 slow hash computed, %d ok", got, n)
		}
	})
}

func TestCounters(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	for _, password := range []string{good, good, other, another, ""} {
		f.Authenticate(t.Context(), request("alice", password))
	}
	f.rows.err = errBroken
	f.Authenticate(t.Context(), request("alice", good))
	if got, want := f.Counters(), (auth.Counters{OK: 2, Fail: 3, Undecided: 1, Argon2: 2}); got != want {
		t.Errorf("Counters() = %+v, want %+v", got, want)
	}
}

func TestAuthenticateConcurrently(t *testing.T) {
	f := newFixture(t, auth.NewAdmission(2, 1000), generated(1, good), imported(2, chosen), but(imported(3, another), revoked))
	a := auth.New(auth.Config{Rows: f.rows, Secrets: f.secrets, Recorder: f.recorder, Log: slog.New(slog.DiscardHandler), MemoSize: 40})
	want := map[string]auth.Reason{good: auth.Accepted, chosen: auth.Accepted, another: auth.Revoked, other: auth.NoMatch, "x": auth.NoMatch}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				for password, reason := range want {
					if got, err := a.Authenticate(t.Context(), request("alice", password)); got.Reason != reason || err != nil {
						t.Errorf("Authenticate(%q) = %+v, %v, want %s", password, got, err, reason)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := len(f.recorder.attempts); got != 8*100*len(want) {
		t.Errorf("%d attempts recorded, want %d", got, 8*100*len(want))
	}
}
