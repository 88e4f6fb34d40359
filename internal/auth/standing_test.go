package auth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// TestStands: what was accepted is asked about again after something changed.
func TestStands(t *testing.T) {
	for _, tt := range []struct {
		name     string
		row      auth.Candidate
		password string // default good
		reader   bool
		change   func(f *fixture, row *auth.Candidate)
		want     auth.Reason
	}{
		{name: "nothing changed", row: generated(1, good), want: auth.Accepted},
		{name: "imported", row: imported(1, chosen), password: chosen, want: auth.Accepted},
		{name: "reader", row: generated(1, good), reader: true, want: auth.Accepted},
		{name: "used from where it may be", row: but(generated(1, good), service("imap"), network("192.0.2.0/24")), want: auth.Accepted},
		{name: "revoked", row: generated(1, good), change: func(_ *fixture, c *auth.Candidate) { c.Revoked = true }, want: auth.Revoked},
		{name: "reader, revoked", row: generated(1, good), reader: true, change: func(_ *fixture, c *auth.Candidate) { c.Revoked = true }, want: auth.Revoked},
		{name: "expired", row: generated(1, good), change: func(_ *fixture, c *auth.Candidate) { c.Expired = true }, want: auth.Expired},
		{name: "service withdrawn", row: generated(1, good), change: func(_ *fixture, c *auth.Candidate) { c.Services = []string{"smtp"} }, want: auth.ServiceNotAllowed},
		{name: "row gone", row: generated(1, good), change: func(_ *fixture, c *auth.Candidate) { c.ID = 2 }, want: auth.NoMatch},
		{name: "disabled", row: generated(1, good), change: func(f *fixture, _ *auth.Candidate) { f.alice.Enabled = false }, want: auth.AccountDisabled},
		{name: "another account of the name", row: generated(1, good), change: func(f *fixture, _ *auth.Candidate) { f.alice.AccountID = 8 }, want: auth.UnknownLogin},
		{name: "no reader any more", row: generated(1, good), reader: true, change: func(f *fixture, _ *auth.Candidate) { f.alice.Kind = auth.Person }, want: auth.UnknownLogin},
		{name: "deleted", row: generated(1, good), change: func(f *fixture, _ *auth.Candidate) { clear(f.rows.accounts) }, want: auth.UnknownLogin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil, tt.row)
			if tt.reader {
				f.alice.Kind = auth.Reader
			}
			req := request("al", good)
			if tt.password != "" {
				req.Password = tt.password
			}
			var s auth.Standing
			req.Reader, req.Keep = tt.reader, &s
			if d, err := f.Authenticate(t.Context(), req); err != nil || !d.OK {
				t.Fatalf("Authenticate = %+v, %v, want it accepted", d, err)
			}
			used := f.recorder.attempts
			f.recorder.attempts = nil
			f.now = f.now.Add(time.Hour)
			if tt.change != nil {
				tt.change(f, &f.alice.Candidates[0])
			}
			if got, err := f.Stands(t.Context(), &s); got != tt.want || err != nil {
				t.Errorf("Stands = %q, %v, want %q", got, err, tt.want)
			}
			if again := f.recorder.attempts; len(again) > 0 != (tt.want == auth.Accepted) {
				t.Errorf("Stands recorded %+v for %q", again, tt.want)
			} else if len(again) > 0 {
				if used[0].At = f.now; again[0] != used[0] {
					t.Errorf("Stands recorded %+v, the login %+v", again[0], used[0])
				}
			}
			f.rows.err = errors.New("gone")
			if got, err := f.Stands(t.Context(), &s); got != "" || err == nil {
				t.Errorf("Stands without a database = %q, %v, want an error", got, err)
			}
		})
	}
	t.Run("rejected", func(t *testing.T) {
		f := newFixture(t, nil, but(generated(1, good), revoked))
		var s auth.Standing
		req := request("alice", good)
		req.Keep = &s
		if d, err := f.Authenticate(t.Context(), req); err != nil || d.OK || s != (auth.Standing{}) {
			t.Errorf("Authenticate = %+v, %v, keeps %+v, want it rejected and nothing kept", d, err, s)
		}
		if got, err := f.Stands(t.Context(), &s); got != auth.UnknownLogin || err != nil {
			t.Errorf("Stands on nothing = %q, %v, want %q", got, err, auth.UnknownLogin)
		}
	})
}
