package admin

import (
	"net"
	"sync"
	"time"
)

// Bounds of what those may take who have no role. Who has one is trusted not to wear out the daemon, and must get in whatever the others do.
const (
	maxConnections      = 8   // of one user
	maxUserConnections  = 128 // of all users
	maxCallerCalls      = 2   // of one user at a time
	maxUserCalls        = 3   // of all users at a time: the admins need the database too
	callBurst, callRate = 60, time.Second
	// An app password that is revoked leaves a tombstone: a user who makes and revokes them without end would fill the database.
	changeBurst, changeRate = 30, time.Minute
	maxUsers                = 4096 // whose calls are counted
)

// gate admits connections and calls of users without a role. The zero value is not ready: see [newGate].
type gate struct {
	now func() time.Time

	mu          sync.Mutex
	connections map[uint32]int
	all         int
	users       map[uint32]*usage
	calls       int
}

// usage is what a user has taken lately.
type usage struct {
	calls, changes bucket
	running        int
}

// bucket holds what may be taken at once and fills up again by one in each interval.
type bucket struct {
	taken float64
	at    time.Time
}

func (b *bucket) settle(now time.Time, interval time.Duration) {
	if b.taken -= float64(now.Sub(b.at)) / float64(interval); b.taken < 0 {
		b.taken = 0
	}
	b.at = now
}

func newGate(now func() time.Time) *gate {
	return &gate{now: now, connections: map[uint32]int{}, users: map[uint32]*usage{}}
}

// strangers is the id under which all are counted who can get nothing but a refusal.
const strangers = 0xffffffff

// connect counts a connection, and reports whether there is room for it.
func (g *gate) connect(id uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.connections[id] >= maxConnections || g.all >= maxUserConnections {
		return false
	}
	g.connections[id]++
	g.all++
	return true
}

func (g *gate) disconnect(id uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all--; g.connections[id] > 1 {
		g.connections[id]--
	} else {
		delete(g.connections, id)
	}
}

// enter counts a call. The error says that it must wait; otherwise leave ends it.
func (g *gate) enter(id uint32, change bool) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	u := g.users[id]
	if u == nil {
		if len(g.users) >= maxUsers {
			g.forget(now)
		}
		if len(g.users) >= maxUsers {
			return nil, errTooMany
		}
		u = &usage{}
		g.users[id] = u
	}
	u.calls.settle(now, callRate)
	u.changes.settle(now, changeRate)
	if u.running >= maxCallerCalls || g.calls >= maxUserCalls || u.calls.taken > callBurst-1 || change && u.changes.taken > changeBurst-1 {
		return nil, errTooMany
	}
	u.calls.taken++
	if change {
		u.changes.taken++
	}
	u.running++
	g.calls++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		u.running--
		g.calls--
	}, nil
}

// forget drops those who have taken nothing lately.
func (g *gate) forget(now time.Time) {
	for id, u := range g.users {
		u.calls.settle(now, callRate)
		u.changes.settle(now, changeRate)
		if u.running == 0 && u.calls.taken == 0 && u.changes.taken == 0 {
			delete(g.users, id)
		}
	}
}

var errTooMany = &Fault{Code: "too_many_requests", Message: "that is too much at once", Hint: "wait a minute, then try again"}

// admitted is a connection whose peer is known.
type admitted struct {
	net.Conn
	credentials credentials
	release     func()
}

// Close ends the connection and gives its place to another.
func (a *admitted) Close() error {
	a.release()
	return a.Conn.Close()
}

// gatedListener asks the kernel who connects, and turns away whoever has too many connections already. It does nothing that could wait:
// everybody else's connection would wait too.
type gatedListener struct {
	net.Listener
	server *Server
}

// Accept returns an [admitted].
func (l gatedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s := l.server
		a := &admitted{Conn: c, credentials: s.credentials(c), release: func() {}}
		if s.access.role(a.credentials) != NoRole {
			return a, nil
		}
		id := a.credentials.uid
		if !a.credentials.known || !s.access.Self.eligible(id) {
			id = strangers
		}
		if !s.gate.connect(id) {
			c.Close()
			continue
		}
		a.release = sync.OnceFunc(func() { s.gate.disconnect(id) })
		return a, nil
	}
}
