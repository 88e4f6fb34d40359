package ber

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestHeader(t *testing.T) {
	tests := []struct {
		name         string
		in           []byte
		head, length int
		err          error
	}{
		{"empty", nil, 0, 0, ErrShort},
		{"tag only", []byte{0x30}, 0, 0, ErrShort},
		{"short form", []byte{0x30, 0x7f}, 2, 127, nil},
		{"one octet", []byte{0x30, 0x81, 0x80}, 3, 128, nil},
		{"one octet, not minimal", []byte{0x30, 0x81, 0x05}, 3, 5, nil},
		{"four octets, not minimal", []byte{0x30, 0x84, 0, 0, 0, 0x0c}, 6, 12, nil},
		{"four octets missing", []byte{0x30, 0x84, 0, 0, 0}, 0, 0, ErrShort},
		{"2^31-1", []byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff}, 6, math.MaxInt32, nil},
		{"2^31", []byte{0x30, 0x84, 0x80, 0, 0, 0}, 0, 0, ErrSyntax},
		{"2^32-1", []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, 0, 0, ErrSyntax},
		{"five octets", []byte{0x30, 0x85, 0, 0, 0, 0, 1}, 0, 0, ErrSyntax},
		{"indefinite", []byte{0x30, 0x80, 0, 0}, 0, 0, ErrSyntax},
		{"reserved length", []byte{0x30, 0xff}, 0, 0, ErrSyntax},
		{"long tag", []byte{0x1f, 0x81, 0x01}, 0, 0, ErrSyntax},
	}
	for _, tt := range tests {
		if _, head, length, err := Header(tt.in); head != tt.head || length != tt.length || err != tt.err {
			t.Errorf("%s: Header(% x) = %d, %d, %v, want %d, %d, %v", tt.name, tt.in, head, length, err, tt.head, tt.length, tt.err)
		}
	}
}

func TestIntRoundTrip(t *testing.T) {
	sizes := map[int32]int{0: 1, 1: 1, -1: 1, 127: 1, 128: 2, -128: 1, -129: 2, 255: 2, 256: 2, 32767: 2, 32768: 3, -32768: 2, -32769: 3,
		8388607: 3, 8388608: 4, math.MaxInt32: 4, math.MinInt32: 4}
	for v, size := range sizes {
		b := AppendInt(nil, Integer, v)
		r := NewReader(b)
		got, err := r.Int()
		if err != nil || got != v || len(b) != 2+size || !r.Empty() {
			t.Errorf("AppendInt(%d) = % x, read back as %d, %v; want %d octets", v, b, got, err, size)
		}
	}
	for _, in := range [][]byte{{}, {0, 0, 0, 0, 1}, {0xff, 0xff, 0xff, 0xff, 0xff}, make([]byte, 9)} {
		if v, err := ParseInt(in); err == nil {
			t.Errorf("ParseInt(% x) = %d, nil, want an error", in, v)
		}
	}
}

func TestBeginEnd(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 255, 256, 65535, 65536, 1<<24 - 1, 1 << 24} {
		contents := bytes.Repeat([]byte{'x'}, n)
		b, outer := Begin([]byte("before"), Sequence)
		b, inner := Begin(b, Set)
		b = append(b, contents...)
		b = End(b, inner)
		b = AppendBool(b, Boolean, true)
		b = End(b, outer)
		b = append(b, "after"...)
		r := NewReader(bytes.TrimPrefix(b, []byte("before")))
		seq, err := r.Expect(Sequence)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if want := AppendString(nil, Sequence, append(AppendString(nil, Set, contents), 1, 1, 0xff)); !bytes.Equal(b, append(append([]byte("before"), want...), "after"...)) {
			t.Errorf("%d bytes: Begin and End differ from AppendString", n)
		}
		in := NewReader(seq)
		if got, err := in.Expect(Set); err != nil || !bytes.Equal(got, contents) {
			t.Errorf("%d bytes: read back %d, %v", n, len(got), err)
		}
		if v, err := in.Bool(); err != nil || !v || !in.Empty() {
			t.Errorf("%d bytes: Bool = %v, %v", n, v, err)
		}
	}
}

func TestReader(t *testing.T) {
	r := NewReader([]byte{0x04, 0x02, 'a', 'b', 0x04, 0x05, 'c'})
	if r.Peek() != OctetString {
		t.Errorf("Peek = %#x", r.Peek())
	}
	if whole, err := r.NextElement(); err != nil || string(whole) != "\x04\x02ab" {
		t.Errorf("NextElement = %q, %v", whole, err)
	}
	if _, _, err := r.Next(); !errors.Is(err, ErrShort) || r.Empty() {
		t.Errorf("Next of a cut element = %v, want ErrShort and nothing consumed", err)
	}
	var zero Reader
	if _, _, err := zero.Next(); !zero.Empty() || zero.Peek() != 0 || !errors.Is(err, ErrShort) {
		t.Error("the zero Reader is not at its end")
	}
	for _, in := range [][]byte{{1, 0}, {1, 2, 0, 0}, {2, 1, 0}} {
		r := NewReader(in)
		if v, err := r.Bool(); err == nil {
			t.Errorf("Bool of % x = %v, nil, want an error", in, v)
		}
	}
	r = NewReader([]byte{1, 1, 7})
	if v, err := r.Bool(); !v || err != nil {
		t.Errorf("Bool of 07 = %v, %v, want true", v, err)
	}
}

// FuzzBER walks any bytes and writes what it read again: the elements must come back the same.
func FuzzBER(f *testing.F) {
	f.Add([]byte{0x30, 0x0c, 0x02, 0x01, 0x01, 0x60, 0x07, 0x02, 0x01, 0x03, 0x04, 0x00, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, in []byte) { walk(t, in, 0) })
}

func walk(t *testing.T, in []byte, depth int) {
	for r := NewReader(in); !r.Empty(); {
		before := r
		tag, body, err := r.Next()
		if err != nil {
			return
		}
		whole, err := before.NextElement()
		if err != nil || len(whole) < len(body)+2 || len(whole) > len(body)+6 || before.rest == nil != (r.rest == nil) || len(before.rest) != len(r.rest) {
			t.Fatalf("NextElement = % x, %v, contents % x", whole, err, body)
		}
		again := NewReader(AppendString(nil, tag, body))
		if tag2, body2, err := again.Next(); err != nil || tag2 != tag || !bytes.Equal(body, body2) || !again.Empty() {
			t.Fatalf("%#x % x came back as %#x % x, %v", tag, body, tag2, body2, err)
		}
		opened, mark := Begin(nil, tag)
		if closed := End(append(opened, body...), mark); !bytes.Equal(closed, AppendString(nil, tag, body)) {
			t.Fatalf("Begin and End wrote % x", closed)
		}
		if v, err := ParseInt(body); err == nil {
			n := AppendInt(nil, tag, v)
			if w, err := ParseInt(n[2:]); err != nil || w != v || len(n) > len(body)+2 {
				t.Fatalf("integer % x = %d came back as %d, %v", body, v, w, err)
			}
		}
		if tag&0x20 != 0 && depth < 20 {
			walk(t, body, depth+1)
		}
	}
}
