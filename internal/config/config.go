// Package config reads the daemon's file, checks it and fills in the defaults.
//
// It refuses to know how a front end or the store works: it holds what the admin said, checked. The one rule a newcomer
// would break: never stop at the first fault. All of them are reported together, each with its key and the cure.
package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/valetkey/valetkey/internal/auth"
)

// Example is the annotated file: every key with its default.
//
//go:embed example.toml
var Example string

// DefaultStateDir is where a packaged daemon keeps its state.
const DefaultStateDir = "/var/lib/valetkey"

// Config is a checked configuration. All paths are absolute.
type Config struct {
	StateDir string
	Database Database
	Pepper   Pepper
	Admin    Admin
	Self     SelfService
	Password Password
	Throttle Throttle
	Log      Log
	Mail     MailSettings
	Hooks    []Hook
	Notices  Notices
	Metrics  Metrics

	Enrolment Enrolment

	Implied       bool // the file names no listener: these are the two that are there then
	LDAP          []LDAP
	Dovecot       []Dovecot
	Saslauthd     []Saslauthd
	Checkpassword []Checkpassword
	HTTP          []HTTP
}

// Database says where the app passwords are kept.
type Database struct {
	URL string // secret: it may hold a password; empty: a private cluster in the state directory
}

// Pepper says where the keys of the tags are kept.
type Pepper struct {
	File string
}

// Admin is the socket that the companion command talks to.
type Admin struct {
	Socket string
	Mode   fs.FileMode
	Group  string // name, of admins; empty: the daemon's own

	HelpDeskGroup, ReadOnlyGroup string // names; empty: nobody has the role
}

// SelfService lets the users of this machine manage the app passwords of their own accounts.
type SelfService struct {
	Enabled  bool
	Domain   string         // the login is NAME@DOMAIN; empty: NAME
	MinUID   int            // the users below are the system's
	Services []string       // normalised; empty: all
	Networks []netip.Prefix // empty: all
}

// Password says what new app passwords are like.
type Password struct {
	Length int // letters
	Limit  int // live ones per account
}

// Log says how much is logged.
type Log struct {
	Level slog.Level
}

// Socket is where a front end listens, and who may reach it.
type Socket struct {
	Listen         Address
	Mode           fs.FileMode // of a Unix socket
	Owner, Group   string      // of a Unix socket; empty: the daemon's own
	AllowPlaintext bool        // off loopback without TLS
	FailureDelay   FailureDelay
}

// TLS says how the connections of a listener are protected.
type TLS struct {
	Mode      string // "starttls" or "ldaps"; empty: not at all
	Cert, Key string // files in PEM
	Always    bool   // passwords need it also from this machine: allow_plaintext = false is written out
}

// LDAP is one listener of the LDAP front end.
type LDAP struct {
	Socket
	Conns
	TLS      TLS
	BaseDN   string
	Service  string
	Upstream *Upstream // nil: the accounts of the database

	Tree         Tree
	Applications []Application
}

// Dovecot is one listener of the Dovecot authentication protocol.
type Dovecot struct {
	Socket
	Conns
	Tempfail string // "auto", "disconnect" or "reply"
}

// Saslauthd is one listener of the saslauthd mux.
type Saslauthd struct {
	Socket
	Conns
	Service string // of requests that name none; empty: none
}

// Checkpassword is one listener for the checkpassword helper.
type Checkpassword struct {
	Socket
	Conns
	Lookups bool // whoever may connect may ask for an account's userdb fields
}

// HTTP is one listener of the HTTP front end. A nil endpoint is not served; one at least is.
type HTTP struct {
	Socket
	Conns
	Grant *Grant
	Mail  *Mail
	Basic *Basic
}

// Grant is the endpoint for Dovecot's oauth2 passdb with the password grant.
type Grant struct {
	ClientID     string
	SecretFile   string   // that ClientSecret was read from
	ClientSecret string   // secret
	Fields       []string // userdb fields that Dovecot 2.4 asks for, beside uid, gid, home, mail and quota
}

// Mail is the endpoint for nginx's mail proxy.
type Mail struct {
	SecretHeader string
	SecretFile   string                    // that Secret was read from
	Secret       string                    // secret
	Backends     map[string]netip.AddrPort // by protocol: imap, pop3, smtp
}

// Basic is the endpoint for web servers.
type Basic struct {
	Service        string
	Realm          string
	UserHeader     string
	TrustedProxies []netip.Prefix
	TrustUnix      bool
	AddressHeader  string
	SecretHeader   string
	SecretFile     string // that Secret was read from
	Secret         string // secret; empty: none is asked for
}

// Address is where a listener listens.
type Address struct {
	Network string // "unix", "tcp" or "systemd"
	Address string // absolute path, host:port, or the name of a socket that systemd hands over
}

// String writes the form that the file has: "unix:/path", "tcp:host:port" or "systemd:NAME".
func (a Address) String() string { return a.Network + ":" + a.Address }

// ParseAddress reads "unix:/path", "tcp:host:port", "host:port" or "systemd:NAME".
func ParseAddress(s string) (Address, error) {
	if name, found := strings.CutPrefix(s, "systemd:"); found {
		if name == "" {
			return Address{}, errors.New("it names no socket; write systemd:NAME with the FileDescriptorName= of the .socket unit")
		}
		return Address{"systemd", name}, nil
	}
	if path, found := strings.CutPrefix(s, "unix:"); found {
		switch {
		case !filepath.IsAbs(path):
			return Address{}, fmt.Errorf("%q is not an absolute path; write unix:/run/valetkey/NAME", path)
		case len(path) > 107: // sun_path holds 108 with its NUL: unix(7)
			return Address{}, fmt.Errorf("the path has %d bytes, and a Unix socket's may have 107; choose a shorter directory", len(path))
		}
		return Address{"unix", filepath.Clean(path)}, nil
	}
	s = strings.TrimPrefix(s, "tcp:")
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an address; write 127.0.0.1:PORT, [::1]:PORT or unix:/path", s)
	}
	if host == "" {
		return Address{}, fmt.Errorf("%q names no host; write 127.0.0.1:%s to be reached from this machine only", s, port)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return Address{}, fmt.Errorf("%q is not an IP address; names are not looked up here", host)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return Address{}, fmt.Errorf("%q is not a port", port)
	}
	return Address{"tcp", net.JoinHostPort(host, port)}, nil
}

// Private reports whether only this machine can reach the address. Of a socket of systemd's it is not known before it is there.
func (a Address) Private() bool {
	if a.Network != "tcp" {
		return true
	}
	host, _, _ := net.SplitHostPort(a.Address)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Flags are what the command line may say over the file.
type Flags struct {
	File     string // empty: none
	StateDir string // empty: as the file says, or the default
	LDAP     string // empty: as the file says
}

// Faults are everything that is wrong with a configuration.
type Faults []Fault

// Fault is one thing that is wrong.
type Fault struct {
	Key  string // "ldap[1].listen", or "" for the file as a whole
	Text string // what is wrong and the cure
}

// Error lists all faults, a line each.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.Text
		if x.Key != "" {
			lines[i] = x.Key + ": " + x.Text
		}
	}
	return strings.Join(lines, "\n")
}

// Load reads the file, if any, and checks everything. The error is [Faults], or one that says why the file cannot be read.
func Load(flags Flags) (*Config, error) {
	r := &reader{table: map[string]any{}}
	if flags.File != "" {
		text, err := os.ReadFile(flags.File)
		if err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
		if _, err := toml.Decode(string(text), &r.table); err != nil {
			var syntax toml.ParseError
			if errors.As(err, &syntax) {
				// Message, not Error: the latter quotes the line, which may hold the database's password.
				return nil, Faults{{Text: fmt.Sprintf("%s:%d: %s", flags.File, syntax.Position.Line, syntax.Message)}}
			}
			return nil, Faults{{Text: flags.File + ": not a TOML file"}}
		}
	}
	c := r.config(flags)
	if flags.File != "" && c.Database.URL != "" {
		if info, err := os.Stat(flags.File); err == nil && info.Mode().Perm()&0o004 != 0 && hasPassword(c.Database.URL) {
			r.fault("database.url", "it holds a password, and everybody may read %s; run: chmod o= %s", flags.File, flags.File)
		}
	}
	if len(r.faults) > 0 {
		return nil, r.faults
	}
	return c, nil
}

func hasPassword(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return true // when in doubt
	}
	_, set := u.User.Password()
	return set || u.Query().Has("password")
}

func (r *reader) config(flags Flags) *Config {
	c := &Config{}
	c.StateDir = r.text("state_dir", DefaultStateDir)
	if flags.StateDir != "" {
		c.StateDir = flags.StateDir
		if abs, err := filepath.Abs(c.StateDir); err == nil {
			c.StateDir = abs
		}
	}
	if !filepath.IsAbs(c.StateDir) {
		r.fault("state_dir", "%q is not an absolute path", c.StateDir)
		c.StateDir = DefaultStateDir // so that no path below it is a fault too
	}
	run := filepath.Join(c.StateDir, "run")

	db := r.sub("database")
	c.Database.URL = db.text("url", "")
	if c.Database.URL != "" {
		db.checkURL(c.Database.URL)
	}

	pepper := r.sub("pepper")
	c.Pepper.File = pepper.path("file", filepath.Join(c.StateDir, "pepper"))

	admin := r.sub("admin")
	c.Admin.Socket = admin.path("socket", filepath.Join(run, "admin.sock"))
	if len(c.Admin.Socket) > 107 {
		admin.fault("socket", "the path has %d bytes, and a Unix socket's may have 107; choose a shorter state_dir or name the socket", len(c.Admin.Socket))
	}
	c.Admin.Group = admin.text("group", "")
	c.Admin.HelpDeskGroup, c.Admin.ReadOnlyGroup = admin.text("help_desk_group", ""), admin.text("read_only_group", "")
	c.Self = r.sub("self_service").selfService()
	mode, open := "0600", c.Self.Enabled || c.Admin.HelpDeskGroup != "" || c.Admin.ReadOnlyGroup != ""
	switch {
	case open:
		mode = "0666"
	case c.Admin.Group != "":
		mode = "0660"
	}
	c.Admin.Mode = admin.mode("mode", mode)
	switch others := c.Admin.Mode & 0o007; {
	case open && others != 0o006:
		admin.fault("mode", "%04o keeps those out whom help_desk_group, read_only_group or self_service lets in; leave it out: the daemon looks at who connects, and refuses", c.Admin.Mode)
	case !open && others != 0:
		admin.fault("mode", "%04o lets everybody on this machine create app passwords; use 0600, or 0660 with admin.group", c.Admin.Mode)
	}

	password := r.sub("password")
	c.Password.Length = password.number("length", 16)
	if n := c.Password.Length; n != 16 && n != 20 && n != 24 {
		password.fault("length", "%d is not 16, 20 or 24", n)
	}
	c.Password.Limit = password.number("limit", 25)
	if n := c.Password.Limit; n < 1 || n > 1000 {
		password.fault("limit", "%d is not between 1 and 1000", n)
	}

	c.Enrolment = r.sub("enrolment").enrolment()

	c.Throttle = r.sub("throttle").throttle()

	log := r.sub("log")
	switch level := log.text("level", "info"); level {
	case "debug":
		c.Log.Level = slog.LevelDebug
	case "info":
		c.Log.Level = slog.LevelInfo
	case "warn":
		c.Log.Level = slog.LevelWarn
	default:
		log.fault("level", "%q is not debug, info or warn", level)
	}

	c.Mail, c.Hooks, c.Notices = r.sub("mail").mail(), r.hooks(), r.sub("notices").notices()

	c.Metrics = r.sub("metrics").metrics()

	ldap, dovecot := r.subs("ldap"), r.subs("dovecot")
	saslauthd, checkpassword, http := r.subs("saslauthd"), r.subs("checkpassword"), r.subs("http")
	if len(ldap)+len(dovecot)+len(saslauthd)+len(checkpassword)+len(http) == 0 {
		c.Implied = true
		ldap, dovecot = []*reader{r.absent("ldap")}, []*reader{r.absent("dovecot")}
	}
	if flags.LDAP != "" {
		switch len(ldap) {
		case 0:
			ldap = []*reader{r.absent("ldap")}
			fallthrough
		case 1:
			ldap[0].table["listen"] = flags.LDAP
		default:
			r.fault("--ldap", "the file has %d [[ldap]] listeners; say in the file where each one listens", len(ldap))
		}
	}
	for _, l := range ldap {
		tls := l.tls()
		c.LDAP = append(c.LDAP, LDAP{
			Socket:  l.failureDelay(l.socketTLS("127.0.0.1:3389", tls.Mode), "off"), // the address is the application's, not the user's
			Conns:   l.connsTLS(1024, 256, 128),
			TLS:     tls,
			BaseDN:  l.text("base_dn", "dc=example,dc=org"),
			Service: l.service("service", "ldap"),

			Tree: l.tree(), Applications: l.applications(),
		})
		if u := l.optional("upstream"); u != nil {
			c.LDAP[len(c.LDAP)-1].Upstream = u.upstream()
		}
	}
	for _, d := range dovecot {
		x := Dovecot{Socket: d.failureDelay(d.socket("unix:"+filepath.Join(run, "dovecot-auth")), "2s"), Conns: d.connsTCP(4096, 0), Tempfail: d.text("tempfail", "auto")}
		switch x.Tempfail {
		case "auto", "disconnect", "reply":
		default:
			d.fault("tempfail", "%q is not auto, disconnect or reply", x.Tempfail)
		}
		c.Dovecot = append(c.Dovecot, x)
	}
	for _, m := range saslauthd {
		c.Saslauthd = append(c.Saslauthd, Saslauthd{
			Socket: m.failureDelay(m.unixSocket(filepath.Join(run, "mux")), "0s"), Conns: m.conns(1024), Service: m.service("service", ""),
		})
	}
	for _, k := range checkpassword {
		c.Checkpassword = append(c.Checkpassword, Checkpassword{
			Socket: k.failureDelay(k.unixSocket(filepath.Join(run, "checkpassword")), "0s"), Conns: k.conns(1024), Lookups: k.yes("lookups"),
		})
	}
	for _, h := range http {
		c.HTTP = append(c.HTTP, h.http())
	}
	r.checkDistinct(c)
	r.unknown()
	return c
}

// checkDistinct refuses two listeners at one address. Port 0 is a free one each time.
func (r *reader) checkDistinct(c *Config) {
	seen := map[string]string{"unix:" + c.Admin.Socket: "admin.socket"}
	add := func(key string, a Address) {
		if strings.HasSuffix(a.Address, ":0") || a.Address == "" {
			return
		}
		if other, taken := seen[a.String()]; taken {
			r.fault(key, "%s is already the address of %s", a, other)
			return
		}
		seen[a.String()] = key
	}
	for i, l := range c.LDAP {
		add(fmt.Sprintf("ldap[%d].listen", i+1), l.Listen)
	}
	for i, d := range c.Dovecot {
		add(fmt.Sprintf("dovecot[%d].listen", i+1), d.Listen)
	}
	for i, m := range c.Saslauthd {
		add(fmt.Sprintf("saslauthd[%d].listen", i+1), m.Listen)
	}
	for i, k := range c.Checkpassword {
		add(fmt.Sprintf("checkpassword[%d].listen", i+1), k.Listen)
	}
	for i, h := range c.HTTP {
		add(fmt.Sprintf("http[%d].listen", i+1), h.Listen)
	}
	if c.Metrics.On() {
		add("metrics.listen", c.Metrics.Listen)
	}
}

func (r *reader) checkURL(raw string) {
	if !strings.HasPrefix(raw, "postgres://") && !strings.HasPrefix(raw, "postgresql://") {
		r.fault("url", "it must begin with postgres://")
		return
	}
	u, err := url.Parse(raw) // its error would quote the URL
	if err != nil {
		r.fault("url", "it is not a URL; a password with special characters must be percent-encoded")
		return
	}
	if !u.Query().Has("sslmode") {
		r.fault("url", "it does not say how the link is protected; add sslmode=verify-full, or sslmode=disable for a Unix socket or loopback")
	}
}

// CheckPlaintext refuses an address that other machines reach, since passwords would travel to it in clear. A front end that knows
// TLS has one more cure.
func CheckPlaintext(a Address, allowed, knowsTLS bool) error {
	if a.Address == "" || a.Private() || allowed {
		return nil
	}
	cure := "listen on 127.0.0.1 or a Unix socket"
	if knowsTLS {
		cure = "give it a certificate with tls_cert and tls_key, " + cure
	}
	return fmt.Errorf("%s can be reached from other machines, and passwords would travel in clear; %s, or set allow_plaintext = true if the network between is protected", a, cure)
}

// CheckTLS refuses TLS where it makes no sense.
func CheckTLS(a Address, mode string) error {
	if a.Network == "unix" && mode != "" {
		return errors.New("a Unix socket never leaves this machine and needs no TLS; leave tls, tls_cert and tls_key out")
	}
	return nil
}

// tls reads the keys about TLS. With a certificate the default is StartTLS: who does not ask for it is served as before, on the same
// port, while LDAPS would turn all of them away.
func (r *reader) tls() TLS {
	mode, cert, key := r.text("tls", ""), r.text("tls_cert", ""), r.text("tls_key", "")
	for name, path := range map[string]string{"tls_cert": cert, "tls_key": key} {
		if path != "" && !filepath.IsAbs(path) {
			r.fault(name, "%q is not an absolute path", path)
		}
	}
	switch {
	case mode == "" && cert == "" && key == "":
		return TLS{}
	case mode == "":
		mode = "starttls"
	case mode == "off":
		return TLS{}
	case mode != "starttls" && mode != "ldaps":
		r.fault("tls", "%q is not ldaps, starttls or off", mode)
		return TLS{}
	}
	for name, path := range map[string]string{"tls_cert": cert, "tls_key": key} {
		if path == "" {
			r.fault(name, "it is missing; TLS needs a certificate and its key in PEM: tls_cert = \"/path/fullchain.pem\" and tls_key = \"/path/privkey.pem\"")
		}
	}
	_, said := r.table["allow_plaintext"]
	return TLS{Mode: mode, Cert: filepath.Clean(cert), Key: filepath.Clean(key), Always: mode == "starttls" && said && !r.yes("allow_plaintext")}
}

// socketTLS reads what every listener has, of one that knows TLS.
func (r *reader) socketTLS(fallback, mode string) Socket { return r.anySocket(fallback, mode, true) }

// socket reads what every listener has.
func (r *reader) socket(fallback string) Socket { return r.anySocket(fallback, "", false) }

func (r *reader) anySocket(fallback, mode string, knowsTLS bool) Socket {
	x := Socket{
		Listen: r.address("listen", fallback), Mode: r.mode("mode", "0660"), Owner: r.text("owner", ""), Group: r.text("group", ""),
		AllowPlaintext: r.yes("allow_plaintext"),
	}
	if err := CheckPlaintext(x.Listen, x.AllowPlaintext || mode != "", knowsTLS); err != nil {
		r.fault("listen", "%v", err)
	}
	if err := CheckTLS(x.Listen, mode); err != nil {
		r.fault("tls", "%v", err)
	}
	return x
}

// unixSocket reads the same of a listener whose protocol has Unix sockets only.
func (r *reader) unixSocket(fallback string) Socket {
	x := Socket{
		Listen: r.address("listen", "unix:"+fallback), Mode: r.mode("mode", "0660"), Owner: r.text("owner", ""), Group: r.text("group", ""),
	}
	if x.Listen.Network == "tcp" {
		r.fault("listen", "%s is not a Unix socket, and its peers know nothing else; write unix:/path", x.Listen)
	}
	return x
}

func (r *reader) http() HTTP {
	x := HTTP{Socket: r.failureDelay(r.socket("127.0.0.1:8389"), "0s"), Conns: r.conns(1024)}
	if g := r.optional("dovecot_grant"); g != nil {
		x.Grant = &Grant{
			ClientID: g.text("client_id", "dovecot"), SecretFile: g.text("client_secret_file", ""),
			ClientSecret: g.secretFile("client_secret_file", true), Fields: g.texts("fields"),
		}
	}
	if m := r.optional("nginx_mail"); m != nil {
		x.Mail = &Mail{
			SecretHeader: m.text("secret_header", "X-Auth-Key"),
			SecretFile:   m.text("secret_file", ""), Secret: m.secretFile("secret_file", true),
			Backends: map[string]netip.AddrPort{},
		}
		for _, protocol := range []string{"imap", "pop3", "smtp"} {
			text := m.text(protocol, "")
			if text == "" {
				continue
			}
			a, err := netip.ParseAddrPort(text)
			if err != nil {
				m.fault(protocol, "%q is not ADDRESS:PORT of the server behind nginx", text)
			}
			x.Mail.Backends[protocol] = a
		}
		if len(x.Mail.Backends) == 0 {
			m.fault("imap", "neither imap, pop3 nor smtp is given; write imap = \"127.0.0.1:143\" for the server behind nginx")
		}
	}
	if b := r.optional("basic"); b != nil {
		x.Basic = &Basic{
			Service: b.service("service", "http"), Realm: b.text("realm", "app password"), UserHeader: b.text("user_header", "Remote-User"),
			TrustedProxies: b.networks("trusted_proxies"), TrustUnix: b.yes("trust_unix"), AddressHeader: b.text("address_header", ""),
			SecretHeader: b.text("secret_header", "X-Auth-Key"), SecretFile: b.text("secret_file", ""), Secret: b.secretFile("secret_file", false),
		}
	}
	if x.Grant == nil && x.Mail == nil && x.Basic == nil {
		r.fault("basic", "no endpoint is given; write [http.dovecot_grant], [http.nginx_mail] or [http.basic] below [[http]]")
	}
	return x
}

// service reads a service name; an empty fallback makes it optional.
func (r *reader) service(key, fallback string) string {
	s := r.text(key, fallback)
	if s == "" && fallback == "" {
		return ""
	}
	n, err := auth.NormaliseService(s)
	if err != nil {
		r.fault(key, "%q: %v", s, err)
	}
	return n
}
