package ldapunix_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// What the pages' tables have beside the outcomes of the suite.
const (
	notInGroup = "not in the group"
	notInStaff = "not in staff"
	disabled   = "account disabled"
)

// staff is a group beside that of the application.
const staff = "staff"

// pageAddr is what most pages have.
const pageAddr = "127.0.0.1:3389"

// client is a program that asks. Its page is ldap-NAME.
type client struct {
	name       string // its reader's too
	service    string // of the page's application
	group      string // of that
	listen     string // the address on the page
	answers    peers.Answers
	notInStaff string   // what who is not in staff is told
	disabled   []string // what somebody whose account is disabled may be told
	attributes func(login, source string, id int) []string
	start      func(t *testing.T, page *harness.Page, at place) way
}

// place is where a client finds the entries.
type place struct {
	addr   string
	secret string // of the reader
	source string
	ca     *harness.Authority
}

// way is a client that was started.
type way struct {
	try, staff  peers.Login // staff lets in only who is in that group too
	addr        string      // of a server
	home        func(login string) string
	whenStopped func(t *testing.T, login string)
	more        func(t *testing.T, p *peers.Peer, id int) // nothing is to change for others
}

var clients = []*client{&nslcd, &sssd, &dovecot}

// sources are where the entries are: in the store, or in a slapd that was there before.
var sources = []string{"store", "upstream"}

// user is the login of a client. There is one for each, so that its lines are found in the daemon's log, and two more: one in the
// application's group alone, and one who is in none but staff.
func (c *client) user(source string) string { return c.name + "-" + source }

const (
	other    = "other-"
	outsider = "outsider-"
)

func mail(login string) string { return "mail-of-" + login + "@example.org" }

// TestOutcomes runs the suite, and then what these clients can tell beyond it.
//
// It would catch: a user or group that the system does not find or finds otherwise, a group that lets the wrong people in, a membership or an
// account that outlives its end, an outage told as a wrong password by a client that knows better, a client that stays away after one.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	ca := harness.NewAuthority(t)
	certificate := ca.Issue(t, "ldap", 60*24*time.Hour)

	ids := map[string]int{}
	var people []peers.Person
	// RFC 2307 lets no entry be both: the groups of the applications are the system's.
	groups := []peers.Group{{Name: staff}, {Name: files, GID: groupID}, {Name: dovecot.group, GID: groupID + 1}}
	for _, c := range clients {
		for _, source := range sources {
			for _, prefix := range []string{"", other, outsider} {
				login := prefix + c.user(source)
				ids[login] = 6000 + len(ids)
				if source == "upstream" {
					people = append(people, peers.Person{Login: login, Attributes: c.attributes(login, source, ids[login])})
					for i := range groups {
						if groups[i].Name == c.group && prefix != outsider || groups[i].Name == staff && prefix != other {
							groups[i].Members = append(groups[i].Members, login)
						}
					}
				}
			}
		}
	}
	upstream, _ := peers.Upstream(t, people, groups...)

	pages, addrs := map[*client]*harness.Page{}, map[string]string{}
	for _, c := range clients {
		pages[c] = harness.ReadPage(t, "ldap-"+c.name)
		for _, source := range sources {
			login := c.user(source)
			addrs[login] = peers.Addr(t)
			substitutions := []string{c.listen, addrs[login]}
			if c == &sssd {
				substitutions = append(substitutions, certPath, certificate.Cert, keyPath, certificate.Key)
			}
			d.Sections += "\n" + pages[c].Snippet(t, "valetkeyd.toml", substitutions...)
			if source == "upstream" {
				d.Sections += upstream
			}
		}
	}
	d.Start(t)

	for _, g := range groups {
		flags := []string{"group", "add", g.Name}
		if g.GID != 0 {
			flags = append(flags, "--attribute", number("gidNumber", g.GID))
		}
		d.Must(t, flags...)
	}
	all, ways := map[string]*peers.Peer{}, map[string]way{}
	for _, c := range clients {
		d.Must(t, "reader", "add", c.name)
		secret := d.Create(t, c.name, "search", "--service", c.service)
		for _, source := range sources {
			login := c.user(source)
			w := c.start(t, pages[c], place{addrs[login], secret, source, ca})
			p := &peers.Peer{
				Page: pages[c], Try: w.try, Addr: w.addr, User: login, Proto: "ldap", Service: c.service, Address: "127.0.0.1", Vague: true,
				Variant: source != "store", Account: flags(c.attributes(login, source, ids[login])), Answers: c.answers,
			}
			if source == "store" {
				p.Groups = []string{c.group, staff}
			}
			if w.home != nil {
				p.Home = w.home(login)
			}
			if w.whenStopped != nil {
				p.WhenStopped = func(t *testing.T) { w.whenStopped(t, login) }
			}
			all[login], ways[login] = p, w
		}
	}
	peers.Run(t, cluster, d, all)
	if t.Failed() {
		return
	}
	// While nobody asks: the connections that were idle are closed without a notice, and the next login must not be told of it.
	t.Run("restart", func(t *testing.T) {
		for _, round := range []string{"before", "after"} {
			for login, w := range ways {
				p := all[login]
				if got := w.try(t, login, p.Secret[peers.Accepted]); got != p.Yes {
					t.Errorf("%s: the first login %s the restart: the user sees %q, want %q", login, round, got, p.Yes)
				}
			}
			if round == "before" {
				d.Stop(t)
				d.Start(t)
			}
		}
	})
	for _, c := range clients {
		for _, source := range sources {
			t.Run("more "+c.user(source), func(t *testing.T) {
				t.Parallel()
				login := c.user(source)
				ways[login].more(t, all[login], ids[login])
				c.more(t, d, all[login], ways[login], source, ids)
			})
		}
	}
}

// flags are those of `valetkey account add`.
func flags(attributes []string) (all []string) {
	for _, a := range attributes {
		all = append(all, "--attribute", a)
	}
	return all
}

// more asks who is let in by which group, and until when.
func (c *client) more(t *testing.T, d *harness.Daemon, p *peers.Peer, w way, source string, ids map[string]int) {
	login, secret := p.User, p.Secret[peers.Accepted]
	want := func(what string, ask peers.Login, login, secret, answer string) {
		t.Helper()
		if got := ask(t, login, secret); got != answer {
			t.Errorf("%s: the user sees %q, want %q", what, got, answer)
		}
		if slices.Contains([]string{notInGroup, notInStaff}, what) {
			p.Page.WantOutcome(t, what, answer)
		}
	}
	secrets := map[string]string{}
	for _, prefix := range []string{other, outsider} {
		login := prefix + login
		d.Must(t, append([]string{"account", "add", login}, flags(c.attributes(login, source, ids[login]))...)...)
		secrets[prefix] = d.Create(t, login, "phone")
	}
	if source == "store" {
		d.Must(t, "group", "add-member", c.group, other+login)
		d.Must(t, "group", "add-member", staff, outsider+login)
	}

	want("in the group", w.try, other+login, secrets[other], p.Yes)
	mark := d.Log().Mark()
	want(notInGroup, w.try, outsider+login, secrets[outsider], p.No)
	peers.WantAuth(t, d, mark, outsider+login, 1, harness.AuthLine{"result": "fail", "reason": "group_not_allowed"})
	want("in staff", w.staff, login, secret, p.Yes)
	want("in staff, with a wrong password", w.staff, login, peers.NeverIssued, p.No)
	want(notInStaff, w.staff, other+login, secrets[other], c.notInStaff)
	if source != "store" {
		return
	}
	d.Must(t, "group", "remove-member", staff, login)
	want("no longer in staff", w.staff, login, secret, c.notInStaff)
	d.Must(t, "group", "remove-member", c.group, login)
	want("no longer in the group", w.try, login, secret, p.No)
	d.Must(t, "account", "disable", other+login)
	if got := w.try(t, other+login, secrets[other]); !slices.Contains(c.disabled, got) {
		t.Errorf("%s: the user sees %q, want one of %q", disabled, got, c.disabled)
	}
	for _, answer := range c.disabled {
		p.Page.WantOutcome(t, disabled, answer)
	}
	d.Must(t, "account", "enable", other+login)
	// sssd that has looked for the account meanwhile keeps for 15 s that there was none.
	harness.WaitFor(t, "a login of the account that is enabled again", func() bool { return w.try(t, other+login, secrets[other]) == p.Yes })
}

// lastLine is the last one that a program printed.
func lastLine(printed string) string {
	printed = strings.TrimRight(printed, "\n")
	return printed[strings.LastIndexByte(printed, '\n')+1:]
}
