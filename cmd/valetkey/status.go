package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon is",
		Long:  "Show how the daemon is. The exit code is 3 if the daemon or its database cannot be reached.",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			err = a.print(s, func() {
				missing := ""
				t := a.table()
				t.row("daemon", fmt.Sprintf("version %s, up %s", s.Version, time.Since(s.Started).Round(time.Second)))
				kind := "external"
				if s.Database.Private {
					kind = "private cluster"
				}
				if s.Database.Reachable {
					t.row("database", fmt.Sprintf("%s, Postgres %s, schema %d", kind, s.Database.Version, s.Database.Schema))
				} else {
					t.row("database", kind+", NOT REACHABLE: "+s.Database.Error)
				}
				t.row("peppers", strings.Join(s.Peppers, ", "))
				if len(s.Unknown) > 0 {
					t.row("", "rows of unknown peppers, found slowly: "+strings.Join(s.Unknown, ", "))
				}
				for _, l := range s.Listeners {
					t.row(l.Name, l.Address+", "+connections(&l))
					if l.TLS != nil {
						t.row("", protection(l.TLS))
						if l.TLS.Error != "" {
							t.row("", "THE NEW CERTIFICATE CANNOT BE USED: "+l.TLS.Error)
						}
					}
					for _, app := range l.Applications {
						if app.GroupMissing {
							t.row("", fmt.Sprintf("NOBODY CAN LOG IN TO %s: there is no group %s", app.Name, app.Group))
							missing = app.Group
						}
					}
				}
				if n := s.Directory; n.Finds > 0 {
					t.row("directory", fmt.Sprintf("%d finds in %d queries", n.Finds, n.Queries))
				}
				t.row("second factor", secondFactor(s.Enrolment))
				if s.Enrolment.Error != "" {
					t.row("", "NOT AS CONFIGURED: "+s.Enrolment.Error)
				}
				a.noticeRows(t, s.Notices)
				c := s.Counters
				t.row("logins", fmt.Sprintf("%d accepted, %d rejected, %d undecided", c.OK, c.Fail, c.Undecided))
				t.row("slow hashes", fmt.Sprintf("%d computed, %d waiting", c.Argon2, c.Waiting))
				t.row("guessing", guessing(s))
				t.print()
				if missing != "" {
					fmt.Fprintf(a.err, "hint: valetkey group add %s; or name another group in the configuration (behind an upstream directory the group is made there)\n", missing)
				}
			})
			if err == nil && !s.Database.Reachable {
				return outcomeError{exitUnreachable}
			}
			return err
		},
	}
}

// guessing describes what is done against it.
func guessing(s admin.Status) string {
	text := "nothing is counted or held back for it"
	if n := s.Throttle; n != nil {
		text = fmt.Sprintf("%d guesses, %d repeats, %d not looked at, %d refusals held back now", n.Counted, n.Repeated, n.Refused, n.Held)
	}
	if s.Floor != "" {
		text += "; refusals take " + s.Floor
	}
	return text
}

// connections says how many a listener has, and how many it could not take or keep.
func connections(l *admin.Listener) string {
	text := fmt.Sprintf("%d connections", l.Connections)
	if l.Refused > 0 {
		text += fmt.Sprintf(", %d REFUSED", l.Refused)
	}
	if l.Yielded > 0 {
		text += fmt.Sprintf(", %d gave way", l.Yielded)
	}
	return text
}

// protection describes the TLS of a listener.
func protection(t *admin.TLS) string {
	text := fmt.Sprintf("%s, certificate until %s", t.Mode, t.Until.UTC().Format(time.DateOnly))
	switch {
	case t.Expired:
		text += ", EXPIRED"
	case t.ExpiresSoon:
		text += ", EXPIRES SOON"
	}
	return text
}
