package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		check func(options) bool
		fails string
	}{
		{"defaults", nil, func(o options) bool {
			return slices.Equal(o.connections, []int{1, 8, 64}) && slices.Equal(o.targets, allTargets) && o.accounts == 2000 && o.logins == 2000
		}, ""},
		{"fewer accounts than logins", []string{"--accounts", "10"}, func(o options) bool { return o.logins == 10 }, ""},
		{"some targets", []string{"--targets", "slapd,echo-tcp", "--conns", "4"}, func(o options) bool {
			return o.want(slapdTarget) && !o.want(ldapTarget, dovecotTarget) && slices.Equal(o.connections, []int{4})
		}, ""},
		{"unknown target", []string{"--targets", "glauth"}, nil, "--targets"},
		{"peers by default", nil, func(o options) bool {
			return o.dovecotScheme == "SSHA" && o.checkpassword == 300 && o.want(dovecotAuthTarget) && o.want(cyrusTarget) && o.want(muxTarget)
		}, ""},
		{"second factor", []string{"--enrolment"}, func(o options) bool {
			return o.enrolment && strings.Contains(settings(o), "valetkey-2fa-file") && !strings.Contains(settings(o), "slapd")
		}, ""},
		{"no checkpassword", []string{"--checkpassword", "0"}, func(o options) bool { return o.checkpassword == 0 }, ""},
		{"checkpassword", []string{"--checkpassword", "-1"}, nil, "--checkpassword"},
		{"list", []string{"--list", "1000000"}, func(o options) bool { return o.list == 1_000_000 && strings.Contains(settings(o), "40000 accounts") }, ""},
		{"list of too few", []string{"--list", "3"}, nil, "--list"},
		{"connections", []string{"--conns", "0"}, nil, "--conns"},
		{"rounds", []string{"--rounds", "0"}, nil, "--rounds"},
		{"all faults at once", []string{"--rounds", "0", "--conns", "x", "more"}, nil, "more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parseOptions(c.args, io.Discard)
			switch {
			case c.fails == "" && err != nil:
				t.Errorf("parseOptions(%q) = %v, want no error", c.args, err)
			case c.fails == "" && !c.check(o):
				t.Errorf("parseOptions(%q) = %+v", c.args, o)
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("parseOptions(%q) = %v, want an error that names %s", c.args, err, c.fails)
			}
		})
	}
}

func TestSettingsTellOfWhatIsMeasured(t *testing.T) {
	all, err := parseOptions([]string{"--dovecot-scheme", "SHA512-CRYPT"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2000 accounts", "dovecot-auth: 1 {SHA512-CRYPT}", "saslauthd: -c -n 5", "slapd: 1 {SSHA}"} {
		if got := settings(all); !strings.Contains(got, want) {
			t.Errorf("settings = %q, want %q in it", got, want)
		}
	}
	own := all
	own.targets = valetkeyTargets
	if got := settings(own); strings.Contains(got, "SHA") {
		t.Errorf("settings of the daemon alone = %q, want no peer", got)
	}
}

func TestProve(t *testing.T) {
	for _, c := range []struct {
		name   string
		accept func(int) (bool, error)
		want   error
	}{
		{"right", func(i int) (bool, error) { return i == 0, nil }, nil},
		{"rejects all", func(int) (bool, error) { return false, nil }, errRejected},
		{"accepts all", func(int) (bool, error) { return true, nil }, errAccepted},
		{"broken", func(int) (bool, error) { return false, io.ErrUnexpectedEOF }, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := prove(fakeTarget{answer: c.accept}); err != c.want {
				t.Errorf("prove = %v, want %v", err, c.want)
			}
		})
	}
}

func TestSSHA(t *testing.T) {
	text, ok := strings.CutPrefix(ssha("password"), "{SSHA}")
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != sha1.Size+8 {
		t.Fatalf("ssha = %s, want {SSHA} and %d bytes of base64", text, sha1.Size+8)
	}
	if sum := sha1.Sum(append([]byte("password"), raw[sha1.Size:]...)); !bytes.Equal(sum[:], raw[:sha1.Size]) {
		t.Errorf("ssha: the digest is not that of password and salt")
	}
}

func TestWriteLDIF(t *testing.T) {
	var b strings.Builder
	if err := writeLDIF(&b, newCredentials(3), 25, newReader()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(b.String(), "\nuserPassword: {SSHA}"); got != 76 {
		t.Errorf("writeLDIF wrote %d passwords, want 75 and the reader's", got)
	}
	if got := strings.Count(b.String(), "\n\ndn: uid=user0000"); got != 3 {
		t.Errorf("writeLDIF wrote %d people, want 3", got)
	}
}

func TestLastWordsAreTheEndOfTheLog(t *testing.T) {
	p := &process{logPath: t.TempDir() + "/log"}
	if err := os.WriteFile(p.logPath, []byte(strings.Repeat("x", 5000)+"the end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.lastWords(); !strings.HasSuffix(got, "the end") || len(got) > 2000 {
		t.Errorf("lastWords = %d bytes that end in %q, want at most 2000 that end in \"the end\"", len(got), got[max(0, len(got)-9):])
	}
	p.dropLog()
	if got := p.lastWords(); got != "" {
		t.Errorf("lastWords after dropLog = %q, want none", got)
	}
}
