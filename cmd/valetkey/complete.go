package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout bounds what the shell waits for.
const completionTimeout = 2 * time.Second

// completeLogin offers the logins that begin with the prefix.
func (a *app) completeLogin(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	page, err := a.client().Accounts(ctx, "", 0)
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

// completeLabel offers logins first and then the labels of the account's live app passwords.
func (a *app) completeLabel(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) != 1 {
		return a.completeLogin(cmd, given, prefix)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	p, err := a.client().AppPasswords(ctx, given[0], false)
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
