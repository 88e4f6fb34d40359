package main

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/admin"
)

// What stands on the pages for what is the site's own.
const (
	pageDomain = "example.org"
	pageBase   = "dc=example,dc=org"
	pageUser   = "vmail"
	pageHome   = "/var/vmail"
	pageSecret = "SECRET" // stays: only people put secrets into files
)

// site is what takes the place of the page's values.
type site struct {
	listener admin.Listener // that the peer is to ask
	base     string         // DN
	domain   string
	user     string // that mail belongs to
	home     string // that mailboxes are below
}

// pageSite are the values that the page has, given the listener of its snippet.
func pageSite(example admin.Listener) site {
	return site{listener: example, base: pageBase, domain: pageDomain, user: pageUser, home: pageHome}
}

// exampleListener reads a page's snippet of the daemon's configuration, and describes its listener as the daemon would. The
// defaults that a peer must know are filled in.
func exampleListener(text string) (admin.Listener, error) {
	type endpoint struct {
		ClientID      string `toml:"client_id"`
		ClientSecret  string `toml:"client_secret_file"`
		SecretFile    string `toml:"secret_file"`
		SecretHeader  string `toml:"secret_header"`
		AddressHeader string `toml:"address_header"`
		UserHeader    string `toml:"user_header"`
		IMAP          string
		POP3          string
		SMTP          string
	}
	var sections map[string][]struct {
		Listen, Mode, Owner, Group, Service string
		BaseDN                              string    `toml:"base_dn"`
		Lookups                             bool      `toml:"lookups"`
		Grant                               *endpoint `toml:"dovecot_grant"`
		Mail                                *endpoint `toml:"nginx_mail"`
		Basic                               *endpoint `toml:"basic"`
		Application                         []admin.Application
	}
	if _, err := toml.Decode(text, &sections); err != nil {
		return admin.Listener{}, err
	}
	for frontEnd, all := range sections {
		if len(sections) != 1 || len(all) != 1 {
			break
		}
		x := all[0]
		l := admin.Listener{FrontEnd: frontEnd, Address: x.Listen, BaseDN: x.BaseDN, Service: x.Service, Lookups: x.Lookups}
		if strings.HasPrefix(x.Listen, "unix:") {
			l.Mode, l.Owner, l.Group = x.Mode, x.Owner, x.Group
		} else {
			l.Address = "tcp:" + x.Listen
		}
		for _, a := range x.Application {
			a.Service = or(a.Service, a.Name)
			l.Applications = append(l.Applications, a)
		}
		if frontEnd == "http" {
			l.Endpoints = map[string]admin.Endpoint{}
		}
		if e := x.Grant; e != nil {
			l.Endpoints["dovecot_grant"] = admin.Endpoint{SecretFile: e.ClientSecret, ClientID: or(e.ClientID, "dovecot")}
		}
		if e := x.Mail; e != nil {
			backends := map[string]string{"imap": e.IMAP, "pop3": e.POP3, "smtp": e.SMTP}
			maps.DeleteFunc(backends, func(_, at string) bool { return at == "" })
			l.Endpoints["nginx_mail"] = admin.Endpoint{SecretFile: e.SecretFile, SecretHeader: or(e.SecretHeader, "X-Auth-Key"), Backends: backends}
		}
		if e := x.Basic; e != nil {
			l.Endpoints["basic"] = admin.Endpoint{SecretFile: e.SecretFile, SecretHeader: or(e.SecretHeader, "X-Auth-Key"),
				AddressHeader: e.AddressHeader, UserHeader: or(e.UserHeader, "Remote-User")}
		}
		return l, nil
	}
	return admin.Listener{}, fmt.Errorf("it has not exactly one listener")
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// misfit says why a peer cannot ask at a listener in this way; empty if it can. By its name an admin can take a listener whose socket
// seems to be for others: forced leaves that out, as groups have members.
func (w way) misfit(example, l admin.Listener, forced bool) string {
	for _, name := range sortedKeys(example.Endpoints) {
		if _, on := l.Endpoints[name]; !on {
			return "has no [http." + name + "]"
		}
	}
	for _, a := range example.Applications {
		i := slices.IndexFunc(l.Applications, func(b admin.Application) bool { return b.Name == a.Name && b.Service == a.Service })
		if i < 0 {
			return fmt.Sprintf("has no [[ldap.application]] %q for the service %q", a.Name, a.Service)
		}
	}
	wants, _ := split(example.Address)
	switch network, _ := split(l.Address); {
	case wants == "tcp" && network != "tcp":
		return "is a Unix socket, and a port is needed"
	case wants == "unix" && network != "unix" && !w.port:
		return "is a port, and a Unix socket is needed"
	case w.fixed && l.Address != example.Address:
		return "is not where the peer looks"
	case w.service && l.Service != example.Service:
		return fmt.Sprintf("is for the service %q", l.Service)
	case !forced && network == "unix" && !reaches(example, l):
		return fmt.Sprintf("is for others (mode %s, owner %q, group %q)", l.Mode, l.Owner, l.Group)
	}
	return ""
}

// reaches reports whether those that the page's socket is for may connect to this one, which takes leave to write (unix(7)).
func reaches(example, l admin.Listener) bool {
	mode, err := strconv.ParseUint(l.Mode, 8, 12)
	switch {
	case l.Mode == "": // systemd's affair
		return true
	case err != nil:
		return false
	case example.Owner == "" && example.Group == "": // for root
		return true
	case mode&0o002 != 0:
		return true
	case mode&0o020 != 0 && example.Group != "" && l.Group == example.Group:
		return true
	}
	return mode&0o200 != 0 && example.Owner != "" && l.Owner == example.Owner
}

// pick returns the indices of the listeners of a daemon that the peer can ask, the best first.
func (w way) pick(example admin.Listener, all []admin.Listener) []int {
	var fit []int
	for i, l := range all {
		if l.FrontEnd == example.FrontEnd && w.misfit(example, l, false) == "" {
			fit = append(fit, i)
		}
	}
	rank := func(l admin.Listener) int {
		_, path := split(l.Address)
		switch {
		case l.Address == example.Address:
			return 0
		case w.chroot != "" && strings.HasPrefix(path, w.chroot+"/"):
			return 1
		case l.Service == example.Service:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(fit, func(a, b int) int { return rank(all[a]) - rank(all[b]) })
	return fit
}

// reachable is an address as others must write it: who listens everywhere is asked on loopback.
func reachable(address string) string {
	network, rest := split(address)
	if network != "tcp" {
		return address
	}
	at, err := netip.ParseAddrPort(rest)
	if err != nil || !at.Addr().IsUnspecified() {
		return address
	}
	loopback := netip.IPv6Loopback()
	if at.Addr().Is4() {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "tcp:" + netip.AddrPortFrom(loopback, at.Port()).String()
}

// replacer turns the page's values into the site's, all in one pass, so that no value is taken for another one's place. A value that
// stays has its pair, too: it may hold another one, as /var/vmail does.
func (w way) replacer(from, to site) *strings.Replacer {
	var pairs []string
	add := func(old, new string) {
		if old != "" {
			pairs = append(pairs, old, new)
		}
	}
	network, at := split(to.listener.Address)
	_, was := split(from.listener.Address)
	if below, ok := strings.CutPrefix(was, w.chroot+"/"); ok && w.chroot != "" {
		// Two programs look for it: one from the directory, one from what is its root.
		if now, ok := strings.CutPrefix(at, w.chroot+"/"); ok && network == "unix" {
			add("= "+below, "= "+now)
			add(": /"+below, ": /"+now)
		} else {
			seen := at
			if network == "tcp" {
				seen = "inet:" + at
			} else {
				add("inet n - y -", "inet n - n -") // not shut in
			}
			add("= "+below, "= "+seen)
			add(": /"+below, ": "+seen)
		}
	}
	for _, name := range sortedKeys(from.listener.Endpoints) {
		e, f := from.listener.Endpoints[name], to.listener.Endpoints[name]
		for _, protocol := range sortedKeys(e.Backends) {
			if f.Backends[protocol] == "" {
				continue // the notes say so
			}
			host, port := splitHostPort(e.Backends[protocol])
			newHost, newPort := splitHostPort(f.Backends[protocol])
			add(fmt.Sprintf("address = %s\n    port = %s", host, port), fmt.Sprintf("address = %s\n    port = %s", newHost, newPort))
			add(e.Backends[protocol], f.Backends[protocol])
		}
		add(e.SecretFile, f.SecretFile)
		add("client_id = "+e.ClientID+"\n", "client_id = "+f.ClientID+"\n")
		add(e.SecretHeader, f.SecretHeader)
		if f.AddressHeader != "" {
			add(e.AddressHeader, f.AddressHeader)
		}
		// Not every Remote-User: what the application is told is its own affair. nginx, Caddy.
		add(nginxVariable(e.UserHeader), nginxVariable(f.UserHeader))
		add("copy_headers "+e.UserHeader, "copy_headers "+f.UserHeader)
		add("request_header -"+e.UserHeader, "request_header -"+f.UserHeader)
	}
	if t := to.listener.TLS; t != nil && t.Mode == "ldaps" {
		add("ldap://"+was, "ldaps://"+at)
	}
	add(was, at)
	if to.listener.FrontEnd == "ldap" && network == "tcp" {
		// Some applications have the two apart.
		host, port := splitHostPort(was)
		newHost, newPort := splitHostPort(at)
		add(host, newHost)
		add(port, newPort)
	}
	add(from.base, to.base)
	add(from.domain, to.domain)
	add(from.home, to.home)
	add(from.user, to.user)
	return strings.NewReplacer(pairs...)
}

// withoutSecret is a snippet without the lines that send the secret, for a daemon that asks for none.
func withoutSecret(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, pageSecret) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// asksSecret reports whether the daemon wants a secret at one of the page's endpoints.
func asksSecret(example, l admin.Listener) bool {
	for name := range example.Endpoints {
		if l.Endpoints[name].SecretFile != "" {
			return true
		}
	}
	return false
}

func splitHostPort(s string) (host, port string) {
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		return s, ""
	}
	return at.Addr().String(), strconv.Itoa(int(at.Port()))
}

// nginxVariable is how nginx calls a header of the daemon's answer.
func nginxVariable(header string) string {
	return "$upstream_http_" + strings.ReplaceAll(strings.ToLower(header), "-", "_")
}

var tomlLine = regexp.MustCompile(`(?m)^(\w+) = .*\n`)

// configured is the page's snippet of the daemon's configuration with what the daemon's own has in its place.
func configured(text string, l admin.Listener) string {
	values := map[string]string{
		"listen": strings.TrimPrefix(l.Address, "tcp:"), "mode": l.Mode, "owner": l.Owner, "group": l.Group, "base_dn": l.BaseDN, "service": l.Service,
		"address_header": l.Endpoints["basic"].AddressHeader,
	}
	// What an application has is in lines of the same names.
	text, applications, found := strings.Cut(text, "[[ldap.application]]")
	if found {
		applications = "[[ldap.application]]" + tomlLine.ReplaceAllStringFunc(applications, func(line string) string {
			if tomlLine.FindStringSubmatch(line)[1] != "group" {
				return line
			}
			for _, a := range l.Applications {
				if a.Group != "" && strings.Contains(applications, fmt.Sprintf("name = %q\n", a.Name)) {
					return fmt.Sprintf("group = %q\n", a.Group)
				}
			}
			return ""
		})
	}
	return tomlLine.ReplaceAllStringFunc(text, func(line string) string {
		key := tomlLine.FindStringSubmatch(line)[1]
		value, ours := values[key]
		switch {
		case key == "lookups" && !l.Lookups:
			return ""
		case !ours:
			return line
		case value == "":
			return ""
		}
		return fmt.Sprintf("%s = %q\n", key, value)
	}) + applications
}

// domainOf is the domain that a DN of dc components stands for (RFC 2247); empty if it is not one.
func domainOf(dn string) string {
	parsed, err := ldap.ParseDN(dn)
	if err != nil || len(parsed.RDNs) == 0 {
		return ""
	}
	var labels []string
	for _, rdn := range parsed.RDNs {
		if len(rdn.Attributes) != 1 || !strings.EqualFold(rdn.Attributes[0].Type, "dc") {
			return ""
		}
		labels = append(labels, rdn.Attributes[0].Value)
	}
	if domain := strings.Join(labels, "."); domainName.MatchString(domain) {
		return domain
	}
	return ""
}

// baseOf is the DN of a domain (RFC 2247).
func baseOf(domain string) string { return "dc=" + strings.ReplaceAll(domain, ".", ",dc=") }

var (
	domainName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)
	userName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
)

// plain reports whether a value means itself in every peer's configuration: it cannot end a line, a string or a word, and begins no
// variable and no comment.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+=,:@[]", r)
	})
}

// unsafe returns what a listener has that cannot stand in a peer's configuration as it is, and its name; empty if all can. A DN may
// have spaces, as it stands alone on its line everywhere.
func unsafe(l admin.Listener) (what, value string) {
	type named struct{ what, value string }
	all := []named{
		{"name", l.Name}, {"address", strings.TrimPrefix(l.Address, "unix:")}, {"base DN", strings.ReplaceAll(l.BaseDN, " ", "")},
		{"service", l.Service}, {"mode", l.Mode}, {"owner", l.Owner}, {"group", l.Group},
	}
	for _, name := range sortedKeys(l.Endpoints) {
		e := l.Endpoints[name]
		all = append(all, named{"client ID", e.ClientID}, named{"secret file", e.SecretFile}, named{"secret header", e.SecretHeader},
			named{"address header", e.AddressHeader}, named{"user header", e.UserHeader})
		for _, protocol := range sortedKeys(e.Backends) {
			all = append(all, named{protocol + " server", e.Backends[protocol]})
		}
	}
	for _, x := range all {
		if !plain(x.value) {
			return x.what, x.value
		}
	}
	return "", ""
}

// distance is the number of letters to change, add or leave out to turn a into b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
