package main

import (
	"testing"
	"time"
)

func TestParseExpiry(t *testing.T) {
	zone := time.FixedZone("", 2*60*60)
	now := time.Date(2026, 11, 22, 12, 30, 0, 0, zone)
	for _, tc := range []struct {
		text, want string // want is empty for a fault
	}{
		{"90d", "2027-02-20T12:30:00+02:00"},
		{"12h", "2026-11-23T00:30:00+02:00"},
		{"2027-12-31", "2028-01-01T00:00:00+02:00"}, // the end of that day
		{"2027-12-31T18:00:00Z", "2027-12-31T18:00:00Z"},
		{"0d", ""}, {"-1d", ""}, {"1.5d", ""}, {"1000000d", ""}, {"d", ""}, {"90", ""}, {"soon", ""}, {"2027-02-30", ""}, {"", ""},
	} {
		got, err := parseExpiry(tc.text, now)
		if tc.want == "" {
			if err == nil {
				t.Errorf("parseExpiry(%q) = %v, want an error", tc.text, got)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339) != tc.want {
			t.Errorf("parseExpiry(%q) = %v, %v, want %s", tc.text, got.Format(time.RFC3339), err, tc.want)
		}
	}
}

// What an admin's terminal shows must not be what a label or a login tells the terminal to do.
func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"alice":       "alice",
		"Büro 2":      "Büro 2",
		"a\x1b[2Jb":   `"a\x1b[2Jb"`,
		"a\nb":        `"a\nb"`,
		"a\u202eb":    `"a\u202eb"`,
		"\xff":        `"\xff"`,
		"a\u00a0name": `"a\u00a0name"`,
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestUIDOf(t *testing.T) {
	for dn, want := range map[string]string{
		"uid=alice,ou=people,dc=example,dc=org":            "alice",
		`uid=a\,b@example.org,ou=people,dc=example,dc=org`: "a,b@example.org",
		"rubbish": "fallback",
		"":        "fallback",
	} {
		if got := uidOf(dn, "fallback"); got != want {
			t.Errorf("uidOf(%q) = %q, want %q", dn, got, want)
		}
	}
}
