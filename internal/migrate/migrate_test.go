package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// summary is a row for comparison, without what is empty.
func summary(r Row) string {
	s := r.Ref + ": " + r.Login
	if r.Hash == "" {
		r.Key, r.Label, r.Scheme = "", "", ""
	}
	for _, part := range []struct{ name, text string }{
		{"key", r.Key}, {"label", r.Label}, {"hash", r.Hash}, {"scheme", r.Scheme}, {"services", strings.Join(r.Services, ",")},
		{"networks", strings.Join(r.Networks, ",")}, {"name", r.DisplayName}, {"aliases", strings.Join(r.Aliases, ",")}, {"groups", strings.Join(r.Groups, ",")},
	} {
		if part.text != "" {
			s += " " + part.name + "=" + part.text
		}
	}
	if len(r.Attributes) > 0 {
		s += fmt.Sprintf(" attributes=%v", r.Attributes)
	}
	if len(r.Userdb) > 0 {
		s += fmt.Sprintf(" userdb=%v", r.Userdb)
	}
	if !r.CreatedAt.IsZero() {
		s += " created=" + r.CreatedAt.Format(time.RFC3339)
	}
	if !r.ExpiresAt.IsZero() {
		s += " expires=" + r.ExpiresAt.Format(time.RFC3339)
	}
	if r.MustExist {
		s += " must exist"
	}
	return s
}

const appPasswdTable = "CREATE TABLE `app_passwd` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `name` varchar(255) NOT NULL DEFAULT 'a,(b',\n  `mailbox` varchar(255) NOT NULL,\n" +
	"  `password` varchar(255) NOT NULL,\n  `active` tinyint(1) NOT NULL DEFAULT 1,\n  PRIMARY KEY (`id`),\n  KEY `mailbox` (`mailbox`)\n) ENGINE=InnoDB;\n"

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, source, text string
		o                  Options
		want               []string // rows
		skipped            []string // login label: part of why
	}{
		{"mysqldump with its quoting", "mailcow", "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19\n--\nDROP TABLE IF EXISTS `app_passwd`;\n/*!40101 SET character_set_client = utf8 */;\n" + appPasswdTable +
			"INSERT INTO `quarantine` VALUES (1,'app_passwd; \\' VALUES (','--');\n" +
			"INSERT INTO `app_passwd` VALUES (1,'it''s \\\"mine\\\"; -- /* \\\\','a@b','{SSHA}x',1),\n(2,'two','c@d',_binary '{SSHA}y',0);\n-- Dump completed on 2024-01-01\n", Options{},
			[]string{`app_passwd id 1: a@b key=1 label=it's "mine"; -- /* \ hash={SSHA}x services=imap,smtp,submission,dav,eas,pop3,sieve attributes=map[mail:[a@b]]`},
			[]string{"c@d two: it is not active"}},
		{"pg_dump", "ap4rc", "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\nSET statement_timeout = 0;\nCREATE TABLE public.application_passwords (\n    id integer NOT NULL\n);\nCOPY public.users (id, name) FROM stdin;\n1\ta\\tb\n\\.\n\n" +
			"COPY public.application_passwords (id, application, username, password, created, user_id) FROM stdin;\n7\tphone\\tnew\tann\t{SSHA}x\t2024-01-02 03:04:05\t\\N\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n", Options{ExpireAfter: time.Hour},
			[]string{"application_passwords id 7: ann key=7 label=phone new hash={SSHA}x created=2024-01-02T03:04:05Z expires=2024-01-02T04:04:05Z"}, nil},
		{"sqlite3 .dump", "ap4rc", "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE application_passwords (id INTEGER, application VARCHAR(128) NOT NULL, username VARCHAR, password VARCHAR(255) NOT NULL, UNIQUE (username, application));\n" +
			"INSERT INTO application_passwords VALUES(1,'it''s \\','ann','{SSHA}x');\nCOMMIT;\n", Options{AppLogins: true},
			[]string{`application_passwords id 1: ann key=1 label=it's \ hash={SSHA}x aliases=ann@it's \`}, nil},
		{"mysql --batch", "postfixadmin", "username\tpassword\tname\tmaildir\tquota\tactive\tsmtp_active\na@b\t$2y$x\tA\\nB\tx/\t1024\t1\t0\n", Options{},
			[]string{"line 2: a@b key=a@b label=imported password hash=$2y$x services=imap,pop3,sieve name=A\nB attributes=map[mail:[a@b]] userdb=map[quota:1024]"}, nil},
		{"aliases", "postfixadmin", "address,goto,active\nSales@b,\"A@b\",1\na@b,a@b,1\nall@b,\"a@b,c@d\",1\n@b,a@b,1\nold@b,a@b,0\n", Options{},
			[]string{"line 2: a@b aliases=sales@b must exist"}, []string{"all@b : an alias for several", "@b : an alias for a whole domain", "old@b : the alias is not active"}},
		{"passwd-file", "dovecot", "# comment\n\nann:{SSHA}x:1000:1000:Ann A.,Room 1:/home/ann:/bin/sh:userdb_mail=maildir:~/M userdb_quota_rule=*:storage=5g allow_nets=192.0.2.0/24,2001:db8::1 foo\r\nbob:$2y$x\n" +
			"carl::::::\ndora:{SSHA}x::::::nologin\nemil:{SSHA}x::::::allow_nets=local\nshadow:x:1:1::/:\nno colon\n", Options{},
			[]string{"line 3: ann key=ann label=imported password hash={SSHA}x scheme=CRYPT networks=192.0.2.0/24,2001:db8::1 name=Ann A. userdb=map[gid:1000 home:/home/ann mail:maildir:~/M quota:5G uid:1000]",
				"line 4: bob key=bob label=imported password hash=$2y$x scheme=CRYPT", "line 5: carl", "line 6: dora", "line 7: emil", "line 8: shadow userdb=map[gid:1 home:/ uid:1]"},
			[]string{"carl imported password: there is no password", "dora imported password: it has nologin", "emil imported password: its allow_nets", "shadow imported password: the password is in another file", " : it has no colon"}},
		{"csv of a spreadsheet", "csv", "\ufefflogin;label;hash;services;mail;userdb_quota;expires;id\nann;My phone;{SSHA}x;imap smtp;a@b c@d;5G;2099-01-01;\nbob;x;{SSHA}x;;;;soon;\n", Options{},
			[]string{"line 2: ann key=ann/my phone label=My phone hash={SSHA}x services=imap,smtp attributes=map[mail:[a@b c@d]] userdb=map[quota:5G] expires=2099-01-01T00:00:00Z"},
			[]string{"bob x: the time of its expiry"}},
		{"labels that cannot be", "csv", "login,label,hash\nann,\"a\nb\x07 \",x\nann,\x07,x\nann," + strings.Repeat("ä", 70) + ",x\n", Options{},
			[]string{"line 2: ann key=ann/a\nb\a  label=a b hash=x", "line 4: ann key=ann/\a label=imported hash=x", "line 5: ann key=ann/" + strings.Repeat("ä", 70) + " label=" + strings.Repeat("ä", 64) + " hash=x"}, nil},
		{"glauth", "glauth", "[[Users]]\nName = \"ann\"\nprimaryGroup = 1\notherGroups = [2]\npassAppSHA256 = [\"ab\"]\npassappbcrypt = \"243279\"\npassSHA256 = \"cd\"\n[[Users.CustomAttributes]]\nemployeeType = [\"Intern\", 5]\n" +
			"[[users]]\nname = \"off\"\ndisabled = true\n[[groups]]\nname = \"g1\"\ngidnumber = 1\n[[groups]]\nname = \"two words\"\ngidnumber = 2\n[[groups]]\nname = \"g3\"\ngidnumber = 3\nincludegroups = [1]\n", Options{},
			[]string{"users[1]: ann key=ann/passappsha256/1 label=app password 1 hash={SHA256.HEX}ab groups=g1,g3 attributes=map[employeetype:[Intern 5] gidNumber:[1]]",
				"users[1]: ann key=ann/passappbcrypt/1 label=app password b1 hash=$2y groups=g1,g3 attributes=map[employeetype:[Intern 5] gidNumber:[1]]"},
			[]string{"ann : the group \"two words\"", "off : the user is disabled"}},
		{"mailcow's mailboxes", "mailcow", "username,password,name,quota,local_part,active,kind,authsource\na@b,{SSHA}x,A,0,a,1,,mailcow\nb@b,x,B,0,b,1,,keycloak\nc@b,x,C,0,c,2,,mailcow\n", Options{MainPasswords: true},
			[]string{"line 2: a@b key=main:a@b label=imported password hash={SSHA}x name=A attributes=map[mail:[a@b]]", "line 3: b@b name=B attributes=map[mail:[b@b]]"},
			[]string{"b@b imported password: the main password is kept elsewhere", "c@b : the mailbox is not active"}},
		{"an app password for nothing", "mailcow", "id,name,mailbox,password,imap_access,smtp_access,dav_access,eas_access,pop3_access,sieve_access\n1,x,a@b,{SSHA}x,0,0,0,0,0,0\n", Options{}, nil, []string{"a@b x: it opens nothing there"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(tt.source, strings.NewReader(tt.text), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var rows []string
			for _, r := range got.Rows {
				rows = append(rows, summary(r))
			}
			if a, b := strings.Join(rows, "\n"), strings.Join(tt.want, "\n"); a != b {
				t.Errorf("rows:\n%s\nwant\n%s", a, b)
			}
			if len(got.Skipped) != len(tt.skipped) {
				t.Fatalf("skipped %+v, want %q", got.Skipped, tt.skipped)
			}
			for i, want := range tt.skipped {
				if s := got.Skipped[i]; !strings.Contains(s.Login+" "+s.Label+": "+s.Why, want) {
					t.Errorf("skipped %+v, want %q", s, want)
				}
			}
		})
	}
}

// A file that is not what it should be gives no rows, and the error shows nothing of it.
func TestReadRefuses(t *testing.T) {
	const secret = "canary"
	dump := "-- MySQL dump 10.13\n" + appPasswdTable + "INSERT INTO `app_passwd` VALUES (1,'canary','a@b','{SSHA}canary',1);\n"
	for _, tt := range []struct{ name, source, text, want string }{
		{"empty", "csv", "", "it is empty"},
		{"header alone", "csv", "login,hash\n", "nothing in it"},
		{"unknown source", "exchange", "x", "no source of this name"},
		{"gzip", "mailcow", "\x1f\x8b\x08canary", "gzip"},
		{"database of SQLite", "ap4rc", "SQLite format 3\x00canary", "SQLite"},
		{"UTF-16", "csv", "\xff\xfel\x00o\x00", "UTF-16"},
		{"binary", "dovecot", "canary:\x00", "no text"},
		{"binary behind the beginning", "csv", "login,hash\n" + strings.Repeat("a,canary\n", 10000) + "\x00", "no text"},
		{"dump without its end", "mailcow", dump, "ends in the middle"},
		{"dump cut within a string", "mailcow", dump[:len(dump)-12], "ends in the middle"},
		{"dump cut within a row", "mailcow", "INSERT INTO `app_passwd` (id,name,mailbox,password) VALUES (1,'canary'", "ends in the middle"},
		{"dump of others", "mailcow", "CREATE TABLE x (id int);\nINSERT INTO x VALUES (1);\n", "no rows of the table app_passwd or mailbox"},
		{"dump without definitions", "mailcow", "INSERT INTO `app_passwd` VALUES (1,'canary');\n", "has no column id"},
		{"too many values", "mailcow", "INSERT INTO app_passwd (id,name,mailbox,password) VALUES (1,2,3,4,'canary');\n", "more values"},
		{"too few values", "mailcow", "INSERT INTO app_passwd (id,name,mailbox,password) VALUES (1,2,'canary');\n", "fewer values"},
		{"COPY cut", "ap4rc", "COPY application_passwords (id,application,username,password) FROM stdin;\n1\tcanary\ta\tb\n", "ends in the middle"},
		{"CSV cut", "csv", "login,label,hash\na,b,c\na,canary", "another number of fields"},
		{"CSV with a lone quote", "csv", "login,label,hash\na,\"canary\n", "quotation mark"},
		{"columns twice", "csv", "login,hash,hash\na,b,c\n", "a column twice"},
		{"table of another", "mailcow", "login,hash\na,canary\n", "does not name the columns"},
		{"no passwd-file", "dovecot", "canary\n", "has a colon"},
		{"no TOML", "glauth", "canary = \"canary\n", "no TOML"},
		{"glauth without users", "glauth", "[ldap]\nenabled = true\n", "no [[users]]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(tt.source, strings.NewReader(tt.text), Options{})
			var fault *Fault
			if got != nil || !errors.As(err, &fault) || !strings.Contains(fault.Message, tt.want) {
				t.Fatalf("Read = %+v, %v, want a fault with %q", got, err, tt.want)
			}
			if strings.Contains(fault.Message+fault.Hint, secret) {
				t.Errorf("the fault shows what is in the file: %v (%s)", fault, fault.Hint)
			}
		})
	}
}

// endless repeats a text.
type endless struct{ text, rest string }

func (e *endless) Read(p []byte) (int, error) {
	if e.rest == "" {
		e.rest = e.text
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// Lines, quoted fields, names and comments without an end are given up, and a value of another table without an end is not held.
func TestReadBounded(t *testing.T) {
	for name, begin := range map[string]struct{ source, text, more string }{
		"line":          {"dovecot", "a:", "b"},
		"CSV field":     {"csv", "login,hash\n\"", "b\n"},
		"CSV line":      {"csv", "login,hash\n", "b,"},
		"TSV line":      {"mailcow", "id\tname\tmailbox\tpassword\n", "b\t"},
		"SQL word":      {"mailcow", "-- MySQL dump\n", "b"},
		"SQL name":      {"mailcow", "INSERT INTO `", "b"},
		"SQL columns":   {"mailcow", "INSERT INTO app_passwd (", "b,"},
		"SQL value":     {"mailcow", "INSERT INTO app_passwd (id,name,mailbox,password) VALUES (1, ", "b "},
		"configuration": {"glauth", "", "# x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Read(begin.source, io.MultiReader(strings.NewReader(begin.text), &endless{text: begin.more}), Options{}); err == nil {
				t.Error("Read ended without an error")
			}
		})
	}
	long := strings.Repeat("x", 3*maxValue)
	got, err := Read("mailcow", strings.NewReader(appPasswdTable+"INSERT INTO other VALUES ('"+long+"');\nINSERT INTO `app_passwd` VALUES (1,'"+long+"','a@b','x',1);\n"), Options{})
	if err != nil || len(got.Rows) != 1 || got.Rows[0].Label != "imported" {
		t.Errorf("a name of %d bytes: %v", len(long), err)
	}
	if _, err := Read("mailcow", strings.NewReader(appPasswdTable+"INSERT INTO `app_passwd` VALUES (1,'a','a@b','"+long+"',1);\n"), Options{}); !errors.Is(err, errLongLine) {
		t.Errorf("a password of %d bytes: %v", len(long), err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("mailcow", []byte("-- MySQL dump\n"+appPasswdTable+"INSERT INTO `app_passwd` VALUES (1,'a','b@c','{SSHA}x',1);\n-- Dump completed\n"))
	f.Add("ap4rc", []byte("COPY application_passwords (id,application,username,password) FROM stdin;\n1\ta\\tb\tc\td\n\\.\n"))
	f.Add("postfixadmin", []byte("username\tpassword\tname\tmaildir\tquota\na\tb\tc\td\t1\n"))
	f.Add("dovecot", []byte("a:{SSHA}x:1:2:g:/h:/s:userdb_quota_rule=*:storage=1G allow_nets=::1\n"))
	f.Add("glauth", []byte("[[users]]\nname=\"a\"\npassappsha256=[\"x\"]\n"))
	f.Add("csv", []byte("login;hash\na;b\n"))
	f.Fuzz(func(t *testing.T, source string, text []byte) {
		got, err := Read(source, bytes.NewReader(text), Options{MainPasswords: true, AppLogins: true})
		if (got == nil) == (err == nil) {
			t.Fatalf("Read = %v, %v: neither or both", got, err)
		}
		if got == nil {
			return
		}
		for _, r := range got.Rows {
			if r.Ref == "" || r.Hash != "" && r.Label == "" {
				t.Errorf("a row without a place or a label: %+v", r)
			}
		}
	})
}
