package wire

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func cut(message []byte) (header [HeaderSize]byte, body []byte) {
	copy(header[:], message)
	return header, message[min(HeaderSize, len(message)):]
}

func TestRequestBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		r    Request
		want string
	}{
		{"login", Request{Login, "alice", "secret", "imap", "192.0.2.7", "s1", TLSYes},
			"\x01L\x00\x29\x00\x05alice\x00\x06secret\x00\x04imap\x00\x09192.0.2.7\x00\x02s1\x00\x03yes"},
		{"lookup", Request{Op: Userdb, User: "alice"}, "\x01U\x00\x11\x00\x05alice\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"any bytes", Request{Op: Check, User: "a\x00b\xff", Password: "\n\x00", TLS: TLSNo},
			"\x01C\x00\x14\x00\x04a\x00b\xff\x00\x02\n\x00\x00\x00\x00\x00\x00\x00\x00\x02no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := AppendRequest(nil, c.r)
			if err != nil || string(got) != c.want {
				t.Errorf("AppendRequest(%+v) = %q, %v, want %q", c.r, got, err, c.want)
			}
			header, body := cut([]byte(c.want))
			if n, err := RequestLength(header); err != nil || n != len(body) {
				t.Errorf("RequestLength(%q) = %d, %v, want %d", header, n, err, len(body))
			}
			if back, err := ParseRequest(header, body); err != nil || back != c.r {
				t.Errorf("ParseRequest(%q) = %+v, %v, want %+v", c.want, back, err, c.r)
			}
		})
	}
}

func TestReplyBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		r    Reply
		want string
	}{
		{"accepted", Reply{Accepted, "alice", []Field{{"uid", "8"}, {"free", ""}}}, "\x01A\x00\x17\x00\x05alice\x00\x03uid\x00\x018\x00\x04free\x00\x00"},
		{"accepted without fields", Reply{Outcome: Accepted, User: "a"}, "\x01A\x00\x03\x00\x01a"},
		{"rejected", Reply{Outcome: Rejected}, "\x01R\x00\x00"},
		{"unknown", Reply{Outcome: Unknown}, "\x01N\x00\x00"},
		{"undecided", Reply{Outcome: Undecided}, "\x01T\x00\x00"},
		{"refused", Reply{Outcome: Refused}, "\x01F\x00\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := AppendReply(nil, c.r)
			if err != nil || string(got) != c.want {
				t.Errorf("AppendReply(%+v) = %q, %v, want %q", c.r, got, err, c.want)
			}
			header, body := cut([]byte(c.want))
			if n, err := ReplyLength(header); err != nil || n != len(body) {
				t.Errorf("ReplyLength(%q) = %d, %v, want %d", header, n, err, len(body))
			}
			back, err := ParseReply(header, body)
			if err != nil || back.Outcome != c.r.Outcome || back.User != c.r.User || !slices.Equal(back.Fields, c.r.Fields) {
				t.Errorf("ParseReply(%q) = %+v, %v, want %+v", c.want, back, err, c.r)
			}
		})
	}
}

// TestOnlyAcceptedNamesAnybody: a caller's mistake must not let a name out with a rejection.
func TestOnlyAcceptedNamesAnybody(t *testing.T) {
	got, err := AppendReply(nil, Reply{Rejected, "alice", []Field{{"uid", "8"}}})
	if want := "\x01R\x00\x00"; err != nil || string(got) != want {
		t.Errorf("AppendReply(rejected, with a user) = %q, %v, want %q", got, err, want)
	}
}

func TestLimits(t *testing.T) {
	fits := Request{Op: Login, User: strings.Repeat("u", MaxRequest-12)}
	if _, err := AppendRequest(nil, fits); err != nil {
		t.Errorf("AppendRequest(%d bytes) = %v, want nil", MaxRequest, err)
	}
	fits.Password = "x"
	if got, err := AppendRequest([]byte("kept"), fits); !errors.Is(err, ErrTooLong) || string(got) != "kept" {
		t.Errorf("AppendRequest(%d bytes) = %q, %v, want what was there and ErrTooLong", MaxRequest+1, got, err)
	}
	reply := Reply{Accepted, "a", []Field{{"name", strings.Repeat("v", MaxReply-11)}}}
	if _, err := AppendReply(nil, reply); err != nil {
		t.Errorf("AppendReply(%d bytes) = %v, want nil", MaxReply, err)
	}
	reply.User = "ab"
	if _, err := AppendReply(nil, reply); !errors.Is(err, ErrTooLong) {
		t.Errorf("AppendReply(%d bytes) = %v, want ErrTooLong", MaxReply+1, err)
	}
	// The length of a field must not wrap around.
	if _, err := AppendReply(nil, Reply{Accepted, strings.Repeat("u", 1<<16+1), nil}); !errors.Is(err, ErrTooLong) {
		t.Errorf("AppendReply(a field of 65537 bytes) = %v, want ErrTooLong", err)
	}
}

func TestMalformedRequests(t *testing.T) {
	const fields = "\x00\x05alice\x00\x06secret\x00\x04imap\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct{ name, message string }{
		{"another version", "\x02L\x00\x1b" + fields},
		{"no such operation", "\x01X\x00\x1b" + fields},
		{"a reply", "\x01A\x00\x1b" + fields},
		{"too long", "\x01L\x10\x01"},
		{"nothing in it", "\x01L\x00\x00"},
		{"a field missing", "\x01L\x00\x19" + fields[:25]},
		{"half a length", "\x01L\x00\x1a" + fields[:26]},
		{"a field longer than the rest", "\x01L\x00\x0c\x00\x05alice\x00\xffabc"},
		{"a field too many", "\x01L\x00\x1d" + fields + "\x00\x00"},
		{"a byte too many", "\x01L\x00\x1c" + fields + "x"},
		{"TLS of another kind", "\x01L\x00\x1c" + fields[:26] + "\x01x"},
		{"a lookup with a password", "\x01U\x00\x1b" + fields},
		{"a credentials lookup with a password", "\x01K\x00\x1b" + fields},
	} {
		t.Run(c.name, func(t *testing.T) {
			header, body := cut([]byte(c.message))
			_, err := RequestLength(header)
			if err == nil {
				_, err = ParseRequest(header, body)
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("parsing %q = %v, want ErrMalformed", c.message, err)
			}
		})
	}
	header, body := cut([]byte("\x01L\x00\x1b" + fields))
	if _, err := ParseRequest(header, body); err != nil {
		t.Errorf("parsing what the cases above are made of = %v, want nil", err)
	}
}

func TestMalformedReplies(t *testing.T) {
	for _, c := range []struct{ name, message string }{
		{"another version", "\x00R\x00\x00"},
		{"no such outcome", "\x01X\x00\x00"},
		{"an echo of the request", "\x01L\x00\x00"},
		{"too long", "\x01A\x80\x01"},
		{"accepted nobody", "\x01A\x00\x00"},
		{"accepted an empty name", "\x01A\x00\x02\x00\x00"},
		{"rejected somebody", "\x01R\x00\x03\x00\x01a"},
		{"a name without a value", "\x01A\x00\x08\x00\x01a\x00\x03uid"},
		{"an empty name", "\x01A\x00\x08\x00\x01a\x00\x00\x00\x01x"},
		{"a byte too many", "\x01A\x00\x04\x00\x01ax"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header, body := cut([]byte(c.message))
			_, err := ReplyLength(header)
			if err == nil {
				_, err = ParseReply(header, body)
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("parsing %q = %v, want ErrMalformed", c.message, err)
			}
		})
	}
}

// FuzzRequest: what parses is sent as the very same bytes, so both ends agree on what was asked.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x01L\x00\x1b\x00\x05alice\x00\x06secret\x00\x04imap\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01U\x00\x11\x00\x05alice\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) < HeaderSize {
			return
		}
		header, body := cut(message)
		n, err := RequestLength(header)
		if err != nil || n > len(body) {
			return
		}
		if n > MaxRequest {
			t.Fatalf("RequestLength(%q) = %d, want %d at most", header, n, MaxRequest)
		}
		r, err := ParseRequest(header, body[:n])
		if err != nil {
			return
		}
		if r.Op.Lookup() && r.Password != "" {
			t.Errorf("ParseRequest(%q) is a lookup with a password", message)
		}
		if again, err := AppendRequest(nil, r); err != nil || !bytes.Equal(again, message[:HeaderSize+n]) {
			t.Errorf("AppendRequest(ParseRequest(%q)) = %q, %v, want the same", message, again, err)
		}
	})
}

// FuzzReply: as [FuzzRequest], and nobody is accepted without a name.
func FuzzReply(f *testing.F) {
	f.Add([]byte("\x01A\x00\x17\x00\x05alice\x00\x03uid\x00\x018\x00\x04free\x00\x00"))
	f.Add([]byte("\x01R\x00\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) < HeaderSize {
			return
		}
		header, body := cut(message)
		n, err := ReplyLength(header)
		if err != nil || n > len(body) {
			return
		}
		if n > MaxReply {
			t.Fatalf("ReplyLength(%q) = %d, want %d at most", header, n, MaxReply)
		}
		r, err := ParseReply(header, body[:n])
		if err != nil {
			return
		}
		if (r.Outcome == Accepted) != (r.User != "") {
			t.Errorf("ParseReply(%q) = %+v, want a name if accepted, and only then", message, r)
		}
		if again, err := AppendReply(nil, r); err != nil || !bytes.Equal(again, message[:HeaderSize+n]) {
			t.Errorf("AppendReply(ParseReply(%q)) = %q, %v, want the same", message, again, err)
		}
	})
}
