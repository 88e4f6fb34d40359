package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Ask the plugin that knows who has a second factor",
		Long: `Ask the plugin that knows who has a second factor. Which one it is, and whether it is asked when an app password is made or also at each
login, is in [enrolment] of the daemon's configuration.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usageError{fmt.Errorf("there is no command %q", "plugin "+given[0])}
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.pluginStatusCommand(), a.pluginCheckCommand())
	return cmd
}

func (a *app) pluginStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the plugin is, and when it is asked",
		Long:  "Show how the plugin is, and when it is asked. The exit code is 3 if there is one and it does not run.",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.client().Plugin(cmd.Context())
			if err != nil {
				return err
			}
			err = a.print(p, func() { a.printPlugin(p) })
			if err == nil && p.Path != "" && !p.Up {
				return outcomeError{exitUnreachable}
			}
			return err
		},
	}
}

func (a *app) printPlugin(p admin.Plugin) {
	t := a.table()
	t.row("second factor", p.Asked())
	if p.Error != "" {
		t.row("", "NOT AS CONFIGURED: "+p.Error)
	}
	if p.Path == "" {
		t.row("plugin", "none; enrolment.plugin in the daemon's configuration names one")
		t.print()
		return
	}
	t.row("when it is down", fallback(p))
	t.row("plugin", p.Path)
	t.row("", pluginState(p))
	if p.Up && p.Problem != "" {
		t.row("", "the run before ended: "+p.Problem)
	}
	if p.BreakerOpen {
		t.row("breaker", "open: the last checks all failed, and only one a second is tried")
	} else {
		t.row("breaker", "closed")
	}
	t.row("restarts", fmt.Sprint(p.Restarts))
	each := ""
	if p.Checks > 0 {
		each = fmt.Sprintf(", %.1f ms each", 1000*p.CheckSeconds/float64(p.Checks))
	}
	t.row("checks", fmt.Sprintf("%d%s; %d answered from what it said before; %d under way", p.Checks, each, p.Cached, p.Waiting))
	for _, reason := range sortedKeys(p.Errors) {
		t.row("", fmt.Sprintf("%d without an answer: %s", p.Errors[reason], reason))
	}
	t.row("accounts known", fmt.Sprint(p.Known))
	t.row("let in without it", fmt.Sprintf("%d logins", p.Fallback))
	if p.LinesDropped > 0 {
		t.row("output dropped", fmt.Sprintf("%d lines", p.LinesDropped))
	}
	t.print()
}

// fallback says in words what on_error means.
func fallback(p admin.Plugin) string {
	switch p.OnError {
	case "allow":
		return "everybody gets in whom it has not refused within " + p.LastKnown
	case "undecided":
		return "a temporary failure for everybody whose answer has run out"
	}
	return "its last answers count for " + p.LastKnown + "; a temporary failure for everybody else"
}

// pluginState is one line about the plugin that is configured.
func pluginState(p admin.Plugin) string {
	switch {
	case p.Up && p.Since != nil:
		return fmt.Sprintf("%s %s runs since %s, pid %d", p.Name, p.Version, p.Since.Local().Format(time.DateTime), p.PID)
	case p.Problem != "":
		return "DOES NOT RUN: " + p.Problem
	}
	return "is being started"
}

// secondFactor is the line of `valetkey status`.
func secondFactor(p admin.Plugin) string {
	switch {
	case p.Path == "":
		return p.Asked()
	case p.Up:
		return fmt.Sprintf("%s; %s runs", p.Asked(), p.Name)
	}
	return p.Asked() + "; THE PLUGIN " + pluginState(p)
}

func (a *app) pluginCheckCommand() *cobra.Command {
	var fresh bool
	cmd := &cobra.Command{
		Use:   "check LOGIN",
		Short: "Show whether the plugin says that a user has a second factor, and why",
		Long: `Show what a login of this user would be told about the second factor now: what the plugin said, when, and why. With --fresh the plugin
is asked even if its last answer still holds, and logins go by the new answer from then on.

Exit codes: 0 the user has one or needs none, 1 not, 3 it is not known.`,
		Args:              args("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			e, err := a.client().CheckEnrolment(cmd.Context(), given[0], fresh)
			if err != nil {
				return err
			}
			if err := a.print(e, func() { a.printEnrolment(e) }); err != nil {
				return err
			}
			switch {
			case e.Source == admin.SourceUnknown:
				return outcomeError{exitUnreachable}
			case !e.Allowed:
				return outcomeError{exitRefused}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&fresh, "fresh", false, "ask the plugin even if its last answer still holds")
	return cmd
}

func (a *app) printEnrolment(e admin.Enrolment) {
	t := a.table()
	t.row("login", e.Login)
	t.row("second factor", verdictOn(e))
	if e.Status != "" {
		said := e.Status
		if e.ReasonCode != "" {
			said += " (" + e.ReasonCode + ")"
		}
		t.row("plugin said", said)
	}
	if e.At != nil {
		t.row("when", fmt.Sprintf("%s, %s ago", e.At.Local().Format(time.DateTime), max(time.Since(*e.At), 0).Round(time.Second)))
	}
	if e.Until != nil && e.KeptUntil != nil {
		t.row("holds until", e.Until.Local().Format(time.DateTime))
		t.row("kept until", e.KeptUntil.Local().Format(time.DateTime)+", while the plugin cannot be heard")
	}
	if e.Problem != "" {
		t.row("problem", e.Problem)
	}
	switch e.Require {
	case "off":
		t.row("policy", "nobody asks for it: require is off")
	case "issue":
		t.row("policy", "asked for when an app password is made, not at a login")
	}
	t.print()
}

func verdictOn(e admin.Enrolment) string {
	switch e.Source {
	case admin.SourceReader:
		return "not asked for: a reader is a program"
	case admin.SourceUnknown:
		return "NOT KNOWN: a login is told to try again later"
	case admin.SourceAllow:
		return "not known, and on_error lets the user in"
	case admin.SourceLastKnown:
		return "yes, by the last answer: the plugin cannot be heard"
	}
	if e.Allowed {
		return "yes"
	}
	return "NO"
}

// plugin looks at the enrolment plugin as the daemon sees it. Without a daemon there is none.
func (d *doctor) plugin() {
	if d.status == nil {
		return
	}
	p := d.status.Enrolment
	if p.Error != "" {
		d.say("second factor", wrong, "repair [enrolment], then make the daemon read it: systemctl reload valetkeyd", "%s", p.Error)
	}
	switch {
	case d.cfg != nil && d.cfg.Enrolment.Require != p.Require && p.Error == "":
		d.say("second factor", wrong, "make the daemon read it: systemctl reload valetkeyd, or send it SIGHUP; its log says what it refuses",
			"enrolment.require is %q in the file, and %q in the daemon", d.cfg.Enrolment.Require, p.Require)
	case p.Path == "":
		d.say("second factor", fine, "", "%s", p.Asked())
	case !p.Up && p.Require == "off":
		d.say("second factor", dubious, "valetkey plugin status; valetkeyd's log has what the plugin printed", "%s; the plugin %s", p.Asked(), pluginState(p))
	case !p.Up:
		d.say("second factor", wrong, "valetkey plugin status; valetkeyd's log has what the plugin printed", "the plugin %s", pluginState(p))
	case p.BreakerOpen:
		d.say("second factor", wrong, "valetkey plugin check LOGIN --fresh says what it answers", "the plugin runs, and its last checks all failed")
	default:
		d.say("second factor", fine, "", "%s; %s runs", p.Asked(), p.Name)
	}
}
