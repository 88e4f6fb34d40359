package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/migrate"
)

// Bounds and rhythm of what is sent to the daemon.
const (
	importBatchBytes = admin.MaxImportBody - 2048 // leaves room for what is around the rows
	importBatchRows  = 1000
	importParallel   = 2               // parts that are under way at once
	importQuiet      = 2 * time.Second // nothing is said of an import's progress before
	importTell       = 2 * time.Second // between two lines of progress
	shownSkipped     = 100             // lines of what was skipped; --json has all
)

// unhurried are the hooks of a command that may take longer than [callTimeout]: each of its calls has that time instead.
func unhurried(*cobra.Command, []string) {}

func (a *app) importCommand() *cobra.Command {
	var o migrate.Options
	var apply, existing bool
	var services []string
	var expireAfter string
	names, what := migrate.Sources()
	var list strings.Builder
	for i, name := range names {
		fmt.Fprintf(&list, "  %-13s %s\n", name, what[i])
	}
	cmd := &cobra.Command{
		Use:   "import SOURCE FILE",
		Short: "Take over users and app passwords from another system",
		Long: `Take over the users and app passwords of another system, with their hashes as they are: nobody has to type a new password, and each hash
is replaced by ours when its password is first used.

Without --apply it is a dry run: it says what would be taken over, what is there already, and what is skipped and why. What is there already
is never changed, so that the same import can be run again at any time, also after it was interrupted.

Sources (docs/migrating.md says how to export from each):
` + list.String(),
		Example: `  mysql -B -e 'SELECT * FROM app_passwd' mailcow > app_passwd.tsv
  valetkey import mailcow app_passwd.tsv
  valetkey import mailcow app_passwd.tsv --apply
  zcat dump.sql.gz | valetkey import postfixadmin - --apply`,
		Args:             args("SOURCE", "FILE"),
		PersistentPreRun: unhurried,
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(given) == 0 {
				return names, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if !slices.Contains(names, given[0]) {
				return usageError{hinted{fmt.Errorf("there is no source %q", given[0]), "one of " + strings.Join(names, ", ")}}
			}
			mapped, err := serviceNames(services)
			if err != nil {
				return err
			}
			if expireAfter != "" {
				now := time.Now()
				end, err := parseExpiry(expireAfter, now)
				if err != nil || !strings.HasSuffix(expireAfter, "d") && !strings.HasSuffix(expireAfter, "h") {
					return usageError{fmt.Errorf("--expire-after %q: write 60d or 12h", expireAfter)}
				}
				o.ExpireAfter = end.Sub(now)
			}
			read, err := a.readImport(given[0], given[1], o)
			if err != nil {
				return err
			}
			run := &importRun{app: a, ctx: cmd.Context(), apply: apply,
				report: importReport{Source: given[0], Applied: apply, Notes: read.Notes, Skipped: read.Skipped, Rows: len(read.Rows)}}
			for _, r := range read.Rows {
				run.rows = append(run.rows, sentRow{ref: r.Ref, row: importRow(r, mapped, existing)})
			}
			return run.do()
		},
	}
	f := cmd.Flags()
	f.BoolVar(&apply, "apply", false, "take over; without it nothing is changed")
	f.BoolVar(&existing, "existing", false, "only into accounts that are there: add none")
	f.BoolVar(&o.MainPasswords, "main-passwords", false, "take over the users' main passwords too (mailcow, glauth)")
	f.StringVar(&o.DefaultScheme, "default-scheme", "", "`SCHEME` of hashes that name none, as in Dovecot's default_pass_scheme")
	f.StringArrayVar(&services, "map-service", nil, "call a service of the source otherwise, `OLD=NEW[,NEW]`; repeatable")
	f.BoolVar(&o.AppLogins, "app-logins", false, `make "user@application" an alias of the user (ap4rc_username_format 1)`)
	f.StringVar(&expireAfter, "expire-after", "", "let each end so long after it was made, `TIME` as 60d (ap4rc_expire_interval)")
	return cmd
}

// serviceNames reads OLD=NEW,NEW.
func serviceNames(given []string) (map[string][]string, error) {
	mapped := map[string][]string{}
	for _, x := range given {
		old, names, found := strings.Cut(x, "=")
		if !found || old == "" || names == "" {
			return nil, usageError{fmt.Errorf("--map-service %q: write OLD=NEW", x)}
		}
		mapped[strings.ToLower(old)] = strings.Split(names, ",")
	}
	return mapped, nil
}

// readImport reads the file; "-" is standard input.
func (a *app) readImport(source, path string, o migrate.Options) (*migrate.Result, error) {
	in, shut, err := a.openImport(path)
	if err != nil {
		return nil, err
	}
	defer shut()
	result, err := migrate.Read(source, in, o)
	return result, importFault(path, err)
}

// openImport opens a file for reading; "-" is standard input.
func (a *app) openImport(path string) (io.Reader, func(), error) {
	if path == "-" {
		return a.in, func() {}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, nil, hinted{fmt.Errorf("cannot read %s: %w", visible(path), err), "give the path of the export, or - for standard input"}
	}
	return f, func() { f.Close() }, nil
}

// importFault says which file a fault is in.
func importFault(path string, err error) error {
	if err == nil {
		return nil
	}
	if path == "-" {
		path = "standard input"
	}
	var fault *migrate.Fault
	if errors.As(err, &fault) {
		return hinted{fmt.Errorf("%s: %s; nothing was imported", visible(path), fault.Message), fault.Hint}
	}
	return fmt.Errorf("cannot read %s: %w; nothing was imported", visible(path), err)
}

func importRow(r migrate.Row, mapped map[string][]string, existing bool) admin.ImportRow {
	row := admin.ImportRow{
		Login: r.Login, Aliases: r.Aliases, DisplayName: r.DisplayName, Attributes: r.Attributes, Userdb: r.Userdb, Groups: r.Groups,
		MustExist: r.MustExist || existing,
	}
	if r.Hash == "" {
		return row
	}
	p := &admin.ImportPassword{Key: r.Key, Label: r.Label, Hash: r.Hash, Scheme: r.Scheme, Networks: r.Networks}
	for _, s := range r.Services {
		if names, found := mapped[strings.ToLower(s)]; found {
			p.Services = append(p.Services, names...)
		} else {
			p.Services = append(p.Services, s)
		}
	}
	if !r.CreatedAt.IsZero() {
		p.CreatedAt = &r.CreatedAt
	}
	if !r.ExpiresAt.IsZero() {
		p.ExpiresAt = &r.ExpiresAt
	}
	row.AppPassword = p
	return row
}

// importReport is what an import did, or in a dry run would do.
type importReport struct {
	Source       string            `json:"source"`
	Applied      bool              `json:"applied"` // false: a dry run
	Rows         int               `json:"rows"`
	Accounts     importCount       `json:"accounts"`
	AppPasswords importCount       `json:"app_passwords"`
	Unsalted     int               `json:"unsalted"` // of the app passwords added
	Skipped      []migrate.Skipped `json:"skipped"`
	Notes        []string          `json:"notes"`
}

type importCount struct {
	Added   int `json:"added"`
	Changed int `json:"changed"`
	There   int `json:"there"`
}

// sentRow is a row with where it stands in the file.
type sentRow struct {
	ref string
	row admin.ImportRow
}

// importRun sends rows to the daemon, a bounded part at a time.
type importRun struct {
	app    *app
	ctx    context.Context
	apply  bool
	groups []admin.ImportGroup
	rows   []sentRow
	report importReport

	client   *admin.Client     // one for all calls, so that connections are used again
	accounts map[string]string // outcome of each
	begin    time.Time
	told     time.Time
	sent     int
}

func (r *importRun) do() error {
	r.client, r.accounts, r.begin = r.app.client(), map[string]string{}, time.Now()
	r.told = r.begin
	// The rows of an account stay together, so that a dry run, which undoes each part, sees what a real one would. An alias that
	// needs its account comes behind it.
	slices.SortStableFunc(r.rows, func(a, b sentRow) int {
		if c := strings.Compare(strings.ToLower(a.row.Login), strings.ToLower(b.row.Login)); c != 0 {
			return c
		}
		switch {
		case a.row.MustExist == b.row.MustExist:
			return 0
		case b.row.MustExist:
			return -1
		}
		return 1
	})
	if err := r.sendGroups(); err != nil {
		return r.interrupted(err)
	}
	parts, err := r.parts()
	if err != nil {
		return err
	}
	if err := r.sendAll(parts); err != nil {
		return r.interrupted(err)
	}
	for _, outcome := range r.accounts {
		r.report.Accounts.count(outcome)
	}
	if r.report.Skipped == nil { // JSON's null is harder to read for programs
		r.report.Skipped = []migrate.Skipped{}
	}
	if r.report.Notes == nil {
		r.report.Notes = []string{}
	}
	return r.app.print(r.report, r.print)
}

func (c *importCount) count(outcome string) {
	switch outcome {
	case auth.ImportAdded:
		c.Added++
	case auth.ImportChanged:
		c.Changed++
	case auth.ImportThere:
		c.There++
	}
}

func (r *importRun) sendGroups() error {
	for groups := r.groups; len(groups) > 0; {
		n, size := 0, 0
		for n < len(groups) && n < importBatchRows {
			text, err := json.Marshal(groups[n])
			if err != nil {
				return err
			}
			if size += len(text) + 1; size > importBatchBytes && n > 0 {
				break
			}
			n++
		}
		if _, err := r.call(r.ctx, admin.Import{Source: r.report.Source, DryRun: !r.apply, Groups: groups[:n], Rows: []admin.ImportRow{}}); err != nil {
			return err
		}
		groups = groups[n:]
	}
	return nil
}

// parts divides the rows.
func (r *importRun) parts() (parts [][]sentRow, err error) {
	for len(r.rows) > 0 {
		n, err := r.next()
		if err != nil {
			return nil, err
		}
		if n > 0 {
			parts = append(parts, r.rows[:n])
			r.rows = r.rows[n:]
		}
	}
	return parts, nil
}

// sendAll sends the parts, two at a time: while Postgres writes one, the daemon reads the next. The outcomes are taken in order.
func (r *importRun) sendAll(parts [][]sentRow) error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	type answer struct {
		outcomes admin.ImportOutcomes
		err      error
	}
	answers := make([]chan answer, len(parts))
	turns := make(chan struct{}, importParallel)
	for i := range answers {
		answers[i] = make(chan answer, 1)
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() {
		for i, part := range parts {
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wait.Go(func() {
				defer func() { <-turns }()
				outcomes, err := r.call(ctx, r.request(part))
				answers[i] <- answer{outcomes, err}
			})
		}
	})
	for i, part := range parts {
		var a answer
		select {
		case a = <-answers[i]:
		case <-ctx.Done():
			return ctx.Err()
		}
		if a.err == nil {
			a.err = r.take(part, a.outcomes)
		}
		if a.err != nil {
			cancel()
			return a.err
		}
		r.progress()
	}
	return nil
}

// next says how many of the rows make the next part. A row that fits into none is skipped and taken out.
func (r *importRun) next() (int, error) {
	n, size, clear := 0, 0, 0
	whole := 0 // rows up to the end of an account
	for n < len(r.rows) && n < importBatchRows {
		text, err := json.Marshal(r.rows[n].row)
		if err != nil {
			return 0, err
		}
		if n == 0 && len(text) > importBatchBytes {
			r.skip(r.rows[0], "", "it is too large: it has too many attributes, aliases or groups")
			r.rows = r.rows[1:]
			return 0, nil
		}
		if n > 0 && !strings.EqualFold(r.rows[n].row.Login, r.rows[n-1].row.Login) {
			whole = n
		}
		size += len(text) + 1
		if isClear(r.rows[n].row.AppPassword) {
			clear++
		}
		if size > importBatchBytes || clear > admin.MaxImportClear {
			if whole > 0 {
				return whole, nil
			}
			return n, nil
		}
		n++
	}
	if n < len(r.rows) && whole > 0 && strings.EqualFold(r.rows[n].row.Login, r.rows[n-1].row.Login) {
		return whole, nil
	}
	return n, nil
}

// isClear reports whether the daemon has to hash the password. It errs on the side of yes.
func isClear(p *admin.ImportPassword) bool {
	if p == nil {
		return false
	}
	text := p.Hash
	if !strings.HasPrefix(text, "{") {
		text = "{" + p.Scheme
	}
	text = strings.ToUpper(text[:min(len(text), 6)])
	return strings.HasPrefix(text, "{PLAIN") || strings.HasPrefix(text, "{CLEAR")
}

func (r *importRun) call(ctx context.Context, n admin.Import) (admin.ImportOutcomes, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.client.Import(ctx, n)
}

func (r *importRun) request(rows []sentRow) admin.Import {
	n := admin.Import{Source: r.report.Source, DryRun: !r.apply, Rows: make([]admin.ImportRow, len(rows))}
	for i := range rows {
		n.Rows[i] = rows[i].row
	}
	return n
}

// take adds the outcomes of a part to the report.
func (r *importRun) take(rows []sentRow, answer admin.ImportOutcomes) error {
	if len(answer.Outcomes) != len(rows) {
		return &admin.UnreachableError{Socket: r.app.socket, Err: errors.New("its answer is not what this version understands")}
	}
	for i, o := range answer.Outcomes {
		if o.Account != auth.ImportSkipped {
			if old := r.accounts[o.Login]; old == "" || old == auth.ImportThere {
				r.accounts[o.Login] = o.Account
			}
		}
		r.report.AppPasswords.count(o.AppPassword)
		if o.Unsalted {
			r.report.Unsalted++
		}
		if o.Why != "" {
			label := ""
			if rows[i].row.AppPassword != nil {
				label = rows[i].row.AppPassword.Label
			}
			r.skip(rows[i], label, o.Why)
		}
		for _, note := range o.Notes {
			r.skip(rows[i], "", note)
		}
	}
	r.sent += len(rows)
	return nil
}

func (r *importRun) skip(row sentRow, label, why string) {
	r.report.Skipped = append(r.report.Skipped, migrate.Skipped{Ref: row.ref, Login: row.row.Login, Label: label, Why: why})
}

// interrupted adds to an error how far it came.
func (r *importRun) interrupted(err error) error {
	if !r.apply {
		return err
	}
	return fmt.Errorf("%w; the %s of %s rows that were sent before are done: run the same command again, nothing is taken over twice",
		err, grouped(r.sent), grouped(r.report.Rows))
}

func (r *importRun) progress() {
	if now := time.Now(); now.Sub(r.begin) >= importQuiet && now.Sub(r.told) >= importTell {
		r.told = now
		fmt.Fprintf(r.app.err, "%s of %s rows\n", grouped(r.sent), grouped(r.report.Rows))
	}
}

// grouped prints a number with a comma after each thousand.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (r *importRun) print() {
	out, p := r.app.out, &r.report
	done := "added"
	if !p.Applied {
		done = "would be added"
	}
	t := r.app.table("", strings.ToUpper(done), "CHANGED", "THERE ALREADY")
	t.row("accounts", grouped(p.Accounts.Added), grouped(p.Accounts.Changed), grouped(p.Accounts.There))
	t.row("app passwords", grouped(p.AppPasswords.Added), "", grouped(p.AppPasswords.There))
	t.print()
	if p.Unsalted > 0 {
		fmt.Fprintf(out, "%s of the hashes have no salt: they are weak until each is replaced at its first login; revoke what is not used after a while\n", grouped(p.Unsalted))
	}
	for _, n := range p.Notes {
		fmt.Fprintf(out, "note: %s\n", visible(n))
	}
	if len(p.Skipped) > 0 {
		fmt.Fprintf(out, "%s left out:\n", grouped(len(p.Skipped)))
		t := r.app.table()
		for _, s := range p.Skipped[:min(len(p.Skipped), shownSkipped)] {
			who := auth.Clip(s.Login, 80)
			if s.Label != "" {
				who += " (" + auth.Clip(s.Label, 80) + ")"
			}
			t.row("  "+s.Ref, who, s.Why)
		}
		t.print()
		if more := len(p.Skipped) - shownSkipped; more > 0 {
			reasons := map[string]int{}
			for _, s := range p.Skipped[shownSkipped:] {
				reasons[s.Why]++
			}
			fmt.Fprintf(out, "  and %s more, for %d reasons; --json lists all\n", grouped(more), len(slices.Collect(maps.Keys(reasons))))
		}
	}
	if !p.Applied {
		fmt.Fprintln(out, "nothing was changed: this was a dry run; --apply takes it over")
	}
}
