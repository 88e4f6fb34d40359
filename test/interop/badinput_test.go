package interop_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// A bad peer sends something and is told off: by an answer, by the end of its connection, or both.
type badInput struct {
	name string
	send []byte
	// reply is what must come back, from the beginning; nil: nothing may come.
	reply *regexp.Regexp
	// closed: the connection must be closed then. Otherwise it must still be open and good for a login.
	closed bool
	// either: closed or not, both are right.
	either bool
}

// reading is how long a peer waits for what comes back. It is shorter than any idle limit, so that only a close that was
// meant counts.
const reading = 5 * time.Second

// TestBadInput sends what no sane peer would, while a good one logs in on a connection of its own all the time.
//
// It would catch: a panic, a daemon that ends, a front end that blocks all connections while one is stuck, a buffer that grows
// with an announced length, an answer to the wrong request, a refusal that is taken for acceptance, a broken peer that is left
// waiting.
func TestBadInput(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	secret := d.Create(t, "alice", "phone")
	clients := map[string]harness.Client{
		"good dovecot peer": &harness.DovecotClient{Addr: d.DovecotUnix, NoLogin: true},
		"good ldap peer":    &harness.LDAPClient{Addr: d.LDAP},
	}
	load := harness.StartLoad(t, 20*time.Millisecond, clients, []harness.Credential{{Login: "alice", Password: secret, Right: true}})
	// undisturbed wants a login by each good peer that began now, one on a new connection too.
	undisturbed := func(t *testing.T) {
		t.Helper()
		load.WaitEach(t, "a login beside the bad peer", clients, time.Now(), func(a harness.Attempt) bool { return a.Outcome == harness.Accepted })
		for name, c := range map[string]harness.Client{
			"dovecot": &harness.DovecotClient{Addr: d.DovecotUnix},
			"ldap":    &harness.LDAPClient{Addr: d.LDAP},
		} {
			harness.WaitFor(t, "a login on a new "+name+" connection", func() bool {
				defer c.Close()
				got, detail := c.Login("alice", secret)
				if got != harness.Accepted && got != harness.Undecided {
					t.Fatalf("new %s connection: %v (%s), want accepted", name, got, detail)
				}
				return got == harness.Accepted
			})
		}
	}
	undisturbed(t)

	t.Run("dovecot", func(t *testing.T) {
		for _, c := range dovecotInput() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				raw, err := harness.Dial(d.DovecotUnix)
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				// The greeting, as sent in one write.
				greeting := make([]byte, 0, 1024)
				for !bytes.HasSuffix(greeting, []byte("\nDONE\n")) {
					_ = raw.SetReadDeadline(time.Now().Add(reading))
					n, err := raw.Read(greeting[len(greeting):cap(greeting)])
					if err != nil {
						t.Fatalf("handshake: %v after %q", err, greeting)
					}
					greeting = greeting[:len(greeting)+n]
				}
				hold(t, raw, c, "AUTH\t999\tPLAIN\tservice=smtp\tresp="+plain("alice", secret)+"\n",
					regexp.MustCompile(`OK\t999\tuser=alice\b[^\n]*\n`))
			})
		}
	})
	t.Run("ldap", func(t *testing.T) {
		for _, c := range ldapInput(secret) {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				raw, err := harness.Dial(d.LDAP)
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				// The answer's id is 99, 0x63.
				hold(t, raw, c, string(message(99, bind(3, harness.UserDN("alice"), secret))),
					regexp.MustCompile(`(?s)\x30.{1,3}\x02\x01\x63\x61.{1,3}\x0a\x01\x00\x04\x00\x04\x00`))
			})
		}
	})
	undisturbed(t)

	t.Run("peers that never read", func(t *testing.T) {
		flood := map[string]struct {
			addr        string
			first, then []byte
		}{
			"dovecot": {d.DovecotUnix, []byte("VERSION\t1\t2\nCPID\t1\n"), []byte("CONT\t1\t\n")},
			"ldap":    {d.LDAP, nil, message(1, rootDSE())},
		}
		for name, f := range flood {
			conn, err := harness.Dial(f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// Until the daemon stops reading or hangs up, or had far more than its buffers may hold.
			block := bytes.Repeat(f.then, 64<<10/len(f.then))
			_, err = conn.Write(f.first)
			sent := 0
			for err == nil && sent < 256<<20 {
				_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
				var n int
				n, err = conn.Write(block)
				sent += n
			}
			if err == nil {
				t.Errorf("%s: the daemon took %d MiB from a peer that reads nothing", name, sent>>20)
			}
			t.Logf("%s: the daemon took %d KiB, then: %v", name, sent>>10, err)
			undisturbed(t)
		}
	})

	t.Run("half-open connections", func(t *testing.T) {
		for name, half := range map[string]struct {
			addr string
			send []string
		}{
			"dovecot": {d.DovecotUnix, []string{"", "VERS", "VERSION\t1\t2\n", "VERSION\t1\t2\nCPID\t1\nAUTH\t1\tPLAIN\tserv"}},
			"ldap":    {d.LDAP, []string{"", "\x30", "\x30\x84\x00\x00\xff\xff\x02\x01", "\x30\x82\x10\x00\x02\x01\x01\x60"}},
		} {
			for i := range 200 {
				conn, err := harness.Dial(half.addr)
				if err != nil {
					t.Fatalf("%s: connection %d: %v", name, i, err)
				}
				defer conn.Close()
				if _, err := conn.Write([]byte(half.send[i%len(half.send)])); err != nil {
					t.Errorf("%s: connection %d: %v", name, i, err)
				}
			}
			undisturbed(t)
		}
	})
	undisturbed(t)

	attempts := load.Stop()
	harness.CheckServed(t, attempts)
	harness.CheckHonest(t, attempts, reading)
	t.Log(harness.Tally(attempts))
}

// hold sends the bad input and holds the daemon to what is expected. good and accepted are a login and its answer.
func hold(t *testing.T, conn net.Conn, c badInput, good string, accepted *regexp.Regexp) {
	t.Helper()
	_ = conn.SetWriteDeadline(time.Now().Add(reading))
	if _, err := conn.Write(c.send); err != nil && !c.closed && !c.either {
		t.Fatalf("send: %v", err)
	}
	if !c.closed {
		// Written behind the bad input, its answer also marks the end of what the bad input was answered.
		if _, err := conn.Write([]byte(good)); err != nil && !c.either {
			t.Fatalf("send a login after it: %v", err)
		}
	}
	var got []byte
	buf := make([]byte, 16<<10)
	// rest is what came beside the answer to the login. The Dovecot protocol may answer in any order.
	rest := func() (rest []byte, loggedIn bool) {
		at := accepted.FindIndex(got)
		if at == nil {
			return got, false
		}
		return append(append([]byte(nil), got[:at[0]]...), got[at[1]:]...), true
	}
	complete := func() bool {
		rest, loggedIn := rest()
		return !c.closed && loggedIn && (c.reply == nil || c.reply.Match(rest))
	}
	var end error
	_ = conn.SetReadDeadline(time.Now().Add(reading))
	for end == nil && len(got) < 1<<20 && !complete() {
		var n int
		n, end = conn.Read(buf)
		got = append(got, buf[:n]...)
	}
	closed := errors.Is(end, io.EOF) || errors.Is(end, syscall.ECONNRESET) || errors.Is(end, syscall.EPIPE)
	answer, loggedIn := rest()
	switch {
	case errors.Is(end, os.ErrDeadlineExceeded):
		t.Errorf("neither the answer nor a close within %v; got %q", reading, got)
	case end != nil && !closed:
		t.Errorf("read: %v", end)
	case c.closed && !closed:
		t.Errorf("the connection is still open; got %q", got)
	case !c.closed && !c.either && !loggedIn:
		t.Errorf("no login on the same connection after it (%v); got %q", end, got)
	}
	if c.reply == nil && len(answer) > 0 {
		t.Errorf("answer %q, want none", answer)
	}
	if c.reply != nil && !c.reply.Match(answer) && !(c.either && closed) {
		t.Errorf("answer %q, want %q", answer, c.reply)
	}
}

func plain(login, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
}

func dovecotInput() []badInput {
	const hello = "VERSION\t1\t2\nCPID\t4711\n"
	auth := func(resp string) []byte {
		return []byte(hello + "AUTH\t1\tPLAIN\tservice=smtp\tresp=" + resp + "\n")
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	fail := regexp.MustCompile(`^FAIL\t1(\t[^\n]*)?\n$`)
	badBase64 := regexp.MustCompile(`^FAIL\t1\t[^\n]*code=invalid_base64[^\n]*\n$`)
	asText := func(s string) []byte { return []byte(hello + s) }
	return []badInput{
		// Framing and handshake (reference/mail-protocols.md sections 1.1 and 1.2): closed without a word.
		{name: "empty line", send: asText("\n"), closed: true},
		{name: "unknown command", send: asText("STARTTLS\t1\n"), closed: true},
		{name: "line of 64 KiB", send: asText("AUTH\t1\tPLAIN\tservice=smtp\tresp=" + strings.Repeat("A", 64<<10) + "\n"), closed: true},
		{name: "64 KiB without a line", send: []byte(strings.Repeat("A", 64<<10)), closed: true},
		{name: "major version 2", send: []byte("VERSION\t2\t0\nCPID\t1\n"), closed: true},
		{name: "CPID first", send: []byte("CPID\t1\nVERSION\t1\t2\n"), closed: true},
		{name: "AUTH without CPID", send: []byte("VERSION\t1\t2\nAUTH\t1\tPLAIN\tservice=smtp\n"), closed: true},
		{name: "CPID 0", send: []byte("VERSION\t1\t2\nCPID\t0\n"), closed: true},
		{name: "id 0", send: asText("AUTH\t0\tPLAIN\tservice=smtp\n"), closed: true},
		{name: "id 2^32", send: asText("AUTH\t4294967296\tPLAIN\tservice=smtp\n"), closed: true},
		{name: "id -1", send: asText("AUTH\t-1\tPLAIN\tservice=smtp\n"), closed: true},
		{name: "duplicate id", send: asText("AUTH\t1\tPLAIN\tservice=smtp\nAUTH\t1\tPLAIN\tservice=smtp\n"),
			reply: regexp.MustCompile(`^(CONT\t1\t\n)?$`), closed: true},
		{name: "CONT without a field", send: asText("CONT\t1\n"), closed: true},
		{name: "HTTP", send: []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), closed: true},
		{name: "TLS", send: []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"), closed: true},
		{name: "NUL bytes", send: append(bytes.Repeat([]byte{0}, 4096), '\n'), closed: true},

		// Requests: refused, and the connection lives.
		{name: "base64 rubbish", send: auth("!!!!"), reply: badBase64},
		{name: "base64 without padding", send: auth("AGFsaWNlAHNlY3JldA"), reply: badBase64},
		{name: "no message", send: auth("="), reply: fail},
		{name: "message without NUL", send: auth(b64("alice")), reply: fail},
		{name: "NUL in the password", send: auth(b64("\x00alice\x00abcd\x00efgh")), reply: fail},
		{name: "NUL in the login", send: asText("AUTH\t1\tLOGIN\tservice=smtp\tresp=" + b64("al\x00ice") + "\nCONT\t1\t" + b64(neverIssued) + "\n"),
			reply: regexp.MustCompile(`^(CONT\t1\tUGFzc3dvcmQ6\n)?FAIL\t1(\t[^\n]*)?\n`), either: true},
		{name: "invalid UTF-8 in the login", send: auth(plain("al\xff\xfeice", neverIssued)), reply: fail},
		{name: "control characters in the login", send: auth(plain("alice\r\nOK\t1\tuser=root\n\x1b[2J", neverIssued)), reply: fail},
		{name: "login of 8 KiB", send: auth(plain(strings.Repeat("a", 8<<10), neverIssued)), reply: fail},
		{name: "password of 8 KiB", send: auth(plain("alice", strings.Repeat("a", 8<<10))), reply: fail},
		{name: "another authzid", send: auth(b64("root\x00alice\x00" + neverIssued)), reply: fail},
		{name: "empty login", send: auth(plain("", neverIssued)), reply: fail},
		{name: "SQL in the login", send: auth(plain("alice' OR '1'='1", neverIssued)), reply: fail},
		{name: "pattern for a login", send: auth(plain("alic%", neverIssued)), reply: fail},
		{name: "unknown mechanism", send: asText("AUTH\t1\tCRAM-MD5\tservice=smtp\n"), reply: fail, either: true},
		{name: "no service", send: asText("AUTH\t1\tPLAIN\tresp=" + plain("alice", neverIssued) + "\n"), either: true, reply: fail},
		{name: "CONT of nothing", send: asText("CONT\t1\t" + b64("alice") + "\n"), reply: fail},
		{name: "CANCEL of nothing", send: asText("CANCEL\t77\n")},
		{name: "odd parameters", send: asText("AUTH\t1\tPLAIN\tservice=smtp\trip=999.1.1.1\tlip=\trport=-1\tx\t=\t\x01\tresp=" + plain("alice", neverIssued) + "\n"),
			reply: fail},
		{name: "1000 pending requests", send: asText(manyPending(1000)), reply: regexp.MustCompile(`^(CONT\t\d+\t\n){1000}$`), either: true},
	}
}

func manyPending(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "AUTH\t%d\tPLAIN\tservice=smtp\n", i+1)
	}
	return b.String()
}

// tlv encodes an element with definite lengths (X.690); the values of a constructed one are joined.
func tlv(tag byte, values ...[]byte) []byte {
	v := bytes.Join(values, nil)
	out := []byte{tag}
	switch n := len(v); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 1<<16:
		out = append(out, 0x82)
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	default:
		out = append(out, 0x84)
		out = binary.BigEndian.AppendUint32(out, uint32(n))
	}
	return append(out, v...)
}

func message(id byte, op []byte, more ...[]byte) []byte {
	return tlv(0x30, append([][]byte{tlv(0x02, []byte{id}), op}, more...)...)
}

func bind(version byte, dn, password string) []byte {
	return tlv(0x60, tlv(0x02, []byte{version}), tlv(0x04, []byte(dn)), tlv(0x80, []byte(password)))
}

// search is a SearchRequest for all attributes (RFC 4511 section 4.5.1).
func search(base string, scope byte, filter []byte) []byte {
	return tlv(0x63, tlv(0x04, []byte(base)), tlv(0x0a, []byte{scope}), tlv(0x0a, []byte{0}), tlv(0x02, []byte{0}), tlv(0x02, []byte{0}),
		tlv(0x01, []byte{0}), filter, tlv(0x30))
}

func present(attribute string) []byte { return tlv(0x87, []byte(attribute)) }

func rootDSE() []byte { return search("", 0, present("objectClass")) }

func ldapInput(secret string) []badInput {
	// result matches a response with this operation tag and code, however long its diagnostic message is.
	result := func(op, code byte) *regexp.Regexp {
		return regexp.MustCompile(`(?s)\A` + bytesPattern(0x30) + `.*` + bytesPattern(op) + `.{1,3}` + bytesPattern(0x0a, 1, code))
	}
	notice := result(0x78, 2)
	alice := harness.UserDN("alice")
	deep := present("objectClass")
	for range 5000 {
		deep = tlv(0xa2, deep)
	}
	huge := tlv(0x60, tlv(0x02, []byte{3}), tlv(0x04, bytes.Repeat([]byte("a"), 64<<10)), tlv(0x80, []byte(neverIssued)))
	unknownCritical := tlv(0xa0, tlv(0x30, tlv(0x04, []byte("1.2.3.4.5")), tlv(0x01, []byte{0xff})))
	quiet := regexp.MustCompile(`(?s)\A.*`) // a notice of disconnection or nothing
	return []badInput{
		// Framing (reference/ldap-server.md section 2): a notice of disconnection at most, and closed.
		{name: "HTTP", send: []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), reply: quiet, closed: true},
		{name: "TLS", send: []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), reply: quiet, closed: true},
		{name: "NUL bytes", send: bytes.Repeat([]byte{0}, 4096), reply: quiet, closed: true},
		{name: "indefinite length", send: []byte("\x30\x80\x02\x01\x01\x42\x00\x00\x00"), reply: quiet, closed: true},
		{name: "length of 4 GiB", send: []byte("\x30\x84\xff\xff\xff\xff\x02\x01\x01"), reply: quiet, closed: true},
		{name: "length of 2^63", send: []byte("\x30\x88\x7f\xff\xff\xff\xff\xff\xff\xff\x02\x01\x01"), reply: quiet, closed: true},
		{name: "length of 1 GiB", send: []byte("\x30\x84\x40\x00\x00\x00\x02\x01\x01"), reply: quiet, closed: true},
		{name: "name of 64 KiB", send: message(1, huge), reply: quiet, closed: true},
		{name: "1 MB of empty sequences", send: tlv(0x30, bytes.Repeat([]byte{0x30, 0}, 500_000)), reply: quiet, closed: true},
		{name: "empty message", send: []byte("\x30\x00"), reply: quiet, closed: true},
		{name: "inner length beyond the message", send: []byte("\x30\x0c\x02\x01\x01\x60\x7f\x02\x01\x03\x04\x00\x80\x00"), reply: notice, closed: true},
		{name: "message id 0", send: message(0, bind(3, alice, secret)), reply: notice, closed: true},
		{name: "negative message id", send: message(0xff, bind(3, alice, secret)), reply: notice, closed: true},
		{name: "unknown operation", send: message(1, tlv(0x7e)), reply: notice, closed: true},
		{name: "bind without fields", send: message(1, tlv(0x60)), reply: notice, closed: true},
		{name: "filter 5000 deep", send: message(1, search(harness.BaseDN, 2, deep)), reply: quiet, either: true},
		{name: "unbind", send: message(1, []byte{0x42, 0}), closed: true},

		// Requests: refused, and the connection lives.
		{name: "version 2", send: message(1, bind(2, alice, secret)), reply: result(0x61, 2)},
		{name: "SASL", send: message(1, tlv(0x60, tlv(0x02, []byte{3}), tlv(0x04), tlv(0xa3, tlv(0x04, []byte("EXTERNAL"))))), reply: result(0x61, 7)},
		{name: "NUL in the password", send: message(1, bind(3, alice, secret+"\x00x")), reply: result(0x61, 49)},
		{name: "NUL in the DN", send: message(1, bind(3, "uid=alice\x00,ou=people,"+harness.BaseDN, secret)), reply: result(0x61, 49)},
		{name: "invalid UTF-8 in the DN", send: message(1, bind(3, "uid=al\xff\xfeice,ou=people,"+harness.BaseDN, secret)), reply: result(0x61, 49)},
		{name: "DN of 60 KiB", send: message(1, bind(3, "uid="+strings.Repeat("a", 60<<10)+",ou=people,"+harness.BaseDN, secret)), reply: result(0x61, 49)},
		{name: "DN of 20000 RDNs", send: message(1, bind(3, strings.Repeat("a=b,", 15000)+harness.BaseDN, secret)), reply: result(0x61, 49)},
		{name: "password of 60 KiB", send: message(1, bind(3, alice, strings.Repeat("a", 60<<10))), reply: result(0x61, 49)},
		{name: "two logins in one RDN", send: message(1, bind(3, "uid=bob+uid=alice,ou=people,"+harness.BaseDN, secret)), reply: result(0x61, 49)},
		{name: "pattern for a login", send: message(1, bind(3, "uid=*,ou=people,"+harness.BaseDN, secret)), reply: result(0x61, 49)},
		{name: "not a DN", send: message(1, bind(3, "=,=,\\", secret)), reply: result(0x61, 49)},
		{name: "empty DN with a password", send: message(1, bind(3, "", secret)), reply: result(0x61, 49)},
		{name: "critical unknown control", send: message(1, bind(3, alice, secret), unknownCritical), reply: result(0x61, 12)},
		{name: "search before a bind", send: message(1, search(harness.BaseDN, 2, present("objectClass"))), reply: result(0x65, 50)},
		{name: "bad scope", send: message(1, search(harness.BaseDN, 77, present("objectClass"))), reply: regexp.MustCompile(`(?s)\A0.*\x65`)},
		{name: "delete", send: message(1, tlv(0x4a, []byte(alice))), reply: result(0x6b, 53)},
		{name: "abandon of nothing", send: message(1, tlv(0x50, []byte{77}))},
		{name: "unknown extended request", send: message(1, tlv(0x77, tlv(0x80, []byte("1.2.3.4")))), reply: result(0x78, 2)},
	}
}

// bytesPattern matches these bytes. The text is matched as Latin-1, so that bytes beyond ASCII must not occur in it.
func bytesPattern(b ...byte) string {
	var p strings.Builder
	for _, c := range b {
		fmt.Fprintf(&p, `\x%02x`, c)
	}
	return p.String()
}
