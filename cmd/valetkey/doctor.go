package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/certs"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/secret"
	"github.com/valetkey/valetkey/store"
)

// States of a finding.
const (
	fine    = "ok"
	dubious = "warning"
	wrong   = "wrong"
)

// finding is one line of the doctor's.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// doctor looks at a machine where valetkeyd runs, or should. It changes nothing.
type doctor struct {
	app      *app
	cfg      *config.Config // nil: it cannot be used
	status   *admin.Status  // nil: the daemon does not answer
	findings []finding
}

func (d *doctor) say(check, state, hint, format string, args ...any) {
	d.findings = append(d.findings, finding{check, state, fmt.Sprintf(format, args...), hint})
}

func (a *app) doctorCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with the daemon, its configuration and its surroundings",
		Long: `Look for what is wrong with the daemon, its configuration and its surroundings, and print a line and a hint for each. It changes nothing, and
works while the daemon is down; run it as root on the daemon's machine. The exit code is 1 if something is wrong.

Without --config it takes the file that the running daemon has read.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{app: a}
			named := cmd.Flags().Changed("socket") || os.Getenv("VALETKEY_SOCKET") != ""
			d.examine(cmd.Context(), file, named)
			if err := a.print(map[string][]finding{"findings": d.findings}, d.print); err != nil {
				return err
			}
			if slices.ContainsFunc(d.findings, func(f finding) bool { return f.State == wrong }) {
				return outcomeError{exitRefused}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the daemon's configuration `FILE`")
	return cmd
}

func (d *doctor) print() {
	for _, f := range d.findings {
		below := strings.Repeat(" ", 24)
		d.app.say(below, fmt.Sprintf("%-8s %-14s %s", f.State, visible(f.Check), visible(f.Text)))
		if f.Hint != "" {
			d.app.say(below, below+"hint: "+visible(f.Hint))
		}
	}
}

// examine makes every check. The admin socket is the configuration's unless it was named.
func (d *doctor) examine(ctx context.Context, file string, socketNamed bool) {
	if file != "" {
		d.configuration(file)
		if d.cfg != nil && !socketNamed {
			d.app.socket = d.cfg.Admin.Socket
		}
	}
	d.daemon(ctx)
	switch {
	case file != "":
	case d.status != nil && d.status.Config != "":
		d.configuration(d.status.Config)
	case d.status != nil: // it runs without one
		d.say("configuration", fine, "", "the daemon runs without a file")
		d.cfg, _ = config.Load(config.Flags{StateDir: d.status.StateDir})
	default:
		d.say("configuration", dubious, "--config FILE names it", "without the daemon it is not known which file it reads")
	}
	d.sameConfiguration()
	d.throttle()
	d.database(ctx)
	d.pepper()
	d.plugin()
	d.notices(ctx)
	d.listeners(ctx)
	d.applications()
	d.certificates()
	d.sockets()
}

func (d *doctor) configuration(file string) {
	flags := config.Flags{File: file}
	if d.status != nil && d.status.Config == file {
		flags.StateDir = d.status.StateDir // which the command line may have said
	}
	cfg, err := config.Load(flags)
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			text := f.Text
			if f.Key != "" {
				text = f.Key + ": " + text
			}
			d.say("configuration", wrong, "valetkeyd --config "+file+" --check-config finds no more once it is repaired", "%s", text)
		}
	case err != nil:
		d.say("configuration", wrong, "run it as root, on the daemon's machine", "%v", err)
	default:
		d.cfg = cfg
		d.say("configuration", fine, "", "%s", file)
	}
}

func (d *doctor) daemon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := d.app.client().Status(ctx)
	if err != nil {
		_, hint := d.app.explain(err)
		d.say("daemon", wrong, hint, "%v", err)
		return
	}
	d.status = &s
	if s.Version != version {
		d.say("daemon", dubious, "start it again after an upgrade", "version %s, and this command is version %s", s.Version, version)
		return
	}
	d.say("daemon", fine, "", "version %s, up %s", s.Version, time.Since(s.Started).Round(time.Second))
}

// placed is where a listener of the configuration shall be.
type placed struct {
	name   string // "ldap[1]"
	listen config.Address
}

func places(cfg *config.Config) []placed {
	var out []placed
	add := func(section string, i int, s config.Socket) {
		out = append(out, placed{fmt.Sprintf("%s[%d]", section, i+1), s.Listen})
	}
	for i, x := range cfg.LDAP {
		add("ldap", i, x.Socket)
	}
	for i, x := range cfg.Dovecot {
		add("dovecot", i, x.Socket)
	}
	for i, x := range cfg.Saslauthd {
		add("saslauthd", i, x.Socket)
	}
	for i, x := range cfg.Checkpassword {
		add("checkpassword", i, x.Socket)
	}
	for i, x := range cfg.HTTP {
		add("http", i, x.Socket)
	}
	return out
}

// sameConfiguration finds listeners that the file has and the daemon has not. Without any in the file the daemon's command line may have
// moved those that are implied.
func (d *doctor) sameConfiguration() {
	if d.cfg == nil || d.status == nil || d.status.Implied {
		return
	}
	for _, p := range places(d.cfg) {
		text, found := p.listen.String(), false
		for _, l := range d.status.Listeners {
			switch {
			case p.listen.Network == "systemd":
				found = found || l.Systemd == p.listen.Address
			case strings.HasSuffix(p.listen.Address, ":0"): // any port
				found = true
			default:
				found = found || l.Address == text
			}
		}
		switch {
		case found:
		case p.listen.Network == "systemd":
			d.say("configuration", wrong, "a .socket unit with FileDescriptorName="+p.listen.Address+" and the daemon's Service= hands it over: systemctl restart it and valetkeyd",
				"the daemon has no socket of systemd's named %s, on which %s shall listen", p.listen.Address, p.name)
		default:
			d.say("configuration", wrong, "make the daemon read it: systemctl reload valetkeyd, or send it SIGHUP; its log says what it lacks",
				"the daemon does not listen on %s, which is in the file", text)
		}
	}
}

// throttle looks whether guessing is slowed down, and for whom it is not.
func (d *doctor) throttle() {
	if d.cfg == nil {
		return
	}
	t := d.cfg.Throttle
	if !t.Enabled {
		d.say("throttle", dubious, "take throttle.enabled = false out, unless something else slows guessing down", "off: whoever guesses passwords may do so as fast as he likes")
		return
	}
	for _, n := range t.Trusted {
		if n.Bits() < 8 || n.Addr().Is6() && n.Bits() < 32 {
			d.say("throttle", dubious, "name the addresses of your own servers in throttle.trusted", "%s is trusted: a large part of the Internet may guess as fast as it likes", n)
			return
		}
	}
	d.say("throttle", fine, "", "guessing is slowed down by source")
}

// applications finds those that nobody can log in to.
func (d *doctor) applications() {
	if d.status == nil {
		return
	}
	for _, l := range d.status.Listeners {
		for _, x := range l.Applications {
			if x.GroupMissing {
				d.say(l.Name, wrong, "valetkey group add "+x.Group+", or name another group in the file; behind an upstream directory the group is made there",
					"nobody can log in to the application %s: there is no group %s", x.Name, x.Group)
			}
		}
	}
}

// clockTolerance is by how much two clocks may differ before dates of expiry are noticeably early or late.
const clockTolerance = 5 * time.Second

func (d *doctor) database(ctx context.Context) {
	if d.status != nil {
		db := d.status.Database
		if !db.Reachable {
			d.say("database", wrong, "valetkeyd's log has the cause", "the daemon cannot reach it: %s", db.Error)
			return
		}
		offset, _ := time.ParseDuration(db.Clock)
		d.databaseState(db.Version, db.Schema, db.Target, offset)
		return
	}
	switch {
	case d.cfg == nil:
	case d.cfg.Database.URL == "":
		d.say("database", dubious, "", "a private one, which runs with the daemon only")
	default:
		s, err := store.Open(store.Config{URL: d.cfg.Database.URL, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			d.say("database", wrong, "look at database.url", "%v", err)
			return
		}
		defer s.Close(ctx)
		db, err := s.Status(ctx)
		if err != nil {
			d.say("database", wrong, "is Postgres running, and may the user of database.url log in to it from here?", "%v", err)
			return
		}
		d.databaseState(db.ServerVersion, db.Schema, db.Target, db.ClockOffset)
	}
}

func (d *doctor) databaseState(server string, schema, target int64, offset time.Duration) {
	switch {
	case schema < target:
		d.say("database", wrong, "the daemon brings it up to date when it starts; its log says why it could not", "Postgres %s, schema %d instead of %d", server, schema, target)
	case schema > target:
		d.say("database", dubious, "bring this daemon up to date too", "Postgres %s, schema %d; a newer daemon than this one, which knows %d, uses it", server, schema, target)
	default:
		d.say("database", fine, "", "Postgres %s, schema %d", server, schema)
	}
	if offset.Abs() > clockTolerance {
		d.say("clock", wrong, "set both machines' clocks by NTP: timedatectl", "the database's is %s off", offset)
		return
	}
	d.say("clock", fine, "", "it agrees with the database's")
}

func (d *doctor) pepper() {
	if d.cfg != nil {
		d.pepperFile(d.cfg.Pepper.File)
	}
	if d.status != nil && len(d.status.Unknown) > 0 {
		d.say("pepper", dubious, "copy the pepper file of the daemon that made them", "app passwords may be keyed by peppers that this daemon lacks, and are found slowly: %s",
			strings.Join(d.status.Unknown, ", "))
	}
}

func (d *doctor) pepperFile(path string) {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.status == nil:
		d.say("pepper", dubious, "if there are app passwords already, put the file back from its copy before the daemon starts", "%s is not there; the daemon makes one at its first start", path)
		return
	case errors.Is(err, fs.ErrNotExist):
		d.say("pepper", wrong, "put it back from its copy before the daemon is started again; without it logins become slow", "%s is gone, and the daemon has it in memory only", path)
		return
	case err != nil:
		d.say("pepper", wrong, "run it as root, on the daemon's machine", "%v", err)
		return
	}
	ring, err := secret.OpenRing(path)
	if err != nil {
		d.say("pepper", wrong, "with this file the daemon neither starts nor reloads", "%v", err)
		return
	}
	var ids []string
	for _, id := range ring.IDs() {
		ids = append(ids, fmt.Sprintf("%08x", id))
	}
	if d.status != nil && !slices.Equal(ids, d.status.Peppers) {
		d.say("pepper", wrong, "make the daemon read it: systemctl reload valetkeyd, or send it SIGHUP", "%s has other peppers than the daemon", path)
		return
	}
	d.say("pepper", fine, "", "%s", path)
}

// listeners connects to each.
func (d *doctor) listeners(ctx context.Context) {
	if d.status == nil {
		return
	}
	for _, l := range d.status.Listeners {
		network, address := split(l.Address)
		dialer := net.Dialer{Timeout: 3 * time.Second}
		c, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			if op, ok := errors.AsType[*net.OpError](err); ok {
				err = op.Err
			}
			d.say(l.Name, wrong, "did another program take its place? ss -lxntp shows who listens", "no connection to %s: %v", l.Address, err)
			continue
		}
		c.Close()
		d.say(l.Name, fine, "", "%s takes connections", l.Address)
	}
}

func (d *doctor) certificates() {
	if d.status != nil {
		for _, l := range d.status.Listeners {
			if l.TLS == nil {
				continue
			}
			switch hint := "renew it: " + l.TLS.Certificate; {
			case l.TLS.Error != "":
				d.say(l.Name, wrong, "the old one stays in use until then", "the new certificate cannot be used: %s", l.TLS.Error)
			case l.TLS.Expired:
				d.say(l.Name, wrong, hint, "%s", protection(l.TLS))
			case l.TLS.ExpiresSoon:
				d.say(l.Name, dubious, hint, "%s", protection(l.TLS))
			default:
				d.say(l.Name, fine, "", "%s", protection(l.TLS))
			}
		}
		return
	}
	if d.cfg == nil {
		return
	}
	for i, l := range d.cfg.LDAP {
		if l.TLS.Mode == "" {
			continue
		}
		name := fmt.Sprintf("ldap[%d]", i+1)
		if _, err := certs.Open(certs.Files{Cert: l.TLS.Cert, Key: l.TLS.Key}, slog.New(slog.DiscardHandler), time.Now); err != nil {
			d.say(name, wrong, "the daemon does not start with it", "the certificate cannot be used: %v", err)
			continue
		}
		d.say(name, fine, "", "%s can be used", l.TLS.Cert)
	}
}

// sockets looks whether those who may connect to the daemon's Unix sockets can reach them, through every directory above.
func (d *doctor) sockets() {
	if d.status == nil {
		return
	}
	for _, l := range d.status.Listeners {
		if network, path := split(l.Address); network == "unix" {
			d.socketFile(l.Name, path)
		}
	}
	if info, err := os.Lstat(d.app.socket); err == nil && info.Mode().Perm()&0o066 != 0 {
		d.socketFile("admin socket", d.app.socket)
	}
}

func (d *doctor) socketFile(name, path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		d.say(name, wrong, "start the daemon again, which makes it", "%s is no socket any more", path)
		return
	}
	file := info.Sys().(*syscall.Stat_t)
	var who []identity
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		who = append(who, identity{name: "everybody", uid: -1, gid: -1})
	default:
		if mode&0o020 != 0 && file.Gid != 0 {
			who = append(who, identity{"the group " + nameOfGroup(file.Gid), -1, int64(file.Gid)})
		}
		if mode&0o200 != 0 && file.Uid != 0 {
			who = append(who, identity{"the user " + nameOfUser(file.Uid), int64(file.Uid), -1})
		}
	}
	if len(who) == 0 {
		d.say(name, dubious, "group = \"postfix\" or another in its section lets the mail server in (SocketGroup= of its unit, if the socket is systemd's)", "only root may connect to %s", path)
		return
	}
	for _, id := range who {
		if dir, err := id.barred(path); err != nil {
			d.say(name, wrong, "run it as root", "%v", err)
		} else if dir != "" {
			d.say(name, wrong, "chmod o+x "+dir+", or put the socket elsewhere", "%s may connect to %s, and may not enter %s", id.name, path, dir)
		} else {
			d.say(name, fine, "", "%s may connect to %s", id.name, path)
		}
	}
}

func nameOfGroup(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

func nameOfUser(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// identity is somebody of whom one thing is known: his user id, a group of his, or nothing. -1 is for what is not known.
type identity struct {
	name     string
	uid, gid int64
}

// barred returns the first directory above the path that the identity may not enter, or nothing (path_resolution(7)). Access control lists
// are not looked at.
func (id identity) barred(path string) (string, error) {
	var above []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		above = append(above, dir)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for _, dir := range slices.Backward(above) {
		info, err := os.Stat(dir)
		if err != nil {
			return "", err
		}
		need := fs.FileMode(0o001)
		switch s := info.Sys().(*syscall.Stat_t); {
		case int64(s.Uid) == id.uid:
			need = 0o100
		case int64(s.Gid) == id.gid:
			need = 0o010
		}
		if info.Mode().Perm()&need == 0 {
			return dir, nil
		}
	}
	return "", nil
}
