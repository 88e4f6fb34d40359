package main

import "slices"

// latencies are the durations of logins in microseconds.
type latencies []uint32

// percentile returns the smallest value that at least p percent of l are not above (nearest rank). l must be sorted;
// of an empty l it is 0.
func (l latencies) percentile(p float64) uint32 {
	if len(l) == 0 {
		return 0
	}
	rank := int(p/100*float64(len(l)) + 0.999999)
	return l[min(max(rank, 1), len(l))-1]
}

// merged returns all values of the parts, sorted.
func merged(parts []latencies) latencies {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	all := make(latencies, 0, n)
	for _, p := range parts {
		all = append(all, p...)
	}
	slices.Sort(all)
	return all
}

// median of an even number of values is the mean of the middle two; of none it is 0. It does not change xs.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(xs))
	if m := len(s) / 2; len(s)%2 == 1 {
		return s[m]
	} else {
		return (s[m-1] + s[m]) / 2
	}
}
