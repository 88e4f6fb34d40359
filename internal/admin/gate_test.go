package admin

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

func TestGateConnections(t *testing.T) {
	g := newGate(time.Now)
	for i := range maxConnections {
		if !g.connect(1001) {
			t.Fatalf("connection %d is refused", i+1)
		}
	}
	if g.connect(1001) {
		t.Errorf("connection %d of one user is admitted", maxConnections+1)
	}
	if !g.connect(1002) {
		t.Error("another user is refused")
	}
	g.disconnect(1001)
	if !g.connect(1001) {
		t.Error("no place after a connection has ended")
	}
	for id := uint32(2000); g.all < maxUserConnections; id++ {
		g.connect(id)
	}
	if g.connect(5000) {
		t.Errorf("connection %d of all users is admitted", maxUserConnections+1)
	}
	for id, n := range g.connections {
		for range n {
			g.disconnect(id)
		}
	}
	if g.all != 0 || len(g.connections) != 0 {
		t.Errorf("after all have gone %d connections of %d users are counted", g.all, len(g.connections))
	}
}

func TestGateCalls(t *testing.T) {
	clock := time.Unix(0, 0)
	g := newGate(func() time.Time { return clock })
	call := func(id uint32, change bool) error {
		leave, err := g.enter(id, change)
		if err == nil {
			leave()
		}
		return err
	}
	for i := range changeBurst {
		if err := call(1, true); err != nil {
			t.Fatalf("change %d = %v", i+1, err)
		}
	}
	if call(1, true) == nil {
		t.Errorf("change %d at once is admitted", changeBurst+1)
	}
	if err := call(1, false); err != nil {
		t.Errorf("looking = %v, want nil: only changes are used up", err)
	}
	clock = clock.Add(changeRate)
	if err := call(1, true); err != nil {
		t.Errorf("a change after %v = %v", changeRate, err)
	}
	for range callBurst {
		call(2, false)
	}
	if call(2, false) == nil {
		t.Errorf("call %d at once is admitted", callBurst+1)
	}
	clock = clock.Add(callRate)
	if err := call(2, false); err != nil {
		t.Errorf("a call after %v = %v", callRate, err)
	}

	var leaves []func()
	for range maxCallerCalls {
		leave, err := g.enter(3, false)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	if call(3, false) == nil {
		t.Errorf("%d calls of one user at a time are admitted", maxCallerCalls+1)
	}
	for id := uint32(4); len(leaves) < maxUserCalls; id++ {
		leave, err := g.enter(id, false)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	if call(99, false) == nil {
		t.Errorf("%d calls of all users at a time are admitted", maxUserCalls+1)
	}
	for _, leave := range leaves {
		leave()
	}
	if err := call(99, false); err != nil {
		t.Errorf("a call after the others = %v", err)
	}
}

// What is remembered of users stays bounded, and is forgotten once it does not matter.
func TestGateForgets(t *testing.T) {
	clock := time.Unix(0, 0)
	g := newGate(func() time.Time { return clock })
	for id := range uint32(maxUsers) {
		leave, err := g.enter(id, false)
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	if _, err := g.enter(maxUsers, false); err == nil || len(g.users) > maxUsers {
		t.Errorf("enter with %d users remembered = %v, want a refusal", len(g.users), err)
	}
	clock = clock.Add(time.Hour)
	if _, err := g.enter(maxUsers, false); err != nil || len(g.users) != 1 {
		t.Errorf("enter an hour later = %v with %d users remembered, want only this one", err, len(g.users))
	}
}

// A user who opens connections and says nothing gets no more than his share, and an admin gets in beside him.
func TestSilentConnections(t *testing.T) {
	service, _ := newTestService()
	c := newMember(t, service, testAccess(), aUser)
	var closed int
	for range maxConnections + 3 {
		conn, err := net.Dial("unix", c.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
				closed++
			}
		}
	}
	if closed != 3 {
		t.Errorf("%d of %d connections were closed, want 3", closed, maxConnections+3)
	}
}

// A user who goes on and on is told to wait.
func TestTooManyCalls(t *testing.T) {
	service, store := newTestService()
	store.accounts = []auth.Account{{ID: 1, Login: "alice", Enabled: true}}
	c := newMember(t, service, testAccess(), aUser)
	refused := 0
	for i := range changeBurst + 5 {
		status, _ := c.raw(t, "POST", "/v1/app-password/revoke?label=x", "{}")
		if status == http.StatusTooManyRequests {
			refused++
		} else if status != http.StatusNotFound {
			t.Fatalf("call %d: status %d, want 404", i+1, status)
		}
	}
	if refused < 4 {
		t.Errorf("%d calls were refused, want about 5", refused)
	}
	if _, err := newMember(t, service, testAccess(), anAdmin).AppPasswords(t.Context(), "alice", false); err != nil {
		t.Errorf("an admin meanwhile: %v", fmt.Sprint(err))
	}
}
