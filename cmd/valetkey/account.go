package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) accountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Add, show and disable accounts",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usageError{fmt.Errorf("there is no command %q", "account "+given[0])}
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.accountAdd(), a.accountList(), a.accountShow(), a.accountEnable(true), a.accountEnable(false), a.accountDelete())
	return cmd
}

func (a *app) accountAdd() *cobra.Command {
	var n admin.NewAccount
	var mail, attributes, userdb []string
	cmd := &cobra.Command{
		Use:   "add LOGIN",
		Short: "Add an account",
		Example: `  valetkey account add alice --name "Alice Adams" --mail alice@example.org
  valetkey account add alice@example.org --alias alice --userdb home=/var/mail/alice`,
		Args: args("LOGIN"),
		RunE: func(cmd *cobra.Command, given []string) error {
			n.Login = given[0]
			n.Attributes = map[string][]string{}
			if len(mail) > 0 {
				n.Attributes["mail"] = mail
			}
			for _, x := range attributes {
				name, value, found := strings.Cut(x, "=")
				if !found {
					return usageError{fmt.Errorf("--attribute %q: write NAME=VALUE", x)}
				}
				n.Attributes[name] = append(n.Attributes[name], value)
			}
			n.Userdb = map[string]string{}
			for _, x := range userdb {
				name, value, found := strings.Cut(x, "=")
				if !found {
					return usageError{fmt.Errorf("--userdb %q: write NAME=VALUE", x)}
				}
				n.Userdb[name] = value
			}
			account, err := a.client().AddAccount(cmd.Context(), n)
			if err != nil {
				return err
			}
			return a.print(account, func() { fmt.Fprintf(a.out, "added account %s\n", visible(account.Login)) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.DisplayName, "name", "", "the person's `NAME`, for people and for LDAP's cn")
	f.StringArrayVar(&n.Aliases, "alias", nil, "another `LOGIN` that means this account; repeatable")
	f.StringArrayVar(&mail, "mail", nil, "mail `ADDRESS`, for LDAP's mail; repeatable")
	f.StringArrayVar(&attributes, "attribute", nil, "LDAP attribute, `NAME=VALUE`; repeatable")
	f.StringArrayVar(&userdb, "userdb", nil, "field for mail servers, `NAME=VALUE`: uid, gid, home, mail, quota; repeatable")
	return cmd
}

func (a *app) accountList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the accounts",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []admin.Account{}
			for after := ""; ; {
				page, err := a.client().Accounts(cmd.Context(), after, 0)
				if err != nil {
					return err
				}
				all = append(all, page.Accounts...)
				if after = page.Next; after == "" {
					break
				}
			}
			return a.print(admin.Accounts{Accounts: all}, func() {
				if len(all) == 0 {
					fmt.Fprintln(a.out, "there are no accounts; valetkey account add LOGIN adds one")
					return
				}
				t := a.table("LOGIN", "NAME", "STATE", "APP PASSWORDS", "ADDED")
				for _, x := range all {
					t.row(x.Login, x.DisplayName, state(x.Enabled), fmt.Sprint(x.AppPasswords), day(x.CreatedAt))
				}
				t.print()
			})
		},
	}
}

func state(enabled bool) string {
	if enabled {
		return "enabled"
	}
	return "disabled"
}

func (a *app) accountShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show LOGIN",
		Short:             "Show an account",
		Args:              args("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			x, err := a.client().Account(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(x, func() {
				t := a.table()
				t.row("login", x.Login)
				for _, alias := range x.Aliases {
					t.row("alias", alias)
				}
				t.row("name", x.DisplayName)
				t.row("state", state(x.Enabled))
				t.row("app passwords", fmt.Sprint(x.AppPasswords))
				t.row("added", moment(x.CreatedAt))
				for _, name := range sortedKeys(x.Attributes) {
					for _, v := range x.Attributes[name] {
						t.row("attribute "+name, v)
					}
				}
				for _, name := range sortedKeys(x.Userdb) {
					t.row("userdb "+name, x.Userdb[name])
				}
				t.print()
			})
		},
	}
}

func (a *app) accountEnable(enable bool) *cobra.Command {
	verb, short := "enable", "Let the account's app passwords open things again"
	if !enable {
		verb, short = "disable", "Refuse every login of the account; its app passwords stay"
	}
	return &cobra.Command{
		Use:               verb + " LOGIN",
		Short:             short,
		Args:              args("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			x, err := a.client().PatchAccount(cmd.Context(), given[0], admin.AccountPatch{Enabled: &enable})
			if err != nil {
				return err
			}
			return a.print(x, func() { fmt.Fprintf(a.out, "account %s is %s\n", visible(x.Login), state(x.Enabled)) })
		},
	}
}

func (a *app) accountDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:               "delete LOGIN",
		Short:             "Delete an account with its app passwords",
		Args:              args("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			x, err := a.client().Account(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			if !yes {
				if !a.inTerminal {
					return usageError{hinted{fmt.Errorf("account %s would be deleted with its app passwords (%d of them live)", visible(x.Login), x.AppPasswords),
						"say --yes if that is meant"}}
				}
				fmt.Fprintf(a.err, "Delete account %s with its app passwords (%d of them live)? Type its login: ", visible(x.Login), x.AppPasswords)
				line, _ := bufio.NewReader(a.in).ReadString('\n')
				if strings.TrimSpace(line) != x.Login {
					return fmt.Errorf("nothing was deleted")
				}
			}
			if err := a.client().DeleteAccount(cmd.Context(), x.Login); err != nil {
				return err
			}
			return a.print(map[string]string{"deleted": x.Login}, func() { fmt.Fprintf(a.out, "deleted account %s\n", visible(x.Login)) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
