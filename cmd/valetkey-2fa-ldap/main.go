// Command valetkey-2fa-ldap is an enrolment plugin for sites whose directory knows who has a second factor: by an attribute, an object
// class, a group, or whatever a filter can say of an entry. valetkeyd starts it:
//
//	valetkey-2fa-ldap -config FILE
//
// With -check LOGIN in addition it prints what it would answer, and ends. The file is described in docs/enrolment-ldap.md.
//
// It searches as a service account and never as a user. Entry not found is "account unknown"; two entries, a directory that cannot be
// reached, a group that does not exist and every other result code are errors.
//
// The program refuses to know which product the directory is.
//
// The one rule a newcomer would break: an attribute that the service account may not read looks like one that is not there. Nothing can
// be done about it here, so the page tells the admin to try a user who has it.
package main

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/plugincmd"
	"github.com/valetkey/valetkey/plugin"
)

// version is set by the build.
var version = "dev"

// config is the file.
type config struct {
	plugincmd.Settings

	URLs           []string `toml:"urls"`
	StartTLS       bool     `toml:"starttls"`
	CAFile         string   `toml:"ca_file"`
	AllowPlaintext bool     `toml:"allow_plaintext"`
	BindDN         string   `toml:"bind_dn"`
	PasswordFile   string   `toml:"bind_password_file"`

	Base   string `toml:"base"`
	Filter string `toml:"filter"`

	Enrolled []ruleConfig `toml:"enrolled"`
	Exempt   []ruleConfig `toml:"exempt"`
}

func main() {
	var c config
	plugincmd.Main("valetkey-2fa-ldap", version, &c, func(f *plugincmd.Faults) plugin.Checker { return c.open(f) })
}

// open makes the checker that the file describes.
func (c *config) open(f *plugincmd.Faults) *checker {
	x := &checker{base: c.Base}
	d := &directory{bindDN: c.BindDN, slots: make(chan struct{}, max(c.Connections, 1)), now: time.Now}
	if len(c.URLs) == 0 {
		f.Add("urls", `it is missing; write urls = ["ldaps://HOST"], the server to ask first before the others`)
	}
	for _, text := range c.URLs {
		s, err := parseServer(text, c.StartTLS)
		switch {
		case err != nil:
			f.Add("urls", "%v", err)
			continue
		case !s.tls && !c.StartTLS && !c.AllowPlaintext && !plugincmd.Loopback(s.host):
			f.Add("urls", "to %s the password of bind_dn would travel in clear; write ldaps:// or set starttls = true, or set allow_plaintext = true if the network between is protected", text)
		}
		d.servers = append(d.servers, s)
	}
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: f.Roots("ca_file", c.CAFile)}
	if c.BindDN == "" && c.PasswordFile != "" || c.BindDN != "" && c.PasswordFile == "" {
		f.Add("bind_dn", "it goes with bind_password_file; leave both out to search anonymously")
	}
	d.password = f.Secret("bind_password_file", c.PasswordFile, false)

	if _, err := ldap.ParseDN(c.Base); err != nil || c.Base == "" {
		f.Add("base", "%q is not the DN below which the users are, such as \"ou=people,dc=example,dc=org\"", c.Base)
	}
	x.filter = parseFilter(f, "filter", cmp.Or(c.Filter, "(uid={login})"))
	if !x.filter.Uses("login", "name") {
		f.Add("filter", "it has neither {login} nor {name}, so that all users would have the same entry")
	}
	if len(c.Enrolled) == 0 {
		f.Add("enrolled", "it is missing; write [[enrolled]] on a line of its own and below it what entries with a second factor have")
	}
	x.rules = append(rules(f, "enrolled", plugin.Enrolled, c.Enrolled), rules(f, "exempt", plugin.Exempt, c.Exempt)...)
	for _, r := range x.rules {
		if r.attribute != "" {
			x.attributes = append(x.attributes, r.attribute)
		}
	}
	if len(x.attributes) == 0 {
		x.attributes = []string{"1.1"} // RFC 4511 section 4.5.1.8: none
	}
	x.directory = d
	return x
}

// parseFilter checks the template of a filter with a login in it.
func parseFilter(f *plugincmd.Faults, key, text string) plugincmd.Template {
	t, err := plugincmd.ParseTemplate(text, plugincmd.LoginVariables)
	if err == nil {
		sample, _ := t.Expand(plugincmd.OfLogin("a@b"), ldap.EscapeFilter)
		_, err = ldap.CompileFilter(sample)
	}
	if err != nil {
		f.Add(key, "%q is not a filter: %v", text, err)
		t, _ = plugincmd.ParseTemplate("(uid={login})", plugincmd.LoginVariables)
	}
	return t
}

// parseServer accepts ldap://HOST[:PORT] and ldaps://HOST[:PORT].
func parseServer(text string, startTLS bool) (*server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "ldap" && u.Scheme != "ldaps" {
		return nil, fmt.Errorf("%q is not ldap://HOST:PORT or ldaps://HOST:PORT", text)
	}
	s := &server{name: strings.TrimSuffix(text, "/"), host: u.Hostname(), tls: u.Scheme == "ldaps", startTLS: startTLS}
	port := ldap.DefaultLdapPort
	if s.tls {
		if port = ldap.DefaultLdapsPort; startTLS {
			return nil, fmt.Errorf("%q has TLS from its first byte; leave starttls out, or write ldap://", text)
		}
	}
	s.addr = net.JoinHostPort(s.host, cmp.Or(u.Port(), port))
	return s, nil
}
