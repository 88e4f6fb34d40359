package migrate

import (
	"bufio"
	"slices"
	"strings"
)

// mailcow's schema is in data/web/inc/init_db.inc.php of mailcow/mailcow-dockerized, its hashes in functions.inc.php (hash_password,
// verify_hash): "{SCHEME}..." as Dovecot reads them, by default {BLF-CRYPT} of PHP's password_hash.
var mailcowTables = []wanted{
	{"app_passwd", []string{"id", "name", "mailbox", "password"}},
	{"mailbox", []string{"username", "password", "name", "quota", "local_part"}},
}

// mailcowAccess are the flags of an app password, in the order of mailcow's form, with the services that they open. A table of an
// older mailcow has fewer of them; what it had no flag for was open.
var mailcowAccess = []struct {
	column   string
	services []string
}{
	{"imap_access", []string{"imap"}},
	{"smtp_access", []string{"smtp", "submission"}},
	{"dav_access", []string{"dav"}},
	{"eas_access", []string{"eas"}},
	{"pop3_access", []string{"pop3"}},
	{"sieve_access", []string{"sieve"}},
}

func readMailcow(r *bufio.Reader, o Options) (*Result, error) {
	var out Result
	mailboxes := 0
	err := readTables(r, mailcowTables, func(rec record) error {
		if rec.table == "app_passwd" {
			return mailcowAppPassword(&out, rec)
		}
		mailboxes++
		return mailcowMailbox(&out, rec, o)
	})
	if err == nil && mailboxes > 0 && !o.MainPasswords {
		out.Notes = append(out.Notes, "the main passwords of the mailboxes are left out: --main-passwords takes them over as app passwords")
	}
	return &out, err
}

func mailcowAppPassword(out *Result, rec record) error {
	login, label := rec.get("mailbox"), rec.get("name")
	if !rec.on("active", true) {
		out.skip(rec.ref, login, label, "it is not active there")
		return nil
	}
	row := Row{Ref: rec.ref, Login: login, Key: rec.get("id"), Label: label, Hash: rec.get("password"), CreatedAt: moment(rec.get("created")),
		Attributes: mailOf(login)}
	for _, a := range mailcowAccess {
		if rec.on(a.column, true) {
			row.Services = append(row.Services, a.services...)
		}
	}
	if len(row.Services) == 0 { // none named would mean all
		out.skip(rec.ref, login, label, "it opens nothing there")
		return nil
	}
	return out.add(row)
}

func mailcowMailbox(out *Result, rec record, o Options) error {
	login := rec.get("username")
	switch {
	case rec.get("kind") != "":
		out.skip(rec.ref, login, "", "it is a resource, such as a room, and nobody's")
		return nil
	case !rec.on("active", true): // 2 is a mailbox that takes mail and lets nobody in
		out.skip(rec.ref, login, "", "the mailbox is not active there")
		return nil
	}
	row := Row{Ref: rec.ref, Login: login, DisplayName: rec.get("name"), Attributes: mailOf(login), Userdb: quota(rec.get("quota"))}
	if o.MainPasswords {
		switch source := strings.ToLower(rec.get("authsource")); source {
		case "", "mailcow":
			row.Key, row.Label, row.Hash, row.CreatedAt = "main:"+login, mainLabel, rec.get("password"), moment(rec.get("created"))
		default:
			out.skip(rec.ref, login, mainLabel, "the main password is kept elsewhere (LDAP, Keycloak)")
		}
	}
	return out.add(row)
}

// mainLabel is that of a password which was the account's own.
const mainLabel = "imported password"

// mailOf is the attribute mail of who logs in by an address.
func mailOf(login string) map[string][]string {
	if strings.Contains(login, "@") {
		return map[string][]string{"mail": {login}}
	}
	return nil
}

// quota is the userdb field of a number of bytes. 0 is unlimited in mailcow and PostfixAdmin, and -1 in PostfixAdmin "none".
func quota(bytes string) map[string]string {
	if strings.Trim(bytes, "0123456789") != "" || strings.Trim(bytes, "0") == "" {
		return nil
	}
	return map[string]string{"quota": bytes}
}

// mainPasswordServices are those of a mailbox without SMTP.
var mainPasswordServices = []string{"imap", "pop3", "sieve"}

// PostfixAdmin's schema is in public/upgrade.php of postfixadmin/postfixadmin, its hashes in DOCUMENTS/HASHING.md: of crypt(3) or
// "{SCHEME}...". A hash without either is unsalted MD5 or the password itself, by its configuration.
var postfixAdminTables = []wanted{
	{"mailbox", []string{"username", "password", "name", "maildir", "quota"}},
	{"alias", []string{"address", "goto"}},
}

func readPostfixAdmin(r *bufio.Reader, o Options) (*Result, error) {
	var out Result
	type alias struct{ ref, address, to string }
	var aliases []alias
	mailboxes := map[string]bool{}
	err := readTables(r, postfixAdminTables, func(rec record) error {
		if rec.table == "alias" {
			if len(aliases) >= MaxRows {
				return &Fault{"there are too many aliases in it", "import it in parts"}
			}
			address, to := strings.ToLower(rec.get("address")), strings.ToLower(strings.TrimSpace(rec.get("goto")))
			switch {
			case address == to: // every mailbox has one
			case !rec.on("active", true):
				out.skip(rec.ref, address, "", "the alias is not active there")
			case strings.HasPrefix(address, "@"):
				out.skip(rec.ref, address, "", "an alias for a whole domain is no login")
			case rec.values["goto"].tooLong || strings.ContainsAny(to, ", \t\n|/") || !strings.Contains(to, "@"):
				out.skip(rec.ref, address, "", "an alias for several, or for no mailbox, is nobody's login")
			default:
				aliases = append(aliases, alias{rec.ref, address, to})
			}
			return nil
		}
		login := rec.get("username")
		mailboxes[strings.ToLower(login)] = true
		if !rec.on("active", true) {
			out.skip(rec.ref, login, "", "the mailbox is not active there")
			return nil
		}
		row := Row{Ref: rec.ref, Login: login, DisplayName: rec.get("name"), Attributes: mailOf(login), Userdb: quota(rec.get("quota")),
			Key: login, Label: mainLabel, Hash: rec.get("password"), Scheme: o.DefaultScheme, CreatedAt: moment(rec.get("created"))}
		if !rec.on("smtp_active", true) {
			row.Services = slices.Clone(mainPasswordServices)
		}
		if row.Hash == "" {
			out.skip(rec.ref, login, mainLabel, "there is no password")
		}
		return out.add(row)
	})
	if err != nil {
		return nil, err
	}
	for _, a := range aliases {
		if mailboxes[a.address] {
			continue // a mailbox that is forwarded
		}
		if err := out.add(Row{Ref: a.ref, Login: a.to, MustExist: true, Aliases: []string{a.address}}); err != nil {
			return nil, err
		}
	}
	return &out, nil
}
