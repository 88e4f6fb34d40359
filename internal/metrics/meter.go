package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/valetkey/valetkey/internal/auth"
)

// FrontEnds are the values of the label front_end. A login from another one, or for another reason than [auth.Reasons] and
// [auth.UndecidedReasons], is counted under [other].
var FrontEnds = []string{"checkpassword", "dovecot", "http", "ldap", "saslauthd"}

const other = "other"

var results = []string{"ok", "fail", "undecided"}

// seconds bound the buckets of a login's time. A login with a warm memo takes well below a millisecond, one that computes a hash tens of
// them, and what waits for a database or a plugin up to seconds.
var seconds = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// outcome is what a counter of logins counts.
type outcome struct{ frontEnd, result, reason string }

// Meter implements [auth.Meter]. Make one with [NewMeter].
//
// All its time series are there from the start, with zero: a rate can be told from the first login on, and a login finds its counter
// without a lock.
type Meter struct {
	logins *prometheus.CounterVec
	took   *prometheus.HistogramVec

	counters map[outcome]prometheus.Counter
	times    map[string]prometheus.Observer // by result
}

var _ auth.Meter = (*Meter)(nil)

// NewMeter returns a Meter that has counted nothing.
func NewMeter() *Meter {
	m := &Meter{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valetkey_logins_total", Help: "Logins by front end, result (ok, fail, undecided) and reason, as in the log line.",
		}, []string{"front_end", "result", "reason"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "valetkey_login_duration_seconds", Help: "Time from the request to the decision, without the time for which a refusal is held back.", Buckets: seconds,
		}, []string{"result"}),
		counters: map[outcome]prometheus.Counter{}, times: map[string]prometheus.Observer{},
	}
	add := func(frontEnd, result, reason string) {
		m.counters[outcome{frontEnd, result, reason}] = m.logins.WithLabelValues(frontEnd, result, reason)
	}
	for _, f := range FrontEnds {
		for _, r := range auth.Reasons {
			if r == auth.Accepted {
				add(f, "ok", string(r))
				continue
			}
			add(f, "fail", string(r))
		}
		for _, r := range auth.UndecidedReasons {
			add(f, "undecided", r)
		}
	}
	for _, r := range results {
		add(other, r, other)
		m.times[r] = m.took.WithLabelValues(r)
	}
	return m
}

// Outcome implements [auth.Meter].
func (m *Meter) Outcome(frontEnd, result, reason string, took time.Duration) {
	c := m.counters[outcome{frontEnd, result, reason}]
	if c == nil {
		if c = m.counters[outcome{other, result, other}]; c == nil {
			return
		}
	}
	c.Inc()
	m.times[result].Observe(took.Seconds())
}
