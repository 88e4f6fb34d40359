package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// The hash is opaque to the store.
const phc = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"

func addAccount(t testing.TB, s *store.Store, login string, aliases ...string) auth.Account {
	t.Helper()
	a, err := s.AddAccount(t.Context(), auth.NewAccount{Login: login, Aliases: aliases}, "admin")
	if err != nil {
		t.Fatalf("AddAccount(%q): %v", login, err)
	}
	return a
}

// newAppPassword is a generated one with this tag; edit changes it before it is stored.
func newAppPassword(login, label string, tag *auth.Tag, edit ...func(*auth.NewAppPassword)) auth.NewAppPassword {
	n := auth.NewAppPassword{Login: login, Label: label, LabelKey: label, Origin: auth.Generated, PHC: phc, Tag: tag,
		CreatedBy: "admin", LimitPerAccount: 25}
	if tag == nil {
		n.Origin = auth.Imported
	}
	for _, f := range edit {
		f(&n)
	}
	return n
}

func addAppPassword(t testing.TB, s *store.Store, login, label string, tag *auth.Tag, edit ...func(*auth.NewAppPassword)) auth.AppPassword {
	t.Helper()
	p, err := s.AddAppPassword(t.Context(), newAppPassword(login, label, tag, edit...))
	if err != nil {
		t.Fatalf("AddAppPassword(%q, %q): %v", login, label, err)
	}
	return p
}

func tag(pepper int32, value uint16) *auth.Tag { return &auth.Tag{PepperID: pepper, Value: value} }

// labels of the candidates, in any order.
func labels(f *auth.Found) string {
	if f == nil {
		return "unknown"
	}
	got := map[string]int{}
	for _, c := range f.Candidates {
		got[c.Label]++
	}
	return fmt.Sprint(got) // sorted by key
}

// eventually polls, since the moment is not ours to know.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not so within 30 seconds: %s", what)
}
