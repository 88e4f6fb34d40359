package config

import (
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Enrolment says when a second factor is asked for, and which plugin knows who has one.
type Enrolment struct {
	Require   string        // "off", "issue" or "login"
	OnError   string        // "last_known", "undecided" or "allow"
	LastKnown time.Duration // how long an answer counts as known after it has run out
	Help      string        // what a user without one has to do, in a sentence after a colon

	Plugin    string   // path of the program; empty: none
	Args, Env []string // Env: NAME=VALUE
	Checksum  string   // SHA-256 in hexadecimal digits; empty: not pinned

	Timeout, StartTimeout, HealthEvery, HealthWithin, StopTimeout time.Duration
	MaxParallel, MaxWaiting, Remembered                           int
}

// Bounds of what a plugin is given.
const (
	maxPluginWords = 64 // arguments, variables
	maxPluginWord  = 4096
	maxHelp        = 200 // characters
)

var (
	sha256Digits = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	variable     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
)

// enrolment reads [enrolment].
func (r *reader) enrolment() Enrolment {
	x := Enrolment{
		Require: r.text("require", "off"), OnError: r.text("on_error", "last_known"), Help: strings.TrimSpace(r.text("help", "enrol one")),
		Plugin: r.text("plugin", ""), Args: r.texts("args"), Env: r.texts("env"), Checksum: r.text("checksum", ""),
	}
	switch x.Require {
	case "off", "issue", "login":
	default:
		r.fault("require", `%q is not "off", "issue" or "login"`, x.Require)
	}
	switch x.OnError {
	case "last_known", "undecided", "allow":
	default:
		r.fault("on_error", `%q is not "last_known", "undecided" or "allow"`, x.OnError)
	}
	switch {
	case x.Plugin == "" && (x.Require == "issue" || x.Require == "login"):
		r.fault("require", "it is %q, and no plugin knows who has a second factor; write plugin = \"/usr/local/bin/valetkey-2fa-file\" and its args, or require = \"off\"", x.Require)
	case x.Plugin == "":
	case !filepath.IsAbs(x.Plugin):
		r.fault("plugin", "%q is not an absolute path; write the one that \"command -v %s\" prints", x.Plugin, filepath.Base(x.Plugin))
	default:
		x.Plugin = filepath.Clean(x.Plugin)
	}
	for key, words := range map[string][]string{"args": x.Args, "env": x.Env} {
		if len(words) > maxPluginWords {
			r.fault(key, "there are %d of them, and at most %d are possible; put them into a file that the plugin reads", len(words), maxPluginWords)
		}
		for _, w := range words {
			if len(w) > maxPluginWord || strings.IndexByte(w, 0) >= 0 {
				r.fault(key, "one of them has more than %d bytes, or a NUL; put it into a file that the plugin reads", maxPluginWord)
			}
		}
	}
	for _, v := range x.Env {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case !variable.MatchString(v):
			r.fault("env", "a variable is written \"NAME=VALUE\", NAME of letters, digits and _") // without the text: it may be a secret
		case strings.HasPrefix(name, "PLUGIN_") || strings.HasPrefix(name, "VALETKEY_ENROLMENT_"):
			r.fault("env", "%s is a name that the daemon itself uses to talk to the plugin; choose another", name)
		}
	}
	if x.Checksum != "" && !sha256Digits.MatchString(x.Checksum) {
		r.fault("checksum", "it is not a SHA-256 of 64 hexadecimal digits; write what \"sha256sum %s\" prints first", x.Plugin)
	}
	if utf8.RuneCountInString(x.Help) > maxHelp || !utf8.ValidString(x.Help) || strings.ContainsFunc(x.Help, unicode.IsControl) {
		r.fault("help", "it must be at most %d characters on one line, such as \"enrol one at https://id.example.org\"", maxHelp)
	}
	x.LastKnown = r.duration("last_known", "24h", time.Minute, 30*24*time.Hour)
	x.Timeout = r.duration("timeout", "1s", 10*time.Millisecond, 5*time.Second) // Postfix waits for 10 s
	x.StartTimeout = r.duration("start_timeout", "10s", 100*time.Millisecond, time.Minute)
	x.HealthEvery = r.duration("health_every", "500ms", 100*time.Millisecond, time.Minute)
	x.HealthWithin = r.duration("health_within", "400ms", 50*time.Millisecond, 10*time.Second)
	x.StopTimeout = r.duration("stop_timeout", "500ms", 10*time.Millisecond, 5*time.Second)
	x.MaxParallel = r.numberWithin("max_parallel", 64, 1, 1024)
	x.MaxWaiting = r.numberWithin("max_waiting", 1024, 1, 65536)
	x.Remembered = r.numberWithin("remembered", 100_000, 100, 10_000_000)
	return x
}

// duration reads a time within bounds.
func (r *reader) duration(key, fallback string, least, most time.Duration) time.Duration {
	text := r.text(key, fallback)
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		r.fault(key, "%q is not a time from %v to %v, such as %q", text, least, most, fallback)
	}
	return d
}

// numberWithin reads a whole number within bounds.
func (r *reader) numberWithin(key string, fallback, least, most int) int {
	n := r.number(key, fallback)
	if n < least || n > most {
		r.fault(key, "%d is not between %d and %d", n, least, most)
	}
	return n
}
