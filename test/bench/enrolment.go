package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// What the second factor costs: one daemon asks a plugin about each login, the other asks nobody. Everything else is equal, and they are
// measured in turn.
const (
	enrolmentOffTarget = "require-off"
	enrolmentTarget    = "require-login"

	leastEnrolled = 0.95 // of the rate without
	coldLogins    = 64   // of one account, at once
)

const enrolmentPlugin = "github.com/valetkey/valetkey/cmd/valetkey-2fa-file"

// measureEnrolment compares the two.
func (b *bench) measureEnrolment(ctx context.Context) error {
	active := b.creds[:b.logins]
	plugin := filepath.Join(b.dir, "valetkey-2fa-file")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", plugin, enrolmentPlugin).CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	var enrolled strings.Builder
	for _, c := range active {
		fmt.Fprintln(&enrolled, c.login)
	}
	list := filepath.Join(b.dir, "enrolled")
	if err := os.WriteFile(list, []byte(enrolled.String()), 0o600); err != nil {
		return err
	}
	off := filepath.Join(b.dir, "off")
	if err := os.Mkdir(off, 0o711); err != nil {
		return err
	}
	var asking *daemon
	// The one with the plugin is in the shorter folder: the path of a plugin's socket is limited.
	for name, where := range map[string]struct{ dir, more string }{
		enrolmentOffTarget: {off, ""},
		enrolmentTarget:    {b.dir, fmt.Sprintf("\n[enrolment]\nrequire = \"login\"\nplugin = %q\nargs = [\"-list\", %q, \"-valid-for\", \"15m\"]\n", plugin, list)},
	} {
		d, err := startDaemon(ctx, where.dir, where.more)
		if d != nil {
			defer d.closeDatabase()
			b.servers[name] = server{newDovecot("unix", d.dovecotSocket(), active), d.process}
		}
		if err == nil {
			err = d.load(ctx, b.creds, passwordsPerAccount, b.logins, b.reader)
		}
		if err != nil {
			return err
		}
		if name == enrolmentTarget {
			asking = d
			if err := b.coldCheck(ctx, d, active[0]); err != nil {
				return err
			}
		}
		if err := logInAll(ctx, d.process, b.servers[name].target, b.logins); err != nil {
			return err
		}
	}
	warm, err := asking.admin.Plugin(ctx)
	if err != nil {
		return err
	}
	o := b.options
	o.targets = []string{enrolmentOffTarget, enrolmentTarget}
	m, err := measure(ctx, o, b.servers)
	if err != nil {
		return err
	}
	b.rep.Rows = m.rows(o.targets, o.connections, nil, map[string]string{enrolmentTarget: enrolmentOffTarget})
	for _, r := range b.rep.Rows {
		if r.Target == enrolmentTarget {
			b.rep.Checks = append(b.rep.Checks, check{
				Name: fmt.Sprintf("logins/s with a second factor to those without, %d connections", r.Connections),
				Got:  fmt.Sprintf("%.3f", r.ToPeer), Want: fmt.Sprintf("at least %.2f", leastEnrolled), Met: r.ToPeer >= leastEnrolled, Timed: true,
			})
		}
	}
	after, err := asking.admin.Plugin(ctx)
	if err != nil {
		return err
	}
	b.rep.Checks = append(b.rep.Checks, check{
		Name: "questions to the plugin, warm",
		Got:  fmt.Sprintf("%d for %d logins", after.Checks-warm.Checks, after.Cached-warm.Cached),
		Want: "0, unless it takes 15 minutes", Met: after.Checks == warm.Checks && after.Cached > warm.Cached, Timed: true,
	})
	return nil
}

// coldCheck logs one account in many times at once, before anything is known about it.
func (b *bench) coldCheck(ctx context.Context, d *daemon, c credential) error {
	t := newDovecot("unix", d.dovecotSocket(), slices.Repeat([]credential{c}, coldLogins))
	accepted, err := once(ctx, t, coldLogins, coldLogins, func(int) {})
	if err != nil {
		return d.process.explain(ctx, err)
	}
	p, err := d.admin.Plugin(ctx)
	if err != nil {
		return err
	}
	b.rep.Checks = append(b.rep.Checks, check{
		Name: "questions to the plugin for a cold account", Got: fmt.Sprintf("%d for %d logins at once", p.Checks, accepted), Want: "1",
		Met: p.Checks == 1 && accepted == coldLogins,
	})
	return nil
}
