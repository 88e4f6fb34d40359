package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/valetkey/valetkey/internal/plugincmd"
)

func TestConfig(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const base = "base = \"dc=example,dc=org\"\n"
	const server = "urls = [\"ldaps://ldap.example.org\"]\n" + base
	const rule = "[[enrolled]]\nattribute = \"oathSecret\"\n"
	for _, tt := range []struct{ name, text, want string }{ // want empty: good
		{"good", server + rule, ""},
		{"bound", server + "bind_dn = \"cn=x\"\nbind_password_file = \"" + password + "\"\n" + rule, ""},
		{"loopback", "urls = [\"ldap://127.0.0.1:3389\", \"ldap://[::1]\", \"ldap://localhost/\"]\n" + base + rule, ""},
		{"an option, an OID", server + "[[enrolled]]\nattribute = \"mfa;lang-en\"\n[[enrolled]]\nattribute = \"1.2.3\"", ""},
		{"no servers", base + rule, "urls: it is missing"},
		{"no URL", "urls = [\"ldap.example.org\"]\n" + base + rule, "is not ldap://HOST:PORT"},
		{"a search in the URL", "urls = [\"ldaps://h/dc=example\"]\n" + base + rule, "is not ldap://HOST:PORT"},
		{"clear", "urls = [\"ldap://ldap.example.org\"]\n" + base + rule, "would travel in clear; write ldaps:// or set starttls = true"},
		{"clear and allowed", "urls = [\"ldap://ldap.example.org\"]\nallow_plaintext = true\n" + base + rule, ""},
		{"StartTLS", "urls = [\"ldap://ldap.example.org\"]\nstarttls = true\n" + base + rule, ""},
		{"TLS twice", server + "starttls = true\n" + rule, "leave starttls out"},
		{"half an account", server + "bind_dn = \"cn=x\"\n" + rule, "bind_dn: it goes with bind_password_file"},
		{"no base", "urls = [\"ldaps://h\"]\n" + rule, "base: \"\" is not the DN"},
		{"bad base", "urls = [\"ldaps://h\"]\nbase = \"people\"\n" + rule, "base: \"people\" is not the DN"},
		{"bad filter", server + "filter = \"(uid={login}\"\n" + rule, "filter: \"(uid={login}\" is not a filter"},
		{"filter of all", server + "filter = \"(uid=*)\"\n" + rule, "filter: it has neither {login} nor {name}"},
		{"unknown variable", server + "filter = \"(uid={user})\"\n" + rule, "{user}"},
		{"no rules", server, "enrolled: it is missing"},
		{"exempt alone", server + "[[exempt]]\nobject_class = \"device\"", "enrolled: it is missing"},
		{"empty rule", server + "[[enrolled]]\nreason = \"x\"", "enrolled[1]: give one of attribute"},
		{"two in one", server + rule + "group = \"cn=x\"", "enrolled[1]: give one of"},
		{"all attributes", server + "[[enrolled]]\nattribute = \"*\"", `enrolled[1].attribute: "*" is not the name`},
		{"bad group", server + "[[enrolled]]\ngroup = \"mfa\"", `enrolled[1].group: "mfa" is not the DN`},
		{"values of a group", server + "[[enrolled]]\ngroup = \"cn=x\"\nvalues = [\"y\"]", "enrolled[1].values: it belongs to attribute"},
		{"no values", server + rule + "values = []", "enrolled[1].values"},
		{"member of an attribute", server + rule + "member_attribute = \"member\"", "enrolled[1].member_attribute: it belongs to group"},
		{"bad rule filter", server + rule + "[[exempt]]\nfilter = \"x\"", `exempt[1].filter: "x" is not a filter`},
		{"bad reason", server + rule + "reason = \"Has TOTP\"", "enrolled[1].reason: the reason code"},
	} {
		var c config
		if _, err := toml.Decode(tt.text, &c); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var f plugincmd.Faults
		c.open(&f)
		all := strings.Join(f, "\n")
		if (all != "") != (tt.want != "") || !strings.Contains(all, tt.want) || strings.Contains(all, "canary") {
			t.Errorf("%s: %q, want %q", tt.name, all, tt.want)
		}
	}
}

// Which servers are asked, in which order, as they fail and time passes.
func TestOrder(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	a, b := &server{name: "a", addr: "127.0.0.1:1"}, &server{name: "b", addr: "127.0.0.1:1"}
	d := &directory{servers: []*server{a, b}, now: func() time.Time { return at }, slots: make(chan struct{}, 1)}
	a.probing, b.probing = true, true // nothing is asked here
	want := func(when, names string) {
		t.Helper()
		got := ""
		for _, s := range d.order() {
			got += s.name
		}
		if got != names {
			t.Errorf("%s: order = %q, want %q", when, got, names)
		}
	}
	want("at the start", "ab")
	d.note(a, &linkError{errors.New("down")})
	want("with a down", "b")
	at = at.Add(time.Hour)
	want("an hour later, until it was seen to answer", "b")
	d.note(b, &linkError{errors.New("down")})
	want("with both down", "ab")
	d.note(a, nil)
	want("with a back", "a")
	d.note(b, nil)
	want("with both back", "ab")
	d.note(a, errAccount)
	d.note(b, errAccount)
	want("when both refuse the account", "")
	if err := d.do(t.Context(), nil); !errors.Is(err, errAccount) {
		t.Errorf("do = %v, want no attempt and the refusal", err)
	}
	at = at.Add(refusedTime)
	want("after a while", "ab")

	for i, most := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		d.note(a, &linkError{errors.New("down")})
		if got := a.retryAt.Sub(at); got != most*time.Second {
			t.Errorf("after %d failures it is tried again in %v, want %v", i+1, got, most*time.Second)
		}
	}
}
