package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
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
		"a new certificate is bad":  {admin.Status{Listeners: []admin.Listener{{Name: "ldap[1]", Address: "tcp:x", TLS: &admin.TLS{Error: "the key is another's"}}}}, "ldap[1] wrong the key is another's"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &doctor{app: &app{}, status: &tc.status}
			d.database(t.Context())
			d.pepper()
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
