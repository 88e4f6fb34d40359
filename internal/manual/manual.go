// Package manual writes pages for man(1) of what the programs say of themselves: their commands, flags and examples, and the annotated
// configuration file.
//
// It refuses to know any command. The one rule a newcomer would break: a page has no text of its own. What is missing on one is missing in
// the program's --help, and belongs there.
package manual

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// collection is the title in the heading of every page.
const collection = "Valetkey"

// Commands writes a page for the command and each below it into dir, which must be there: valetkey.1, valetkey-account-add.1. The pages
// carry no date, so that the same program makes the same pages.
func Commands(cmd *cobra.Command, section, dir string) error {
	if !cmd.IsAvailableCommand() && cmd.HasParent() {
		return nil // hidden
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	cmd.DisableAutoGenTag = true
	epoch := time.Unix(0, 0).UTC()
	var page bytes.Buffer
	if err := doc.GenMan(cmd, &doc.GenManHeader{Section: section, Source: collection, Manual: collection + " manual", Date: &epoch}, &page); err != nil {
		return err
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + "." + section
	text := bytes.Replace(page.Bytes(), []byte(epoch.Format("Jan 2006")), nil, 1)
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if err := Commands(c, section, dir); err != nil {
			return err
		}
	}
	return nil
}

// Config writes the page of the configuration file into dir: name.5, with the annotated example as its body.
func Config(name, summary, example, dir string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%% %s 5 \"\" %q %q\n# NAME\n%s - %s\n\n# DESCRIPTION\n", strings.ToUpper(name), collection, collection+" manual", name, summary)
	b.WriteString("Every key is shown with its default; all of them may be left out. An unknown key is an error.\n\n```\n")
	b.WriteString(example)
	b.WriteString("```\n")
	return os.WriteFile(filepath.Join(dir, name+".5"), md2man.Render([]byte(b.String())), 0o644)
}
