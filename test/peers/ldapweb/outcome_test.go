package ldapweb_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// notInGroup is the outcome of a right app password of somebody who is not in the application's group.
const notInGroup = "not in the group"

// staff is a group beside that of the application.
const staff = "staff"

// program is one of those that ask. Its page is ldap-NAME.
type program struct {
	name    string
	service string // of the application that its page has
	group   string // of that
	reader  string
	ways    []string // in which it can be told to ask; the first one is the page's
	answers peers.Answers
	start   func(t *testing.T, page *harness.Page, at place) map[string]way
}

// place is where a program that was started finds the entries.
type place struct {
	addr       string
	secret     string // of the reader
	secretFile string
}

// way is one in which a program asks.
type way struct {
	try      peers.Login
	staff    map[string]peers.Login // the same for who is in the group staff alone, by the names of the ways to say that
	twice    bool                   // it binds twice as the user whom it lets in
	vague    bool                   // see [peers.Peer]
	byMail   peers.Login            // by which the user may type the mail address; nil: none
	notStaff string                 // what who is not in it sees; empty: as with a wrong password
	alias    bool                   // the user may type an alias
	known    func() string          // how it called the user whom it let in last; nil: nobody asks it
}

var programs = []program{apache, squid, freeradius, saslauthd, nextcloud}

// sources are where the entries are: in the store, or in a slapd that was there before.
var sources = []string{"store", "upstream"}

// user is the login of a way. There is one for each, so that its lines are found in the daemon's log, and two more: one in the
// application's group alone, and one who is in staff alone.
func (p *program) user(way, source string) string {
	return strings.Join([]string{p.name, way, source}, "-") + "@example.org"
}

const (
	other    = "other-"
	outsider = "outsider-"
)

func mail(login string) string { return "mail-of-" + login }

// TestOutcomes runs the suite, and then what these programs can tell beyond it: who is in a group, and by which names users go.
//
// It would catch: a program that does not find what it looks for, a group that lets the wrong people in, a membership that outlives its end,
// a mail address that is not a login, an outage that ends a program or is told as a wrong password by one that knows better.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)

	var people []peers.Person
	groups := map[string]*peers.Group{staff: {Name: staff}}
	for _, p := range programs {
		groups[p.group] = &peers.Group{Name: p.group}
		for _, way := range p.ways {
			login := p.user(way, "upstream")
			for _, l := range []string{login, other + login, outsider + login} {
				people = append(people, peers.Person{Login: l, Attributes: []string{"mail=" + mail(l)}})
			}
			groups[p.group].Members = append(groups[p.group].Members, login, other+login)
			groups[staff].Members = append(groups[staff].Members, login, outsider+login)
		}
	}
	var list []peers.Group
	for _, g := range groups {
		list = append(list, *g)
	}
	upstream, _ := peers.Upstream(t, people, list...)

	places := map[string]map[string]*place{}
	for _, p := range programs {
		page := harness.ReadPage(t, "ldap-"+p.name)
		places[p.name] = map[string]*place{}
		for _, source := range sources {
			at := &place{addr: peers.Addr(t)}
			places[p.name][source] = at
			d.Sections += "\n" + page.Snippet(t, "valetkeyd.toml", "127.0.0.1:3389", at.addr)
			if source == "upstream" {
				d.Sections += upstream
			}
		}
	}
	d.Start(t)

	d.Must(t, "group", "add", staff)
	all, ways := map[string]*peers.Peer{}, map[string]way{}
	for _, p := range programs {
		page := harness.ReadPage(t, "ldap-"+p.name)
		d.Must(t, "group", "add", p.group)
		d.Must(t, "reader", "add", p.reader)
		secret := d.Create(t, p.reader, "search", "--service", p.service)
		file := filepath.Join(harness.Dir(t), "reader")
		// Squid's helper reads it as a user of its own.
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, source := range sources {
			at := places[p.name][source]
			at.secret, at.secretFile = secret, file
			for name, w := range p.start(t, page, *at) {
				login := p.user(name, source)
				peer := &peers.Peer{
					Page: page, Try: w.try, User: login, Proto: "ldap", Service: p.service, Address: "127.0.0.1", Vague: w.vague, Twice: w.twice,
					Variant: source != "store", Account: []string{"--attribute", "mail=" + mail(login)}, Answers: p.answers,
				}
				if source == "store" {
					peer.Groups = []string{p.group, staff}
				}
				all[p.name+" "+name+" "+source], ways[login] = peer, w
			}
		}
	}
	peers.Run(t, cluster, d, all)
	if t.Failed() {
		return
	}
	for _, p := range programs {
		for _, source := range sources {
			for _, name := range p.ways {
				t.Run(strings.Join([]string{"more", p.name, name, source}, " "), func(t *testing.T) {
					t.Parallel()
					p.more(t, d, all[p.name+" "+name+" "+source], ways[p.user(name, source)], source)
				})
			}
		}
	}
}

// more asks what the suite does not.
func (p *program) more(t *testing.T, d *harness.Daemon, peer *peers.Peer, w way, source string) {
	login, secret := peer.User, peer.Secret[peers.Accepted]
	want := func(what string, ask peers.Login, login, secret, answer string) {
		t.Helper()
		if got := ask(t, login, secret); got != answer {
			t.Errorf("%s: the user sees %q, want %q", what, got, answer)
		}
	}
	secrets := map[string]string{login: secret}
	for _, prefix := range []string{other, outsider} {
		d.Must(t, "account", "add", prefix+login, "--attribute", "mail="+mail(prefix+login))
		secrets[prefix+login] = d.Create(t, prefix+login, "phone")
	}
	if source == "store" {
		d.Must(t, "group", "add-member", p.group, other+login)
		d.Must(t, "group", "add-member", staff, outsider+login)
	}

	want("in the group", w.try, other+login, secrets[other+login], peer.Yes)
	mark := d.Log().Mark()
	want(notInGroup, w.try, outsider+login, secrets[outsider+login], peer.No)
	peer.Page.WantOutcome(t, notInGroup, peer.No)
	if p.name != nextcloud.name { // its filter has the group too
		peers.WantAuth(t, d, mark, outsider+login, 1, harness.AuthLine{"result": "fail", "reason": "group_not_allowed"})
	}
	for _, name := range slices.Sorted(maps.Keys(w.staff)) {
		want(name+", in staff", w.staff[name], login, secret, peer.Yes)
		want(name+", not in staff", w.staff[name], other+login, secrets[other+login], cmp.Or(w.notStaff, peer.No))
		want(name+", in staff with a wrong password", w.staff[name], login, peers.NeverIssued, peer.No)
	}
	if w.byMail != nil {
		want("by the mail address", w.byMail, mail(login), secret, peer.Yes)
		if w.known != nil && w.known() != login {
			t.Errorf("by the mail address: the user is called %q, want %q", w.known(), login)
		}
		want("by somebody else's mail address", w.byMail, mail(other+login), secret, peer.No)
	}
	if w.alias && source == "store" {
		want("by an alias", w.try, peers.Alias+login, secret, peer.Yes)
	}
	for _, login := range []string{"*", login + ")(uid=*", "nobody", login + ",ou=people", login + `\`, "", " ", "uid=" + login} {
		want(fmt.Sprintf("as %q", login), w.try, login, secret, peer.No)
	}
	want("without a password", w.try, login, "", peer.No)
	if source == "store" {
		d.Must(t, "group", "remove-member", p.group, login)
		want("no longer in the group", w.try, login, secret, peer.No)
	}
	want("in the group still", w.try, other+login, secrets[other+login], peer.Yes)
}
