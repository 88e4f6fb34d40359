package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) groupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "group",
		Short: "Add, show and change groups and their members",
		Long: `Groups are entries of the LDAP directory, with memberOf on the entries of their members, and say who may log in to an LDAP
application whose configuration names one.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usageError{fmt.Errorf("there is no command %q", "group "+given[0])}
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.groupAdd(), a.groupList(), a.groupShow(), a.groupSet(), a.groupMembers(true), a.groupMembers(false), a.groupDelete())
	return cmd
}

func (a *app) groupAdd() *cobra.Command {
	var n admin.NewGroup
	var attributes []string
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a group without members",
		Example: `  valetkey group add wiki-users --name "Users of the wiki" --attribute gidNumber=2001`,
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, given []string) error {
			n.Name = given[0]
			var err error
			if n.Attributes, err = attributeValues(attributes); err != nil {
				return err
			}
			g, err := a.client().AddGroup(cmd.Context(), n)
			if err != nil {
				return err
			}
			return a.print(g, func() { fmt.Fprintf(a.out, "added group %s\n", visible(g.Name)) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.DisplayName, "name", "", "`NAME` for people")
	f.StringArrayVar(&attributes, "attribute", nil, "LDAP attribute, `NAME=VALUE`; repeatable")
	return cmd
}

func (a *app) groupList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the groups",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []admin.Group{}
			for after := ""; ; {
				page, err := a.client().Groups(cmd.Context(), after, 0)
				if err != nil {
					return err
				}
				all = append(all, page.Groups...)
				if after = page.Next; after == "" {
					break
				}
			}
			return a.print(admin.Groups{Groups: all}, func() {
				if len(all) == 0 {
					fmt.Fprintln(a.out, "there are no groups; valetkey group add NAME adds one")
					return
				}
				t := a.table("GROUP", "NAME", "MEMBERS", "ADDED")
				for _, x := range all {
					t.row(x.Name, x.DisplayName, fmt.Sprint(x.MemberCount), day(x.CreatedAt))
				}
				t.print()
			})
		},
	}
}

func (a *app) groupShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a group with its members",
		Args:              args("NAME"),
		ValidArgsFunction: a.completeGroup,
		RunE: func(cmd *cobra.Command, given []string) error {
			x, err := a.client().Group(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(x, func() {
				t := a.table()
				t.row("group", x.Name)
				t.row("name", x.DisplayName)
				t.row("added", moment(x.CreatedAt))
				t.row("modified", moment(x.ModifiedAt))
				for _, name := range sortedKeys(x.Attributes) {
					for _, v := range x.Attributes[name] {
						t.row("attribute "+name, v)
					}
				}
				for _, login := range x.Members {
					t.row("member", login)
				}
				t.print()
			})
		},
	}
}

func (a *app) groupSet() *cobra.Command {
	var name string
	var attributes []string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a group's name for people and its attributes",
		Long: `Change a group. An attribute gets the values that are given and loses those that it had; without a value it goes. What is not
mentioned stays. The name that it goes by cannot be changed.`,
		Example:           `  valetkey group set wiki-users --attribute gidNumber=2002 --attribute description=`,
		Args:              args("NAME"),
		ValidArgsFunction: a.completeGroup,
		RunE: func(cmd *cobra.Command, given []string) error {
			var p admin.GroupPatch
			if err := somethingToSet(cmd, "name", "attribute"); err != nil {
				return err
			}
			var err error
			if p.Attributes, err = attributeChanges(attributes); err != nil {
				return err
			}
			if cmd.Flags().Changed("name") {
				p.DisplayName = &name
			}
			x, err := a.client().PatchGroup(cmd.Context(), given[0], p)
			if err != nil {
				return err
			}
			return a.print(x, func() { fmt.Fprintf(a.out, "changed group %s\n", visible(x.Name)) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "`NAME` for people")
	f.StringArrayVar(&attributes, "attribute", nil, "LDAP attribute, `NAME=VALUE`, or NAME= to take it away; repeatable")
	return cmd
}

func (a *app) groupMembers(add bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "add-member NAME LOGIN...",
		Short:             "Add people to a group",
		Long:              "Add people to a group, all of them or, if one cannot be, none. Who is in it already stays.",
		ValidArgsFunction: a.completeNewMember,
	}
	if !add {
		cmd.Use, cmd.Short = "remove-member NAME LOGIN...", "Remove people from a group"
		cmd.Long = "Remove people from a group. From the next login on they are out of what the group lets in to. Who is not in it stays out."
		cmd.ValidArgsFunction = a.completeMember
	}
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		return args("NAME", "LOGIN")(cmd, given[:min(len(given), 2)])
	}
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		p, verb := admin.GroupPatch{AddMembers: given[1:]}, "added to"
		if !add {
			p, verb = admin.GroupPatch{RemoveMembers: given[1:]}, "removed from"
		}
		x, err := a.client().PatchGroup(cmd.Context(), given[0], p)
		if err != nil {
			return err
		}
		return a.print(x, func() {
			for _, login := range given[1:] {
				fmt.Fprintf(a.out, "%s %s group %s\n", visible(login), verb, visible(x.Name))
			}
		})
	}
	return cmd
}

func (a *app) groupDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a group; the accounts stay",
		Args:              args("NAME"),
		ValidArgsFunction: a.completeGroup,
		RunE: func(cmd *cobra.Command, given []string) error {
			x, err := a.client().Group(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			what := fmt.Sprintf("group %s with %s", visible(x.Name), counted(x.MemberCount, "member", "members"))
			if err := a.confirm(yes, what, x.Name, "name"); err != nil {
				return err
			}
			if err := a.client().DeleteGroup(cmd.Context(), x.Name); err != nil {
				return err
			}
			return a.print(map[string]string{"deleted": x.Name}, func() { fmt.Fprintf(a.out, "deleted group %s\n", visible(x.Name)) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
