package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	commandPackage = "github.com/valetkey/valetkey/cmd/valetkey"

	listRuns      = 15
	listOne       = 20 * time.Millisecond
	listFirstPage = 200 * time.Millisecond
	// listDays is how long ago the last uses are, spread evenly, but for listRare rows: what is unused for half of it is every other
	// row, and what is unused for longer is those few, at the far end of the table.
	listDays = 180
	listRare = 5
	// listMemory is how much more the whole list may need than its beginning, which is some full pages.
	listMemory = 1.5
	listPages  = 20_000 // rows
)

// measureListing measures `valetkey list` by its wall time, from its start to its first line or its end, as who types it sees it.
func (b *bench) measureListing(ctx context.Context) error {
	command := filepath.Join(b.dir, "valetkey")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", command, commandPackage).CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	d, err := startDaemon(ctx, b.dir, "")
	if d != nil {
		b.servers[dovecotTarget] = server{process: d.process}
		defer d.closeDatabase()
	}
	if err != nil {
		return err
	}
	accounts := max(1, b.list/passwordsPerAccount)
	progress("data set: writing %d accounts with %d app passwords", accounts, accounts*passwordsPerAccount)
	if err := writeListing(ctx, d.db, accounts); err != nil {
		return fmt.Errorf("write the data set: %w", err)
	}
	l := lister{command, d.adminSocket()}
	if err := b.listOne(ctx, l, d.db); err != nil {
		return err
	}
	for _, q := range []struct {
		name string
		days int
	}{{"every other", listDays / 2}, {fmt.Sprintf("%d", listRare), 2 * listDays}} {
		if err := b.listFirst(ctx, l, q.name, q.days); err != nil {
			return err
		}
	}
	return b.listWhole(ctx, l, d)
}

// lister runs the command.
type lister struct{ command, socket string }

// run lists and reads until the first line, or all. first is when the first line was there.
func (l lister) run(ctx context.Context, whole bool, args ...string) (first, took time.Duration, lines int, peak int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	cmd := exec.CommandContext(ctx, l.command, append([]string{"--socket", l.socket, "list"}, args...)...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, 0, err
	}
	for r := bufio.NewReaderSize(out, 64<<10); ; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			break // the end, or what Wait tells
		}
		if lines++; lines == 1 {
			first = time.Since(start)
			if len(line) < 2 {
				cancel()
				return 0, 0, 0, 0, errors.New("valetkey list: the first line is empty")
			}
			if !whole {
				cancel()
			}
		}
	}
	err = cmd.Wait()
	took = time.Since(start)
	if whole && err != nil {
		return 0, 0, 0, 0, fmt.Errorf("valetkey list: %w\n%s", err, words.Bytes())
	}
	if lines == 0 {
		return 0, 0, 0, 0, fmt.Errorf("valetkey list printed nothing: %v\n%s", err, words.Bytes())
	}
	return first, took, lines, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss, nil
}

func (b *bench) listOne(ctx context.Context, l lister, db *sql.DB) error {
	var times []time.Duration
	for i := range listRuns {
		_, took, lines, _, err := l.run(ctx, true, listLogin(i*7%max(1, b.list/passwordsPerAccount)))
		if err != nil {
			return err
		}
		if lines != passwordsPerAccount+1 { // and the header
			return fmt.Errorf("valetkey list printed %d lines of an account with %d app passwords", lines, passwordsPerAccount)
		}
		times = append(times, took)
	}
	slices.Sort(times)
	b.rep.Checks = append(b.rep.Checks, check{Name: "valetkey list of one account", Want: "less than " + listOne.String(), Timed: true,
		Got: fmt.Sprintf("%s (median of %d, of %s to %s)", ms(middle(times)), listRuns, ms(times[0]), ms(times[len(times)-1])), Met: middle(times) < listOne})
	return nil
}

func (b *bench) listFirst(ctx context.Context, l lister, name string, days int) error {
	var times []time.Duration
	for range listRuns {
		first, _, _, _, err := l.run(ctx, false, "--jsonl", "--unused-for", strconv.Itoa(days)+"d")
		if err != nil {
			return err
		}
		times = append(times, first)
	}
	slices.Sort(times)
	b.rep.Checks = append(b.rep.Checks, check{Name: fmt.Sprintf("first page of list --unused-for, %s of %d meant", name, b.list), Want: "less than " + listFirstPage.String(),
		Got: fmt.Sprintf("%s (median of %d, of %s to %s)", ms(middle(times)), listRuns, ms(times[0]), ms(times[len(times)-1])), Met: middle(times) < listFirstPage, Timed: true})
	return nil
}

// listWhole wants every row once, from a client and a daemon that do not grow with their number.
func (b *bench) listWhole(ctx context.Context, l lister, d *daemon) error {
	flags := []string{"--jsonl", "--unused-for", strconv.Itoa(listDays/2) + "d"}
	_, _, _, small, err := l.run(ctx, true, append(flags, "--limit", strconv.Itoa(listPages))...)
	if err != nil {
		return err
	}
	before, err := readResident(d.process.pid)
	if err != nil {
		return err
	}
	// As time passes more rows are unused for as long: the list has those of a moment between the two counts.
	meant := func() (n int, err error) {
		err = d.db.QueryRowContext(ctx, "SELECT count(*) FROM app_passwords WHERE last_used_at <= now() - make_interval(days => $1)", listDays/2).Scan(&n)
		return n, err
	}
	least, err := meant()
	if err != nil {
		return err
	}
	progress("valetkey list: the whole of it")
	_, took, lines, large, err := l.run(ctx, true, flags...)
	if err != nil {
		return err
	}
	after, err := readResident(d.process.pid)
	if err != nil {
		return err
	}
	most, err := meant()
	if err != nil {
		return err
	}
	b.rep.Checks = append(b.rep.Checks,
		check{Name: "rows of the whole list", Got: fmt.Sprintf("%d in %s, %s a second", lines, took.Round(time.Millisecond), thousands(float64(lines)/took.Seconds())),
			Want: fmt.Sprintf("%d to %d", least, most), Met: least <= lines && lines <= most},
		check{Name: "memory of the command for it", Got: fmt.Sprintf("%.1f MiB", float64(large)/1024),
			Want: fmt.Sprintf("at most %g times the %.1f MiB for %d rows", listMemory, float64(small)/1024, listPages), Met: float64(large) <= listMemory*float64(small)},
		check{Name: "memory of valetkeyd for it", Got: after.String(), Want: fmt.Sprintf("at most %g times %s, after %d rows", listMemory, before, listPages),
			Met: float64(after.peak) <= listMemory*float64(before.peak)})
	return nil
}

func middle(sorted []time.Duration) time.Duration { return sorted[len(sorted)/2] }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func listLogin(i int) string { return fmt.Sprintf("user%06d@example.org", i) }

// writeListing writes accounts whose app passwords were last used at all times.
func writeListing(ctx context.Context, db *sql.DB, accounts int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := copyRows(ctx, tx, "accounts", []string{"login", "keyed"}, func(yield func([]any) bool) {
		for i := range accounts {
			if !yield([]any{listLogin(i), 1}) {
				return
			}
		}
	}); err != nil {
		return err
	}
	ids, err := idsOf(ctx, tx, "accounts", "login")
	if err != nil {
		return err
	}
	if err := copyRows(ctx, tx, "logins", []string{"login", "account_id"}, func(yield func([]any) bool) {
		for login, id := range ids {
			if !yield([]any{login, id}) {
				return
			}
		}
	}); err != nil {
		return err
	}
	now, total := time.Now(), accounts*passwordsPerAccount
	created := now.AddDate(0, 0, -3*listDays)
	err = copyRows(ctx, tx, "app_passwords", []string{"account_id", "label", "label_key", "phc", "origin", "created_at", "created_by",
		"last_used_at", "last_used_service", "last_used_front_end", "used_about"}, func(yield func([]any) bool) {
		n := 0
		for i := range accounts {
			for j := range passwordsPerAccount {
				// A multiplier without a common factor: neighbours in the table are not neighbours in time.
				age := time.Duration(n*7919%total) * (listDays * 24 * time.Hour / time.Duration(total))
				if n++; n > total-listRare {
					age = 2*listDays*24*time.Hour + 24*time.Hour
				}
				used := now.Add(-age)
				label := "device " + strconv.Itoa(j)
				if !yield([]any{ids[listLogin(i)], label, label, listPHC, "generated", created, "root", used, "imap", "dovecot", used}) {
					return
				}
			}
		}
	})
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM ANALYZE accounts, logins, app_passwords")
	return err
}

// listPHC is of the right length; nobody logs in.
const listPHC = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
