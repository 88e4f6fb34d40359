package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

// fakeEnrolments knows who has a second factor, and notes whom it was asked about.
type fakeEnrolments struct {
	enrolled []string
	err      error
	asked    []string
	fresh    int
}

func (f *fakeEnrolments) ask(id int64, login string) {
	f.asked = append(f.asked, fmt.Sprintf("%d %s", id, login))
}

func (f *fakeEnrolments) MayIssue(_ context.Context, id int64, login string) (Enrolment, error) {
	f.ask(id, login)
	return Enrolment{Allowed: slices.Contains(f.enrolled, login)}, f.err
}

func (f *fakeEnrolments) Enrolment(_ context.Context, id int64, login string, fresh bool) Enrolment {
	f.ask(id, login)
	if fresh {
		f.fresh++
	}
	return Enrolment{Login: login, Require: "issue", Source: SourcePlugin, Allowed: slices.Contains(f.enrolled, login)}
}

func (f *fakeEnrolments) Plugin() Plugin { return Plugin{Require: "issue", Path: "/p"} }

// fakeUpstream has one user by two names.
type fakeUpstream struct{}

func (fakeUpstream) Canonical(_ context.Context, login string) (string, error) {
	if login == "uma" || login == "uma@example.org" {
		return "uma", nil
	}
	return "", auth.ErrNoAccount
}

func TestCreateAsksForTheSecondFactor(t *testing.T) {
	for _, tt := range []struct {
		name, login string
		because     string
		policy      bool // there is a plugin
		help        string
		err         error // of the plugin
		want        string
		message     string // part of the refusal
		asked       []string
	}{
		{name: "no plugin", login: "bob", want: "<nil>"},
		{name: "enrolled", login: "alice", policy: true, want: "<nil>", asked: []string{"1 alice"}},
		{name: "by an alias", login: "AL", policy: true, want: "<nil>", asked: []string{"1 alice"}},
		{name: "not enrolled", login: "bob", policy: true, want: "409 not_enrolled", message: "bob has no second factor: enrol one, then try again", asked: []string{"2 bob"}},
		{name: "with the site's help", login: "bob", policy: true, help: "enrol one at https://id.example.org", want: "409 not_enrolled",
			message: "bob has no second factor: enrol one at https://id.example.org, then try again", asked: []string{"2 bob"}},
		{name: "exempt", login: "bob", because: "printer in room 5", policy: true, want: "<nil>"},
		{name: "exempt without a reason", login: "bob", because: "  ", policy: true, want: "400 no_reason"},
		{name: "exempt, two lines", login: "bob", because: "a\nb", policy: true, want: "400 bad_text"},
		{name: "reader", login: "scan", policy: true, want: "<nil>"},
		{name: "not known", login: "alice", policy: true, err: errors.New("canary host"), want: "503 unavailable",
			message: "it could not be found out whether alice has a second factor", asked: []string{"1 alice"}},
		{name: "no account", login: "nobody", policy: true, want: "404 no_account"},
		{name: "upstream, enrolled", login: "uma@example.org", policy: true, want: "<nil>", asked: []string{"0 uma"}},
		{name: "upstream, no plugin", login: "uma@example.org", want: "<nil>"},
		{name: "upstream, exempt", login: "uma", because: "a robot", policy: true, want: "<nil>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, ctx := newRig(t), t.Context()
			for _, n := range []NewAccount{{Login: "alice", Aliases: []string{"al"}}, {Login: "bob"}, {Kind: KindReader, Login: "scan"}} {
				if _, err := r.client.AddAccount(ctx, n); err != nil {
					t.Fatal(err)
				}
			}
			f := &fakeEnrolments{enrolled: []string{"alice", "uma"}, err: tt.err}
			r.service.Upstream, r.service.EnrolmentHelp = fakeUpstream{}, tt.help
			if tt.policy {
				r.service.Enrolments = f
			}
			c, err := r.client.Create(ctx, tt.login, NewAppPassword{Label: "x", ExemptBecause: tt.because})
			if code(err) != tt.want || err != nil && !strings.Contains(err.Error(), tt.message) || err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("Create = %v: %v, want %s with %q", code(err), err, tt.want, tt.message)
			}
			if !slices.Equal(f.asked, tt.asked) {
				t.Errorf("the plugin was asked about %q, want %q", f.asked, tt.asked)
			}
			if (err == nil) != (len(r.store.rows) == 1) || err == nil && c.AppPassword.ExemptWhy != tt.because {
				t.Errorf("Create = %+v, %v, and %d rows", c.AppPassword, err, len(r.store.rows))
			}
		})
	}
	// An account of the upstream that comes into being by a refused app password does not.
	r := newRig(t)
	r.service.Upstream, r.service.Enrolments = fakeUpstream{}, &fakeEnrolments{}
	if _, err := r.client.Create(t.Context(), "uma", NewAppPassword{Label: "x"}); code(err) != "409 not_enrolled" || len(r.store.accounts) != 0 {
		t.Errorf("Create = %v, and accounts %+v, want a refusal and none", err, r.store.accounts)
	}
}

// A rotation issues a secret as a creation does.
func TestRotateAsksForTheSecondFactor(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	if _, err := r.client.AddAccount(ctx, NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "phone"}); err != nil {
		t.Fatal(err)
	}
	f := &fakeEnrolments{}
	r.service.Enrolments = f
	rotate := func() string { _, err := r.client.Rotate(ctx, "alice", "phone", Rotation{}); return code(err) }
	if got := rotate(); got != "409 not_enrolled" {
		t.Errorf("Rotate for who has no second factor = %s, want not_enrolled", got)
	}
	if f.err = errors.New("canary host"); rotate() != "503 unavailable" {
		t.Error("Rotate while it is not known is no 503")
	}
	if f.err, f.enrolled = nil, []string{"alice"}; rotate() != "<nil>" {
		t.Error("Rotate for who has one is refused")
	}
	f.enrolled = nil
	if _, err := r.client.Exempt(ctx, "alice", "phone", "a printer"); err != nil {
		t.Fatal(err)
	}
	if asked := len(f.asked); rotate() != "<nil>" || len(f.asked) != asked {
		t.Errorf("Rotate of an exempt one is refused, or asked about: %q", f.asked)
	}
}

func TestCheckEnrolment(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	for _, n := range []NewAccount{{Login: "alice", Aliases: []string{"al"}}, {Kind: KindReader, Login: "scan"}} {
		if _, err := r.client.AddAccount(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.client.CheckEnrolment(ctx, "alice", false); code(err) != "409 no_plugin" {
		t.Errorf("CheckEnrolment without a plugin = %v, want no_plugin", err)
	}
	if e, err := r.service.Enrolment(ctx, "al"); err != nil || !e.Allowed || e.Source != SourceOff || e.Login != "alice" || e.Require != "off" {
		t.Errorf("Enrolment without a plugin = %+v, %v, want it off", e, err)
	}
	f := &fakeEnrolments{enrolled: []string{"alice"}}
	r.service.Enrolments, r.service.Upstream = f, fakeUpstream{}
	for _, tt := range []struct {
		login, want string
		allowed     bool
		source      string
	}{
		{"AL", "<nil>", true, SourcePlugin}, {"scan", "<nil>", true, SourceReader}, {"uma@example.org", "<nil>", false, SourcePlugin},
		{"nobody", "404 no_account", false, ""}, {"two words", "400 bad_login", false, ""},
	} {
		for _, fresh := range []bool{false, true} {
			if e, err := r.client.CheckEnrolment(ctx, tt.login, fresh); code(err) != tt.want || e.Allowed != tt.allowed || e.Source != tt.source {
				t.Errorf("CheckEnrolment(%s, %v) = %+v, %v, want %s, %v by %q", tt.login, fresh, e, err, tt.want, tt.allowed, tt.source)
			}
		}
	}
	if want := []string{"1 alice", "1 alice", "0 uma", "0 uma"}; !slices.Equal(f.asked, want) || f.fresh != 2 {
		t.Errorf("the plugin was asked about %q, %d times afresh, want %q, 2 times", f.asked, f.fresh, want)
	}
}

func TestExemption(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	if _, err := r.client.AddAccount(ctx, NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "Printer"}); err != nil {
		t.Fatal(err)
	}
	for because, want := range map[string]string{"": "400 no_reason", " ": "400 no_reason", "a\x1b[2J": "400 bad_text", strings.Repeat("x", 257): "400 bad_text"} {
		if _, err := r.client.Exempt(ctx, "alice", "printer", because); code(err) != want {
			t.Errorf("Exempt because %.20q = %v, want %s", because, err, want)
		}
	}
	if p, err := r.client.Exempt(ctx, "ALICE", "PRINTER", " in room 5 "); err != nil || p.ExemptWhy != "in room 5" || p.ExemptAt == nil || p.ExemptBy == "" {
		t.Errorf("Exempt = %+v, %v", p, err)
	}
	if p, err := r.client.EndExemption(ctx, "alice", "printer"); err != nil || p.ExemptWhy != "" || p.ExemptAt != nil || p.ExemptBy != "" {
		t.Errorf("EndExemption = %+v, %v", p, err)
	}
	if _, err := r.client.EndExemption(ctx, "alice", "tablet"); code(err) != "404 no_label" {
		t.Errorf("EndExemption of an unknown label = %v, want no_label", err)
	}
}

// How the plugin is can be asked of a daemon whose database is not there yet.
func TestPlugin(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.service = nil
	p, err := r.client.Plugin(ctx)
	s, statusErr := r.client.Status(ctx)
	if err != nil || statusErr != nil || p.Require != "login" || p.Require != s.Enrolment.Require {
		t.Errorf("Plugin = %+v, %v, and the status has %+v, %v, want the same", p, err, s.Enrolment, statusErr)
	}
}
