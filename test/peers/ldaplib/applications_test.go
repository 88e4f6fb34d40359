package ldaplib_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// programs are all that ask.
var programs = []*program{&portal, &gitea, &grafana, &jellyfin, &proxmox, &gitlab, &jenkins, &keycloak, &authelia}

// answers are what an application is told, whose requests are replayed and which finds its users as a reader.
var answers = peers.Answers{Yes: "0", No: "49", Later: "80", Gone: "no connection"}

// noEntry is what it takes from a search that finds nobody.
const noEntry = "no entry"

var errNoEntry = errors.New(noEntry)

// replay makes a way of an application's requests. They return the first error that would end the application's login.
func replay(t *testing.T, w way, requests func(login, password string) error) way {
	if w.answers == (peers.Answers{}) {
		w.answers = answers
	}
	w.try = func(_ *testing.T, login, password string) string { return told(requests(login, password)) }
	return w
}

// told is what the application is told last.
func told(err error) string {
	var e *ldap.Error
	switch {
	case err == nil:
		return "0"
	case !errors.As(err, &e):
		return err.Error()
	case e.ResultCode < ldap.ErrorNetwork:
		return strconv.Itoa(int(e.ResultCode))
	case e.ResultCode == ldap.ErrorNetwork && strings.Contains(e.Error(), "timed out"):
		return "no answer"
	case e.ResultCode == ldap.ErrorNetwork:
		return "no connection"
	}
	return "not sent: " + e.Error()
}

// dial connects. limit is that of an answer; zero: the application has none.
func dial(addr string, limit time.Duration) (*ldap.Conn, error) {
	c, err := ldap.DialURL("ldap://"+addr, ldap.DialWithDialer(&net.Dialer{Timeout: harness.Patience}))
	if err == nil && limit > 0 {
		c.SetTimeout(limit)
	}
	return c, err
}

// bound connects and binds.
func bound(addr string, limit time.Duration, dn, password string) (*ldap.Conn, error) {
	c, err := dial(addr, limit)
	if err != nil {
		return nil, err
	}
	if err := c.Bind(dn, password); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// query is a search as the applications send them.
func query(base string, scope int, filter string, attributes ...string) *ldap.SearchRequest {
	return ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, attributes, nil)
}

// one is the entry that a search finds; no other number of them will do.
func one(c *ldap.Conn, q *ldap.SearchRequest) (*ldap.Entry, error) {
	found, err := c.Search(q)
	switch {
	case err != nil:
		return nil, err
	case len(found.Entries) != 1:
		return nil, errNoEntry
	}
	return found.Entries[0], nil
}

// names are the values of an attribute in what a search finds, in order.
func names(t *testing.T, c *ldap.Conn, q *ldap.SearchRequest, attribute string) (all []string) {
	t.Helper()
	found, err := c.Search(q)
	if err != nil {
		t.Fatalf("search %s: %v", q.Filter, err)
	}
	for _, e := range found.Entries {
		all = append(all, e.GetAttributeValue(attribute))
	}
	slices.Sort(all)
	return all
}

// settings are those of a page's snippet. All of them must be used, or named as having no part in what is replayed.
type settings struct {
	t      *testing.T
	name   string
	values map[string]string
	used   map[string]bool
}

func newSettings(t *testing.T, name string, values map[string]string) *settings {
	return &settings{t, name, values, map[string]bool{}}
}

func (s *settings) get(key string) string {
	s.t.Helper()
	value, ok := s.values[key]
	if !ok {
		s.t.Fatalf("snippet %q has no %q: %v", s.name, key, s.values)
	}
	s.used[key] = true
	return value
}

// addr is where the application connects to.
func (s *settings) addr(host, port string) string { return net.JoinHostPort(s.get(host), s.get(port)) }

// milliseconds is a limit.
func (s *settings) milliseconds(key string) time.Duration {
	s.t.Helper()
	n, err := strconv.Atoi(s.get(key))
	if err != nil {
		s.t.Fatalf("snippet %q: %s: %v", s.name, key, err)
	}
	return time.Duration(n) * time.Millisecond
}

// is wants these values: pairs of what only an application itself would act on, and without which the replay is not what it sends.
func (s *settings) is(pairs ...string) {
	s.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := s.get(pairs[i]); got != pairs[i+1] {
			s.t.Errorf("snippet %q has %s=%q, want %q", s.name, pairs[i], got, pairs[i+1])
		}
	}
}

// done wants nothing left but what has no part in the requests.
func (s *settings) done(others ...string) {
	s.t.Helper()
	for key := range s.values {
		if !s.used[key] && !slices.Contains(others, key) {
			s.t.Errorf("snippet %q has %q, which nothing here looks at", s.name, key)
		}
	}
}

// matched makes settings of what a pattern finds in a text, names and values.
func matched(text, pattern string) map[string]string {
	values := map[string]string{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		values[m[1]] = m[2]
	}
	return values
}

// yaml makes settings of lines of YAML, of the kind that our pages have: names by their indentation, joined by dots, and values on the same
// line. An item of a list counts as a part of what it belongs to.
func yaml(text string) map[string]string {
	type level struct {
		indent int
		name   string
	}
	var path []level
	values := map[string]string{}
	for line := range strings.Lines(text) {
		trimmed := strings.TrimLeft(line, " ")
		indent := len(line) - len(trimmed)
		if item, ok := strings.CutPrefix(trimmed, "- "); ok {
			trimmed, indent = item, indent+2
		}
		name, value, ok := strings.Cut(strings.TrimSpace(trimmed), ":")
		if !ok {
			continue
		}
		for len(path) > 0 && path[len(path)-1].indent >= indent {
			path = path[:len(path)-1]
		}
		path = append(path, level{indent, name})
		if value = strings.Trim(strings.TrimSpace(value), `'"`); value == "" {
			continue
		}
		var full []string
		for _, l := range path {
			full = append(full, l.name)
		}
		key := strings.Join(full, ".")
		if strings.HasSuffix(key, "environmentProperties.value") {
			key = values[strings.TrimSuffix(key, "value")+"name"]
			delete(values, strings.Join(full[:len(full)-1], ".")+".name")
		}
		values[key] = value
	}
	return values
}

// port is that of a place.
func port(at place) string {
	_, p, _ := strings.Cut(at.addr, ":")
	return p
}

// gitea binds as the reader, finds the user, binds as the user, and goes on asking as the user, whose own entry and groups must be readable
// (services/auth/source/ldap/source_search.go). It takes a list of attributes that may have an empty name.
var gitea = program{name: "gitea", app: "git", reader: "gitea", ways: []string{"reader", "simple"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		const flags = `--([a-z-]+) '([^']*)'`
		groups := newSettings(t, "groups", matched(page.Snippet(t, "groups"), `(?m)^(\S.*?) {2,}(.*)$`))
		groupBase, member := groups.get("Group Search Base DN"), groups.get("Group Attribute Containing List Of Users")
		groupFilter := groups.get("Verify group membership in LDAP")
		groups.is("User Attribute Listed In Group", "dn")
		groups.done()
		ways := map[string]way{}
		for name, snippet := range map[string]string{"reader": "gitea", "simple": "gitea simple"} {
			substitutions := []string{"3389", port(at)}
			if name == "reader" {
				substitutions = append(substitutions, "SECRET", at.secret)
			}
			s := newSettings(t, snippet, matched(page.Snippet(t, snippet, substitutions...), flags))
			addr, filter := s.addr("host", "port"), s.get("user-filter")
			attributes := []string{s.get("username-attribute"), s.get("firstname-attribute"), "", s.get("surname-attribute"), s.get("email-attribute"), "dn"}
			s.is("security-protocol", "unencrypted")
			base, adminFilter, dn := "", "", ""
			if name == "reader" {
				base, adminFilter = s.get("user-search-base"), s.get("admin-filter")
				dn = s.get("bind-dn")
			} else {
				dn = s.get("user-dn")
			}
			bindPassword := s.values["bind-password"]
			s.done("name", "bind-password", "page-size")
			login := func(login, password string) error {
				bad := "\x00()*\\"
				if name == "simple" {
					bad += ",='\"#+;<>"
				}
				if password == "" || strings.ContainsAny(login, bad) {
					return errNoEntry
				}
				c, err := dial(addr, 0)
				if err != nil {
					return err
				}
				defer c.Close()
				who, user := fmt.Sprintf(filter, login), ""
				if name == "reader" {
					if err := c.Bind(dn, bindPassword); err != nil {
						return err
					}
					e, err := one(c, query(base, ldap.ScopeWholeSubtree, who))
					if err != nil {
						return err
					}
					user = e.DN
				} else {
					user = fmt.Sprintf(dn, login)
				}
				if err := c.Bind(user, password); err != nil {
					return err
				}
				e, err := one(c, query(user, ldap.ScopeWholeSubtree, who, attributes...))
				if err != nil {
					return err
				}
				if got := e.GetAttributeValue(attributes[0]); got == "" || !strings.HasPrefix(user, "uid="+got+",") && name == "reader" {
					return fmt.Errorf("the name is %q", got)
				}
				if adminFilter != "" {
					if _, err := c.Search(query(user, ldap.ScopeWholeSubtree, adminFilter, attributes[1])); err != nil {
						return err
					}
				}
				found, err := c.Search(query(groupBase, ldap.ScopeWholeSubtree, fmt.Sprintf("(&(%s)(%s=%s))", groupFilter, member, ldap.EscapeFilter(e.DN))))
				if err != nil {
					return err
				}
				if len(found.Entries) == 0 {
					return errors.New("no group")
				}
				return nil
			}
			w := way{vague: name == "reader", mail: name == "reader"}
			if name == "reader" {
				w.ask = func(t *testing.T, _, login, _ string) {
					c, err := bound(addr, 0, dn, bindPassword)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					all, err := c.SearchWithPaging(query(base, ldap.ScopeWholeSubtree, fmt.Sprintf(filter, "*"), attributes...), 2)
					if err != nil || !slices.ContainsFunc(all.Entries, func(e *ldap.Entry) bool { return e.GetAttributeValue(attributes[0]) == login }) {
						t.Errorf("the synchronisation does not find %s: %v", login, err)
					}
					admins := names(t, c, query(base, ldap.ScopeWholeSubtree, adminFilter, "uid"), "uid")
					if !slices.Contains(admins, login) || slices.Contains(admins, other+login) {
						t.Errorf("the admins are %v, want %s and not %s", admins, login, other+login)
					}
				}
			}
			ways[name] = replay(t, w, login)
		}
		return ways
	}}

// grafana looks for the user with a filter of one alternative, wants a group that is mapped to a role, and then binds as the user; in its
// single mode it binds first and asks as the user (pkg/services/ldap/ldap.go).
var grafana = program{name: "grafana", app: "grafana", reader: "grafana", ways: []string{"reader", "single"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		ways := map[string]way{}
		for name, snippet := range map[string]string{"reader": "ldap.toml", "single": "ldap.toml single"} {
			substitutions := []string{"3389", port(at)}
			if name == "reader" {
				substitutions = append(substitutions, "$__env{LDAP_PASSWORD}", at.secret)
			}
			var conf struct {
				Servers []struct {
					Host          string            `toml:"host"`
					Port          int               `toml:"port"`
					UseSSL        bool              `toml:"use_ssl"`
					BindDN        string            `toml:"bind_dn"`
					BindPassword  string            `toml:"bind_password"`
					Timeout       int               `toml:"timeout"`
					SearchFilter  string            `toml:"search_filter"`
					SearchBaseDNs []string          `toml:"search_base_dns"`
					Attributes    map[string]string `toml:"attributes"`
					Mappings      []struct {
						GroupDN string `toml:"group_dn"`
						Role    string `toml:"org_role"`
					} `toml:"group_mappings"`
				} `toml:"servers"`
			}
			meta, err := toml.Decode(page.Snippet(t, snippet, substitutions...), &conf)
			if err != nil || len(meta.Undecoded()) > 0 || len(conf.Servers) != 1 || conf.Servers[0].UseSSL || conf.Servers[0].Timeout < 1 {
				t.Fatalf("snippet %q: %+v, unknown %v: %v", snippet, conf, meta.Undecoded(), err)
			}
			s := conf.Servers[0]
			addr := net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
			login := func(login, password string) error {
				c, err := dial(addr, 0)
				if err != nil {
					return err
				}
				defer c.Close()
				switch {
				case s.BindPassword != "":
					err = c.Bind(s.BindDN, s.BindPassword)
				case strings.Contains(s.BindDN, "%s"):
					err = c.Bind(fmt.Sprintf(s.BindDN, login), password)
				default:
					err = c.UnauthenticatedBind(s.BindDN)
				}
				if err != nil {
					return err
				}
				var attributes []string
				for _, key := range []string{"username", "surname", "email", "name", "member_of"} {
					attributes = append(attributes, s.Attributes[key])
				}
				var user *ldap.Entry
				for _, base := range s.SearchBaseDNs {
					who := "(|" + strings.ReplaceAll(s.SearchFilter, "%s", ldap.EscapeFilter(login)) + ")"
					found, err := c.Search(query(base, ldap.ScopeWholeSubtree, who, attributes...))
					if err != nil {
						return err
					}
					if user == nil && len(found.Entries) > 0 {
						user = found.Entries[0]
					}
				}
				if user == nil {
					return errNoEntry
				}
				roles := ""
				for _, m := range s.Mappings {
					for _, group := range user.GetAttributeValues(s.Attributes["member_of"]) {
						if strings.EqualFold(group, m.GroupDN) {
							roles += m.Role + " "
						}
					}
				}
				if roles == "" {
					return errors.New("no mapping")
				}
				if isAdmin := !strings.HasPrefix(user.GetAttributeValue("uid"), other); strings.HasPrefix(roles, "Admin ") != isAdmin {
					return fmt.Errorf("the roles of %s are %s", user.DN, roles)
				}
				if s.BindPassword != "" {
					return c.Bind(user.DN, password)
				}
				return nil
			}
			w := way{vague: name == "reader", mail: name == "reader"}
			if name == "reader" {
				w.outside = "no mapping"
			} else {
				w.answers = answers
			}
			ways[name] = replay(t, w, login)
		}
		return ways
	}}

// jellyfin reads all that a filter without a name finds, compares the names itself, binds as the user over another connection, and asks as
// the user whether it is an admin (LDAPAuthenticationProviderPlugin.cs).
var jellyfin = program{name: "jellyfin", app: "media", reader: "jellyfin", ways: []string{"reader"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		const snippet = "LDAP-Auth.xml"
		text := page.Snippet(t, snippet, "3389", port(at), "SECRET", at.secret)
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("snippet %q: %v", snippet, err)
			}
		}
		s := newSettings(t, snippet, matched(text, `<(\w+)>([^<]+)</`))
		addr := s.addr("LdapServer", "LdapPort")
		reader, secret, base := s.get("LdapBindUser"), s.get("LdapBindPassword"), s.get("LdapBaseDn")
		filter, adminFilter := s.get("LdapSearchFilter"), s.get("LdapAdminFilter")
		attributes := strings.Split(strings.ReplaceAll(s.get("LdapSearchAttributes"), " ", ""), ",")
		s.is("UseSsl", "false", "UseStartTls", "false", "LdapUsernameAttribute", "uid", "AllowPassChange", "false", "CreateUsersFromLdap", "true")
		s.done()
		login := func(login, password string) error {
			c, err := bound(addr, 0, reader, secret)
			if err != nil {
				return err
			}
			defer c.Close()
			found, err := c.Search(query(base, ldap.ScopeWholeSubtree, filter, attributes...))
			if err != nil {
				return err
			}
			i := slices.IndexFunc(found.Entries, func(e *ldap.Entry) bool {
				return slices.ContainsFunc(attributes, func(a string) bool { return slices.Contains(e.GetAttributeValues(a), login) })
			})
			if i < 0 {
				return errNoEntry
			}
			user := found.Entries[i]
			u, err := dial(addr, 0)
			if err != nil {
				return err
			}
			defer u.Close()
			if password == "" {
				err = u.UnauthenticatedBind(user.DN)
			} else {
				err = u.Bind(user.DN, password)
			}
			if err != nil {
				return err
			}
			admin, err := u.Search(query(user.DN, ldap.ScopeBaseObject, adminFilter, attributes...))
			if err != nil {
				return err
			}
			if isAdmin := !strings.HasPrefix(user.GetAttributeValue("uid"), other); (len(admin.Entries) == 1) != isAdmin {
				return fmt.Errorf("%s is an admin: %t", user.DN, !isAdmin)
			}
			return nil
		}
		return map[string]way{"reader": replay(t, way{vague: true, mail: true, outside: noEntry}, login)}
	}}

// proxmox does not escape the name in its filter, and binds as the first entry that is found (PVE/LDAP.pm, PVE/Auth/LDAP.pm).
var proxmox = program{name: "proxmox", app: "proxmox", reader: "proxmox", ways: []string{"reader"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		s := newSettings(t, "domains.cfg", matched(page.Snippet(t, "domains.cfg", "3389", port(at)), `(?m)^\t(\S+) (.*)$`))
		addr, base, attribute, reader := s.addr("server1", "port"), s.get("base_dn"), s.get("user_attr"), s.get("bind_dn")
		filter, groupBase, groupFilter, groupName := s.get("filter"), s.get("group_dn"), s.get("group_filter"), s.get("group_name_attr")
		classes, groupClasses := s.get("user_classes"), s.get("group_classes")
		attributes := []string{attribute, "enable", "expire", "firstname", "lastname", "email", "comment", "keys"}
		for pair := range strings.SplitSeq(s.get("sync_attributes"), ",") {
			_, theirs, _ := strings.Cut(pair, "=")
			attributes = append(attributes, theirs)
		}
		s.is("mode", "ldap")
		s.done()
		login := func(login, password string) error {
			c, err := bound(addr, 0, reader, at.secret)
			if err != nil {
				return err
			}
			defer c.Close()
			found, err := c.Search(query(base, ldap.ScopeWholeSubtree, "("+attribute+"="+login+")", "dn"))
			if err != nil {
				return err
			}
			if len(found.Entries) == 0 {
				return errNoEntry
			}
			return c.Bind(found.Entries[0].DN, password)
		}
		w := way{vague: true, wild: true, ask: func(t *testing.T, source, login, _ string) {
			c, err := bound(addr, 0, reader, at.secret)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			present := "(&(|(" + strings.Join(attributes, "=*)(") + "=*))(|(objectclass=" + classes + ")))"
			users, err := c.SearchWithPaging(query(base, ldap.ScopeWholeSubtree, "(&"+filter+present+")", append(attributes, "memberOf")...), 900)
			if err != nil {
				t.Fatal(err)
			}
			known := map[string]string{}
			for _, e := range users.Entries {
				known[strings.ToLower(e.DN)] = e.GetAttributeValue(attribute)
			}
			groups, err := c.SearchWithPaging(query(groupBase, ldap.ScopeWholeSubtree, "(&"+groupFilter+"(|(objectclass="+groupClasses+")))",
				"member", "uniqueMember", groupName), 100)
			if err != nil || len(groups.Entries) != 1 {
				t.Fatalf("the synchronisation finds %d groups, %v, want one", len(groups.Entries), err)
			}
			var members []string
			for _, dn := range groups.Entries[0].GetAttributeValues("member") {
				members = append(members, known[strings.ToLower(dn)])
			}
			for _, want := range []string{login, other + login, checked(4), checked(5)} {
				if !slices.Contains(members, want) {
					t.Errorf("the synchronisation has the members %v, want %s among them", members, want)
				}
			}
			if slices.Contains(members, "") {
				t.Errorf("the synchronisation has a member that is no user: %v, of %v", groups.Entries[0].GetAttributeValues("member"), known)
			}
			// It goes away in the middle of a search: a page of size 0.
			control := ldap.NewControlPaging(1)
			q := query(base, ldap.ScopeWholeSubtree, "(objectClass=inetOrgPerson)", "uid")
			q.Controls = []ldap.Control{control}
			first, err := c.Search(q)
			if err != nil {
				t.Fatal(err)
			}
			control.SetCookie(ldap.FindControl(first.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging).Cookie)
			control.PagingSize = 0
			if last, err := c.Search(q); err != nil || len(last.Entries) != 0 {
				t.Errorf("a page of size 0: %d entries, %v", len(last.Entries), err)
			}
		}}
		return map[string]way{"reader": replay(t, w, login)}
	}}

// gitlab binds as the reader and searches whatever came of it, with a root DSE read before and a paged result asked for, binds as the first
// entry, and never says that it leaves; then it looks at the user's entry as the reader (net-ldap's bind_as, omniauth-ldap).
var gitlab = program{name: "gitlab", app: "gitlab", reader: "gitlab", ways: []string{"reader"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		const main = "main."
		s := newSettings(t, "gitlab.rb", yaml(page.Snippet(t, "gitlab.rb", "3389", port(at), "SECRET", at.secret)))
		addr, reader, secret := s.addr(main+"host", main+"port"), s.get(main+"bind_dn"), s.get(main+"password")
		base, uid, filter := s.get(main+"base"), s.get(main+"uid"), s.get(main+"user_filter")
		attributes := []string{s.get(main + "attributes.username"), s.get(main + "attributes.email"), s.get(main + "attributes.name"),
			s.get(main + "attributes.first_name"), s.get(main + "attributes.last_name")}
		s.is(main+"encryption", "plain", main+"active_directory", "false", main+"allow_username_or_email_login", "false")
		s.done(main+"label", main+"timeout")
		login := func(login, password string) error {
			c, err := dial(addr, 0)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.Bind(reader, secret)
			if _, err := c.Search(query("", ldap.ScopeBaseObject, "(objectClass=*)", "altServer", "namingContexts", "supportedCapabilities",
				"supportedControl", "supportedExtension", "supportedFeatures", "supportedLdapVersion", "supportedSASLMechanisms")); err != nil {
				return err
			}
			q := query(base, ldap.ScopeWholeSubtree, "(&("+uid+"="+ldap.EscapeFilter(login)+")"+filter+")")
			q.SizeLimit, q.Controls = 1, []ldap.Control{ldap.NewControlPaging(126)}
			e, err := one(c, q)
			if err != nil {
				return err
			}
			if password == "" {
				err = c.UnauthenticatedBind(e.DN)
			} else {
				err = c.Bind(e.DN, password)
			}
			if err != nil {
				return err
			}
			r, err := bound(addr, 0, reader, secret)
			if err != nil {
				return err
			}
			defer r.Close()
			person, err := one(r, query(e.DN, ldap.ScopeBaseObject, filter, append(attributes, "dn")...))
			if err != nil {
				return err
			}
			if person.GetAttributeValue(attributes[0]) != login || person.GetAttributeValue(attributes[1]) == "" {
				return fmt.Errorf("the user is %v", person.Attributes)
			}
			return nil
		}
		expected := answers
		expected.Later = "50"
		return map[string]way{"reader": replay(t, way{answers: expected, vague: true, searched: "80", outside: noEntry}, login)}
	}}

// manageDsaIT is what JNDI sends with every search.
func manageDsaIT(q *ldap.SearchRequest) *ldap.SearchRequest {
	q.DerefAliases, q.Controls = ldap.DerefAlways, append(q.Controls, ldap.NewControlManageDsaIT(false))
	return q
}

// jenkins finds the user by a filter, binds as the user over another connection and reads the entry there, and looks for the groups as the
// reader (Spring Security's BindAuthenticator, the LDAP plugin).
var jenkins = program{name: "jenkins", app: "jenkins", reader: "jenkins", ways: []string{"reader"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		const realm, server = "jenkins.securityRealm.", "jenkins.securityRealm.ldap.configurations."
		s := newSettings(t, "jenkins.yaml", yaml(page.Snippet(t, "jenkins.yaml", "127.0.0.1:3389", at.addr, "${LDAP_PASSWORD}", at.secret)))
		addr := strings.TrimPrefix(s.get(server+"server"), "ldap://")
		root, reader, secret := s.get(server+"rootDN"), s.get(server+"managerDN"), s.get(server+"managerPasswordSecret")
		people, groups := s.get(server+"userSearchBase")+","+root, s.get(server+"groupSearchBase")+","+root
		who, member, named := s.get(server+"userSearch"), s.get(server+"groupMembershipStrategy.fromGroupSearch.filter"), s.get(server+"groupSearchFilter")
		limit := s.milliseconds("com.sun.jndi.ldap.read.timeout")
		s.milliseconds("com.sun.jndi.ldap.connect.timeout")
		shown := []string{s.get(server + "displayNameAttributeName"), s.get(server + "mailAddressAttributeName")}
		s.done(realm+"userIdStrategy", realm+"groupIdStrategy", realm+"ldap.userIdStrategy", realm+"ldap.groupIdStrategy")
		login := func(login, password string) error {
			if password == "" {
				return errNoEntry // Spring Security refuses it
			}
			c, err := bound(addr, limit, reader, secret)
			if err != nil {
				return err
			}
			defer c.Close()
			e, err := one(c, manageDsaIT(query(people, ldap.ScopeWholeSubtree, strings.ReplaceAll(who, "{0}", ldap.EscapeFilter(login)))))
			if err != nil {
				return err
			}
			u, err := bound(addr, limit, e.DN, password)
			if err != nil {
				return err
			}
			defer u.Close()
			own, err := one(u, manageDsaIT(query(e.DN, ldap.ScopeBaseObject, "(objectClass=*)")))
			if err != nil {
				return err
			}
			for _, name := range shown {
				if own.GetAttributeValue(name) == "" {
					return fmt.Errorf("the user has no %s", name)
				}
			}
			for _, filter := range []string{strings.ReplaceAll(member, "{0}", ldap.EscapeFilter(e.DN)),
				"(|(member=" + ldap.EscapeFilter(e.DN) + ")(uniqueMember=" + ldap.EscapeFilter(e.DN) + ")(memberUid=" + ldap.EscapeFilter(login) + "))"} {
				found, err := c.Search(manageDsaIT(query(groups, ldap.ScopeWholeSubtree, filter, "cn")))
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(found.Entries, func(g *ldap.Entry) bool { return g.GetAttributeValue("cn") == "jenkins-users" }) {
					return fmt.Errorf("the filter %s does not find the user's group", filter)
				}
			}
			_, err = one(c, manageDsaIT(query(groups, ldap.ScopeWholeSubtree, strings.ReplaceAll(named, "{0}", "jenkins-users"), "cn")))
			return err
		}
		expected := answers
		expected.Hung = "no answer"
		return map[string]way{"reader": replay(t, way{answers: expected, vague: true, mail: true}, login)}
	}}

// keycloak finds the user among the children of one entry, and binds over a connection of its own; it synchronises in pages
// (LDAPOperationManager.java).
var keycloak = program{name: "keycloak", app: "sso", reader: "keycloak", ways: []string{"reader"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		s := newSettings(t, "kcadm", matched(page.Snippet(t, "kcadm", "127.0.0.1:3389", at.addr, "SECRET", at.secret), `'config\.(\w+)=\["([^"]*)"\]'`))
		addr := strings.TrimPrefix(s.get("connectionUrl"), "ldap://")
		reader, secret, base := s.get("bindDn"), s.get("bindCredential"), s.get("usersDn")
		filter, class, uuid, uid := s.get("customUserSearchFilter"), s.get("userObjectClasses"), s.get("uuidLDAPAttribute"), s.get("usernameLDAPAttribute")
		limit := s.milliseconds("readTimeout")
		s.milliseconds("connectionTimeout")
		size, err := strconv.Atoi(s.get("batchSizeForSync"))
		if err != nil {
			t.Fatal(err)
		}
		s.is("authType", "simple", "editMode", "READ_ONLY", "searchScope", "1", "pagination", "true", "rdnLDAPAttribute", "uid", "enabled", "true")
		s.done("vendor", "importEnabled", "cachePolicy")
		attributes := []string{uid, "cn", "sn", "mail", "createTimestamp", "modifyTimestamp", uuid, "objectclass"}
		login := func(login, password string) error {
			c, err := bound(addr, limit, reader, secret)
			if err != nil {
				return err
			}
			defer c.Close()
			who := fmt.Sprintf("(&(%s=%s)%s(objectclass=%s))", uid, ldap.EscapeFilter(login), filter, class)
			e, err := one(c, manageDsaIT(query(base, ldap.ScopeSingleLevel, who, attributes...)))
			if err != nil {
				return err
			}
			id := e.GetAttributeValue(uuid)
			again, err := one(c, manageDsaIT(query(base, ldap.ScopeSingleLevel, fmt.Sprintf("(&(%s=%s)%s)", uuid, id, filter), attributes...)))
			if err != nil || again.DN != e.DN {
				return fmt.Errorf("the user's %s %q does not find the entry: %w", uuid, id, err)
			}
			if password == "" {
				return errNoEntry // it refuses that itself
			}
			u, err := bound(addr, limit, e.DN, password)
			if err != nil {
				return err
			}
			u.Close()
			return nil
		}
		expected := answers
		expected.Hung = "no answer"
		w := way{answers: expected, vague: true, outside: noEntry, ask: func(t *testing.T, _, login, _ string) {
			c, err := bound(addr, limit, reader, secret)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, size := range []int{size, 1} {
				found := 0
				paging := ldap.NewControlPaging(uint32(size))
				for {
					q := manageDsaIT(query(base, ldap.ScopeSingleLevel, "(&"+filter+"(objectclass="+class+"))", attributes...))
					q.Controls = append(q.Controls, paging)
					part, err := c.Search(q)
					if err != nil {
						t.Fatal(err)
					}
					found += len(part.Entries)
					answer, ok := ldap.FindControl(part.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
					if !ok {
						t.Fatal("a page has no control")
					}
					if len(answer.Cookie) == 0 {
						break
					}
					paging.SetCookie(answer.Cookie)
				}
				if found != 4 { // two checked ones, the user and the other
					t.Errorf("the synchronisation in pages of %d finds %d users, want 4", size, found)
				}
			}
		}}
		return map[string]way{"reader": replay(t, w, login)}
	}}

// authelia reads the root DSE when it starts, finds the user with a limit of one entry, and binds over another connection; an empty password
// makes that an unauthenticated bind, whose success it would take for a login (ldap_user_provider.go). It compares the names of
// attributes to the letter.
var authelia = program{name: "authelia", app: "authelia", reader: "authelia", ways: []string{"reader"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		const backend, server = "authentication_backend.", "authentication_backend.ldap."
		s := newSettings(t, "configuration.yml", yaml(page.Snippet(t, "configuration.yml", "127.0.0.1:3389", at.addr)))
		addr := strings.TrimPrefix(s.get(server+"address"), "ldap://")
		base, reader := s.get(server+"base_dn"), s.get(server+"user")
		people, groups := s.get(server+"additional_users_dn")+","+base, s.get(server+"additional_groups_dn")+","+base
		uid, display, mail := s.get(server+"attributes.username"), s.get(server+"attributes.display_name"), s.get(server+"attributes.mail")
		group := s.get(server + "attributes.group_name")
		replaced := strings.NewReplacer("{username_attribute}", uid, "{mail_attribute}", mail, "{display_name_attribute}", display)
		who, member := replaced.Replace(s.get(server+"users_filter")), s.get(server+"groups_filter")
		s.is(backend+"password_reset.disable", "true", server+"implementation", "custom", server+"start_tls", "false")
		s.done(backend+"refresh_interval", server+"timeout")
		connect := func(dn, password string) (*ldap.Conn, error) {
			c, err := dial(addr, 0)
			if err != nil {
				return nil, err
			}
			if password == "" {
				err = c.UnauthenticatedBind(dn)
			} else {
				err = c.Bind(dn, password)
			}
			if err != nil {
				c.Close()
				return nil, err
			}
			return c, nil
		}
		profile := func(c *ldap.Conn, login string) (*ldap.Entry, error) {
			q := query(people, ldap.ScopeWholeSubtree, strings.ReplaceAll(who, "{input}", ldap.EscapeFilter(login)), uid, mail, display, "memberOf")
			q.SizeLimit = 1
			e, err := one(c, q)
			if err != nil {
				return nil, err
			}
			for _, name := range []string{uid, mail} {
				if !slices.ContainsFunc(e.Attributes, func(a *ldap.EntryAttribute) bool { return a.Name == name && len(a.Values) == 1 }) {
					return nil, fmt.Errorf("the entry has no %q", name)
				}
			}
			return e, nil
		}
		login := func(login, password string) error {
			c, err := connect(reader, at.secret)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := one(c, query("", ldap.ScopeBaseObject, "(objectClass=*)", "supportedExtension", "supportedControl")); err != nil {
				return err
			}
			e, err := profile(c, login)
			if err != nil {
				return err
			}
			u, err := connect(e.DN, password)
			if err != nil {
				return err
			}
			u.Close()
			details, err := connect(reader, at.secret)
			if err != nil {
				return err
			}
			defer details.Close()
			if e, err = profile(details, login); err != nil {
				return err
			}
			found, err := details.Search(query(groups, ldap.ScopeWholeSubtree, strings.ReplaceAll(member, "{dn}", ldap.EscapeFilter(e.DN)), group))
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(found.Entries, func(g *ldap.Entry) bool { return g.GetAttributeValue(group) == "authelia-users" }) {
				return errors.New("the user's group is not found")
			}
			return nil
		}
		w := way{vague: true, mail: true, ask: func(t *testing.T, _, user, _ string) {
			if got := told(login(user, "")); got != "53" {
				t.Errorf("an unauthenticated bind is told %q, want 53", got)
			}
		}}
		return map[string]way{"reader": replay(t, w, login)}
	}}
