package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) exemptCommand() *cobra.Command {
	var because string
	var end bool
	cmd := &cobra.Command{
		Use:   "exempt LOGIN LABEL",
		Short: "Free the app password of a device without a person from the second factor",
		Long: `Free an app password from the second factor: a printer has no person behind it who could have one. The reason is asked for since whoever
looks at the list next year wants to know. With --end the second factor is asked for again, from the next login on.`,
		Example: `  valetkey exempt office printer --because "printer in room 5"
  valetkey exempt office printer --end`,
		Args:              args("LOGIN", "LABEL"),
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			if end == cmd.Flags().Changed("because") {
				return usageError{hinted{errors.New("say either why it is exempt, or that this ends"), `--because "printer in room 5", or --end`}}
			}
			var p admin.AppPassword
			var err error
			if end {
				p, err = a.client().EndExemption(cmd.Context(), given[0], given[1])
			} else {
				p, err = a.client().Exempt(cmd.Context(), given[0], given[1], because)
			}
			if err != nil {
				return err
			}
			return a.print(p, func() {
				if end {
					fmt.Fprintf(a.out, "app password %q of %s needs a second factor like any other\n", p.Label, visible(p.Login))
					return
				}
				fmt.Fprintf(a.out, "app password %q of %s is exempt from the second factor: %s\n", p.Label, visible(p.Login), visible(p.ExemptWhy))
			})
		},
	}
	cmd.Flags().StringVar(&because, "because", "", "`REASON`, for whoever comes after you")
	cmd.Flags().BoolVar(&end, "end", false, "ask for the second factor again")
	return cmd
}
