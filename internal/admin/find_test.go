package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
)

func TestFind(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	asOf := time.Date(2026, 11, 1, 12, 0, 0, 123456000, time.UTC)
	f := Filter{Login: "ALICE", States: []string{Live, Expired}, UnusedFor: "2160h", ExpiringWithin: "336h", NeverUsed: true, Service: "IMAP",
		Network: "192.0.2.7", Exempt: true, Imported: true, Label: "Old *", By: "root & co", AsOf: &asOf}
	want := auth.AppPasswordFilter{Login: "alice", Live: true, Expired: true, UnusedFor: 90 * 24 * time.Hour, ExpiringWithin: 14 * 24 * time.Hour,
		NeverUsed: true, Service: "imap", Network: netip.MustParsePrefix("192.0.2.7/32"), Exempt: true, Imported: true, Label: "old %", By: "root & co", AsOf: asOf}
	p, err := r.client.Find(ctx, f, "last-used", "x", 7)
	if err != nil || p.Next != "last-usedx" || p.AppPasswords == nil || !p.AsOf.Equal(time.Unix(7, 0)) {
		t.Errorf("Find = %+v, %v", p, err)
	}
	if _, err := r.client.RevokeFound(ctx, FoundRevocation{Filter: f, Why: " old "}); err != nil {
		t.Errorf("RevokeFound = %v", err)
	}
	if _, err := r.client.Find(ctx, Filter{}, "", "", 0); err != nil {
		t.Errorf("Find of everything = %v", err)
	}
	if d := cmp.Diff([]auth.AppPasswordFilter{want, want, {}}, r.store.filters, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("filters (-want +got):\n%s", d)
	}
}

func TestFindRefusals(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	early := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	find := func(f Filter) func() error {
		return func() error { _, err := r.client.Find(ctx, f, "", "", 0); return err }
	}
	revoke := func(n FoundRevocation) func() error {
		return func() error { _, err := r.client.RevokeFound(ctx, n); return err }
	}
	for name, tc := range map[string]struct {
		do   func() error
		want string
	}{
		"login":               {find(Filter{Login: "a b"}), "400 bad_login"},
		"state":               {find(Filter{States: []string{"dead"}}), "400 bad_filter"},
		"time":                {find(Filter{UnusedFor: "90d"}), "400 bad_filter"},
		"negative time":       {find(Filter{ExpiringWithin: "-1h"}), "400 bad_filter"},
		"service":             {find(Filter{Service: "i map"}), "400 bad_service"},
		"network":             {find(Filter{Network: "home"}), "400 bad_network"},
		"label":               {find(Filter{Label: "a\x00"}), "400 bad_text"},
		"long label":          {find(Filter{Label: strings.Repeat("x", 300)}), "400 bad_text"},
		"by":                  {find(Filter{By: "a\nb"}), "400 bad_text"},
		"as of":               {find(Filter{AsOf: &early}), "400 bad_filter"},
		"sort":                {func() error { _, err := r.client.Find(ctx, Filter{}, "id; DROP", "", 0); return err }, "400 bad_sort"},
		"limit":               {func() error { _, err := r.client.Find(ctx, Filter{}, "", "", 1001); return err }, "400 bad_limit"},
		"negative limit":      {func() error { _, err := r.client.Find(ctx, Filter{}, "", "", -1); return err }, "400 bad_limit"},
		"cursor":              {func() error { _, err := r.client.Find(ctx, Filter{}, "", "rubbish", 0); return err }, "400 bad_cursor"},
		"revoke everything":   {revoke(FoundRevocation{}), "400 bad_filter"},
		"revoke all live":     {revoke(FoundRevocation{Filter: Filter{States: []string{Live}}}), "400 bad_filter"},
		"revoke as of":        {revoke(FoundRevocation{Filter: Filter{AsOf: &now}}), "400 bad_filter"},
		"revoke revoked":      {revoke(FoundRevocation{Filter: Filter{Login: "alice", States: []string{Revoked}}}), "400 bad_filter"},
		"reason on two lines": {revoke(FoundRevocation{Filter: Filter{Login: "alice"}, Why: "a\nb"}), "400 bad_text"},
	} {
		if got := code(tc.do()); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	// A filter that is misspelt would mean more than was meant.
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.socket)
	}}}
	for _, query := range []string{"unused=90d", "exempt=perhaps", "service=imap&service=smtp", "as_of=today", "limit=ten"} {
		answer, err := c.Get("http://valetkeyd/v1/find/app-passwords?" + query)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 400 {
			t.Errorf("GET ?%s = %d %s, want 400", query, answer.StatusCode, text)
		}
	}
	if n := len(r.store.filters); n != 1 { // the cursor's
		t.Errorf("%d of the refused requests came to the store, want 1", n)
	}
}
