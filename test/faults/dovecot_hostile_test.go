package faults_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// once makes a connection of the Dovecot protocol for each login.
type once struct{ harness.DovecotClient }

func (c *once) Login(login, password string) (harness.Outcome, string) {
	defer c.Close()
	return c.DovecotClient.Login(login, password)
}

// TestDovecotPlaces takes every place of a listener of the Dovecot protocol, again and again, with connections that complete no handshake. A
// mail server that is connected, and one whose processes come and go, are served meanwhile.
//
// It would catch: a place that is held without a handshake until its time limit, a peer that is closed though it has sent its own, a
// count that goes astray.
func TestDovecotPlaces(t *testing.T) {
	const places, each = 64, 4 * 64
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.NewDaemon(t, url)
	addr := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	d.Sections = fmt.Sprintf("\n[[dovecot]]\nlisten = %q\nconnections = %d\n", "tcp:"+addr, places)
	d.Start(t)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "phone")
	listener := func() harness.Listener {
		for _, l := range d.Listeners(t) {
			if l.Address == "tcp:"+addr {
				return l
			}
		}
		t.Fatal("the listener is not in the status")
		panic("unreachable")
	}
	for name, say := range map[string]string{"in silence": "", "with half a handshake": "VERSION\t1\t1\nCPI"} {
		t.Run(name, func(t *testing.T) {
			kept := &harness.DovecotClient{Addr: addr}
			defer kept.Close()
			clients := map[string]harness.Client{"the same connection": kept, "new connections": &once{harness.DovecotClient{Addr: addr}}}
			before := listener()
			load := harness.StartLoad(t, 10*time.Millisecond, clients, []harness.Credential{
				{Login: "alice", Password: secret, Right: true}, {Login: "alice", Password: neverIssued}})
			load.WaitEach(t, "a login before the attack", clients, time.Now(), func(a harness.Attempt) bool { return a.Right })
			var gone atomic.Int64
			for range each {
				nc := dial(t, addr, 90)
				defer nc.Close()
				io.WriteString(nc, say)
				go func() {
					nc.SetReadDeadline(time.Now().Add(harness.Patience))
					if _, err := io.Copy(io.Discard, nc); !errors.Is(err, os.ErrDeadlineExceeded) {
						gone.Add(1)
					}
				}()
			}
			load.WaitEach(t, "a login beside the attack", clients, time.Now(), func(a harness.Attempt) bool { return a.Outcome == harness.Accepted })
			attempts := load.Stop()
			harness.CheckServed(t, attempts)
			// A newcomer whose handshake is still on its way is the oldest without one when so many others came meanwhile as there are places. To
			// it the connection just ends, which mail servers take for a temporary failure. It must be rare: the others come as fast as a loop can.
			cut := 0
			honest := slices.DeleteFunc(slices.Clone(attempts), func(a harness.Attempt) bool {
				short := a.Client == "new connections" && a.Outcome == harness.Broken
				if short {
					cut++
				}
				return short
			})
			if cut > len(attempts)/4 {
				t.Errorf("%d of %d attempts were cut short, want few", cut, len(attempts))
			}
			harness.CheckHonest(t, honest, loginWithin)
			l := listener()
			if l.Connections > places || l.Yielded-before.Yielded < each-places || l.Refused > 0 {
				t.Errorf("the listener has %+v, before the attack %+v, want at most %d connections, %d more that gave way, and none refused", l, before, places, each-places)
			}
			t.Logf("%d of %d gave way; %s", gone.Load(), each, harness.Tally(attempts))
		})
	}
	harness.WaitFor(t, "no connection to be counted", func() bool { return listener().Connections == 0 })
}
