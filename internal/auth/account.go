package auth

import (
	"errors"
	"net/netip"
	"time"
)

// Account is the record of a person, or of a [Reader].
type Account struct {
	ID          int64
	UUID        string // stable for ever: RFC 4122 text form, LDAP entryUUID
	Login       string // canonical, normalised by [NormaliseLogin]
	Aliases     []string
	DisplayName string
	Enabled     bool
	Kind        Kind
	Groups      []string // names of the groups it is in, sorted
	// Attributes are LDAP attributes (canonical spelling -> values), e.g. "mail". Never a password or hash.
	Attributes map[string][]string
	// Userdb are the fields a mail server may ask for: uid, gid, home, mail, quota, free ones.
	Userdb     map[string]string
	CreatedAt  time.Time
	ModifiedAt time.Time
	// AppPasswords is the number of live ones. Not counted for a directory's entry.
	AppPasswords int
	Limit        int // live app passwords that it may have; zero: as many as the configuration says. Not read for a directory's entry.
}

// NewAccount is what an admin gives to add an account. Login and Aliases must be normalised.
type NewAccount struct {
	Kind        Kind
	Login       string
	Aliases     []string
	DisplayName string
	Attributes  map[string][]string
	Userdb      map[string]string
}

// AccountChange is what an admin gives to change an account. The zero value changes nothing.
type AccountChange struct {
	Enabled     *bool   // nil: as it is
	DisplayName *string // nil: as it is
	Limit       *int    // nil: as it is; zero: as many as the configuration says
	// Attributes replace those of the same name in any case; one without values is taken away.
	Attributes map[string][]string
	// Userdb replaces the fields of the same name; an empty one is taken away.
	Userdb map[string]string
	// AddAliases and RemoveAliases are normalised. Adding one that is there and removing one that is not are no errors.
	AddAliases, RemoveAliases []string
}

// Origin says where an app password came from.
type Origin string

const (
	Generated Origin = "generated" // by us: carries a tag, compared in normalised form
	Imported  Origin = "imported"  // a hash taken over from elsewhere: no tag, compared byte for byte
)

// AppPassword is the stored thing as an admin may see it. It holds neither hash nor tag, so that it can be printed.
type AppPassword struct {
	ID        int64
	AccountID int64
	Login     string // of the account, canonical
	Label     string
	Services  []string       // empty: all
	Networks  []netip.Prefix // empty: all
	Origin    Origin

	CreatedAt        time.Time
	CreatedBy        string
	ExpiresAt        time.Time     // zero: never
	ExpiresUnusedFor time.Duration // zero: never; counted from the last use, or from creation
	LastUsed         *Use          // nil: never
	RevokedAt        time.Time     // zero: not revoked
	RevokedBy        string
	RevokedWhy       string
	ExemptAt         time.Time // zero: not exempt from the second factor
	ExemptBy         string
	ExemptWhy        string
	Expired          bool // by the database's clock when it was read

	// Between a rotation and the first use of the new secret there are two rows under one label. Replaces is the new one's: the id of
	// the row with the old secret, zero if there is none (any more). ReplacedAt is the old one's.
	Replaces   int64
	ReplacedAt time.Time
}

// Live reports whether the app password still opens anything.
func (p AppPassword) Live() bool { return p.RevokedAt.IsZero() && !p.Expired }

// Use is one accepted login.
type Use struct {
	At       time.Time
	Service  string
	FrontEnd string
	Addr     netip.Addr // zero: not known
}

// NewAppPassword is what the store keeps of a freshly issued app password.
type NewAppPassword struct {
	Login            string // canonical or alias, normalised
	Label            string // as shown
	LabelKey         string // folded for comparison, by [CheckLabel]
	Services         []string
	Networks         []netip.Prefix
	ExpiresAt        time.Time
	ExpiresUnusedFor time.Duration
	Origin           Origin
	PHC              string // secret-derived: never log it
	Tag              *Tag   // nil for imported ones
	CreatedBy        string
	ExemptWhy        string // empty: not exempt from the second factor
	LimitPerAccount  int    // live ones the account may hold, this one included
	// MakeAccount adds an account with this login and nothing else, if there is none, in the same step. Somebody else must
	// know that the login exists.
	MakeAccount bool
}

// Errors of the administrative operations that a caller branches on.
var (
	ErrNoAccount  = errors.New("no such account")
	ErrLoginTaken = errors.New("login is already taken")
	ErrNoLabel    = errors.New("no app password with this label")
	ErrLabelTaken = errors.New("label is already in use")
	ErrTagTaken   = errors.New("tag is already in use")
	ErrLimit      = errors.New("account has as many app passwords as it may")
	ErrRevoked    = errors.New("app password is revoked")
	ErrExpired    = errors.New("app password has expired")
	ErrLastScope  = errors.New("without the last service or network the app password would open everything")
	ErrNoScope    = errors.New("app password is not limited, so nothing can be added")
	ErrNotMade    = errors.New("app password was made by somebody else, or is exempt")
	ErrScopes     = errors.New("app password has as many services or networks as it may")
	ErrBadCursor  = errors.New("not a place in this list")
	ErrNoGroup    = errors.New("no such group")
	ErrGroupTaken = errors.New("group name is already taken")
	ErrGroupLimit = errors.New("group has as many members, or account is in as many groups, as it may")
	ErrNotPerson  = errors.New("account is a reader, not a person")
	ErrAmbiguous  = errors.New("several users have this login")
)
