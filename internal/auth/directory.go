package auth

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Kind says what an account is for.
type Kind uint8

const (
	Person Kind = iota
	Reader      // a service account that searches the directory; only the LDAP front end lets it in
)

// Group is a set of accounts.
type Group struct {
	Name        string // unique; lower case
	DisplayName string
	UUID        string // stable for ever: RFC 4122 text form
	// Attributes are LDAP attributes (canonical spelling -> values), e.g. "gidNumber".
	Attributes map[string][]string
	Members    []string // canonical logins of people, sorted
	CreatedAt  time.Time
	ModifiedAt time.Time
	// MemberCount is len(Members), and the number of members where they were not read.
	MemberCount int
}

// NewGroup is what an admin gives to add a group. Name must be normalised by [NormaliseGroup].
type NewGroup struct {
	Name        string
	DisplayName string
	Attributes  map[string][]string
}

// GroupChange is what an admin gives to change a group. The zero value changes nothing.
type GroupChange struct {
	DisplayName *string // nil: as it is
	// Attributes replace those of the same name in any case; one without values is taken away.
	Attributes map[string][]string
	// AddMembers and RemoveMembers are logins of people, normalised. Adding one who is there and removing one who is not are no
	// errors.
	AddMembers, RemoveMembers []string
}

// Bounds that keep one entry, and the work for one change, small.
const (
	MaxGroupMembers = 20_000
	MaxGroups       = 1000 // of one account
)

// ErrBadGroup is wrapped by every error of [NormaliseGroup].
var ErrBadGroup = errors.New("not a name for a group")

// NormaliseGroup maps a group's name to its one form: that of a login, so that programs which take groups for Unix groups can.
func NormaliseGroup(name string) (string, error) {
	out, err := NormaliseLogin(name)
	if err != nil {
		return "", fmt.Errorf("%w: %s", ErrBadGroup, strings.TrimPrefix(err.Error(), ErrBadLogin.Error()+": "))
	}
	return out, nil
}

// AccountKey selects accounts by an index. Exactly one field is set.
type AccountKey struct {
	Login  string // canonical or alias, normalised
	Search string // a [SearchKey] of one of the account's attributes
	UUID   string // lower case
	Group  string // name of a group that it is in
}

// Parts are what of an account is read only if it is asked for, since it costs more than the rest. Others are always there.
type Parts uint8

// The parts of an [Account] with these names.
const (
	PartAliases Parts = 1 << iota
	PartGroups
	PartUserdb

	AllParts = PartAliases | PartGroups | PartUserdb
)

// GroupKey selects groups by an index. Exactly one field is set.
type GroupKey struct {
	Name   string
	Member string // canonical login
	UUID   string // lower case
}

// MaxSearchKey bounds a search key, in bytes. Of longer ones the beginning counts.
const MaxSearchKey = 512

// SearchKey returns the form under which a value of an attribute is indexed. Values that a directory client may take for equal
// have the same key, but not the other way round: whoever looks by it must compare again. Compatibility forms, case and runs of
// spaces fold together (RFC 4518), and leading zeros of a number fall away. Only the attribute's name counts, in any case: the
// caller knows which names mean the same attribute.
//
// [Account.DisplayName] is indexed as the attribute "displayName".
func SearchKey(attribute, value string) string {
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "\ufffd")
	}
	value = norm.NFKC.String(strings.ToLower(norm.NFKC.String(value)))
	value = strings.Join(strings.FieldsFunc(value, func(r rune) bool { return r == ' ' }), " ")
	if digits := strings.TrimPrefix(value, "-"); digits != "" && strings.Trim(digits, "0123456789") == "" {
		digits = strings.TrimLeft(digits, "0")
		switch {
		case digits == "":
			value = "0"
		case value[0] == '-':
			value = "-" + digits
		default:
			value = digits
		}
	}
	key := strings.ToLower(attribute) + "=" + value
	if len(key) > MaxSearchKey {
		key = strings.ToValidUTF8(key[:MaxSearchKey], "")
	}
	return key
}
