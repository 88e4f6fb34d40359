package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/valetkey/valetkey/internal/plugincmd"
)

func TestConfig(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const step = "\n[[step]]\nurl = \"https://h/{login}\"\n"
	const match = "[[step.match]]\npath = \"x\"\nenrolled = [\"y\"]\n"
	for _, tt := range []struct{ name, text, want string }{ // want empty: good
		{"good", step + match, ""},
		{"on this machine", strings.Replace(step, "https://h", "http://127.0.0.1:8080", 1) + match, ""},
		{"saved", step + "[step.save]\nid = \"id\"\n[[step]]\nurl = \"https://h/{id}\"\n" + match, ""},
		{"all of it", "[oauth2]\ntoken_url = \"https://h/t\"\nclient_id = \"c\"\nclient_secret_file = \"" + secret + "\"\n[[header]]\nname = \"X\"\nvalue = \"y\"" + step + match, ""},
		{"no step", "", "step: write one to 4 requests"},
		{"five", strings.Repeat(step+match, 5), "step: write one to 4"},
		{"no match", step + "[step.save]\nid = \"id\"", "step.match: it is missing"},
		{"no login", "[[step]]\nurl = \"https://h/\"\n" + match, "no request has {login}"},
		{"nothing done", step + match + "[[step]]\nurl = \"https://h/\"", "step[2]: nothing is done"},
		{"clear", strings.Replace(step, "https", "http", 1) + match, "step[1].url: secrets and answers would travel in clear; write https://"},
		{"clear and allowed", "allow_plaintext = true" + strings.Replace(step, "https", "http", 1) + match, ""},
		{"user in the URL", strings.Replace(step, "//h", "//u:canary@h", 1) + match, "step[1].url: it has a user in it; write [basic]"},
		{"variable in the host", strings.Replace(step, "//h", "//{login}", 1) + match, "step[1].url"},
		{"other scheme", strings.Replace(step, "https", "file", 1) + match, "step[1].url: it is not https://"},
		{"fragment", strings.Replace(step, "{login}", "#{login}", 1) + match, "step[1].url: it has a #"},
		{"unknown variable", strings.Replace(step, "{login}", "{login}/{id}", 1) + match, "step[1].url: {id}"},
		{"saved later", strings.Replace(step, "{login}", "{login}/{id}", 1) + match + "[step.save]\nid = \"id\"", "step[1].url: {id}"},
		{"saved twice", step + match + "[step.save]\nlogin = \"id\"", "step[1].save.login: the name is taken"},
		{"bad path", step + strings.Replace(match, `"x"`, `"x["`, 1), "step[1].match[1].path:"},
		{"no values", step + strings.Replace(match, "enrolled", "not_enrolled", 1), "step[1].match[1]: give enrolled or exempt"},
		{"bad reason", step + match + "reason = \"A\"", "reason code"},
		{"method", step + "method = \"PUT\"\n" + match, "neither GET nor POST"},
		{"body of a GET", step + "method = \"GET\"\n[step.form]\na = \"b\"\n" + match, "both belong to POST"},
		{"two bodies", step + "[step.form]\na = \"b\"\n[step.json]\na = \"b\"\n" + match, "exclude each other"},
		{"not_found", step + "not_found = \"no\"\n" + match, "step[1].not_found"},
		{"header without a value", "[[header]]\nname = \"X\"" + step + match, "header[1]: give either"},
		{"odd header", "[[header]]\nname = \"X:\"\nvalue = \"y\"" + step + match, `"X:" is not the name of a header`},
		{"header of two lines", "[[header]]\nname = \"X\"\nvalue = \"a\\nb\"" + step + match, "control characters"},
		{"prefix", "[[header]]\nname = \"X\"\nvalue = \"y\"\nprefix = \"z\"" + step + match, "header[1].prefix"},
		{"two ways in", "[basic]\nuser = \"u\"\npassword_file = \"" + secret + "\"\n[[header]]\nname = \"authorization\"\nvalue = \"y\"" + step + match, "give only one of"},
		{"no password", "[basic]\nuser = \"u\"" + step + match, "basic.password_file: it is missing"},
		{"odd user", "[basic]\nuser = \"u:v\"\npassword_file = \"" + secret + "\"" + step + match, "basic.user"},
		{"no token URL", "[oauth2]\nclient_id = \"c\"\nclient_secret_file = \"" + secret + "\"" + step + match, "oauth2.token_url: it is not https"},
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
