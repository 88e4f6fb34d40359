package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store/storetest"
)

func TestExemption(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	ctx := t.Context()
	addAccount(t, s, "office", "reception")
	addAppPassword(t, s, "office", "phone", tag(1, 1))
	made := addAppPassword(t, s, "office", "printer", tag(1, 2), func(n *auth.NewAppPassword) { n.ExemptWhy = "printer in room 5" })
	if made.ExemptAt.IsZero() || made.ExemptBy != "admin" || made.ExemptWhy != "printer in room 5" {
		t.Errorf("AddAppPassword = %+v, want it exempt", made)
	}
	// exempt is what a login reads of the row with this tag, and an admin of the list.
	exempt := func(label string, value uint16) bool {
		t.Helper()
		found, err := s.Lookup(ctx, "reception", []auth.Tag{{PepperID: 1, Value: value}})
		if err != nil || len(found.Candidates) != 1 || found.Candidates[0].Label != label {
			t.Fatalf("Lookup = %+v, %v, want %s", found, err, label)
		}
		all, err := s.AppPasswords(ctx, "office", true)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(p auth.AppPassword) bool { return p.Label == label })
		if got := found.Candidates[0].Exempt; got != !all[i].ExemptAt.IsZero() {
			t.Errorf("%s: a login reads exempt %v, the list has %+v", label, got, all[i])
		}
		return found.Candidates[0].Exempt
	}
	if exempt("phone", 1) || !exempt("printer", 2) {
		t.Error("of the two the printer is exempt")
	}
	for range 2 { // the second time changes nothing
		p, err := s.ExemptAppPassword(ctx, "reception", "phone", "stolen by a robot", "root")
		if err != nil || p.ExemptBy != "root" || p.ExemptWhy != "stolen by a robot" || !exempt("phone", 1) {
			t.Errorf("ExemptAppPassword = %+v, %v", p, err)
		}
	}
	if p, err := s.ExemptAppPassword(ctx, "office", "phone", "it is a robot", "carl"); err != nil || p.ExemptBy != "carl" || p.ExemptWhy != "it is a robot" {
		t.Errorf("ExemptAppPassword for another reason = %+v, %v", p, err)
	}
	for range 2 {
		p, err := s.ExemptAppPassword(ctx, "office", "phone", "", "root")
		if err != nil || !p.ExemptAt.IsZero() || p.ExemptBy != "" || p.ExemptWhy != "" || exempt("phone", 1) {
			t.Errorf("ExemptAppPassword without a reason = %+v, %v, want it ended", p, err)
		}
	}
	if _, err := s.RevokeAppPassword(ctx, "office", "printer", "", "root"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, login, key string
		want             error
	}{
		{"unknown login", "bob", "phone", auth.ErrNoAccount}, {"unknown label", "office", "tablet", auth.ErrNoLabel}, {"revoked", "office", "printer", auth.ErrNoLabel},
	} {
		if _, err := s.ExemptAppPassword(ctx, tt.login, tt.key, "x", "root"); !errors.Is(err, tt.want) {
			t.Errorf("ExemptAppPassword, %s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := db.Exec("UPDATE app_passwords SET expires_at = now() WHERE label = 'phone'"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ExemptAppPassword(ctx, "office", "phone", "x", "root"); !errors.Is(err, auth.ErrNoLabel) {
		t.Errorf("ExemptAppPassword of an expired one = %v, want %v", err, auth.ErrNoLabel)
	}
	// Half an exemption cannot be.
	if _, err := db.Exec("UPDATE app_passwords SET exempt_at = now()"); err == nil || !strings.Contains(err.Error(), "exempt_whole") {
		t.Errorf("an exemption by nobody = %v, want a refusal", err)
	}

	var told []string
	for _, e := range events(t, db) {
		if strings.Contains(e, "exempt") {
			told = append(told, e)
		}
	}
	want := []string{"app_password.exempted root office phone", "app_password.exempted carl office phone", "app_password.exemption_ended root office phone"}
	if !slices.Equal(told, want) {
		t.Errorf("events %q, want %q", told, want)
	}
	var why, before string
	err := db.QueryRow(`SELECT (SELECT detail->>'exempt_why' FROM events WHERE kind = 'app_password.created' AND label = 'printer'),
		(SELECT detail->>'why' FROM events WHERE kind = 'app_password.exemption_ended')`).Scan(&why, &before)
	if err != nil || why != "printer in room 5" || before != "it is a robot" {
		t.Errorf("the audit log has %q for the printer and %q for the end, %v", why, before, err)
	}
}
