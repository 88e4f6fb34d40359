package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// Errors that keep an accepted login from being handed on. Going on without the field would mean another user's files.
var (
	errName   = errors.New("the account's login holds a control character")
	errField  = errors.New("a userdb field of the account cannot be handed on: its name or value holds a character that it must not")
	errIDs    = errors.New("the account has no userdb fields uid and gid that are numbers above 0")
	errHome   = errors.New("the account has no userdb field home that is an absolute path")
	errNoRoot = errors.New("the account's userdb fields uid and gid are not those of this process, which is not root")
)

// printable reports whether the text can stand in a variable that others split at tabs and line ends.
func printable(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) < 0
}

func fieldName(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return true
}

func check(reply wire.Reply) error {
	if !printable(reply.User) {
		return errName
	}
	for _, f := range reply.Fields {
		if !fieldName(f.Name) || !printable(f.Value) {
			return errField
		}
	}
	return nil
}

// forDovecot puts the account where checkpassword-reply finds it: USER, HOME, and the variables that EXTRA lists. It
// changes no ids: Dovecot does, later, by userdb_uid and userdb_gid. For an account without these fields checkpassword-reply
// tells the auth process's own ids; the passdb's override_fields can say better.
func (h *helper) forDovecot(reply wire.Reply, lookup bool) error {
	if err := check(reply); err != nil {
		return err
	}
	env := setenv(h.environ, "USER", reply.User)
	env = unsetenv(env, "HOME") // otherwise the auth process's own would be the account's
	env = unsetenv(env, "EXTRA")
	var extra []string
	for _, f := range reply.Fields {
		name, value := strings.ToLower(f.Name), f.Value
		switch name {
		case "home":
			env = setenv(env, "HOME", value)
			continue
		case "quota":
			name, value = "quota_rule", quotaRule(value)
		}
		name = "userdb_" + name
		env = setenv(env, name, value)
		extra = append(extra, name)
	}
	if lookup && !slices.Contains(extra, "userdb_user") {
		// Dovecot renames the user of a login by USER, but not that of a lookup: without this an alias has a mailbox of its own.
		env = setenv(env, "userdb_user", reply.User)
		extra = append(extra, "userdb_user")
	}
	if len(extra) > 0 {
		env = setenv(env, "EXTRA", strings.Join(extra, " "))
	}
	if lookup {
		// The answer to AUTHORIZED=1, which the caller has made sure of.
		env = setenv(env, "AUTHORIZED", "2")
	}
	h.environ = env
	return nil
}

// quotaRule turns the userdb field quota into Dovecot 2.3's: "2G" (B, K, M, G, T) becomes "*:storage=2G", and a plain
// number, which is bytes, "*:bytes=2000000000". Anything else is taken for a rule already.
func quotaRule(quota string) string {
	digits := strings.TrimRight(quota, "BKMGTbkmgt")
	if _, err := strconv.ParseUint(digits, 10, 64); err != nil || len(quota)-len(digits) > 1 {
		return quota
	}
	if digits == quota {
		return "*:bytes=" + quota
	}
	return "*:storage=" + strings.ToUpper(quota)
}

// forCheck tells the name and nothing else.
func (h *helper) forCheck(reply wire.Reply) error {
	if err := check(reply); err != nil {
		return err
	}
	h.environ = setenv(h.environ, "USER", reply.User)
	return nil
}

// forQmail does what the next program (qmail-pop3d Maildir) relies on: it becomes the account's user, in the account's
// home, with USER, HOME and SHELL. A process that is not root stays who it is, as in sites with one system user for all
// mail.
func (h *helper) forQmail(reply wire.Reply) error {
	if err := check(reply); err != nil {
		return err
	}
	uid, gid, home, shell := "", "", "", "/bin/sh"
	for _, f := range reply.Fields {
		switch strings.ToLower(f.Name) {
		case "uid":
			uid = f.Value
		case "gid":
			gid = f.Value
		case "home":
			home = f.Value
		case "shell":
			shell = f.Value
		}
	}
	if !strings.HasPrefix(home, "/") {
		return errHome
	}
	if _, me := h.uid(); me == 0 {
		u, uidErr := id(uid)
		g, gidErr := id(gid)
		if uidErr != nil || gidErr != nil {
			return errIDs
		}
		if err := h.become(u, g); err != nil {
			return errors.New("cannot become the account's user: " + err.Error())
		}
	} else if uid != "" && uid != strconv.Itoa(me) {
		return errNoRoot
	}
	// As that user, so that its rights decide.
	if err := h.chdir(home); err != nil {
		return errors.New("cannot go to the account's home")
	}
	env := setenv(h.environ, "USER", reply.User)
	env = setenv(env, "HOME", home)
	env = setenv(env, "SHELL", shell)
	h.environ = env
	return nil
}

// id reads a uid or gid. Nobody's mail is read as root.
func id(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err == nil && n <= 0 {
		err = strconv.ErrRange
	}
	return int(n), err
}
