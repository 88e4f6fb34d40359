package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// measurement is what one cell came to in one round. Durations are in microseconds, which are also milliseconds per
// 1,000 logins.
type measurement struct {
	perSecond    float64
	p50, p99     float64
	serverCPU    float64 // per login
	childrenCPU  float64
	generatorCPU float64
}

func newMeasurement(r result, used cpuTimes) measurement {
	perLogin := func(d time.Duration) float64 {
		if r.logins == 0 {
			return 0
		}
		return float64(d.Microseconds()) / float64(r.logins)
	}
	return measurement{
		perSecond:    r.perSecond(),
		p50:          float64(r.latencies.percentile(50)),
		p99:          float64(r.latencies.percentile(99)),
		serverCPU:    perLogin(used.Server),
		childrenCPU:  perLogin(used.Children),
		generatorCPU: perLogin(used.Generator),
	}
}

// cell is one target at one concurrency.
type cell struct {
	target      string
	connections int
}

// measurements holds one measurement a round, in the order of the rounds.
type measurements map[cell][]measurement

// row is one line of the table: medians over the rounds.
type row struct {
	Target      string  `json:"target"`
	Connections int     `json:"connections"`
	PerSecond   float64 `json:"logins_per_second"`
	P50         float64 `json:"p50_microseconds"`
	P99         float64 `json:"p99_microseconds"`
	// Ratios of logins per second to the echo server over the same kind of socket and to the peer for the same
	// protocol, at the same concurrency; the median of the rounds' ratios, because a round's cells meet the same noise.
	// 0: not measured, or there is none.
	ToEcho float64 `json:"ratio_to_echo"`
	ToPeer float64 `json:"ratio_to_peer"`
	// The ratio of the p50s to the peer's, in the same way.
	P50ToPeer float64 `json:"p50_ratio_to_peer"`
	// Processor time, in milliseconds per 1,000 logins.
	ServerCPU    float64 `json:"server_cpu_ms_per_1000"`
	PostgresCPU  float64 `json:"postgres_cpu_ms_per_1000"`
	GeneratorCPU float64 `json:"generator_cpu_ms_per_1000"`
}

// rows makes the table's lines: by concurrency, then by target, in the order given. floors names each target's echo, peers
// the peer, if it has one.
func (m measurements) rows(targets []string, connections []int, floors, peers map[string]string) []row {
	var rows []row
	for _, c := range connections {
		for _, t := range targets {
			own := m[cell{t, c}]
			if len(own) == 0 {
				continue
			}
			of := func(get func(measurement) float64) float64 {
				var xs []float64
				for _, x := range own {
					xs = append(xs, get(x))
				}
				return median(xs)
			}
			ratio := func(base string, get func(measurement) float64) float64 {
				var xs []float64
				for round, x := range m[cell{base, c}] {
					if round < len(own) && get(x) > 0 {
						xs = append(xs, get(own[round])/get(x))
					}
				}
				return median(xs)
			}
			perSecond := func(x measurement) float64 { return x.perSecond }
			p50 := func(x measurement) float64 { return x.p50 }
			rows = append(rows, row{
				Target: t, Connections: c,
				PerSecond:    of(perSecond),
				P50:          of(p50),
				P99:          of(func(x measurement) float64 { return x.p99 }),
				ToEcho:       ratio(floors[t], perSecond),
				ToPeer:       ratio(peers[t], perSecond),
				P50ToPeer:    ratio(peers[t], p50),
				ServerCPU:    of(func(x measurement) float64 { return x.serverCPU }),
				PostgresCPU:  of(func(x measurement) float64 { return x.childrenCPU }),
				GeneratorCPU: of(func(x measurement) float64 { return x.generatorCPU }),
			})
		}
	}
	return rows
}

// writeTable writes the rows for people. Columns of CPU are milliseconds per 1,000 logins.
func writeTable(w io.Writer, rows []row) error {
	lines := [][]string{
		{"", "conns", "logins/s", "p50 µs", "p99 µs", "to echo", "to peer", "server", "postgres", "generator"},
	}
	dash := func(x float64, format string) string {
		if x == 0 {
			return "-"
		}
		return fmt.Sprintf(format, x)
	}
	for _, r := range rows {
		lines = append(lines, []string{
			r.Target, strconv.Itoa(r.Connections), thousands(r.PerSecond), thousands(r.P50), thousands(r.P99),
			dash(r.ToEcho, "%.2f"), dash(r.ToPeer, "%.2f"),
			dash(r.ServerCPU, "%.1f"), dash(r.PostgresCPU, "%.1f"), dash(r.GeneratorCPU, "%.1f"),
		})
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, s := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(s))
		}
	}
	cpu := 0
	for _, n := range widths[7:] {
		cpu += n + 2
	}
	total := 0
	for _, n := range widths {
		total += n + 2
	}
	const heading = "CPU ms per 1,000 logins"
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", max(0, total-2-max(cpu-2, len(heading)))) + heading + "\n")
	for i, line := range lines {
		if i > 1 && rows[i-1].Connections != rows[i-2].Connections {
			b.WriteByte('\n')
		}
		for j, s := range line {
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(s))
			if j == 0 {
				b.WriteString(s + pad)
			} else {
				b.WriteString("  " + pad + s)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// thousands writes x without decimals, in groups of three digits.
func thousands(x float64) string {
	s := strconv.FormatFloat(x, 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// check is a promise that the run held the daemon to.
type check struct {
	Name  string `json:"name"`
	Got   string `json:"got"`
	Want  string `json:"want"`
	Met   bool   `json:"met"`
	Timed bool   `json:"timed"` // depends on the machine: a miss is reported and does not fail the run
}

// goals are those of speed. One of atLeast and atMost is set.
var goals = []struct {
	name            string
	target          string
	connections     int
	got             func(row) float64
	atLeast, atMost float64
}{
	{"Dovecot protocol to the echo floor", dovecotTarget, 64, toEcho, 0.4, 0},
	{"Dovecot protocol to Dovecot's auth service", dovecotTarget, 64, toPeer, 1.2, 0},
	{"saslauthd protocol to saslauthd", muxTarget, 8, toPeer, 2, 0},
	{"LDAP binds to slapd's", ldapTarget, 64, toPeer, 3.5, 0},
	{"LDAP search then bind to slapd's", searchTarget, 64, toPeer, 1.5, 0},
	{"p50 of an LDAP bind to slapd's", ldapTarget, 1, p50ToPeer, 0, 1.5},
}

func toEcho(r row) float64    { return r.ToEcho }
func toPeer(r row) float64    { return r.ToPeer }
func p50ToPeer(r row) float64 { return r.P50ToPeer }

// speedChecks holds the rows to the goals; what was not measured is left out.
func speedChecks(rows []row) []check {
	var checks []check
	for _, g := range goals {
		want, met := fmt.Sprintf("at least %.1f", g.atLeast), func(got float64) bool { return got >= g.atLeast }
		if g.atMost > 0 {
			want, met = fmt.Sprintf("at most %.1f", g.atMost), func(got float64) bool { return got <= g.atMost }
		}
		for _, r := range rows {
			if got := g.got(r); r.Target == g.target && r.Connections == g.connections && got > 0 {
				name := fmt.Sprintf("%s, %d connections", g.name, g.connections)
				if g.connections == 1 {
					name = g.name + ", 1 connection"
				}
				checks = append(checks, check{Name: name, Got: fmt.Sprintf("%.2f", got), Want: want, Met: met(got), Timed: true})
			}
		}
	}
	return checks
}

func writeChecks(w io.Writer, checks []check) {
	for _, c := range checks {
		word := "met"
		if !c.Met {
			word = "MISSED"
		}
		fmt.Fprintf(w, "%-6s  %s: %s (want %s)\n", word, c.Name, c.Got, c.Want)
	}
}
