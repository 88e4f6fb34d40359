package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) revokeCommand() *cobra.Command {
	var f finder
	var r massRevocation
	var all bool
	cmd := &cobra.Command{
		Use:   "revoke [LOGIN] LABEL | revoke LOGIN --all | revoke [LOGIN] FILTER...",
		Short: "End app passwords, at once and for ever",
		Long: `End an app password, all of an account, or all that the filters mean; of several filters all must hold. From the next login on every
daemon refuses it. Revoking one that is revoked already changes nothing.

More than one are shown first, and revoked if you say so at the terminal; --yes says so beforehand and shows nothing, --dry-run only shows. What
appears after they were shown is not touched. They are revoked a hundred at a time, each with its entry in the audit log; whatever
interrupts that, the same command goes on with the rest.`,
		Example: `  valetkey revoke alice phone --why lost
  valetkey revoke alice --all --why "has left"
  valetkey revoke --unused-for 180d --dry-run
  valetkey revoke --service wiki --label "old *" --yes`,
		Args: func(_ *cobra.Command, given []string) error {
			if len(given) > 2 {
				return usageError{hinted{fmt.Errorf("there is one argument too many: %q", given[2]),
					"a label with spaces needs quotes; usage: valetkey revoke LOGIN LABEL"}}
			}
			return nil
		},
		Annotations:       long,
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			narrowed, err := f.read(cmd, given)
			if err != nil {
				return err
			}
			if len(given) == 2 || len(given) == 1 && !narrowed && !all {
				login, rest := splitOwn(given, 2)
				if narrowed || all || r.dryRun {
					return usageError{errors.New("a LABEL means one app password: filters, --all and --dry-run are for several")}
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
				defer cancel()
				p, err := a.client().Revoke(ctx, login, rest[0], r.why)
				if err != nil {
					return ownError(cmd, login, "LABEL", err)
				}
				return a.print(p, func() { fmt.Fprintf(a.out, "app password %q of %s is revoked\n", p.Label, visible(p.Login)) })
			}
			switch {
			case len(given) == 0 && !narrowed:
				return usageError{hinted{errors.New("LOGIN is missing"), "or say which of all accounts: valetkey revoke --help shows the filters"}}
			case all && (narrowed || len(given) == 0):
				return usageError{errors.New("--all is for one LOGIN, without filters")}
			case r.yes && r.dryRun:
				return usageError{errors.New("--yes and --dry-run cannot go together")}
			}
			r.filter = f.filter
			return a.revokeAll(cmd.Context(), r)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all of the account")
	cmd.Flags().BoolVar(&r.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "only show what would be revoked")
	cmd.Flags().StringVar(&r.why, "why", "", "`REASON`, for the audit log")
	return cmd
}

// massRevocation is the end of all that a filter means.
type massRevocation struct {
	filter      admin.Filter
	why         string
	yes, dryRun bool
}

// progressAfter is how long something takes before it tells how far it is.
const progressAfter = 2 * time.Second

func (a *app) revokeAll(ctx context.Context, r massRevocation) error {
	if !r.yes {
		n, asOf, err := a.showRevocation(ctx, r.filter)
		if err != nil || r.dryRun || n == 0 {
			return err
		}
		if err := a.confirmNumber(n); err != nil {
			return err
		}
		r.filter.AsOf = asOf
	}
	var out listing = &silentListing{}
	if a.json {
		out = &documentListing{out: a.out}
	}
	n, err := a.revokeBatches(ctx, r, out)
	if err != nil {
		if n > 0 {
			return hinted{fmt.Errorf("%s revoked before this: %w", counted(n, "app password was", "app passwords were"), err), "the same command goes on with the rest"}
		}
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.out, "%s revoked\n", counted(n, "app password is", "app passwords are"))
	}
	return nil
}

// showRevocation prints what would be revoked, and says how many that are and as of when.
func (a *app) showRevocation(ctx context.Context, f admin.Filter) (n int, asOf *time.Time, err error) {
	var out listing = a.tableListing(true)
	if a.json {
		out = &documentListing{out: a.out, before: "  \"dry_run\": true,\n"}
	}
	for page, err := range a.find(ctx, f, "", 0) {
		if err != nil {
			return n, nil, err
		}
		asOf = &page.AsOf
		n += len(page.AppPasswords)
		if err := out.page(page.AppPasswords); err != nil {
			return n, nil, err
		}
	}
	if err := out.end(); err != nil {
		return n, nil, err
	}
	if !a.json {
		fmt.Fprintf(a.out, "%s would be revoked\n", counted(n, "app password", "app passwords"))
	}
	return n, asOf, nil
}

// confirmNumber asks whether so many shall be revoked: whoever means it types the number.
func (a *app) confirmNumber(n int) error {
	if !a.inTerminal {
		return usageError{hinted{errors.New("nothing was revoked"), "say --yes if that is meant, or --dry-run if it is not"}}
	}
	fmt.Fprintf(a.err, "Revoke them? Type their number: ")
	line, _ := bufio.NewReader(a.in).ReadString('\n')
	if strings.TrimSpace(line) != strconv.Itoa(n) {
		return errors.New("nothing was revoked")
	}
	return nil
}

// revokeBatches revokes all that the filter means and returns how many that were, also with an error.
func (a *app) revokeBatches(ctx context.Context, r massRevocation, out listing) (n int, err error) {
	begin, told := time.Now(), time.Time{}
	for after := ""; ; {
		page, err := a.revokeBatch(ctx, admin.FoundRevocation{Filter: r.filter, Why: r.why, After: after})
		if err != nil {
			return n, err
		}
		n += len(page.AppPasswords)
		if err := out.page(page.AppPasswords); err != nil {
			return n, err
		}
		if after = page.Next; after == "" {
			return n, nil
		}
		r.filter.AsOf = &page.AsOf
		if now := time.Now(); now.Sub(begin) > progressAfter && now.Sub(told) > progressAfter {
			told = now
			fmt.Fprintf(a.err, "%d revoked so far\n", n)
		}
	}
}

func (a *app) revokeBatch(ctx context.Context, n admin.FoundRevocation) (admin.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return a.client().RevokeFound(ctx, n)
}

// silentListing is for who said yes beforehand.
type silentListing struct{}

func (silentListing) page([]admin.AppPassword) error { return nil }
func (silentListing) end() error                     { return nil }
func (silentListing) people() bool                   { return true }

// counted is a number of things.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
