package interop_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// scrape asks a daemon's metrics at "tcp" or "unix" and returns the samples by their names with labels. ok is false if nobody answers.
func scrape(t *testing.T, network, addr string) (samples map[string]float64, text string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://metrics/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /metrics = %s", resp.Status)
	}
	samples = map[string]float64{}
	var all strings.Builder
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		name, value, found := cutLast(lines.Text())
		if !found || strings.HasPrefix(name, "#") {
			continue
		}
		if samples[name], err = strconv.ParseFloat(value, 64); err != nil {
			t.Errorf("a sample is no number: %s", lines.Text())
		}
	}
	return samples, all.String(), true
}

func cutLast(line string) (before, after string, found bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return line, "", false
	}
	return line[:i], line[i+1:], true
}

// TestMetrics scrapes a daemon while people log in, its plugin dies, its database freezes, and its configuration changes.
//
// It would catch: a login that is not counted or counted as something else, a login or an address in a time series, a scrape that waits for a
// frozen database or says that it is up, an endpoint that other machines reach by mistake, one that a reload leaves open or closes for good.
func TestMetrics(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	list := harness.NewEnrolledList(t, "alice")
	d := harness.NewDaemon(t, url)
	port := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	section := func(listen string) string {
		return list.Enrolment(t, `require = "login"`) + fmt.Sprintf("\n[metrics]\nlisten = %q\nmode = \"0640\"\n", listen)
	}
	d.Sections = section(port)
	d.Start(t)
	d.PluginUp(t, 0)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "my-own-phone")

	clients := frontEnds(d)
	for name, c := range clients {
		defer c.Close()
		for password, want := range map[string]harness.Outcome{secret: harness.Accepted, neverIssued: harness.Rejected} {
			if got, detail := c.Login("alice", password); got != want {
				t.Fatalf("%s: %v (%s), want %v", name, got, detail, want)
			}
		}
	}
	samples, text, ok := scrape(t, "tcp", port)
	if !ok {
		t.Fatal("nobody answers at the address of the metrics")
	}
	for name, want := range map[string]float64{
		`valetkey_logins_total{front_end="ldap",reason="accepted",result="ok"}`:      1,
		`valetkey_logins_total{front_end="dovecot",reason="accepted",result="ok"}`:   1,
		`valetkey_logins_total{front_end="ldap",reason="no_match",result="fail"}`:    1,
		`valetkey_logins_total{front_end="dovecot",reason="no_match",result="fail"}`: 1,
		`valetkey_login_duration_seconds_count{result="ok"}`:                         2,
		`valetkey_login_duration_seconds_count{result="undecided"}`:                  0,
		`valetkey_connections{front_end="ldap",listener="ldap[1]"}`:                  1,
		`valetkey_connections{front_end="dovecot",listener="dovecot[1]"}`:            1,
		`valetkey_hashes_total`:                  1,
		`valetkey_lookups_total`:                 4,
		`valetkey_database_up`:                   1,
		`valetkey_plugin_up`:                     1,
		`valetkey_plugin_breaker_open`:           0,
		`valetkey_plugin_restarts_total`:         0,
		`valetkey_plugin_known_accounts`:         1,
		`valetkey_notices_total{outcome="sent"}`: 0,
		`valetkey_bookkeeping_dropped_total`:     0,
	} {
		if got, ok := samples[name]; !ok || got != want {
			t.Errorf("%s = %v, %v, want %v", name, got, ok, want)
		}
	}
	if s := samples["valetkey_plugin_check_seconds_count"]; s < 1 || s > 3 { // for the app password, and at most one for each login
		t.Errorf("%v questions to the plugin, want 1 to 3", s)
	}
	for _, private := range []string{"alice", "my-own-phone", secret, d.Dir, "postgres"} {
		if strings.Contains(text, private) {
			t.Errorf("the metrics have %q", private)
		}
	}
	if n := len(samples); n > 600 {
		t.Errorf("%d samples, want a few hundred", n)
	}
	before := series(samples)
	for _, login := range []string{"mallory", "al\"ice\n", "trudy@example.net"} {
		clients["ldap"].Login(login, neverIssued)
	}
	if samples, _, _ = scrape(t, "tcp", port); series(samples) != before {
		t.Errorf("%d time series after logins of strangers, were %d", series(samples), before)
	}

	// The plugin dies, and is back.
	state := d.Plugin(t)
	if err := syscall.Kill(state.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the metrics to tell that the plugin was started again", func() bool {
		samples, _, _ := scrape(t, "tcp", port)
		return samples["valetkey_plugin_up"] == 1 && samples["valetkey_plugin_restarts_total"] == 1
	})

	// The database freezes.
	thaw := cluster.Freeze(t)
	begin := time.Now()
	samples, _, ok = scrape(t, "tcp", port)
	if took := time.Since(begin); !ok || took > 3*time.Second {
		t.Errorf("a scrape with a frozen database took %v, answered %v, want about half a second", took, ok)
	}
	if up, told := samples["valetkey_database_up"]; up != 0 || !told {
		t.Errorf("valetkey_database_up = %v, %v with a frozen database, want 0", up, told)
	}
	// What valetkey plugin status asks needs no database and waits for none.
	begin = time.Now()
	if s := d.Plugin(t); !s.Up {
		t.Errorf("with a frozen database the plugin is %+v, want it up", s)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("valetkey plugin status took %v with a frozen database, want no wait", took)
	}
	thaw()
	harness.WaitFor(t, "the metrics to tell that the database is back", func() bool {
		samples, _, _ := scrape(t, "tcp", port)
		return samples["valetkey_database_up"] == 1
	})

	// Elsewhere, nowhere, and back.
	socket := filepath.Join(harness.Dir(t), "metrics")
	d.Sections = section("unix:" + socket)
	d.Reload(t)
	if _, _, ok := scrape(t, "unix", socket); !ok {
		t.Error("nobody answers on the Unix socket after a reload")
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the socket is %v, %v, want mode 0640", info, err)
	}
	harness.WaitFor(t, "the port to be closed", func() bool { _, _, ok := scrape(t, "tcp", port); return !ok })
	d.Sections = section("unix:"+socket) + "allow_plaintext = true\n" // another section, the same place
	d.Reload(t)
	if _, _, ok := scrape(t, "unix", socket); !ok {
		t.Error("nobody answers on the Unix socket after it was replaced")
	}
	d.Sections = section("")
	d.Reload(t)
	harness.WaitFor(t, "the socket to be gone", func() bool { _, err := os.Stat(socket); return os.IsNotExist(err) })
	d.Sections = section(port)
	d.Reload(t)
	if samples, _, _ := scrape(t, "tcp", port); samples[`valetkey_logins_total{front_end="dovecot",reason="accepted",result="ok"}`] != 1 {
		t.Error("what was counted before is gone after a reload")
	}
	d.Stop(t)

	config := filepath.Join(harness.Dir(t), "open.toml")
	if err := os.WriteFile(config, []byte("[metrics]\nlisten = \"0.0.0.0:9389\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := harness.Run(t, "", exec.Command(harness.Program(t, "valetkeyd"), "--config", config, "--check-config"))
	if code != 1 || !regexp.MustCompile(`(?m)^  metrics.listen: .*listen on 127.0.0.1 or a Unix socket, or set allow_plaintext = true`).MatchString(errOut) {
		t.Errorf("metrics for everybody: exit code %d, %q, want a refusal with the key and the cure", code, errOut)
	}
}

// series is how many samples of logins there are: those that a stranger could add to.
func series(samples map[string]float64) (n int) {
	for name := range samples {
		if strings.HasPrefix(name, "valetkey_logins_total{") {
			n++
		}
	}
	return n
}
