// Command valetkey-2fa-file is an enrolment plugin for sites that know from files who has a second factor. valetkeyd starts it:
//
//	valetkey-2fa-file -list FILE [-valid-for DURATION]
//	valetkey-2fa-file -path TEMPLATE [-witness FILE] [-valid-for DURATION]
//
// The first form has a list of logins, one a line; what follows # is a comment, and the word "exempt" after a login means that it
// needs no second factor. The file is read again when it has changed. Replace it by renaming a new one over it: a reader of a file
// that is being written takes the rest of it for missing.
//
// The second form looks for a file of each user's, such as the secret of a one-time password module. In the template %u stands for
// the login, %n for what is before the first @ of it, %d for what comes after, %% for a percent sign. A plain file that is not empty
// means enrolled. Users can put any file into their own home: prefer a folder that only the administrator writes.
//
//	valetkey-2fa-file -path /var/lib/google-authenticator/%u/.google_authenticator
//
// If not even the folder is there, or the witness (a file that is always there when the disk is mounted) is not, then nothing is
// known, and the daemon is told so. The same goes for what the daemon's user may not read.
//
// With -check LOGIN in addition it prints what it would answer, and ends.
//
// The program refuses to know what the files hold.
//
// The one rule a newcomer would break: only "there is no such file" is "not enrolled". Every other error is an error, or an
// unmounted disk would suspend everybody's app passwords.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/plugin"
)

// version is set by the build.
var version = "dev"

func main() {
	flags := flag.NewFlagSet("valetkey-2fa-file", flag.ExitOnError)
	list := flags.String("list", "", "`FILE` with the logins that have a second factor")
	path := flags.String("path", "", "`TEMPLATE` of the path of a file that users with a second factor have")
	witness := flags.String("witness", "", "`FILE` that is there whenever those of -path can be")
	validFor := flags.Duration("valid-for", 0, "how long the daemon keeps an answer; 0: as it likes")
	check := flags.String("check", "", "print the answer for `LOGIN`, and end")
	showVersion := flags.Bool("version", false, "print the version, and end")
	_ = flags.Parse(os.Args[1:])
	if *showVersion {
		fmt.Println("valetkey-2fa-file", version)
		return
	}
	if flags.NArg() > 0 {
		misuse("unexpected argument %q", flags.Arg(0))
	}
	if *validFor < 0 {
		misuse("-valid-for is negative")
	}
	var source plugin.Checker
	var err error
	switch {
	case (*list == "") == (*path == ""):
		misuse("give either -list or -path")
	case *list != "" && *witness != "":
		misuse("-witness belongs to -path")
	case *list != "":
		source, err = newList(*list, time.Now)
	default:
		source, err = newTemplate(*path, *witness)
	}
	if err != nil {
		misuse("%v", err)
	}
	c := &checker{source, *validFor}
	if *check == "" {
		plugin.Serve(c)
		return
	}
	var answer plugin.Answer
	login, err := auth.NormaliseLogin(*check)
	if err == nil {
		answer, err = c.Check(context.Background(), plugin.Request{Login: login})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "valetkey-2fa-file: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("%s: %v", login, answer.Status)
	if answer.ReasonCode != "" {
		fmt.Printf(" (%s)", answer.ReasonCode)
	}
	fmt.Println()
}

func misuse(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "valetkey-2fa-file: "+format+"\n", args...)
	fmt.Fprintln(os.Stderr, "hint: valetkey-2fa-file -help")
	os.Exit(2)
}

// checker adds to either form what they have in common.
type checker struct {
	plugin.Checker
	validFor time.Duration
}

func (c *checker) Describe() plugin.Description {
	return plugin.Description{Name: "valetkey-2fa-file", Version: version, MaxParallel: parallel}
}

func (c *checker) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	a, err := c.Checker.Check(ctx, r)
	a.ValidFor = c.validFor
	return a, err
}
