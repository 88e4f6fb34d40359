package ldapweb_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

var squid = program{
	name: "squid", service: "proxy", group: "proxy-users", reader: "squid", ways: []string{"reader", "template"},
	answers: peers.Answers{Yes: "200 OK", No: denied, Later: denied, Gone: denied},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a page") }))
		t.Cleanup(site.Close)
		through := func(conf string) peers.Login {
			addr := peers.Addr(t)
			harness.NewSquid(t, addr, conf)
			known := map[[2]string]time.Time{} // what Squid was told is right, and when
			return func(t *testing.T, login, password string) string {
				t.Helper()
				who := [2]string{login, password}
				<-time.After(time.Until(known[who].Add(remembered)))
				status := browse(t, addr, site.URL, login, password)
				if status == "200 OK" {
					known[who] = time.Now()
				}
				return status
			}
		}
		read := []string{"127.0.0.1:3389", at.addr, "/etc/squid/valetkey-reader", at.secretFile}
		search := page.Snippet(t, "squid.conf", read...)
		first, _, _ := strings.Cut(search, "acl users ")
		w := way{try: through(search), staff: map[string]peers.Login{"group": through(first + page.Snippet(t, "squid.conf group", read...))}, vague: true, notStaff: "403 Forbidden"}
		w.byMail = w.try
		return map[string]way{
			"reader":   w,
			"template": {try: through(page.Snippet(t, "squid.conf template", "127.0.0.1:3389", at.addr)), alias: true, vague: true},
		}
	},
}

// remembered is how long Squid, whose clock counts whole seconds, may take a password without asking: credentialsttl.
const remembered = 2 * time.Second

const denied = "407 Proxy Authentication Required"

// browse asks for a page through a proxy.
func browse(t *testing.T, proxy, page, login, password string) (status string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", page, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: 2 * harness.Patience, Transport: &http.Transport{
		DialContext: peers.FromUser.DialContext, DisableKeepAlives: true,
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy, User: url.UserPassword(login, password)}),
	}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Status
}

// TestSquidHelper asks the helper of the page line by line, as Squid does: the answers that Squid does not show to a browser.
//
// It would catch: a name or a password that Squid's encoding changes, an answer that is no word of Squid's, a helper that does not come back after
// an outage, a line that is answered twice.
func TestSquidHelper(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	page, addr := harness.ReadPage(t, "ldap-squid"), peers.Addr(t)
	d.Sections = "\n" + page.Snippet(t, "valetkeyd.toml", "127.0.0.1:3389", addr)
	d.Start(t)
	d.Must(t, "group", "add", squid.group)
	d.Must(t, "reader", "add", squid.reader)
	file := filepath.Join(harness.Dir(t), "reader")
	if err := os.WriteFile(file, []byte(d.Create(t, squid.reader, "search")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const login = "zoë.o'hara@example.org"
	d.AddAccount(t, login)
	d.Must(t, "group", "add-member", squid.group, login)
	secret, lost := d.Create(t, login, "phone"), d.Create(t, login, "lost phone")

	line := func(snippet string, substitutions ...string) string {
		first, _, _ := strings.Cut(page.Snippet(t, snippet, append(substitutions, "127.0.0.1:3389", addr)...), "\n")
		return first
	}
	helpers := map[string]*harness.SquidHelper{
		"reader":   harness.NewSquidHelper(t, line("squid.conf", "/etc/squid/valetkey-reader", file)),
		"template": harness.NewSquidHelper(t, line("squid.conf template")),
	}
	all := func(outcome, password, answer string) {
		t.Helper()
		for way, h := range helpers {
			if got := strings.TrimSpace(h.Ask(login, password)); got != answer {
				t.Errorf("%s, %s: the helper answers %q, want %q", outcome, way, got, answer)
			}
		}
		page.WantOutcome(t, outcome, answer)
	}
	const invalid = "ERR Invalid credentials"
	all(peers.Accepted, secret, "OK")
	all(peers.Wrong, peers.NeverIssued, invalid)
	all(peers.Wrong, "%41 \\ +\t\"", invalid)
	all(peers.Accepted, lost, "OK")
	d.Revoke(t, login, "lost phone")
	all(peers.Revoked, lost, invalid)
	cluster.Kill(t)
	all(peers.Down, secret, "BH Other (e.g., implementation specific) error")
	cluster.Start(t)
	d.Stop(t)
	all(peers.Stopped, secret, "BH Can't contact LDAP server")
	d.Start(t)
	all(peers.Accepted, secret, "OK")
}
