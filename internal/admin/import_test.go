package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

const foreignHash = "{SSHA256}oXn5nT7iG6AmcAdGk2T6AuxoqAPJd0wB1OZtwvrtAAQ+k7oJ7PBHmQ==" // of "secret"

func importing(t *testing.T) (*Service, *memory) {
	t.Helper()
	m := &memory{}
	return &Service{Store: m, Hashes: auth.NewAdmission(0, 0), Limit: 25, Now: func() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }}, m
}

func withPassword(login string, p ImportPassword) ImportRow {
	return ImportRow{Login: login, AppPassword: &p}
}

// Each row alone: what is wrong with one is said of it and keeps nothing else out, and nothing of a hash is said.
func TestImportRows(t *testing.T) {
	early, late := time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	good := ImportPassword{Key: "1", Label: "Phone", Hash: foreignHash}
	with := func(change func(*ImportPassword)) ImportRow {
		p := good
		change(&p)
		return withPassword("alice", p)
	}
	for _, tt := range []struct {
		name    string
		row     ImportRow
		account string
		app     string
		why     string
	}{
		{"good", withPassword("ALICE", good), "added", "added", ""},
		{"account alone", ImportRow{Login: "alice"}, "added", "", ""},
		{"all fields", with(func(p *ImportPassword) {
			p.Services, p.Networks, p.CreatedAt, p.ExpiresAt = []string{"IMAP"}, []string{"192.0.2.1"}, &early, &late
		}), "added", "added", ""},
		{"bad login", withPassword("two words", good), "skipped", "skipped", "not a login"},
		{"bad alias", ImportRow{Login: "alice", Aliases: []string{"a b"}}, "skipped", "", "not a login"},
		{"attribute that holds passwords", ImportRow{Login: "alice", Attributes: map[string][]string{"userPassword": {"x"}}}, "skipped", "", "userPassword"},
		{"bad quota", ImportRow{Login: "alice", Userdb: map[string]string{"quota": "much"}}, "skipped", "", "not a size"},
		{"bad kind", ImportRow{Login: "alice", Kind: "cat"}, "skipped", "", "not a kind"},
		{"bad uuid", ImportRow{Login: "alice", UUID: "x"}, "skipped", "", "not a UUID"},
		{"bad group", ImportRow{Login: "alice", Groups: []string{"a b"}}, "skipped", "", "a b"},
		{"bad label", with(func(p *ImportPassword) { p.Label = "a\x1bb" }), "added", "skipped", "not a label"},
		{"no key", with(func(p *ImportPassword) { p.Key = "" }), "added", "skipped", "no key"},
		{"key with a control character", with(func(p *ImportPassword) { p.Key = "a\nb" }), "added", "skipped", "no key"},
		{"bad service", with(func(p *ImportPassword) { p.Services = []string{"a b"} }), "added", "skipped", "not a service"},
		{"bad network", with(func(p *ImportPassword) { p.Networks = []string{"here"} }), "added", "skipped", "not a network"},
		{"expired", with(func(p *ImportPassword) { p.ExpiresAt = &early }), "added", "skipped", "it expired at 2029"},
		{"MD5-crypt", with(func(p *ImportPassword) { p.Hash = "$1$a4Hpms8f$9AU.9Ptjbcx8rhOv18uih." }), "added", "skipped", "MD5-crypt is broken"},
		{"cost too high", with(func(p *ImportPassword) {
			p.Hash = "{PBKDF2}$1$salt$9000000$6b770bab21c8f864f939a65aaf0303f933668028"
		}), "added", "skipped", "rounds are above"},
		{"password in clear too long", with(func(p *ImportPassword) { p.Hash = "{PLAIN}" + strings.Repeat("x", 513) }), "added", "skipped", "longer than 512"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, m := importing(t)
			other := withPassword("bob", ImportPassword{Key: "2", Label: "x", Hash: foreignHash})
			out, err := s.Import(t.Context(), Import{Source: "test", Rows: []ImportRow{tt.row, other}}, "root")
			if err != nil {
				t.Fatal(err)
			}
			o := out.Outcomes[0]
			if o.Account != tt.account || o.AppPassword != tt.app || !strings.Contains(o.Why, tt.why) || (tt.why == "") != (o.Why == "") {
				t.Errorf("outcome %+v, want account %q, app password %q, why %q", o, tt.account, tt.app, tt.why)
			}
			if strings.Contains(fmt.Sprint(o), "9AU.9Ptjbcx8") || strings.Contains(fmt.Sprint(o), "6b770bab") {
				t.Errorf("the outcome shows a hash: %+v", o)
			}
			if b := out.Outcomes[1]; b.Login != "bob" || b.AppPassword != "added" {
				t.Errorf("the row beside it: %+v", b)
			}
			if rows := m.imports[0].Rows; rows[len(rows)-1].AppPassword.PHC != foreignHash {
				t.Errorf("the store was given the hash %q", rows[len(rows)-1].AppPassword.PHC)
			}
		})
	}
}

// Passwords in clear are hashed here, where they are new, and never stored.
func TestImportClear(t *testing.T) {
	s, m := importing(t)
	n := Import{Source: "test", DryRun: true, Rows: []ImportRow{withPassword("alice", ImportPassword{Key: "1", Label: "x", Hash: "pass word", Scheme: "PLAIN"})}}
	if _, err := s.Import(t.Context(), n, "root"); err != nil {
		t.Fatal(err)
	}
	if n := s.Hashes.Done(); n != 0 {
		t.Errorf("a dry run computed %d hashes", n)
	}
	n.DryRun = false
	for i, want := range []int64{1, 1} {
		if _, err := s.Import(t.Context(), n, "root"); err != nil {
			t.Fatal(err)
		}
		if n := s.Hashes.Done(); n != want {
			t.Errorf("after import %d: %d hashes were computed, want %d", i+1, n, want)
		}
	}
	var stored *auth.ImportedPassword
	for _, i := range m.imports {
		if p := i.Rows[0].AppPassword; !i.DryRun && p.PHC != "" {
			stored = p
		}
	}
	if stored == nil || !stored.Strong {
		t.Fatalf("stored %+v, want a hash of ours", stored)
	}
	if ok, err := secret.Verify(stored.PHC, "pass word"); !ok || err != nil {
		t.Errorf("the stored hash is not of the password: %v, %v", ok, err)
	}
	many := Import{Source: "test"}
	for i := range MaxImportClear + 1 {
		many.Rows = append(many.Rows, withPassword("alice", ImportPassword{Key: fmt.Sprint(i), Label: "x", Hash: "{PLAIN}x"}))
	}
	if _, err := s.Import(t.Context(), many, "root"); err == nil || !strings.Contains(err.Error(), "at most 100 passwords in clear") {
		t.Errorf("101 passwords in clear: %v", err)
	}
}

// What is wrong with all of it refuses all of it.
func TestImportRefuses(t *testing.T) {
	for name, n := range map[string]Import{
		"no source":     {},
		"odd source":    {Source: "a:b"},
		"too many rows": {Source: "test", Rows: make([]ImportRow, maxImportRows+1)},
		"bad group":     {Source: "test", Groups: []ImportGroup{{Name: "a b"}}},
		"group's uuid":  {Source: "test", Groups: []ImportGroup{{Name: "a", UUID: "x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := importing(t)
			_, err := s.Import(t.Context(), n, "root")
			var f *Fault
			if !errors.As(err, &f) || len(m.imports) != 0 {
				t.Errorf("Import = %v with %d calls of the store, want a fault and none", err, len(m.imports))
			}
		})
	}
	s, m := importing(t)
	m.err = errors.New("the database is down")
	if _, err := s.Import(t.Context(), Import{Source: "test", Rows: []ImportRow{}}, "root"); !errors.Is(err, m.err) {
		t.Errorf("Import with the database down = %v", err)
	}
}

// Over the socket: the same verb, bounded.
func TestImportCall(t *testing.T) {
	r := newRig(t)
	out, err := r.client.Import(t.Context(), Import{Source: "test", Rows: []ImportRow{withPassword("alice", ImportPassword{Key: "1", Label: "Phone", Hash: foreignHash})}})
	if err != nil || len(out.Outcomes) != 1 || out.Outcomes[0].AppPassword != "added" {
		t.Errorf("Import = %+v, %v", out, err)
	}
	if by := r.store.imports[0].By; by == "" || r.store.imports[0].LimitPerAccount != 3 {
		t.Errorf("the store was told %q and the limit %d, want who it is and the service's limit", by, r.store.imports[0].LimitPerAccount)
	}
	large := Import{Source: "test", Rows: []ImportRow{withPassword("alice", ImportPassword{Key: strings.Repeat("x", MaxImportBody), Label: "Phone", Hash: foreignHash})}}
	if _, err := r.client.Import(t.Context(), large); code(err) != "400 bad_request" {
		t.Errorf("Import of more than the body may have = %v", err)
	}
	if strings.Contains(r.log.String(), foreignHash) {
		t.Error("the log has a hash")
	}
}
