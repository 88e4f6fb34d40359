package httpauth

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Config says what a [Server] serves and how it treats its peers. At least one endpoint must be given. The zero value
// of every other field stands for the default given with it.
type Config struct {
	// Listener is the name that logs and requests carry. Default: the listener's own address, "unix:/run/x" or
	// "tcp:127.0.0.1:12345".
	Listener string

	Grant *Grant // POST /dovecot/grant; nil: not served
	Mail  *Mail  // GET /nginx/mail; nil: not served
	Basic *Basic // GET /basic and GET /basic/SERVICE; nil: not served

	// MaxConns is the number of connections over all listeners; further ones are closed at once. Default 1024.
	MaxConns int

	// MaxRunning is the number of decisions that run at a time; one more request is undecided at once. Default 512.
	MaxRunning int

	// DecisionTimeout bounds a decision; after it the login is undecided. Default 20 s: Dovecot and nginx wait for 60.
	DecisionTimeout time.Duration

	// ReadTimeout is how long a peer may take to send a request. Default 10 s.
	ReadTimeout time.Duration

	// IdleTimeout is how long a connection may lie idle between requests. Default 3 min: longer than Dovecot (60 s) and
	// nginx (60 s) keep theirs. Dovecot does not repeat a request that met a connection just being closed; its user
	// would see a temporary failure.
	IdleTimeout time.Duration
}

// Grant is the endpoint for Dovecot's oauth2 passdb, with use_grant_password.
type Grant struct {
	ClientID     string // default "dovecot"
	ClientSecret string // required, [MinSecret] bytes at least

	// Fields are names of userdb fields that Dovecot 2.4 is always sent, empty if the account has none: its auth process
	// aborts when its oauth2_fields ask for one that is not in the answer. Uid, gid, home, mail and quota are always among
	// them. Dovecot 2.3 is not sent them, so that it can put its own default in their place.
	Fields []string
}

// Mail is the endpoint for nginx's ngx_mail_auth_http_module.
type Mail struct {
	SecretHeader string // name in nginx's auth_http_header; default "X-Auth-Key"
	Secret       string // value in it; required, [MinSecret] bytes at least

	// Backends is where nginx is to connect to once the login is accepted, by its protocol: "imap", "pop3", "smtp". A
	// login for a protocol that is not here is undecided.
	Backends map[string]netip.AddrPort

	// RetryWait is how long nginx holds back the refusal of a login before the mail client may try again on the same
	// connection. Whole seconds. Default 2 s, as in Dovecot.
	RetryWait time.Duration

	// MaxAttempts is how many attempts one connection to nginx may make before nginx closes it. Default 10: nginx frees
	// the memory of an attempt only with the connection.
	MaxAttempts int
}

// Basic is the endpoint for web servers.
type Basic struct {
	Service    string // of GET /basic; default "http"
	Realm      string // default "app password"
	UserHeader string // of an accepted login, with the canonical login; default "Remote-User"

	// TrustedProxies may say where the user is, in AddressHeader: the web servers that ask. A Unix socket has no
	// address; TrustUnix says whether whoever can open it is trusted.
	TrustedProxies []netip.Prefix
	TrustUnix      bool

	// AddressHeader is where a trusted proxy puts the user's address. "X-Forwarded-For" is read from the right up to the
	// first address that is not a trusted proxy's; any other header must hold one address. Default: none, so that no
	// address is known, and app passwords that are limited to networks do not open anything here.
	AddressHeader string

	// SecretHeader and Secret keep other programs on this machine from asking. Default: none is needed. If there is one,
	// it has [MinSecret] bytes at least, and SecretHeader is "X-Auth-Key" unless given.
	SecretHeader string
	Secret       string
}

// MinSecret is the shortest shared secret, in bytes.
const MinSecret = 16

const defaultSecretHeader = "X-Auth-Key"

// withDefaults returns a copy that shares nothing which New changes. The error says what cannot be served.
func (c Config) withDefaults() (Config, error) {
	count := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	wait := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	count(&c.MaxConns, 1024)
	count(&c.MaxRunning, 512)
	wait(&c.DecisionTimeout, 20*time.Second)
	wait(&c.ReadTimeout, 10*time.Second)
	wait(&c.IdleTimeout, 3*time.Minute)

	if c.Grant == nil && c.Mail == nil && c.Basic == nil {
		return c, errors.New("no endpoint is configured")
	}
	if c.Grant != nil {
		g, err := c.Grant.withDefaults()
		if err != nil {
			return c, fmt.Errorf("dovecot grant: %w", err)
		}
		c.Grant = &g
	}
	if c.Mail != nil {
		m, err := c.Mail.withDefaults()
		if err != nil {
			return c, fmt.Errorf("nginx mail: %w", err)
		}
		c.Mail = &m
	}
	if c.Basic != nil {
		b, err := c.Basic.withDefaults()
		if err != nil {
			return c, fmt.Errorf("basic: %w", err)
		}
		c.Basic = &b
	}
	return c, nil
}

func (g Grant) withDefaults() (Grant, error) {
	text(&g.ClientID, "dovecot")
	g.Fields = append([]string{"uid", "gid", "home", "mail", "quota"}, g.Fields...)
	return g, checkSecret("client secret", g.ClientSecret)
}

func (m Mail) withDefaults() (Mail, error) {
	text(&m.SecretHeader, defaultSecretHeader)
	if m.RetryWait <= 0 {
		m.RetryWait = 2 * time.Second
	}
	if m.RetryWait < time.Second {
		m.RetryWait = time.Second // 0 would make nginx close the connection
	}
	if m.MaxAttempts <= 0 {
		m.MaxAttempts = 10
	}
	if err := checkHeader(m.SecretHeader); err != nil {
		return m, err
	}
	if err := checkHeaderSecret(m.Secret); err != nil {
		return m, err
	}
	if len(m.Backends) == 0 {
		return m, errors.New("no backend is configured")
	}
	for protocol, backend := range m.Backends {
		if !mailProtocol(protocol) {
			return m, fmt.Errorf("backend for %q: nginx knows imap, pop3 and smtp", protocol)
		}
		if !backend.IsValid() || backend.Port() == 0 || backend.Addr().Zone() != "" {
			return m, fmt.Errorf("backend for %s: %s is not an address with a port", protocol, backend)
		}
	}
	return m, nil
}

func (b Basic) withDefaults() (Basic, error) {
	text(&b.Service, "http")
	text(&b.Realm, "app password")
	text(&b.UserHeader, "Remote-User")
	var err error
	if b.Service, err = auth.NormaliseService(b.Service); err != nil {
		return b, fmt.Errorf("service: %w", err)
	}
	for i := 0; i < len(b.Realm); i++ {
		if c := b.Realm[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return b, fmt.Errorf("realm %q: only printable ASCII without quotes and backslashes is allowed", b.Realm)
		}
	}
	if err := checkHeader(b.UserHeader); err != nil {
		return b, err
	}
	if b.AddressHeader != "" {
		if err := checkHeader(b.AddressHeader); err != nil {
			return b, err
		}
		if len(b.TrustedProxies) == 0 && !b.TrustUnix {
			return b, fmt.Errorf("address header %s: no proxy is trusted to set it", b.AddressHeader)
		}
	} else if len(b.TrustedProxies) > 0 || b.TrustUnix {
		return b, errors.New("proxies are trusted, but the address header is not named")
	}
	for _, p := range b.TrustedProxies {
		if !p.IsValid() {
			return b, errors.New("a trusted proxy is not a network")
		}
	}
	if b.Secret == "" {
		if b.SecretHeader != "" {
			return b, fmt.Errorf("secret header %s: no secret is configured", b.SecretHeader)
		}
		return b, nil
	}
	text(&b.SecretHeader, defaultSecretHeader)
	if err := checkHeader(b.SecretHeader); err != nil {
		return b, err
	}
	return b, checkHeaderSecret(b.Secret)
}

func text(s *string, def string) {
	if *s == "" {
		*s = def
	}
}

func checkSecret(what, secret string) error {
	switch {
	case secret == "":
		return fmt.Errorf("no %s is configured", what)
	case len(secret) < MinSecret:
		return fmt.Errorf("the %s is shorter than %d bytes", what, MinSecret)
	}
	return nil
}

// checkHeaderSecret also sees to it that a header can carry the secret unchanged.
func checkHeaderSecret(secret string) error {
	if err := checkSecret("secret", secret); err != nil {
		return err
	}
	unprintable := strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r > '~' })
	if unprintable || strings.Trim(secret, " ") != secret {
		return errors.New("the secret holds what cannot stand in a header: only printable ASCII is allowed")
	}
	return nil
}

// checkHeader accepts letters, digits and hyphens: underscores are dropped by nginx.
func checkHeader(name string) error {
	odd := strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
	})
	if name == "" || odd {
		return fmt.Errorf("%q is not the name of a header: only letters, digits and hyphens are allowed", name)
	}
	return nil
}

func mailProtocol(name string) bool { return name == "imap" || name == "pop3" || name == "smtp" }
