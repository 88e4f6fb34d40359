// Command valetkey is for admins, and for users who look after their own app passwords: it asks for all of it at the daemon's admin socket.
//
// It refuses to know the database and the pepper; only the daemon holds them. The one rule a newcomer would break: a secret is
// printed once, to standard output, and never taken from the command line, where other users could see it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/config"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "dev"

// Exit codes.
const (
	exitDone        = 0
	exitRefused     = 1 // or not found
	exitUsage       = 2
	exitUnreachable = 3 // the daemon or the database; nothing is known
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, terminal: isTerminal(os.Stdout), inTerminal: isTerminal(os.Stdin)}
	if app.terminal {
		app.width = terminalWidth(os.Stdout)
	}
	code := app.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// app is one run of the command.
type app struct {
	in         io.Reader
	out, err   io.Writer
	terminal   bool // out is one
	width      int  // of it, in columns; 0: not known, or no terminal
	inTerminal bool
	socket     string
	json       bool

	asks  *admin.Client // nil: nothing was asked yet
	asked string        // the socket of it
}

// usageError is a mistake on the command line.
type usageError struct{ error }

// Unwrap returns the mistake.
func (e usageError) Unwrap() error { return e.error }

// hinted is an error with its remedy.
type hinted struct {
	error
	hint string
}

// Unwrap returns the error.
func (h hinted) Unwrap() error { return h.error }

func (a *app) run(ctx context.Context, args []string) int {
	root := a.command()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if o, ok := errors.AsType[outcomeError](err); ok {
		return o.code // what there is to say has been printed
	}
	code, hint := a.explain(err)
	// What an error quotes may come from a file, a file's name or the daemon.
	fmt.Fprintf(a.err, "valetkey: %s\n", visibleLines(err.Error()))
	if hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", visibleLines(hint))
	}
	return code
}

// explain returns the exit code of an error and what can be done about it.
func (a *app) explain(err error) (code int, hint string) {
	if h, ok := errors.AsType[hinted](err); ok {
		hint = h.hint
	}
	if _, ok := errors.AsType[usageError](err); ok {
		if hint == "" {
			hint = "valetkey --help shows the commands, valetkey COMMAND --help what one takes"
		}
		return exitUsage, hint
	}
	if r, ok := errors.AsType[*admin.RefusedError](err); ok {
		if r.Status == 503 {
			return exitUnreachable, r.Hint
		}
		return exitRefused, r.Hint
	}
	if _, ok := errors.AsType[*admin.UnreachableError](err); ok {
		switch {
		case errors.Is(err, fs.ErrPermission):
			hint = "run it as root, or join the group that admin.group in the daemon's configuration names"
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			hint = "is valetkeyd running? --socket PATH or VALETKEY_SOCKET names its admin socket: STATE_DIR/run/admin.sock"
		case errors.Is(err, context.DeadlineExceeded):
			hint = "the daemon may be busy; whether the change was made is not known: look before you repeat it"
		}
		return exitUnreachable, hint
	}
	return exitRefused, hint
}

// callTimeout bounds a whole command, or each call of one that is marked long.
const callTimeout = 60 * time.Second

// client is one for all calls, which go over one connection.
func (a *app) client() *admin.Client {
	if a.asks == nil || a.asked != a.socket { // the doctor may find another one
		a.asks, a.asked = admin.NewClient(a.socket), a.socket
	}
	return a.asks
}

func (a *app) command() *cobra.Command {
	socket := os.Getenv("VALETKEY_SOCKET")
	if socket == "" {
		socket = config.DefaultStateDir + "/run/admin.sock"
	}
	root := &cobra.Command{
		Use:   "valetkey",
		Short: "Manage app-specific passwords",
		Long: `valetkey manages accounts and their app-specific passwords through the admin socket of valetkeyd.

Exit codes: 0 done, 1 refused or not found, 2 usage, 3 daemon or database unreachable.`,
		Example: `  valetkey account add alice --name "Alice Adams"
  valetkey create alice phone --service imap --service smtp
  valetkey list alice
  valetkey revoke alice phone`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			if cmd.Annotations["long"] != "" {
				return // it bounds its calls
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
			cobra.OnFinalize(cancel)
			cmd.SetContext(ctx)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no command %q", args[0])}
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socket, "`PATH` of the daemon's admin socket; VALETKEY_SOCKET says it too")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON for programs")
	if a.width > 0 {
		help := root.HelpFunc()
		root.SetHelpFunc(func(cmd *cobra.Command, given []string) {
			cmd.Long = reflow(cmd.Long, a.width)
			help(cmd, given)
		})
		root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", fmt.Sprint(".FlagUsagesWrapped ", a.width)))
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.accountCommand(), a.groupCommand(), a.readerCommand(), a.createCommand(), a.listCommand(), a.showCommand(), a.renameCommand(), a.editCommand(),
		a.rotateCommand(), a.revokeCommand(), a.exemptCommand(), a.importCommand(), a.pluginCommand(), a.autoconfigCommand(), a.noticeCommand(), a.tryCommand(), a.whyCommand(), a.eventsCommand(),
		a.statusCommand(), a.whoamiCommand(), a.doctorCommand(), a.snippetCommand(), a.manualCommand())
	return root
}

// args checks the number of arguments and names the missing ones.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < len(names) {
			return usageError{hinted{fmt.Errorf("%s is missing", names[len(given)]), "usage: " + cmd.UseLine()}}
		}
		if len(given) > len(names) {
			return usageError{hinted{fmt.Errorf("there is one argument too many: %q", given[len(names)]),
				"a label with spaces needs quotes; usage: " + cmd.UseLine()}}
		}
		return nil
	}
}

// print writes v as JSON, or calls human.
func (a *app) print(v any, human func()) error {
	if !a.json {
		human()
		return nil
	}
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
