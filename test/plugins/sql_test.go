package plugins_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

const portal = `
CREATE TABLE portal_users (login text PRIMARY KEY, totp_confirmed_at timestamptz, totp_secret text, kind text NOT NULL DEFAULT 'person');
CREATE TABLE portal_devices (login text, confirmed boolean);
INSERT INTO portal_users VALUES ('alice', now(), 'canary-totp-secret', 'person'), ('bob', NULL, NULL, 'person'), ('printer', NULL, NULL, 'printer');
INSERT INTO portal_devices VALUES ('alice', false), ('alice', true), ('bob', false);
`

// TestSQL runs the snippets of the page against Postgres.
//
// It would catch: a login that changes the query, a query that writes, a secret of the table or of the URL in what is printed, a hanging
// server that holds an answer, a plugin that must be started anew.
func TestSQL(t *testing.T) {
	t.Parallel()
	page := harness.ReadPage(t, "../enrolment-sql")
	cluster := harness.NewCluster(t)
	full, name := cluster.Database(t)
	cluster.Exec(t, name, portal+page.Snippet(t, "grant.sql", "choose one", "canary-password"))
	cluster.Exec(t, name, "GRANT SELECT (kind) ON portal_users TO valetkey_2fa; GRANT SELECT, INSERT ON portal_devices TO valetkey_2fa; "+
		"CREATE SEQUENCE portal_sequence; "+
		"CREATE FUNCTION portal_complains(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'canary of %', $1; END $$; GRANT USAGE ON SEQUENCE portal_sequence TO valetkey_2fa")
	socket, err := url.Parse(full)
	if err != nil {
		t.Fatal(err)
	}
	place := "/" + name + "?" + socket.RawQuery
	password := write(t, "password", "canary-password\n")
	snippet := func(name string, more ...string) *program {
		text := page.Snippet(t, "2fa-sql.toml "+name, "@db.example.org/portal?sslmode=verify-full", "@"+place, "/etc/valetkey/2fa-sql.password", password)
		return newProgram(t, "valetkey-2fa-sql", strings.NewReplacer(more...).Replace(text))
	}

	boolean, words := snippet("boolean"), snippet("words")
	boolean.want("alice: enrolled (true)", "bob: not_enrolled (false)", "nobody: account_unknown (no_row)", "'or'1'='1: account_unknown (no_row)")
	words.want("alice: enrolled (value)", "bob: not_enrolled (value)", "printer: exempt (value)", "nobody: account_unknown (no_row)")
	t.Run("boolean", func(t *testing.T) {
		p := *boolean
		p.t = t
		p.suite(enrolled("alice"), notEnrolled("bob"), unknown("nobody"))
	})
	t.Run("words", func(t *testing.T) {
		p := *words
		p.t = t
		p.suite(enrolled("alice"), notEnrolled("bob"), exempt("printer"))
	})

	// The URL with its password in a file.
	file := write(t, "url", "postgres://valetkey_2fa:canary-password@"+place+"\n")
	const query = `SELECT totp_confirmed_at IS NOT NULL FROM portal_users WHERE login = $1`
	newProgram(t, "valetkey-2fa-sql", fmt.Sprintf("url_file = %q\nquery = %q\nno_rows = \"not_enrolled\"\npgbouncer = true\n", file, query)).
		want("alice: enrolled (true)", "bob: not_enrolled (false)", "nobody: not_enrolled (no_row)")

	with := func(query string) *program {
		return snippet("boolean", `"SELECT totp_confirmed_at IS NOT NULL FROM portal_users WHERE login = $1"`, fmt.Sprintf("%q", query))
	}
	with("SELECT NULL::bool WHERE $1 <> ''").want("alice: not_enrolled (null)")
	for _, tt := range []struct{ query, want string }{
		{"SELECT totp_secret FROM portal_users WHERE login = $1", "permission denied"},
		{"SELECT 'canary-' || login FROM portal_users WHERE login = $1", "a text that is not enrolled"},
		{"SELECT count(*) FROM portal_users WHERE login = $1", "hint: compare in the query"},
		{"SELECT confirmed FROM portal_devices WHERE login = $1", "several rows"},
		{"SELECT true, login FROM portal_users WHERE login = $1", "2 columns"},
		{"SELECT true FROM nowhere WHERE login = $1", "hint: correct the query, or GRANT"},
		{"INSERT INTO portal_devices VALUES ($1, true) RETURNING true", "hint: the query tries to write"},
		{"SELECT true FROM portal_users WHERE login = $1::uuid::text", "SQLSTATE 22P02"},
		{"SELECT pg_sleep(60) IS NULL WHERE $1 <> ''", "SQLSTATE 57014"},
		{"SELECT portal_complains($1)", "the database refuses the query (SQLSTATE P0001)"},
		{"SELECT repeat('canary', 50000000) WHERE $1 <> ''", "more than an answer may have"},
		{"SELECT repeat('canary', 1000) FROM generate_series(1, 1000000) WHERE $1 <> ''", "several rows"},
		{"SELECT nextval('portal_sequence') > 0 WHERE $1 <> ''", "hint: the query tries to write"},
	} {
		with(tt.query).fails("alice", tt.want)
	}
	wrong := snippet("boolean", password, write(t, "wrong", "canary-wrong\n"))
	wrong.fails("alice", "hint: check the user in url and password_file")
	snippet("boolean", "host=", "port=1&host=").fails("alice", "hint: check host and port")

	// Faults, seen as the daemon sees them.
	short := snippet("boolean", `query =`, "timeout = \"2s\"\nquery =")
	askPlugin := ask(t, short)
	alice := func(when string) {
		t.Helper()
		var got string
		var err error
		if !harness.Poll(harness.Patience, func() bool {
			got, err = askPlugin("alice")
			return err == nil
		}) {
			t.Fatalf("%s: %v", when, err)
		}
		if got != "enrolled" {
			t.Errorf("%s: alice is %s", when, got)
		}
	}
	alice("at the start")
	thaw := cluster.Freeze(t)
	inTime(t, "with a frozen server", askPlugin)
	thaw()
	alice("after the thaw")
	cluster.Kill(t)
	if got, err := askPlugin("alice"); err == nil {
		t.Errorf("without a server the answer is %s", got)
	}
	cluster.Start(t)
	alice("after a restart")
}
