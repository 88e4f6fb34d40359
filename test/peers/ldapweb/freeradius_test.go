package ldapweb_test

import (
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

var freeradius = program{
	name: "freeradius", service: "vpn", group: "vpn-users", reader: "freeradius", ways: []string{"reader"},
	answers: peers.Answers{Yes: "Access-Accept", No: "Access-Reject", Later: "no answer", Gone: "no answer", Hung: "no answer"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		module := page.Snippet(t, "mods-enabled/ldap", "127.0.0.1:3389", at.addr, "SECRET", at.secret)
		sections := page.Snippet(t, "sites-enabled/default")
		group := page.Snippet(t, "sites-enabled/default", "	if (User-Password) {", page.Snippet(t, "sites-enabled/default group")+"	if (User-Password) {")
		all, some := harness.NewFreeRADIUS(t, module, sections), harness.NewFreeRADIUS(t, module, group)
		over := func(r *harness.RADIUS) peers.Login {
			failed := time.Time{}
			return func(t *testing.T, login, password string) string {
				t.Helper()
				<-time.After(time.Until(failed.Add(retryDelay)))
				answer := r.Login(t, login, password)
				if answer == "no answer" {
					failed = time.Now()
				}
				return answer
			}
		}
		return map[string]way{"reader": {try: over(all), staff: map[string]peers.Login{"group": over(some)}, vague: true, byMail: over(all)}}
	},
}

// retryDelay is how long FreeRADIUS does not look again for a daemon that it could not reach: retry_delay, by a clock of whole seconds.
const retryDelay = 2 * time.Second
