package ldapbridge

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// costly is a filter that looks at every value of these attributes many times and holds for nobody.
func costly(attr string, parts int) []byte {
	var all [][]byte
	for i := range parts {
		all = append(all, fEq(attr, fmt.Sprintf("cn=nobody%d,%s", i, groupsDN)))
	}
	return cons(filterOr, all...)
}

// A search that takes long waits for its turn, and a login's does not: neither may one that computes keep the place while its client
// does not read.
func TestTurns(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec searchSpec
		code resultCode    // while nobody gets a turn
		took time.Duration // until then
	}{
		{"one by login", searchSpec{base: people, scope: 1, filter: fEq("uid", "p00007")}, success, 0},
		{"one entry, whole filter", searchSpec{base: people, scope: 1, filter: cons(filterAnd, fEq("uid", "p00007"), costly("memberOf", 400))}, success, 0},
		{"everybody", searchSpec{base: people, scope: 1}, other, 20 * time.Second},
		{"everybody, in 5 s", searchSpec{base: people, scope: 1, time: 5}, timeLimitExceeded, 5 * time.Second},
		{"all parts for each", searchSpec{base: people, scope: 1, filter: cons(filterAnd, fEq("sn", "crowd"), costly("memberOf", 100))}, other, 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				turns := NewTurns(1)
				s, _, _ := newTestServer(t, Config{Turns: turns})
				s.src.(*peopleSource).dir = crowd(1000)
				turns.places <- struct{}{}
				begin := time.Now()
				replies := talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, tt.spec))
				if done := replies[len(replies)-1]; done.code != tt.code || time.Since(begin) != tt.took {
					t.Errorf("without a turn: %v after %v, want code %d after %v", done, time.Since(begin), tt.code, tt.took)
				}
				<-turns.places
				replies = talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, tt.spec))
				if done := replies[len(replies)-1]; done.code != success {
					t.Errorf("with one: %v", done)
				}
				if len(turns.places) != 0 {
					t.Error("a place was not given back")
				}
			})
		})
	}
}

// Whoever waits gets the place of one that computes, and of one whose client does not read.
func TestTurnsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1)
		s, _, _ := newTestServer(t, Config{Turns: turns})
		s.src.(*peopleSource).dir = crowd(1000)
		ln := serveTest(t, s)
		stuck := ln.dial("192.0.2.1:1") // a pipe has no buffer: the first write waits
		defer stuck.Close()
		ask(t, stuck, bindReq(1, readerDN, "scans"))
		stuck.Write(searchReq(2, searchSpec{base: people, scope: 1, filter: cons(filterOr, costly("memberOf", 100), fEq("sn", "crowd"))}))
		synctest.Wait()
		var done [2]time.Duration
		begin := time.Now()
		for i := range done {
			nc := ln.dial("192.0.2.2:1")
			defer nc.Close()
			ask(t, nc, bindReq(1, readerDN, "scans"))
			go func() {
				nc.Write(searchReq(2, searchSpec{base: people, scope: 1, filter: cons(filterAnd, fEq("sn", "crowd"), costly("memberOf", 100))}))
				if r, err := tryReply(nc); err != nil || r.code != success {
					t.Errorf("search %d: %v, %v", i, r, err)
				}
				done[i] = time.Since(begin)
			}()
		}
		synctest.Wait()
		if done != [2]time.Duration{} {
			t.Errorf("the others took %v beside a client that does not read, want no wait", done)
		}
	})
}

// A search that takes long ends soon after its client.
func TestSearchOfAClientThatIsGone(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s, _, _ := newTestServer(t, Config{Limits: Limits{SearchEntries: 1 << 20, SearchTime: time.Hour}})
			s.src.(*peopleSource).dir = crowd(60_000)
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "s")
			}
			ln := listen(t, network, address)
			startServer(t, s, ln)
			nc, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if r := ask(t, nc, bindReq(1, readerDN, "scans")); r.code != success {
				t.Fatalf("bind = %v", r)
			}
			// Nothing is found, so nothing is written: minutes of work.
			nc.Write(append(searchReq(2, searchSpec{base: people, scope: 1, filter: cons(filterAnd, fEq("sn", "crowd"), cons(filterNot, cons(filterNot, costly("memberOf", 400))))}), unbind(3)...))
			nc.Close()
			for begin := time.Now(); s.Stats().Connections > 0; time.Sleep(10 * time.Millisecond) {
				if time.Since(begin) > 10*time.Second {
					t.Fatal("the search goes on without its client")
				}
			}
		})
	}
}

// What a client asks to be shown is work as what it asks to be held against the filter: a long list is held against every attribute of every entry.
func TestLongSelectionNeedsATurn(t *testing.T) {
	turns := NewTurns(1)
	s, _, _ := newTestServer(t, Config{Turns: turns, Limits: Limits{Decision: 50 * time.Millisecond}})
	s.src.(*peopleSource).dir = crowd(100)
	search := func(names int) resultCode {
		replies := talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: people, scope: 1, filter: tagged(filterPresent, "objectClass"),
			attrs: slices.Repeat([]string{"@inetOrgPerson"}, names)}))
		return replies[len(replies)-1].code
	}
	turns.places <- struct{}{} // all are taken
	if code := search(2); code != success {
		t.Errorf("with two names: code %d, want %d without a turn", code, success)
	}
	if code := search(250); code != other {
		t.Errorf("with 250 names: code %d, want %d, as no turn is to be had", code, other)
	}
	<-turns.places
	if code := search(250); code != success {
		t.Errorf("with 250 names and a turn: code %d, want %d", code, success)
	}
}

// One entry alone can keep a core busy for seconds: its evaluation is cut off too.
func TestOneLargeEntryIsCut(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	m := crowd(1)
	m.groups[0].Members = nil
	for i := range 20_000 {
		m.groups[0].Members = append(m.groups[0].Members, fmt.Sprintf("p%05d", i))
	}
	s.src.(*peopleSource).dir = m
	parts := [][]byte{}
	for range 165 {
		parts = append(parts, cons(filterSubstrings, str("memberUid"), cons(ber.Sequence, tagged(0x81, "zzz"))), fEq("member", "uid=nobody,"+people))
	}
	begin := time.Now()
	replies := talk(t, s, bindReq(1, readerDN, "scans"), searchReq(2, searchSpec{base: groupsDN, scope: 1, time: 1,
		filter: cons(filterAnd, fEq("cn", "everybody"), cons(filterOr, parts...))}))
	if done, took := replies[len(replies)-1], time.Since(begin); done.code != timeLimitExceeded || took > 10*time.Second {
		t.Errorf("search = %v after %v, want code 3 after about 1 s", done, took)
	}
	if len(s.turns.places) != 0 {
		t.Error("a place was not given back")
	}
}
