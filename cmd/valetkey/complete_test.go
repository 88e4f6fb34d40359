package main

import (
	"strings"
	"testing"
)

func TestJustBefore(t *testing.T) {
	for _, prefix := range []string{"a", "heidi", "é", "hé", "\ue000", "x\U00010000", "a ", "\x01"} {
		before := justBefore(prefix)
		if before >= prefix || strings.HasPrefix(before, prefix) {
			t.Errorf("justBefore(%q) = %q, want something before it", prefix, before)
		}
		// What is between begins with it: names that are next to it do not.
		for _, other := range []string{"a", "A", "heich", "heid", "heidh", "heidhz", "heidj", "h", "hè", "hèzzz", "\ud7ff", "\ud7ffz", "x\uffff"} {
			if other < prefix && other > before {
				t.Errorf("justBefore(%q) = %q, and %q is behind it", prefix, before, other)
			}
		}
	}
	for _, prefix := range []string{"", "\x00", "a\xff"} {
		if got := justBefore(prefix); got != "" {
			t.Errorf("justBefore(%q) = %q, want the beginning", prefix, got)
		}
	}
}
