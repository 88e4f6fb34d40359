package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) createCommand() *cobra.Command {
	var n admin.NewAppPassword
	var expires string
	var d delivery
	cmd := &cobra.Command{
		Use:   "create [LOGIN] LABEL",
		Short: "Create an app password and print its secret, once",
		Long: `Create an app password. The secret is printed once, to standard output, alone on its line when that is not a terminal.

Without --service it opens every service, without --from it works from everywhere. An address is known for mail servers that
pass it on and for LDAP binds over TCP; where it is not known, an app password with --from does not work.

A user of the machine who has no role leaves LOGIN out and makes one for his own account, if the daemon's [self_service] is on.`,
		Example: `  valetkey create alice phone --service imap --service smtp
  valetkey create alice "printer, 2nd floor" --service smtp --from 192.0.2.17 --expires 2027-12-31
  valetkey create alice "Alice's phone" --mobileconfig alice-phone.mobileconfig`,
		Args:              ownArgs("LOGIN", "LABEL"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			login, rest := splitOwn(given, 2)
			n.Label = rest[0]
			if cmd.Flags().Changed("exempt-because") && strings.TrimSpace(n.ExemptBecause) == "" {
				return usageError{errors.New("--exempt-because needs a reason, such as \"printer in room 5\"")}
			}
			if expires != "" {
				t, err := parseExpiry(expires, time.Now())
				if err != nil {
					return usageError{err}
				}
				n.ExpiresAt = &t
			}
			defer d.abandon()
			if err := d.prepare(cmd, a, login, &n); err != nil {
				return ownError(cmd, login, "LABEL", err)
			}
			c, err := a.client().Create(cmd.Context(), login, n)
			if err != nil {
				return ownError(cmd, login, "LABEL", err)
			}
			notWritten := d.write(c) // told in the end: the secret must not be lost with it
			err = a.print(d.answer(c), func() {
				defer d.tell(a, c)
				if !a.terminal {
					fmt.Fprintln(a.out, c.Secret)
					return
				}
				fmt.Fprintf(a.out, "App password %q of %s:\n\n    %s\n\nIt is shown this once. Spaces, hyphens and case do not matter when it is typed.\n",
					c.AppPassword.Label, visible(c.AppPassword.Login), c.Secret)
			})
			return errors.Join(notWritten, err)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&n.Services, "service", nil, "`SERVICE` that it opens: imap, smtp, ldap..; repeatable")
	f.StringArrayVar(&n.Networks, "from", nil, "network that it may be used from, `CIDR` or address; repeatable")
	f.StringVar(&n.ExemptBecause, "exempt-because", "", "ask for no second factor, for this `REASON`: a device without a person")
	f.StringVar(&expires, "expires", "", "`WHEN` it ends: 2027-12-31 (end of that day), 90d, 12h, or a time as in RFC 3339")
	d.flags(cmd)
	return cmd
}

// parseExpiry reads a day (its end, local time), a number of days or hours from now, or a time.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100_000 {
			return now.AddDate(0, 0, n), nil
		}
	}
	if hours, found := strings.CutSuffix(text, "h"); found {
		if n, err := strconv.Atoi(hours); err == nil && n > 0 && n < 1_000_000 {
			return now.Add(time.Duration(n) * time.Hour), nil
		}
	}
	if t, err := time.ParseInLocation("2006-01-02", text, now.Location()); err == nil {
		return t.AddDate(0, 0, 1), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("--expires %q: write 2027-12-31, 90d, 12h or 2027-12-31T18:00:00Z", text)
}

func (a *app) listCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:               "list [LOGIN]",
		Short:             "List an account's app passwords",
		Args:              ownArgs("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			login, _ := splitOwn(given, 1)
			p, err := a.client().AppPasswords(cmd.Context(), login, all)
			if err != nil {
				return ownError(cmd, login, "LOGIN", err)
			}
			return a.print(p, func() {
				if len(p.AppPasswords) == 0 && login == "" {
					fmt.Fprintln(a.out, "you have no app passwords; valetkey create LABEL makes one")
					return
				}
				if len(p.AppPasswords) == 0 {
					fmt.Fprintf(a.out, "%s has no app passwords; valetkey create LOGIN LABEL makes one\n", visible(login))
					return
				}
				t := a.table("LABEL", "STATUS", "SERVICES", "FROM", "CREATED", "EXPIRES", "LAST USED")
				for _, x := range p.AppPasswords {
					t.row(x.Label, passwordState(x), orAll(x.Services), orAll(x.Networks), day(x.CreatedAt), expiry(x), lastUse(x.LastUsed))
				}
				t.print()
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "revoked and expired ones too")
	return cmd
}

func orAll(list []string) string {
	if len(list) == 0 {
		return "all"
	}
	return strings.Join(list, ",")
}

func expiry(p admin.AppPassword) string {
	if p.ExpiresAt == nil {
		return "never"
	}
	return moment(*p.ExpiresAt)
}

func lastUse(u *admin.Use) string {
	if u == nil {
		return "never"
	}
	s := moment(u.At) + " " + u.Service
	if u.Address != "" {
		s += " from " + u.Address
	}
	return s
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rename [LOGIN] LABEL NEW-LABEL",
		Short:             "Give an app password another label",
		Args:              ownArgs("LOGIN", "LABEL", "NEW-LABEL"),
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			login, labels := splitOwn(given, 3)
			if err := a.client().Rename(cmd.Context(), login, labels[0], labels[1]); err != nil {
				return ownError(cmd, login, "NEW-LABEL", err)
			}
			done := map[string]string{"label": labels[1]}
			if login != "" {
				done["login"] = login
			}
			return a.print(done, func() {
				fmt.Fprintf(a.out, "app password %q %s is now %q\n", labels[0], of(login), labels[1])
			})
		},
	}
}

func (a *app) revokeCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:               "revoke [LOGIN] LABEL",
		Short:             "End an app password, at once and for ever",
		Long:              "End an app password. From the next login on every daemon refuses it. Revoking one that is revoked already changes nothing.",
		Args:              ownArgs("LOGIN", "LABEL"),
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			login, rest := splitOwn(given, 2)
			p, err := a.client().Revoke(cmd.Context(), login, rest[0], why)
			if err != nil {
				return ownError(cmd, login, "LABEL", err)
			}
			return a.print(p, func() { fmt.Fprintf(a.out, "app password %q of %s is revoked\n", p.Label, visible(p.Login)) })
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "`REASON`, for the audit log")
	return cmd
}
