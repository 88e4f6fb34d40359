package auth_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

// fakeGate notes whom it was asked about.
type fakeGate struct {
	admits bool
	err    error
	asked  []string
	hook   func()
}

func (g *fakeGate) Admits(_ context.Context, login string) (bool, error) {
	g.asked = append(g.asked, login)
	if g.hook != nil {
		g.hook()
	}
	return g.admits, g.err
}

func TestReader(t *testing.T) {
	for _, tt := range []struct {
		name     string
		kind     auth.Kind
		where    bool // the front end lets readers in, and nobody else
		row      auth.Candidate
		password string // default good
		disabled bool
		bare     bool // not enrolled
		want     auth.Reason
		verified int
		known    bool // whether the decision knows the account
	}{
		{name: "person elsewhere", row: generated(1, good), want: auth.Accepted, verified: 1, known: true},
		{name: "reader where readers log in", kind: auth.Reader, where: true, row: generated(1, good), want: auth.Accepted, verified: 1, known: true},
		{name: "reader elsewhere", kind: auth.Reader, row: generated(1, good), want: auth.ReaderOnly, verified: 1, known: true},
		{name: "person where readers log in", where: true, row: generated(1, good), want: auth.UnknownLogin},
		{name: "person where readers log in, wrong password", where: true, row: generated(1, good), password: other, want: auth.UnknownLogin},
		{name: "reader elsewhere, wrong password", kind: auth.Reader, row: generated(1, good), password: other, want: auth.NoMatch, verified: 1, known: true},
		{name: "reader, wrong password", kind: auth.Reader, where: true, row: generated(1, good), password: other, want: auth.NoMatch, verified: 1, known: true},
		{name: "reader, imported", kind: auth.Reader, where: true, row: imported(1, chosen), password: chosen, want: auth.Accepted, verified: 1, known: true},
		{name: "reader elsewhere, imported", kind: auth.Reader, row: imported(1, chosen), password: chosen, want: auth.ReaderOnly, verified: 1, known: true},
		{name: "reader without a second factor", kind: auth.Reader, where: true, row: generated(1, good), bare: true, want: auth.Accepted, verified: 1, known: true},
		{name: "disabled reader", kind: auth.Reader, where: true, row: generated(1, good), disabled: true, want: auth.AccountDisabled, verified: 1, known: true},
		{name: "reader elsewhere before disabled", kind: auth.Reader, row: generated(1, good), disabled: true, want: auth.ReaderOnly, verified: 1, known: true},
		{name: "revoked", kind: auth.Reader, where: true, row: but(generated(1, good), revoked), want: auth.Revoked, verified: 1, known: true},
		{name: "reader for another service", kind: auth.Reader, where: true, row: but(generated(1, good), service("ldap")), want: auth.ServiceNotAllowed, verified: 1, known: true},
		{name: "reader from elsewhere", kind: auth.Reader, where: true, row: but(generated(1, good), network("198.51.100.0/24")), want: auth.NetworkNotAllowed, verified: 1, known: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil, tt.row)
			f.alice.Kind, f.alice.Enabled, f.enrolment.enrolled = tt.kind, !tt.disabled, !tt.bare
			req := request("alice", good)
			req.Reader = tt.where
			if tt.password != "" {
				req.Password = tt.password
			}
			for range 2 { // the second time from the memo
				got, err := f.Authenticate(t.Context(), req)
				if err != nil || got.Reason != tt.want || got.OK != (tt.want == auth.Accepted) || (got.AccountID == 7) != tt.known {
					t.Errorf("Authenticate = %+v, %v, want %s", got, err, tt.want)
				}
				if lines := f.lines(); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " reason="+string(tt.want)+" ") {
					t.Errorf("logged %q, want one line with reason=%s", lines, tt.want)
				}
			}
			if n := f.secrets.calls(); n != tt.verified {
				t.Errorf("Authenticate computed %d slow hashes, want %d", n, tt.verified)
			}
			if tt.kind == auth.Reader && f.enrolment.asked != 0 {
				t.Errorf("the enrolment of a reader was asked for %d times", f.enrolment.asked)
			}
			if recorded := len(f.recorder.attempts) > 0; recorded != tt.known {
				t.Errorf("recorded: %v, want %v", recorded, tt.known)
			}
		})
	}
}

func TestGate(t *testing.T) {
	for _, tt := range []struct {
		name     string
		row      auth.Candidate
		login    string // default alice
		password string // default good
		refuses  bool
		disabled bool
		bare     bool
		want     auth.Reason
		asked    bool
	}{
		{name: "admitted", row: generated(1, good), want: auth.Accepted, asked: true},
		{name: "admitted by an alias", row: generated(1, good), login: "AL", want: auth.Accepted, asked: true},
		{name: "not admitted", row: generated(1, good), refuses: true, want: auth.GroupNotAllowed, asked: true},

		// It is asked about nobody who has not shown the right password, or who may not log in anyway: it would be an oracle.
		{name: "wrong password", row: generated(1, good), password: other, want: auth.NoMatch},
		{name: "bad format", row: generated(1, good), password: another, want: auth.BadFormat},
		{name: "unknown login", row: generated(1, good), login: "bob", want: auth.UnknownLogin},
		{name: "revoked", row: but(generated(1, good), revoked), want: auth.Revoked},
		{name: "other service", row: but(generated(1, good), service("smtp")), want: auth.ServiceNotAllowed},
		{name: "other network", row: but(generated(1, good), network("::/0")), want: auth.NetworkNotAllowed},
		{name: "disabled", row: generated(1, good), disabled: true, want: auth.AccountDisabled},
		{name: "not enrolled", row: generated(1, good), bare: true, want: auth.NotEnrolled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil, tt.row)
			f.alice.Enabled, f.enrolment.enrolled = !tt.disabled, !tt.bare
			g := &fakeGate{admits: !tt.refuses}
			req := request("alice", good)
			req.Gate = g
			if tt.login != "" {
				req.Login = tt.login
			}
			if tt.password != "" {
				req.Password = tt.password
			}
			got, err := f.Authenticate(t.Context(), req)
			if err != nil || got.Reason != tt.want || got.OK != (tt.want == auth.Accepted) || (got.Login != "") != got.OK {
				t.Errorf("Authenticate = %+v, %v, want %s", got, err, tt.want)
			}
			var asked []string
			if tt.asked {
				asked = []string{"alice"}
			}
			if !slices.Equal(g.asked, asked) {
				t.Errorf("the gate was asked about %q, want %q", g.asked, asked)
			}
			if lines := f.lines(); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " reason="+string(tt.want)+" ") {
				t.Errorf("logged %q, want one line with reason=%s", lines, tt.want)
			}
			if len(f.recorder.attempts) == 1 != (tt.want != auth.UnknownLogin) {
				t.Errorf("recorded %+v", f.recorder.attempts)
			}
		})
	}
}

// A gate that does not know makes the login undecided, whatever else it says.
func TestGateUndecided(t *testing.T) {
	outage := errors.New("the groups cannot be read")
	for _, admits := range []bool{true, false} {
		f := newFixture(t, nil, generated(1, good))
		g := &fakeGate{admits: admits, err: outage}
		req := request("alice", good)
		req.Gate = g
		f.undecided(t.Context(), req, outage, "unavailable")
		g.err = fmt.Errorf("reading: %w", context.DeadlineExceeded)
		f.undecided(t.Context(), req, context.DeadlineExceeded, "timeout")
		req.Password = other // it would not be asked
		if got, err := f.Authenticate(t.Context(), req); got.Reason != auth.NoMatch || err != nil {
			t.Errorf("Authenticate of a wrong password during the outage = %+v, %v, want no_match", got, err)
		}
		g.err = nil
		req.Password = good
		if got, err := f.Authenticate(t.Context(), req); got.OK != admits || err != nil {
			t.Errorf("Authenticate after the outage = %+v, %v, want OK %v", got, err, admits)
		}
	}
}

// The gate is last: the enrolment has been asked by then, and its answer counts first.
func TestGateComesAfterTheEnrolment(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	g := &fakeGate{admits: true}
	g.hook = func() {
		if f.enrolment.asked != 1 {
			t.Errorf("the gate was asked after %d questions for the enrolment, want 1", f.enrolment.asked)
		}
	}
	req := request("alice", good)
	req.Gate = g
	if got, err := f.Authenticate(t.Context(), req); !got.OK || err != nil {
		t.Errorf("Authenticate = %+v, %v, want accepted", got, err)
	}
	f.lines()
	f.enrolment.err = errors.New("the plugin is gone")
	g.admits = false
	f.undecided(t.Context(), req, f.enrolment.err, "unavailable")
	if len(g.asked) != 1 {
		t.Errorf("the gate was asked %d times, want 1", len(g.asked))
	}
}

// Nothing is added to what a login costs when neither a reader nor a gate has to do with it.
func TestReaderAndGateAllocateNothing(t *testing.T) {
	f := newFixture(t, nil, generated(1, good))
	a := auth.New(auth.Config{Rows: f.rows, Secrets: f.secrets, Log: f.logger()})
	// The least of many single logins, not their mean: the race detector makes a sync.Pool lose things at random, and the runtime's own
	// allocations are counted, too. What a login itself allocates is in each of them.
	run := func(req auth.Request) float64 {
		least := math.Inf(1)
		for range 200 {
			least = min(least, testing.AllocsPerRun(1, func() {
				if got, err := a.Authenticate(t.Context(), req); !got.OK || err != nil {
					t.Fatalf("Authenticate = %+v, %v", got, err)
				}
			}))
		}
		return least
	}
	plain := run(request("alice", good))
	req := request("alice", good)
	req.Gate = admitAll{}
	if gated := run(req); gated > plain {
		t.Errorf("%v allocations with a gate, %v without", gated, plain)
	}
}

type admitAll struct{}

func (admitAll) Admits(context.Context, string) (bool, error) { return true, nil }
