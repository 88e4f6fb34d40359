package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

// delivery is how a new secret reaches its user, beside standard output.
type delivery struct {
	qr                       bool
	mobileconfig, autoconfig string // files; empty: none
	force                    bool

	settings admin.MailSettings
	files    []*newFile
}

func (d *delivery) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&d.qr, "qr", false, "draw the secret as a QR code too, for the camera of a phone")
	f.StringVar(&d.mobileconfig, "mobileconfig", "", "write a configuration profile for Apple's mail program with the secret in it; `FILE`, mode 0600")
	f.StringVar(&d.autoconfig, "autoconfig", "", "write an autoconfig file for Thunderbird, without the secret; `FILE`")
	f.BoolVar(&d.force, "force", false, "replace files that exist")
	cmd.MarkFlagFilename("mobileconfig", "mobileconfig")
	cmd.MarkFlagFilename("autoconfig", "xml")
}

var errQRForPeople = usageError{hinted{errors.New("--qr draws for people, --json prints for programs"), "leave one of them out"}}

// drawQR draws a secret below what was printed.
func (a *app) drawQR(secret string) {
	if a.terminal {
		fmt.Fprintln(a.out)
	}
	if err := printQR(a.out, secret); err != nil {
		fmt.Fprintln(a.err, "valetkey:", err)
	}
}

// prepare asks for what the files need and opens them, before there is a secret that could be lost. Call [delivery.abandon] in the end.
func (d *delivery) prepare(cmd *cobra.Command, a *app, login string, n *admin.NewAppPassword) error {
	if d.qr && a.json {
		return errQRForPeople
	}
	if d.mobileconfig == "" && d.autoconfig == "" {
		return nil
	}
	if d.mobileconfig != "" && d.mobileconfig == d.autoconfig {
		return usageError{errors.New("--mobileconfig and --autoconfig name the same file")}
	}
	var err error
	if d.settings, err = a.client().MailSettings(cmd.Context(), login); err != nil {
		return err
	}
	if err := opensMail(d.settings, n.Services); err != nil {
		return err
	}
	for _, path := range []string{d.mobileconfig, d.autoconfig} {
		if path == "" {
			continue
		}
		f, err := createFile(path, d.force)
		if err != nil {
			return err
		}
		d.files = append(d.files, f)
	}
	return nil
}

// opensMail refuses an app password that the mail program could not use.
func opensMail(m admin.MailSettings, services []string) error {
	if len(services) == 0 {
		return nil
	}
	incoming := "imap"
	if m.IMAP == nil {
		incoming = "pop3"
	}
	for _, want := range [][]string{{incoming, "pop"}, {"smtp", "submission"}} {
		if !slices.ContainsFunc(want, func(s string) bool { return slices.Contains(services, s) }) {
			return usageError{hinted{fmt.Errorf("a mail program needs the service %s, and --service does not name it", want[0]),
				fmt.Sprintf("add --service %s, or leave --service out", want[0])}}
		}
	}
	return nil
}

// write fills the files. An error names those that are not there: the app password is, and its secret has to be printed all the same.
func (d *delivery) write(c admin.Created) error {
	for _, f := range d.files {
		text := autoconfig(d.settings)
		if f.path == d.mobileconfig {
			text = mobileconfig(d.settings, c.AppPassword.Label, c.Secret)
		}
		if err := f.write(text); err != nil {
			return hinted{fmt.Errorf("%w; the app password was created", err), "valetkey revoke LOGIN LABEL ends it, if it is of no use without the file"}
		}
	}
	return nil
}

// created is the answer to --json: as the API has it, and the files that were written.
type created struct {
	admin.Created
	Mobileconfig string `json:"mobileconfig,omitempty"`
	Autoconfig   string `json:"autoconfig,omitempty"`
}

func (d *delivery) answer(c admin.Created) created {
	out := created{Created: c}
	for _, f := range d.files {
		switch {
		case !f.written:
		case f.path == d.mobileconfig:
			out.Mobileconfig = f.path
		default:
			out.Autoconfig = f.path
		}
	}
	return out
}

// tell draws the QR code, and says on a terminal which files there are: elsewhere the secret is alone on its line.
func (d *delivery) tell(a *app, c admin.Created) {
	if d.qr {
		a.drawQR(c.Secret)
	}
	for _, f := range d.files {
		if !f.written || !a.terminal {
			continue
		}
		what := "no secret is in it"
		if f.path == d.mobileconfig {
			what = "the secret is in it: hand it over safely, then delete it"
		}
		fmt.Fprintf(a.out, "\nWrote %s; %s.\n", visible(f.path), what)
	}
}

// abandon takes away what was not written.
func (d *delivery) abandon() {
	for _, f := range d.files {
		f.abandon()
	}
}

// newFile is a file that is there whole or not at all, for its owner alone.
type newFile struct {
	path  string
	force bool
	temp  *os.File // nil: written, or abandoned

	written bool
}

// createFile makes a file beside the path, and refuses a path that is taken. force allows that it replaces a plain file.
func createFile(path string, force bool) (*newFile, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !force:
		return nil, fileTaken(path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is there and no plain file", path)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".valetkey-*") // mode 0600
	if err != nil {
		return nil, err
	}
	return &newFile{path: path, force: force, temp: temp}, nil
}

func fileTaken(path string) error {
	return hinted{fmt.Errorf("%s exists already", path), "--force replaces it"}
}

// write puts the text into the file and the file in its place.
func (f *newFile) write(text []byte) error {
	temp := f.temp
	defer f.abandon()
	if _, err := temp.Write(text); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if f.force {
		if err := os.Rename(temp.Name(), f.path); err != nil {
			return err
		}
		f.written = true
		return nil
	}
	if err := os.Link(temp.Name(), f.path); errors.Is(err, fs.ErrExist) { // somebody made it meanwhile
		return fileTaken(f.path)
	} else if err != nil {
		return err
	}
	f.written = true
	return nil
}

// abandon takes the temporary file away, if it is still there.
func (f *newFile) abandon() {
	if f.temp != nil {
		f.temp.Close()
		os.Remove(f.temp.Name())
		f.temp = nil
	}
}

func (a *app) autoconfigCommand() *cobra.Command {
	var output string
	var force bool
	cmd := &cobra.Command{
		Use:   "autoconfig [LOGIN]",
		Short: "Print a Thunderbird autoconfig file for an account",
		Long: `Print an autoconfig file for Thunderbird and others that read its format: servers, ports and the user name, without any secret. The servers
are those of [mail] in the daemon's configuration.`,
		Example:           "  valetkey autoconfig alice --output config-v1.1.xml",
		Args:              ownArgs("LOGIN"),
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			login, _ := splitOwn(given, 1)
			m, err := a.client().MailSettings(cmd.Context(), login)
			if err != nil {
				return ownError(cmd, login, "LOGIN", err)
			}
			if output != "" {
				f, err := createFile(output, force)
				if err != nil {
					return err
				}
				if err := f.write(autoconfig(m)); err != nil {
					return err
				}
				return a.print(m, func() { fmt.Fprintf(a.out, "wrote %s\n", visible(output)) })
			}
			return a.print(m, func() { a.out.Write(autoconfig(m)) })
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "write it to this `FILE` instead")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that exists")
	cmd.MarkFlagFilename("output", "xml")
	return cmd
}
