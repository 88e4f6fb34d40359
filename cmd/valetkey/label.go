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

// spanFlag reads a number of days, hours or weeks, and returns it as the API takes it; empty stays empty.
func spanFlag(name, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	for unit, hours := range map[string]int{"h": 1, "d": 24, "w": 7 * 24} {
		if number, found := strings.CutSuffix(text, unit); found {
			if n, err := strconv.Atoi(number); err == nil && n > 0 && n < 1_000_000 {
				return (time.Duration(n*hours) * time.Hour).String(), nil
			}
		}
	}
	return "", usageError{fmt.Errorf("--%s %q: write 90d, 12h or 8w", name, text)}
}

func (a *app) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show [LOGIN] LABEL",
		Short: "Show everything about an app password but its secret",
		Long: `Show everything about an app password but its secret: the one that has the label, or the newest that had it. While the old secret of one that
was rotated is good, it stands below.`,
		Example:           `  valetkey show alice phone`,
		Args:              ownArgs("LOGIN", "LABEL"),
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			login, rest := splitOwn(given, 2)
			d, err := a.client().AppPassword(cmd.Context(), login, rest[0])
			if err != nil {
				return ownError(cmd, login, "LABEL", err)
			}
			p := d.AppPassword
			return a.print(d, func() {
				t := a.table()
				t.row("login", p.Login)
				t.row("label", p.Label)
				t.row("status", status(p))
				t.row("services", orAll(p.Services))
				t.row("from", orAll(p.Networks))
				t.row("origin", string(p.Origin))
				t.row("created", moment(p.CreatedAt)+" by "+p.CreatedBy)
				t.row("expires", expiry(p))
				if p.ExpiresUnusedFor != "" {
					t.row("", "after "+days(p.ExpiresUnusedFor)+" without use")
				}
				t.row("last used", lastUse(p.LastUsed))
				if p.RevokedAt != nil {
					t.row("revoked", revocation(p))
				}
				if p.ExemptAt != nil {
					t.row("exempt", moment(*p.ExemptAt)+" by "+p.ExemptBy+": "+p.ExemptWhy)
				}
				if d.Old != nil {
					t.row("old secret", "good until the new one is used, or until "+expiry(*d.Old))
					t.row("", "last used "+lastUse(d.Old.LastUsed))
				}
				t.print()
			})
		},
	}
}

func revocation(p admin.AppPassword) string {
	s := moment(*p.RevokedAt)
	if p.RevokedBy != "" {
		s += " by " + p.RevokedBy
	}
	if p.RevokedWhy != "" {
		s += ": " + p.RevokedWhy
	}
	return s
}

// days writes a Go duration in days if it is some.
func days(text string) string {
	d, err := time.ParseDuration(text)
	if day := 24 * time.Hour; err == nil && d >= day && d%day == 0 {
		return fmt.Sprint(int(d/day), " days")
	}
	return text
}

// status is that of an app password, with which of two secrets it is after a rotation, and what else changes whether it opens anything.
func status(p admin.AppPassword) string {
	s := p.Status
	switch {
	case p.Status == admin.Live && p.ReplacedAt != nil:
		s = "old secret"
	case p.Status == admin.Live && p.Rotated:
		s = "new secret"
	}
	if p.ExemptAt != nil {
		s += ", exempt"
	}
	return s
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rename [LOGIN] LABEL NEW-LABEL",
		Short:             "Give an app password another label",
		Example:           `  valetkey rename alice phone "old phone"`,
		Args:              ownArgs("LOGIN", "LABEL", "NEW-LABEL"),
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			login, labels := splitOwn(given, 3)
			if strings.TrimSpace(labels[1]) == "" {
				return usageError{errors.New("NEW-LABEL is empty")}
			}
			p, err := a.client().Edit(cmd.Context(), login, labels[0], admin.AppPasswordPatch{Label: labels[1]})
			if err != nil {
				return ownError(cmd, login, "NEW-LABEL", err)
			}
			return a.print(p, func() { fmt.Fprintf(a.out, "app password %q %s is now %q\n", labels[0], of(login), p.Label) })
		},
	}
}

func (a *app) editCommand() *cobra.Command {
	var p admin.AppPasswordPatch
	var services, networks []string
	var expires, unused string
	var allServices, anywhere, neverUnused bool
	cmd := &cobra.Command{
		Use:   "edit LOGIN LABEL",
		Short: "Change what an app password opens, from where, and for how long",
		Long: `Change an app password; its secret stays. --service and --from say all that it is for; --add-service and the like change what it has.
The last service or network cannot be removed, because without any it would open everything: --all-services and --from-anywhere say
that in so many words. One that has expired works again with a later --expires.`,
		Example: `  valetkey edit alice phone --add-service smtp --expires 2027-12-31
  valetkey edit alice printer --from 192.0.2.17 --never-expires --expire-unused 90d`,
		Args:              args("LOGIN", "LABEL"),
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := somethingToSet(cmd, "service", "add-service", "remove-service", "all-services", "from", "add-from", "remove-from",
				"from-anywhere", "expires", "never-expires", "expire-unused", "never-expire-unused"); err != nil {
				return err
			}
			if cmd.Flags().Changed("service") || allServices {
				p.Services = &services
				if services == nil {
					p.Services = &[]string{}
				}
			}
			if cmd.Flags().Changed("from") || anywhere {
				p.Networks = &networks
				if networks == nil {
					p.Networks = &[]string{}
				}
			}
			if expires != "" {
				t, err := parseExpiry(expires, time.Now())
				if err != nil {
					return usageError{fmt.Errorf("--expires %w", err)}
				}
				p.ExpiresAt = &t
			}
			if unused != "" || neverUnused {
				text, err := spanFlag("expire-unused", unused)
				if err != nil {
					return err
				}
				p.ExpiresUnusedFor = &text
			}
			x, err := a.client().Edit(cmd.Context(), given[0], given[1], p)
			if err != nil {
				return err
			}
			return a.print(x, func() {
				fmt.Fprintf(a.out, "changed app password %q of %s: services %s, from %s, expires %s", x.Label, visible(x.Login), orAll(x.Services), orAll(x.Networks), expiry(x))
				if x.ExpiresUnusedFor != "" {
					fmt.Fprintf(a.out, " or after %s without use", days(x.ExpiresUnusedFor))
				}
				fmt.Fprintln(a.out)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&services, "service", nil, "`SERVICE` that it opens, instead of those so far; repeatable")
	f.StringArrayVar(&p.AddServices, "add-service", nil, "`SERVICE` that it opens too; repeatable")
	f.StringArrayVar(&p.RemoveServices, "remove-service", nil, "`SERVICE` that it opens no more; repeatable")
	f.BoolVar(&allServices, "all-services", false, "it opens every service")
	f.StringArrayVar(&networks, "from", nil, "network that it may be used from, `CIDR` or address, instead of those so far; repeatable")
	f.StringArrayVar(&p.AddNetworks, "add-from", nil, "`CIDR` or address that it may be used from too; repeatable")
	f.StringArrayVar(&p.RemoveNetworks, "remove-from", nil, "`CIDR` or address that it may be used from no more; repeatable")
	f.BoolVar(&anywhere, "from-anywhere", false, "it may be used from everywhere")
	f.StringVar(&expires, "expires", "", "`WHEN` it ends: 2027-12-31 (end of that day), 90d, 12h, or a time as in RFC 3339")
	f.BoolVar(&p.NeverExpires, "never-expires", false, "it does not end by date")
	f.StringVar(&unused, "expire-unused", "", "`TIME` without use after which it ends: 90d, 12h")
	f.BoolVar(&neverUnused, "never-expire-unused", false, "it does not end by disuse")
	for _, pair := range [][2]string{{"service", "all-services"}, {"from", "from-anywhere"}, {"expires", "never-expires"}, {"expire-unused", "never-expire-unused"},
		{"add-service", "all-services"}, {"add-from", "from-anywhere"}} {
		a.exclusive(cmd, pair[0], pair[1])
	}
	return cmd
}

// exclusive makes two flags together a mistake of usage.
func (a *app) exclusive(cmd *cobra.Command, one, other string) {
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, given []string) error {
		if cmd.Flags().Changed(one) && cmd.Flags().Changed(other) {
			return usageError{fmt.Errorf("--%s and --%s cannot go together", one, other)}
		}
		if before != nil {
			return before(cmd, given)
		}
		return nil
	}
}

func (a *app) rotateCommand() *cobra.Command {
	var n admin.Rotation
	var keep string
	var qr bool
	cmd := &cobra.Command{
		Use:   "rotate [LOGIN] LABEL",
		Short: "Give an app password a new secret and print it, once",
		Long: `Give an app password a new secret, printed once as by create. Label, services, networks and dates stay.

The old secret stays good until the first login with the new one, or for 7 days, whatever comes first: so a device goes on working until
somebody has typed the new secret into it. Rotating again before that takes the unused secret back.

A user of the machine who has no role leaves LOGIN out, for an app password of his own account that he made himself.`,
		Example: `  valetkey rotate alice phone
  valetkey rotate alice phone --keep-old-until 2027-01-31
  valetkey rotate alice phone --end-old`,
		Args:              ownArgs("LOGIN", "LABEL"),
		ValidArgsFunction: a.completeLabel,
		RunE: func(cmd *cobra.Command, given []string) error {
			if keep != "" {
				t, err := parseExpiry(keep, time.Now())
				if err != nil {
					return usageError{fmt.Errorf("--keep-old-until %w", err)}
				}
				n.KeepOldUntil = &t
			}
			if qr && a.json {
				return errQRForPeople
			}
			login, rest := splitOwn(given, 2)
			r, err := a.client().Rotate(cmd.Context(), login, rest[0], n)
			if err != nil {
				return ownError(cmd, login, "LABEL", err)
			}
			return a.print(r, func() {
				if qr {
					defer a.drawQR(r.Secret)
				}
				if !a.terminal {
					fmt.Fprintln(a.out, r.Secret)
					return
				}
				fmt.Fprintf(a.out, "New secret of app password %q of %s:\n\n    %s\n\nIt is shown this once. Spaces, hyphens and case do not matter when it is typed.\n",
					r.AppPassword.Label, visible(r.AppPassword.Login), r.Secret)
				if r.Old != nil {
					fmt.Fprintf(a.out, "The old one is good until this one is used, or until %s.\n", expiry(*r.Old))
				} else {
					fmt.Fprintln(a.out, "The old one is refused from now on.")
				}
			})
		},
	}
	cmd.Flags().StringVar(&keep, "keep-old-until", "", "`WHEN` the old secret ends at the latest: 2027-12-31 (end of that day), 30d, 12h, or a time as in RFC 3339")
	cmd.Flags().BoolVar(&qr, "qr", false, "draw the secret as a QR code too, for the camera of a phone")
	cmd.Flags().BoolVar(&n.EndOld, "end-old", false, "the old secret ends now")
	a.exclusive(cmd, "keep-old-until", "end-old")
	return cmd
}
