package ldaplib_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// notInGroup is the outcome of a right app password of somebody who is not in the application's group.
const notInGroup = "not in the group"

// program is one that asks, or the libraries together. Its page is ldap-NAME.
type program struct {
	name   string
	app    string // the application that its page has, which is the service too
	reader string
	ways   []string // in which it asks
	start  func(t *testing.T, page *harness.Page, at place) map[string]way
}

// group is that of the application.
func (p *program) group() string { return p.app + "-users" }

// members are in the group beside the users, for those who look at the others too.
func (p *program) members() []string {
	if p == &portal {
		return []string{checked(1), checked(2)}
	}
	return []string{checked(4), checked(5)}
}

// user is the login of a way. There is one for each, so that its lines are found in the daemon's log, and two more: one in the
// application's group too, and one who is in none.
func (p *program) user(way string) string {
	return p.name + "-" + strings.ToLower(strings.ReplaceAll(way, "::", ""))
}

// place is where a program finds the entries, and what it needs for that.
type place struct {
	addr       string
	secret     string // of the reader
	secretFile string
}

// way is one in which a program asks.
type way struct {
	try      peers.Login
	answers  peers.Answers
	vague    bool   // see [peers.Peer]: it finds its users as a reader
	searched string // what is told in an outage that the reader's search is the first to meet; empty: the same as ever
	outside  string // what somebody is told who is not in the group; empty: as for a wrong password
	wild     bool   // it asks for the name as it was typed, so that a star finds somebody
	mail     bool   // the user may type the mail address
	// ask asks what the suite does not, of the entries of a source and as a user who is in the group; nil: nothing more.
	ask func(t *testing.T, source, login, secret string)
}

const (
	other    = "other-"
	outsider = "outsider-"
)

func mail(login string) string { return login + "@mail.example.org" }

// staff is a group beside those of the applications: of the admins, and of some that the checks of a library look for.
const staff = "staff"

// checked is one of those that the libraries look for.
func checked(n int) string { return fmt.Sprintf("check-%d", n) }

// How many they are. net-ldap asks for pages of 126.
var checkedIn = map[string]int{"store": 5, "upstream": 131}

// scene is a daemon with a listener for each page, and what asks it.
type scene struct {
	source  string
	cluster *harness.Cluster
	daemon  *harness.Daemon
	slapd   *harness.UpstreamDirectory // nil: the entries are in the store
	peers   map[string]*peers.Peer     // by [program.user]
	ways    map[string]way
}

func newScene(t *testing.T, source string) *scene {
	t.Helper()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	s := &scene{source: source, cluster: cluster, daemon: harness.NewDaemon(t, url), peers: map[string]*peers.Peer{}, ways: map[string]way{}}
	upstream := ""
	if source == "upstream" {
		upstream = s.upstream(t)
	}
	places := map[*program]*place{}
	for _, p := range programs {
		places[p] = &place{addr: peers.Addr(t)}
		s.daemon.Sections += "\n" + harness.ReadPage(t, "ldap-"+p.name).Snippet(t, "valetkeyd.toml", "127.0.0.1:3389", places[p].addr) + upstream
	}
	s.daemon.Start(t)
	if source == "store" {
		s.store(t)
	}
	for _, p := range programs {
		page, at := harness.ReadPage(t, "ldap-"+p.name), places[p]
		s.daemon.Must(t, "reader", "add", p.reader)
		at.secret, at.secretFile = s.daemon.Create(t, p.reader, "server", "--service", p.app), filepath.Join(harness.Dir(t), "reader")
		if err := os.WriteFile(at.secretFile, []byte(at.secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, w := range p.start(t, page, *at) {
			login := p.user(name)
			s.ways[login] = w
			s.peers[login] = &peers.Peer{
				Page: page, Try: w.try, User: login, Proto: "ldap", Service: p.app, Address: "127.0.0.1", Vague: w.vague,
				Account: []string{"--attribute", "mail=" + mail(login)}, Groups: []string{p.group(), staff}, Answers: w.answers,
			}
		}
	}
	return s
}

// upstream starts a slapd with everybody.
func (s *scene) upstream(t *testing.T) (section string) {
	t.Helper()
	var people []peers.Person
	person := func(login string) {
		people = append(people, peers.Person{Login: login, Attributes: []string{"mail=" + mail(login)}})
	}
	for n := range checkedIn[s.source] {
		person(checked(n + 1))
	}
	admins := peers.Group{Name: staff, Members: []string{checked(1), checked(3)}}
	var groups []peers.Group
	for _, p := range programs {
		g := peers.Group{Name: p.group(), Members: p.members()}
		for _, way := range p.ways {
			login := p.user(way)
			person(login)
			person(other + login)
			person(outsider + login)
			g.Members = append(g.Members, login, other+login)
			admins.Members = append(admins.Members, login)
		}
		groups = append(groups, g)
	}
	section, s.slapd = peers.Upstream(t, people, append(groups, admins)...)
	return section
}

// store makes who is there beside the users, and the groups.
func (s *scene) store(t *testing.T) {
	t.Helper()
	for n := range checkedIn[s.source] {
		s.daemon.Must(t, "account", "add", checked(n+1), "--attribute", "mail="+mail(checked(n+1)))
	}
	members := map[string][]string{staff: {checked(1), checked(3)}}
	for _, p := range programs {
		members[p.group()] = p.members()
	}
	for group, logins := range members {
		s.daemon.Must(t, "group", "add", group)
		for _, login := range logins {
			s.daemon.Must(t, "group", "add-member", group, login)
		}
	}
}

// TestOutcomes runs the suite, and then what these programs ask beyond it.
//
// It would catch: a snippet that does not run, one that takes an outage for a wrong password, a program that does not find what it looks for, a
// group that lets the wrong people in, an answer that a library cannot parse.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	s := newScene(t, "store")
	peers.Run(t, s.cluster, s.daemon, s.peers)
	if t.Failed() {
		return
	}
	s.each(t, "more", s.more)
}

// TestUpstream has the entries in a slapd that was there before. Its users get an account with their first app password.
//
// It would catch, beside that: a slapd that is down and is told as a wrong password, an entry of it that a program cannot use.
func TestUpstream(t *testing.T) {
	t.Parallel()
	s := newScene(t, "upstream")
	s.each(t, "app passwords", func(t *testing.T, p *program, peer *peers.Peer, w way) {
		d := s.daemon
		peer.Secret = map[string]string{
			peers.Accepted:     d.Create(t, peer.User, "phone"),
			peers.Wrong:        peers.NeverIssued,
			peers.Revoked:      d.Create(t, peer.User, "lost phone"),
			peers.WrongService: d.Create(t, peer.User, "printer", "--service", "scan"),
		}
		s.want(t, peer, "before it is revoked", peer.User, peer.Secret[peers.Revoked], peer.Yes)
		d.Revoke(t, peer.User, "lost phone")
		for _, outcome := range []string{peers.Accepted, peers.Wrong, peers.Revoked, peers.WrongService} {
			s.want(t, peer, outcome, peer.User, peer.Secret[outcome], peer.Answer(outcome))
		}
		s.more(t, p, peer, w)
	})
	if t.Failed() {
		return
	}
	s.slapd.Stop(t)
	s.each(t, "slapd is down", func(t *testing.T, _ *program, peer *peers.Peer, w way) {
		answer := peer.Later
		if w.searched != "" {
			answer = w.searched
		}
		for _, outcome := range []string{peers.Accepted, peers.Wrong} {
			s.want(t, peer, outcome, peer.User, peer.Secret[outcome], answer)
		}
	})
	s.slapd.Start(t)
	s.each(t, "and works again", func(t *testing.T, _ *program, peer *peers.Peer, _ way) {
		harness.WaitFor(t, "the daemon to have slapd", func() bool { return peer.Try(t, peer.User, peer.Secret[peers.Accepted]) == peer.Yes })
	})
}

// each visits all ways at once.
func (s *scene) each(t *testing.T, phase string, visit func(t *testing.T, p *program, peer *peers.Peer, w way)) {
	t.Run(phase, func(t *testing.T) {
		for _, p := range programs {
			for _, name := range p.ways {
				t.Run(p.user(name), func(t *testing.T) {
					t.Parallel()
					visit(t, p, s.peers[p.user(name)], s.ways[p.user(name)])
				})
			}
		}
	})
}

// want tries once.
func (s *scene) want(t *testing.T, peer *peers.Peer, what, login, secret, answer string) {
	t.Helper()
	if got := peer.Try(t, login, secret); got != answer {
		t.Errorf("%s: the user sees %q, want %q", what, got, answer)
	}
}

// more asks what the suite does not.
func (s *scene) more(t *testing.T, p *program, peer *peers.Peer, w way) {
	d, login, secret := s.daemon, peer.User, peer.Secret[peers.Accepted]
	secrets := map[string]string{}
	for _, prefix := range []string{other, outsider} {
		if s.source == "store" {
			d.Must(t, "account", "add", prefix+login, "--attribute", "mail="+mail(prefix+login))
		}
		secrets[prefix+login] = d.Create(t, prefix+login, "phone")
	}
	if s.source == "store" {
		d.Must(t, "group", "add-member", p.group(), other+login)
	}

	s.want(t, peer, "in the group", other+login, secrets[other+login], peer.Yes)
	outside := peer.No
	if w.outside != "" {
		outside = w.outside
	}
	mark := d.Log().Mark()
	s.want(t, peer, notInGroup, outsider+login, secrets[outsider+login], outside)
	peer.Page.WantOutcome(t, notInGroup, outside)
	if w.outside == "" {
		peers.WantAuth(t, d, mark, outsider+login, 1, harness.AuthLine{"result": "fail", "reason": "group_not_allowed"})
	}
	if w.mail {
		s.want(t, peer, "by the mail address", mail(login), secret, peer.Yes)
		s.want(t, peer, "by somebody else's mail address", mail(other+login), secret, peer.No)
	}
	hostile := []string{"*", login + ")(uid=*", "nobody", login + ",ou=people", login + `\`, "", " ", "uid=" + login, login + "\x00"}
	if !w.wild {
		hostile = append(hostile, login[:len(login)-1]+"*")
	}
	for _, name := range hostile {
		if got := peer.Try(t, name, secret); got == peer.Yes {
			t.Errorf("as %q: the user sees %q", name, got)
		}
	}
	if got := peer.Try(t, login, ""); got == peer.Yes {
		t.Errorf("without a password: the user sees %q", got)
	}
	if w.ask != nil {
		w.ask(t, s.source, login, secret)
	}
	if s.source == "store" {
		for _, group := range []string{p.group(), staff} {
			d.Must(t, "group", "remove-member", group, login)
		}
		s.want(t, peer, "no longer in the group", login, secret, outside)
		s.want(t, peer, "in the group still", other+login, secrets[other+login], peer.Yes)
	}
}
