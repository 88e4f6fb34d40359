package auth_test

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

func TestLogLine(t *testing.T) {
	f := newFixture(t, nil, generated(1, good), but(generated(2, other), revoked), but(imported(3, "x"), func(c *auth.Candidate) { c.Label = "Bob's \"old\" téléphone" }))
	f.enrolment.enrolled = true
	for _, tt := range []struct {
		name string
		req  auth.Request
		err  error // of the lookup
		want string
	}{
		{"accepted", request("Alice", good), nil,
			`<6>auth: result=ok rip=192.0.2.7 reason=accepted count=no proto=dovecot svc=imap user="alice" label="label 1" session=8f3a took=0.0ms`},
		{"accepted by an alias: the name that was given", request("al", good), nil,
			`<6>auth: result=ok rip=192.0.2.7 reason=accepted count=no proto=dovecot svc=imap user="al" label="label 1" session=8f3a took=0.0ms`},
		{"label that needs escapes", request("alice", "x"), nil,
			`<6>auth: result=ok rip=192.0.2.7 reason=accepted count=no proto=dovecot svc=imap user="alice" label="Bob's \"old\" t\u00e9l\u00e9phone" session=8f3a took=0.0ms`},
		{"wrong", request("alice", "wrongwrongwrongw"), nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=no_match count=yes proto=dovecot svc=imap user="alice" session=8f3a took=0.0ms`},
		{"unknown", request("Bob", good), nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=unknown_login count=yes proto=dovecot svc=imap user="bob" session=8f3a took=0.0ms`},
		{"revoked", request("alice", other), nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=revoked count=no proto=dovecot svc=imap user="alice" label="label 2" session=8f3a took=0.0ms`},
		{"empty password", request("alice", ""), nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=empty_password count=no proto=dovecot svc=imap user="alice" session=8f3a took=0.0ms`},
		{"undecided", request("alice", good), errors.New("no \"route\"\nto host"),
			`<4>auth: result=undecided rip=192.0.2.7 reason=unavailable count=no proto=dovecot svc=imap user="alice" session=8f3a took=0.0ms err="looking up the login: no \"route\"\nto host"`},
		{"no address, service, session", auth.Request{Login: "alice", Password: good, FrontEnd: "ldap"}, nil,
			`<6>auth: result=ok rip=- reason=accepted count=no proto=ldap svc=- user="alice" label="label 1" session=- took=0.0ms`},
		{"empty login", auth.Request{Password: good, FrontEnd: "ldap"}, nil,
			`<6>auth: result=fail rip=- reason=unknown_login count=yes proto=ldap svc=- user="" session=- took=0.0ms`},
		{"IPv6", auth.Request{Login: "alice", Password: good, FrontEnd: "ldap", Addr: netip.MustParseAddr("2001:DB8::1")}, nil,
			`<6>auth: result=ok rip=2001:db8::1 reason=accepted count=no proto=ldap svc=- user="alice" label="label 1" session=- took=0.0ms`},
		{"IPv4-mapped", auth.Request{Login: "alice", Password: good, FrontEnd: "ldap", Addr: netip.MustParseAddr("::ffff:192.0.2.7")}, nil,
			`<6>auth: result=ok rip=192.0.2.7 reason=accepted count=no proto=ldap svc=- user="alice" label="label 1" session=- took=0.0ms`},
		{"non-ASCII login", request("ÉLODIE", good), nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=unknown_login count=yes proto=dovecot svc=imap user="\u00e9lodie" session=8f3a took=0.0ms`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.rows.err = tt.err
			f.Authenticate(t.Context(), tt.req)
			if got := f.lines(); got != tt.want+"\n" {
				t.Errorf("logged\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestLogLineTook(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	f.secrets.hook = func(string) { f.now = f.now.Add(22_450 * time.Microsecond) }
	f.Authenticate(t.Context(), request("alice", good))
	if got := f.lines(); !strings.HasSuffix(got, " took=22.4ms\n") && !strings.HasSuffix(got, " took=22.5ms\n") {
		t.Errorf("logged %q, want it to end in took=22.4ms", got)
	}
}

// What fail2ban is told to look for, with the address as it reads it.
var failLine = regexp.MustCompile(`^<6>auth: result=fail rip=([0-9a-f.:]+) reason=(?:no_match|unknown_login|bad_format) count=yes proto=`)

// hostile is text that a client may send in any place.
var hostile = map[string]string{
	"newline":              "x\nauth: result=fail rip=198.51.100.1 reason=no_match count=yes proto=dovecot",
	"carriage return":      "x\rauth: result=fail rip=198.51.100.1 reason=no_match count=yes",
	"quote":                `x" rip=198.51.100.1 reason=no_match count=yes user="`,
	"backslash and quote":  `x\" rip=198.51.100.1`,
	"forged fields":        "x rip=198.51.100.1 reason=no_match count=yes",
	"forged without space": "rip=198.51.100.1",
	"right-to-left":        "x\u202e7.2.0.291=pir",
	"line separator":       "x\u2028auth: result=fail rip=198.51.100.1",
	"next line":            "x\u0085auth: result=fail",
	"vertical tab":         "x\vauth:\fresult=fail",
	"NUL":                  "x\x00y",
	"escape sequence":      "x\x1b[2J\x1b[1;1H\x9b31m",
	"invalid UTF-8":        "x\xff\xfe\xc3",
	"continuation bytes":   strings.Repeat("\x80", 1000),
	"64 KiB":               strings.Repeat("a", 64<<10),
	"64 KiB of runes":      strings.Repeat("\U0001f511", 16<<10),
	"64 KiB of NUL":        strings.Repeat("\x00", 64<<10),
	"64 KiB of newlines":   strings.Repeat("\n", 64<<10),
	"syslog priority":      "<0>x",
	"empty":                "",
}

func TestLogLineOfHostileClient(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.7")
	for name, text := range hostile {
		for place, req := range map[string]auth.Request{
			"login":    {Login: text, Password: "wrongwrongwrongw", Service: "imap", FrontEnd: "dovecot", Session: "1", Addr: addr},
			"password": {Login: "alice", Password: text + "x", Service: "imap", FrontEnd: "dovecot", Session: "1", Addr: addr},
			"service":  {Login: "alice", Password: "wrongwrongwrongw", Service: text, FrontEnd: "dovecot", Session: "1", Addr: addr},
			"session":  {Login: "alice", Password: "wrongwrongwrongw", Service: "imap", FrontEnd: "dovecot", Session: text, Addr: addr},
			"all":      {Login: text, Password: text + "x", Service: text, FrontEnd: "dovecot", Session: text, Addr: addr},
		} {
			f := newFixture(t, nil, generated(1, good))
			if _, err := f.Authenticate(t.Context(), req); err != nil {
				t.Errorf("%s in the %s: Authenticate = %v, want decided", name, place, err)
			}
			line := f.lines()
			if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
				t.Errorf("%s in the %s: logged %.300q, want one line", name, place, line)
			}
			if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r >= 0x7f }); i >= 0 {
				t.Errorf("%s in the %s: logged %.300q, which is not printable ASCII", name, place, line)
			}
			if m := failLine.FindStringSubmatch(line); m == nil || m[1] != "192.0.2.7" {
				t.Errorf("%s in the %s: logged %.300q, from which fail2ban reads %q, want 192.0.2.7", name, place, line, m)
			}
			if place != "session" && place != "service" && place != "all" {
				if fields := regexp.MustCompile(`^[^"]* user="(\\.|[^"\\])*" session=1 took=0\.0ms\n$`); !fields.MatchString(line) {
					t.Errorf("%s in the %s: logged %.300q, want the user in quotes that it cannot close", name, place, line)
				}
			}
			if len(line) > 4096 {
				t.Errorf("%s in the %s: the line has %d bytes, want it bounded by 4096", name, place, len(line))
			}
		}
	}
}

// The zone of an IPv6 address is text of any length and content. It must not stand in rip=, where fail2ban reads an address.
func TestLogLineZone(t *testing.T) {
	for _, zone := range []string{"eth0", "x rip=198.51.100.1", "x\nauth: result=fail", strings.Repeat("z", 64<<10)} {
		f := newFixture(t, nil, generated(1, good))
		req := request("alice", "wrongwrongwrongw")
		req.Addr = netip.MustParseAddr("fe80::1").WithZone(zone)
		if _, err := f.Authenticate(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		line := f.lines()
		if m := failLine.FindStringSubmatch(line); m == nil || m[1] != "fe80::1" {
			t.Errorf("zone %.30q: logged %.120q, from which fail2ban reads %q, want fe80::1", zone, line, m)
		}
		if strings.Count(line, "\n") != 1 || len(line) > 4096 {
			t.Errorf("zone %.30q: logged %d bytes, want one bounded line", zone, len(line))
		}
	}
}

// An error of the store or the plugin may quote what the other side said: it must not fill the log.
func TestLogLineOfHugeError(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	f.rows.err = errors.New(strings.Repeat("x\n", 64<<10))
	if _, err := f.Authenticate(t.Context(), request("alice", good)); err == nil {
		t.Fatal("Authenticate = nil, want the error")
	}
	if line := f.lines(); strings.Count(line, "\n") != 1 || len(line) > 4096 {
		t.Errorf("logged %d bytes, want one line of at most 4096", len(line))
	}
}

// The password must appear in no log line and no error, whatever happens to the attempt.
func TestPasswordIsNeverTold(t *testing.T) {
	const canary = "canarycanarycana"
	ring := secret.NewRing()
	ssha := "{SSHA}JC981stXI9q3vQ1mTfFCAVJHAydcwywR" // of "secret"
	outage := errors.New("the database is down")
	for _, tt := range []struct {
		name     string
		row      auth.Candidate
		password string
		err      error
	}{
		{"unknown hash", auth.Candidate{ID: 1, PHC: "phc:" + canary, Origin: auth.Imported}, canary, nil},
		{"clear text as hash", auth.Candidate{ID: 1, PHC: canary, Origin: auth.Imported}, canary, nil},
		{"costly hash", auth.Candidate{ID: 1, PHC: "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", Origin: auth.Imported}, canary, nil},
		{"broken PHC", auth.Candidate{ID: 1, PHC: "$argon2id$v=19$" + canary, Origin: auth.Generated}, canary, nil},
		{"broken SHA-crypt", auth.Candidate{ID: 1, PHC: "$5$" + canary + "$" + canary, Origin: auth.Imported}, canary, nil},
		{"wrong", auth.Candidate{ID: 1, PHC: ssha, Origin: auth.Imported}, canary, nil},
		{"wrong and long", auth.Candidate{ID: 1, PHC: ssha, Origin: auth.Imported}, strings.Repeat(canary, 40), nil},
		{"right", auth.Candidate{ID: 1, PHC: ssha, Origin: auth.Imported}, "secret", nil},
		{"outage", auth.Candidate{}, canary, outage},
		{"outage, as typed", auth.Candidate{}, secret.Format(canary), outage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil, tt.row)
			f.rows.err = tt.err
			a := auth.New(auth.Config{Rows: f.rows, Secrets: ring, Log: f.logger(), Enrolment: f.enrolment, Recorder: f.recorder})
			decision, err := a.Authenticate(t.Context(), request("alice", tt.password))
			text := f.lines()
			if err != nil {
				text += err.Error()
			}
			for _, secret := range []string{tt.password, canary, "canary", tt.row.PHC} {
				if secret != "" && strings.Contains(text, secret) {
					t.Errorf("Authenticate = %+v, %v; logged %q: it tells %q", decision, err, text, secret)
				}
			}
		})
	}
}
