package auth

import (
	"net/netip"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"
)

// How much an app password may be limited to.
const (
	MaxServices = 32
	MaxNetworks = 64
	// MaxUnusedFor is the longest time of disuse, so that adding it to a time cannot overflow.
	MaxUnusedFor = 36500 * 24 * time.Hour
)

// AppPasswordChange is what an admin gives to change an app password. The zero value changes nothing.
type AppPasswordChange struct {
	Label, LabelKey string // by [CheckLabel]; empty: as it is

	Services *[]string // all of them; nil: as they are; empty: no limit
	// AddServices and RemoveServices are applied to Services, or to what there is. They neither limit what is not limited nor take away
	// the last one, which would open everything. Networks the same.
	AddServices, RemoveServices []string
	Networks                    *[]netip.Prefix
	AddNetworks, RemoveNetworks []netip.Prefix

	ExpiresAt        *time.Time     // nil: as it is; zero: never
	ExpiresUnusedFor *time.Duration // nil: as it is; zero: never

	LimitPerAccount int // as of [NewAppPassword], for one that comes back to life
}

// Rotation is the new secret of an app password, and what becomes of the old one.
type Rotation struct {
	PHC          string // secret-derived: never log it
	Tag          Tag
	KeepOldUntil time.Time // at the latest: the first use of the new secret ends the old one; zero: it ends now
	By           string
	Own          bool // By did it with an app password of his own: one that he made himself, and that is not exempt
}

// AppPasswordFilter says which app passwords of all accounts are meant: those for which everything holds that is given. The zero
// value means all that are live.
type AppPasswordFilter struct {
	Login string // normalised, canonical or alias; empty: of every account

	Live, Expired, Revoked bool // all false: the live ones

	UnusedFor      time.Duration // not used for as long, and as old
	ExpiringWithin time.Duration // has not expired, but will by then, by date or by disuse
	NeverUsed      bool
	Service        string       // named by it: one that opens every service names none
	Network        netip.Prefix // overlaps one that it names
	Exempt         bool         // from the second factor
	Imported       bool         // and still with the hash of its origin
	Label          string       // pattern by [LabelPattern]
	By             string       // who made it

	// AsOf is the moment from which UnusedFor and ExpiringWithin count, and after which nothing was created that is meant. Zero: now. Who
	// shows a list and then acts on it gives the moment of the list both times.
	AsOf time.Time
}

// Order is an order of app passwords.
type Order string

const (
	ByLogin    Order = "login"
	ByLabel    Order = "label"
	ByCreation Order = "created"
	// ByLastUse begins with the longest unused, to within a week: the exact time is not kept in order.
	ByLastUse Order = "last-used"
	ByExpiry  Order = "expires" // the soonest first, those that never expire by date last
)

// AppPasswordPage is some of a list.
type AppPasswordPage struct {
	AppPasswords []AppPassword
	// Next is where to go on; empty at the end. A page may be short, or empty, before the end: each looks at a bounded number of rows.
	Next string
	AsOf time.Time // by the database's clock
}

// LabelPattern folds what a person looks for among labels: with * and ? it is compared with the whole label, without them it
// may be anywhere in it. The result is for LIKE, with \ as the escape, on the key by [CheckLabel].
func LabelPattern(text string) string {
	var b strings.Builder
	glob := strings.ContainsAny(text, "*?")
	if !glob {
		b.WriteByte('%')
	}
	for _, r := range strings.ToLower(norm.NFKC.String(text)) {
		switch r {
		case '*':
			b.WriteByte('%')
		case '?':
			b.WriteByte('_')
		case '%', '_', '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	if !glob {
		b.WriteByte('%')
	}
	return b.String()
}
