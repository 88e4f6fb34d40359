package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) whyCommand() *cobra.Command {
	var service, from string
	cmd := &cobra.Command{
		Use:   "why LOGIN",
		Short: "Explain why a login works or does not",
		Long: `Explain what would happen to a login now, and what did happen: which app passwords open what, the last rejected attempts with their
reasons, the devices that still send an old app password, the second factor, and how guessing slows the login down.

Say with --service and --from what the user does: without them it tells what the answer depends on. Nothing is tried and nothing
is changed; valetkey try logs in. docs/troubleshooting.md has every reason with its remedy.

The exit code is 1 if no account goes by the login, also when attempts at it are known.`,
		Example: `  valetkey why alice
  valetkey why alice --service imap --from 192.0.2.7`,
		Args:              args("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			if from != "" {
				if _, err := netip.ParseAddr(from); err != nil {
					return usageError{fmt.Errorf("--from %q is not an address", from)}
				}
			}
			w, err := a.client().Why(cmd.Context(), given[0], service, from)
			if err != nil {
				return err
			}
			if err := a.print(w, func() { a.explainWhy(w) }); err != nil {
				return err
			}
			if w.Account == nil && !w.InDirectory {
				return outcomeError{exitRefused}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "`SERVICE` that is logged in to: imap, smtp, ldap..")
	cmd.Flags().StringVar(&from, "from", "", "`ADDRESS` of the device")
	return cmd
}

// shownAttempts bounds what is printed; --json has all.
const shownAttempts = 12

func (a *app) explainWhy(w admin.Why) {
	fmt.Fprintf(a.out, "%s: %s\n", visible(w.Login), visible(w.Summary))
	if w.Account != nil && w.Account.Login != w.Login {
		fmt.Fprintf(a.out, "it is an alias of %s\n", visible(w.Account.Login))
	}
	if len(w.AppPasswords) > 0 {
		a.heading("App passwords")
		t := a.table("LABEL", "STATUS", "OPENS", "LAST USED", "WHY")
		for _, p := range w.AppPasswords {
			t.row(p.AppPassword.Label, status(p.AppPassword), p.Opens, lastUse(p.AppPassword.LastUsed), strings.Join(p.Why, "; "))
		}
		t.print()
	}
	if len(w.Attempts) > 0 {
		a.heading("Rejected attempts, the latest first")
		t := a.table("LAST", "TIMES", "REASON", "SERVICE", "BY", "FROM", "APP PASSWORD")
		var reasons []admin.WhyAttempt
		for _, x := range w.Attempts[:min(len(w.Attempts), shownAttempts)] {
			t.row(instant(x.Last), fmt.Sprint(x.Count), string(x.Reason), dash(x.Service), dash(x.FrontEnd), dash(x.Address), dash(x.Label))
			known := false
			for _, r := range reasons {
				known = known || r.Reason == x.Reason
			}
			if !known {
				reasons = append(reasons, x)
			}
		}
		t.print()
		if more := len(w.Attempts) - shownAttempts; more > 0 {
			fmt.Fprintf(a.out, "and %d more kinds; --json has them\n", more)
		}
		for _, r := range reasons {
			fmt.Fprintf(a.out, "%s: %s\n", visible(string(r.Reason)), r.Meaning)
		}
	} else {
		a.heading("No rejected attempt is known")
	}
	if e := w.Enrolment; e != nil {
		a.heading("Second factor")
		text := dash(e.Status)
		if e.ReasonCode != "" {
			text += ", " + e.ReasonCode
		}
		if e.At != nil {
			text += ", as of " + instant(*e.At)
		}
		if e.Problem != "" {
			text += "; " + e.Problem
		}
		fmt.Fprintf(a.out, "%s (require = %q)\n", visible(text), e.Require)
	}
	if t := w.Throttle; t != nil {
		a.heading("Guessing")
		switch {
		case t.Exempt:
			fmt.Fprintf(a.out, "%s is exempt: nothing is counted\n", t.Source)
		case t.Source == "" && len(t.Sources) == 0:
			fmt.Fprintln(a.out, "nobody guesses at this login")
		case t.Source == "":
			for _, s := range t.Sources {
				fmt.Fprintf(a.out, "%s: %d guesses lately, the last at %s; its next refusal %s\n", s.Source, s.Guesses, instant(s.Last), wait(s.Delay))
			}
		default:
			fmt.Fprintf(a.out, "%s: %d guesses lately; the next refusal %s, a right password is answered at once\n", t.Source, t.Guesses, wait(t.Delay))
			if t.Known {
				fmt.Fprintln(a.out, "this login was accepted from there lately, so the guesses of others do not slow it down")
			}
			if t.Full {
				fmt.Fprintln(a.out, "too many guesses from there are under way: a login is put off at this moment")
			}
		}
	}
	if len(w.Advice) > 0 {
		a.heading("What to do")
		for _, line := range w.Advice {
			fmt.Fprintf(a.out, "- %s\n", visible(line))
		}
	}
}

func (a *app) heading(text string) { fmt.Fprintf(a.out, "\n%s\n", text) }

// wait says when a refusal goes out that is held back for a Go duration.
func wait(text string) string {
	if d, err := time.ParseDuration(text); err == nil && d == 0 {
		return "goes out at once"
	}
	return "waits " + text
}
