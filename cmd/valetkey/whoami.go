package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show what the daemon takes you for: your role, and your own account",
		Long: `Show what the daemon takes you for. It goes by the user and the groups of the process that connects, so that a new group counts after you have
logged in again. An admin may do everything, the help desk look and revoke, who reads only look; who has an own account leaves LOGIN
out in create, list, show, rename, rotate, revoke and autoconfig.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := a.client().Whoami(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(w, func() {
				t := a.table()
				if w.User == "" {
					t.row("user", fmt.Sprintf("uid %d, which has no name", w.UID))
				} else {
					t.row("user", fmt.Sprintf("%s, uid %d", w.User, w.UID))
				}
				may := map[string]string{
					"admin":     "admin: may do everything",
					"help_desk": "help desk: may look at everything and revoke",
					"read_only": "read only: may look at everything",
					"none":      "none",
				}[w.Role]
				if may == "" {
					may = w.Role
				}
				t.row("role", may)
				if w.Own != nil {
					t.row("own account", w.Own.Login)
					t.row("", "for the services "+orAll(w.Own.Services)+" from "+strings.ReplaceAll(orAll(w.Own.Networks), "all", "everywhere"))
				} else if w.Role == "none" {
					t.row("own account", "none")
				}
				t.print()
			})
		},
	}
}
