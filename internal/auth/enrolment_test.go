package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

func exempt(c *auth.Candidate) { c.Exempt = true }

// An exempt app password is one that nobody is asked about; everything else about it counts as ever.
func TestExempt(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  auth.Candidate
		want auth.Reason
	}{
		{"generated", but(generated(1, good), exempt), auth.Accepted},
		{"revoked", but(generated(1, good), exempt, revoked), auth.Revoked},
		{"service not allowed", but(generated(1, good), exempt, service("smtp")), auth.ServiceNotAllowed},
		{"network not allowed", but(generated(1, good), exempt, network("::/0")), auth.NetworkNotAllowed},
		{"not exempt", generated(1, good), auth.NotEnrolled},
	} {
		f := newFixture(t, nil, tt.row)
		f.enrolment.enrolled = false
		got, err := f.Authenticate(t.Context(), request("alice", good))
		if err != nil || got.Reason != tt.want || got.OK != (tt.want == auth.Accepted) {
			t.Errorf("%s: Authenticate = %+v, %v, want %s", tt.name, got, err, tt.want)
		}
		if asked := f.enrolment.asked; asked == 1 != (tt.want == auth.NotEnrolled) {
			t.Errorf("%s: the enrolment was asked %d times", tt.name, asked)
		}
	}
	// The exemption of one says nothing of another.
	f := newFixture(t, nil, generated(1, good), but(generated(2, other), exempt))
	f.enrolment.enrolled = false
	if got, err := f.Authenticate(t.Context(), request("alice", good)); err != nil || got.Reason != auth.NotEnrolled {
		t.Errorf("Authenticate beside an exempt row = %+v, %v, want not_enrolled", got, err)
	}
	// An outage of the plugin is none of its business.
	f.enrolment.err = errors.New("away")
	if got, err := f.Authenticate(t.Context(), request("alice", other)); err != nil || !got.OK {
		t.Errorf("Authenticate with an exempt row during an outage = %+v, %v, want accepted", got, err)
	}
}

// The note stands behind everything that fail2ban reads, and cannot be more than a word whatever it is.
func TestLogLineOfEnrolment(t *testing.T) {
	f := newFixture(t, nil, generated(1, good), but(generated(2, other), exempt))
	for _, tt := range []struct {
		name, password string
		enrolled       bool
		note           string
		err            error
		want           string
	}{
		{"refused", good, false, "no_token", nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=not_enrolled count=no proto=dovecot svc=imap user="alice" label="label 1" second_factor=no_token session=8f3a took=0.0ms`},
		{"refused without a word", good, false, "", nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=not_enrolled count=no proto=dovecot svc=imap user="alice" label="label 1" session=8f3a took=0.0ms`},
		{"accepted", good, true, "", nil,
			`<6>auth: result=ok rip=192.0.2.7 reason=accepted count=no proto=dovecot svc=imap user="alice" label="label 1" session=8f3a took=0.0ms`},
		{"accepted without the plugin", good, true, "last_known", nil,
			`<6>auth: result=ok rip=192.0.2.7 reason=accepted count=no proto=dovecot svc=imap user="alice" label="label 1" second_factor=last_known session=8f3a took=0.0ms`},
		{"exempt", other, false, "no_token", nil,
			`<6>auth: result=ok rip=192.0.2.7 reason=accepted count=no proto=dovecot svc=imap user="alice" label="label 2" session=8f3a took=0.0ms`},
		{"not known", good, false, "no_token", errors.New("it is away"),
			`<4>auth: result=undecided rip=192.0.2.7 reason=unavailable count=no proto=dovecot svc=imap user="alice" session=8f3a took=0.0ms err="checking the enrolment: it is away"`},
		{"wrong password", "wrongwrongwrongw", false, "no_token", nil,
			`<6>auth: result=fail rip=192.0.2.7 reason=no_match count=yes proto=dovecot svc=imap user="alice" session=8f3a took=0.0ms`},
	} {
		f.enrolment.enrolled, f.enrolment.note, f.enrolment.err = tt.enrolled, tt.note, tt.err
		f.Authenticate(t.Context(), request("alice", tt.password))
		if got := f.lines(); got != tt.want+"\n" {
			t.Errorf("%s: logged\n%swant\n%s", tt.name, got, tt.want)
		}
	}
	f.enrolment.enrolled, f.enrolment.err = false, nil
	for name, text := range hostile {
		f.enrolment.note = text
		f.Authenticate(t.Context(), request("alice", good))
		line := f.lines()
		if strings.Count(line, "\n") != 1 || len(line) > 4096 || !strings.HasPrefix(line, "<6>auth: result=fail rip=192.0.2.7 reason=not_enrolled count=no proto=") {
			t.Errorf("a note of %s: logged %.300q", name, line)
		}
		if failLine.MatchString(line) {
			t.Errorf("a note of %s: fail2ban counts %.300q", name, line)
		}
	}
}

// Losing the second factor suspends what was accepted, too.
func TestStandsAsksForTheSecondFactor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		row    auth.Candidate
		reader bool
		bare   bool
		err    error
		want   auth.Reason
		asked  int // after the login
	}{
		{name: "still enrolled", row: generated(1, good), want: auth.Accepted, asked: 1},
		{name: "lost", row: generated(1, good), bare: true, want: auth.NotEnrolled, asked: 1},
		{name: "not known", row: generated(1, good), err: errors.New("away"), asked: 1},
		{name: "exempt", row: but(generated(1, good), exempt), bare: true, want: auth.Accepted},
		{name: "reader", row: generated(1, good), reader: true, bare: true, want: auth.Accepted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil, tt.row)
			if tt.reader {
				f.alice.Kind = auth.Reader
			}
			var s auth.Standing
			req := request("al", good)
			req.Reader, req.Keep = tt.reader, &s
			if d, err := f.Authenticate(t.Context(), req); err != nil || !d.OK {
				t.Fatalf("Authenticate = %+v, %v, want it accepted", d, err)
			}
			f.recorder.attempts, f.enrolment.asked, f.enrolment.service = nil, 0, ""
			f.now = f.now.Add(time.Hour)
			f.enrolment.enrolled, f.enrolment.err = !tt.bare, tt.err
			got, err := f.Stands(t.Context(), &s)
			if got != tt.want || (err != nil) != (tt.err != nil) {
				t.Errorf("Stands = %q, %v, want %q, error %v", got, err, tt.want, tt.err)
			}
			if f.enrolment.asked != tt.asked || tt.asked == 1 && f.enrolment.service != "imap" {
				t.Errorf("the enrolment was asked %d times, for service %q, want %d times for imap", f.enrolment.asked, f.enrolment.service, tt.asked)
			}
			if n := len(f.recorder.attempts); n > 0 != (tt.want == auth.Accepted) {
				t.Errorf("Stands recorded %d uses for %q", n, tt.want)
			}
		})
	}
}
