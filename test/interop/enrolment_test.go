package interop_test

import (
	"encoding/json"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/test/harness"
)

const onlyEnrolled = `help = "enrol one at https://id.example.org/2fa"`

// frontEnds are a client for each way in; both see every change of an enrolment.
func frontEnds(d *harness.Daemon) map[string]harness.Client {
	return map[string]harness.Client{
		"ldap": &harness.LDAPClient{Addr: d.LDAP}, "dovecot": &harness.DovecotClient{Addr: d.DovecotUnix, Service: "imap"},
	}
}

// TestEnrolment follows a user who enrols, loses the second factor and enrols again, with the plugin that reads a list.
//
// It would catch: an app password that is made or used without a second factor where the site wants one, one that stays suspended or is
// lost with the second factor, a refusal that a client can tell from a wrong password, a policy that needs a restart, a printer that is
// asked for a second factor, an LDAP connection that outlives the enrolment.
func TestEnrolment(t *testing.T) {
	t.Parallel()
	list := harness.NewEnrolledList(t)
	d := harness.NewDaemon(t, "")
	d.Sections = list.Enrolment(t, `require = "login"`, onlyEnrolled)
	d.Start(t)
	d.PluginUp(t, 0)
	for _, login := range []string{"alice", "office"} {
		d.AddAccount(t, login)
	}
	refused := func(when string) {
		t.Helper()
		code, out, errOut := d.Valetkey(t, "", "create", "alice", "tablet")
		if want := "valetkey: alice has no second factor: enrol one at https://id.example.org/2fa, then try again\n"; code != 1 || out != "" || !strings.HasPrefix(errOut, want) {
			t.Errorf("%s: valetkey create: exit code %d, %q, %q, want 1 and %q", when, code, out, errOut, want)
		}
	}
	refused("before she enrolled")
	list.Set(t, "alice")
	phone := d.Create(t, "alice", "phone") // at once: the answer from before does not count here
	printer := d.Create(t, "office", "printer", "--exempt-because", "printer in room 5")
	row := func() map[string]any {
		t.Helper()
		var all struct {
			AppPasswords []map[string]any `json:"app_passwords"`
		}
		if err := json.Unmarshal([]byte(d.Must(t, "list", "alice", "--json")), &all); err != nil || len(all.AppPasswords) != 1 {
			t.Fatalf("valetkey list = %v, %v, want one app password", all, err)
		}
		delete(all.AppPasswords[0], "last_used")
		return all.AppPasswords[0]
	}
	before := row()

	// all waits until a login has this outcome at every front end, and wants this reason in the log.
	all := func(when, login, secret string, want harness.Outcome, reason string) {
		t.Helper()
		for name, c := range frontEnds(d) {
			var last string
			mark := 0
			harness.WaitFor(t, name+" "+when+": "+login+" to be "+want.String()+", not "+last, func() bool {
				mark = d.Log().Mark()
				got, detail := c.Login(login, secret)
				last = got.String() + " " + detail
				return got == want
			})
			c.Close()
			values := harness.AuthLine{"reason": reason, "user": login, "count": "no"}
			if reason == "not_enrolled" {
				values["second_factor"] = "not_listed"
			}
			d.WantAuth(t, mark, values)
		}
	}
	all("enrolled", "alice", phone, harness.Accepted, "accepted")
	all("exempt", "office", printer, harness.Accepted, "accepted")

	// Somebody who logged in and stays.
	conn, err := ldap.DialURL("ldap://" + d.LDAP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetTimeout(harness.Patience)
	if err := conn.Bind(harness.UserDN("alice"), phone); err != nil {
		t.Fatal(err)
	}
	look := func() error {
		_, err := conn.Search(ldap.NewSearchRequest(harness.UserDN("alice"), ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", nil, nil))
		return err
	}
	if err := look(); err != nil {
		t.Errorf("a search of her own entry = %v, want nil", err)
	}

	list.Set(t)
	all("no longer enrolled", "alice", phone, harness.Rejected, "not_enrolled")
	harness.WaitFor(t, "the connection from before to end", func() bool { return look() != nil })
	refused("after she lost it")
	all("exempt, not enrolled", "office", printer, harness.Accepted, "accepted")
	d.Must(t, "exempt", "office", "printer", "--end")
	all("no longer exempt", "office", printer, harness.Rejected, "not_enrolled")
	d.Must(t, "exempt", "office", "printer", "--because", "printer in room 6")
	all("exempt again", "office", printer, harness.Accepted, "accepted")
	// A wrong password asks nobody and looks the same.
	checks := d.Plugin(t).Checks
	for name, c := range frontEnds(d) {
		if got, detail := c.Login("alice", neverIssued); got != harness.Rejected {
			t.Errorf("%s: a wrong password is %v (%s), want rejected", name, got, detail)
		}
		c.Close()
	}
	if now := d.Plugin(t).Checks; now != checks {
		t.Errorf("wrong passwords made the daemon ask the plugin %d times", now-checks)
	}

	// Under "issue" it still works, and no new one is made. The policy changes without a restart of anything.
	pid := d.Plugin(t).PID
	d.Sections = list.Enrolment(t, `require = "issue"`, onlyEnrolled)
	d.Reload(t)
	all("under issue", "alice", phone, harness.Accepted, "accepted")
	refused("under issue")
	d.Sections = list.Enrolment(t, `require = "login"`, onlyEnrolled)
	d.Reload(t)
	all("under login again", "alice", phone, harness.Rejected, "not_enrolled")
	if now := d.Plugin(t).PID; now != pid {
		t.Errorf("the plugin is process %d after a change of the policy, was %d", now, pid)
	}

	list.Set(t, "alice")
	all("enrolled again", "alice", phone, harness.Accepted, "accepted")
	if now := row(); !maps.EqualFunc(before, now, func(a, b any) bool { x, _ := json.Marshal(a); y, _ := json.Marshal(b); return string(x) == string(y) }) {
		t.Errorf("her app password is %v, was %v", now, before)
	}
}

// TestEnrolmentReload sends SIGHUP with plugins that work and plugins that do not.
//
// It would catch: a working plugin that gives way to a broken one, an answer of the old one after the new one has taken over, a fault that is
// told nowhere, a process that is left behind.
func TestEnrolmentReload(t *testing.T) {
	t.Parallel()
	first, second := harness.NewEnrolledList(t, "alice"), harness.NewEnrolledList(t, "bob")
	d := harness.NewDaemon(t, "")
	d.Start(t)
	secrets := map[string]string{}
	for _, login := range []string{"alice", "bob"} {
		d.AddAccount(t, login)
		secrets[login] = d.Create(t, login, "phone")
	}
	if out := d.Must(t, "status"); !strings.Contains(out, "app passwords are issued without one") {
		t.Errorf("valetkey status does not say that nobody is asked for a second factor:\n%s", out)
	}
	if !strings.Contains(d.AllLogs(), "app passwords are issued without asking for a second factor") {
		t.Error("the log does not say that nobody is asked for a second factor")
	}
	// gets waits until these may log in, and nobody else.
	gets := func(when string, allowed ...string) {
		t.Helper()
		c := &harness.DovecotClient{Addr: d.DovecotUnix}
		defer c.Close()
		for login, secret := range secrets {
			want := harness.Rejected
			if slices.Contains(allowed, login) {
				want = harness.Accepted
			}
			harness.WaitFor(t, when+": "+login+" to be "+want.String(), func() bool { got, _ := c.Login(login, secret); return got == want })
		}
	}
	children := func() int {
		return len(slices.DeleteFunc(harness.Descendants(d.Process().PID()), func(pid int) bool { return !isPlugin(pid) }))
	}
	gets("nothing required", "alice", "bob")

	d.Sections = first.Enrolment(t, `require = "login"`)
	d.Reload(t)
	gets("the first plugin", "alice")
	pid := d.Plugin(t).PID

	for name, broken := range map[string]string{
		"wrong checksum": first.Enrolment(t, `require = "login"`, `checksum = "`+strings.Repeat("0", 64)+`"`),
		"exits":          harness.EnrolmentSection("/bin/false", nil, `require = "login"`),
		"silent":         harness.EnrolmentSection("/bin/sleep", []string{"3600"}, `require = "login"`, `start_timeout = "200ms"`),
	} {
		d.Sections = broken
		mark := d.Log().Mark()
		d.Reload(t)
		line, ok := d.Log().Wait(mark, harness.Patience, func(line string) bool { return strings.Contains(line, "the new plugin cannot be used") })
		if !ok || !strings.Contains(line, "key=enrolment.plugin") {
			t.Errorf("%s: the log says %q, want the key", name, line)
		}
		if s := d.Plugin(t); !s.Up || s.PID != pid || s.Error == "" {
			t.Errorf("%s: the plugin is %+v, want process %d as before, and an error", name, s, pid)
		}
		gets(name, "alice")
	}
	for name, refused := range map[string]string{
		"relative":    harness.EnrolmentSection("valetkey-2fa-file", nil, `require = "login"`),
		"missing":     harness.EnrolmentSection("/nonexistent/plugin", nil, `require = "login"`),
		"no program":  harness.EnrolmentSection(first.Path, nil, `require = "login"`),
		"none at all": "\n[enrolment]\nrequire = \"login\"\n",
	} {
		d.Sections = refused
		d.WriteConfig(t, "")
		mark := d.Log().Mark()
		d.Process().Signal(syscall.SIGHUP)
		if line, ok := d.Log().Wait(mark, harness.Patience, func(line string) bool { return strings.Contains(line, "reload refused") }); !ok || !strings.Contains(line, "key=enrolment.") {
			t.Errorf("%s: the log says %q, want a refusal with the key", name, line)
		}
		gets(name, "alice")
	}

	d.Sections = second.Enrolment(t, `require = "login"`)
	d.Reload(t)
	s := d.PluginUp(t, pid)
	if s.Error != "" {
		t.Errorf("after a good reload the status still has the error %q", s.Error)
	}
	gets("the second plugin", "bob")
	harness.WaitFor(t, "the first plugin to be gone", func() bool { return children() == 1 })

	d.Sections = ""
	d.Reload(t)
	gets("nothing required again", "alice", "bob")
	harness.WaitFor(t, "the second plugin to be gone", func() bool { return children() == 0 })
	if left, _ := filepath.Glob(filepath.Join(d.Dir, "run", "2fa", "*", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	d.Stop(t)
}

// isPlugin reports whether a process runs the plugin.
func isPlugin(pid int) bool {
	out, err := exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "valetkey-2fa-file")
}
