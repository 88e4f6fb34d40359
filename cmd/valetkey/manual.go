package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/manual"
)

// manualCommand is hidden: whoever builds a package runs it, by "make man".
func (a *app) manualCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "manual DIR",
		Short:  "Write the manual pages of all commands into a directory",
		Hidden: true,
		Args:   args("DIR"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := manual.Commands(cmd.Root(), "1", given[0]); err != nil {
				return hinted{fmt.Errorf("writing the manual pages: %w", err), "the directory must be there"}
			}
			return nil
		},
	}
}
