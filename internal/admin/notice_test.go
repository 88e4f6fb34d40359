package admin

import (
	"errors"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

func TestNoticeTests(t *testing.T) {
	service, store := newTestService()
	c := newMember(t, service, testAccess(), anAdmin)
	if _, err := c.AddAccount(t.Context(), NewAccount{Login: "alice", Aliases: []string{"al"}}); err != nil {
		t.Fatal(err)
	}
	hook := auth.NoticeTarget{Name: "hook:kick", Kinds: []auth.NoticeKind{auth.NoticeRevoked}}
	mail := auth.NoticeTarget{Name: "mail", Kinds: []auth.NoticeKind{auth.NoticeCreated, auth.NoticeRevoked}}
	for _, tt := range []struct {
		name    string
		targets []auth.NoticeTarget
		login   string
		n       NewNoticeTest
		want    string // target and kind, or the code of the refusal
	}{
		{"nobody is told", nil, "alice", NewNoticeTest{}, "no_target"},
		{"mail first", []auth.NoticeTarget{hook, mail}, "al", NewNoticeTest{}, "mail created"},
		{"the only one", []auth.NoticeTarget{hook}, "alice", NewNoticeTest{}, "hook:kick revoked"},
		{"no mail, and several", []auth.NoticeTarget{hook, {Name: "hook:log"}}, "alice", NewNoticeTest{}, "no_target"},
		{"asked for", []auth.NoticeTarget{hook, mail}, "alice", NewNoticeTest{Target: "hook:kick", Kind: "revoked"}, "hook:kick revoked"},
		{"unknown target", []auth.NoticeTarget{hook, mail}, "alice", NewNoticeTest{Target: "hook:x"}, "no_target"},
		{"a kind that it is not told of", []auth.NoticeTarget{hook, mail}, "alice", NewNoticeTest{Target: "hook:kick", Kind: "created"}, "bad_kind"},
		{"no kind", []auth.NoticeTarget{hook, mail}, "alice", NewNoticeTest{Kind: "x"}, "bad_kind"},
		{"unknown login", []auth.NoticeTarget{hook, mail}, "bob", NewNoticeTest{}, "no_account"},
	} {
		store.targets = tt.targets
		got, err := c.TestNotice(t.Context(), tt.login, tt.n)
		text := got.Target + " " + got.Kind
		if r, ok := errors.AsType[*RefusedError](err); ok {
			text = r.Code
			if r.Hint == "" {
				t.Errorf("%s: the refusal has no hint", tt.name)
			}
		} else if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		} else if now, err := c.NoticeTest(t.Context(), got.ID); err != nil || now != got || got.Login != "alice" {
			t.Errorf("%s: NoticeTest = %+v, %v, want %+v", tt.name, now, err, got)
		}
		if text != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, text, tt.want)
		}
	}
	if _, err := c.NoticeTest(t.Context(), 99); err == nil || err.(*RefusedError).Code != "no_notice" {
		t.Errorf("NoticeTest of none: %v, want no_notice", err)
	}
}
