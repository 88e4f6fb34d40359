package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

// noticePoll is how often the outcome is asked for.
const noticePoll = 200 * time.Millisecond

func (a *app) noticeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notice",
		Short: "Try whether users and programs are told of what happens",
		Args:  args(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.noticeTestCommand())
	return cmd
}

func (a *app) noticeTestCommand() *cobra.Command {
	var n admin.NewNoticeTest
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "test LOGIN",
		Short: "Tell one target of something that has not happened, and say whether it arrived",
		Long: `Tell one target of something that has not happened, and say whether it arrived. The notice takes the way of every other one, through the outbox to
the mail server or the program, but is tried once. The user is really mailed: the mail says in its subject and first line that it is a test. A hook is
really run, with "test":true in its JSON and VALETKEY_TEST=1 in its environment: one that acts, such as by ending sessions, must look at that, or it acts.

The exit code is 1 if it did not arrive.`,
		Example: `  valetkey notice test alice
  valetkey notice test alice --kind revoked --target hook:kick`,
		Args:              args("LOGIN"),
		Annotations:       long,
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			if wait < 0 || wait > 10*time.Minute {
				return usageError{errors.New("--wait: at most 10m")}
			}
			t, err := a.testNotice(cmd.Context(), given[0], n, wait)
			if err != nil {
				return err
			}
			if err := a.print(t, func() { fmt.Fprintln(a.out, visible(noticeOutcome(t, wait))) }); err != nil {
				return err
			}
			if t.Outcome != "sent" {
				return outcomeError{exitRefused}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Target, "target", "", "`TARGET` to be told: mail, or hook:NAME; mail unless there is only one")
	f.StringVar(&n.Kind, "kind", "", "`KIND` of what is told: created, revoked ..; the first that the target is told of")
	f.DurationVar(&wait, "wait", 2*time.Minute, "how long to wait for the outcome, a minute of it for a mail server that could not be reached lately; `TIME`")
	return cmd
}

// testNotice makes the test and waits for its outcome.
func (a *app) testNotice(ctx context.Context, login string, n admin.NewNoticeTest, wait time.Duration) (admin.NoticeTest, error) {
	call := func(f func(context.Context) (admin.NoticeTest, error)) (admin.NoticeTest, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return f(ctx)
	}
	t, err := call(func(ctx context.Context) (admin.NoticeTest, error) { return a.client().TestNotice(ctx, login, n) })
	for end := time.Now().Add(wait); err == nil && t.Outcome == "" && time.Now().Before(end); {
		select {
		case <-time.After(noticePoll):
		case <-ctx.Done():
			return t, ctx.Err()
		}
		t, err = call(func(ctx context.Context) (admin.NoticeTest, error) { return a.client().NoticeTest(ctx, t.ID) })
	}
	return t, err
}

// noticeOutcome says it in a sentence.
func noticeOutcome(t admin.NoticeTest, wait time.Duration) string {
	what := fmt.Sprintf("%s, a test of %s about %s", t.Target, t.Kind, t.Login)
	switch t.Outcome {
	case "sent":
		if t.Target == "mail" {
			return what + ": the mail server took it"
		}
		return what + ": the program ended with 0"
	case "no_recipient":
		return what + ": there is no mail address; valetkey account set LOGIN --mail ADDRESS gives one"
	case "":
		return fmt.Sprintf("%s: it still waits after %s; valetkey status says how the notices are, and the daemon's log why", what, wait)
	}
	s := what + ": " + strings.ReplaceAll(t.Outcome, "_", " ")
	if t.Problem != "" {
		s += ": " + t.Problem
	}
	return s
}
