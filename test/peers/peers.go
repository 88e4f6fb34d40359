// Package peers is the suite that every peer passes: other people's servers, run against the built valetkeyd with the
// configuration that docs/peers tells an admin to paste, word for word. A page that is wrong fails here. The folders below hold
// the peers.
//
// It refuses to know what a front end sends. What the user's own program is told is all that counts, with the reason that
// the operator finds in the log.
//
// The one rule a newcomer would break: to change an expected answer is to change a page, and the other way round. Each peer
// holds both to what it saw.
package peers

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// What the pages call the outcomes, in the first column of their tables.
const (
	Accepted     = "accepted"
	Wrong        = "wrong password"
	Revoked      = "revoked"
	WrongService = "wrong service"
	WrongNetwork = "wrong network"
	RightNetwork = "right network"
	Down         = "Postgres is down"
	Hangs        = "Postgres hangs"
	Slow         = "the daemon is slow"
	Hung         = "the daemon hangs"
	Stopped      = "the daemon is stopped"
)

// slowFor is how long a slow daemon takes.
const slowFor = 3 * time.Second

// longest bounds a user's wait for an answer when Postgres hangs: the daemon's own limit and the peer's politeness.
const longest = 15 * time.Second

// NeverIssued has the shape of an app password.
const NeverIssued = "abcd-efgh-ijkl-mnop"

// prober is a login without an account.
const prober = "prober@example.org"

// Alias begins the second name of every user.
const Alias = "alias-of-"

// Login asks as the user's own program does, and returns what it is told.
type Login func(t *testing.T, login, password string) (answer string)

// Answers are what the user's program is told; see [Peer.Answer].
type Answers struct {
	Yes, No string
	Later   string // Postgres is down, or hangs
	Or      string // in place of Later, as it happens; empty: never
	Gone    string // the daemon is stopped
	Hung    string // the daemon answers nobody; empty: the peer waits for it, however long, and then it is Yes
}

// Peer is a server that asks the daemon, in one way of configuring it.
type Peer struct {
	Page    *harness.Page
	Try     Login
	Addr    string   // of its server, for the tests that ask it more; Run does not look at it
	User    string   // login of an account of its own, by which its lines are found in the daemon's log; set by [Run] if empty
	Proto   string   // front end, in the daemon's log
	Service string   // that it asks for
	Address string   // of the user, in the daemon's log; "-" if it tells none
	Home    string   // where the user's mail must be after a login; empty: none is kept
	Userdb  []string // fields of the account, NAME=VALUE
	Account []string // more of `valetkey account add`: --attribute NAME=VALUE and the like
	Groups  []string // that the account is in; they are there already
	Twice   bool     // a server behind it asks too, once it let the user pass
	Variant bool     // of another peer, which stands for it where one takes long or is the first to notice
	Vague   bool     // in an outage the daemon's log may have none of its attempts, as it does not find who its user is, or several

	Names       func(login string) bool // reports whether the peer knew its user by this name; nil: it does not learn another
	WhenStopped func(t *testing.T)      // called after the login that met no daemon; nil: nothing more to see

	Answers
	Secret map[string]string // by outcome; made by [Run]
}

// Answer is what the user's program is told for an outcome.
func (p *Peer) Answer(outcome string) string {
	switch outcome {
	case Accepted, Slow:
		return p.Yes
	case RightNetwork:
		// What a peer does not pass on cannot be right.
		if p.Address == UserAddress {
			return p.Yes
		}
		return p.No
	case Down, Hangs:
		return p.Later
	case Hung:
		if p.Hung != "" {
			return p.Hung
		}
		return p.Yes
	case Stopped:
		return p.Gone
	}
	return p.No
}

// Main runs the tests of a package of peers, when the programs that they need are there.
func Main(m *testing.M, needed ...harness.Peer) (exitCode int) {
	// The peers are waited for, each for its own politeness; the number of processors has nothing to do with it.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	return harness.Main(m, needed...)
}

// suite is one [Run].
type suite struct {
	cluster *harness.Cluster
	daemon  *harness.Daemon
	peers   map[string]*Peer
}

// Run logs in through every peer in every state of an app password, of Postgres and of the daemon, which runs and knows the peers'
// listeners. It leaves all of them running, with the accounts.
//
// It would catch: a snippet that the peer does not take, a socket that it may not reach, a shared secret that does not get through, an outage
// told as a wrong password (or the other way round), a service or an address that is lost on the way, a userdb field that does not
// arrive, a peer that takes a revoked password from a cache, one that gives up on a slow daemon, one that does not recover.
func Run(t *testing.T, cluster *harness.Cluster, d *harness.Daemon, all map[string]*Peer) {
	s := suite{cluster, d, all}
	for name, p := range all {
		if p.User == "" {
			p.User = notInLogins.ReplaceAllString(strings.ToLower(name), "-") + "@example.org"
		}
	}
	s.each(t, "app passwords", s.appPasswords)
	if t.Failed() {
		return // the rest would only wait for what does not come
	}
	s.each(t, "alias", s.alias)
	t.Run(Down, func(t *testing.T) {
		cluster.Kill(t)
		s.each(t, "all", func(t *testing.T, p *Peer) {
			for _, which := range []string{Accepted, Wrong, Revoked} {
				s.try(t, p, Down, p.Secret[which], harness.AuthLine{"result": "undecided", "count": "no"})
			}
		})
		cluster.Start(t)
		s.again(t)
	})
	t.Run(Hangs, func(t *testing.T) {
		thaw := cluster.Freeze(t)
		s.leading(t, func(t *testing.T, p *Peer) {
			began := time.Now()
			s.try(t, p, Hangs, p.Secret[Accepted], harness.AuthLine{"result": "undecided", "count": "no"})
			if took := time.Since(began); took > longest {
				t.Errorf("the user waited %v for an answer", took)
			}
		})
		thaw()
		s.again(t)
	})
	t.Run(Slow, func(t *testing.T) { s.frozen(t, Slow) })
	t.Run(Hung, func(t *testing.T) { s.frozen(t, Hung) })
	t.Run(Stopped, func(t *testing.T) {
		d.Stop(t)
		s.leading(t, func(t *testing.T, p *Peer) {
			s.try(t, p, Stopped, p.Secret[Accepted], nil)
			if p.WhenStopped != nil {
				p.WhenStopped(t)
			}
		})
		d.Start(t)
		s.again(t)
	})
}

var notInLogins = regexp.MustCompile(`[^a-z0-9]+`)

// each visits all peers at once: what takes long is their politeness. Each has a user of its own.
func (s *suite) each(t *testing.T, phase string, visit func(t *testing.T, p *Peer)) {
	t.Run(phase, func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(s.peers)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				visit(t, s.peers[name])
			})
		}
	})
}

// leading visits those that are no variant of another.
func (s *suite) leading(t *testing.T, visit func(t *testing.T, p *Peer)) {
	s.each(t, "all", func(t *testing.T, p *Peer) {
		if !p.Variant {
			visit(t, p)
		}
	})
}

// try logs in once and wants the answer, on the page too, and the line of the log; none if log is nil.
func (s *suite) try(t *testing.T, p *Peer, outcome, password string, log harness.AuthLine) {
	t.Helper()
	mark := s.daemon.Log().Mark()
	want, or := p.Answer(outcome), ""
	if outcome == Down || outcome == Hangs {
		or = p.Or
	}
	if got := p.Try(t, p.User, password); got != want && (or == "" || got != or) {
		t.Errorf("%s: the user sees %q, want %q", outcome, got, want)
	}
	p.Page.WantOutcome(t, outcome, want)
	if or != "" {
		p.Page.WantOutcome(t, outcome, or)
	}
	if p.Vague && log["result"] == "undecided" {
		log = nil
	}
	if log != nil {
		maps.Copy(log, harness.AuthLine{"proto": p.Proto, "svc": p.Service, "rip": p.Address})
		n := 1
		if p.Twice && log["result"] == "ok" {
			n = 2
		}
		WantAuth(t, s.daemon, mark, p.User, n, log)
	}
}

// again waits until the daemon has Postgres, and wants every peer to work.
func (s *suite) again(t *testing.T) {
	t.Helper()
	client := harness.DovecotClient{Addr: s.daemon.DovecotUnix}
	defer client.Close()
	harness.WaitFor(t, "the daemon to have Postgres", func() bool {
		o, _ := client.Login(prober, NeverIssued)
		return o == harness.Rejected
	})
	s.each(t, "and works again", func(t *testing.T, p *Peer) {
		s.try(t, p, Accepted, p.Secret[Accepted], harness.AuthLine{"result": "ok"})
	})
}

func (s *suite) appPasswords(t *testing.T, p *Peer) {
	d := s.daemon
	account := []string{"account", "add", p.User, "--alias", Alias + p.User}
	for _, field := range p.Userdb {
		account = append(account, "--userdb", field)
	}
	d.Must(t, append(account, p.Account...)...)
	for _, group := range p.Groups {
		d.Must(t, "group", "add-member", group, p.User)
	}
	p.Secret = map[string]string{
		Accepted:     d.Create(t, p.User, "phone"),
		Wrong:        NeverIssued,
		Revoked:      d.Create(t, p.User, "lost phone"),
		WrongService: d.Create(t, p.User, "printer", "--service", "scan"),
		WrongNetwork: d.Create(t, p.User, "office", "--from", "192.0.2.0/24"),
		RightNetwork: d.Create(t, p.User, "this machine", "--from", UserAddress),
	}
	// It has worked, so that a cache would have it.
	s.try(t, p, Accepted, p.Secret[Revoked], harness.AuthLine{"result": "ok", "label": "lost phone"})
	d.Revoke(t, p.User, "lost phone")
	s.try(t, p, Revoked, p.Secret[Revoked], harness.AuthLine{"result": "fail", "reason": "revoked"}) // nobody has been asked about since
	for _, outcome := range []struct{ name, reason string }{
		{Accepted, "accepted"}, {Wrong, "no_match"}, {Revoked, "revoked"}, {WrongService, "service_not_allowed"},
		{WrongNetwork, "network_not_allowed"}, {RightNetwork, "accepted"},
	} {
		log := harness.AuthLine{"result": "fail", "reason": outcome.reason}
		if outcome.name == RightNetwork && p.Address != UserAddress {
			log["reason"] = "network_not_allowed"
		}
		if log["reason"] == "accepted" {
			log["result"] = "ok"
		}
		s.try(t, p, outcome.name, p.Secret[outcome.name], log)
	}
	if p.Home != "" {
		if _, err := os.Stat(filepath.Join(p.Home, "Maildir")); err != nil {
			t.Errorf("the user's mail is not at home: %v", err)
		}
	}
}

func (s *suite) alias(t *testing.T, p *Peer) {
	if p.Names == nil {
		return
	}
	if got := p.Try(t, Alias+p.User, p.Secret[Accepted]); got != p.Yes {
		t.Errorf("the user sees %q, want %q", got, p.Yes)
	}
	if !p.Names(p.User) || p.Names(Alias+p.User) {
		t.Error("the peer knows its user by the alias, want the canonical login")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(p.Home), Alias+p.User)); p.Home != "" && err == nil {
		t.Error("the alias has a home of its own")
	}
}

// frozen makes the daemon answer nobody for slowFor, or until every peer that gives up has done so.
func (s *suite) frozen(t *testing.T, outcome string) {
	thaw := s.daemon.Freeze(t)
	given := make(chan string, len(s.peers))
	go func() {
		defer thaw()
		if outcome == Slow {
			<-time.After(slowFor)
			return
		}
		limit := time.After(2 * harness.Patience)
		for _, p := range s.peers {
			if p.Variant || p.Hung == "" {
				continue
			}
			select {
			case <-given:
			case <-limit:
				return
			}
		}
		<-time.After(slowFor) // the others are to wait for longer than those that gave up
	}()
	s.leading(t, func(t *testing.T, p *Peer) {
		s.try(t, p, outcome, p.Secret[Accepted], nil)
		if outcome == Hung && p.Hung != "" {
			if !s.daemon.Frozen() {
				t.Error("it answered only after the daemon went on")
			}
			given <- p.User
		}
	})
	// What peers gave up on comes into the log now, so that the lines of these logins are not counted.
	s.each(t, "and works again", func(t *testing.T, p *Peer) { s.try(t, p, Accepted, p.Secret[Accepted], nil) })
}

// WantAuth wants n lines of an attempt of this user after mark, each with these values.
func WantAuth(t *testing.T, d *harness.Daemon, mark int, user string, n int, want harness.AuthLine) {
	t.Helper()
	harness.Poll(5*time.Second, func() bool { return len(attempts(d, mark, user)) >= n })
	lines := attempts(d, mark, user)
	if len(lines) != n {
		t.Errorf("log has %d lines of an attempt of %s, want %d: %v", len(lines), user, n, lines)
	}
	for _, line := range lines {
		for key, value := range want {
			if got, ok := line[key]; !ok || got != value {
				t.Errorf("log line has %s=%q, want %q; the line: %v", key, got, value, line)
			}
		}
	}
}

// attempts are the lines of this user after mark.
func attempts(d *harness.Daemon, mark int, user string) []harness.AuthLine {
	return slices.DeleteFunc(d.AuthLines(mark), func(a harness.AuthLine) bool { return a["user"] != user })
}

// Addr is a free host:port of this machine.
func Addr(t *testing.T) string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
