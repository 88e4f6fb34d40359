package ldapbridge

import (
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
)

func TestMissingGroups(t *testing.T) {
	c := Config{Applications: []Application{{Name: "wiki", Group: "staff"}, {Name: "cloud"}, {Name: "git", Group: "coders"}}}
	s, _, _ := newTestServer(t, c)
	want := map[string]bool{"git": true}
	if got, err := s.MissingGroups(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("of our own groups: %v, %v, want %v", got, err, want)
	}
	var staff atomic.Int32 // groups of that name
	staff.Store(1)
	u, _ := testUpstream(t, UpstreamLimits{}, newFakeUpstream(t, func(l *fakeLink, q fakeSearch) {
		var out []byte
		for i := range staff.Load() {
			if strings.Contains(string(q.filter), "staff") {
				out = append(out, rawEntry(q.id, fmt.Sprintf("cn=staff,ou=%d,%s", i, testBase), []string{"cn", "staff"})...)
			}
		}
		l.Write(append(out, rawDone(q.id, success)...))
	}))
	s.src = u
	if got, err := s.MissingGroups(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("of an upstream: %v, %v, want %v", got, err, want)
	}
	staff.Store(2)
	if got, err := s.MissingGroups(t.Context()); err == nil {
		t.Errorf("of an upstream with two of a name: %v, want an error", got)
	}
}
