// Command valetkeyd answers the servers that ask whether a login may pass.
//
// This package wires the others together and knows what a process must know: flags, directories, listeners, signals. The one
// rule a newcomer would break: a listener is bound before anything that may be slow or down, and it is closed last. Postfix
// refuses all mail while it cannot get the handshake; an answer of "undecided" is far better.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/logline"
	"github.com/valetkey/valetkey/internal/manual"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "dev"

func main() {
	if err := command(os.Stdout, os.Stderr).Execute(); err != nil {
		printError(os.Stderr, err)
		os.Exit(exitCode(err))
	}
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func exitCode(err error) int {
	if _, usage := errors.AsType[usageError](err); usage {
		return 2
	}
	return 1
}

func printError(w io.Writer, err error) {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		fmt.Fprintf(w, "valetkeyd: the configuration cannot be used:\n")
		for _, f := range faults {
			if f.Key == "" {
				fmt.Fprintf(w, "  %s\n", f.Text)
				continue
			}
			fmt.Fprintf(w, "  %s: %s\n", f.Key, f.Text)
		}
		fmt.Fprintf(w, "hint: valetkeyd --example-config prints every key with its default\n")
		return
	}
	fmt.Fprintf(w, "valetkeyd: %v\n", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// hinted is an error with its remedy.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func hintOf(err error) string {
	if h, ok := errors.AsType[hinted](err); ok {
		return h.hint
	}
	return ""
}

func command(stdout, stderr io.Writer) *cobra.Command {
	var flags config.Flags
	var check, example bool
	var pages string
	cmd := &cobra.Command{
		Use:   "valetkeyd",
		Short: "Answer the servers that ask whether an app-specific password may pass",
		Long: `valetkeyd checks app-specific passwords for servers that know only "user name and password": Postfix and Exim by the
Dovecot authentication protocol, everything else by LDAP binds.

Without --config it keeps all in the state directory: a private Postgres cluster, the pepper, and its sockets. It listens on
STATE_DIR/run/admin.sock for the command valetkey, on STATE_DIR/run/dovecot-auth for mail servers, and at 127.0.0.1:3389 for
LDAP. SIGHUP reads the configuration again, SIGTERM answers what is in flight and stops.`,
		Example: `  valetkeyd --state-dir /tmp/vk
  valetkeyd --config /etc/valetkey/valetkeyd.toml --check-config`,
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				_, err := io.WriteString(stdout, config.Example)
				return err
			}
			if pages != "" {
				if err := manual.Commands(cmd, "8", pages); err != nil {
					return err
				}
				return manual.Config("valetkeyd.toml", "configuration of valetkeyd", config.Example, pages)
			}
			cfg, err := load(flags, nil)
			if err != nil {
				return err
			}
			if check {
				if faults := checkEnrolment(cfg, true); len(faults) > 0 {
					return faults
				}
				_, err := fmt.Fprintln(stdout, "the configuration is good")
				return err
			}
			return run(cmd.Context(), flags, cfg, stderr)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.File, "config", "", "configuration `FILE`; without it the defaults hold")
	f.StringVar(&flags.StateDir, "state-dir", "", "`DIR` for what the daemon keeps (default "+config.DefaultStateDir+")")
	f.StringVar(&flags.LDAP, "ldap", "", "`ADDRESS` of the LDAP listener, 127.0.0.1:0 for a free port")
	f.BoolVar(&check, "check-config", false, "check the configuration and exit")
	f.BoolVar(&example, "example-config", false, "print an annotated configuration file and exit")
	f.StringVar(&pages, "manual", "", "write the manual pages into `DIR` and exit")
	f.MarkHidden("manual") // for whoever builds a package
	cmd.MarkFlagDirname("state-dir")
	cmd.MarkFlagFilename("config", "toml")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usageError{hinted{err, "valetkeyd --help"}}
	})
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	return cmd
}

// memoryLimit makes the garbage collector work harder before the process grows beyond it, in bytes: a slow hash takes 19 MiB
// that are garbage at once.
const memoryLimit = 200 << 20

// garbagePercent lets the heap grow to five times what is live before it is collected. What is live is small, so that the
// default would collect many times a second under load; the memory limit still holds.
const garbagePercent = 400

// drainTime is how long SIGTERM waits for what is in flight.
const drainTime = 10 * time.Second

func run(ctx context.Context, flags config.Flags, cfg *config.Config, stderr io.Writer) error {
	harden()
	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level)
	out := logline.NewWriter(stderr)
	defer closeLog(out)
	log := slog.New(logline.NewHandler(logline.Config{
		Out: out, Level: level, Journal: toJournal(), Name: "valetkeyd", PID: os.Getpid(),
	}))

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	survivePipes()
	defer signal.Stop(signals)

	d, err := start(ctx, flags, cfg, level, log)
	if err != nil {
		return err
	}
	impatient := func() { // a signal while it stops does not wait
		for s := range signals {
			if s != syscall.SIGHUP {
				os.Exit(1)
			}
		}
	}
	for {
		select {
		case err := <-d.failed:
			log.Error("stopping", "err", err)
			go impatient()
			d.stop(drainTime)
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				d.reload()
				continue
			}
			log.Info("stopping", "signal", s.String())
			go impatient()
			d.stop(drainTime)
			log.Info("stopped")
			return nil
		}
	}
}

// harden keeps secrets out of core files and away from other processes of the same user, and files that the daemon makes away
// from everybody.
func harden() {
	unix.Umask(0o077)
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// toJournal reports whether standard error is the journal's stream, which JOURNAL_STREAM names by device and inode
// (systemd.exec(5)).
func toJournal() bool {
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// closeLog writes what is left of the log, unless nobody takes it.
func closeLog(out *logline.Writer) {
	done := make(chan struct{})
	go func() {
		out.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}
