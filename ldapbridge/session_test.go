package ldapbridge

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

func TestMessageIDsRoundTrip(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	for _, id := range []int32{1, 127, 128, 255, 256, 32767, 32768, 65536, 8388607, 8388608, 1<<31 - 1} {
		if replies := talk(t, s, whoami(id)); len(replies) != 1 || replies[0].id != id {
			t.Errorf("id %d: answers = %v", id, replies)
		}
	}
	// Reused ids and ids in any order are the client's business.
	if replies := talk(t, s, whoami(9), whoami(9), whoami(3)); len(replies) != 3 || replies[1].id != 9 || replies[2].id != 3 {
		t.Errorf("reused ids: answers = %v", replies)
	}
	// More octets than necessary, as long as four suffice.
	long := cons(ber.Sequence, []byte{2, 4, 0, 0, 0, 5}, cons(opExtendedRequest, tagged(0x80, oidWhoAmI)))
	if replies := talk(t, s, long); len(replies) != 1 || replies[0].id != 5 {
		t.Errorf("id in four octets: answers = %v", replies)
	}
}

// lengthen writes every length of the element in four octets, as Active Directory does.
func lengthen(element []byte) []byte {
	r := ber.NewReader(element)
	var out []byte
	for !r.Empty() {
		tag, body, err := r.Next()
		if err != nil {
			panic(err)
		}
		if tag&0x20 != 0 {
			body = lengthen(body)
		}
		out = append(out, tag, 0x84, byte(len(body)>>24), byte(len(body)>>16), byte(len(body)>>8), byte(len(body)))
		out = append(out, body...)
	}
	return out
}

func TestLongLengthOctets(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	filter := cons(filterAnd, cons(filterEqual, str("uid"), str("alice")), cons(filterSubstrings, str("cn"), cons(ber.Sequence, tagged(0x80, "al"))))
	replies := talk(t, s, lengthen(bindReq(1, aliceDN, alicePass, controls(ctl(str("1.2.3"), no, str("v"))))), lengthen(whoami(2)),
		lengthen(searchReq(3, searchSpec{base: testBase, scope: 2, filter: filter, attrs: []string{"cn"}})))
	if len(replies) != 4 || replies[0].code != success || replies[1].value != "dn:"+aliceDN || replies[2].name != aliceDN || replies[3].code != success {
		t.Errorf("answers = %v", replies)
	}
}

// Garbage framing gets no answer.
func TestGarbageIsClosedSilently(t *testing.T) {
	tests := map[string][]byte{
		"TLS hello":             {0x16, 3, 1, 2, 0, 1, 0},
		"HTTP":                  []byte("GET / HTTP/1.1\r\n\r\n"),
		"SSH":                   []byte("SSH-2.0-x\r\n"),
		"SET":                   cons(ber.Set, integ(1)),
		"indefinite length":     {0x30, 0x80, 2, 1, 1, 0x42, 0, 0, 0},
		"length of 5 octets":    {0x30, 0x85, 0, 0, 0, 0, 5, 2, 1, 1, 0x42, 0},
		"length of 127 octets":  append([]byte{0x30, 0xff}, make([]byte, 200)...),
		"length of 2 GiB":       {0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 2, 1, 1},
		"length of 4 GiB":       {0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2, 1, 1},
		"65 KiB":                bindReq(1, strings.Repeat("x", 65<<10), "x"),
		"announced 64 KiB":      {0x30, 0x83, 1, 0, 0},
		"256 KiB before a bind": bindReq(1, strings.Repeat("x", 200<<10), "x"),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newTestServer(t, Config{})
			if replies := talk(t, s, in); len(replies) != 0 {
				t.Errorf("answers = %v, want none", replies)
			}
			if replies := talk(t, s, whoami(1), in, whoami(2)); len(replies) != 1 || replies[0].id != 1 {
				t.Errorf("after a request: answers = %v, want that of the request", replies)
			}
		})
	}
}

func TestPDUSizeLimits(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	sized := func(size int) []byte { // a compare of exactly this many bytes
		p := compareReq(9, strings.Repeat("x", size-100), "uid", "x")
		return compareReq(9, strings.Repeat("x", size-100+size-len(p)), "uid", "x")
	}
	bind, anonymous := bindReq(1, aliceDN, alicePass), bindReq(1, "", "")
	tests := []struct {
		name     string
		before   []byte
		size     int
		answered bool
	}{
		{"64 KiB", nil, 64 << 10, true},
		{"64 KiB and a byte", nil, 64<<10 + 1, false},
		{"64 KiB and a byte, anonymous", anonymous, 64<<10 + 1, false},
		{"64 KiB and a byte, bound", bind, 64<<10 + 1, true},
		{"256 KiB, bound", bind, 256 << 10, true},
		{"256 KiB and a byte, bound", bind, 256<<10 + 1, false},
	}
	for _, tt := range tests {
		p := sized(tt.size)
		if len(p) != tt.size {
			t.Fatalf("PDU has %d bytes, want %d", len(p), tt.size)
		}
		replies := talk(t, s, tt.before, p)
		if answered := len(replies) > 0 && replies[len(replies)-1].op == opCompareResponse; answered != tt.answered {
			t.Errorf("%s: answers = %v, want one: %v", tt.name, replies, tt.answered)
		}
	}
}

func TestReadOnly(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	for request, response := range map[byte]byte{opModifyRequest: opModifyResponse, opAddRequest: opAddResponse, opDelRequest: opDelResponse, opModDNRequest: opModDNResponse} {
		op := tagged(request, "x")
		replies := talk(t, s, bindReq(1, aliceDN, alicePass), pdu(2, op), pdu(3, op, controls(ctl(str(oidManageDsaIT), yes))), pdu(4, op, controls(ctl(str("1.2.3"), yes))), whoami(5))
		if len(replies) != 5 || replies[1].op != response || replies[1].code != 53 || replies[1].diag != "read-only" || replies[2].code != 53 ||
			replies[3].op != response || replies[3].code != 12 || replies[4].value != "dn:"+aliceDN {
			t.Errorf("request %#x: answers = %v, want %#x 53, 53 and 12", request, replies, response)
		}
	}
}

func TestExtended(t *testing.T) {
	ext := func(parts ...[]byte) []byte { return pdu(2, cons(opExtendedRequest, parts...)) }
	tests := []struct {
		name string
		pdu  []byte
		want reply
	}{
		{"WhoAmI", whoami(2), reply{value: "dn:" + aliceDN, hasVal: true}},
		{"WhoAmI, unknown control", whoami(2, controls(ctl(str("1.2.3"), no, str("")))), reply{value: "dn:" + aliceDN, hasVal: true}},
		{"WhoAmI, unknown critical control", whoami(2, controls(ctl(str("1.2.3"), yes))), reply{code: 12}},
		{"WhoAmI with a value", ext(tagged(0x80, oidWhoAmI), tagged(0x81, "")), reply{code: 2, diag: "no request value expected"}},
		{"StartTLS", ext(tagged(0x80, oidStartTLS)), reply{code: 2, diag: "StartTLS is not supported"}},
		{"password modify", ext(tagged(0x80, oidPasswordModify), tagged(0x81, "x")), reply{code: 53, diag: "read-only"}},
		{"cancel", ext(tagged(0x80, "1.3.6.1.1.8"), tagged(0x81, "x")), reply{code: 2, diag: "unknown extended request"}},
		{"empty name", ext(tagged(0x80, "")), reply{code: 2, diag: "unknown extended request"}},
	}
	s, _, _ := newTestServer(t, Config{})
	for _, tt := range tests {
		tt.want.id, tt.want.op = 2, opExtendedResponse
		replies := talk(t, s, bindReq(1, aliceDN, alicePass), tt.pdu)
		if len(replies) != 2 || fmt.Sprint(replies[1]) != fmt.Sprint(tt.want) || replies[1].hasVal != tt.want.hasVal {
			t.Errorf("%s: answers = %v, want %v", tt.name, replies, tt.want)
		}
	}
	if replies := talk(t, s, whoami(2)); len(replies) != 1 || replies[0].value != "" || !replies[0].hasVal {
		t.Errorf("anonymous WhoAmI = %v, want an empty value", replies)
	}
	for name, in := range map[string][]byte{"no name": ext(), "value first": ext(tagged(0x81, "x")), "name a string": ext(str(oidWhoAmI))} {
		if replies := talk(t, s, in); len(replies) != 1 || replies[0].id != 0 {
			t.Errorf("%s: answers = %v, want a notice", name, replies)
		}
	}
	// The name in the answer is escaped.
	s.auth = acceptAll{}
	if replies := talk(t, s, bindReq(1, `uid=\,a\+,`+people, "x"), whoami(2)); replies[1].value != `dn:uid=\,a\+,`+people {
		t.Errorf("WhoAmI = %v, want an escaped DN", replies)
	}
}

func TestUnbindAndAbandon(t *testing.T) {
	critical := controls(ctl(str("1.2.840.113556.1.4.319"), yes, str("\x30\x05\x02\x01\x05\x04\x00")), ctl(str(oidManageDsaIT)))
	tests := []struct {
		name string
		pdu  []byte
		open bool
	}{
		{"unbind", unbind(2), false},
		{"unbind with controls", pdu(2, []byte{opUnbindRequest, 0}, critical), false},
		{"unbind with broken controls", pdu(2, []byte{opUnbindRequest, 0}, controls(integ(1))), false},
		{"unbind with contents", pdu(2, tagged(opUnbindRequest, "x")), false},
		{"abandon", pdu(2, []byte{opAbandonRequest, 1, 1}), true},
		{"abandon of an unknown id", pdu(2, []byte{opAbandonRequest, 1, 99}), true},
		{"abandon of nothing", pdu(2, []byte{opAbandonRequest, 0}), true},
		{"abandon with controls", pdu(2, []byte{opAbandonRequest, 1, 1}, critical), true},
	}
	s, _, _ := newTestServer(t, Config{})
	for _, tt := range tests {
		replies := talk(t, s, whoami(1), tt.pdu, whoami(3))
		if want := map[bool]int{true: 2, false: 1}[tt.open]; len(replies) != want {
			t.Errorf("%s: answers = %v, want %d", tt.name, replies, want)
		}
	}
}

// A session must read the same however the network cuts it.
func TestSplitAnywhere(t *testing.T) {
	in := bytes.Join([][]byte{
		bindReq(1, "", ""), searchReq(2, searchSpec{}), bindReq(3, aliceDN, alicePass, controls(ctl(str(oidPasswordPolicy)))),
		searchReq(4, searchSpec{base: aliceDN, attrs: []string{"cn"}}), pdu(5, []byte{opAbandonRequest, 1, 4}), lengthen(whoami(6)), bindReq(7, aliceDN, "wrong"), whoami(8), unbind(9),
	}, nil)
	s, _, _ := newTestServer(t, Config{})
	want := fmt.Sprint(talk(t, s, in))
	if strings.Count(want, " ") < 10 {
		t.Fatalf("session = %s", want)
	}
	for chunk := 1; chunk < 40; chunk++ {
		if got := fmt.Sprint(talkOn(t, s, &memConn{in: slices.Clone(in), chunk: chunk})); got != want {
			t.Errorf("in pieces of %d: answers = %s, want %s", chunk, got, want)
		}
	}
	for cut := range in {
		m := &twoPieces{memConn: memConn{in: slices.Clone(in)}, first: cut}
		newConn(s, m, "tcp:test").Serve()
		replies, err := parseReplies(m.out.Bytes())
		if got := fmt.Sprint(replies); err != nil || got != want {
			t.Errorf("cut at %d: answers = %s, %v, want %s", cut, got, err, want)
		}
	}
	// And whatever is cut off never has an effect.
	for cut := range in {
		m := &memConn{in: slices.Clone(in[:cut])}
		got := fmt.Sprint(talkOn(t, s, m))
		if !strings.HasPrefix(want, strings.TrimSuffix(got, "]")) {
			t.Errorf("ended at %d: answers = %s, want a beginning of %s", cut, got, want)
		}
	}
}

type twoPieces struct {
	memConn
	first int
}

func (p *twoPieces) Read(b []byte) (int, error) {
	if p.first > 0 {
		b = b[:min(len(b), p.first)]
		p.first -= len(b)
	}
	return p.memConn.Read(b)
}

// Decoding a bind allocates nothing, whatever it holds.
func TestDecodeAllocatesNothing(t *testing.T) {
	l := defaultLimits(t)
	in := [][]byte{
		bindReq(1, aliceDN, alicePass, controls(ctl(str(oidPasswordPolicy), no))),
		bindReq(1, strings.Repeat("x", 60<<10), strings.Repeat("y", 1<<10)),
		searchReq(1, searchSpec{base: aliceDN, scope: 2, filter: cons(filterAnd, repeat(cons(filterEqual, str("uid"), str("alice")), 400)), attrs: slices.Repeat([]string{"cn"}, 250)}),
		pdu(1, repeat([]byte{0x30, 0}, 30000)),
		bindReq(1, aliceDN, alicePass, controls(repeat(ctl(str("1")), 5000))),
	}
	m := message{controls: make([]control, 0, 16)}
	var d dn
	d.parse([]byte(aliceDN), l)
	for i, p := range in {
		r := ber.NewReader(p)
		body, err := r.Expect(ber.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(10, func() {
			if m.decode(body, l.Controls) != nil {
				return
			}
			var b bindRequest
			var s searchRequest
			if m.op == opBindRequest && b.decode(m.body) == nil {
				d.parse(b.name, l)
			}
			if m.op == opSearchRequest && s.decode(m.body) == nil {
				checkFilter(s.filter, l)
			}
		}); n != 0 {
			t.Errorf("input %d: %v allocations, want 0", i, n)
		}
	}
}

func TestCredentialsAreWipedFromTheBuffer(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	c := newConn(s, &memConn{in: bindReq(1, aliceDN, alicePass)}, "tcp:test")
	c.Serve()
	if bytes.Contains(c.in, []byte(alicePass)) || !bytes.Contains(c.in, []byte(aliceDN)) {
		t.Errorf("read buffer = %q, want the name without the password", c.in[:100])
	}
}
