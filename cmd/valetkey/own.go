package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

// ownArgs checks the arguments of a command whose first one, LOGIN, a user leaves out for his own account. The others are never optional, so
// that their number says which they are.
func ownArgs(names ...string) cobra.PositionalArgs {
	whole, own := args(names...), args(names[1:]...)
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < len(names) {
			return own(cmd, given)
		}
		return whole(cmd, given)
	}
}

// splitOwn returns the LOGIN, empty for the caller's own account, and the rest of what [ownArgs] took.
func splitOwn(given []string, names int) (login string, rest []string) {
	if len(given) < names {
		return "", given
	}
	return given[0], given[1:]
}

// ownError is the error of a call for a login. That an account was left out by somebody who has no own one, such as root, is a mistake on
// the command line: the argument with that name is missing.
func ownError(cmd *cobra.Command, login, name string, err error) error {
	if r, ok := errors.AsType[*admin.RefusedError](err); ok && login == "" && r.Code == "bad_login" {
		return usageError{hinted{errors.New(name + " is missing"), "only who has no role leaves LOGIN out, for his own account; usage: " + cmd.UseLine()}}
	}
	return err
}

// of names the account for a sentence.
func of(login string) string {
	if login == "" {
		return "of yours"
	}
	return "of " + visible(login)
}
