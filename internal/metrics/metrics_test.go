package metrics

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/valetkey/valetkey/internal/auth"
)

// full is a snapshot in which everything is there.
func full(context.Context) Snapshot {
	return Snapshot{
		Hashes: 1, HashesQueued: 2, Database: Database{Up: true, Store: &Store{Lookups: 3, Batches: 4}}, Throttle: &Throttle{Guesses: 5},
		Plugin: &Plugin{Up: true, Checks: 2, CheckTime: 3 * time.Second, Errors: map[string]int64{"timeout": 6}}, Notices: map[string]int64{"sent": 7},
		Listeners:    []Listener{{"ldap[1]", "ldap", 8, 9, 10, 11}, {"ldap[2]", "ldap", 0, 0, 0, 0}},
		Certificates: []Certificate{{"ldap[1]", time.Unix(1700000000, 0), true}},
	}
}

// What Prometheus' own rules say about names, help and units.
func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(Registry("v", NewMeter(), full))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestTextHasTheSnapshot(t *testing.T) {
	m := NewMeter()
	m.Outcome("ldap", "ok", "accepted", 3*time.Millisecond)
	m.Outcome("dovecot", "undecided", "timeout", time.Second)
	got := scrape(t, m, full)
	for _, line := range []string{
		`valetkey_logins_total{front_end="ldap",reason="accepted",result="ok"} 1`,
		`valetkey_logins_total{front_end="http",reason="no_match",result="fail"} 0`,
		`valetkey_logins_total{front_end="dovecot",reason="timeout",result="undecided"} 1`,
		`valetkey_login_duration_seconds_bucket{result="ok",le="0.0025"} 0`,
		`valetkey_login_duration_seconds_bucket{result="ok",le="0.005"} 1`,
		`valetkey_login_duration_seconds_sum{result="undecided"} 1`,
		`valetkey_hashes_total 1`, `valetkey_hash_queue 2`, `valetkey_database_up 1`, `valetkey_lookups_total 3`, `valetkey_lookup_batches_total 4`,
		`valetkey_throttle_guesses_total 5`, `valetkey_plugin_up 1`, `valetkey_plugin_check_seconds_sum 3`, `valetkey_plugin_check_seconds_count 2`,
		`valetkey_plugin_check_errors_total{reason="timeout"} 6`, `valetkey_notices_total{outcome="sent"} 7`,
		`valetkey_connections{front_end="ldap",listener="ldap[1]"} 8`, `valetkey_connections_yielded_total{front_end="ldap",listener="ldap[1]"} 11`,
		`valetkey_certificate_end_timestamp_seconds{listener="ldap[1]"} 1.7e+09`, `valetkey_certificate_broken{listener="ldap[1]"} 1`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, got)
		}
	}
	if empty := scrape(t, NewMeter(), func(context.Context) Snapshot { return Snapshot{} }); !strings.Contains(empty, "\nvaletkey_database_up 0\n") ||
		strings.Contains(empty, "valetkey_plugin_up") {
		t.Errorf("of a daemon with nothing:\n%s", empty)
	}
}

// What a peer sends never becomes a time series.
func TestOddOutcomes(t *testing.T) {
	m := NewMeter()
	before := testutil.CollectAndCount(m.logins)
	for _, o := range []outcome{{"alice@example.org", "ok", "accepted"}, {"ldap", "fail", "made up"}, {"ldap", "ok", "no_match"}, {"ldap", "made up", "no_match"}} {
		m.Outcome(o.frontEnd, o.result, o.reason, time.Second)
	}
	if now := testutil.CollectAndCount(m.logins); now != before {
		t.Errorf("%d time series of logins, were %d", now, before)
	}
	if got := testutil.ToFloat64(m.logins.WithLabelValues(other, "fail", other)); got != 1 {
		t.Errorf("%v logins that failed for an odd reason were counted, want 1", got)
	}
}

// serve returns the address of a server with these metrics.
func serve(t testing.TB, m *Meter, take func(context.Context) Snapshot) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Registry("v", m, take), slog.New(slog.DiscardHandler))
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil after Shutdown", err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t testing.TB, method, url string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func scrape(t testing.TB, m *Meter, take func(context.Context) Snapshot) string {
	t.Helper()
	status, text := get(t, "GET", serve(t, m, take)+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("GET /metrics = %d\n%s", status, text)
	}
	return text
}

func TestServesNothingElse(t *testing.T) {
	url := serve(t, NewMeter(), full)
	for _, tc := range []struct {
		method, path string
		want         int
	}{{"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"POST", "/metrics", 405}, {"DELETE", "/metrics", 405}, {"GET", "/metrics/x", 404}} {
		if status, _ := get(t, tc.method, url+tc.path); status != tc.want {
			t.Errorf("%s %s = %d, want %d", tc.method, tc.path, status, tc.want)
		}
	}
}

// A part that hangs costs as many goroutines as there may be scrapes, and one more scrape is told to come again.
func TestScrapesAreBounded(t *testing.T) {
	var running atomic.Int64
	release := make(chan struct{})
	url := serve(t, NewMeter(), func(ctx context.Context) Snapshot {
		running.Add(1)
		<-release
		return Snapshot{}
	}) + "/metrics"
	statuses := make(chan int, maxScrapes)
	for range maxScrapes {
		go func() {
			resp, err := http.Get(url)
			if err != nil {
				statuses <- 0
				return
			}
			resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	for deadline := time.Now().Add(10 * time.Second); running.Load() < maxScrapes; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d scrapes run, want %d", running.Load(), maxScrapes)
		}
	}
	if status, _ := get(t, "GET", url); status != http.StatusServiceUnavailable {
		t.Errorf("one more scrape = %d, want 503", status)
	}
	close(release)
	for range maxScrapes {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("a scrape = %d, want 200", status)
		}
	}
}

// docs/operations.md has a row for each metric of ours, with its labels, and none that is not there.
func TestPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(valetkey_[a-z0-9_]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		if _, twice := told[row[1]]; twice {
			t.Errorf("two rows for %s", row[1])
		}
		told[row[1]] = strings.NewReplacer("`", "", ", ", ",").Replace(strings.TrimSpace(row[2]))
	}
	families, err := Registry("v", NewMeter(), full).Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "valetkey_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		there[f.GetName()] = strings.Join(labels, ",")
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if labels, ok := told[name]; !ok {
			t.Errorf("no row for %s with the labels %q", name, there[name])
		} else if labels != there[name] {
			t.Errorf("the labels of %s are %q on the page, and really %q", name, labels, there[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if _, ok := there[name]; !ok {
			t.Errorf("the page has %s, which is not there", name)
		}
	}
	if len(there) != len(all)+2 {
		t.Errorf("%d metrics are gathered, and %d described", len(there), len(all)+2)
	}
	// The rules ask for nothing that is not there.
	for _, name := range regexp.MustCompile(`valetkey_[a-z0-9_]*[a-z0-9]\b[^*]`).FindAllString(string(page), -1) {
		name = name[:len(name)-1]
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			if _, ok := there[strings.TrimSuffix(name, suffix)]; ok {
				name = ""
				break
			}
		}
		if name != "" {
			t.Errorf("the page names %s, which is not there", name)
		}
	}
}

// BenchmarkOutcome is what a login pays, on all cores at once.
func BenchmarkOutcome(b *testing.B) {
	m := NewMeter()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Outcome("dovecot", "ok", string(auth.Accepted), 300*time.Microsecond)
		}
	})
}

// BenchmarkScrape is what a scrape costs, without the daemon's parts.
func BenchmarkScrape(b *testing.B) {
	r := Registry("v", NewMeter(), full)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
