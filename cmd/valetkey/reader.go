package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) readerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reader",
		Short: "Add and delete readers: accounts of programs that search the LDAP directory",
		Long: `A reader is the account of a program that searches the LDAP directory. It binds as cn=NAME,ou=readers,BASE with an app password, sees
everything below the base, and can log in to nothing else. "valetkey create NAME LABEL" makes its app passwords.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usageError{fmt.Errorf("there is no command %q", "reader "+given[0])}
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.readerAdd(), a.readerList(), a.readerDelete())
	return cmd
}

func (a *app) readerAdd() *cobra.Command {
	n := admin.NewAccount{Kind: admin.KindReader}
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a reader",
		Example: `  valetkey reader add wiki --name "The wiki's search"
  valetkey create wiki server --service ldap`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, given []string) error {
			n.Login = given[0]
			x, err := a.client().AddAccount(cmd.Context(), n)
			if err != nil {
				return err
			}
			return a.print(x, func() {
				fmt.Fprintf(a.out, "added reader %s; valetkey create %s LABEL makes an app password for it\n", visible(x.Login), visible(x.Login))
			})
		},
	}
	cmd.Flags().StringVar(&n.DisplayName, "name", "", "`NAME` for people")
	return cmd
}

func (a *app) readerList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the readers",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.accounts(cmd, admin.KindReader)
			if err != nil {
				return err
			}
			return a.print(admin.Accounts{Accounts: all}, func() {
				if len(all) == 0 {
					fmt.Fprintln(a.out, "there are no readers; valetkey reader add NAME adds one")
					return
				}
				t := a.table("READER", "NAME", "STATE", "APP PASSWORDS", "ADDED")
				for _, x := range all {
					t.row(x.Login, x.DisplayName, state(x.Enabled), fmt.Sprint(x.AppPasswords), day(x.CreatedAt))
				}
				t.print()
			})
		},
	}
}

func (a *app) readerDelete() *cobra.Command {
	cmd := a.deleteCommand("reader", admin.KindReader)
	cmd.Use, cmd.Short, cmd.Args, cmd.ValidArgsFunction = "delete NAME", "Delete a reader with its app passwords", args("NAME"), a.completeReader
	return cmd
}
