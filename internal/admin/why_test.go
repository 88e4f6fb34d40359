package admin

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

type fakeThrottle struct{ state auth.ThrottleState }

func (f fakeThrottle) State(_ string, addr netip.Addr) auth.ThrottleState {
	f.state.Addr = addr
	return f.state
}

// toldEnrolments answers every question in one way.
type toldEnrolments struct {
	Enrolments
	answer Enrolment
}

func (f toldEnrolments) Enrolment(ctx context.Context, _ int64, login string, fresh bool) Enrolment {
	if _, bounded := ctx.Deadline(); !bounded || login != "alice" || fresh {
		return Enrolment{Problem: "asked without a bound, afresh, or for " + login}
	}
	return f.answer
}

// whyRig has alice with four app passwords and some attempts.
func whyRig(t *testing.T) *rig {
	r := newRig(t)
	prefix := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	at := time.Unix(1000, 0)
	r.store.accounts = []auth.Account{
		{ID: 1, Login: "alice", Aliases: []string{"al"}, Enabled: true}, {ID: 2, Login: "wiki", Kind: auth.Reader, Enabled: true},
		{ID: 3, Login: "bare", Enabled: true}, {ID: 4, Login: "gone", Enabled: false},
	}
	r.store.rows = []row{
		{AppPassword: auth.AppPassword{ID: 1, AccountID: 1, Label: "old phone", RevokedAt: at, RevokedBy: "root"}},
		{AppPassword: auth.AppPassword{ID: 2, AccountID: 1, Label: "phone", Services: []string{"imap", "smtp"}}},
		{AppPassword: auth.AppPassword{ID: 3, AccountID: 1, Label: "printer", Services: []string{"smtp"}, Networks: prefix}},
		{AppPassword: auth.AppPassword{ID: 4, AccountID: 1, Label: "trial", Expired: true}},
	}
	r.store.history.attempts = map[string][]auth.PastAttempt{
		"alice": {
			{First: at, Last: at, Count: 7, Reason: auth.Revoked, Label: "old phone", Service: "imap", FrontEnd: "dovecot", Addr: netip.MustParseAddr("198.51.100.9")},
			{First: at, Last: at, Count: 2, Reason: auth.BadFormat, Service: "smtp", FrontEnd: "dovecot"},
		},
		"alcie": {{First: at, Last: at, Count: 1, Reason: auth.UnknownLogin, Service: "imap", FrontEnd: "ldap"}},
	}
	return r
}

func opens(w Why) string {
	var out []string
	for _, p := range w.AppPasswords {
		out = append(out, p.AppPassword.Label+" "+p.Opens)
	}
	return strings.Join(out, ", ")
}

func TestWhy(t *testing.T) {
	r := whyRig(t)
	for _, tt := range []struct {
		name                    string
		login, service, address string
		works, opens            string
		summary                 string
		advice                  []string // parts of some line
	}{
		{"anything", "alice", "", "", Depends, "phone depends, printer depends, trial no, old phone no", "depends on what stands below",
			[]string{`at 198.51.100.9 still sends the revoked app password "old phone"`, "bad_format: tell the user"}},
		{"by an alias, in capitals", "AL", "imap", "", Yes, "phone yes, printer no, trial no, old phone no", "1 of 2 live app passwords would open imap now", nil},
		{"a service and an address", "alice", "SMTP", "192.0.2.9", Yes, "phone yes, printer yes, trial no, old phone no", "2 of 2", nil},
		{"another network", "alice", "smtp", "::ffff:10.0.0.1", Yes, "phone yes, printer no, trial no, old phone no", "1 of 2", nil},
		{"a service that none opens", "alice", "wiki", "", No, "phone no, printer no, trial no, old phone no", "none of the account's live app passwords opens wiki",
			[]string{"valetkey create LOGIN LABEL --service wiki"}},
		{"no app password", "bare", "imap", "", No, "", "has no live app password", []string{"valetkey create LOGIN LABEL makes one"}},
		{"disabled", "gone", "imap", "", No, "", "the account is disabled", []string{"valetkey account enable LOGIN"}},
		{"a reader", "wiki", "", "", Depends, "", "is a reader", nil},
		{"unknown, tried", "alcie", "", "", No, "", "no account goes by this login", []string{"compare the spelling", "valetkey account add"}},
		{"unknown", "nobody", "", "", No, "", "no account goes by this login", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, err := r.client.Why(t.Context(), tt.login, tt.service, tt.address)
			if err != nil {
				t.Fatal(err)
			}
			if w.Works != tt.works || opens(w) != tt.opens || !strings.Contains(w.Summary, tt.summary) {
				t.Errorf("Why = %s, %q, %q, want %s, %q, %q", w.Works, opens(w), w.Summary, tt.works, tt.opens, tt.summary)
			}
			for _, part := range tt.advice {
				if !strings.Contains(strings.Join(w.Advice, "\n"), part) {
					t.Errorf("advice %q has no %q", w.Advice, part)
				}
			}
			if len(w.Attempts) != len(r.store.history.attempts[w.Login]) && w.Login != "al" {
				t.Errorf("%d attempts", len(w.Attempts))
			}
			for _, a := range w.Attempts {
				if a.Meaning == "" || a.Meaning == string(a.Reason) {
					t.Errorf("%s is not explained", a.Reason)
				}
			}
		})
	}
}

func TestWhyRefused(t *testing.T) {
	r := whyRig(t)
	for _, tt := range []struct{ login, service, address, want string }{
		{"two words", "", "", "400 bad_login"}, {"", "", "", "400 bad_login"}, {"alice", "im ap", "", "400 bad_service"}, {"alice", "", "home", "400 bad_address"},
	} {
		if _, err := r.client.Why(t.Context(), tt.login, tt.service, tt.address); code(err) != tt.want {
			t.Errorf("Why(%q, %q, %q) = %v, want %s", tt.login, tt.service, tt.address, err, tt.want)
		}
	}
	r.store.err = errors.New("down")
	if _, err := r.client.Why(t.Context(), "alice", "", ""); code(err) != "503 unavailable" {
		t.Errorf("with the database down: %v", err)
	}
}

func TestWhySecondFactor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer Enrolment
		exempt bool // one of the app passwords is
		works  string
		part   string // of the summary
	}{
		{"enrolled", Enrolment{Require: "login", Source: SourceCache, Status: "enrolled", Allowed: true}, false, Yes, "live app passwords would open imap"},
		{"not", Enrolment{Require: "login", Source: SourcePlugin, Status: "not_enrolled"}, false, No, "the user has no second factor"},
		{"nobody by that name there", Enrolment{Require: "login", Source: SourcePlugin, Status: "account_unknown"}, false, No, "the user has no second factor"},
		{"not, but one is exempt", Enrolment{Require: "login", Source: SourcePlugin, Status: "not_enrolled"}, true, Yes, "1 of "},
		{"not, but it is asked for at issue only", Enrolment{Require: "issue", Source: SourcePlugin, Status: "not_enrolled"}, false, Yes, "live app passwords would open imap"},
		{"not known", Enrolment{Require: "login", Source: SourceUnknown, Problem: "the plugin does not answer"}, false, Depends, "depends on what stands below"},
		{"not known, allowed", Enrolment{Require: "login", Source: SourceAllow, Allowed: true, Problem: "the plugin does not answer"}, false, Yes, "would open imap"},
	} {
		r := whyRig(t)
		r.service.Enrolments = toldEnrolments{answer: tt.answer}
		if tt.exempt {
			r.store.rows[1].ExemptAt = time.Unix(1, 0)
		}
		w, err := r.client.Why(t.Context(), "alice", "imap", "")
		if err != nil || w.Works != tt.works || w.Enrolment == nil || w.Enrolment.Problem != tt.answer.Problem || !strings.Contains(w.Summary, tt.part) {
			t.Errorf("%s: %s, %q, %+v, %v, want %s, %q", tt.name, w.Works, w.Summary, w.Enrolment, err, tt.works, tt.part)
		}
	}
}

func TestWhyThrottle(t *testing.T) {
	r := whyRig(t)
	r.service.Throttle = fakeThrottle{auth.ThrottleState{Source: netip.MustParsePrefix("192.0.2.7/32"), Guesses: 8, PairGuesses: 1, Delay: 15 * time.Second, Full: true,
		KnownPair: now, Sources: []auth.ThrottleSource{{Source: netip.MustParsePrefix("10.0.0.1/32"), Guesses: 3, Delay: 8 * time.Second, Last: now}}}}
	w, err := r.client.Why(t.Context(), "alice", "imap", "192.0.2.7")
	if err != nil || w.Throttle == nil || w.Throttle.Source != "192.0.2.7/32" || w.Throttle.Guesses != 8 || w.Throttle.Delay != "15s" || !w.Throttle.Known {
		t.Errorf("Throttle = %+v, %v", w.Throttle, err)
	}
	if !strings.Contains(w.Summary, "is put off") {
		t.Errorf("Summary = %q, want it to tell that a login is put off", w.Summary)
	}
	if w, err = r.client.Why(t.Context(), "alice", "imap", ""); err != nil || w.Throttle.Source != "" || len(w.Throttle.Sources) != 1 {
		t.Errorf("without an address: %+v, %v", w.Throttle, err)
	}
}
