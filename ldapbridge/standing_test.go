package ldapbridge

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// TestWithdrawn: what was revoked or disabled is so on connections that are open too.
func TestWithdrawn(t *testing.T) {
	search, compare := searchReq(2, searchSpec{base: aliceDN}), compareReq(2, aliceDN, "uid", "alice")
	for _, tt := range []struct {
		name    string
		bind    []byte
		request []byte
		reason  auth.Reason
		err     error
		want    resultCode // of the answer; 8 is the notice
	}{
		{"reader, nothing changed", bindReq(1, readerDN, "scans"), search, auth.Accepted, nil, success},
		{"reader, revoked", bindReq(1, readerDN, "scans"), search, auth.Revoked, nil, strongerAuthRequired},
		{"reader, deleted", bindReq(1, readerDN, "scans"), search, auth.UnknownLogin, nil, strongerAuthRequired},
		{"reader, compare", bindReq(1, readerDN, "scans"), compare, auth.AccountDisabled, nil, strongerAuthRequired},
		{"person, revoked", bindReq(1, aliceDN, alicePass), search, auth.Revoked, nil, strongerAuthRequired},
		{"who am I", bindReq(1, aliceDN, alicePass), whoami(2), auth.Accepted, nil, success},
		{"who am I, revoked", bindReq(1, aliceDN, alicePass), whoami(2), auth.Revoked, nil, strongerAuthRequired},
		{"who am I, not known", bindReq(1, aliceDN, alicePass), whoami(2), "", errBroken, other},
		{"not known", bindReq(1, readerDN, "scans"), search, "", errBroken, other},
		{"compare, not known", bindReq(1, readerDN, "scans"), compare, "", errBroken, other},
		{"root DSE", bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{}), auth.Revoked, nil, success},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, a, logged := newTestServer(t, Config{})
				asked := 0
				a.stands = func() (auth.Reason, error) { asked++; return tt.reason, tt.err }
				server, client := net.Pipe()
				go func() {
					defer server.Close()
					newConn(s, server, "tcp:test").Serve()
				}()
				defer client.Close()
				if r := askPipe(t, client, tt.bind); r.code != success {
					t.Fatalf("bind = %v", r)
				}
				ask := func() reply {
					if _, err := client.Write(tt.request); err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 16<<10)
					n, err := client.Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					replies, err := parseReplies(buf[:n])
					if err != nil {
						t.Fatal(err)
					}
					return replies[len(replies)-1]
				}
				if r := ask(); r.code != success && r.code != compareTrue || asked != 0 {
					t.Errorf("at once: %v, asked %d times, want it answered unasked", r, asked)
				}
				time.Sleep(standsFor)
				r := ask()
				if r.code != tt.want || tt.want == strongerAuthRequired && r.id != 0 {
					t.Errorf("later: %v, want code %d", r, tt.want)
				}
				if tt.want != strongerAuthRequired {
					return
				}
				if _, err := client.Read(make([]byte, 1)); err == nil {
					t.Error("the connection goes on")
				}
				synctest.Wait()
				if !strings.Contains(logged.String(), "reason="+string(tt.reason)) {
					t.Errorf("logged %q, want the reason %s", logged, tt.reason)
				}
			})
		})
	}
}
