package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/docs"
	"github.com/valetkey/valetkey/internal/admin"
)

// each visits every way of every page.
func each(t *testing.T, visit func(t *testing.T, page docs.Page, w way)) {
	for _, page := range docs.Peers() {
		for _, w := range peers[page.Name] {
			t.Run(strings.TrimSpace(page.Name+" "+w.name), func(t *testing.T) { visit(t, page, w) })
		}
	}
}

// example is the listener of a way's page.
func example(t *testing.T, page docs.Page, w way) admin.Listener {
	t.Helper()
	s, ok := page.Snippet(w.parts[0].snippet)
	if !ok {
		t.Fatalf("%s has no snippet %q", page.Name, w.parts[0].snippet)
	}
	l, err := exampleListener(s.Text)
	if err != nil {
		t.Fatalf("exampleListener = %v\n%s", err, s.Text)
	}
	return l
}

// A new page, or a new snippet of an old one, needs a place in the table.
func TestEverySnippetHasAPlace(t *testing.T) {
	pages := map[string]docs.Page{}
	for _, page := range docs.Peers() {
		pages[page.Name] = page
		for _, s := range page.Snippets {
			if !slices.ContainsFunc(peers[page.Name], func(w way) bool {
				return slices.ContainsFunc(w.parts, func(p part) bool { return p.snippet == s.Name })
			}) {
				t.Errorf("docs/peers/%s.md: the snippet %q is in no way of peer.go: say there where it goes", page.Name, s.Name)
			}
		}
	}
	for name, ways := range peers {
		for _, w := range ways {
			if len(ways) > 1 && w.name == "" {
				t.Errorf("%s has several ways, and one without a name", name)
			}
			if w.parts[0].place != daemonFile {
				t.Errorf("%s %s: the first part is not the daemon's", name, w.name)
			}
			for _, p := range w.parts {
				if _, ok := pages[name].Snippet(p.snippet); !ok {
					t.Errorf("docs/peers/%s.md has no snippet %q, which peer.go places", name, p.snippet)
				}
				if p.place == "" && p.where == "" || p.place != "" && !filepath.IsAbs(p.place) {
					t.Errorf("%s, %q: nobody can tell where it goes (%q, %q)", name, p.snippet, p.place, p.where)
				}
			}
		}
	}
}

// With the page's own values the text is the page's, word for word: without a daemon, and with one that listens as on the page.
func TestSnippetsAreThePages(t *testing.T) {
	each(t, func(t *testing.T, page docs.Page, w way) {
		l := example(t, page, w)
		l.Name = "it[1]"
		for name, tc := range map[string]struct {
			status      admin.Status
			unreachable error
		}{
			"no daemon":     {admin.Status{}, errors.New("no daemon")},
			"no listener":   {admin.Status{}, nil},
			"page's daemon": {admin.Status{Listeners: []admin.Listener{l}}, nil},
		} {
			got, err := snippetOptions{all: true}.snippets(page, w, tc.status, tc.unreachable)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(got.Files) != len(w.parts) {
				t.Fatalf("%s: %d files, want %d", name, len(got.Files), len(w.parts))
			}
			for i, p := range w.parts {
				if want, _ := page.Snippet(p.snippet); got.Files[i].Text != want.Text {
					t.Errorf("%s: %s (-page +printed):\n%s", name, p.snippet, cmp.Diff(want.Text, got.Files[i].Text))
				}
			}
			found := strings.HasPrefix(got.Files[0].Where, "the daemon has this already, as it[1]")
			if want := name == "page's daemon"; found != want {
				t.Errorf("%s: first part: %q", name, got.Files[0].Where)
			}
		}
	})
}

// elsewhere is the page's listener with other values wherever a site may have its own.
func elsewhere(l admin.Listener, w way) admin.Listener {
	l.Name = "it[1]"
	switch network, _ := split(l.Address); {
	case w.fixed:
	case network == "tcp":
		l.Address = "tcp:127.0.0.9:7777"
	case w.chroot != "":
		l.Address = "unix:" + w.chroot + "/public/own"
	default:
		l.Address = "unix:/srv/sockets/own"
	}
	if l.BaseDN != "" {
		l.BaseDN = "dc=corp,dc=test"
	}
	if l.Endpoints != nil {
		l.Endpoints = maps.Clone(l.Endpoints)
	}
	for name, e := range l.Endpoints {
		e.SecretFile, e.UserHeader = "/srv/secrets/own", "X-Own-User"
		if e.SecretHeader != "" {
			e.SecretHeader = "X-Own-Key"
		}
		if e.AddressHeader != "" {
			e.AddressHeader = "X-Own-Address"
		}
		if e.ClientID != "" {
			e.ClientID = "own"
		}
		if e.Backends != nil {
			e.Backends = map[string]string{"imap": "192.0.2.7:1143", "pop3": "192.0.2.7:1110", "smtp": "192.0.2.7:1025"}
		}
		l.Endpoints[name] = e
	}
	return l
}

// Nothing of the page's own is left where the site has other values, whatever page comes.
func TestNothingOfThePagesIsLeft(t *testing.T) {
	each(t, func(t *testing.T, page docs.Page, w way) {
		from := example(t, page, w)
		to := elsewhere(from, w)
		o := snippetOptions{all: true}
		text := ""
		for _, p := range w.parts {
			s, _ := page.Snippet(p.snippet)
			text += s.Text
		}
		if strings.Contains(text, pageDomain) || strings.Contains(text, pageBase) {
			o.domain = "corp.test"
		}
		if strings.Contains(text, pageUser) {
			o.user = "mail"
		}
		if strings.Contains(text, pageHome) {
			o.mailHome = "/srv/mail"
		}
		got, err := o.snippets(page, w, admin.Status{Listeners: []admin.Listener{to}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, at := split(from.Address)
		left := []string{pageDomain, pageBase, pageUser, "client_id = dovecot\n"}
		if !w.fixed {
			left = append(left, at)
		}
		if w.chroot != "" {
			left = append(left, strings.TrimPrefix(at, w.chroot+"/"))
		}
		for _, e := range from.Endpoints {
			left = append(left, e.SecretFile, e.SecretHeader, e.AddressHeader, nginxVariable("Remote-User"), "copy_headers Remote-User", "request_header -Remote-User")
			for _, b := range e.Backends {
				left = append(left, b, "port = "+b[strings.IndexByte(b, ':')+1:])
			}
		}
		for _, f := range got.Files {
			for _, old := range left {
				if old != "" && strings.Contains(f.Text, old) {
					t.Errorf("%s has %q still:\n%s", f.Name, old, f.Text)
				}
			}
		}
		// What the daemon has is read back from its part.
		back, err := exampleListener(got.Files[0].Text)
		if err != nil {
			t.Fatalf("%v\n%s", err, got.Files[0].Text)
		}
		back.Name = to.Name
		ignore := cmp.FilterPath(func(p cmp.Path) bool { // not in every page's snippet
			return slices.Contains([]string{"ClientID", "SecretHeader", "UserHeader"}, p.Last().String()[1:])
		}, cmp.Ignore())
		if diff := cmp.Diff(to, back, ignore); diff != "" {
			t.Errorf("the daemon's part (-daemon +printed):\n%s", diff)
		}
	})
}

// What takes the place of the page's values, where it is not the value itself.
func TestFilling(t *testing.T) {
	unix := func(frontEnd, path, mode, owner, group string) admin.Listener {
		return admin.Listener{Name: frontEnd + "[1]", FrontEnd: frontEnd, Address: "unix:" + path, Mode: mode, Owner: owner, Group: group}
	}
	tcp := func(frontEnd, at string) admin.Listener {
		return admin.Listener{Name: frontEnd + "[1]", FrontEnd: frontEnd, Address: "tcp:" + at}
	}
	ldap := func(at, base, service string) admin.Listener {
		l := tcp("ldap", at)
		l.BaseDN, l.Service = base, service
		return l
	}
	http := func(at, name string, e admin.Endpoint) admin.Listener {
		l := tcp("http", at)
		l.Endpoints = map[string]admin.Endpoint{name: e}
		return l
	}
	for _, tc := range []struct {
		name     string
		given    string // page and way
		options  snippetOptions
		listener admin.Listener
		file     string
		want     []string // lines of the file
		note     string
	}{
		{"below the queue directory", "postfix", snippetOptions{}, unix("dovecot", "/var/spool/postfix/valetkey/auth", "0660", "postfix", "postfix"),
			"main.cf", []string{"smtpd_sasl_path = valetkey/auth"}, ""},
		{"outside of it", "postfix", snippetOptions{}, unix("dovecot", "/run/valetkey/postfix", "0666", "", ""),
			"main.cf", []string{"smtpd_sasl_path = /run/valetkey/postfix"}, "must not be chrooted"},
		{"outside of it, not shut in", "postfix", snippetOptions{}, unix("dovecot", "/run/valetkey/postfix", "0660", "", "postfix"),
			"master.cf", []string{"submission inet n - n - - smtpd", "  -o smtpd_sasl_service=submission"}, ""},
		{"beside it", "postfix", snippetOptions{}, unix("dovecot", "/var/spool/postfix-out/private/valetkey", "0666", "", ""),
			"main.cf", []string{"smtpd_sasl_path = /var/spool/postfix-out/private/valetkey"}, ""},
		{"a port", "postfix", snippetOptions{}, tcp("dovecot", "127.0.0.1:12345"),
			"main.cf", []string{"smtpd_sasl_path = inet:127.0.0.1:12345"}, ""},
		{"a port, shut in all the same", "postfix", snippetOptions{}, tcp("dovecot", "127.0.0.1:12345"),
			"master.cf", []string{"submission inet n - y - - smtpd"}, ""},
		{"a port of all addresses", "postfix", snippetOptions{}, tcp("dovecot", "0.0.0.0:12345"),
			"main.cf", []string{"smtpd_sasl_path = inet:127.0.0.1:12345"}, ""},
		{"the same of IPv6", "postfix", snippetOptions{}, tcp("dovecot", "[::]:12345"),
			"main.cf", []string{"smtpd_sasl_path = inet:[::1]:12345"}, ""},
		{"the daemon's part of a port", "postfix", snippetOptions{all: true}, tcp("dovecot", "127.0.0.1:12345"),
			"valetkeyd.toml", []string{"[[dovecot]]", `listen = "127.0.0.1:12345"`}, ""},
		{"Cyrus, below", "postfix-cyrus", snippetOptions{}, unix("saslauthd", "/var/spool/postfix/mux", "0660", "postfix", ""),
			"sasl/smtpd.conf", []string{"saslauthd_path: /mux"}, ""},
		{"Cyrus, outside", "postfix-cyrus", snippetOptions{}, unix("saslauthd", "/run/saslauthd/mux", "0666", "", ""),
			"sasl/smtpd.conf", []string{"saslauthd_path: /run/saslauthd/mux"}, "must not be chrooted"},
		{"Cyrus, domain", "postfix-cyrus", snippetOptions{domain: "example.com"}, unix("saslauthd", "/run/saslauthd/mux", "0666", "", ""),
			"master.cf domain", []string{"  -o smtpd_sasl_local_domain=example.com"}, ""},
		{"Exim", "exim dovecot", snippetOptions{}, unix("dovecot", "/run/valetkey/exim2", "0660", "", "Debian-exim"),
			"authenticators dovecot", []string{"  server_socket = /run/valetkey/exim2"}, ""},
		{"Exim's saslauthd, set by Exim", "exim saslauthd", snippetOptions{}, unix("saslauthd", "/run/valetkey/exim", "0660", "", "Debian-exim"),
			"valetkeyd.toml saslauthd", []string{`listen = "unix:/run/saslauthd/mux"`}, "is not where the peer looks"},
		{"saslauthd", "saslauthd", snippetOptions{domain: "example.com"}, unix("saslauthd", "/run/own", "0660", "", "sasl"),
			"command", []string{"testsaslauthd -f /run/own -s imap -r example.com -u alice -p abcd-efgh-ijkl-mnop"}, ""},
		{"slapd", "slapd-sasl", snippetOptions{domain: "mail.example.com"}, unix("saslauthd", "/run/own", "0660", "", "openldap"),
			"entry.ldif", []string{"dn: uid=alice,ou=people,dc=mail,dc=example,dc=com", "userPassword: {SASL}alice@mail.example.com"}, ""},
		{"LDAP", "ldap", snippetOptions{}, ldap("127.0.0.1:389", "o=Big Corp,c=DE", "wiki"),
			"settings", []string{"server    ldap://127.0.0.1:389", "user DN   uid=LOGIN,ou=people,o=Big Corp,c=DE"}, ""},
		{"Dovecot 2.3, grant", "dovecot-2.3 grant", snippetOptions{user: "mail", mailHome: "/srv/mail"},
			http("127.0.0.1:80", "dovecot_grant", admin.Endpoint{SecretFile: "/srv/s", ClientID: "in"}),
			"valetkey-oauth2.conf.ext", []string{"grant_url = http://127.0.0.1:80/dovecot/grant", "client_id = in", "client_secret = SECRET",
				"pass_attrs = user=%{oauth2:login} userdb_uid=%{oauth2:userdb_uid:mail} userdb_gid=%{oauth2:userdb_gid:mail} userdb_home=%{oauth2:userdb_home} " +
					"userdb_quota_rule=*:bytes=%{oauth2:userdb_quota:0}"}, "put the first line of /srv/s in place of SECRET"},
		{"Dovecot 2.3, checkpassword without lookups", "dovecot-2.3 checkpassword", snippetOptions{}, unix("checkpassword", "/run/cp", "0660", "", "dovecot"),
			"dovecot.conf checkpassword", []string{"  args = /usr/lib/valetkey/valetkey-checkpassword -socket /run/cp"}, "checkpassword[1] allows no lookups"},
		{"the same, the daemon's part", "dovecot-2.3 checkpassword", snippetOptions{}, unix("checkpassword", "/run/cp", "0660", "", "dovecot"),
			"valetkeyd.toml checkpassword", []string{"[[checkpassword]]\nlisten = \"unix:/run/cp\"\nmode = \"0660\"\ngroup = \"dovecot\""}, ""},
		{"a domain, and a base DN that says another", "ldap", snippetOptions{domain: "example.com"}, ldap("127.0.0.1:389", "dc=corp,dc=test", "ldap"),
			"settings", []string{"user DN   uid=LOGIN,ou=people,dc=corp,dc=test"}, ""},
		{"Dovecot 2.3, LDAP", "dovecot-2.3 ldap", snippetOptions{}, ldap("127.0.0.1:390", "dc=corp,dc=test", "imap"),
			"valetkey-ldap.conf.ext", []string{"uris = ldap://127.0.0.1:390", "auth_bind_userdn = uid=%u,ou=people,dc=corp,dc=test"}, ""},
		{"Dovecot 2.3, LDAP of another service", "dovecot-2.3 ldap", snippetOptions{}, ldap("127.0.0.1:390", "dc=corp,dc=test", "wiki"),
			"valetkeyd.toml ldap", []string{`listen = "127.0.0.1:3390"`, `base_dn = "dc=corp,dc=test"`, `service = "imap"`}, `is for the service "wiki"`},
		{"Dovecot 2.4, homes", "dovecot-2.4 grant", snippetOptions{user: "mail", mailHome: "/srv/mail"},
			http("[::1]:80", "dovecot_grant", admin.Endpoint{SecretFile: "/srv/s", ClientID: "dovecot"}),
			"dovecot.conf grant", []string{"    grant_url = http://[::1]:80/dovecot/grant", "    tokeninfo_url = http://[::1]:80/dovecot/unused",
				`  userdb_home = %{oauth2:userdb_home | default(oauth2:login) | regexp('^([^/]+)$', '/srv/mail/\\1')}`,
				"  userdb_uid = %{oauth2:userdb_uid | default('mail')}"}, ""},
		{"nginx, header", "nginx-mail", snippetOptions{}, http("127.0.0.1:80", "nginx_mail",
			admin.Endpoint{SecretFile: "/srv/s", SecretHeader: "X-Own", Backends: map[string]string{"imap": "[2001:db8::7]:143"}}),
			"nginx.conf", []string{"    auth_http http://127.0.0.1:80/nginx/mail;", "    auth_http_header X-Own SECRET;"}, "http[1] has no pop3 server"},
		{"nginx, servers behind", "nginx-mail", snippetOptions{}, http("127.0.0.1:80", "nginx_mail",
			admin.Endpoint{SecretFile: "/srv/s", SecretHeader: "X-Own", Backends: map[string]string{"imap": "[2001:db8::7]:143"}}),
			"dovecot.conf", []string{"    address = 2001:db8::7", "    port = 143"}, ""},
		{"HTTP Basic", "http-basic nginx", snippetOptions{domain: "example.com"}, http("127.0.0.1:80", "basic",
			admin.Endpoint{SecretFile: "/srv/s", SecretHeader: "X-Own", AddressHeader: "X-Client", UserHeader: "X-User"}),
			"nginx.conf", []string{"    server 127.0.0.1:80;", "        proxy_set_header X-Own SECRET;", "        proxy_set_header X-Client $remote_addr;",
				"        auth_request_set $valetkey_user $upstream_http_x_user;", "    server_name dav.example.com;"}, ""},
		{"HTTP Basic without an address", "http-basic nginx", snippetOptions{}, http("127.0.0.1:80", "basic", admin.Endpoint{UserHeader: "Remote-User"}),
			"nginx.conf", []string{"        auth_request_set $valetkey_user $upstream_http_remote_user;", "        proxy_set_header X-Real-IP $remote_addr;"}, "set address_header and trusted_proxies"},
		{"another use of HTTP", "http-basic nginx", snippetOptions{}, http("127.0.0.1:8389", "nginx_mail", admin.Endpoint{}),
			"valetkeyd.toml", []string{`listen = "127.0.0.1:8389"`}, "put [http.basic] below its [[http]]"},
		{"another user, the page's home", "dovecot-2.3 ldap", snippetOptions{user: "mail"}, ldap("127.0.0.1:390", "dc=corp,dc=test", "imap"),
			"dovecot.conf ldap", []string{"  args = uid=mail gid=mail home=/var/vmail/%u"}, ""},
		{"another home, the page's user", "dovecot-2.3 ldap", snippetOptions{mailHome: "/srv/mail"}, ldap("127.0.0.1:390", "dc=corp,dc=test", "imap"),
			"dovecot.conf ldap", []string{"  args = uid=vmail gid=vmail home=/srv/mail/%u"}, ""},
		{"qmail", "qmail", snippetOptions{}, unix("checkpassword", "/run/cp", "0600", "", ""),
			"run", []string{`  /usr/lib/valetkey/valetkey-checkpassword -socket /run/cp -service pop3 \`}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			page, w, err := choosePeer(strings.Fields(tc.given))
			if err != nil {
				t.Fatal(err)
			}
			tc.options.file = tc.file
			got, err := tc.options.snippets(page, w, admin.Status{Config: "/etc/own.toml", Listeners: []admin.Listener{tc.listener}}, nil)
			if err != nil || len(got.Files) != 1 {
				t.Fatalf("snippets = %+v, %v, want one file", got, err)
			}
			if tc.name == "the same, the daemon's part" && strings.Contains(got.Files[0].Text, "lookups") {
				t.Errorf("lookups that are not allowed:\n%s", got.Files[0].Text)
			}
			for _, line := range tc.want {
				if !strings.Contains("\n"+got.Files[0].Text, "\n"+line+"\n") {
					t.Errorf("%s has no line %q:\n%s", tc.file, line, got.Files[0].Text)
				}
			}
			if notes := strings.Join(got.Notes, "\n"); !strings.Contains(notes, tc.note) {
				t.Errorf("notes: %s\nwant %q among them", notes, tc.note)
			}
		})
	}
	t.Run("no secret is asked for", func(t *testing.T) {
		for _, name := range wayNames("http-basic") {
			page, w, _ := choosePeer([]string{"http-basic", name})
			got, err := snippetOptions{}.snippets(page, w, admin.Status{Listeners: []admin.Listener{http("127.0.0.1:80", "basic",
				admin.Endpoint{AddressHeader: "X-Real-IP", UserHeader: "Remote-User"})}}, nil)
			if err != nil || strings.Contains(got.Files[0].Text, "X-Auth-Key") || strings.Contains(strings.Join(got.Notes, ""), "SECRET") {
				t.Errorf("%s: snippets = %+v, %v, want no word of a secret", name, got, err)
			}
		}
	})
}

// A file is what the peer needs of it, a snippet itself.
func TestNamed(t *testing.T) {
	for _, tc := range []struct {
		given, file string
		want        []string
	}{
		{"dovecot-2.3 grant", "dovecot.conf", []string{"dovecot.conf grant"}},
		{"dovecot-2.3 grant", "dovecot.conf delivery", []string{"dovecot.conf delivery"}},
		{"dovecot-2.3 grant", "/etc/dovecot/conf.d/10-auth.conf", []string{"dovecot.conf grant"}},
		{"dovecot-2.3 grant", "valetkeyd.toml", []string{"valetkeyd.toml grant"}},
		{"http-basic radicale", "nginx.conf", []string{"nginx.conf"}},
		{"http-basic radicale", "nginx.conf radicale", []string{"nginx.conf radicale"}},
		{"postfix", "master.cf", []string{"master.cf"}},
		{"exim dovecot", "/etc/exim4/exim4.conf.template", []string{"main", "authenticators dovecot"}},
		{"exim dovecot", "", nil},
	} {
		_, w, err := choosePeer(strings.Fields(tc.given))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range w.named(tc.file) {
			got = append(got, p.snippet)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: named(%q) = %q, want %q", tc.given, tc.file, got, tc.want)
		}
	}
}

func TestPick(t *testing.T) {
	postfix, exim := peers["postfix"][0], peers["exim"][0]
	exampleOf := func(name string) admin.Listener {
		page, w, err := choosePeer([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		return example(t, page, w)
	}
	unix := func(path, mode, owner, group string) admin.Listener {
		return admin.Listener{FrontEnd: "dovecot", Address: "unix:" + path, Mode: mode, Owner: owner, Group: group}
	}
	for _, tc := range []struct {
		name    string
		way     way
		example string
		all     []admin.Listener
		want    []int
	}{
		{"none", postfix, "postfix", nil, nil},
		{"another front end", postfix, "postfix", []admin.Listener{{FrontEnd: "saslauthd", Address: "unix:/a", Mode: "0666"}}, nil},
		{"the page's first, then what the chroot has", postfix, "postfix", []admin.Listener{
			unix("/a", "0666", "", ""), unix("/var/spool/postfix/x", "0666", "", ""), unix("/var/spool/postfix/private/valetkey", "0660", "postfix", "postfix"),
		}, []int{2, 1, 0}},
		{"the daemon's own", postfix, "postfix", []admin.Listener{unix("/a", "0660", "", "")}, nil},
		{"by owner", postfix, "postfix", []admin.Listener{unix("/a", "0600", "postfix", "")}, []int{0}},
		{"by group", postfix, "postfix", []admin.Listener{unix("/a", "0660", "", "postfix")}, []int{0}},
		{"the group may not write", postfix, "postfix", []admin.Listener{unix("/a", "0640", "", "postfix")}, nil},
		{"the owner may not write", postfix, "postfix", []admin.Listener{unix("/a", "0460", "postfix", "")}, nil},
		{"everybody may read", postfix, "postfix", []admin.Listener{unix("/a", "0664", "", "")}, nil},
		{"systemd's", postfix, "postfix", []admin.Listener{unix("/a", "", "", "")}, []int{0}},
		{"no mode", postfix, "postfix", []admin.Listener{unix("/a", "rw", "", "")}, nil},
		{"another peer's", exim, "exim", []admin.Listener{unix("/a", "0660", "postfix", "postfix"), unix("/b", "0660", "", "Debian-exim")}, []int{1}},
		{"the page's service first", peers["ldap"][0], "ldap", []admin.Listener{
			{FrontEnd: "ldap", Address: "tcp:127.0.0.1:1", Service: "imap"}, {FrontEnd: "ldap", Address: "tcp:127.0.0.1:2", Service: "ldap"}}, []int{1, 0}},
		{"no port for Exim", exim, "exim", []admin.Listener{{FrontEnd: "dovecot", Address: "tcp:127.0.0.1:1"}}, nil},
	} {
		if got := tc.way.pick(exampleOf(tc.example), tc.all); !slices.Equal(got, tc.want) {
			t.Errorf("%s: pick = %v, want %v", tc.name, got, tc.want)
		}
	}
}

// serve answers the admin socket with this status, as valetkeyd does.
func serve(t *testing.T, status admin.Status) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := admin.NewServer(func() *admin.Service { return nil }, func(context.Context) admin.Status { return status }, slog.New(slog.DiscardHandler))
	go s.Serve(l)
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	return socket
}

func valetkey(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &o, err: &e}
	code = a.run(t.Context(), args)
	return code, o.String(), e.String()
}

func TestSnippetCommand(t *testing.T) {
	own := serve(t, admin.Status{Config: "/etc/own.toml", Listeners: []admin.Listener{
		{Name: "ldap[1]", FrontEnd: "ldap", Address: "tcp:127.0.0.1:389", BaseDN: "dc=example,dc=net", Service: "ldap"},
		{Name: "dovecot[1]", FrontEnd: "dovecot", Address: "unix:/run/own/a", Mode: "0666"},
		{Name: "dovecot[2]", FrontEnd: "dovecot", Address: "unix:/run/own/b", Mode: "0660", Group: "mailers"},
	}})
	empty := serve(t, admin.Status{Implied: true, Config: "/etc/own.toml"})
	plainDaemon := serve(t, admin.Status{Implied: true, Listeners: []admin.Listener{
		{Name: "dovecot[1]", FrontEnd: "dovecot", Address: "unix:/var/lib/valetkey/run/dovecot-auth", Mode: "0660"}}})
	evil := serve(t, admin.Status{Listeners: []admin.Listener{
		{Name: "dovecot[1]", FrontEnd: "dovecot", Address: "unix:/run/a\nsmtpd_relay_restrictions = permit", Mode: "0666"}}})
	evilOther := serve(t, admin.Status{Listeners: []admin.Listener{
		{Name: "dovecot[1]", FrontEnd: "dovecot", Address: "unix:/run/a\x1b[2J", Mode: "0600"}}})
	nobody := filepath.Join(t.TempDir(), "nothing")
	for _, tc := range []struct {
		name, socket string
		args         []string
		code         int
		out, err     string // all of out, a part of err
	}{
		{"filled in", own, []string{"postfix"}, 0, "# /etc/postfix/main.cf\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = /run/own/a\n" +
			"\n# /etc/postfix/master.cf: to tell submission from relaying\nsubmission inet n - n - - smtpd\n  -o smtpd_sasl_service=submission\n",
			"note: the daemon is asked at dovecot[1], unix:/run/own/a\n"},
		{"one file alone", own, []string{"postfix", "--file", "main.cf"}, 0,
			"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = /run/own/a\n", "note: "},
		{"where one file goes", own, []string{"dovecot-2.3", "--file", "valetkey-oauth2.conf.ext"}, 0, "", "note: /etc/dovecot/valetkey-oauth2.conf.ext: for root alone (mode 0600)\n"},
		{"by its path", own, []string{"postfix-cyrus", "--file", "/etc/postfix/main.cf"}, 0, "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = cyrus\n", "note: "},
		{"another listener", own, []string{"postfix", "--listener", "dovecot[2]", "--file", "valetkeyd.toml"}, 0,
			"[[dovecot]]\nlisten = \"unix:/run/own/b\"\nmode = \"0660\"\ngroup = \"mailers\"\n", ""},
		{"no such listener", own, []string{"postfix", "--listener", "dovecot[3]"}, 1, "", `no dovecot listener "dovecot[3]"`},
		{"domain of the base DN", own, []string{"saslauthd", "--file", "command"}, 0,
			"testsaslauthd -f /run/valetkey/mux -s imap -r example.net -u alice -p abcd-efgh-ijkl-mnop\n", "comes first"},
		{"default daemon", plainDaemon, []string{"postfix", "--file", "valetkeyd.toml"}, 0,
			"[[dovecot]]\nlisten = \"unix:/var/spool/postfix/private/valetkey\"\nmode = \"0660\"\nowner = \"postfix\"\ngroup = \"postfix\"\n",
			`dovecot[1] at unix:/var/lib/valetkey/run/dovecot-auth will not do: it is for others (mode 0660, owner "", group "")`},
		{"default daemon, other listeners", plainDaemon, []string{"postfix", "--file", "main.cf"}, 0,
			"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/valetkey\n", "must name all"},
		{"a file without listeners", empty, []string{"postfix", "--file", "master.cf"}, 0, "submission inet n - y - - smtpd\n  -o smtpd_sasl_service=submission\n", "must name all"},
		{"control characters", evil, []string{"postfix"}, 1, "", "cannot be put into a peer's configuration"},
		{"control characters of another", evilOther, []string{"postfix"}, 0, "", `/run/a\x1b[2J will not do`},
		{"no daemon", nobody, []string{"postfix", "--file", "main.cf"}, 0,
			"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/valetkey\n", "these are the page's own values\nnote: is valetkeyd running?"},
		{"no daemon, a listener of it", nobody, []string{"postfix", "--listener", "dovecot[1]"}, 3, "", "cannot reach valetkeyd"},
		{"several ways", nobody, []string{"dovecot-2.4", "--file", "valetkeyd.toml"}, 0,
			"[[http]]\nlisten = \"127.0.0.1:8389\"\n\n[http.dovecot_grant]\nclient_secret_file = \"/etc/valetkey/dovecot-secret\"\n",
			`note: this is the way "grant"; there is also: ldap`},
		{"secret to make", nobody, []string{"dovecot-2.4"}, 0, "", "openssl rand -hex 24 > /etc/valetkey/dovecot-secret"},
		{"unknown peer", nobody, []string{"postfx"}, 2, "", "hint: did you mean postfix?"},
		{"unknown peer of two versions", nobody, []string{"Dovecot"}, 2, "", "hint: did you mean dovecot-2.3 or dovecot-2.4 or ldap-dovecot?"},
		{"unknown peer far off", nobody, []string{"sendmail-8"}, 2, "", "hint: valetkey snippet lists the peers"},
		{"unknown way", nobody, []string{"exim", "ldap"}, 2, "", "hint: the ways are: dovecot, saslauthd"},
		{"no ways", nobody, []string{"postfix", "dovecot"}, 2, "", "hint: it has one way only"},
		{"unknown file", nobody, []string{"postfix", "--file", "x"}, 2, "", "hint: its files are: valetkeyd.toml, main.cf, master.cf"},
		{"file of another way", nobody, []string{"dovecot-2.3", "--file", "valetkey-ldap.conf.ext"}, 2, "", "hint: it is in another way: valetkey snippet dovecot-2.3 ldap"},
		{"three arguments", nobody, []string{"exim", "dovecot", "x"}, 2, "", "one argument too many"},
		{"flags without a peer", nobody, []string{"--all"}, 2, "", "PEER is missing"},
		{"domain that is none", nobody, []string{"saslauthd", "--domain", "a b"}, 2, "", "is not a domain"},
		{"domain with an end of line", nobody, []string{"saslauthd", "--domain", "a\nb"}, 2, "", "is not a domain"},
		{"user that is none", nobody, []string{"dovecot-2.3", "--mail-user", "a b"}, 2, "", "is not the name of a system user"},
		{"home with a quote", nobody, []string{"dovecot-2.3", "--mail-home", "/a'"}, 2, "", "is not an absolute path"},
		{"home that is relative", nobody, []string{"dovecot-2.3", "--mail-home", "a"}, 2, "", "is not an absolute path"},
		{"home that ends in a slash", nobody, []string{"dovecot-2.3", "--mail-home", "/a/"}, 2, "", "is not an absolute path"},
		{"no place for a home", nobody, []string{"postfix", "--mail-home", "/srv"}, 2, "", "--mail-home: there is no place for it"},
		{"no place for a domain", nobody, []string{"postfix", "--domain", "example.com"}, 2, "", "--domain: there is no place for it"},
		{"no place for a flag", nobody, []string{"postfix", "--mail-user", "mail"}, 2, "", "--mail-user: there is no place for it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errOut := valetkey(t, append([]string{"--socket", tc.socket, "snippet"}, tc.args...)...)
			if code != tc.code || !strings.Contains(errOut, tc.err) {
				t.Errorf("exit code %d, want %d; standard error:\n%s\nwant %q", code, tc.code, errOut, tc.err)
			}
			if tc.out != "" && out != tc.out || code != 0 && out != "" {
				t.Errorf("standard output (-want +got):\n%s", cmp.Diff(tc.out, out))
			}
		})
	}
}

func TestSnippetJSON(t *testing.T) {
	socket := serve(t, admin.Status{Listeners: []admin.Listener{{Name: "dovecot[1]", FrontEnd: "dovecot", Address: "unix:/run/own", Mode: "0666"}}})
	code, out, errOut := valetkey(t, "--socket", socket, "snippet", "postfix", "--json")
	var got snippets
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || errOut != "" {
		t.Fatalf("exit code %d, %v, standard error %q, want JSON alone:\n%s", code, err, errOut, out)
	}
	if got.Page != "postfix" || len(got.Files) != 2 || got.Files[0].Place != "/etc/postfix/main.cf" || got.Files[0].Name != "main.cf" ||
		!strings.Contains(got.Files[0].Text, "smtpd_sasl_path = /run/own\n") || len(got.Notes) == 0 {
		t.Errorf("snippet postfix --json = %+v", got)
	}
	_, out, _ = valetkey(t, "snippet", "--json")
	var list struct{ Peers []listedPeer }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Peers) != len(docs.Peers()) {
		t.Errorf("snippet --json = %s, %v, want every page", out, err)
	}
}

func TestSnippetCompletion(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"post"}, "postfix\npostfix-cyrus\n"},
		{[]string{"exim", ""}, "dovecot\nsaslauthd\n"},
		{[]string{"postfix", ""}, ""},
		{[]string{"exim", "dovecot", ""}, ""},
		{[]string{"postfix", "--file", "ma"}, "main.cf\nmaster.cf\n"},
		{[]string{"dovecot-2.3", "ldap", "--file", ""}, "valetkeyd.toml\ndovecot.conf\nvaletkey-ldap.conf.ext\n"},
	} {
		_, out, _ := valetkey(t, append([]string{"__complete", "snippet"}, tc.args...)...)
		if got, _, _ := strings.Cut(out, ":"); got != tc.want {
			t.Errorf("completion of %q = %q, want %q", tc.args, got, tc.want)
		}
	}
}

func TestDomainOf(t *testing.T) {
	for dn, want := range map[string]string{
		"dc=example,dc=org": "example.org", "DC=mail, DC=example, DC=org": "mail.example.org", "dc=local": "local",
		"o=example,c=DE": "", "ou=x,dc=example,dc=org": "", "": "", "rubbish": "", `dc=a\0ab,dc=org`: "", "dc=a b": "",
	} {
		if got := domainOf(dn); got != want {
			t.Errorf("domainOf(%q) = %q, want %q", dn, got, want)
		}
	}
	if got := baseOf("mail.example.org"); got != "dc=mail,dc=example,dc=org" {
		t.Errorf("baseOf = %q", got)
	}
}

// Nothing that a daemon says can begin a line, end a string, name a variable or start a comment in a peer's configuration.
func TestUnsafe(t *testing.T) {
	good := admin.Listener{Address: "unix:/run/valetkey/a-b_c.d", BaseDN: "o=Größe und Co,dc=example,dc=org", Service: "imap", Mode: "0660", Owner: "a", Group: "b",
		Endpoints: map[string]admin.Endpoint{"basic": {SecretFile: "/etc/s", SecretHeader: "X-A", ClientID: "c", AddressHeader: "X-B", UserHeader: "X-C",
			Backends: map[string]string{"imap": "[2001:db8::1]:143"}}}}
	if what, value := unsafe(good); what != "" {
		t.Errorf("unsafe(a good one) = %q, %q", what, value)
	}
	endpoint := func(change func(*admin.Endpoint)) func(*admin.Listener) {
		return func(l *admin.Listener) {
			e := l.Endpoints["basic"]
			change(&e)
			l.Endpoints = map[string]admin.Endpoint{"basic": e}
		}
	}
	for _, bad := range []string{"\n", "\r", "\x00", "\x1b", "\u2028", "\u202e", "'", `"`, "$", "%", "#", ";", "{", "}", "\\", "`", "\xff", "|", "&", "<"} {
		for what, put := range map[string]func(*admin.Listener){
			"name":           func(l *admin.Listener) { l.Name += bad },
			"address":        func(l *admin.Listener) { l.Address += bad },
			"base DN":        func(l *admin.Listener) { l.BaseDN += bad },
			"service":        func(l *admin.Listener) { l.Service += bad },
			"owner":          func(l *admin.Listener) { l.Owner += bad },
			"group":          func(l *admin.Listener) { l.Group += bad },
			"mode":           func(l *admin.Listener) { l.Mode += bad },
			"client ID":      endpoint(func(e *admin.Endpoint) { e.ClientID += bad }),
			"secret file":    endpoint(func(e *admin.Endpoint) { e.SecretFile += bad }),
			"secret header":  endpoint(func(e *admin.Endpoint) { e.SecretHeader += bad }),
			"address header": endpoint(func(e *admin.Endpoint) { e.AddressHeader += bad }),
			"user header":    endpoint(func(e *admin.Endpoint) { e.UserHeader += bad }),
			"imap server":    endpoint(func(e *admin.Endpoint) { e.Backends = map[string]string{"imap": bad} }),
		} {
			l := good
			put(&l)
			if got, _ := unsafe(l); got != what {
				t.Errorf("unsafe(%q in the %s) = %q", bad, what, got)
			}
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"exim", "exim", 0}, {"exmi", "exim", 2}, {"postfx", "postfix", 1}, {"eximm", "exim", 1}, {"pam", "ram", 1}} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

// A daemon's application has a group of its own, or is not there yet.
func TestApplication(t *testing.T) {
	page, ok := docs.Page{}, false
	for _, p := range docs.Peers() {
		if p.Name == "ldap-freeradius" {
			page, ok = p, true
		}
	}
	if !ok {
		t.Fatal("there is no page ldap-freeradius")
	}
	w := peers[page.Name][0]
	at := func(all ...admin.Application) admin.Listener {
		return admin.Listener{Name: "ldap[1]", FrontEnd: "ldap", Address: "tcp:127.0.0.1:3389", BaseDN: "dc=example,dc=org", Service: "ldap", Applications: all}
	}
	for name, tc := range map[string]struct {
		listener admin.Listener
		found    bool
		has      string
	}{
		"its own group":   {at(admin.Application{Name: "wiki", Service: "wiki"}, admin.Application{Name: "vpn", Service: "vpn", Group: "staff"}), true, "name = \"vpn\"\ngroup = \"staff\"\n"},
		"no group":        {at(admin.Application{Name: "vpn", Service: "vpn"}), true, "name = \"vpn\"\n"},
		"another service": {at(admin.Application{Name: "vpn", Service: "radius", Group: "staff"}), false, "group = \"vpn-users\"\n"},
		"no application":  {at(), false, "group = \"vpn-users\"\n"},
	} {
		got, err := snippetOptions{all: true}.snippets(page, w, admin.Status{Listeners: []admin.Listener{tc.listener}}, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text := got.Files[0].Text
		if found := strings.Contains(got.Files[0].Where, "has this already"); found != tc.found || !strings.Contains(text, tc.has) {
			t.Errorf("%s: found %v, want %v; the daemon's part:\n%s", name, found, tc.found, text)
		}
		if name == "no group" && strings.Contains(text, "group") {
			t.Errorf("%s: the daemon's part names one:\n%s", name, text)
		}
	}
}

// Applications that have host and port in places of their own get both of the daemon's.
func TestHostAndPortApart(t *testing.T) {
	listener := admin.Listener{Name: "ldap[1]", FrontEnd: "ldap", Address: "tcp:192.0.2.1:390", BaseDN: "dc=example,dc=net", Service: "ldap"}
	for name, want := range map[string][]string{
		"ldap-gitea":     {"--host '192.0.2.1' --port '390'", "ou=people,app=git,dc=example,dc=net"},
		"ldap-proxmox":   {"\tserver1 192.0.2.1\n\tport 390\n"},
		"ldap-grafana":   {"host = \"192.0.2.1\"\nport = 390\n"},
		"ldap-keycloak":  {"ldap://192.0.2.1:390"},
		"ldap-nextcloud": {"ldapHost 'ldap://192.0.2.1'", "ldapPort '390'"},
	} {
		page, w, err := choosePeer([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		listener.Applications = example(t, page, w).Applications
		got, err := snippetOptions{}.snippets(page, w, admin.Status{Listeners: []admin.Listener{listener}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, f := range got.Files {
			text += f.Text
		}
		for _, part := range want {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %q:\n%s", name, part, text)
			}
		}
	}
}
