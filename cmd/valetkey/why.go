package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
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
	a.say("  ", w.Login+": "+w.Summary)
	if w.Account != nil && w.Account.Login != w.Login {
		a.say("  ", "it is an alias of "+w.Account.Login)
	}
	if len(w.AppPasswords) > 0 {
		a.heading("App passwords")
		a.whyAppPasswords(w.AppPasswords)
	}
	if len(w.Attempts) > 0 {
		a.heading("Rejected attempts, the latest first")
		shown := w.Attempts[:min(len(w.Attempts), shownAttempts)]
		a.whyAttempts(shown)
		if more := len(w.Attempts) - len(shown); more > 0 {
			fmt.Fprintf(a.out, "and %d more kinds; --json has them\n", more)
		}
		var told []auth.Reason
		for _, x := range shown {
			if !slices.Contains(told, x.Reason) {
				told = append(told, x.Reason)
				a.say("  ", string(x.Reason)+": "+x.Meaning)
			}
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
		a.say("  ", fmt.Sprintf("%s (require = %q)", text, e.Require))
	}
	if t := w.Throttle; t != nil {
		a.heading("Guessing")
		switch {
		case t.Exempt:
			a.say("  ", t.Source+" is exempt: nothing is counted")
		case t.Source == "" && len(t.Sources) == 0:
			a.say("  ", "nobody guesses at this login")
		case t.Source == "":
			for _, s := range t.Sources {
				a.say("  ", fmt.Sprintf("%s: %d guesses lately, the last at %s; its next refusal %s", s.Source, s.Guesses, instant(s.Last), wait(s.Delay)))
			}
		default:
			a.say("  ", fmt.Sprintf("%s: %d guesses lately; the next refusal %s, a right password is answered at once", t.Source, t.Guesses, wait(t.Delay)))
			if t.Known {
				a.say("  ", "this login was accepted from there lately, so the guesses of others do not slow it down")
			}
			if t.Full {
				a.say("  ", "too many guesses from there are under way: a login is put off at this moment")
			}
		}
	}
	if len(w.Advice) > 0 {
		a.heading("What to do")
		for _, line := range w.Advice {
			a.say("  ", "- "+line)
		}
	}
}

// whyAppPasswords writes a table, or on a narrow terminal a paragraph for each: why one does not open something is what was asked for.
func (a *app) whyAppPasswords(list []admin.WhyAppPassword) {
	if a.narrow() {
		for _, p := range list {
			text := visible(p.AppPassword.Label) + ": " + status(p.AppPassword) + ", opens: " + p.Opens
			if len(p.Why) > 0 {
				text += " (" + strings.Join(p.Why, "; ") + ")"
			}
			a.say("  ", text+", last used "+lastUse(p.AppPassword.LastUsed))
		}
		return
	}
	t := a.table("LABEL", "STATUS", "OPENS", "LAST USED", "WHY")
	for _, p := range list {
		t.row(p.AppPassword.Label, status(p.AppPassword), p.Opens, lastUse(p.AppPassword.LastUsed), strings.Join(p.Why, "; "))
	}
	t.print()
}

// whyAttempts is the same of attempts.
func (a *app) whyAttempts(list []admin.WhyAttempt) {
	if a.narrow() {
		for _, x := range list {
			text := instant(x.Last) + "  " + string(x.Reason)
			if x.Count > 1 {
				text += fmt.Sprintf(", %d times", x.Count)
			}
			for _, part := range []struct{ name, value string }{{"service", x.Service}, {"by", x.FrontEnd}, {"from", x.Address}, {"label", x.Label}} {
				if part.value != "" {
					text += "  " + part.name + "=" + quoted(part.value)
				}
			}
			a.say("  ", text)
		}
		return
	}
	t := a.table("LAST", "TIMES", "REASON", "SERVICE", "BY", "FROM", "APP PASSWORD")
	for _, x := range list {
		t.row(instant(x.Last), fmt.Sprint(x.Count), string(x.Reason), dash(x.Service), dash(x.FrontEnd), dash(x.Address), dash(x.Label))
	}
	t.print()
}

func (a *app) heading(text string) { fmt.Fprintf(a.out, "\n%s\n", text) }

// wait says when a refusal goes out that is held back for a Go duration.
func wait(text string) string {
	if d, err := time.ParseDuration(text); err == nil && d == 0 {
		return "goes out at once"
	}
	return "waits " + text
}
