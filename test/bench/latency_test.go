package main

import "testing"

func TestPercentile(t *testing.T) {
	hundred := make(latencies, 100)
	for i := range hundred {
		hundred[i] = uint32(i + 1)
	}
	for _, c := range []struct {
		name string
		l    latencies
		p    float64
		want uint32
	}{
		{"empty", nil, 50, 0},
		{"one value", latencies{7}, 99, 7},
		{"lowest", hundred, 0, 1},
		{"median", hundred, 50, 50},
		{"99th", hundred, 99, 99},
		{"highest", hundred, 100, 100},
		{"rounds the rank up", latencies{1, 2, 3}, 50, 2},
		{"99th of few is the highest", latencies{1, 2, 3}, 99, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.l.percentile(c.p); got != c.want {
				t.Errorf("percentile(%v) = %d, want %d", c.p, got, c.want)
			}
		})
	}
}

func TestMergedIsSorted(t *testing.T) {
	got := merged([]latencies{{5, 1}, nil, {3}})
	if len(got) != 3 || got[0] != 1 || got[1] != 3 || got[2] != 5 {
		t.Errorf("merged = %v, want [1 3 5]", got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		name string
		xs   []float64
		want float64
	}{
		{"none", nil, 0},
		{"odd", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 3, 2}, 2.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := median(c.xs); got != c.want {
				t.Errorf("median(%v) = %v, want %v", c.xs, got, c.want)
			}
		})
	}
}
