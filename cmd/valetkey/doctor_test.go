package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/config"
)

func TestBarred(t *testing.T) {
	base := t.TempDir()
	mail := filepath.Join(base, "mail")
	if err := os.MkdirAll(filepath.Join(mail, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := base; dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) { // t.TempDir's are for their owner only
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	gid := int64(os.Getgid())
	uid := int64(os.Getuid())
	path := filepath.Join(mail, "run", "s")
	for name, tc := range map[string]struct {
		mode os.FileMode
		who  identity
		want string
	}{
		"everybody, open":                       {0o711, identity{"", -1, -1}, ""},
		"everybody, closed":                     {0o770, identity{"", -1, -1}, mail},
		"its group":                             {0o710, identity{"", -1, gid}, ""},
		"its group, which may not":              {0o701, identity{"", -1, gid}, mail},
		"its owner":                             {0o700, identity{"", uid, -1}, ""},
		"its owner, who may not though all may": {0o011, identity{"", uid, -1}, mail},
		"another group":                         {0o710, identity{"", -1, gid + 1}, mail},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.Chmod(mail, tc.mode); err != nil {
				t.Fatal(err)
			}
			got, err := tc.who.barred(path)
			if err != nil && os.Getuid() == 0 || got != tc.want && err == nil {
				t.Errorf("barred = %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	os.Chmod(mail, 0o755)
}

func TestDoctorOfStates(t *testing.T) {
	for name, tc := range map[string]struct {
		status admin.Status
		want   string // check, state and a part of the text
	}{
		"the database is down":      {admin.Status{Database: admin.Database{Error: "it does not answer"}}, "database wrong it does not answer"},
		"an old schema":             {admin.Status{Database: admin.Database{Reachable: true, Schema: 3, Target: 4}}, "database wrong schema 3 instead of 4"},
		"a newer schema":            {admin.Status{Database: admin.Database{Reachable: true, Schema: 5, Target: 4}}, "database warning schema 5"},
		"all is well":               {admin.Status{Database: admin.Database{Reachable: true, Schema: 4, Target: 4, Clock: "-12ms"}}, "clock ok agrees"},
		"the clocks differ":         {admin.Status{Database: admin.Database{Reachable: true, Schema: 4, Target: 4, Clock: "-1m3s"}}, "clock wrong -1m3s"},
		"a pepper is missing":       {admin.Status{Unknown: []string{"0badcafe"}}, "pepper warning 0badcafe"},
		"a certificate has expired": {admin.Status{Listeners: []admin.Listener{{Name: "ldap[1]", Address: "tcp:x", TLS: &admin.TLS{Expired: true}}}}, "ldap[1] wrong EXPIRED"},
		"a certificate expires":     {admin.Status{Listeners: []admin.Listener{{Name: "ldap[1]", Address: "tcp:x", TLS: &admin.TLS{ExpiresSoon: true, Until: time.Now()}}}}, "ldap[1] warning EXPIRES SOON"},
		"a group is missing": {admin.Status{Listeners: []admin.Listener{{Name: "ldap[1]", Address: "tcp:x",
			Applications: []admin.Application{{Name: "wiki", Group: "wiki-users", GroupMissing: true}}}}}, "ldap[1] wrong no group wiki-users"},
		"a new certificate is bad": {admin.Status{Listeners: []admin.Listener{{Name: "ldap[1]", Address: "tcp:x", TLS: &admin.TLS{Error: "the key is another's"}}}}, "ldap[1] wrong the key is another's"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &doctor{app: &app{}, status: &tc.status}
			d.database(t.Context())
			d.pepper()
			d.applications()
			d.certificates()
			want := strings.SplitN(tc.want, " ", 3)
			for _, f := range d.findings {
				if f.Check == want[0] && f.State == want[1] && strings.Contains(f.Text, want[2]) {
					return
				}
			}
			t.Errorf("findings %+v, want %q", d.findings, tc.want)
		})
	}
}

// What the configuration says by itself, and beside the daemon's state.
func TestDoctorOfConfiguration(t *testing.T) {
	on := config.Throttle{Enabled: true}
	unit := config.Socket{Listen: config.Address{Network: "systemd", Address: "vk-ldap"}}
	for name, tc := range map[string]struct {
		cfg    config.Config
		status admin.Status
		want   string // check, state and a part of the text; empty: nothing is amiss
	}{
		"all is well":                  {config.Config{Throttle: on}, admin.Status{}, ""},
		"guessing is free":             {config.Config{}, admin.Status{}, "throttle warning off"},
		"free for half the world":      {config.Config{Throttle: config.Throttle{Enabled: true, Trusted: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1")}}}, admin.Status{}, "throttle warning 0.0.0.0/1"},
		"free for a private network":   {config.Config{Throttle: config.Throttle{Enabled: true, Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}, admin.Status{}, ""},
		"systemd's socket is there":    {config.Config{Throttle: on, LDAP: []config.LDAP{{Socket: unit}}}, admin.Status{Listeners: []admin.Listener{{Name: "ldap[1]", Systemd: "vk-ldap"}}}, ""},
		"systemd's socket is another":  {config.Config{Throttle: on, LDAP: []config.LDAP{{Socket: unit}}}, admin.Status{Listeners: []admin.Listener{{Name: "ldap[1]", Systemd: "ldap"}}}, "configuration wrong named vk-ldap, on which ldap[1]"},
		"the command line moved it":    {config.Config{Throttle: on, LDAP: []config.LDAP{{Socket: config.Socket{Listen: config.Address{Network: "tcp", Address: "127.0.0.1:3389"}}}}}, admin.Status{Implied: true}, ""},
		"it is in the file and not up": {config.Config{Throttle: on, LDAP: []config.LDAP{{Socket: config.Socket{Listen: config.Address{Network: "tcp", Address: "127.0.0.1:3389"}}}}}, admin.Status{}, "configuration wrong tcp:127.0.0.1:3389"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &doctor{app: &app{}, cfg: &tc.cfg, status: &tc.status}
			d.sameConfiguration()
			d.throttle()
			var amiss []finding
			for _, f := range d.findings {
				if f.State != fine {
					amiss = append(amiss, f)
				}
			}
			if tc.want == "" && len(amiss) == 0 {
				return
			}
			want := strings.SplitN(tc.want+"  ", " ", 3)
			if len(amiss) != 1 || amiss[0].Check != want[0] || amiss[0].State != want[1] || !strings.Contains(amiss[0].Text, strings.TrimSpace(want[2])) || amiss[0].Hint == "" {
				t.Errorf("findings %+v, want %q", amiss, tc.want)
			}
		})
	}
}
