package admin

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

func newPhone(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	if _, err := r.client.AddAccount(t.Context(), NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Create(t.Context(), "alice", NewAppPassword{Label: "phone"}); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRotate(t *testing.T) {
	r, ctx := newPhone(t), t.Context()
	r.store.raceTag = 1 // somebody takes the tag first
	x, err := r.client.Rotate(ctx, "ALICE", "Phone", Rotation{})
	if err != nil {
		t.Fatal(err)
	}
	text, ok := secret.Normalise(x.Secret)
	row := r.store.rows[1]
	if match, err := secret.Verify(row.phc, text); !ok || err != nil || !match || row.tag != r.service.Ring.Tag(text) {
		t.Errorf("Verify(stored, new secret) = %v, %v, want true, and its tag", match, err)
	}
	if !x.AppPassword.Rotated || x.Old == nil || x.Old.ReplacedAt == nil || !x.Old.ExpiresAt.Equal(now.Add(7*24*time.Hour)) {
		t.Errorf("Rotate = %+v, old %+v, want an old one for a week", x.AppPassword, x.Old)
	}
	d, err := r.client.AppPassword(ctx, "alice", "phone")
	if err != nil || !d.AppPassword.Rotated || d.Old == nil {
		t.Errorf("AppPassword = %+v, %v, want the new one with the old", d, err)
	}
	if strings.Contains(r.log.String(), text) {
		t.Error("the log holds the secret")
	}
}

func TestEdit(t *testing.T) {
	r, ctx := newPhone(t), t.Context()
	text, never := "2160h", ""
	for _, p := range []AppPasswordPatch{
		{Services: &[]string{"IMAP", "imap"}, AddNetworks: []string{"192.0.2.7", "192.0.2.7/32"}, NeverExpires: true, ExpiresUnusedFor: &text},
		{Networks: &[]string{}, RemoveServices: []string{"Smtp"}, ExpiresUnusedFor: &never},
	} {
		if _, err := r.client.Edit(ctx, "alice", "phone", p); err != nil {
			t.Fatal(err)
		}
	}
	days, zero := 90*24*time.Hour, time.Duration(0)
	want := []auth.AppPasswordChange{
		{Services: &[]string{"imap"}, AddNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}, ExpiresAt: &time.Time{}, ExpiresUnusedFor: &days, LimitPerAccount: 3},
		{Networks: &[]netip.Prefix{}, RemoveServices: []string{"smtp"}, ExpiresUnusedFor: &zero, LimitPerAccount: 3},
	}
	// An empty list is another thing than none.
	if d := cmp.Diff(want, r.store.edits, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()); d != "" || r.store.edits[1].Services != nil {
		t.Errorf("changes (-want +got):\n%s", d)
	}
	n := 7
	if a, err := r.client.PatchAccount(ctx, "alice", AccountPatch{Limit: &n}); err != nil || *r.store.changes[0].Limit != 7 {
		t.Errorf("PatchAccount(limit) = %+v, %v", a, err)
	}
}

func TestLabelRefusals(t *testing.T) {
	r, ctx := newPhone(t), t.Context()
	past, far, minute, long := now, now.AddDate(2, 0, 0), "1m", "900000h"
	edit := func(p AppPasswordPatch) func() error {
		return func() error { _, err := r.client.Edit(ctx, "alice", "phone", p); return err }
	}
	rotate := func(n Rotation) func() error {
		return func() error { _, err := r.client.Rotate(ctx, "alice", "phone", n); return err }
	}
	limit := func(n int) func() error {
		return func() error { _, err := r.client.PatchAccount(ctx, "alice", AccountPatch{Limit: &n}); return err }
	}
	for name, tc := range map[string]struct {
		do   func() error
		want string
	}{
		"label":                      {edit(AppPasswordPatch{Label: "a\nb"}), "400 bad_label"},
		"service":                    {edit(AppPasswordPatch{AddServices: []string{"i map"}}), "400 bad_service"},
		"service to remove":          {edit(AppPasswordPatch{RemoveServices: []string{""}}), "400 bad_service"},
		"services":                   {edit(AppPasswordPatch{Services: &[]string{"/"}}), "400 bad_service"},
		"network":                    {edit(AppPasswordPatch{Networks: &[]string{"home"}}), "400 bad_network"},
		"network to add":             {edit(AppPasswordPatch{AddNetworks: []string{"192.0.2.1/24"}}), "400 bad_network"},
		"network to remove":          {edit(AppPasswordPatch{RemoveNetworks: []string{"::ffff:1.2.3.4/120"}}), "400 bad_network"},
		"65 networks":                {edit(AppPasswordPatch{AddNetworks: make([]string, 65)}), "400 too_many"},
		"expiry in the past":         {edit(AppPasswordPatch{ExpiresAt: &past}), "400 bad_expiry"},
		"expiry and never":           {edit(AppPasswordPatch{ExpiresAt: &far, NeverExpires: true}), "400 bad_expiry"},
		"disuse of a minute":         {edit(AppPasswordPatch{ExpiresUnusedFor: &minute}), "400 bad_expiry"},
		"disuse of a hundred years":  {edit(AppPasswordPatch{ExpiresUnusedFor: &long}), "400 bad_expiry"},
		"overlap in the past":        {rotate(Rotation{KeepOldUntil: &past}), "400 bad_overlap"},
		"overlap of two years":       {rotate(Rotation{KeepOldUntil: &far}), "400 bad_overlap"},
		"overlap and none":           {rotate(Rotation{KeepOldUntil: &far, EndOld: true}), "400 bad_overlap"},
		"rotate an unknown label":    {func() error { _, err := r.client.Rotate(ctx, "alice", "x", Rotation{}); return err }, "404 no_label"},
		"rotate of an unknown login": {func() error { _, err := r.client.Rotate(ctx, "bob", "x", Rotation{}); return err }, "404 no_account"},
		"show an unknown label":      {func() error { _, err := r.client.AppPassword(ctx, "alice", "x"); return err }, "404 no_label"},
		"show an escape":             {func() error { _, err := r.client.AppPassword(ctx, "alice", "\x1b"); return err }, "400 bad_label"},
		"limit below nothing":        {limit(-1), "400 bad_limit"},
		"limit without end":          {limit(1001), "400 bad_limit"},
	} {
		if got := code(tc.do()); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	if len(r.store.edits) != 0 || len(r.store.rows) != 1 {
		t.Errorf("the refused requests left %d changes and %d rows, want 0 and 1", len(r.store.edits), len(r.store.rows))
	}
	for err, want := range map[error]string{auth.ErrRevoked: "409 revoked", auth.ErrExpired: "409 expired", auth.ErrLastScope: "409 last_scope",
		auth.ErrNoScope: "409 no_scope", auth.ErrScopes: "409 too_many"} {
		r.store.err = err
		if got := code(edit(AppPasswordPatch{})()); got != want {
			t.Errorf("Edit while the store says %v = %q, want %q", err, got, want)
		}
	}
}
