package main

// way is one of the ways in which a peer can be told to ask the daemon.
type way struct {
	name  string // as the admin says it; empty if the page has one way only
	parts []part // in the order in which they are to be done; the first is the daemon's

	chroot  string // where the peer's processes may be shut in, and look for the socket; empty: nowhere
	port    bool   // the peer takes a port too, where the page has a Unix socket
	fixed   bool   // the peer looks at the page's address and nowhere else
	service bool   // the listener's service must be the page's, as the peer names none
}

// part says where a snippet of the page goes.
type part struct {
	snippet string // its name on the page
	place   string // path of the file; empty: it goes into none
	where   string // in the file, or what it is for; empty: all of it is said
	apart   bool   // not what --file FILE means: the peer can do without, or it has another place in the file
}

// daemonFile is the daemon's configuration where the daemon does not say another.
const daemonFile = "/etc/valetkey/valetkeyd.toml"

func daemonPart(snippet string) part { return part{snippet: snippet, place: daemonFile} }

const inPlace = "in place of the passdb and userdb that are there"

// peers are the ways of each page, the recommended one first. Every snippet of a page is in one of them at least. The places are
// Debian's, as the pages name them.
var peers = map[string][]way{
	"dovecot-2.3": {
		{name: "grant", parts: []part{
			daemonPart("valetkeyd.toml grant"),
			{snippet: "dovecot.conf grant", place: "/etc/dovecot/conf.d/10-auth.conf", where: inPlace},
			{snippet: "valetkey-oauth2.conf.ext", place: "/etc/dovecot/valetkey-oauth2.conf.ext", where: "for root alone (mode 0600)"},
			{snippet: "dovecot.conf delivery", place: "/etc/dovecot/conf.d/10-auth.conf", where: "below the userdb, for delivery and doveadm", apart: true},
		}},
		{name: "checkpassword", parts: []part{
			daemonPart("valetkeyd.toml checkpassword"),
			{snippet: "dovecot.conf checkpassword", place: "/etc/dovecot/conf.d/10-auth.conf", where: inPlace},
		}},
		{name: "ldap", service: true, parts: []part{
			daemonPart("valetkeyd.toml ldap"),
			{snippet: "dovecot.conf ldap", place: "/etc/dovecot/conf.d/10-auth.conf", where: inPlace},
			{snippet: "valetkey-ldap.conf.ext", place: "/etc/dovecot/valetkey-ldap.conf.ext"},
		}},
	},
	"dovecot-2.4": {
		{name: "grant", parts: []part{
			daemonPart("valetkeyd.toml grant"),
			{snippet: "dovecot.conf grant", place: "/etc/dovecot/conf.d/10-auth.conf", where: inPlace + "; for root alone (mode 0600)"},
			{snippet: "dovecot.conf delivery", place: "/etc/dovecot/conf.d/10-auth.conf", where: "below the userdb, for delivery and doveadm", apart: true},
		}},
		{name: "ldap", service: true, parts: []part{
			daemonPart("valetkeyd.toml ldap"),
			{snippet: "dovecot.conf ldap", place: "/etc/dovecot/conf.d/10-auth.conf", where: inPlace},
		}},
	},
	"exim": {
		{name: "dovecot", parts: []part{
			daemonPart("valetkeyd.toml dovecot"),
			{snippet: "main", place: "/etc/exim4/exim4.conf.template", where: "in the main section"},
			{snippet: "authenticators dovecot", place: "/etc/exim4/exim4.conf.template", where: "below \"begin authenticators\""},
		}},
		{name: "saslauthd", fixed: true, parts: []part{
			daemonPart("valetkeyd.toml saslauthd"),
			{snippet: "main", place: "/etc/exim4/exim4.conf.template", where: "in the main section"},
			{snippet: "authenticators saslauthd", place: "/etc/exim4/exim4.conf.template", where: "below \"begin authenticators\""},
		}},
	},
	"http-basic": {
		{name: "nginx", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "nginx.conf", place: "/etc/nginx/sites-enabled/dav", where: "for root alone (mode 0600)"},
		}},
		{name: "radicale", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "nginx.conf", place: "/etc/nginx/sites-enabled/dav", where: "for root alone (mode 0600)"},
			{snippet: "nginx.conf radicale", place: "/etc/nginx/sites-enabled/dav", where: "in place of the line with Remote-User", apart: true},
			{snippet: "radicale", place: "/etc/radicale/config"},
		}},
		{name: "caddy", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "Caddyfile", place: "/etc/caddy/Caddyfile", where: "for root and Caddy's group alone (mode 0640)"},
			{snippet: "Caddyfile radicale", place: "/etc/caddy/Caddyfile", where: "for Radicale, in its reverse_proxy", apart: true},
		}},
	},
	"ldap": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "settings", where: "what the application asks for"},
		}},
	},
	"ldap-apache": {
		{name: "reader", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "apache.conf", place: "/etc/apache2/conf-available/valetkey.conf", where: "after a2enmod authnz_ldap"},
			{snippet: "apache.conf group", place: "/etc/apache2/conf-available/valetkey.conf", where: "in place of the line Require, for a group", apart: true},
			{snippet: "apache.conf filter", place: "/etc/apache2/conf-available/valetkey.conf", where: "or by a filter", apart: true},
		}},
		{name: "user", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "apache.conf user", place: "/etc/apache2/conf-available/valetkey.conf", where: "after a2enmod authnz_ldap"},
		}},
	},
	"ldap-authelia": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "configuration.yml", place: "/etc/authelia/configuration.yml"},
		}},
	},
	"ldap-dovecot": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "dovecot.conf", place: "/etc/dovecot/conf.d/10-auth.conf", where: inPlace},
			{snippet: "valetkey-ldap.conf.ext", place: "/etc/dovecot/valetkey-ldap.conf.ext", where: "for root alone (mode 0600), with the reader's secret in it"},
			{snippet: "link", where: "the same for the userdb"},
			{snippet: "valetkey-ldap.conf.ext group", place: "/etc/dovecot/valetkey-ldap.conf.ext", where: "in place of the two filters, for a group", apart: true},
		}},
	},
	"ldap-freeradius": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "mods-enabled/ldap", place: "/etc/freeradius/3.0/mods-available/ldap", where: "linked from mods-enabled (root:freerad, mode 0640), with the reader's secret in it"},
			{snippet: "sites-enabled/default", place: "/etc/freeradius/3.0/sites-enabled/default", where: "in place of the sections authorize and authenticate"},
			{snippet: "sites-enabled/default group", place: "/etc/freeradius/3.0/sites-enabled/default", where: "in authorize below notfound, for a group", apart: true},
		}},
	},
	"ldap-gitea": {
		{name: "reader", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "gitea", where: "then, as Gitea's user, with the reader's secret"},
			{snippet: "groups", where: "fields of the web interface, for groups", apart: true},
		}},
		{name: "simple", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "gitea simple", where: "then, as Gitea's user"},
		}},
	},
	"ldap-gitlab": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "gitlab.rb", place: "/etc/gitlab/gitlab.rb", where: "with the reader's secret; then gitlab-ctl reconfigure"},
		}},
	},
	"ldap-grafana": {
		{name: "reader", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "ldap.toml", place: "/etc/grafana/ldap.toml"},
		}},
		{name: "single", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "ldap.toml single", place: "/etc/grafana/ldap.toml"},
		}},
	},
	"ldap-jellyfin": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "LDAP-Auth.xml", place: "/var/lib/jellyfin/plugins/configurations/LDAP-Auth.xml", where: "with the reader's secret; for Jellyfin's user alone (mode 0600)"},
		}},
	},
	"ldap-jenkins": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "jenkins.yaml", place: "/var/lib/jenkins/jenkins.yaml"},
		}},
	},
	"ldap-keycloak": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "kcadm", where: "then, logged in with kcadm.sh config credentials, with the reader's secret"},
		}},
	},
	"ldap-libraries": {
		{name: "python-ldap", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "login.py python-ldap", where: "a function in Python"},
			{snippet: "starttls python-ldap", where: "in place of its own, for another machine", apart: true},
		}},
		{name: "ldap3", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "login.py ldap3", where: "a function in Python"},
			{snippet: "starttls ldap3", where: "in place of its own, for another machine", apart: true},
		}},
		{name: "perl", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "login.pl", where: "a function in Perl"},
			{snippet: "starttls Net::LDAP", where: "in place of its own, for another machine", apart: true},
		}},
		{name: "ruby", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "login.rb", where: "a function in Ruby"},
			{snippet: "starttls net-ldap", where: "in place of its own, for another machine", apart: true},
		}},
		{name: "java", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "Directory.java", where: "a class in Java"},
			{snippet: "starttls JNDI", where: "in place of its own, for another machine", apart: true},
		}},
		{name: "go", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "login.go", where: "a function in Go"},
			{snippet: "starttls go-ldap", where: "in place of its own, for another machine", apart: true},
		}},
	},
	"ldap-nextcloud": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "occ", where: "then, in Nextcloud, with the reader's secret"},
		}},
	},
	"ldap-proxmox": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "domains.cfg", place: "/etc/pve/domains.cfg"},
		}},
	},
	"ldap-nslcd": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "nslcd.conf", place: "/etc/nslcd.conf", where: "for root and the group nslcd alone (mode 0640), with the reader's secret in it"},
			{snippet: "nslcd.conf group", place: "/etc/nslcd.conf", where: "below it, for a group", apart: true},
			{snippet: "nsswitch.conf", place: "/etc/nsswitch.conf", where: "in place of the lines for the same databases"},
			{snippet: "pam.d", place: "/etc/pam.d/vsftpd", where: "or another program's; nothing else may be in the file"},
			{snippet: "command", where: "to try it"},
		}},
	},
	"ldap-postfix": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "main.cf", place: "/etc/postfix/main.cf"},
			{snippet: "valetkey-mailboxes.cf", place: "/etc/postfix/valetkey-mailboxes.cf", where: "for root and the group postfix alone (mode 0640), with the reader's secret in it"},
			{snippet: "valetkey-aliases.cf", place: "/etc/postfix/valetkey-aliases.cf", where: "the same"},
			{snippet: "valetkey-groups.cf", place: "/etc/postfix/valetkey-groups.cf", where: "the same"},
			{snippet: "command", where: "to try it"},
		}},
	},
	"ldap-saslauthd": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "saslauthd.conf", place: "/etc/saslauthd.conf", where: "for root alone (mode 0600), with the reader's secret in it"},
			{snippet: "saslauthd.conf group", place: "/etc/saslauthd.conf", where: "below it, for a group", apart: true},
			{snippet: "default", place: "/etc/default/saslauthd"},
			{snippet: "command", where: "to try it"},
		}},
	},
	"ldap-squid": {
		{name: "reader", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "squid.conf", place: "/etc/squid/squid.conf"},
			{snippet: "squid.conf group", place: "/etc/squid/squid.conf", where: "in place of the two last lines, for a group", apart: true},
		}},
		{name: "template", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "squid.conf template", place: "/etc/squid/squid.conf"},
		}},
	},
	"ldap-sssd": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "commands", where: "then, as root"},
			{snippet: "sssd.conf", place: "/etc/sssd/sssd.conf", where: "for root alone (mode 0600), with the reader's secret in it"},
			{snippet: "sssd.conf group", place: "/etc/sssd/sssd.conf", where: "below [domain/example], for a group", apart: true},
			{snippet: "nsswitch.conf", place: "/etc/nsswitch.conf", where: "in place of the lines for the same databases"},
			{snippet: "pam.d", place: "/etc/pam.d/vsftpd", where: "or another program's; nothing else may be in the file"},
			{snippet: "command", where: "to try it"},
		}},
	},
	"nginx-mail": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "nginx.conf", place: "/etc/nginx/nginx.conf", where: "at the top level; for root alone (mode 0600)"},
			{snippet: "dovecot.conf", place: "/etc/dovecot/local.conf", where: "if Dovecot is the server behind nginx", apart: true},
		}},
	},
	"pam": {
		{name: "exec", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "pam.d", place: "/etc/pam.d/vsftpd", where: "or another program's; nothing else may be in the file"},
			{snippet: "command", where: "to try it"},
		}},
		{name: "deny", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "pam.d deny", place: "/etc/pam.d/vsftpd", where: "or another program's; nothing else may be in the file"},
			{snippet: "command", where: "to try it"},
		}},
	},
	"postfix": {
		{chroot: "/var/spool/postfix", port: true, parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "main.cf", place: "/etc/postfix/main.cf"},
			{snippet: "master.cf", place: "/etc/postfix/master.cf", where: "to tell submission from relaying", apart: true},
		}},
	},
	"postfix-cyrus": {
		{chroot: "/var/spool/postfix", parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "main.cf", place: "/etc/postfix/main.cf"},
			{snippet: "sasl/smtpd.conf", place: "/etc/postfix/sasl/smtpd.conf"},
			{snippet: "master.cf", place: "/etc/postfix/master.cf", where: "to tell submission from relaying", apart: true},
			{snippet: "master.cf domain", place: "/etc/postfix/master.cf", where: "below it, to have a domain for logins without one", apart: true},
		}},
	},
	"qmail": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "run", place: "/service/qmail-pop3d/run"},
			{snippet: "account", where: "for each account"},
		}},
	},
	"saslauthd": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "command", where: "to try it"},
		}},
	},
	"slapd-sasl": {
		{parts: []part{
			daemonPart("valetkeyd.toml"),
			{snippet: "sasl2/slapd.conf", place: "/etc/ldap/sasl2/slapd.conf", where: "then restart slapd"},
			{snippet: "entry.ldif", where: "what each entry of the directory has"},
		}},
	},
}
