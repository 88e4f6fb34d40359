package config

import (
	"crypto/x509"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Upstream is an existing directory that an LDAP listener shows, in place of the accounts of the database. Empty texts and
// lists mean what the kind of directory has as its default.
type Upstream struct {
	Kind             string // "openldap", "389ds" or "ad"
	URLs             []string
	StartTLS         bool
	CAs              string // PEM; empty: those of the system
	BindDN, Password string // of the service account; Password is secret
	Bases            []string

	UserFilter, GroupFilter, ContainerFilter string
	LoginAttribute, GroupAttribute           string
	Attributes, Hidden                       []string

	Connections, Entries int           // 0: the default
	SearchTime           time.Duration // 0: the default
}

// upstream reads [ldap.upstream].
func (r *reader) upstream() *Upstream {
	x := &Upstream{
		Kind: r.text("kind", "openldap"), URLs: r.texts("urls"), StartTLS: r.yes("starttls"), CAs: r.certificates("ca_file"),
		BindDN: r.text("bind_dn", ""), Password: r.password("bind_password_file"), Bases: r.texts("bases"),
		UserFilter: r.text("user_filter", ""), GroupFilter: r.text("group_filter", ""), ContainerFilter: r.text("container_filter", ""),
		LoginAttribute: r.text("login_attribute", ""), GroupAttribute: r.text("group_attribute", ""),
		Attributes: r.texts("attributes"), Hidden: r.texts("hidden_attributes"),
		Connections: r.number("connections", 0), Entries: r.number("entries", 0),
	}
	switch x.Kind {
	case "openldap", "389ds", "ad":
	default:
		r.fault("kind", `%q is not "openldap", "389ds" or "ad"`, x.Kind)
	}
	if x.BindDN == "" {
		r.fault("bind_dn", "it is missing; write the name of an account that may read users and groups, and nothing else")
	}
	if text := r.text("search_time", ""); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 || d > time.Minute {
			r.fault("search_time", "%q is not a time of at most 1m, such as \"10s\"", text)
		}
		x.SearchTime = d
	}
	plaintext := r.yes("allow_plaintext")
	if len(x.URLs) == 0 {
		r.fault("urls", "it is missing; write urls = [\"ldaps://HOST\"], the server to ask first before the others")
	}
	for _, text := range x.URLs {
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Hostname() == "":
			r.fault("urls", "%q is not ldap://HOST:PORT or ldaps://HOST:PORT", text)
		case u.Scheme == "ldaps" && x.StartTLS:
			r.fault("starttls", "%s has TLS from its first byte; leave starttls out, or write ldap://", text)
		case u.Scheme == "ldap" && !x.StartTLS && !plaintext && !loopback(u.Hostname()):
			r.fault("urls", "to %s the password of bind_dn and all entries would travel in clear; write ldaps:// or set starttls = true, or set allow_plaintext = true if the network between is protected", text)
		}
	}
	return x
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// maxFile bounds the files that are read whole, in bytes.
const maxFile = 1 << 20

// regularFile reads a file that an absolute path names. ok is false after a fault.
func (r *reader) regularFile(key, path string) (text string, info os.FileInfo, ok bool) {
	if !filepath.IsAbs(path) {
		r.fault(key, "%q is not an absolute path", path)
		return "", nil, false
	}
	info, err := os.Stat(path)
	if err != nil {
		r.fault(key, "%v", err)
		return "", nil, false
	}
	if !info.Mode().IsRegular() {
		r.fault(key, "%s is not a file", path)
		return "", nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		r.fault(key, "%v", err)
		return "", nil, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		r.fault(key, "%v", err)
		return "", nil, false
	}
	return string(b), info, true
}

// password reads the path of a file and returns the first line of the file, which nobody but the owner may read.
func (r *reader) password(key string) string {
	path := r.text(key, "")
	if path == "" {
		r.fault(key, "it is missing; write the password into a file of mode 0600 and name that")
		return ""
	}
	text, info, ok := r.regularFile(key, path)
	if !ok {
		return ""
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		r.fault(key, "mode %04o lets others read %s; run: chmod 600 %s", mode, path, path)
	}
	secret, _, _ := strings.Cut(text, "\n")
	if secret = strings.TrimSuffix(secret, "\r"); secret == "" {
		r.fault(key, "the first line of %s is empty; it must be the password", path)
	}
	return secret
}

// certificates reads the path of a file with certificates in PEM and returns its text.
func (r *reader) certificates(key string) string {
	path := r.text(key, "")
	if path == "" {
		return ""
	}
	text, _, ok := r.regularFile(key, path)
	if ok && !x509.NewCertPool().AppendCertsFromPEM([]byte(text)) {
		r.fault(key, "%s has no certificate in PEM; it must begin with -----BEGIN CERTIFICATE-----", path)
	}
	return text
}
