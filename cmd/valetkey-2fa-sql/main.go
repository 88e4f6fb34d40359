// Command valetkey-2fa-sql is an enrolment plugin for sites whose Postgres database knows who has a second factor. valetkeyd starts it:
//
//	valetkey-2fa-sql -config FILE
//
// With -check LOGIN in addition it prints what it would answer, and ends. The file is described in docs/enrolment-sql.md: where the
// database is, and one query with the login as its $1.
//
// The program refuses to know the tables. It runs the query in a read-only transaction with a time limit, and never anything else.
//
// The one rule a newcomer would break: the login is a parameter of the query, never a part of its text.
package main

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/plugincmd"
	"github.com/valetkey/valetkey/plugin"
)

// version is set by the build.
var version = "dev"

// config is the file.
type config struct {
	plugincmd.Settings

	URL          string `toml:"url"`
	URLFile      string `toml:"url_file"`
	PasswordFile string `toml:"password_file"`
	PgBouncer    bool   `toml:"pgbouncer"`

	Query  string `toml:"query"`
	NoRows string `toml:"no_rows"`
}

func main() {
	var c config
	plugincmd.Main("valetkey-2fa-sql", version, &c, func(f *plugincmd.Faults) plugin.Checker { return c.open(f) })
}

// open makes the checker that the file describes.
func (c *config) open(f *plugincmd.Faults) *checker {
	x := &checker{query: strings.TrimSuffix(strings.TrimSpace(c.Query), ";"), timeout: time.Duration(c.Timeout)}
	switch cmp.Or(c.NoRows, "unknown") {
	case "unknown":
		x.noRows = plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "no_row"}
	case "not_enrolled":
		x.noRows = plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "no_row"}
	default:
		f.Add("no_rows", `%q is not "unknown" or "not_enrolled"`, c.NoRows)
	}
	switch {
	case x.query == "":
		f.Add("query", "it is missing; write a query whose first column says whether the login $1 has a second factor")
	case !firstParameter.MatchString(x.query):
		f.Add("query", "it has no $1, so that all users would have the same answer")
	case otherParameter.MatchString(x.query):
		f.Add("query", "it has another parameter than $1; the login is all that there is to give")
	case strings.Contains(x.query, ";"):
		f.Add("query", "it has a semicolon; one query is run, and nothing else")
	}
	database, err := c.database(f)
	if err != nil {
		f.Add("url", "%v", err)
	} else if len(*f) == 0 {
		if x.db, err = openDatabase(database, time.Duration(c.Timeout), c.Connections, c.PgBouncer); err != nil {
			f.Add("url", "it cannot be used") // the driver's error may quote it
		}
	}
	return x
}

var (
	firstParameter = regexp.MustCompile(`\$1\b`)
	otherParameter = regexp.MustCompile(`\$([02-9]|1[0-9])`)
)

// database reads where it is. No error quotes a URL, which may have a password.
func (c *config) database(f *plugincmd.Faults) (pq.Config, error) {
	if (c.URL == "") == (c.URLFile == "") {
		return pq.Config{}, fmt.Errorf("give either url, or url_file if the URL has a password: postgres://USER@HOST/DATABASE?sslmode=verify-full")
	}
	text, password := c.URL, ""
	if c.URLFile != "" {
		text = f.Secret("url_file", c.URLFile, true)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return pq.Config{}, fmt.Errorf("it is not postgres://USER@HOST/DATABASE?sslmode=verify-full; special characters are percent-encoded")
	}
	values := u.Query()
	_, inURL := u.User.Password()
	inURL = inURL || values.Has("password")
	switch {
	case inURL && c.URL != "":
		return pq.Config{}, fmt.Errorf("it has a password, and everybody may read this file; name a file with it in password_file, or write the URL into a file of mode 0600 and name that in url_file")
	case inURL && c.PasswordFile != "":
		return pq.Config{}, fmt.Errorf("there is a password in url_file and one in password_file; keep one of them")
	case values.Has("passfile"):
		// The driver reads it at each connection and ignores one of a wrong mode without a word.
		return pq.Config{}, fmt.Errorf("it has passfile; write the password alone into a file of mode 0600 and name that in password_file")
	case values.Get("sslmode") == "":
		return pq.Config{}, fmt.Errorf("it does not say sslmode: add sslmode=verify-full for a server reached over the network (with sslrootcert if its certificate is private), or sslmode=disable for a Unix socket or the loopback address")
	}
	password = f.Secret("password_file", c.PasswordFile, false)
	if password != "" {
		u.User = url.UserPassword(u.User.Username(), password)
	}
	// A variable of the environment would change what the file says; the daemon gives us none, but a person who runs -check has some.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name)
		}
	}
	database, err := pq.NewConfig(u.String())
	if err != nil {
		return pq.Config{}, fmt.Errorf("the driver does not accept it; check the names and values behind the question mark")
	}
	database.Passfile = "/dev/null/none" // or the driver would look for ~/.pgpass
	return database, nil
}
