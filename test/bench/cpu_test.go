package main

import (
	"os"
	"slices"
	"testing"
)

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		name, stat string
		parent     int
		ticks      int64
		fails      bool
	}{
		{"plain", "10 (slapd) S 7 10 1 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 9 0 555 1 2", 7, 124, false},
		{"name with parenthesis and spaces", "10 (a) b (c) S 7 10 1 0 -1 4194560 1 2 3 4 1 2 0 0 20 0 9 0 5", 7, 3, false},
		{"short", "10 (a) S 7", 0, 0, true},
		{"empty", "", 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent, ticks, err := parseStat([]byte(c.stat))
			if parent != c.parent || ticks != c.ticks || (err != nil) != c.fails {
				t.Errorf("parseStat = %d, %d, %v, want %d, %d, error %v", parent, ticks, err, c.parent, c.ticks, c.fails)
			}
		})
	}
}

func TestDescendantsFindsThisProcess(t *testing.T) {
	if got := descendants(os.Getppid()); !slices.Contains(got, os.Getpid()) {
		t.Errorf("descendants(parent) = %v, want this process %d among them", got, os.Getpid())
	}
	if got := readCPU(os.Getpid(), false); got.Generator == 0 {
		t.Error("readCPU: no time of this process, want some")
	}
}

func TestReadCPUOfLeashed(t *testing.T) {
	apart, together := readCPU(os.Getppid(), false), readCPU(os.Getppid(), true)
	if together.Children != 0 || together.Server < apart.Server+apart.Children {
		t.Errorf("readCPU(leashed) = %+v, want no children and at least the sum of %+v", together, apart)
	}
}
