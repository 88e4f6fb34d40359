package interop_test

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestSecrecy plants canaries and looks for them where they must not be (testplan.md section 0, I5): the log, what the
// system shows of the daemon's processes, the database, the answers of the companion command.
//
// It would catch: a request, a URL, a row or a bad password that is logged as a whole, a URL handed on by a flag or the
// environment, a stored secret, a pepper that any user may read.
func TestSecrecy(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, database := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")

	canaries := map[string]string{"database password": harness.DatabasePassword, "main password": mainPassword, "database URL": url}
	plant := func(name, secret string) {
		canaries[name] = secret
		canaries[name+", as stored"] = strings.ReplaceAll(secret, "-", "")
	}
	phone := d.Create(t, "alice", "phone")
	lost := d.Create(t, "alice", "lost phone")
	reader := d.Create(t, "alice", "reader", "--service", "imap")
	plant("app password", phone)
	plant("revoked app password", lost)
	plant("app password of another service", reader)
	plant("never issued", neverIssued)

	life := func() {
		for _, c := range []harness.Client{
			&harness.DovecotClient{Addr: d.DovecotUnix}, &harness.DovecotClient{Addr: d.DovecotTCP, NoLogin: true}, &harness.LDAPClient{Addr: d.LDAP},
		} {
			for _, login := range []string{"alice", "nobody"} {
				for _, password := range []string{phone, lost, reader, neverIssued, mainPassword} {
					c.Login(login, password)
				}
			}
			c.Close()
		}
	}
	var printed strings.Builder
	companion := func(args ...string) {
		_, out, errOut := d.Valetkey(t, "", args...)
		printed.WriteString(out + errOut)
	}
	life()
	d.Revoke(t, "alice", "lost phone")
	life()
	for _, secret := range []string{phone, lost, neverIssued, mainPassword} {
		for _, protocol := range []string{"dovecot", "ldap"} {
			_, out, errOut := d.Valetkey(t, secret+"\n", "try", protocol, "alice")
			printed.WriteString(out + errOut)
		}
	}
	companion("list", "alice")
	companion("list", "alice", "--json")
	companion("account", "show", "alice", "--json")
	companion("status", "--json")
	companion("create", "alice", "phone") // the label is taken
	companion("create", "nobody", "phone")
	d.Process().Signal(syscall.SIGHUP)
	shown := harness.Exposed(d.Process().PID())
	dump := cluster.Dump(t, database)
	cluster.Kill(t)
	life()
	companion("list", "alice")
	companion("status")
	cluster.Start(t)
	harness.WaitFor(t, "a login after Postgres came back", func() bool {
		c := &harness.LDAPClient{Addr: d.LDAP}
		defer c.Close()
		got, _ := c.Login("alice", phone)
		return got == harness.Accepted
	})

	pepperFile := filepath.Join(d.Dir, "pepper")
	pepper, err := os.ReadFile(pepperFile)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(pepperFile); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode of the pepper file is %v (%v), want nothing for group and others", info.Mode(), err)
	}
	for _, word := range strings.FieldsFunc(string(pepper), func(r rune) bool { return strings.ContainsRune(" \t\r\n\":=,", r) }) {
		if len(word) < 16 {
			continue
		}
		canaries["word of the pepper file"] = word
		for _, decode := range []func(string) ([]byte, error){base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString, hex.DecodeString} {
			if raw, err := decode(strings.TrimSpace(word)); err == nil && len(raw) >= 16 {
				canaries["pepper"] = string(raw)
				canaries["pepper in hexadecimal"] = hex.EncodeToString(raw)
				canaries["pepper in base64"] = base64.RawStdEncoding.EncodeToString(raw)
			}
		}
	}
	if _, ok := canaries["word of the pepper file"]; !ok {
		t.Fatal("found nothing in the pepper file that could be a key")
	}
	if !strings.Contains(dump, "$argon2id$") {
		t.Error("the database has no PHC string: the test looks for the wrong thing")
	}

	d.Stop(t)
	places := map[string]string{"the log": d.AllLogs(), "what valetkey printed": printed.String()}
	for path, text := range shown {
		places[path] = text
	}
	if len(d.AuthLines(0)) < 60 {
		t.Errorf("the log has %d lines of attempts: the test looks in the wrong place", len(d.AuthLines(0)))
	}
	for place, text := range places {
		for name, canary := range canaries {
			if strings.Contains(text, canary) {
				t.Errorf("%s holds the %s", place, name)
			}
		}
		for _, sign := range []string{"$argon2", "argon2id$"} {
			if strings.Contains(text, sign) {
				t.Errorf("%s holds a PHC string", place)
			}
		}
	}
	for name, canary := range canaries {
		if strings.Contains(dump, canary) {
			t.Errorf("the database holds the %s", name)
		}
	}
}
