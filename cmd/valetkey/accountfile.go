package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/migrate"
)

// exportVersion is that of the form that accounts are exported in.
const exportVersion = 1

// exportLine is a line of an export: the first says what it is, then come the groups, the accounts, and the end with their numbers.
type exportLine struct {
	Type string `json:"type"` // "valetkey-accounts", "group", "account", "end"

	Version int `json:"version,omitempty"` // of the first

	Kind        string              `json:"kind,omitempty"`
	Login       string              `json:"login,omitempty"`
	Name        string              `json:"name,omitempty"` // of a group
	Aliases     []string            `json:"aliases,omitempty"`
	DisplayName string              `json:"display_name,omitempty"`
	Disabled    bool                `json:"disabled,omitempty"`
	Attributes  map[string][]string `json:"attributes,omitempty"`
	Userdb      map[string]string   `json:"userdb,omitempty"`
	Groups      []string            `json:"groups,omitempty"`
	UUID        string              `json:"uuid,omitempty"`
	CreatedAt   *time.Time          `json:"created_at,omitempty"`

	Accounts   *int `json:"accounts,omitempty"` // of the end
	GroupCount *int `json:"group_count,omitempty"`
}

const exportType = "valetkey-accounts"

func (a *app) accountExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Print all accounts and groups as JSON lines, without secrets",
		Long: `Print all accounts, readers and groups, one JSON object on a line: logins, aliases, attributes, userdb fields, members, UUIDs. App passwords
and their hashes are not in it. valetkey account import reads it.`,
		Example:          `  valetkey account export > accounts.jsonl`,
		Args:             args(),
		PersistentPreRun: unhurried,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := bufio.NewWriter(a.out)
			if err := a.export(cmd.Context(), json.NewEncoder(out)); err != nil {
				return err
			}
			return out.Flush()
		},
	}
}

func (a *app) export(ctx context.Context, e *json.Encoder) error {
	e.SetEscapeHTML(false)
	if err := e.Encode(exportLine{Type: exportType, Version: exportVersion}); err != nil {
		return err
	}
	begin := time.Now()
	told, accounts, groups := begin, 0, 0
	progress := func() {
		if now := time.Now(); now.Sub(begin) >= importQuiet && now.Sub(told) >= importTell {
			told = now
			fmt.Fprintf(a.err, "%s accounts, %s groups\n", grouped(accounts), grouped(groups))
		}
	}
	for after := ""; ; {
		page, err := timed(ctx, func(ctx context.Context) (admin.Groups, error) { return a.client().Groups(ctx, after, 0) })
		if err != nil {
			return err
		}
		for _, g := range page.Groups {
			groups++
			if err := e.Encode(exportLine{Type: "group", Name: g.Name, DisplayName: g.DisplayName, Attributes: g.Attributes, UUID: g.UUID,
				CreatedAt: utc(g.CreatedAt)}); err != nil {
				return err
			}
		}
		progress()
		if after = page.Next; after == "" {
			break
		}
	}
	for _, kind := range []string{admin.KindPerson, admin.KindReader} {
		for after := ""; ; {
			page, err := timed(ctx, func(ctx context.Context) (admin.Accounts, error) { return a.client().Accounts(ctx, kind, after, 0) })
			if err != nil {
				return err
			}
			for _, x := range page.Accounts {
				accounts++
				slices.Sort(x.Aliases)
				if err := e.Encode(exportLine{Type: "account", Kind: x.Kind, Login: x.Login, Aliases: x.Aliases, DisplayName: x.DisplayName,
					Disabled: !x.Enabled, Attributes: x.Attributes, Userdb: x.Userdb, Groups: x.Groups, UUID: x.UUID, CreatedAt: utc(x.CreatedAt)}); err != nil {
					return err
				}
			}
			progress()
			if after = page.Next; after == "" {
				break
			}
		}
	}
	return e.Encode(exportLine{Type: "end", Accounts: &accounts, GroupCount: &groups})
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

// timed makes one call of a command that makes many.
func timed[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}

func (a *app) accountImport() *cobra.Command {
	var apply bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add the accounts and groups of an export",
		Long: `Add the accounts, readers and groups that valetkey account export printed, with their UUIDs. Accounts that are there already keep what they
have and get what they lack. Without --apply it is a dry run. Run again it changes nothing.`,
		Example: `  valetkey account import accounts.jsonl
  valetkey account import accounts.jsonl --apply`,
		Args:             args("FILE"),
		PersistentPreRun: unhurried,
		RunE: func(cmd *cobra.Command, given []string) error {
			in, shut, err := a.openImport(given[0])
			if err != nil {
				return err
			}
			defer shut()
			run := &importRun{app: a, ctx: cmd.Context(), apply: apply, report: importReport{Source: "valetkey", Applied: apply}}
			if err := readExport(in, run); err != nil {
				return importFault(given[0], err)
			}
			run.report.Rows = len(run.rows)
			return run.do()
		},
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "add them; without it nothing is changed")
	return cmd
}

// maxExportLine is the longest line of an export that is read, in bytes: an account has at most 64 KiB of attributes and userdb fields each.
const maxExportLine = 1 << 20

// readExport reads a whole export. One that ends too early is refused.
func readExport(in io.Reader, run *importRun) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxExportLine)
	ended := false
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var l exportLine
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil || d.More() {
			return &migrate.Fault{Message: fmt.Sprintf("line %d is no line of an export", n), Hint: "it must be what valetkey account export printed"}
		}
		switch {
		case n == 1 && l.Type != exportType, n > 1 && l.Type == exportType:
			return &migrate.Fault{Message: "it is no export of accounts", Hint: "it must be what valetkey account export printed"}
		case l.Type == exportType && l.Version != exportVersion:
			return &migrate.Fault{Message: fmt.Sprintf("it is of version %d, and this program reads %d", l.Version, exportVersion), Hint: "use the valetkey that wrote it, or a newer one"}
		case ended:
			return &migrate.Fault{Message: fmt.Sprintf("line %d comes after the end", n), Hint: ""}
		case l.Type == exportType:
		case l.Type == "group":
			run.groups = append(run.groups, admin.ImportGroup{Name: l.Name, DisplayName: l.DisplayName, Attributes: l.Attributes,
				UUID: l.UUID, CreatedAt: l.CreatedAt})
		case l.Type == "account":
			if len(run.rows) >= migrate.MaxRows {
				return &migrate.Fault{Message: fmt.Sprintf("it has more than %d accounts", migrate.MaxRows), Hint: ""}
			}
			run.rows = append(run.rows, sentRow{ref: fmt.Sprintf("line %d", n), row: admin.ImportRow{
				Kind: l.Kind, Login: l.Login, Aliases: l.Aliases, DisplayName: l.DisplayName, Attributes: l.Attributes, Userdb: l.Userdb,
				Disabled: l.Disabled, Groups: l.Groups, UUID: l.UUID, CreatedAt: l.CreatedAt,
			}})
		case l.Type == "end":
			ended = true
			if l.Accounts == nil || *l.Accounts != len(run.rows) || l.GroupCount == nil || *l.GroupCount != len(run.groups) {
				return &migrate.Fault{Message: "it has not as many accounts and groups as its end says", Hint: "make the export again"}
			}
		default:
			return &migrate.Fault{Message: fmt.Sprintf("line %d is of no type that is known", n), Hint: "it must be what valetkey account export printed"}
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return &migrate.Fault{Message: fmt.Sprintf("it has a line of more than %d bytes", maxExportLine), Hint: "it must be what valetkey account export printed"}
	case err != nil:
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return err
	case !ended:
		return &migrate.Fault{Message: "it ends in the middle: it is not complete", Hint: "make the export again"}
	}
	return nil
}
