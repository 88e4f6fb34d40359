package ldapbridge

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

// Whoever guesses names must not learn which are users of the upstream: not by the answer, and not by the time that it takes, so for a name
// that is nobody's the same is done as for one with a wrong password.
func TestUpstreamBindTellsNobodyWhoIsThere(t *testing.T) {
	const old = "uid=alice,ou=former," + testBase // no entry, though a login of this name exists
	tests := []struct {
		name, dn, password string
		login              string // that the authenticator is asked for
		want               resultCode
	}{
		{"right", aliceDN, alicePass, "alice", success},
		{"wrong", aliceDN, "wrong", "alice", invalidCredentials},
		{"nobody", "uid=mallory,ou=people," + testBase, "wrong", "uid=mallory,ou=people," + testBase, invalidCredentials},
		{"nobody, with spaces", "cn=Mallory  Ü\\,x,ou=people," + testBase, "wrong", "cn=Mallory%20%20%C3%9C\\,x,ou=people," + testBase, invalidCredentials},
		{"nobody, of a login that exists", old, alicePass, old, invalidCredentials},
		{"no usable login", "uid=twice,ou=people," + testBase, "wrong", "uid=twice,ou=people," + testBase, invalidCredentials},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
				switch q.base {
				case testBase, aliceDN:
					answerAlice(l, q)
				case "uid=twice,ou=people," + testBase:
					l.Write(append(rawEntry(q.id, q.base, []string{"uid", "one", "two"}), rawDone(q.id, success)...))
				default:
					l.Write(rawDone(q.id, noSuchObject))
				}
			})
			a := &fakeAuth{}
			s, err := New(Config{BaseDN: testBase, Upstream: &Upstream{URLs: []string{f.url()}, BindDN: serviceDN, Password: servicePass, Limits: brisk}}, a,
				fakeDirectory{}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.upstream.close)
			replies := talk(t, s, bindReq(1, tt.dn, tt.password), whoami(2))
			if len(replies) != 2 || replies[0].code != tt.want || replies[0].diag != "" || (replies[1].value != "") != (tt.want == success) {
				t.Errorf("answers = %v, want code %d", replies, tt.want)
			}
			asked := a.asked()
			if len(asked) != 1 || asked[0].Login != tt.login || asked[0].Password != tt.password {
				t.Fatalf("the authenticator was asked %d times, want once for %q: %+v", len(asked), tt.login, asked)
			}
			if login, err := auth.NormaliseLogin(asked[0].Login); err != nil { // it would be turned away unread
				t.Errorf("NormaliseLogin(%q) = %q, %v", asked[0].Login, login, err)
			}
			if gate := asked[0].Gate; tt.login != "alice" {
				if gate == nil {
					t.Error("no gate for nobody")
				} else if ok, err := gate.Admits(t.Context(), "alice"); ok || err != nil {
					t.Errorf("Admits = %v, %v, want nobody in", ok, err)
				}
			}
			_, searches := f.asked()
			var bases []string
			for _, q := range searches {
				bases = append(bases, q.base)
			}
			if len(bases) != 2 || !slices.Contains(bases, testBase) {
				t.Errorf("the upstream was asked for %q, want the name and the base", bases)
			}
		})
	}
}

func TestStrangerLoginIsBounded(t *testing.T) {
	long := mustDN(t, "cn="+string(slices.Repeat([]byte("\\20"), 300))+"x,"+testBase)
	if login := strangerLogin(long); len(login) != auth.MaxLogin {
		t.Errorf("%d bytes, want %d", len(login), auth.MaxLogin)
	}
}
