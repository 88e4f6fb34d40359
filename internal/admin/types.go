// Package admin is the administrative API: its types, the service behind it, the HTTP server on the daemon's Unix socket, and
// the client that the companion command uses.
//
// It refuses to know SQL (it declares the store's interface) and front ends. The one rule a newcomer would break: a secret
// leaves once, in the answer to a creation; nothing else here may hold a secret, a hash or a tag.
package admin

import (
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Kinds of accounts.
const (
	KindPerson = "person"
	KindReader = "reader" // may search the directory, and nothing else
)

// Account is an account as the API shows it.
type Account struct {
	Kind         string              `json:"kind"`
	Login        string              `json:"login"`
	Aliases      []string            `json:"aliases"`
	DisplayName  string              `json:"display_name"`
	Enabled      bool                `json:"enabled"`
	Attributes   map[string][]string `json:"attributes"`
	Userdb       map[string]string   `json:"userdb"`
	Groups       []string            `json:"groups"`
	UUID         string              `json:"uuid"`
	CreatedAt    time.Time           `json:"created_at"`
	ModifiedAt   time.Time           `json:"modified_at"`
	AppPasswords int                 `json:"app_passwords"`   // live ones
	Limit        int                 `json:"limit,omitempty"` // of them; absent: as the configuration says
}

// NewAccount asks for an account.
type NewAccount struct {
	Kind        string              `json:"kind,omitempty"` // empty: person
	Login       string              `json:"login"`
	Aliases     []string            `json:"aliases,omitempty"`
	DisplayName string              `json:"display_name,omitempty"`
	Attributes  map[string][]string `json:"attributes,omitempty"`
	Userdb      map[string]string   `json:"userdb,omitempty"`
}

// AccountPatch changes an account; what is nil stays.
type AccountPatch struct {
	Enabled     *bool   `json:"enabled,omitempty"`
	DisplayName *string `json:"display_name,omitempty"`
	Limit       *int    `json:"limit,omitempty"` // live app passwords; 0: as the configuration says
	// Attributes replace those of the same name; one without values goes. Userdb the same, and an empty field goes.
	Attributes    map[string][]string `json:"attributes,omitempty"`
	Userdb        map[string]string   `json:"userdb,omitempty"`
	AddAliases    []string            `json:"add_aliases,omitempty"`
	RemoveAliases []string            `json:"remove_aliases,omitempty"`
}

// Accounts is a page of accounts, by login. Next is the value of "after" for the next page, or empty at the end.
type Accounts struct {
	Accounts []Account `json:"accounts"`
	Next     string    `json:"next,omitempty"`
}

// Group is a group as the API shows it.
type Group struct {
	Name        string              `json:"name"`
	DisplayName string              `json:"display_name"`
	Attributes  map[string][]string `json:"attributes"`
	UUID        string              `json:"uuid"`
	CreatedAt   time.Time           `json:"created_at"`
	ModifiedAt  time.Time           `json:"modified_at"`
	MemberCount int                 `json:"member_count"`
	Members     []string            `json:"members,omitzero"` // canonical logins, sorted; not in a list of groups
}

// NewGroup asks for a group.
type NewGroup struct {
	Name        string              `json:"name"`
	DisplayName string              `json:"display_name,omitempty"`
	Attributes  map[string][]string `json:"attributes,omitempty"`
}

// GroupPatch changes a group; what is nil stays. Attributes replace those of the same name; one without values goes.
type GroupPatch struct {
	DisplayName   *string             `json:"display_name,omitempty"`
	Attributes    map[string][]string `json:"attributes,omitempty"`
	AddMembers    []string            `json:"add_members,omitempty"`
	RemoveMembers []string            `json:"remove_members,omitempty"`
}

// Groups is a page of groups, by name. Next is the value of "after" for the next page, or empty at the end.
type Groups struct {
	Groups []Group `json:"groups"`
	Next   string  `json:"next,omitempty"`
}

// Status of an app password.
const (
	Live    = "live"
	Expired = "expired"
	Revoked = "revoked"
)

// AppPassword is an app password as the API shows it.
type AppPassword struct {
	Login            string      `json:"login"`
	Label            string      `json:"label"`
	Status           string      `json:"status"`
	Services         []string    `json:"services"` // empty: all
	Networks         []string    `json:"networks"` // CIDR; empty: all
	Origin           auth.Origin `json:"origin"`
	CreatedAt        time.Time   `json:"created_at"`
	CreatedBy        string      `json:"created_by"`
	ExpiresAt        *time.Time  `json:"expires_at,omitempty"`
	ExpiresUnusedFor string      `json:"expires_unused_for,omitempty"` // Go duration
	LastUsed         *Use        `json:"last_used,omitempty"`
	RevokedAt        *time.Time  `json:"revoked_at,omitempty"`
	RevokedBy        string      `json:"revoked_by,omitempty"`
	RevokedWhy       string      `json:"revoked_why,omitempty"`
	ExemptAt         *time.Time  `json:"exempt_at,omitempty"` // exempt from the second factor
	ExemptBy         string      `json:"exempt_by,omitempty"`
	ExemptWhy        string      `json:"exempt_why,omitempty"`

	// After a rotation, until the first use of the new secret: Rotated is true of the new one, ReplacedAt is of the old one, which
	// has the same label.
	Rotated    bool       `json:"rotated,omitempty"`
	ReplacedAt *time.Time `json:"replaced_at,omitempty"`
}

// Use is one accepted login.
type Use struct {
	At       time.Time `json:"at"`
	Service  string    `json:"service"`
	FrontEnd string    `json:"front_end"`
	Address  string    `json:"address,omitempty"` // empty: the protocol did not tell
}

// AppPasswords are those of one account.
type AppPasswords struct {
	AppPasswords []AppPassword `json:"app_passwords"`
}

// NewAppPassword asks for an app password.
type NewAppPassword struct {
	Label            string     `json:"label"`
	Services         []string   `json:"services,omitempty"`
	Networks         []string   `json:"networks,omitempty"` // CIDR, or an address for itself alone
	ExpiresAt        *time.Time `json:"expires_at,omitempty"`
	ExpiresUnusedFor string     `json:"expires_unused_for,omitempty"` // Go duration
	ExemptBecause    string     `json:"exempt_because,omitempty"`     // no second factor is asked for, for this reason; admins only
}

// Created is a fresh app password with its secret, which is never shown again.
type Created struct {
	AppPassword AppPassword `json:"app_password"`
	Secret      string      `json:"secret"` // abcd-efgh-ijkl-mnop
}

// Revocation ends an app password.
type Revocation struct {
	Why string `json:"why,omitempty"`
}

// Status is the state of the daemon.
type Status struct {
	Version   string        `json:"version"`
	Config    string        `json:"config,omitempty"` // path of the configuration file; empty: there is none
	StateDir  string        `json:"state_dir,omitempty"`
	Started   time.Time     `json:"started"`
	Database  Database      `json:"database"`
	Peppers   []string      `json:"peppers"`                   // ids, the active one first
	Unknown   []string      `json:"unknown_peppers,omitempty"` // of rows that this daemon finds only slowly
	Listeners []Listener    `json:"listeners"`
	Implied   bool          `json:"implied,omitempty"` // the listeners are there because the file names none
	Enrolment Plugin        `json:"enrolment"`
	Counters  auth.Counters `json:"counters"`
	Throttle  *Throttle     `json:"throttle,omitempty"`      // nil: the configuration has none
	Floor     string        `json:"refusal_floor,omitempty"` // Go duration: refusals go out at multiples of it; empty: when they are ready
	Directory Directory     `json:"directory"`
	Notices   *Notices      `json:"notices,omitempty"` // nil: nobody is told of anything, or the database does not answer
}

// Throttle counts guesses since the start, but for Held and Remembered.
type Throttle struct {
	Held       int64 `json:"held"`       // refusals held back now
	Counted    int64 `json:"counted"`    // guesses
	Repeated   int64 `json:"repeated"`   // the same wrong password again, which does not count
	Refused    int64 `json:"refused"`    // undecided without a look, because too many of one source were under way
	Remembered int   `json:"remembered"` // sources and logins
}

// Directory counts searches in our own people and groups, since the start.
type Directory struct {
	Finds   uint64 `json:"finds"`   // by login, attribute or the like, which share queries
	Queries uint64 `json:"queries"` // that they shared
}

// Database is the state of the database as this daemon sees it.
type Database struct {
	Reachable bool   `json:"reachable"`
	Private   bool   `json:"private"` // a cluster of the daemon's own
	Version   string `json:"version,omitempty"`
	Schema    int64  `json:"schema,omitempty"`
	Target    int64  `json:"schema_target,omitempty"` // that this daemon wants
	Clock     string `json:"clock_offset,omitempty"`  // Go duration: how far the server's clock is ahead of the daemon's
	Error     string `json:"error,omitempty"`
}

// Listener is where a front end listens.
type Listener struct {
	Name        string `json:"name"` // as in the configuration: "ldap[1]"
	FrontEnd    string `json:"front_end"`
	Address     string `json:"address"` // "unix:/path" or "tcp:host:port", with the port that was chosen
	BaseDN      string `json:"base_dn,omitempty"`
	Service     string `json:"service,omitempty"`
	Connections int64  `json:"connections"` // open now

	Systemd string `json:"systemd,omitempty"` // name of the socket that systemd handed over; empty: the daemon made its own

	// Since the listener was made: connections that were closed at once because there were too many, and those that nobody had logged in on and
	// that were closed to make room for others.
	Refused int64 `json:"refused,omitempty"`
	Yielded int64 `json:"yielded,omitempty"`

	// Of a Unix socket that the daemon made: "0660" and names. No mode means that systemd made it.
	Mode  string `json:"mode,omitempty"`
	Owner string `json:"owner,omitempty"` // empty: the daemon's own
	Group string `json:"group,omitempty"` // the same

	Applications []Application `json:"applications,omitempty"` // of [[ldap]]

	TLS       *TLS                `json:"tls,omitempty"`       // nil: none
	Lookups   bool                `json:"lookups,omitempty"`   // of checkpassword
	Endpoints map[string]Endpoint `json:"endpoints,omitempty"` // of [[http]], by section: dovecot_grant, nginx_mail, basic
}

// Application is a suffix of its own for a program, app=NAME, below the base DN of a listener.
type Application struct {
	Name    string `json:"name"`
	Service string `json:"service"`
	Group   string `json:"group,omitempty"` // whose members may log in; empty: everybody

	GroupMissing bool `json:"group_missing,omitempty"` // there is no such group: nobody can log in
}

// TLS is how the connections of a listener are protected.
type TLS struct {
	Mode        string    `json:"mode"`                   // "starttls" or "ldaps"
	Required    string    `json:"required,omitempty"`     // of passwords: "always", or "remote" for those of other machines; empty: never
	Certificate string    `json:"certificate"`            // path
	Fingerprint string    `json:"fingerprint"`            // SHA-256 of the certificate in use, in hexadecimal digits
	Until       time.Time `json:"until"`                  // its end
	ExpiresSoon bool      `json:"expires_soon,omitempty"` // its renewal is late
	Expired     bool      `json:"expired,omitempty"`
	Error       string    `json:"error,omitempty"` // why what is in the files now is not used
}

// Endpoint is what a peer must know to ask at one endpoint of an HTTP listener, but for the secret itself.
type Endpoint struct {
	SecretFile    string            `json:"secret_file,omitempty"` // empty: no secret is asked for
	SecretHeader  string            `json:"secret_header,omitempty"`
	ClientID      string            `json:"client_id,omitempty"`
	AddressHeader string            `json:"address_header,omitempty"`
	UserHeader    string            `json:"user_header,omitempty"`
	Backends      map[string]string `json:"backends,omitempty"` // of nginx_mail, host:port by protocol
}

func accountView(a auth.Account) Account {
	v := Account{
		Kind: KindPerson, Login: a.Login, Aliases: a.Aliases, DisplayName: a.DisplayName, Enabled: a.Enabled, Attributes: a.Attributes,
		Userdb: a.Userdb, Groups: a.Groups, UUID: a.UUID, CreatedAt: a.CreatedAt, ModifiedAt: a.ModifiedAt, AppPasswords: a.AppPasswords,
		Limit: a.Limit,
	}
	if a.Kind == auth.Reader {
		v.Kind = KindReader
	}
	if v.Aliases == nil {
		v.Aliases = []string{}
	}
	if v.Attributes == nil {
		v.Attributes = map[string][]string{}
	}
	if v.Userdb == nil {
		v.Userdb = map[string]string{}
	}
	if v.Groups == nil {
		v.Groups = []string{}
	}
	return v
}

func groupView(g auth.Group, members bool) Group {
	v := Group{Name: g.Name, DisplayName: g.DisplayName, Attributes: g.Attributes, UUID: g.UUID, CreatedAt: g.CreatedAt,
		ModifiedAt: g.ModifiedAt, MemberCount: g.MemberCount}
	if v.Attributes == nil {
		v.Attributes = map[string][]string{}
	}
	if members {
		v.Members = append([]string{}, g.Members...)
	}
	return v
}

func appPasswordView(p auth.AppPassword) AppPassword {
	v := AppPassword{
		Login: p.Login, Label: p.Label, Status: Live, Services: p.Services, Networks: []string{}, Origin: p.Origin,
		CreatedAt: p.CreatedAt, CreatedBy: p.CreatedBy, RevokedBy: p.RevokedBy, RevokedWhy: p.RevokedWhy,
		ExemptBy: p.ExemptBy, ExemptWhy: p.ExemptWhy,
	}
	if !p.ExemptAt.IsZero() {
		v.ExemptAt = &p.ExemptAt
	}
	if v.Services == nil {
		v.Services = []string{}
	}
	for _, n := range p.Networks {
		v.Networks = append(v.Networks, n.String())
	}
	if !p.ExpiresAt.IsZero() {
		v.ExpiresAt = &p.ExpiresAt
	}
	if p.ExpiresUnusedFor > 0 {
		v.ExpiresUnusedFor = p.ExpiresUnusedFor.String()
	}
	if u := p.LastUsed; u != nil {
		v.LastUsed = &Use{At: u.At, Service: u.Service, FrontEnd: u.FrontEnd}
		if u.Addr.IsValid() {
			v.LastUsed.Address = u.Addr.String()
		}
	}
	if !p.ReplacedAt.IsZero() {
		v.ReplacedAt = &p.ReplacedAt
	}
	v.Rotated = p.Replaces != 0
	switch {
	case !p.RevokedAt.IsZero():
		v.Status, v.RevokedAt = Revoked, &p.RevokedAt
	case p.Expired:
		v.Status = Expired
	}
	return v
}
