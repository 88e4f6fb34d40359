package main

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
)

// Every command that a remedy names exists, with its flags.
func TestRemediesNameCommands(t *testing.T) {
	command := regexp.MustCompile(`valetkey ((?:[a-z-]+ ?)+)((?:[A-Z=-]+ )*(--[a-z-]+)?)`)
	found := 0
	for word, e := range admin.Reasons {
		for _, m := range command.FindAllStringSubmatch(e.Remedy, -1) {
			found++
			var out, errs bytes.Buffer
			a := &app{in: strings.NewReader(""), out: &out, err: &errs}
			words := strings.Fields(m[1])
			// The words behind the command are the sentence's.
			code := -1
			for n := len(words); n > 0 && code != 0; n-- {
				out.Reset()
				code = a.run(context.Background(), append(append([]string{}, words[:n]...), "--help"))
			}
			if code != 0 || strings.Contains(out.String(), "Available Commands:\n  account ") {
				t.Errorf("%s: the remedy %q names no command: %s", word, e.Remedy, errs.String())
			}
			if m[3] != "" && !strings.Contains(out.String(), m[3]+" ") {
				t.Errorf("%s: %q has no flag %s", word, m[0], m[3])
			}
		}
	}
	if found < 4 {
		t.Errorf("%d commands were found in the remedies, want more: they were not read", found)
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"24h": "2026-11-25T12:00:00Z", "7d": "2026-11-19T12:00:00Z", "90m": "2026-11-26T10:30:00Z", "2026-11-01": "2026-11-01T00:00:00Z",
		"2026-11-01T08:00:00Z": "2026-11-01T08:00:00Z",
	} {
		got, err := parseSince(text, now)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("parseSince(%q) = %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "-1h", "0d", "d", "24", "2026-13-01"} {
		if got, err := parseSince(text, now); err == nil {
			t.Errorf("parseSince(%q) = %v, want an error", text, got)
		}
	}
}

// Nothing that the daemon tells reaches the terminal as a command to it, and a line stays a line.
func TestHostileOutput(t *testing.T) {
	const evil = "x\x1b[2J\nforged\u202ey\x9b"
	at := time.Unix(1000, 0)
	detail, err := json.Marshal(map[string]any{"reason": evil, evil: 1, "list": []string{evil}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := &app{out: &out}
	if err := a.printEvents([]admin.Event{{ID: 1, At: at, Kind: evil, Actor: evil, Login: evil, Label: evil, Detail: detail}}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("an event has %d lines: %q", n, out.String())
	}
	x := admin.WhyAttempt{Reason: evil, Meaning: "m", Service: evil, FrontEnd: evil, Address: evil, Label: evil}
	a.explainWhy(admin.Why{Login: evil, Summary: evil, Account: &admin.Account{Login: evil + "2"}, Attempts: []admin.WhyAttempt{x}, Devices: []admin.WhyAttempt{x},
		AppPasswords: []admin.WhyAppPassword{{AppPassword: admin.AppPassword{Label: evil, Status: admin.Live, LastUsed: &admin.Use{Service: evil, Address: evil}}, Why: []string{evil}}},
		Enrolment:    &admin.Enrolment{Require: evil, Status: evil, ReasonCode: evil, Problem: evil}, Advice: []string{evil}})
	if i := strings.IndexFunc(out.String(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == 0x9b || r == 0x202e }); i >= 0 {
		t.Errorf("a control character reaches the terminal: %q", out.String())
	}
	if strings.Contains(out.String(), "\nforged") {
		t.Errorf("a line is forged: %q", out.String())
	}
}

func TestDetail(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "", `null`: "", `nonsense`: "", `{"why":"lost it","b":""}`: `why="lost it"`, `{"n":3,"a":["x"],"reason":"revoked"}`: `a=["x"] n=3 reason=revoked`,
	} {
		if got := detail(json.RawMessage(text)); got != want {
			t.Errorf("detail(%s) = %q, want %q", text, got, want)
		}
	}
}
