package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type rig struct {
	store   *memory
	service *Service
	client  *Client
	socket  string
	log     *strings.Builder
}

// newRig serves a Service on a Unix socket and returns a client of it.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{store: &memory{}, log: new(strings.Builder)}
	r.service = &Service{Store: r.store, Ring: secret.NewRing(), Hashes: auth.NewAdmission(1, 10), Length: 16, Limit: 3,
		Now: func() time.Time { return now }}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	r.socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(func() *Service { return r.service }, func(context.Context) Status { return Status{Version: "v"} }, log)
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil after Shutdown", err)
		}
	})
	r.client = NewClient(r.socket)
	return r
}

func code(err error) string {
	var r *RefusedError
	if errors.As(err, &r) {
		return fmt.Sprintf("%d %s", r.Status, r.Code)
	}
	return fmt.Sprint(err)
}

func TestLifeOfAnAppPassword(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	a, err := r.client.AddAccount(ctx, NewAccount{Login: "Alice", Aliases: []string{"ALICE@example.org", "alice"}, DisplayName: " Alice Adams "})
	if err != nil {
		t.Fatal(err)
	}
	if a.Login != "alice" || a.DisplayName != "Alice Adams" || !cmp.Equal(a.Aliases, []string{"alice@example.org"}) || !a.Enabled {
		t.Errorf("AddAccount = %+v, want normalised names, each once", a)
	}
	end := now.Add(time.Hour)
	c, err := r.client.Create(ctx, "alice@example.org", NewAppPassword{
		Label: "  My  Phone ", Services: []string{"IMAP", "imap", "smtp"}, Networks: []string{"192.0.2.7", "2001:db8::/32"}, ExpiresAt: &end,
	})
	if err != nil {
		t.Fatal(err)
	}
	text, ok := secret.Normalise(c.Secret)
	if !ok || c.Secret != secret.Format(text) {
		t.Errorf("secret of %d bytes is not of the form abcd-efgh-ijkl-mnop", len(c.Secret))
	}
	row := r.store.rows[0]
	if match, err := secret.Verify(row.phc, text); err != nil || !match {
		t.Errorf("Verify(stored, secret) = %v, %v, want true", match, err)
	}
	if row.tag != r.service.Ring.Tag(text) {
		t.Error("the stored tag is not the secret's")
	}
	if p := c.AppPassword; p.Status != Live || !cmp.Equal(p.Services, []string{"imap", "smtp"}) ||
		!cmp.Equal(p.Networks, []string{"192.0.2.7/32", "2001:db8::/32"}) || p.Login != "alice" {
		t.Errorf("Create = %+v, want normalised services and networks", p)
	}

	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "my phone"}); code(err) != "409 label_taken" {
		t.Errorf("Create with the same label in other case = %v, want label_taken", err)
	}
	if err := r.client.Rename(ctx, "alice", "MY phone", "Tablet"); err != nil {
		t.Errorf("Rename = %v, want nil", err)
	}
	for range 2 {
		p, err := r.client.Revoke(ctx, "alice", "tablet", "lost")
		if err != nil || p.Status != Revoked || p.RevokedWhy != "lost" {
			t.Errorf("Revoke = %+v, %v, want revoked, also the second time", p, err)
		}
	}
	if p, err := r.client.AppPasswords(ctx, "alice", false); err != nil || len(p.AppPasswords) != 0 {
		t.Errorf("AppPasswords = %+v, %v, want none", p, err)
	}
	if p, err := r.client.AppPasswords(ctx, "alice", true); err != nil || len(p.AppPasswords) != 1 {
		t.Errorf("AppPasswords(all) = %+v, %v, want the tombstone", p, err)
	}
	off := false
	if a, err := r.client.PatchAccount(ctx, "alice", AccountPatch{Enabled: &off}); err != nil || a.Enabled {
		t.Errorf("PatchAccount = %+v, %v, want disabled", a, err)
	}
	if err := r.client.DeleteAccount(ctx, "alice"); err != nil {
		t.Errorf("DeleteAccount = %v, want nil", err)
	}
	if _, err := r.client.Account(ctx, "alice"); code(err) != "404 no_account" {
		t.Errorf("Account of a deleted one = %v, want no_account", err)
	}
}

func TestRefusals(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	if _, err := r.client.AddAccount(ctx, NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	past := now
	create := func(n NewAppPassword) func() error {
		return func() error {
			if n.Label == "" {
				n.Label = "x"
			}
			_, err := r.client.Create(ctx, "alice", n)
			return err
		}
	}
	add := func(n NewAccount) func() error {
		return func() error { _, err := r.client.AddAccount(ctx, n); return err }
	}
	for name, tc := range map[string]struct {
		do   func() error
		want string
	}{
		"login with a space":      {add(NewAccount{Login: "a b"}), "400 bad_login"},
		"empty login":             {add(NewAccount{}), "400 bad_login"},
		"alias with a NUL":        {add(NewAccount{Login: "b", Aliases: []string{"\x00"}}), "400 bad_login"},
		"login that is taken":     {add(NewAccount{Login: "ALICE"}), "409 login_taken"},
		"name on two lines":       {add(NewAccount{Login: "b", DisplayName: "a\nb"}), "400 bad_text"},
		"password attribute":      {add(NewAccount{Login: "b", Attributes: map[string][]string{"userPassword": {"x"}}}), "400 bad_attribute"},
		"attribute with a space":  {add(NewAccount{Login: "b", Attributes: map[string][]string{"a b": {"x"}}}), "400 bad_attribute"},
		"empty attribute value":   {add(NewAccount{Login: "b", Attributes: map[string][]string{"mail": {""}}}), "400 bad_attribute"},
		"userdb with a tab":       {add(NewAccount{Login: "b", Userdb: map[string]string{"home": "/a\t/b"}}), "400 bad_text"},
		"quota":                   {add(NewAccount{Login: "b", Userdb: map[string]string{"quota": "1.5G"}}), "400 bad_userdb"},
		"userdb key":              {add(NewAccount{Login: "b", Userdb: map[string]string{"a=b": "x"}}), "400 bad_userdb"},
		"label of spaces":         {create(NewAppPassword{Label: "  "}), "400 bad_label"},
		"label with an escape":    {create(NewAppPassword{Label: "\x1b[2J"}), "400 bad_label"},
		"long label":              {create(NewAppPassword{Label: strings.Repeat("x", 65)}), "400 bad_label"},
		"service":                 {create(NewAppPassword{Services: []string{"i map"}}), "400 bad_service"},
		"network":                 {create(NewAppPassword{Networks: []string{"192.0.2.0/33"}}), "400 bad_network"},
		"network with host bits":  {create(NewAppPassword{Networks: []string{"192.0.2.1/24"}}), "400 bad_network"},
		"mapped network":          {create(NewAppPassword{Networks: []string{"::ffff:192.0.2.0/120"}}), "400 bad_network"},
		"expiry in the past":      {create(NewAppPassword{ExpiresAt: &past}), "400 bad_expiry"},
		"disuse of a minute":      {create(NewAppPassword{ExpiresUnusedFor: "1m"}), "400 bad_expiry"},
		"unknown account":         {func() error { _, err := r.client.Create(ctx, "bob", NewAppPassword{Label: "x"}); return err }, "404 no_account"},
		"revoke an unknown label": {func() error { _, err := r.client.Revoke(ctx, "alice", "nothing", ""); return err }, "404 no_label"},
		"rename an unknown label": {func() error { return r.client.Rename(ctx, "alice", "nothing", "x") }, "404 no_label"},
		"reason on two lines":     {func() error { _, err := r.client.Revoke(ctx, "alice", "x", "a\nb"); return err }, "400 bad_text"},
		"65 services":             {create(NewAppPassword{Services: make([]string, 65)}), "400 too_many"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := code(tc.do()); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if len(r.store.rows) != 0 || len(r.store.accounts) != 1 {
		t.Errorf("the refused requests left %d rows and %d accounts, want 0 and 1", len(r.store.rows), len(r.store.accounts))
	}
}

func TestLimit(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.client.AddAccount(ctx, NewAccount{Login: "alice"})
	for i := range 3 {
		if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "3"}); code(err) != "409 limit" {
		t.Errorf("Create beyond the limit = %v, want limit", err)
	}
	r.client.Revoke(ctx, "alice", "0", "")
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "3"}); err != nil {
		t.Errorf("Create after a revocation = %v, want nil", err)
	}
}

// A tag that another daemon issued meanwhile is not an error: another secret is drawn.
func TestTagTakenMeanwhile(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.client.AddAccount(ctx, NewAccount{Login: "alice"})
	r.store.raceTag = 2
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "x"}); err != nil {
		t.Errorf("Create = %v, want nil after two races", err)
	}
	r.store.raceTag = 1000
	if _, err := r.client.Create(ctx, "alice", NewAppPassword{Label: "y"}); code(err) != "503 unavailable" {
		t.Errorf("Create = %v, want an end of the attempts", err)
	}
}

// A draw never returns a tag of the account, whatever the generator says.
func TestDrawAvoidsTakenTags(t *testing.T) {
	s := &Service{Ring: secret.NewRing(), Length: 16}
	var taken []auth.Tag
	for v := range 1 << 16 {
		if v%2 == 0 {
			taken = append(taken, auth.Tag{PepperID: s.Ring.Active(), Value: uint16(v)})
		}
	}
	for range 20 {
		if _, tag, err := s.draw(taken); err != nil || tag.Value%2 == 0 {
			t.Fatalf("draw = %v, %v, want a free tag", tag, err)
		}
	}
	for v := range 1 << 16 {
		if v%2 == 1 {
			taken = append(taken, auth.Tag{PepperID: s.Ring.Active(), Value: uint16(v)})
		}
	}
	if _, _, err := s.draw(taken); err == nil {
		t.Error("draw with all tags taken = nil, want an error")
	}
}

func TestOutage(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	r.store.err = errors.New(`dial "postgres://u:hunter2@db"`)
	_, err := r.client.Account(ctx, "alice")
	if code(err) != "503 unavailable" {
		t.Errorf("Account = %v, want unavailable", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the client sees the cause: %v", err)
	}
	r.service = nil
	if _, err := r.client.Accounts(ctx, "", 0); code(err) != "503 unavailable" {
		t.Errorf("Accounts before the database is known = %v, want unavailable", err)
	}
	if s, err := r.client.Status(ctx); err != nil || s.Version != "v" {
		t.Errorf("Status before the database is known = %+v, %v, want an answer", s, err)
	}
}

func TestUnreachable(t *testing.T) {
	_, err := NewClient("/nonexistent/s").Status(t.Context())
	var u *UnreachableError
	if !errors.As(err, &u) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Status = %v, want UnreachableError of a missing file", err)
	}
	if want := "cannot reach valetkeyd at /nonexistent/s: connect: no such file or directory"; err.Error() != want {
		t.Errorf("Status = %q, want %q", err, want)
	}
}

func TestActorIsThePeer(t *testing.T) {
	r := newRig(t)
	if _, err := r.client.AddAccount(t.Context(), NewAccount{Login: "alice"}); err != nil {
		t.Fatal(err)
	}
	if by := r.store.by[0]; by == "" || by == "unknown" {
		t.Errorf("actor = %q, want the user that runs this test", by)
	}
}

// Bodies that are not what a call takes, by hand.
func TestBadBodies(t *testing.T) {
	r := newRig(t)
	h := r.client.http
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"not JSON":       {"POST", "/v1/accounts", "{", 400, "bad_request"},
		"unknown field":  {"POST", "/v1/accounts", `{"login":"a","pasword":"hunter2"}`, 400, "bad_request"},
		"wrong type":     {"POST", "/v1/accounts", `{"login":7}`, 400, "bad_request"},
		"two values":     {"POST", "/v1/accounts", `{"login":"a"}{}`, 400, "bad_request"},
		"too long":       {"POST", "/v1/accounts", `{"login":"` + strings.Repeat("a", 70<<10) + `"}`, 400, "bad_request"},
		"unknown call":   {"GET", "/v2/status", "", 404, "not_found"},
		"wrong method":   {"PUT", "/v1/status", "", 404, "not_found"},
		"profile for 0s": {"GET", "/v1/debug/cpu-profile?seconds=0", "", 400, "bad_request"},
		"profile for 1h": {"GET", "/v1/debug/cpu-profile?seconds=3600", "", 400, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://x"+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := h.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			var p Problem
			if err := json.NewDecoder(answer.Body).Decode(&p); err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != tc.status || p.Error.Code != tc.code {
				t.Errorf("%s %s = %d %+v, want %d %s", tc.method, tc.path, answer.StatusCode, p.Error, tc.status, tc.code)
			}
			if strings.Contains(fmt.Sprint(p), "hunter2") {
				t.Errorf("the answer quotes the body: %+v", p)
			}
		})
	}
}

func TestPaging(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	for _, l := range []string{"c", "a", "b"} {
		r.client.AddAccount(ctx, NewAccount{Login: l})
	}
	var got []string
	for after := ""; ; {
		p, err := r.client.Accounts(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range p.Accounts {
			got = append(got, a.Login)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestProfile(t *testing.T) {
	r := newRig(t)
	profile, err := r.client.CPUProfile(t.Context(), 1)
	if err != nil || !bytes.HasPrefix(profile, []byte{0x1f, 0x8b}) { // gzip, as pprof has it
		t.Errorf("CPUProfile = %d bytes, %v, want a profile", len(profile), err)
	}
}
