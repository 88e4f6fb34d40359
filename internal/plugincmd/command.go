// Package plugincmd is what the enrolment plugins that ask a server have in common: the command line, the configuration file, the
// files with secrets, and -check.
//
// All of them are configured by one TOML file and nothing else. Arguments would be seen by everybody in the list of processes and in
// "valetkey plugin status", have no place for a comment, and would need a quoting of their own inside the daemon's file. A second way
// for simple cases would be a second thing to document and to get wrong.
//
// The package refuses to know what is asked and how. The one rule a newcomer would break: never stop at the first fault of a file. All
// of them are reported together, each with its key and the cure.
package plugincmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/plugin"
)

// Settings are the keys that every plugin's file has. Embed it in the struct of the file.
type Settings struct {
	Timeout     Duration `toml:"timeout"`     // for an answer, whatever the daemon allows; 5 s
	Connections int      `toml:"connections"` // at most, and so questions at once; 8
	ValidFor    Duration `toml:"valid_for"`   // how long the daemon keeps an answer; 0: as it likes
}

// settings gives [Main] the embedded struct.
func (s *Settings) settings() *Settings { return s }

// Configurable is a pointer to a struct that embeds [Settings].
type Configurable interface{ settings() *Settings }

func (s *Settings) check(f *Faults) {
	switch {
	case s.Timeout == 0:
		s.Timeout = Duration(5 * time.Second)
	case s.Timeout < 0 || s.Timeout > Duration(time.Minute):
		f.Add("timeout", `it must lie between "1ms" and "1m"`)
	}
	switch {
	case s.Connections == 0:
		s.Connections = 8
	case s.Connections < 0 || s.Connections > 64:
		f.Add("connections", "it must lie between 1 and 64")
	}
	if s.ValidFor < 0 || s.ValidFor > Duration(time.Hour) {
		f.Add("valid_for", `it must lie between "0s" and "1h"`)
	}
}

// Duration is one that a file writes as text, such as "5s".
type Duration time.Duration

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time such as \"5s\" or \"10m\"", text)
	}
	*d = Duration(v)
	return nil
}

// Main is the main function of a plugin: it reads the file that -config names into cfg, opens what the file describes, and serves it to
// the daemon, or with -check asks it once. open must not connect to anything: a server that is away at the start may come. It adds what
// is wrong with the file to the faults, and what it returns is not used if there are any.
func Main(name, version string, cfg Configurable, open func(f *Faults) plugin.Checker) {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	config := flags.String("config", "", "`FILE` in TOML that says what to ask and how")
	check := flags.String("check", "", "print the answer for `LOGIN`, and end")
	showVersion := flags.Bool("version", false, "print the version, and end")
	_ = flags.Parse(os.Args[1:])
	if *showVersion {
		fmt.Println(name, version)
		return
	}
	misuse := func(text string) {
		fmt.Fprintf(os.Stderr, "%s: %s\nhint: %s -config FILE [-check LOGIN]\n", name, text, name)
		os.Exit(2)
	}
	switch {
	case flags.NArg() > 0:
		misuse(fmt.Sprintf("unexpected argument %q", flags.Arg(0)))
	case *config == "":
		misuse("-config is missing")
	}
	source, faults := load(*config, cfg, open)
	if len(faults) > 0 {
		for _, fault := range faults {
			fmt.Fprintf(os.Stderr, "%s: %s: %s\n", name, *config, printable(fault))
		}
		os.Exit(2)
	}
	c := &checker{Checker: source, about: plugin.Description{Name: name, Version: version, MaxParallel: cfg.settings().Connections},
		settings: cfg.settings()}
	if *check == "" {
		plugin.Serve(c)
		return
	}
	os.Exit(byHand(name, c, *check, os.Stdout, os.Stderr))
}

// daemonWaits is how long the daemon waits for an answer unless it was told otherwise.
const daemonWaits = time.Second

// byHand asks once and returns the exit status: 0 for an answer, whatever it is, 1 for none.
func byHand(name string, c plugin.Checker, text string, out, errOut io.Writer) int {
	began := time.Now()
	var answer plugin.Answer
	login, err := auth.NormaliseLogin(text)
	if err == nil {
		answer, err = c.Check(context.Background(), plugin.Request{Login: login})
	}
	if err == nil {
		err = answer.Validate()
	}
	if err != nil {
		fmt.Fprintf(errOut, "%s: %s\n", name, printable(err.Error()))
		if hint := (*hinted)(nil); errors.As(err, &hint) {
			fmt.Fprintf(errOut, "hint: %s\n", printable(hint.hint))
		}
		return 1
	}
	fmt.Fprintf(out, "%s: %v", printable(login), answer.Status)
	if answer.ReasonCode != "" {
		fmt.Fprintf(out, " (%s)", answer.ReasonCode)
	}
	fmt.Fprintln(out)
	if took := time.Since(began); took > daemonWaits {
		fmt.Fprintf(errOut, "hint: that took %v, and the daemon waits %v unless its configuration says otherwise\n", took.Round(time.Millisecond), daemonWaits)
	}
	return 0
}

// checker adds what the settings say.
type checker struct {
	plugin.Checker
	about    plugin.Description
	settings *Settings
}

func (c *checker) Describe() plugin.Description { return c.about }

func (c *checker) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.settings.Timeout))
	defer cancel()
	a, err := c.Checker.Check(ctx, r)
	if err != nil {
		return plugin.Answer{}, err
	}
	a.ValidFor = time.Duration(c.settings.ValidFor)
	return a, nil
}

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// WithHint adds to an error what a person can do about it. -check prints it; the daemon's log has the error alone.
func WithHint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// printable takes out what a server may have put into a text to play with a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
