package interop_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/test/harness"
)

// TestMissingGroup: the group of an application that does not exist keeps everybody out, which looks to the users like wrong passwords.
// The admin hears of it.
//
// It would catch: a group that is looked for before the database is there, or only once; a status that tells what was so ten seconds
// ago; a warning every ten seconds.
func TestMissingGroup(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	d.Sections = fmt.Sprintf("\n[[ldap]]\nlisten = \"127.0.0.1:%d\"\n[[ldap.application]]\nname = \"wiki\"\ngroup = \"wiki-users\"\n[[ldap.application]]\nname = \"cloud\"\n", harness.FreePort(t))
	d.Start(t)
	const warning, relief = "nobody can log in to this application", "the group of this application exists now"
	logged := func(text string, mark int) {
		t.Helper()
		if _, ok := d.Log().Wait(mark, harness.Patience, func(line string) bool {
			return strings.Contains(line, text) && strings.Contains(line, "application=wiki") && strings.Contains(line, "group=wiki-users")
		}); !ok {
			t.Fatalf("the log has no line with %q:\n%s", text, d.Log().Tail(20))
		}
	}
	status := func(want bool) {
		t.Helper()
		var s admin.Status
		if err := json.Unmarshal([]byte(d.Must(t, "status", "--json")), &s); err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, l := range s.Listeners {
			for _, a := range l.Applications {
				got[a.Name] = a.GroupMissing
			}
		}
		if len(got) != 2 || got["wiki"] != want || got["cloud"] {
			t.Errorf("status: the groups are missing of %v, want of wiki: %v, and never of cloud", got, want)
		}
		code, stdout, stderr := d.Valetkey(t, "", "status")
		if has := strings.Contains(stdout, "NOBODY CAN LOG IN TO wiki: there is no group wiki-users"); code != 0 || has != want || strings.Contains(stderr, "hint: valetkey group add wiki-users") != want {
			t.Errorf("status = %d\n%s%s\nwant the missing group and a hint: %v", code, stdout, stderr, want)
		}
	}
	logged(warning, 0)
	status(true)
	mark := d.Log().Mark()
	d.Must(t, "group", "add", "wiki-users")
	status(false)
	logged(relief, mark)
	mark = d.Log().Mark()
	d.Must(t, "group", "delete", "wiki-users", "--yes")
	status(true)
	logged(warning, mark)
	if n := strings.Count(d.Log().String(), warning); n != 2 {
		t.Errorf("%d warnings, want one for each time that it came to that", n)
	}
}
