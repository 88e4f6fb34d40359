package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/config"
)

// The status says all that a peer's configuration needs, and no secret.
func TestListenerViews(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("hunter2hunter2hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "valetkeyd.toml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(`
[[ldap]]
listen = "127.0.0.1:3390"
base_dn = "dc=example,dc=net"
service = "imap"

[[dovecot]]
listen = "unix:/run/valetkey/postfix"
mode = "0640"
owner = "root"
group = "daemon"

[[dovecot]]
listen = "systemd:postfix"
mode = "0600"

[[checkpassword]]
listen = "unix:/run/valetkey/checkpassword"
lookups = true

[[http]]
listen = "127.0.0.1:8389"
[http.dovecot_grant]
client_id = "dovecot-in"
client_secret_file = "SECRET_FILE"
[http.nginx_mail]
secret_file = "SECRET_FILE"
secret_header = "X-Key"
imap = "127.0.0.1:10143"
[http.basic]
address_header = "X-Real-IP"

[[http]]
listen = "unix:/run/valetkey/http"
[http.basic]
user_header = "X-User"
secret_file = "SECRET_FILE"
`, "SECRET_FILE", secret)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Flags{File: file})
	if err != nil {
		t.Fatal(err)
	}
	var got []admin.Listener
	for _, s := range specs(cfg) {
		got = append(got, s.view)
	}
	want := []admin.Listener{
		{Name: "ldap[1]", FrontEnd: "ldap", BaseDN: "dc=example,dc=net", Service: "imap"},
		{Name: "dovecot[1]", FrontEnd: "dovecot", Mode: "0640", Owner: "root", Group: "daemon"},
		{Name: "dovecot[2]", FrontEnd: "dovecot", Systemd: "postfix"}, // the mode of systemd's socket is not ours
		{Name: "checkpassword[1]", FrontEnd: "checkpassword", Mode: "0660", Lookups: true},
		{Name: "http[1]", FrontEnd: "http", Endpoints: map[string]admin.Endpoint{
			"dovecot_grant": {SecretFile: secret, ClientID: "dovecot-in"},
			"nginx_mail":    {SecretFile: secret, SecretHeader: "X-Key", Backends: map[string]string{"imap": "127.0.0.1:10143"}},
			"basic":         {AddressHeader: "X-Real-IP", UserHeader: "Remote-User"},
		}},
		{Name: "http[2]", FrontEnd: "http", Mode: "0660", Endpoints: map[string]admin.Endpoint{
			"basic": {SecretFile: secret, SecretHeader: "X-Auth-Key", UserHeader: "X-User"},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
	if b, err := json.Marshal(got); err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("the status has the secret, or %v:\n%s", err, b)
	}
}
