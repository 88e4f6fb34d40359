package ldapbridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Authenticator decides logins. An error means undecided, never "wrong password". It must return soon after the end of the
// context, since the connection waits for it.
type Authenticator interface {
	Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error)
	// Stands says whether what a login was accepted for is still as it was: [auth.Accepted], or why not. An error means that
	// nothing is known.
	Stands(ctx context.Context, s *auth.Standing) (auth.Reason, error)
	// Refused returns when a login that is refused without asking may be answered.
	Refused(ctx context.Context, req auth.Request)
}

// Directory is where the entries come from.
type Directory interface {
	// Entry reads the account that goes by this canonical login, fresh at every call. [auth.ErrNoAccount] means that there
	// is none; any other error means that nothing is known.
	Entry(ctx context.Context, login string) (auth.Account, error)
	// FindAccounts reads the accounts that one of the keys selects, each once, by canonical login, byte by byte; the first ones if
	// there are more than limit, which is 5,000 at most. Only the parts that are asked for need be there.
	FindAccounts(ctx context.Context, keys []auth.AccountKey, limit int, parts auth.Parts) ([]auth.Account, error)
	// Accounts reads people, not readers, by canonical login, byte by byte, beginning after the given one. limit is 500 at most. A
	// page shorter than the limit is the last.
	Accounts(ctx context.Context, after string, limit int, parts auth.Parts) ([]auth.Account, error)
	// FindGroups and Groups are the same for groups and their names, 10 at a time. The members are those that are enabled.
	FindGroups(ctx context.Context, keys []auth.GroupKey, limit int) ([]auth.Group, error)
	Groups(ctx context.Context, after string, limit int) ([]auth.Group, error)
}

// Config says how a [Server] presents itself. BaseDN is required; every other zero value has a default.
type Config struct {
	// Listener is the name that login requests carry. Empty: network and address of the listener that the connection
	// came from, "tcp:127.0.0.1:3389".
	Listener string
	// Service is what a bind logs in to. Empty: "ldap".
	Service string

	// BaseDN is the suffix, "dc=example,dc=org".
	BaseDN string
	// People is the container of the accounts, relative to BaseDN. Empty: "ou=people".
	People string
	// RDNAttribute names an account below People. Empty: "uid".
	RDNAttribute string
	// Groups is the container of the groups, and Readers the parent of the service accounts' names, relative to BaseDN. Empty:
	// "ou=groups", "ou=readers".
	Groups, Readers string
	// Applications have a suffix of their own each.
	Applications []Application
	// Upstream is another directory that the entries come from, all but the readers. Nil: they are made from the [Directory].
	Upstream *Upstream

	// TLS protects TCP connections: from their first byte with LDAPS, otherwise when the client asks for it (StartTLS). Nil: never.
	// Unix sockets have none.
	TLS   *tls.Config
	LDAPS bool

	// RequireTLS refuses passwords on TCP connections without TLS, unverified, with result code 13. A Unix socket counts
	// as protected, and with TrustLoopback so does a connection of this machine to itself.
	RequireTLS    bool
	TrustLoopback bool

	// Turns are those of searches that take long. Nil: this server has its own.
	Turns *Turns

	Limits Limits
}

// Limits bound what one connection, one source and all of them may take. Zero values mean the defaults; reference/ldap-attacks.md
// section 2 has the reasons.
type Limits struct {
	Connections          int // in all: 1024
	ConnectionsPerSource int // per IPv4 address or IPv6 /64, not for Unix sockets: 256
	Handshakes           int // of TLS, begun and not done; the oldest gives way to one more: 128

	UnboundPDU int // bytes of a PDU before a bind with a password was accepted: 64 KiB
	BoundPDU   int // and after: 256 KiB

	UnboundIdle time.Duration // wait for a PDU from a client that never bound: 30 s
	Idle        time.Duration // and from one that did, be it anonymously, as Dovecot does at connect: 15 min
	PDU         time.Duration // first byte to last byte of a PDU, and TLS handshake: 10 s
	Write       time.Duration // of one write: 10 s
	Decision    time.Duration // of one bind or one look into the directory: 20 s

	SearchEntries int           // of one search, all its pages together: 5,000
	SearchBytes   int           // of the entries of one answer; the last may go beyond: 8 MiB
	SearchTime    time.Duration // of one answer: 60 s

	Attributes  int // selected in one search: 256
	Controls    int // of one request: 16
	FilterDepth int // 32
	FilterNodes int // 512
	DN          int // bytes: 1024
	RDNs        int // of a DN: 32
	Password    int // bytes: 512
}

// maxAVAs bounds the attribute-value pairs of a DN, all its RDNs together.
const maxAVAs = 64

func (l *Limits) setDefaults() error {
	return setDefaults([]count{
		{"Connections", &l.Connections, 1024, 1 << 20},
		{"ConnectionsPerSource", &l.ConnectionsPerSource, 256, 1 << 20},
		{"Handshakes", &l.Handshakes, 128, 1 << 20},
		{"UnboundPDU", &l.UnboundPDU, 64 << 10, 16 << 20},
		{"BoundPDU", &l.BoundPDU, 256 << 10, 16 << 20},
		{"SearchEntries", &l.SearchEntries, 5000, 1 << 30},
		{"SearchBytes", &l.SearchBytes, 8 << 20, 1 << 40},
		{"Attributes", &l.Attributes, 256, 1 << 16},
		{"Controls", &l.Controls, 16, 1 << 10},
		{"FilterDepth", &l.FilterDepth, 32, 1 << 10}, // every level is a stack frame
		{"FilterNodes", &l.FilterNodes, 512, 1 << 16},
		{"DN", &l.DN, 1024, 64 << 10},
		{"RDNs", &l.RDNs, 32, maxAVAs},
		{"Password", &l.Password, auth.MaxPassword, 64 << 10},
	}, []duration{
		{"UnboundIdle", &l.UnboundIdle, 30 * time.Second},
		{"Idle", &l.Idle, 15 * time.Minute},
		{"PDU", &l.PDU, 10 * time.Second},
		{"Write", &l.Write, 10 * time.Second},
		{"Decision", &l.Decision, 20 * time.Second},
		{"SearchTime", &l.SearchTime, time.Minute},
	})
}

// count and duration are limits with what they are where nobody gave them.
type (
	count struct {
		name         string
		value        *int
		def, highest int
	}
	duration struct {
		name  string
		value *time.Duration
		def   time.Duration
	}
)

// setDefaults puts the default into every limit that is zero, and finds those that are out of bounds.
func setDefaults(counts []count, durations []duration) error {
	var faults []error
	for _, f := range counts {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < 0 || *f.value > f.highest {
			faults = append(faults, fmt.Errorf("limit %s is %d, must be 1 to %d", f.name, *f.value, f.highest))
		}
	}
	for _, f := range durations {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < 0 {
			faults = append(faults, fmt.Errorf("limit %s is %v, must be positive", f.name, *f.value))
		}
	}
	return errors.Join(faults...)
}
