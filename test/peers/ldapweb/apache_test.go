package ldapweb_test

import (
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

var apache = program{
	name: "apache", service: "intranet", group: "intranet-users", reader: "apache", ways: []string{"reader", "user"},
	answers: peers.Answers{
		Yes: "200 OK", No: "401 Unauthorized", Later: "500 Internal Server Error", Gone: "500 Internal Server Error", Hung: "500 Internal Server Error"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		addr := peers.Addr(t)
		known := ""
		visit := func(path string) peers.Login {
			return func(t *testing.T, login, password string) string {
				t.Helper()
				status, body := peers.Request(t, "GET", "http://"+addr+path+"/page", "", login, password)
				if status == "200 OK" {
					known = body
				}
				return status
			}
		}
		conf, paths, ways := "", []string{}, map[string]way{}
		for name, snippet := range map[string]string{"reader": "apache.conf", "user": "apache.conf user"} {
			text := func(path string, substitutions ...string) {
				if name == "reader" {
					substitutions = append(substitutions, "/etc/apache2/valetkey-reader", at.secretFile)
				}
				conf += page.Snippet(t, snippet, append(substitutions, "127.0.0.1:3389", at.addr, `"/intranet"`, `"`+path+`"`)...)
				paths = append(paths, path+"/page")
			}
			text("/" + name)
			staff := map[string]peers.Login{}
			for _, require := range []string{"group", "filter"} {
				path := "/" + name + "-" + require
				text(path, "    Require valid-user\n", page.Snippet(t, "apache.conf "+require))
				staff[require] = visit(path)
			}
			ways[name] = way{try: visit("/" + name), staff: staff, vague: name == "reader", twice: name == "user"}
		}
		by := page.Snippet(t, "apache.conf", "/etc/apache2/valetkey-reader", at.secretFile, "127.0.0.1:3389", at.addr, `"/intranet"`, `"/mail"`, "?uid", "?mail,uid")
		conf += by
		paths = append(paths, "/mail/page")
		w := ways["reader"]
		w.byMail, w.known = visit("/mail"), func() string { return known }
		ways["reader"] = w
		harness.NewApache(t, addr, conf, paths...)
		return ways
	},
}
