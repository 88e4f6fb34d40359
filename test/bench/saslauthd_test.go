package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestIMAPLogins(t *testing.T) {
	s, err := serveIMAPLogins([]credential{{"alice@example.org", "abcd-efgh"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	for _, c := range []struct {
		name, lines, want string
		asked             int64
	}{
		{"right", "saslauthd LOGIN \"alice@example.org\" \"abcd-efgh\"\r\nsaslauthd LOGOUT\r\n",
			"saslauthd OK done\r\n* BYE\r\nsaslauthd OK done\r\n", 1},
		{"wrong password", "a LOGIN \"alice@example.org\" \"abcd-efgi\"\r\n", "a NO done\r\n", 1},
		{"empty password", "a LOGIN \"alice@example.org\" \"\"\r\n", "a NO done\r\n", 1},
		{"unknown login, empty password", "a LOGIN \"bob@example.org\" \"\"\r\n", "a NO done\r\n", 1},
		{"anything else", "a CAPABILITY\r\n", "* BAD what? done\r\n", 0},
		{"nothing", "", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.asked.Load()
			var out bytes.Buffer
			s.serve(struct {
				io.Reader
				io.Writer
			}{strings.NewReader(c.lines), &out})
			if want := "* OK ready\r\n" + c.want; out.String() != want {
				t.Errorf("answers %q, want %q", out.String(), want)
			}
			if got := s.asked.Load() - before; got != c.asked {
				t.Errorf("asked %d times, want %d", got, c.asked)
			}
		})
	}
}

func TestCyrusCacheCheck(t *testing.T) {
	c := &cyrus{backend: &imapLogins{}, warm: 2001}
	for asked, want := range map[int64]bool{2001: true, 2021: true, 2022: false} {
		c.backend.asked.Store(asked)
		if got := c.cacheCheck(2000); got.Met != want || got.Timed {
			t.Errorf("cacheCheck with %d past the cache = %+v, want met %v, not timed", asked-c.warm, got, want)
		}
	}
}
