package interop_test

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/lib/pq" // the driver "postgres"

	"github.com/valetkey/valetkey/test/harness"
)

// old is a password that somebody had in another system.
type old struct{ login, password string }

// report is what valetkey import --json prints, as far as it matters here.
type report struct {
	Applied  bool
	Accounts struct{ Added, Changed, There int }
	Apps     struct{ Added, There int } `json:"app_passwords"`
	Unsalted int
	Skipped  []struct{ Ref, Login, Label, Why string }
}

// TestImports takes the users of other systems over from what those systems' own schemas, hash functions and export tools make, and
// logs everybody in with the old password: through Postfix and over LDAP, before and after the hash was replaced by ours.
//
// It would catch: a column of a schema or an escape of a dump that is read wrongly, a notation of a hash that is not understood or
// verified wrongly, an import that is not the same the second time, a replacement that does not happen, one that hashes something
// else than the password, or one that delays or fails a login.
func TestImports(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tables := harness.NewTables(t)
	dir := harness.Dir(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(t *testing.T, args ...string) report {
		t.Helper()
		var r report
		out := d.Must(t, append(append([]string{"import"}, args...), "--json")...)
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("valetkey import: %v\n%s", err, out)
		}
		return r
	}
	// The dry run, the import, and the import again. It returns what was left out.
	imports := func(t *testing.T, accounts, passwords int, args ...string) []string {
		t.Helper()
		dry := run(t, args...)
		done := run(t, append(args, "--apply")...)
		again := run(t, append(args, "--apply")...)
		if dry.Accounts != done.Accounts || dry.Apps != done.Apps || dry.Applied || !done.Applied {
			t.Errorf("the dry run said %+v, the import %+v", dry, done)
		}
		if done.Accounts.Added != accounts || done.Apps.Added != passwords {
			t.Errorf("imported %+v and %+v, want %d accounts and %d app passwords; skipped: %v", done.Accounts, done.Apps, accounts, passwords, done.Skipped)
		}
		if again.Accounts.Added+again.Accounts.Changed+again.Apps.Added > 0 || again.Apps.There != passwords {
			t.Errorf("the second import: %+v, %+v, want nothing new and %d there", again.Accounts, again.Apps, passwords)
		}
		var skipped []string
		for _, s := range done.Skipped {
			skipped = append(skipped, s.Login+" "+s.Label+": "+s.Why)
		}
		return skipped
	}
	contains := func(t *testing.T, skipped []string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !slices.ContainsFunc(skipped, func(s string) bool { return strings.Contains(s, text) }) {
				t.Errorf("nothing was left out as %q: %q", text, skipped)
			}
		}
	}
	var everybody []old
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }

	t.Run("mailcow", func(t *testing.T) {
		// The columns of data/web/inc/init_db.inc.php that matter, and neighbours of theirs.
		tables.Query(t, "", `CREATE DATABASE mailcow;
			USE mailcow;
			CREATE TABLE mailbox (username VARCHAR(255) NOT NULL PRIMARY KEY, password VARCHAR(255) NOT NULL, name VARCHAR(255), description VARCHAR(255),
				mailbox_path_prefix VARCHAR(150) DEFAULT '/var/vmail/', quota BIGINT(20) NOT NULL DEFAULT 102400, local_part VARCHAR(255) NOT NULL,
				domain VARCHAR(255) NOT NULL, attributes JSON, custom_attributes JSON NOT NULL DEFAULT ('{}'), kind VARCHAR(100) NOT NULL DEFAULT '',
				multiple_bookings INT NOT NULL DEFAULT -1, authsource ENUM('mailcow','keycloak','generic-oidc','ldap') DEFAULT 'mailcow',
				created DATETIME(0) NOT NULL DEFAULT NOW(0), modified DATETIME ON UPDATE CURRENT_TIMESTAMP, active TINYINT(1) NOT NULL DEFAULT 1);
			CREATE TABLE app_passwd (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(255) NOT NULL, mailbox VARCHAR(255) NOT NULL,
				domain VARCHAR(255) NOT NULL, password VARCHAR(255) NOT NULL, created DATETIME(0) NOT NULL DEFAULT NOW(0),
				modified DATETIME ON UPDATE CURRENT_TIMESTAMP, imap_access TINYINT(1) NOT NULL DEFAULT 1, smtp_access TINYINT(1) NOT NULL DEFAULT 1,
				dav_access TINYINT(1) NOT NULL DEFAULT 1, eas_access TINYINT(1) NOT NULL DEFAULT 1, pop3_access TINYINT(1) NOT NULL DEFAULT 1,
				sieve_access TINYINT(1) NOT NULL DEFAULT 1, active TINYINT(1) NOT NULL DEFAULT 1);
			CREATE TABLE quarantine (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, msg LONGTEXT);
			INSERT INTO quarantine (msg) VALUES (REPEAT('it''s \\ "spam"; ', 20000));`)
		var insert strings.Builder
		add := func(login, label, hash, flags string) {
			fmt.Fprintf(&insert, "INSERT INTO app_passwd (name, mailbox, domain, password, imap_access, smtp_access, dav_access, eas_access, pop3_access, sieve_access, active) VALUES (%s, %s, 'mc.example', %s, %s);\n",
				quote(label), quote(login), quote(hash), flags)
		}
		for i, hash := range []string{ // functions.inc.php, hash_password
			`"{BLF-CRYPT}" . password_hash($p, PASSWORD_BCRYPT, ["cost" => 5])`,
			`"{SSHA}" . base64_encode(hash("sha1", $p . ($s = bin2hex(random_bytes(8))), true) . $s)`,
			`"{SSHA256}" . base64_encode(hash("sha256", $p . ($s = bin2hex(random_bytes(8))), true) . $s)`,
			`"{SSHA512}" . base64_encode(hash("sha512", $p . ($s = bin2hex(random_bytes(8))), true) . $s)`,
		} {
			o := old{fmt.Sprintf("mc%d@mc.example", i), fmt.Sprintf("mailcow's %d ⚿", i)}
			add(o.login, "Thunderbird", harness.PHPHash(t, hash, o.password), "1,1,1,1,1,1,1")
			everybody = append(everybody, o)
		}
		o := old{"mc0@mc.example", "second; '); -- \\"}
		add(o.login, "thunderbird", harness.DoveadmHash(t, "PBKDF2", o.password), "0,1,0,0,0,0,1")
		everybody = append(everybody, o)
		add("mc1@mc.example", "gone", "{BLF-CRYPT}x", "1,1,1,1,1,1,0")
		insert.WriteString(`INSERT INTO mailbox (username, password, name, local_part, domain, quota) VALUES ('mc0@mc.example', '{BLF-CRYPT}$2y$', 'Zoë O''Hara', 'mc0', 'mc.example', 5368709120);
			INSERT INTO mailbox (username, password, name, local_part, domain, kind) VALUES ('room@mc.example', 'x', 'Room', 'room', 'mc.example', 'location');`)
		tables.Query(t, "mailcow", insert.String())
		skipped := imports(t, 4, 5, "mailcow", file("mailcow.sql", tables.Dump(t, "mailcow")))
		contains(t, skipped, "mc1@mc.example gone: it is not active", "room@mc.example : it is a resource")
		tsv := run(t, "mailcow", file("mailcow.tsv", tables.Query(t, "mailcow", "SELECT * FROM app_passwd")), "--apply")
		if tsv.Apps.Added != 0 || tsv.Apps.There != 5 {
			t.Errorf("the same by mariadb --batch: %+v, want 5 there", tsv.Apps)
		}
		shown := d.Must(t, "account", "show", "mc0@mc.example")
		for _, want := range []string{"Zoë O'Hara", "mc0@mc.example", "5368709120"} {
			if !strings.Contains(shown, want) {
				t.Errorf("the account has no %q:\n%s", want, shown)
			}
		}
		if list := d.Must(t, "list", "mc0@mc.example"); !strings.Contains(list, "thunderbird (2)") {
			t.Errorf("the second label is not made unique:\n%s", list)
		}
	})

	t.Run("postfixadmin", func(t *testing.T) {
		tables.Query(t, "", `CREATE DATABASE pfa;
			USE pfa;
			CREATE TABLE mailbox (username varchar(255) NOT NULL, password varchar(255) NOT NULL, name varchar(255) NOT NULL, maildir varchar(255) NOT NULL,
				quota bigint(20) NOT NULL default 0, local_part varchar(255) NOT NULL, domain varchar(255) NOT NULL, created datetime NOT NULL default '2000-01-01 00:00:00',
				modified datetime NOT NULL default '2000-01-01 00:00:00', active tinyint(1) NOT NULL default 1, smtp_active tinyint(1) NOT NULL default 1, PRIMARY KEY (username));
			CREATE TABLE alias (address varchar(255) NOT NULL, goto text NOT NULL, domain varchar(255) NOT NULL, active tinyint(1) NOT NULL default 1, PRIMARY KEY (address));`)
		var insert strings.Builder
		for i, hash := range []string{
			`password_hash($p, PASSWORD_BCRYPT, ["cost" => 5])`,         // php_crypt:BLOWFISH
			`crypt($p, '$6$rounds=5000$' . bin2hex(random_bytes(8)))`,   // php_crypt:SHA512
			`crypt($p, '$5$' . bin2hex(random_bytes(8)))`,               // php_crypt:SHA256
			`"{SHA512-CRYPT.B64}" . base64_encode(crypt($p, '$6$abc'))`, // sha512.b64
		} {
			o := old{fmt.Sprintf("pfa%d@pfa.example", i), fmt.Sprintf("PostfixAdmin %d", i)}
			fmt.Fprintf(&insert, "INSERT INTO mailbox (username, password, name, maildir, local_part, domain) VALUES ('%s', %s, 'P %d', 'x/', 'x', 'pfa.example');\n",
				o.login, quote(harness.PHPHash(t, hash, o.password)), i)
			fmt.Fprintf(&insert, "INSERT INTO alias (address, goto, domain) VALUES ('%s', '%s', 'pfa.example');\n", o.login, o.login)
			everybody = append(everybody, o)
		}
		insert.WriteString(`INSERT INTO mailbox (username, password, name, maildir, local_part, domain) VALUES ('md5@pfa.example', '$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/', '', 'x/', 'x', 'pfa.example');
			INSERT INTO alias (address, goto, domain) VALUES ('sales@pfa.example', 'pfa0@pfa.example', 'pfa.example'), ('all@pfa.example', 'pfa0@pfa.example,pfa1@pfa.example', 'pfa.example'),
				('@pfa.example', 'pfa1@pfa.example', 'pfa.example');`)
		tables.Query(t, "pfa", insert.String())
		skipped := imports(t, 5, 4, "postfixadmin", file("pfa.sql", tables.Dump(t, "pfa", "--compact", "--complete-insert")))
		contains(t, skipped, "md5@pfa.example imported password: its hash cannot be taken over: MD5-crypt", "all@pfa.example", "@pfa.example : an alias for a whole domain")
		everybody = append(everybody, old{"sales@pfa.example", "PostfixAdmin 0"})
	})

	t.Run("dovecot", func(t *testing.T) {
		var lines strings.Builder
		lines.WriteString("# users\n")
		n := 0
		for _, scheme := range []string{"PBKDF2", "SHA256", "SHA512", "SSHA", "SSHA256", "SSHA512", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "ARGON2ID",
			"ARGON2I", "CRYPT", "PLAIN", "CLEARTEXT", "SSHA256.HEX", "SHA256.HEX", "PBKDF2.HEX", "PLAIN.B64"} {
			o := old{fmt.Sprintf("dov%d", n), "doveadm's " + scheme}
			fmt.Fprintf(&lines, "%s:%s:1000:1000:D %d,,:/home/%s:/bin/sh:userdb_quota_rule=*:storage=5G allow_nets=127.0.0.0/8,::1\n", o.login,
				harness.DoveadmHash(t, scheme, o.password), n, o.login)
			everybody = append(everybody, o)
			n++
		}
		refused := []string{"SHA", "SHA1", "MD5", "MD5-CRYPT", "SMD5", "PLAIN-MD4", "PLAIN-MD5", "LDAP-MD5", "CRAM-MD5", "HMAC-MD5", "DES-CRYPT", "SCRAM-SHA-1", "SCRAM-SHA-256", "OTP", "PLAIN-TRUNC"}
		for i, scheme := range refused {
			fmt.Fprintf(&lines, "bad%d:%s::::::\n", i, harness.DoveadmHash(t, scheme, "x"))
		}
		skipped := imports(t, n+len(refused), n, "dovecot", file("users", lines.String()))
		if len(skipped) != len(refused) {
			t.Errorf("%d passwords were left out, want %d: %q", len(skipped), len(refused), skipped)
		}
		if shown := d.Must(t, "account", "show", "dov0"); !strings.Contains(shown, "/home/dov0") || !strings.Contains(shown, "5G") {
			t.Errorf("the userdb fields are not there:\n%s", shown)
		}
	})

	t.Run("glauth", func(t *testing.T) {
		sha := func(p string) string { s := sha256.Sum256([]byte(p)); return hex.EncodeToString(s[:]) } // sha256sum
		bcrypt := func(p string) string { return hex.EncodeToString([]byte(harness.HtpasswdHash(t, p))) }
		config := fmt.Sprintf(`[backend]
  datastore = "config"
  baseDN = "dc=glauth,dc=com"
[[users]]
  name = "glen"
  givenname = "Glen"
  sn = "Auth"
  mail = "glen@gl.example"
  uidnumber = 5001
  primarygroup = 5501
  passSHA256 = %q
  passAppSHA256 = [%q, %q]
  passAppBcrypt = [%q]
[[users]]
  name = "otto"
  primarygroup = 5502
  passsha256 = %q
  otpsecret = "3hnvnk4ycv44glzigd6s25j4dougs3rk"
[[groups]]
  name = "glheroes"
  gidnumber = 5501
[[groups]]
  name = "glvpn"
  gidnumber = 5503
  includegroups = [5501]
`, sha("glen's main"), sha("app one"), sha("app two"), bcrypt("app three"), sha("x"))
		skipped := imports(t, 2, 4, "glauth", file("glauth.cfg", config), "--main-passwords")
		contains(t, skipped, "otto imported password: the main password opens nothing there without")
		for _, p := range []string{"glen's main", "app one", "app two", "app three"} {
			everybody = append(everybody, old{"glen", p})
		}
		if shown := d.Must(t, "group", "show", "glvpn"); !strings.Contains(shown, "glen") {
			t.Errorf("an included group's member is not in the including one:\n%s", shown)
		}
	})

	t.Run("ap4rc", func(t *testing.T) {
		o := old{"ap@ap.example", `64 characters of: '.,!?(){}[]\/*^+%@-`}
		everybody = append(everybody, o, old{"ap@ap.example@phone", o.password})
		statements := fmt.Sprintf(`CREATE TABLE application_passwords (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, application VARCHAR(128) NOT NULL, username VARCHAR(128) NOT NULL,
			password VARCHAR(255) NOT NULL, created DATETIME NOT NULL DEFAULT (datetime('now')), UNIQUE (username, application));
			INSERT INTO application_passwords (application, username, password) VALUES ('phone', '%s', '%s');
			INSERT INTO application_passwords (application, username, password, created) VALUES ('old', '%s', '%s', '2020-01-01 00:00:00');`,
			o.login, harness.PHPHash(t, `hash("sha512", $p)`, o.password), o.login, strings.Repeat("ab", 64))
		code, dump, errOut := harness.Run(t, statements+"\n.dump\n", exec.Command("sqlite3", ":memory:"))
		if code != 0 {
			t.Fatalf("sqlite3: %s", errOut)
		}
		skipped := imports(t, 1, 1, "ap4rc", file("ap4rc.sql", dump), "--expire-after", "60d", "--app-logins")
		contains(t, skipped, "ap@ap.example old: it expired at 2020-03-01")
	})

	t.Run("csv", func(t *testing.T) {
		text := "login,label,hash,services,name,mail\n"
		for i, handler := range []string{"pbkdf2_sha256", "pbkdf2_sha512", "pbkdf2_sha1", "ldap_pbkdf2_sha256", "sha512_crypt", "ldap_salted_sha1"} {
			o := old{"csv" + fmt.Sprint(i), "passlib's: " + handler}
			text += fmt.Sprintf("%s,all mine,%s,,\"C, %d\",c%d@csv.example\n", o.login, strings.Replace(harness.PasslibHash(t, handler, o.password), ",", `","`, 1), i, i)
			everybody = append(everybody, o)
		}
		imports(t, 6, 6, "csv", file("users.csv", text))
	})
	if t.Failed() {
		return
	}

	smtp := &harness.SMTPService{SASLPath: "unix:" + d.DovecotUnix}
	harness.NewMailer(t, smtp)
	overLDAP := func(o old) bool { return !strings.HasPrefix(o.login, "mc") } // mailcow's are limited to mail
	auth := func(t *testing.T, login, password string) harness.SMTPReply {
		t.Helper()
		s := harness.DialSMTP(t, smtp.Addr)
		defer s.Close()
		return s.Auth(t, harness.PlainInitial, login, password)
	}
	logins := func(t *testing.T) {
		t.Helper()
		for _, o := range everybody {
			if got := auth(t, o.login, o.password); got.Code != 235 {
				t.Errorf("%s with %q over Postfix: %d %s, want 235", o.login, o.password, got.Code, got.Text)
			}
			if got := auth(t, o.login, o.password+"x"); got.Code != 535 {
				t.Errorf("%s with a wrong password over Postfix: %d %s, want 535", o.login, got.Code, got.Text)
			}
			code, _, errOut := harness.LDAPTool(t, "ldapwhoami", d.LDAP, harness.UserDN(o.login), o.password)
			if want := map[bool]int{true: 0, false: 49}[overLDAP(o)]; code != want {
				t.Errorf("%s with %q over LDAP: %d %s, want %d", o.login, o.password, code, errOut, want)
			}
		}
	}
	t.Run("logins with the old hashes", logins)
	t.Run("hashes are replaced", func(t *testing.T) {
		var waiting int
		if !harness.Poll(harness.Patience, func() bool {
			if err := db.QueryRow(`SELECT count(*) FROM app_passwords WHERE origin = 'imported' AND (upgraded_at IS NULL OR phc NOT LIKE '$argon2id$%')`).Scan(&waiting); err != nil {
				t.Fatal(err)
			}
			return waiting == 0
		}) {
			t.Errorf("%d imported hashes were not replaced by ours", waiting)
		}
		var tags int
		if err := db.QueryRow(`SELECT count(*) FROM app_passwords WHERE tag IS NOT NULL`).Scan(&tags); err != nil || tags != 0 {
			t.Errorf("%d imported app passwords have a tag (%v), want none", tags, err)
		}
	})
	d.Stop(t) // nothing is remembered
	d.Start(t)
	t.Run("logins with the new hashes", logins)
	t.Run("secrecy", func(t *testing.T) {
		logs := d.AllLogs()
		for _, o := range everybody {
			if strings.Contains(logs, o.password) {
				t.Errorf("the log has the password %q", o.password)
			}
		}
		if strings.Contains(logs, "$2y$") || strings.Contains(logs, "$argon2") {
			t.Error("the log has a hash")
		}
	})
}
