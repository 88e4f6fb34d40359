package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) accountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Add, show, change, disable, export and import accounts",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usageError{fmt.Errorf("there is no command %q", "account "+given[0])}
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.accountAdd(), a.accountList(), a.accountShow(), a.accountSet(), a.accountEnable(true), a.accountEnable(false), a.accountDelete(), a.accountExport(), a.accountImport())
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
			var err error
			if n.Attributes, err = attributeValues(attributes); err != nil {
				return err
			}
			n.Attributes["mail"] = append(n.Attributes["mail"], mail...)
			if n.Userdb, err = userdbValues(userdb); err != nil {
				return err
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

// attributeValues reads NAME=VALUE, repeated for several values.
func attributeValues(given []string) (map[string][]string, error) {
	attributes := map[string][]string{}
	for _, x := range given {
		name, value, found := strings.Cut(x, "=")
		if !found {
			return nil, usageError{fmt.Errorf("--attribute %q: write NAME=VALUE", x)}
		}
		attributes[name] = append(attributes[name], value)
	}
	return attributes, nil
}

// attributeChanges reads NAME=VALUE, and NAME= for an attribute that goes.
func attributeChanges(given []string) (map[string][]string, error) {
	attributes, err := attributeValues(given)
	for name, values := range attributes {
		if len(values) == 1 && values[0] == "" {
			attributes[name] = []string{}
		}
	}
	return attributes, err
}

// userdbValues reads NAME=VALUE.
func userdbValues(given []string) (map[string]string, error) {
	fields := map[string]string{}
	for _, x := range given {
		name, value, found := strings.Cut(x, "=")
		if !found {
			return nil, usageError{fmt.Errorf("--userdb %q: write NAME=VALUE", x)}
		}
		fields[name] = value
	}
	return fields, nil
}

// somethingToSet reports the mistake of a "set" without any of its flags.
func somethingToSet(cmd *cobra.Command, flags ...string) error {
	if !slices.ContainsFunc(flags, cmd.Flags().Changed) {
		return usageError{hinted{errors.New("there is nothing to set"), cmd.CommandPath() + " --help shows what can be"}}
	}
	return nil
}

func (a *app) accountSet() *cobra.Command {
	var p admin.AccountPatch
	var name, limit string
	var mail, attributes, userdb []string
	cmd := &cobra.Command{
		Use:   "set LOGIN",
		Short: "Change an account's name, attributes, userdb fields, aliases and limit",
		Long: `Change an account. An attribute gets the values that are given and loses those that it had; without a value it goes. What is not
mentioned stays. The login itself cannot be changed; an alias can be added.`,
		Example: `  valetkey account set alice --mail alice@example.org --mail a.adams@example.org
  valetkey account set alice --attribute title=Engineer --attribute roomNumber= --name "Alice Adams"
  valetkey account set alice --add-alias alice@example.org --userdb quota=5G`,
		Args:              args("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := somethingToSet(cmd, "name", "mail", "attribute", "userdb", "add-alias", "remove-alias", "limit"); err != nil {
				return err
			}
			var err error
			if p.Attributes, err = attributeChanges(attributes); err != nil {
				return err
			}
			if cmd.Flags().Changed("mail") {
				changes, err := attributeChanges(prefixed("mail=", mail))
				if err != nil {
					return err
				}
				p.Attributes["mail"] = append(changes["mail"], p.Attributes["mail"]...)
			}
			if p.Userdb, err = userdbValues(userdb); err != nil {
				return err
			}
			if cmd.Flags().Changed("name") {
				p.DisplayName = &name
			}
			if cmd.Flags().Changed("limit") {
				n, err := strconv.Atoi(limit)
				if limit != "default" && (err != nil || n < 1) {
					return usageError{fmt.Errorf("--limit %q: write a number from 1 on, or default", limit)}
				}
				p.Limit = &n
			}
			x, err := a.client().PatchAccount(cmd.Context(), given[0], p)
			if err != nil {
				return err
			}
			return a.print(x, func() { fmt.Fprintf(a.out, "changed account %s\n", visible(x.Login)) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the person's `NAME`, for people and for LDAP's cn")
	f.StringArrayVar(&mail, "mail", nil, "mail `ADDRESS`, for LDAP's mail; repeatable")
	f.StringArrayVar(&attributes, "attribute", nil, "LDAP attribute, `NAME=VALUE`, or NAME= to take it away; repeatable")
	f.StringArrayVar(&userdb, "userdb", nil, "field for mail servers, `NAME=VALUE`, or NAME= to take it away; repeatable")
	f.StringArrayVar(&p.AddAliases, "add-alias", nil, "another `LOGIN` that shall mean this account; repeatable")
	f.StringVar(&limit, "limit", "", "`NUMBER` of live app passwords that it may have, or default for what the configuration says")
	f.StringArrayVar(&p.RemoveAliases, "remove-alias", nil, "`LOGIN` that shall no longer mean this account; repeatable")
	return cmd
}

// confirm asks whether something shall be deleted: whoever means it types its name, or said yes before.
func (a *app) confirm(yes bool, what, name, called string) error {
	if yes {
		return nil
	}
	if !a.inTerminal {
		return usageError{hinted{fmt.Errorf("%s would be deleted", what), "say --yes if that is meant"}}
	}
	fmt.Fprintf(a.err, "Delete %s? Type its %s: ", what, called)
	line, _ := bufio.NewReader(a.in).ReadString('\n')
	if strings.TrimSpace(line) != name {
		return errors.New("nothing was deleted")
	}
	return nil
}

func prefixed(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = prefix + s
	}
	return out
}

// accounts asks for all accounts of a kind.
func (a *app) accounts(cmd *cobra.Command, kind string) ([]admin.Account, error) {
	all := []admin.Account{}
	for after := ""; ; {
		page, err := a.client().Accounts(cmd.Context(), kind, after, 0)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Accounts...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

func (a *app) accountList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the accounts of people",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.accounts(cmd, admin.KindPerson)
			if err != nil {
				return err
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
				if x.Kind != admin.KindPerson {
					t.row("kind", x.Kind)
				}
				t.row("state", state(x.Enabled))
				for _, g := range x.Groups {
					t.row("group", g)
				}
				count := fmt.Sprint(x.AppPasswords)
				if x.Limit > 0 {
					count += fmt.Sprintf(" of at most %d", x.Limit)
				}
				t.row("app passwords", count)
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
	cmd := a.deleteCommand("account", "")
	cmd.Use, cmd.Short, cmd.Args, cmd.ValidArgsFunction = "delete LOGIN", "Delete an account with its app passwords", args("LOGIN"), a.completeLogin
	return cmd
}

// deleteCommand asks before it deletes an account. what is what people call it, kind the one that it must be of; empty: any.
func (a *app) deleteCommand(what, kind string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		RunE: func(cmd *cobra.Command, given []string) error {
			x, err := a.client().Account(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			if kind != "" && x.Kind != kind {
				return hinted{fmt.Errorf("%s is not a %s", visible(x.Login), kind), "valetkey account show LOGIN says what it is"}
			}
			name := fmt.Sprintf("%s %s with its app passwords (%d of them live)", what, visible(x.Login), x.AppPasswords)
			if err := a.confirm(yes, name, x.Login, "login"); err != nil {
				return err
			}
			if err := a.client().DeleteAccount(cmd.Context(), x.Login, kind); err != nil {
				return err
			}
			return a.print(map[string]string{"deleted": x.Login}, func() { fmt.Fprintf(a.out, "deleted %s %s\n", what, visible(x.Login)) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
