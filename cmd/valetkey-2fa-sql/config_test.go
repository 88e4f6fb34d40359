package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/valetkey/valetkey/internal/plugincmd"
)

func TestConfig(t *testing.T) {
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	password := write("password", "canary p@ss/word%\n")
	t.Setenv("PGPASSFILE", write("pgpass", "*:*:*:*:canary\n"))
	t.Setenv("PGSSLMODE", "disable")
	const query = "query = \"SELECT true WHERE $1 <> ''\"\n"
	const server = "url = \"postgres://u@db.example.org/portal?sslmode=verify-full\"\n"
	file := func(text string) string { return fmt.Sprintf("url_file = %q\n", write("url", text)) }
	for _, tt := range []struct{ name, text, want string }{ // want empty: good
		{"good", server + query, ""},
		{"password", server + "password_file = \"" + password + "\"\n" + query, ""},
		{"URL in a file", file("postgres://u:canary@h/db?sslmode=disable") + query, ""},
		{"semicolon at the end", server + "query = \"SELECT true WHERE $1 <> '';\"", ""},
		{"no URL", query, "url: give either url, or url_file"},
		{"both", server + file("x") + query, "url: give either"},
		{"password in the open", "url = \"postgres://u:canary@h/db?sslmode=disable\"\n" + query, "url: it has a password, and everybody may read this file"},
		{"password as a parameter", "url = \"postgres://u@h/db?sslmode=disable&password=canary\"\n" + query, "url: it has a password"},
		{"two passwords", file("postgres://u:canary@h/db?sslmode=disable") + "password_file = \"" + password + "\"\n" + query, "keep one of them"},
		{"passfile", "url = \"postgres://u@h/db?sslmode=disable&passfile=/canary\"\n" + query, "name that in password_file"},
		{"no sslmode", "url = \"postgres://u@h/db\"\n" + query, "url: it does not say sslmode"},
		{"keywords", "url = \"host=h password=canary sslmode=disable\"\n" + query, "url: it is not postgres://"},
		{"bad sslmode", "url = \"postgres://u@h/db?sslmode=canary\"\n" + query, "url: the driver does not accept it"},
		{"no query", server, "query: it is missing"},
		{"no parameter", server + "query = \"SELECT true\"", "query: it has no $1"},
		{"other parameter", server + "query = \"SELECT $1 = $2\"", "query: it has another parameter"},
		{"two queries", server + "query = \"SELECT $1; DROP TABLE x\"", "query: it has a semicolon"},
		{"no_rows", server + "no_rows = \"enrolled\"\n" + query, "no_rows: "},
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

	var c config
	if _, err := toml.Decode(server+"password_file = \""+password+"\"\n"+query, &c); err != nil {
		t.Fatal(err)
	}
	got, err := c.database(&plugincmd.Faults{})
	if err != nil || got.Password != "canary p@ss/word%" || got.User != "u" || got.Host != "db.example.org" || got.SSLMode != "verify-full" || got.Passfile != "/dev/null/none" {
		t.Errorf("database = user %q, host %q, sslmode %q, passfile %q, password as in the file: %t, %v",
			got.User, got.Host, got.SSLMode, got.Passfile, got.Password == "canary p@ss/word%", err)
	}
}

func TestMeaning(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  string
	}{
		{true, "enrolled true"}, {false, "not_enrolled false"}, {nil, "not_enrolled null"},
		{"enrolled", "enrolled value"}, {[]byte("exempt"), "exempt value"}, {"not_enrolled", "not_enrolled value"}, {"unknown", "account_unknown value"},
		{"", "error"}, {"Enrolled", "error"}, {"canary", "error"}, {int64(1), "error"}, {1.5, "error"},
	} {
		a, err := meaning(tt.value)
		got := a.Status.String() + " " + a.ReasonCode
		if err != nil {
			got = "error"
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("meaning(%v) = %v", tt.value, err)
			}
		}
		if got != tt.want {
			t.Errorf("meaning(%v) = %q, want %q", tt.value, got, tt.want)
		}
	}
}
