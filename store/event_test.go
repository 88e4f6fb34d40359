package store_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/valetkey/valetkey/store"
)

// A kind that somebody adds is offered to people, too.
func TestEventKinds(t *testing.T) {
	text, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for _, m := range regexp.MustCompile(`(?m)^\tevent\w+ += "([a-z_.]+)"`).FindAllStringSubmatch(string(text), -1) {
		written = append(written, m[1])
	}
	slices.Sort(written)
	offered := slices.Sorted(slices.Values(store.EventKinds()))
	if len(written) == 0 || !slices.Equal(offered, written) {
		t.Errorf("EventKinds = %v, want those that event.go names: %v", offered, written)
	}
}
