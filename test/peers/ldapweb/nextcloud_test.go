package ldapweb_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

var nextcloud = program{
	name: "nextcloud", service: "cloud", group: "cloud-users", reader: "nextcloud", ways: []string{"reader"},
	answers: peers.Answers{Yes: "LOGIN", No: "false", Later: "ServerNotAvailableException", Gone: "ServerNotAvailableException"},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		set := map[string]string{}
		occ := page.Snippet(t, "occ", "3389", port(at.addr), "SECRET", at.secret)
		for _, m := range regexp.MustCompile(`(?m)^php occ ldap:set-config s01 (\w+) '(.*)'$`).FindAllStringSubmatch(occ, -1) {
			set[m[1]] = m[2]
		}
		text, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(harness.Dir(t), "settings.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		known := ""
		try := func(t *testing.T, login, password string) string {
			t.Helper()
			answer, groups, _ := strings.Cut(harness.RunPHP(t, "testdata/nextcloud.php", login+"\n"+password+"\n", file), "\n")
			if !strings.HasSuffix(answer, "@example.org") {
				return answer
			}
			want := "cloud-users"
			if !strings.HasPrefix(answer, other) {
				want += " " + staff
			}
			if want = "memberOf: " + want + "\nmember: " + want + "\n"; groups != want {
				t.Errorf("after a login of %s: groups %q, want %q", answer, groups, want)
			}
			known = answer
			return "LOGIN"
		}
		return map[string]way{"reader": {try: try, byMail: try, vague: true, known: func() string { return known }}}
	},
}

func port(addr string) string {
	_, p, _ := strings.Cut(addr, ":")
	return p
}
