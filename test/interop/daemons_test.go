package interop_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// TestThreeDaemons lets three daemons share one database and one pepper.
//
// It would catch: a result that is cached anywhere (a revoked password that still works at another daemon, a new one that
// is not known there yet), an "unknown login" that is remembered, a reason that is not the true one on the daemon that did not
// revoke.
func TestThreeDaemons(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	pepper := filepath.Join(harness.Dir(t), "pepper")
	var daemons []*harness.Daemon
	type peer struct {
		harness.Client
		name   string
		daemon *harness.Daemon
	}
	var peers []peer
	for i := range 3 {
		d := harness.NewDaemon(t, url)
		d.PepperFile = pepper
		d.Start(t)
		daemons = append(daemons, d)
		for front, c := range map[string]harness.Client{
			"dovecot": &harness.DovecotClient{Addr: d.DovecotUnix, NoLogin: true},
			"ldap":    &harness.LDAPClient{Addr: d.LDAP},
		} {
			t.Cleanup(c.Close)
			peers = append(peers, peer{c, fmt.Sprintf("%s at daemon %d", front, i), d})
		}
	}
	// everywhere logs in on all daemons and front ends at once, and wants the same answer and log line from all.
	everywhere := func(t *testing.T, what, login, password string, want harness.Outcome, reason string) {
		t.Helper()
		marks := map[*harness.Daemon]int{}
		for _, d := range daemons {
			marks[d] = d.Log().Mark()
		}
		var wg sync.WaitGroup
		for _, p := range peers {
			wg.Go(func() {
				if got, detail := p.Login(login, password); got != want {
					t.Errorf("%s: %s: %v (%s), want %v", what, p.name, got, detail, want)
				}
			})
		}
		wg.Wait()
		for i, d := range daemons {
			count := func() (n int) {
				for _, line := range d.AuthLines(marks[d]) {
					if line["reason"] == reason {
						n++
					}
				}
				return n
			}
			if !harness.Poll(5*time.Second, func() bool { return count() == 2 }) {
				t.Errorf("%s: daemon %d logged %v, want reason=%s twice", what, i, d.AuthLines(marks[d]), reason)
			}
		}
	}

	daemons[0].AddAccount(t, "alice")
	for round := range 6 {
		maker, ender := daemons[round%3], daemons[(round+1)%3]
		label := fmt.Sprintf("phone %d", round)
		secret := maker.Create(t, "alice", label)
		everywhere(t, "created", "alice", secret, harness.Accepted, "accepted")
		everywhere(t, "created, again", "alice", secret, harness.Accepted, "accepted")
		ender.Revoke(t, "alice", label)
		everywhere(t, "revoked", "alice", secret, harness.Rejected, "revoked")
	}

	// The account itself: unknown until it is added, and back to life after it was disabled.
	kept := daemons[0].Create(t, "alice", "kept")
	everywhere(t, "not added yet", "bob", neverIssued, harness.Rejected, "unknown_login")
	daemons[1].AddAccount(t, "bob")
	bobs := daemons[2].Create(t, "bob", "phone")
	everywhere(t, "added", "bob", bobs, harness.Accepted, "accepted")
	everywhere(t, "password of another", "alice", bobs, harness.Rejected, "no_match")
	daemons[1].Must(t, "account", "disable", "alice")
	everywhere(t, "disabled", "alice", kept, harness.Rejected, "account_disabled")
	daemons[2].Must(t, "account", "enable", "alice")
	everywhere(t, "enabled", "alice", kept, harness.Accepted, "accepted")
}
