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
	var expires, unused string
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
					return usageError{fmt.Errorf("--expires %w", err)}
				}
				n.ExpiresAt = &t
			}
			var err error
			if n.ExpiresUnusedFor, err = spanFlag("expire-unused", unused); err != nil {
				return err
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
	f.StringVar(&unused, "expire-unused", "", "`TIME` without use after which it ends: 90d, 12h")
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
	return time.Time{}, fmt.Errorf("%q: write 2027-12-31, 90d, 12h or 2027-12-31T18:00:00Z", text)
}
