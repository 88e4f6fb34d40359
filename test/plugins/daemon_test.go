package plugins_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// site is a place where somebody enrols, and the daemon's configuration for it.
type site struct {
	login   string
	section string // word for word from the page, but for the paths
	reason  string // of the refusal, in the log
	enrol   func(t *testing.T, yes bool)
}

// follow puts the section behind a daemon, and enrols, creates, logs in, takes the second factor away and gives it back.
func (s *site) follow(t *testing.T, database string) {
	t.Helper()
	d := harness.NewDaemon(t, database)
	d.Sections = "\n" + s.section
	d.WriteConfig(t, "")
	config := filepath.Join(filepath.Dir(d.Socket), "valetkeyd.toml")
	if code, out, errOut := harness.Run(t, "", exec.Command(harness.Program(t, "valetkeyd"), "--config", config, "--check-config")); code != 0 {
		t.Fatalf("valetkeyd --check-config: exit code %d, %s%s\n%s", code, out, errOut, s.section)
	}
	s.enrol(t, false)
	d.Start(t)
	d.PluginUp(t, 0)
	d.AddAccount(t, s.login)
	if code, _, errOut := d.Valetkey(t, "", "create", s.login, "phone"); code != 1 || !strings.Contains(errOut, s.login+" has no second factor: ") {
		t.Errorf("valetkey create without a second factor: exit code %d, %q, want 1 and what to do", code, errOut)
	}
	s.enrol(t, true)
	secret := d.Create(t, s.login, "phone")
	c := &harness.DovecotClient{Addr: d.DovecotUnix, Service: "imap"}
	defer c.Close()
	for _, yes := range []bool{true, false, true} {
		s.enrol(t, yes)
		_, out, _ := d.Valetkey(t, "", "plugin", "check", s.login, "--fresh", "--json")
		if want := fmt.Sprintf(`"allowed": %t`, yes); !strings.Contains(out, want) {
			t.Errorf("enrolled %t: valetkey plugin check says %s, want %s", yes, out, want)
		}
		mark := d.Log().Mark()
		got, detail := c.Login(s.login, secret)
		want := map[string]string{"result": "ok", "reason": "accepted", "user": s.login}
		if yes {
			if got != harness.Accepted {
				t.Errorf("enrolled: %v (%s), want accepted", got, detail)
			}
		} else {
			want = map[string]string{"result": "fail", "reason": "not_enrolled", "second_factor": s.reason, "user": s.login}
			if got != harness.Rejected {
				t.Errorf("no longer enrolled: %v (%s), want rejected", got, detail)
			}
		}
		d.WantAuth(t, mark, want)
	}
	d.Stop(t)
	if log := d.AllLogs(); strings.Contains(log, "canary") {
		t.Errorf("the log has a secret:\n%s", log)
	}
}

// TestPagesBehindDaemon does what each page says, with a real daemon in front and the real thing behind.
//
// It would catch: a section on a page that the daemon refuses, a plugin that works by hand and not below the daemon (its environment, its folder,
// its user, its time), a second factor that is lost or found again and that logins do not go by, a secret in the daemon's log.
func TestPagesBehindDaemon(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	run := func(name string, prepare func(t *testing.T) *site) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, _ := cluster.Database(t)
			prepare(t).follow(t, database)
		})
	}
	touch := func(t *testing.T, path string, yes bool) {
		t.Helper()
		var err error
		if yes {
			err = os.WriteFile(path, []byte("secret"), 0o600)
		} else if err = os.Remove(path); os.IsNotExist(err) {
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Of a daemon that waits a second for an answer, on a machine that has other things to do: twice as much and more.
	patient := "health_within = \"5s\"\n"

	run("file, list", func(t *testing.T) *site {
		page := harness.ReadPage(t, "../enrolment-file")
		list := filepath.Join(harness.Dir(t), "enrolled")
		others := page.Snippet(t, "enrolled", "alice\n", "")
		return &site{"alice", page.Snippet(t, "valetkeyd.toml list", "/usr/local/bin/valetkey-2fa-file", harness.Program(t, "valetkey-2fa-file"),
			"/etc/valetkey/enrolled", list) + patient, "not_listed", func(t *testing.T, yes bool) {
			text := others
			if yes {
				text += "alice\n"
			}
			if err := os.WriteFile(list+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(list+".new", list); err != nil {
				t.Fatal(err)
			}
		}}
	})
	run("file, template", func(t *testing.T) *site {
		page, dir := harness.ReadPage(t, "../enrolment-file"), harness.Dir(t)
		if err := os.Mkdir(filepath.Join(dir, "alice"), 0o700); err != nil {
			t.Fatal(err)
		}
		touch(t, filepath.Join(dir, ".mounted"), true)
		return &site{"alice", page.Snippet(t, "valetkeyd.toml template", "/usr/local/bin/valetkey-2fa-file", harness.Program(t, "valetkey-2fa-file"),
			"/var/lib/google-authenticator", dir) + patient, "no_file", func(t *testing.T, yes bool) {
			touch(t, filepath.Join(dir, "alice", ".google_authenticator"), yes)
		}}
	})
	run("turning it on", func(t *testing.T) *site {
		page := harness.ReadPage(t, "../enrolment")
		list := harness.NewEnrolledList(t)
		section := page.Snippet(t, "valetkeyd.toml first", "/usr/local/bin/valetkey-2fa-file", harness.Program(t, "valetkey-2fa-file"), "/etc/valetkey/enrolled", list.Path) +
			page.Snippet(t, "valetkeyd.toml then")
		return &site{"alice", section + patient, "not_listed", func(t *testing.T, yes bool) {
			list.Set(t)
			if yes {
				list.Set(t, "alice")
			}
		}}
	})
	run("ldap", func(t *testing.T) *site {
		page := harness.ReadPage(t, "../enrolment-ldap")
		first, second, ca, password := directories(t)
		second.Stop(t) // one of the two is enough
		config := write(t, "2fa-ldap.toml", page.Snippet(t, "2fa-ldap.toml group",
			"ldaps://ldap1.example.org", "ldaps://"+second.TLSAddr, "ldaps://ldap2.example.org", "ldaps://"+first.TLSAddr,
			"/etc/ssl/certs/example-org.pem", ca, "/etc/valetkey/2fa-ldap.password", password))
		member := false
		return &site{"bob", page.Snippet(t, "valetkeyd.toml", "/usr/lib/valetkey/valetkey-2fa-ldap", harness.Program(t, "valetkey-2fa-ldap"), "/etc/valetkey/2fa-ldap.toml", config) +
			"timeout = \"5s\"\n" + patient, "no_rule_holds", func(t *testing.T, yes bool) {
			if yes == member {
				return
			}
			member = yes
			change := "delete"
			if yes {
				change = "add"
			}
			first.Modify(t, fmt.Sprintf("dn: cn=mfa,ou=groups,%s\nchangetype: modify\n%s: member\nmember: cn=Bob,ou=people,%s\n", harness.BaseDN, change, harness.BaseDN))
		}}
	})
	run("sql", func(t *testing.T) *site {
		page := harness.ReadPage(t, "../enrolment-sql")
		portalURL, name := cluster.Database(t)
		cluster.Exec(t, name, portal+page.Snippet(t, "grant.sql", "choose one", "canary-password", "valetkey_2fa", "valetkey_2fa_daemon"))
		socket, err := url.Parse(portalURL)
		if err != nil {
			t.Fatal(err)
		}
		config := write(t, "2fa-sql.toml", page.Snippet(t, "2fa-sql.toml boolean", "@db.example.org/portal?sslmode=verify-full", "@/"+name+"?"+socket.RawQuery,
			"/etc/valetkey/2fa-sql.password", write(t, "password", "canary-password\n"), "valetkey_2fa@", "valetkey_2fa_daemon@"))
		return &site{"bob", page.Snippet(t, "valetkeyd.toml", "/usr/lib/valetkey/valetkey-2fa-sql", harness.Program(t, "valetkey-2fa-sql"), "/etc/valetkey/2fa-sql.toml", config) +
			"timeout = \"5s\"\n" + patient, "false", func(t *testing.T, yes bool) {
			at := "NULL"
			if yes {
				at = "now()"
			}
			cluster.Exec(t, name, "UPDATE portal_users SET totp_confirmed_at = "+at+" WHERE login = 'bob'")
		}}
	})
	run("http", func(t *testing.T) *site {
		page, s := harness.ReadPage(t, "../enrolment-http"), newService(t)
		config := write(t, "2fa-http.toml", s.config(t, "own", "portal.example.org", "/etc/valetkey/2fa-http.token", "canary-own"))
		return &site{"walter", page.Snippet(t, "valetkeyd.toml", "/usr/lib/valetkey/valetkey-2fa-http", harness.Program(t, "valetkey-2fa-http"), "/etc/valetkey/2fa-http.toml", config) + patient,
			"no_match", func(_ *testing.T, yes bool) { s.enrolled.Store(yes) }}
	})
	run("python", func(t *testing.T) *site {
		page, folder := harness.ReadPage(t, "../plugin-authors"), harness.Dir(t)
		program, err := filepath.Abs("../../docs/examples/valetkey-2fa-example.py")
		if err != nil {
			t.Fatal(err)
		}
		return &site{"alice", page.Snippet(t, "valetkeyd.toml python", "/usr/local/lib/valetkey/valetkey-2fa-example.py", program, "/var/lib/portal/enrolled", folder) +
			"timeout = \"5s\"\nstart_timeout = \"30s\"\n" + patient, "no_file", func(t *testing.T, yes bool) { touch(t, filepath.Join(folder, "alice"), yes) }}
	})
}
