package metrics

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is one of those that are made from a [Snapshot].
type metric struct {
	*prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

var (
	build = gauge("valetkey_build_info", "Always 1; the version of the daemon and of Go that it was built with.", "version", "go_version")

	hashes       = counter("valetkey_hashes_total", "Slow hashes computed, whatever the scheme.")
	hashesQueued = gauge("valetkey_hash_queue", "Logins that wait for a core to compute a hash.")

	databaseUp    = gauge("valetkey_database_up", "1 if the database answered within half a second, just now.")
	lookups       = counter("valetkey_lookups_total", "Logins that were looked up.")
	batches       = counter("valetkey_lookup_batches_total", "Queries that looked logins up, each for all that waited.")
	lookupsFailed = counter("valetkey_lookups_failed_total", "Lookups that ended with an error of the database.")
	lookupsOver   = counter("valetkey_lookups_overloaded_total", "Lookups that were refused since too many waited.")
	secondLane    = counter("valetkey_lookup_second_lane_total", "Queries that were sent since the one before them was stuck.")
	finds         = counter("valetkey_directory_finds_total", "Entries that LDAP searches and userdb requests asked for by login.")
	findBatches   = counter("valetkey_directory_batches_total", "Queries that found such entries.")
	pending       = gauge("valetkey_bookkeeping_pending", "Last uses and events that wait to be written.")
	written       = counter("valetkey_bookkeeping_written_total", "Last uses and events written.")
	dropped       = counter("valetkey_bookkeeping_dropped_total", "Last uses and events given up, since too many waited or the database refused them.")

	held     = gauge("valetkey_throttle_held", "Refusals that are held back now.")
	guesses  = counter("valetkey_throttle_guesses_total", "Refusals that were counted as guesses.")
	repeated = counter("valetkey_throttle_repeated_total", "Refusals of the same wrong password again, which do not count.")
	refused  = counter("valetkey_throttle_refused_total", "Logins that were not looked at, since too many of their source were under way.")
	entries  = gauge("valetkey_throttle_entries", "Sources and logins that are remembered.")

	pluginUp       = gauge("valetkey_plugin_up", "1 if the enrolment plugin runs and answers.")
	pluginBreaker  = gauge("valetkey_plugin_breaker_open", "1 if the last checks all failed, so that one a second is tried.")
	pluginRefused  = gauge("valetkey_plugin_configuration_refused", "1 if the plugin that the configuration names could not take over.")
	pluginRestarts = counter("valetkey_plugin_restarts_total", "Runs of the enrolment plugin that ended.")
	pluginChecks   = metric{prometheus.NewDesc("valetkey_plugin_check_seconds", "Questions to the enrolment plugin and their time.", nil, nil), prometheus.UntypedValue}
	pluginErrors   = counter("valetkey_plugin_check_errors_total", "Questions to the enrolment plugin without an answer, by reason.", "reason")
	pluginCached   = counter("valetkey_plugin_cached_total", "Questions that an answer from before was good for.")
	pluginFallback = counter("valetkey_plugin_fallback_total", "Logins that on_error let in without the plugin's word.")
	pluginDropped  = counter("valetkey_plugin_lines_dropped_total", "Lines that the plugin printed and that were not logged, for there were too many.")
	pluginKnown    = gauge("valetkey_plugin_known_accounts", "Accounts whose last answer is remembered.")
	pluginWaiting  = gauge("valetkey_plugin_waiting_accounts", "Accounts that are being asked about.")

	notices = counter("valetkey_notices_total", "Notices by what became of them.", "outcome")

	connections        = gauge("valetkey_connections", "Open connections.", "listener", "front_end")
	connectionsTotal   = counter("valetkey_connections_total", "Connections that were taken.", "listener", "front_end")
	connectionsRefused = counter("valetkey_connections_refused_total", "Connections that were closed at once, for there were too many.", "listener", "front_end")
	connectionsYielded = counter("valetkey_connections_yielded_total", "Connections that gave way to others, as nobody had logged in on them.", "listener", "front_end")

	certificateEnd    = gauge("valetkey_certificate_end_timestamp_seconds", "When the certificate of a listener ends, in seconds since 1970.", "listener")
	certificateBroken = gauge("valetkey_certificate_broken", "1 if the files of the certificate cannot be used, so that the one from before is presented.", "listener")

	all = []metric{
		build, hashes, hashesQueued, databaseUp, lookups, batches, lookupsFailed, lookupsOver, secondLane, finds, findBatches, pending, written, dropped,
		held, guesses, repeated, refused, entries, pluginUp, pluginBreaker, pluginRefused, pluginRestarts, pluginChecks, pluginErrors, pluginCached, pluginFallback,
		pluginDropped, pluginKnown, pluginWaiting, notices, connections, connectionsTotal, connectionsRefused, connectionsYielded, certificateEnd, certificateBroken,
	}
)

// snapshotTime bounds what a scrape waits for the daemon's parts, of which only the database can take any time.
const snapshotTime = time.Second

// collector implements [prometheus.Collector] with snapshots.
type collector struct {
	version, goVersion string
	take               func(context.Context) Snapshot
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range all {
		to <- m.Desc
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTime)
	defer cancel()
	s := c.take(ctx)
	put := func(m metric, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(m.Desc, m.kind, v, labels...)
	}
	yes := func(m metric, v bool, labels ...string) {
		if v {
			put(m, 1, labels...)
			return
		}
		put(m, 0, labels...)
	}
	byWord := func(m metric, counts map[string]int64) {
		for _, word := range slices.Sorted(maps.Keys(counts)) {
			put(m, float64(counts[word]), word)
		}
	}
	put(build, 1, c.version, c.goVersion)
	put(hashes, float64(s.Hashes))
	put(hashesQueued, float64(s.HashesQueued))

	yes(databaseUp, s.Database.Up)
	if d := s.Database.Store; d != nil {
		put(lookups, float64(d.Lookups))
		put(batches, float64(d.Batches))
		put(lookupsFailed, float64(d.Failed))
		put(lookupsOver, float64(d.Overloaded))
		put(secondLane, float64(d.SecondLane))
		put(finds, float64(d.Finds))
		put(findBatches, float64(d.FindBatches))
		put(pending, float64(d.Pending))
		put(written, float64(d.Written))
		put(dropped, float64(d.Dropped))
	}
	if t := s.Throttle; t != nil {
		put(held, float64(t.Held))
		put(guesses, float64(t.Guesses))
		put(repeated, float64(t.Repeated))
		put(refused, float64(t.Refused))
		put(entries, float64(t.Entries))
	}
	if p := s.Plugin; p != nil {
		yes(pluginUp, p.Up)
		yes(pluginBreaker, p.BreakerOpen)
		yes(pluginRefused, p.ConfigurationRefused)
		put(pluginRestarts, float64(p.Restarts))
		to <- prometheus.MustNewConstSummary(pluginChecks.Desc, uint64(p.Checks), p.CheckTime.Seconds(), nil)
		byWord(pluginErrors, p.Errors)
		put(pluginCached, float64(p.Cached))
		put(pluginFallback, float64(p.Fallback))
		put(pluginDropped, float64(p.LinesDropped))
		put(pluginKnown, float64(p.Known))
		put(pluginWaiting, float64(p.Waiting))
	}
	byWord(notices, s.Notices)
	for _, l := range s.Listeners {
		put(connections, float64(l.Open), l.Name, l.FrontEnd)
		put(connectionsTotal, float64(l.Total), l.Name, l.FrontEnd)
		put(connectionsRefused, float64(l.Refused), l.Name, l.FrontEnd)
		put(connectionsYielded, float64(l.Yielded), l.Name, l.FrontEnd)
	}
	for _, x := range s.Certificates {
		put(certificateEnd, float64(x.Until.Unix()), x.Listener)
		yes(certificateBroken, x.Broken, x.Listener)
	}
}
