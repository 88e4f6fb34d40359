package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUpstream(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	password := file("password", "canary secret\nsecond line\n", 0o600)
	good := map[string]string{
		"urls": `["ldaps://ldap.example.org"]`, "bind_dn": `"cn=x"`, "bind_password_file": fmt.Sprintf("%q", password),
	}
	for _, tt := range []struct{ name, key, value, want string }{
		{"good", "", "", ""},
		{"time", "search_time", `"3s"`, ""},
		{"loopback", "urls", `["ldap://127.0.0.1:389", "ldap://[::1]", "ldap://localhost"]`, ""},
		{"no URL", "urls", "", "upstream.urls: it is missing; write urls"},
		{"bad URL", "urls", `["ldap.example.org"]`, "upstream.urls: \"ldap.example.org\" is not ldap://HOST:PORT"},
		{"plaintext", "urls", `["ldap://ldap.example.org"]`, "would travel in clear; write ldaps:// or set starttls = true"},
		{"TLS twice", "starttls", "true", "upstream.starttls: ldaps://ldap.example.org has TLS"},
		{"no account", "bind_dn", "", "upstream.bind_dn: it is missing"},
		{"no password", "bind_password_file", "", "upstream.bind_password_file: it is missing"},
		{"no such file", "bind_password_file", `"/nonexistent/p"`, "no such file"},
		{"a directory", "bind_password_file", `"/"`, "/ is not a file"},
		{"relative", "bind_password_file", `"p"`, "not an absolute path"},
		{"readable", "bind_password_file", fmt.Sprintf("%q", file("readable", "canary", 0o640)), "lets others read"},
		{"empty", "bind_password_file", fmt.Sprintf("%q", file("empty", "\n", 0o600)), "is empty"},
		{"kind", "kind", `"edirectory"`, "upstream.kind: \"edirectory\" is not"},
		{"not a certificate", "ca_file", fmt.Sprintf("%q", password), "has no certificate in PEM"},
		{"bad time", "search_time", `"1h"`, "upstream.search_time"},
		{"unknown key", "url", `"x"`, "upstream.url: unknown key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "[[ldap]]\n[ldap.upstream]\n"
			for key, value := range good {
				if key != tt.key {
					text += key + " = " + value + "\n"
				}
			}
			if tt.value != "" {
				text += tt.key + " = " + tt.value + "\n"
			}
			c, err := Load(Flags{File: write(t, text)})
			if tt.want == "" {
				if err != nil || c.LDAP[0].Upstream.Password != "canary secret" || tt.key == "search_time" && c.LDAP[0].Upstream.SearchTime != 3*time.Second {
					t.Errorf("Load = %+v, %v", c, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("Load = %v, want %q in it", err, tt.want)
			}
		})
	}
}
