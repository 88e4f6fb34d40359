package dovecot

import (
	"bytes"
	"strings"
	"testing"
)

func TestUnescape(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing to do", "alice", "alice"},
		{"empty", "", ""},
		{"all five", "\x010\x011\x01t\x01r\x01n", "\x00\x01\t\r\n"},
		{"unknown sequence", "a\x01xb", "axb"},
		{"escape byte twice", "a\x01\x01b", "a\x01b"},
		{"escape byte at the end", "ab\x01", "ab"},
		{"escape byte alone", "\x01", ""},
		{"in the middle", "al\x01tice", "al\tice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(unescape([]byte(c.in))); got != c.want {
				t.Errorf("unescape(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func TestAppendEscaped(t *testing.T) {
	if got, want := string(appendEscaped([]byte("x="), "\x00\x01\t\r\nal\xff")), "x=\x010\x011\x01t\x01r\x01nal\xff"; got != want {
		t.Errorf("appendEscaped() = %q, want %q", got, want)
	}
}

func TestParseID(t *testing.T) {
	for _, c := range []struct {
		in     string
		want   uint32
		wantOK bool
	}{
		{"1", 1, true},
		{"0001", 1, true},
		{"4294967295", 4294967295, true},
		{"4294967296", 0, false},
		{"99999999999999999999999", 0, false},
		{"0", 0, false},
		{"", 0, false},
		{"+1", 0, false},
		{"1 ", 0, false},
		{"0x1", 0, false},
	} {
		if got, ok := parseID([]byte(c.in)); ok != c.wantOK || ok && got != c.want {
			t.Errorf("parseID(%q) = %d, %v, want %d, %v", c.in, got, ok, c.want, c.wantOK)
		}
	}
}

func TestParsePlain(t *testing.T) {
	for _, c := range []struct {
		name, in                   string
		authzid, authcid, password string
		ok                         bool
	}{
		{"usual", "\x00alice\x00secret", "", "alice", "secret", true},
		{"authzid", "bob\x00alice\x00secret", "bob", "alice", "secret", true},
		{"empty password", "\x00alice\x00", "", "alice", "", true},
		{"empty authcid", "\x00\x00secret", "", "", "", false},
		{"one NUL", "alice\x00secret", "", "", "", false},
		{"three NULs", "\x00alice\x00sec\x00ret", "", "", "", false},
		{"empty", "", "", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			authzid, authcid, password, ok := parsePlain([]byte(c.in))
			if string(authzid) != c.authzid || string(authcid) != c.authcid || string(password) != c.password || ok != c.ok {
				t.Errorf("parsePlain(%q) = %q, %q, %q, %v, want %q, %q, %q, %v",
					c.in, authzid, authcid, password, ok, c.authzid, c.authcid, c.password, c.ok)
			}
		})
	}
}

// FuzzLine holds splitting and escaping to a model that knows no buffers: the whole line at once, by replacement.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"AUTH\t1\tPLAIN", "", "\t\t", "a\x01tb\tc\x01", "\x01\x01\x01\t\x01x\x00\r\n"} {
		f.Add([]byte(s))
	}
	sequences := strings.NewReplacer("\x010", "\x00", "\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n")
	model := func(field string) string {
		var out strings.Builder
		for len(field) > 0 {
			i := strings.IndexByte(field, 1)
			if i < 0 {
				out.WriteString(field)
				break
			}
			out.WriteString(field[:i])
			field = field[i:]
			pair := field[:min(2, len(field))]
			field = field[len(pair):]
			if replaced := sequences.Replace(pair); replaced != pair {
				out.WriteString(replaced)
			} else {
				out.WriteString(pair[1:])
			}
		}
		return out.String()
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want := strings.Split(string(data), "\t")
		fs := fields{rest: bytes.Clone(data)}
		for i, w := range want {
			got, ok := fs.next()
			if !ok || string(got) != model(w) {
				t.Fatalf("field %d of %q = %q, %v, want %q", i, data, got, ok, model(w))
			}
		}
		if got, ok := fs.next(); ok {
			t.Fatalf("field after the last of %q = %q, want none", data, got)
		}

		escaped := appendEscaped(nil, string(data))
		if bytes.ContainsAny(escaped, "\x00\t\r\n") {
			t.Fatalf("appendEscaped(%q) = %q, want no separators", data, escaped)
		}
		if back := unescape(escaped); !bytes.Equal(back, data) {
			t.Fatalf("unescape(appendEscaped(%q)) = %q, want the same", data, back)
		}
		clean := appendClean(nil, string(data))
		if len(clean) != len(data) || bytes.ContainsFunc(clean, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("appendClean(%q) = %q, want as many bytes and no control bytes", data, clean)
		}
	})
}
