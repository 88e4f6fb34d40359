package admin

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/valetkey/valetkey/internal/auth"
)

// Role is what a caller may do with all accounts. The zero value is no role.
type Role int

// The roles, each with all that those before it may.
const (
	NoRole Role = iota
	ReadOnly
	HelpDesk // may end app passwords too
	Admin
)

// String is the role's name in the API.
func (r Role) String() string {
	switch r {
	case ReadOnly:
		return "read_only"
	case HelpDesk:
		return "help_desk"
	case Admin:
		return "admin"
	}
	return "none"
}

// spoken is the role's name in a sentence.
func (r Role) spoken() string { return strings.ReplaceAll(r.String(), "_", " ") }

// least is the first role that has the permission.
func (p permission) least() Role {
	switch p {
	case mayAsk:
		return NoRole
	case mayRead:
		return ReadOnly
	case mayRevoke:
		return HelpDesk
	}
	return Admin
}

// String is what one does who uses it.
func (p permission) String() string {
	switch p {
	case mayAsk:
		return "asking"
	case mayRead:
		return "looking at accounts and the daemon"
	case mayRevoke:
		return "revoking"
	}
	return "creating and changing"
}

func (r Role) may(p permission) bool { return r >= p.least() }

// Access says who may do what. With the zero value whoever may connect is an admin, and the socket's mode is the access control. With a
// role or self-service it is not: the socket is open to all, and the server refuses. Root and the daemon's own user are always admins.
type Access struct {
	Admins, HelpDesk, ReadOnly UnixGroup
	Self                       *SelfService // nil: nobody has an account of his own here
}

// UnixGroup is a group of the machine's users. The zero value has no members, and is not root's.
type UnixGroup struct {
	Name string // empty: none
	ID   uint32
}

// Restricted reports whether the server itself has to tell callers apart.
func (a Access) Restricted() bool {
	return a.HelpDesk.Name != "" || a.ReadOnly.Name != "" || a.Self != nil
}

func (a Access) role(c credentials) Role {
	in := func(g UnixGroup) bool { return g.Name != "" && c.member(g.ID) }
	switch {
	case !a.Restricted():
		return Admin
	case !c.known:
		return NoRole
	case c.uid == 0, c.uid == ownUID, in(a.Admins):
		return Admin
	case in(a.HelpDesk):
		return HelpDesk
	case in(a.ReadOnly):
		return ReadOnly
	}
	return NoRole
}

// refusal says what the caller lacks. It must not depend on anything but the route's permission and the caller: whether an account exists
// is for those to know who may look.
func (a Access) refusal(c caller, needs permission) error {
	need := needs.least()
	text := fmt.Sprintf("%s needs the role %s; yours: %s", needs, need.spoken(), c.role.spoken())
	for _, g := range []struct {
		role  Role
		group UnixGroup
	}{{ReadOnly, a.ReadOnly}, {HelpDesk, a.HelpDesk}, {Admin, a.Admins}} {
		if g.role >= need && g.group.Name != "" {
			return fault("forbidden", fmt.Sprintf("join the group %q, then log in again; valetkey whoami shows your role", g.group.Name), "%s", text)
		}
	}
	return fault("forbidden", "run it as root; valetkey whoami shows your role", "%s", text)
}

// SelfService lets the users of this machine manage the app passwords of their own accounts. A nil one lets nobody.
type SelfService struct {
	Domain   string         // the login of a user is NAME@Domain; empty: NAME
	MinUID   uint32         // the users below are the system's
	Services []string       // that an own app password may open, normalised; empty: all
	Networks []netip.Prefix // that it may be used from; empty: all
}

// eligible reports whether a user id is that of a person. Those of DynamicUser=, nobody and what user namespaces show of strangers are not
// (systemd, docs/UIDS-GIDS.md).
func (s *SelfService) eligible(uid uint32) bool {
	return s != nil && uid > 0 && uid >= s.MinUID && uid != ownUID && !(61184 <= uid && uid <= 65535) && uid < 0xfffffffe
}

// login returns the login of the account that is a user's own, or nothing.
//
// Users' names that differ in case are different users, and logins are not: only a name that is a login as it stands counts, or "Alice"
// could take what is alice's.
func (s *SelfService) login(name string, uid uint32) string {
	if !s.eligible(uid) {
		return ""
	}
	own := name
	if s.Domain != "" {
		if strings.Contains(name, "@") {
			return ""
		}
		own += "@" + s.Domain
	}
	if normal, err := auth.NormaliseLogin(own); err != nil || normal != own {
		return ""
	}
	return own
}
