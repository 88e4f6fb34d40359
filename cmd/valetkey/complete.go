package main

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/store"
)

// completionTimeout bounds what the shell waits for.
const completionTimeout = 2 * time.Second

// completeLogin offers the logins that begin with the prefix.
func (a *app) completeLogin(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeKind(cmd, admin.KindPerson, prefix)
}

// completeReader offers the names of readers that begin with the prefix.
func (a *app) completeReader(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeKind(cmd, admin.KindReader, prefix)
}

// completeGroup offers the names of groups that begin with the prefix.
func (a *app) completeGroup(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	page, err := a.client().Groups(ctx, justBefore(prefix), 0)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, x := range page.Groups {
		if strings.HasPrefix(x.Name, prefix) {
			out = append(out, x.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeNewMember offers groups first and then logins.
func (a *app) completeNewMember(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) == 0 {
		return a.completeGroup(cmd, given, prefix)
	}
	return a.completeKind(cmd, admin.KindPerson, prefix)
}

// completeMember offers groups first and then the members of the group.
func (a *app) completeMember(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) == 0 {
		return a.completeGroup(cmd, given, prefix)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	g, err := a.client().Group(ctx, given[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, login := range g.Members {
		if strings.HasPrefix(login, prefix) {
			out = append(out, login)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeKind(cmd *cobra.Command, kind, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	page, err := a.client().Accounts(ctx, kind, justBefore(prefix), 0)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, x := range page.Accounts {
		if strings.HasPrefix(x.Login, prefix) {
			out = append(out, x.Login)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeLabel offers logins first and then the labels of the account's live app passwords; to a user without a role, those of his own.
func (a *app) completeLabel(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	login := ""
	switch len(given) {
	case 0:
		if logins, directive := a.completeLogin(cmd, given, prefix); len(logins) > 0 {
			return logins, directive
		}
	case 1:
		login = given[0]
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	p, err := a.client().AppPasswords(ctx, login, false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, x := range p.AppPasswords {
		if strings.HasPrefix(x.Label, prefix) {
			out = append(out, x.Label)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// justBefore is a place in a list, sorted by bytes, right before the first name that begins with the prefix: one page from there has all
// that a shell can show, however many names there are.
func justBefore(prefix string) string {
	last, size := utf8.DecodeLastRuneInString(prefix)
	before := last - 1
	switch {
	case size == 0, last == utf8.RuneError, last == 0:
		return ""
	case last == 0xe000: // there are no characters between
		before = 0xd7ff
	}
	return prefix[:len(prefix)-size] + string(before) + string(utf8.MaxRune)
}

// completeEventKind offers the kinds that the daemon of this version writes.
func completeEventKind(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return store.EventKinds(), cobra.ShellCompDirectiveNoFileComp
}

// completeWords offers some words for the value of a flag.
func completeWords(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}
