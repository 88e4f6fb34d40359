package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/store"
)

// Following the audit log.
const (
	followWait    = 25 * time.Second // that the daemon waits for an event
	followPause   = time.Second      // at least, between two calls that brought nothing
	firstRecovery = 100 * time.Millisecond
	lastRecovery  = 2 * time.Second
)

func (a *app) eventsCommand() *cobra.Command {
	var q admin.EventQuery
	var since string
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Read the audit log",
		Long: `Read the audit log: who changed what, and old app passwords that are still sent. The newest events are printed, oldest first.

With --follow it goes on until it is interrupted. A restart of the daemon or the database is waited for: no event is lost, and none
is printed twice. With --json each event is a line of its own then.

Kinds:
  ` + strings.Join(store.EventKinds(), "\n  "),
		Example: `  valetkey events --login alice --since 7d
  valetkey events --kind app_password.revoked --limit 20
  valetkey events --follow --json`,
		Args: args(),
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			if follow {
				return // for as long as the admin likes
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
			cobra.OnFinalize(cancel)
			cmd.SetContext(ctx)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 1 || q.Limit > 100_000 {
				return usageError{fmt.Errorf("--limit %d: write a number from 1 to 100000", q.Limit)}
			}
			if since != "" {
				t, err := parseSince(since, time.Now())
				if err != nil {
					return usageError{err}
				}
				q.Since = t
			}
			if follow {
				return a.followEvents(cmd.Context(), q)
			}
			all, err := a.newestEvents(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(all, func() {
				if len(all.Events) == 0 {
					fmt.Fprintln(a.out, "no events")
					return
				}
				if a.narrow() { // a line for each says more than six columns that are cut
					a.printEvents(all.Events)
					return
				}
				t := a.table("WHEN", "WHAT", "BY", "LOGIN", "LABEL", "DETAIL")
				for _, e := range all.Events {
					t.row(instant(e.At), e.Kind, dash(e.Actor), dash(e.Login), dash(e.Label), detail(e.Detail))
				}
				t.print()
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	f.StringVar(&q.Login, "login", "", "of this `LOGIN` only, also of an account that is gone")
	f.StringVar(&q.Kind, "kind", "", "of this `KIND` only, such as app_password.created")
	f.StringVar(&since, "since", "", "`WHEN` they begin: 24h, 7d, 2027-12-31, or a time as in RFC 3339")
	cmd.RegisterFlagCompletionFunc("login", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.completeKind(cmd, admin.KindPerson, prefix)
	})
	cmd.RegisterFlagCompletionFunc("kind", completeEventKind)
	f.IntVar(&q.Limit, "limit", 50, "`NUMBER` of the newest to print at most")
	return cmd
}

// parseSince reads a number of days or hours before now, a day (its beginning, local time), or a time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100_000 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	if t, err := time.ParseInLocation("2006-01-02", text, now.Location()); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("--since %q: write 24h, 7d, 2027-12-31 or 2027-12-31T18:00:00Z", text)
}

// newestEvents reads as many pages as it takes.
func (a *app) newestEvents(ctx context.Context, q admin.EventQuery) (admin.Events, error) {
	all := admin.Events{Events: []admin.Event{}}
	for left := q.Limit; left > 0; {
		q.Limit = min(left, 500)
		page, err := a.client().Events(ctx, q, 0)
		if err != nil {
			return all, err
		}
		if all.After == 0 {
			all.After = page.After
		}
		all.Events = append(page.Events, all.Events...)
		if left -= len(page.Events); len(page.Events) < q.Limit {
			break
		}
		q.Before, q.Settled = page.Events[0].ID, false
	}
	return all, nil
}

// followEvents prints the newest events and then each one that comes.
func (a *app) followEvents(ctx context.Context, q admin.EventQuery) error {
	q.Settled = true
	first, err := a.newestEvents(ctx, q)
	if err != nil {
		return err
	}
	if err := a.printEvents(first.Events); err != nil {
		return err
	}
	after := first.After
	q = admin.EventQuery{Login: q.Login, Kind: q.Kind, After: &after}
	client := a.client()
	pause := firstRecovery
	for lost := false; ctx.Err() == nil; {
		begun := time.Now()
		page, err := client.Events(ctx, q, followWait)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			if code, _ := a.explain(err); code != exitUnreachable {
				return err
			}
			if !lost {
				fmt.Fprintf(a.err, "valetkey: %v; waiting for it\n", err)
			}
			lost = true
			sleep(ctx, pause)
			pause = min(2*pause, lastRecovery)
			continue
		}
		if lost {
			fmt.Fprintln(a.err, "valetkey: going on")
		}
		lost, pause = false, firstRecovery
		if err := a.printEvents(page.Events); err != nil {
			return err
		}
		after = page.After
		if len(page.Events) == 0 {
			sleep(ctx, followPause-time.Since(begun))
		}
	}
	return nil // interrupted, which is how it is meant to end
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// printEvents prints a line for each event, since the widths of those to come are not known.
func (a *app) printEvents(events []admin.Event) error {
	for _, e := range events {
		var err error
		if a.json {
			enc := json.NewEncoder(a.out)
			enc.SetEscapeHTML(false)
			err = enc.Encode(e)
		} else {
			line := instant(e.At) + "  " + fmt.Sprintf("%-20s", visible(e.Kind))
			if a.narrow() {
				line = strings.TrimRight(line, " ")
			}
			for _, part := range []struct{ name, value string }{{"by", e.Actor}, {"login", e.Login}, {"label", e.Label}} {
				if part.value != "" {
					line += "  " + part.name + "=" + quoted(part.value)
				}
			}
			if d := detail(e.Detail); d != "" {
				line += "  " + d
			}
			err = a.say("  ", strings.TrimRight(line, " "))
		}
		if err != nil {
			return errors.New("standard output is closed")
		}
	}
	return nil
}

// instant is a time to the second, local.
func instant(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// quoted is a value of a key=value pair: in quotes if it could be taken for more than one.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " =\"") || visible(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// detail writes the fields of an event: reason=revoked service=imap.
func detail(text json.RawMessage) string {
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return ""
	}
	var out []string
	for _, k := range sortedKeys(fields) {
		var value string
		switch v := fields[k].(type) {
		case string:
			if v == "" {
				continue
			}
			value = quoted(v)
		default:
			b, err := json.Marshal(v)
			if err != nil {
				continue
			}
			value = visible(string(b))
		}
		out = append(out, visible(k)+"="+value)
	}
	return strings.Join(out, " ")
}
