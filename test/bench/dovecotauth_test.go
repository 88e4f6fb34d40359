package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseCacheHits(t *testing.T) {
	const line = "Nov 24 20:02:04 auth: Info: Authentication cache hits %d/%d (1%%)\n"
	for _, c := range []struct {
		name, log   string
		hits, total uint64
		ok          bool
	}{
		{"a line among others", "x\n" + fmt.Sprintf(line, 7, 12) + "Authentication cache inserts: positive: 0\n", 7, 12, true},
		{"never asked", fmt.Sprintf(line, 0, 0), 0, 0, true},
		{"the last counts", fmt.Sprintf(line, 7, 12) + fmt.Sprintf(line, 9, 14), 9, 14, true},
		{"no line", "Dovecot v2.3.19.1 starting up\n", 0, 0, false},
		{"half a line", "Authentication cache hits 7/1", 0, 0, false},
		{"out of range", "Authentication cache hits 1/99999999999999999999 (0%)\n", 0, 0, false},
		{"empty", "", 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			hits, total, ok := parseCacheHits(c.log)
			if ok != c.ok || ok && (hits != c.hits || total != c.total) {
				t.Errorf("parseCacheHits = %d, %d, %v, want %d, %d, %v", hits, total, ok, c.hits, c.total, c.ok)
			}
		})
	}
}

func TestWritePasswdFile(t *testing.T) {
	creds := newCredentials(3)
	var b strings.Builder
	if err := writePasswdFile(t.Context(), &b, creds, defaultScheme); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != len(creds) {
		t.Fatalf("%d lines, want %d", len(lines), len(creds))
	}
	for i, c := range creds {
		if want := c.login + ":{SSHA}"; !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d = %q, want %q and base64", i, lines[i], want)
		}
	}
}
