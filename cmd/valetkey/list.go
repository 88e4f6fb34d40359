package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
)

// finder are the flags that say which app passwords are meant.
type finder struct {
	filter           admin.Filter
	unused, expiring string
}

func (f *finder) flags(cmd *cobra.Command) {
	v := cmd.Flags()
	v.StringVar(&f.unused, "unused-for", "", "not used for this `TIME`, and as old: 90d, 12h")
	v.StringVar(&f.expiring, "expiring-within", "", "ends within this `TIME`, by date or by disuse: 14d")
	v.BoolVar(&f.filter.NeverUsed, "never-used", false, "never used")
	v.StringVar(&f.filter.Service, "service", "", "names this `SERVICE`; one for all services names none")
	v.StringVar(&f.filter.Network, "network", "", "names a network that overlaps this `ADDRESS` or CIDR; one for everywhere names none")
	v.BoolVar(&f.filter.Exempt, "exempt", false, "exempt from the second factor")
	v.BoolVar(&f.filter.Imported, "imported", false, "imported, with the hash of its origin because it was not used since")
	v.StringVar(&f.filter.Label, "label", "", "has this `TEXT` in its label; with * and ? the whole label is like it")
	v.StringVar(&f.filter.By, "by", "", "made by this `ACTOR`")
}

// read completes the filter. narrowed says whether any flag of it was given.
func (f *finder) read(cmd *cobra.Command, given []string) (narrowed bool, err error) {
	if len(given) > 0 {
		f.filter.Login = given[0]
	}
	if f.filter.UnusedFor, err = spanFlag("unused-for", f.unused); err != nil {
		return false, err
	}
	if f.filter.ExpiringWithin, err = spanFlag("expiring-within", f.expiring); err != nil {
		return false, err
	}
	for _, name := range []string{"unused-for", "expiring-within", "never-used", "service", "network", "exempt", "imported", "label", "by"} {
		if cmd.Flags().Changed(name) {
			// An empty one would mean everything.
			if cmd.Flags().Lookup(name).Value.String() == "" {
				return false, usageError{fmt.Errorf("--%s is empty", name)}
			}
			narrowed = true
		}
	}
	return narrowed, nil
}

// long marks commands that make many calls: each is bounded, the whole is not.
var long = map[string]string{"long": "true"}

// firstPage is small, so that something is to be seen soon.
const firstPage = 100

// frugal makes the garbage collector keep a long run small: the default lets garbage grow to as much as what is live, and beyond while
// the machine is busy. A page is a megabyte or two, whatever the number of pages, and collecting it costs little beside the asking.
func frugal() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
}

// find yields what the filter means, page by page, at most limit of them unless it is 0. It keeps one page.
func (a *app) find(ctx context.Context, f admin.Filter, order string, limit int) iter.Seq2[admin.Found, error] {
	frugal()
	return func(yield func(admin.Found, error) bool) {
		size, after := firstPage, ""
		for {
			if limit > 0 {
				size = min(size, limit)
			}
			page, err := a.findPage(ctx, f, order, after, size)
			if err != nil {
				yield(page, err)
				return
			}
			f.AsOf = &page.AsOf
			last := page.Next == "" || limit > 0 && len(page.AppPasswords) >= limit
			if !yield(page, nil) || last {
				return
			}
			if limit > 0 {
				limit -= len(page.AppPasswords)
			}
			after, size = page.Next, 1000
		}
	}
}

func (a *app) findPage(ctx context.Context, f admin.Filter, order, after string, size int) (admin.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return a.client().Find(ctx, f, order, after, size)
}

func (a *app) listCommand() *cobra.Command {
	var f finder
	var all, revoked, expired, asCSV, asLines bool
	var sort string
	var limit int
	cmd := &cobra.Command{
		Use:   "list [LOGIN]",
		Short: "List app passwords, of one account or of all",
		Long: `List app passwords: those of an account, or of all accounts. A user of the machine who has no role lists those of his own account. Of several filters all must hold. Only live ones are listed unless --revoked, --expired
or --all is given.

On a terminal the table fits it, with what is too long cut and marked; into a file or a pipe everything is written whole. --json writes one document,
--jsonl one object on each line. --csv is RFC 4180; a text that a spreadsheet would take for a formula gets an apostrophe before it,
so programs had better read JSON. However many there are, they are written as they come; if the list breaks off, the JSON document is
not closed and the exit code is not 0.

Without --sort, --unused-for lists the longest unused first. Sorting by last use is exact to a week; by label it takes long if there are very many.`,
		Example: `  valetkey list alice
  valetkey list --unused-for 90d --service imap
  valetkey list --expiring-within 14d --sort expires
  valetkey list --all --csv > app-passwords.csv`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 1 {
				return args("LOGIN")(cmd, given)
			}
			return nil
		},
		Annotations:       long,
		ValidArgsFunction: a.completeLogin,
		RunE: func(cmd *cobra.Command, given []string) error {
			narrowed, err := f.read(cmd, given)
			if err != nil {
				return err
			}
			if limit < 0 {
				return usageError{errors.New("--limit is less than 0")}
			}
			var out listing
			switch {
			case btoi(asCSV)+btoi(asLines)+btoi(a.json) > 1:
				return usageError{errors.New("only one of --json, --jsonl and --csv can be had")}
			case asCSV:
				out = newCSVListing(a.out)
			case asLines:
				out = &lineListing{out: a.out}
			case a.json:
				out = &documentListing{out: a.out}
			default:
				out = a.tableListing(len(given) == 0)
			}
			if all || expired {
				f.filter.States = append(f.filter.States, admin.Expired)
			}
			if all || revoked {
				f.filter.States = append(f.filter.States, admin.Revoked)
			}
			if all {
				f.filter.States = append(f.filter.States, admin.Live)
			}
			n, own := 0, false
			page := func(list []admin.AppPassword) error {
				n += len(list)
				return out.page(list)
			}
			account := func(login string) error { // in one call, and without a cursor
				ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
				defer cancel()
				p, err := a.client().AppPasswords(ctx, login, all)
				if err != nil {
					return err
				}
				return page(p.AppPasswords)
			}
			plain := !narrowed && sort == "" && limit == 0 && !revoked && !expired
			if len(given) == 1 && plain {
				err = account(given[0])
			} else {
				for found, e := range a.find(cmd.Context(), f.filter, sort, limit) {
					if err = e; err == nil {
						err = page(found.AppPasswords)
					}
					if err != nil {
						break
					}
				}
			}
			if r, ok := errors.AsType[*admin.RefusedError](err); ok && r.Code == "forbidden" && len(given) == 0 && plain {
				// Who may not look at all accounts has one of his own, perhaps.
				if own = true; out.people() {
					out = a.tableListing(false)
				}
				err = account("")
			}
			if err != nil {
				return err
			}
			if err := out.end(); err != nil || n > 0 || !out.people() {
				return err
			}
			switch {
			case own:
				fmt.Fprintln(a.out, "you have no app passwords; valetkey create LABEL makes one")
			case narrowed || len(f.filter.States) > 0:
				fmt.Fprintln(a.out, "there are no such app passwords")
			case len(given) == 1:
				fmt.Fprintf(a.out, "%s has no app passwords; valetkey create LOGIN LABEL makes one\n", visible(given[0]))
			default:
				fmt.Fprintln(a.out, "there are no app passwords; valetkey create LOGIN LABEL makes one")
			}
			return nil
		},
	}
	f.flags(cmd)
	v := cmd.Flags()
	v.BoolVar(&all, "all", false, "revoked and expired ones too")
	v.BoolVar(&revoked, "revoked", false, "the revoked ones")
	v.BoolVar(&expired, "expired", false, "the expired ones")
	v.StringVar(&sort, "sort", "", "`ORDER`: login, label, created, last-used or expires")
	cmd.RegisterFlagCompletionFunc("sort", completeWords("login", "label", "created", "last-used", "expires"))
	v.IntVar(&limit, "limit", 0, "`NUMBER` of them to list at most; 0: all")
	v.BoolVar(&asLines, "jsonl", false, "print one JSON object a line")
	v.BoolVar(&asCSV, "csv", false, "print CSV for spreadsheets")
	return cmd
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// listing writes app passwords as they come.
type listing interface {
	page([]admin.AppPassword) error
	end() error
	people() bool // it is for people to read
}

// tableListing writes columns. The logins stand first where they differ. Where there is little room, what matters least is left out.
type tableListing struct {
	t              *table
	logins, narrow bool
}

func (a *app) tableListing(logins bool) *tableListing {
	l := &tableListing{logins: logins, narrow: a.narrow()}
	l.t = a.table(l.cells("LOGIN", "LABEL", "STATUS", "SERVICES", "FROM", "CREATED", "EXPIRES", "LAST USED")...)
	return l
}

func (l *tableListing) cells(login, label, status, services, from, created, expires, used string) []string {
	var c []string
	if l.logins {
		c = append(c, login)
	}
	c = append(c, label, status, services)
	if !l.narrow {
		c = append(c, from, created)
	}
	return append(c, expires, used)
}

func (l *tableListing) page(list []admin.AppPassword) error {
	if len(list) == 0 {
		return nil
	}
	for _, x := range list {
		l.t.row(l.cells(x.Login, x.Label, status(x), orAll(x.Services), orAll(x.Networks), day(x.CreatedAt), expiry(x), lastUse(x.LastUsed))...)
	}
	return l.t.print()
}

func (l *tableListing) end() error   { return nil }
func (l *tableListing) people() bool { return true }

// documentListing writes one JSON document.
type documentListing struct {
	out    io.Writer
	before string // members of the document before the list
	n      int
	b      bytes.Buffer // of a page
}

func (l *documentListing) page(list []admin.AppPassword) error {
	b := &l.b
	b.Reset()
	if l.n == 0 {
		b.WriteString("{\n" + l.before + "  \"app_passwords\": [")
	}
	for _, x := range list {
		if l.n++; l.n > 1 {
			b.WriteByte(',')
		}
		b.WriteString("\n    ")
		text, err := jsonText(x, "    ")
		if err != nil {
			return err
		}
		b.Write(text)
	}
	if l.n == 0 {
		l.n = -1 // begun
	}
	_, err := l.out.Write(b.Bytes())
	return err
}

func (l *documentListing) end() error {
	if l.n == 0 {
		if err := l.page(nil); err != nil {
			return err
		}
	}
	end := "\n  ]\n}\n"
	if l.n < 0 {
		end = "]\n}\n"
	}
	_, err := io.WriteString(l.out, end)
	return err
}

func (l *documentListing) people() bool { return false }

// jsonText is v in JSON, as print writes it, without an end of line.
func jsonText(v any, prefix string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if prefix != "" {
		e.SetIndent(prefix, "  ")
	}
	err := e.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// lineListing writes one JSON object a line.
type lineListing struct {
	out io.Writer
	b   bytes.Buffer // of a page
}

func (l *lineListing) page(list []admin.AppPassword) error {
	b := &l.b
	b.Reset()
	for _, x := range list {
		text, err := jsonText(x, "")
		if err != nil {
			return err
		}
		b.Write(text)
		b.WriteByte('\n')
	}
	_, err := l.out.Write(b.Bytes())
	return err
}

func (l *lineListing) end() error   { return nil }
func (l *lineListing) people() bool { return false }

// csvListing writes CSV (RFC 4180).
type csvListing struct {
	w     *csv.Writer
	begun bool
}

func newCSVListing(out io.Writer) *csvListing {
	w := csv.NewWriter(out)
	w.UseCRLF = true
	return &csvListing{w: w}
}

func (l *csvListing) head() {
	if !l.begun {
		l.begun = true
		l.w.Write([]string{"login", "label", "status", "services", "networks", "origin", "created_at", "created_by", "expires_at",
			"expires_unused_for", "last_used_at", "last_used_service", "last_used_address", "revoked_at", "revoked_by", "revoked_why", "exempt_why"})
	}
}

func (l *csvListing) page(list []admin.AppPassword) error {
	l.head()
	for _, x := range list {
		var use admin.Use
		var usedAt *time.Time
		if x.LastUsed != nil {
			use, usedAt = *x.LastUsed, &x.LastUsed.At
		}
		exempt := ""
		if x.ExemptAt != nil {
			exempt = x.ExemptWhy
		}
		cells := []string{x.Login, x.Label, x.Status, strings.Join(x.Services, " "), strings.Join(x.Networks, " "), string(x.Origin), timestamp(&x.CreatedAt),
			x.CreatedBy, timestamp(x.ExpiresAt), x.ExpiresUnusedFor, timestamp(usedAt), use.Service, use.Address, timestamp(x.RevokedAt),
			x.RevokedBy, x.RevokedWhy, exempt}
		for i := range cells {
			cells[i] = notFormula(cells[i])
		}
		if err := l.w.Write(cells); err != nil {
			return err
		}
	}
	l.w.Flush()
	return l.w.Error()
}

func (l *csvListing) end() error {
	l.head()
	l.w.Flush()
	return l.w.Error()
}

func (l *csvListing) people() bool { return false }

func timestamp(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// notFormula keeps a spreadsheet from taking a text for a formula, which could send the rest of the sheet away: labels are typed by users.
// The apostrophe marks it as text (OWASP, "CSV Injection"). The full-width signs are taken for their ASCII forms by some, and so is what
// follows a space.
func notFormula(s string) string {
	first := strings.TrimLeft(s, " \u00a0\u3000")
	if strings.HasPrefix(s, "\t") || strings.HasPrefix(s, "\r") || strings.HasPrefix(s, "\n") || strings.IndexAny(first, "=+-@＝＋－＠") == 0 {
		return "'" + s
	}
	return s
}

func orAll(list []string) string {
	if len(list) == 0 {
		return "all"
	}
	return strings.Join(list, ",")
}

func expiry(p admin.AppPassword) string {
	if p.ExpiresAt == nil {
		return "never"
	}
	return moment(*p.ExpiresAt)
}

func lastUse(u *admin.Use) string {
	if u == nil {
		return "never"
	}
	s := moment(u.At) + " " + u.Service
	if u.Address != "" {
		s += " from " + u.Address
	}
	return s
}
