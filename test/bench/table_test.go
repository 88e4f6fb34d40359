package main

import (
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNewMeasurement(t *testing.T) {
	got := newMeasurement(
		result{logins: 1000, elapsed: 2 * time.Second, latencies: latencies{10, 20, 30}},
		cpuTimes{Server: 50 * time.Millisecond, Children: 20 * time.Millisecond, Generator: 10 * time.Millisecond})
	want := measurement{perSecond: 500, p50: 20, p99: 30, serverCPU: 50, childrenCPU: 20, generatorCPU: 10}
	if got != want {
		t.Errorf("newMeasurement = %+v, want %+v", got, want)
	}
	if got := newMeasurement(result{elapsed: time.Second}, cpuTimes{Server: time.Second}); math.IsInf(got.serverCPU, 0) {
		t.Errorf("no logins: CPU per login = %v, want 0", got.serverCPU)
	}
}

func TestRows(t *testing.T) {
	m := measurements{
		{echoTCPTarget, 64}: {{perSecond: 100}, {perSecond: 10}, {perSecond: 100}},
		{slapdTarget, 64}:   {{perSecond: 20, p50: 2}, {perSecond: 2, p50: 2}, {perSecond: 10, p50: 2}},
		{ldapTarget, 64}:    {{perSecond: 60, p50: 3, p99: 9}, {perSecond: 6, p50: 5, p99: 8}, {perSecond: 40, p50: 4, p99: 7}},
		{dovecotTarget, 1}:  {{perSecond: 70}},
		{muxTarget, 64}:     {{perSecond: 30}},
		{cyrusTarget, 64}:   {{perSecond: 20}},
	}
	got := m.rows(allTargets, []int{1, 64}, floors, peers)
	want := []row{
		{Target: dovecotTarget, Connections: 1, PerSecond: 70},
		{Target: cyrusTarget, Connections: 64, PerSecond: 20},
		{Target: muxTarget, Connections: 64, PerSecond: 30, ToPeer: 1.5},
		{Target: echoTCPTarget, Connections: 64, PerSecond: 100, ToEcho: 1},
		{Target: slapdTarget, Connections: 64, PerSecond: 10, P50: 2, ToEcho: 0.2},
		{Target: ldapTarget, Connections: 64, PerSecond: 40, P50: 4, P99: 8, ToEcho: 0.6, ToPeer: 3, P50ToPeer: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows: -want +got\n%s", diff)
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	err := writeTable(&b, []row{
		{Target: "slapd", Connections: 1, PerSecond: 999.6, P50: 12, P99: 3456, ToEcho: 0.5, ServerCPU: 19.54, GeneratorCPU: 6},
		{Target: "valetkey-ldap", Connections: 1, PerSecond: 1234567, P50: 1, P99: 2, ToPeer: 3, ServerCPU: 1, PostgresCPU: 2, GeneratorCPU: 3},
		{Target: "slapd", Connections: 64, PerSecond: 12},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `
                                                                   CPU ms per 1,000 logins
               conns   logins/s  p50 µs  p99 µs  to echo  to peer  server  postgres  generator
slapd              1      1,000      12   3,456     0.50        -    19.5         -        6.0
valetkey-ldap      1  1,234,567       1       2        -     3.00     1.0       2.0        3.0

slapd             64         12       0       0        -        -       -         -          -
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), b.String()); diff != "" {
		t.Errorf("table: -want +got\n%s", diff)
	}
}

func TestSpeedChecks(t *testing.T) {
	got := speedChecks([]row{
		{Target: ldapTarget, Connections: 8, ToPeer: 1},
		{Target: ldapTarget, Connections: 1, ToPeer: 1, P50ToPeer: 1.6},
		{Target: ldapTarget, Connections: 64, ToPeer: 3.49, P50ToPeer: 9},
		{Target: searchTarget, Connections: 64, ToPeer: 1.5},
		{Target: dovecotTarget, Connections: 64, ToEcho: 0.4, ToPeer: 1.19},
		{Target: muxTarget, Connections: 8, ToPeer: 2},
		{Target: muxTarget, Connections: 64, ToPeer: 1},
	})
	want := []check{
		{"Dovecot protocol to the echo floor, 64 connections", "0.40", "at least 0.4", true, true},
		{"Dovecot protocol to Dovecot's auth service, 64 connections", "1.19", "at least 1.2", false, true},
		{"saslauthd protocol to saslauthd, 8 connections", "2.00", "at least 2.0", true, true},
		{"LDAP binds to slapd's, 64 connections", "3.49", "at least 3.5", false, true},
		{"LDAP search then bind to slapd's, 64 connections", "1.50", "at least 1.5", true, true},
		{"p50 of an LDAP bind to slapd's, 1 connection", "1.60", "at most 1.5", false, true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("speedChecks: -want +got\n%s", diff)
	}
	if got := speedChecks([]row{{Target: ldapTarget, Connections: 64}}); len(got) != 0 {
		t.Errorf("without slapd: %+v, want none", got)
	}
}

func TestEveryTargetHasAFloorAndEveryGoalATarget(t *testing.T) {
	for _, name := range allTargets {
		if name != slapdSearchTarget && name != searchTarget && !slices.Contains(allTargets, floors[name]) {
			t.Errorf("floors[%s] = %q, want a target", name, floors[name])
		}
	}
	for own, peer := range peers {
		if !slices.Contains(valetkeyTargets, own) || !slices.Contains(allTargets, peer) {
			t.Errorf("peers[%s] = %q, want one of the daemon's targets and another", own, peer)
		}
	}
	for _, g := range goals {
		if !slices.Contains(allTargets, g.target) {
			t.Errorf("goal %q: no target %q", g.name, g.target)
		}
	}
}

func TestReportFailsOnlyForCountedChecks(t *testing.T) {
	missed := func(r report) bool { return r.write(io.Discard, false) != nil }
	if missed(report{Checks: []check{{Name: "speed", Timed: true}, {Name: "count", Met: true}}}) {
		t.Error("a missed goal of speed made the run fail")
	}
	if !missed(report{Checks: []check{{Name: "count"}}}) {
		t.Error("a missed count did not make the run fail")
	}
	if err := (report{}).write(brokenWriter{}, true); err == nil {
		t.Error("an error of writing JSON was lost")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }
