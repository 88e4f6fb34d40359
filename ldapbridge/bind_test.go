package ldapbridge

import (
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

func TestBindDecisionTable(t *testing.T) {
	simple := func(version int32, name, password string, more ...[]byte) []byte {
		return pdu(7, cons(opBindRequest, integ(version), str(name), tagged(0x80, password)), more...)
	}
	long := strings.Repeat("x", 60<<10)
	tests := []struct {
		name  string
		cfg   Config
		pdu   []byte
		code  resultCode
		diag  string
		asked bool // the authenticator was
		logs  string
	}{
		{name: "version 2", pdu: simple(2, aliceDN, alicePass), code: 2, diag: "only LDAPv3 is supported"},
		{name: "version 2, anonymous", pdu: simple(2, "", ""), code: 2, diag: "only LDAPv3 is supported"},
		{name: "version 0", pdu: simple(0, aliceDN, alicePass), code: 2, diag: "only LDAPv3 is supported"},
		{name: "version -3", pdu: simple(-3, aliceDN, alicePass), code: 2, diag: "only LDAPv3 is supported"},
		{name: "version 259 is not 3", pdu: simple(259, aliceDN, alicePass), code: 2, diag: "only LDAPv3 is supported"},
		{name: "SASL PLAIN", pdu: pdu(7, cons(opBindRequest, integ(3), str(""), cons(0xa3, str("PLAIN"), str("\x00alice\x00"+alicePass)))), code: 7},
		{name: "SASL EXTERNAL", pdu: pdu(7, cons(opBindRequest, integ(3), str(aliceDN), cons(0xa3, str("EXTERNAL")))), code: 7},
		{name: "Sicily", pdu: pdu(7, cons(opBindRequest, integ(3), str(aliceDN), tagged(0x89, ""))), code: 7},
		{name: "SASL empty", pdu: pdu(7, cons(opBindRequest, integ(3), str(""), cons(0xa3))), code: 7},
		{name: "anonymous", pdu: simple(3, "", ""), code: 0},
		{name: "unauthenticated", pdu: simple(3, aliceDN, ""), code: 53, diag: "unauthenticated bind (DN with no password) disallowed"},
		{name: "unauthenticated, unparsable", pdu: simple(3, "alice", ""), code: 53, diag: "unauthenticated bind (DN with no password) disallowed"},
		{name: "unauthenticated, a space", pdu: simple(3, " ", ""), code: 53, diag: "unauthenticated bind (DN with no password) disallowed"},
		{name: "name empty", pdu: simple(3, "", alicePass), code: 49},
		{name: "accepted", pdu: simple(3, aliceDN, alicePass), code: 0, asked: true},
		{name: "accepted by alias", pdu: simple(3, "uid=al,"+people, alicePass), code: 0, asked: true},
		{name: "accepted, spelled otherwise", pdu: simple(3, "UserID = ALICE , OU=People,dc = EXAMPLE,0.9.2342.19200300.100.1.25=org", alicePass), code: 0, asked: true},
		{name: "accepted, escaped", pdu: simple(3, `uid=\61\6cice,ou=pe\6Fple,dc=example,dc=org`, alicePass), code: 0, asked: true},
		{name: "wrong password", pdu: simple(3, aliceDN, "wrong"), code: 49, asked: true},
		{name: "password with a NUL behind it", pdu: simple(3, aliceDN, alicePass+"\x00"), code: 49, logs: `reason=bad_format count=yes proto=ldap svc=ldap user=alice`},
		{name: "password of NUL", pdu: simple(3, aliceDN, "\x00"), code: 49, logs: "reason=bad_format"},
		{name: "password of a space", pdu: simple(3, aliceDN, " "), code: 49, asked: true},
		{name: "password not UTF-8", pdu: simple(3, aliceDN, alicePass+"\xff"), code: 49, logs: "reason=bad_format"},
		{name: "password of 512 bytes", pdu: simple(3, aliceDN, long[:512]), code: 49, asked: true},
		{name: "password of 513 bytes", pdu: simple(3, aliceDN, long[:513]), code: 49, logs: "reason=bad_format"},
		{name: "password of 60 KiB", pdu: simple(3, aliceDN, long), code: 49, logs: "reason=bad_format"},
		{name: "unknown user", pdu: simple(3, "uid=nobody,"+people, alicePass), code: 49, asked: true},
		{name: "name that is no login", pdu: simple(3, "uid=a b,"+people, alicePass), code: 49, asked: true},
		{name: "undecided", pdu: simple(3, "uid=broken,"+people, alicePass), code: 80, diag: "temporary failure", asked: true},
		{name: "accepted without a login", pdu: simple(3, "uid=nameless,"+people, "nameless"), code: 80, diag: "temporary failure", asked: true, logs: "level=ERROR"},
		{name: "unparsable", pdu: simple(3, "alice", alicePass), code: 49, logs: `result=fail rip=192.0.2.7 reason=bad_dn count=no proto=ldap svc=ldap user=alice session=`},
		{name: "a space", pdu: simple(3, " ", alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "UPN", pdu: simple(3, "alice@example.org", alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "foreign suffix", pdu: simple(3, "uid=alice,ou=people,dc=example,dc=com", alicePass), code: 49, logs: "reason=foreign_dn count=no"},
		{name: "suffix itself", pdu: simple(3, testBase, alicePass), code: 49, logs: "reason=foreign_dn"},
		{name: "parent of the accounts", pdu: simple(3, people, alicePass), code: 49, logs: "reason=foreign_dn"},
		{name: "one too deep", pdu: simple(3, "cn=x,"+aliceDN, alicePass), code: 49, logs: "reason=foreign_dn"},
		{name: "suffix inside a value", pdu: simple(3, `uid=alice\,ou=people,dc=example,dc=org`, alicePass), code: 49, logs: "reason=foreign_dn"},
		{name: "other attribute", pdu: simple(3, "cn=alice,"+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "two values", pdu: simple(3, "uid=alice+cn=x,"+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "twice the same value", pdu: simple(3, "uid=alice+uid=alice,"+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "name with a NUL", pdu: simple(3, "uid=alice\x00,"+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "name with an escaped NUL", pdu: simple(3, `uid=alice\00,`+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "name with a newline", pdu: simple(3, "uid=alice\nrip=1.2.3.4,"+people, alicePass), code: 49, logs: `user="uid=alice\nrip=1.2.3.4,ou=`},
		{name: "name with an escaped leading space", pdu: simple(3, `uid=\ alice,`+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "name with an escaped trailing space", pdu: simple(3, `uid=alice\20,`+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "name not UTF-8", pdu: simple(3, "uid=alice\xff,"+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "name not UTF-8, escaped", pdu: simple(3, `uid=alice\ff,`+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "hex value", pdu: simple(3, "uid=#0405616c696365,"+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "empty value", pdu: simple(3, "uid=,"+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "name of 60 KiB", pdu: simple(3, "uid="+long+","+people, alicePass), code: 49, logs: "reason=bad_dn"},
		{name: "TLS required", cfg: Config{RequireTLS: true}, pdu: simple(3, aliceDN, alicePass), code: 13, diag: "TLS required"},
		{name: "TLS required, unparsable", cfg: Config{RequireTLS: true}, pdu: simple(3, "alice", alicePass), code: 13, diag: "TLS required"},
		{name: "TLS required, anonymous", cfg: Config{RequireTLS: true}, pdu: simple(3, "", ""), code: 0},
		{name: "TLS required, unauthenticated", cfg: Config{RequireTLS: true}, pdu: simple(3, aliceDN, ""), code: 53, diag: "unauthenticated bind (DN with no password) disallowed"},
		{name: "critical control", pdu: simple(3, aliceDN, alicePass, controls(ctl(str("1.2.3"), yes))), code: 12},
		{name: "critical control, anonymous", pdu: simple(3, "", "", controls(ctl(str("1.2.3"), yes))), code: 12},
		{name: "critical control with 01 for true", pdu: simple(3, aliceDN, alicePass, controls(ctl(str("1.2.3"), []byte{1, 1, 1}))), code: 12},
		{name: "critical control second", pdu: simple(3, aliceDN, alicePass, controls(ctl(str(oidPasswordPolicy)), ctl(str("1.2.3"), yes, str("v")))), code: 12},
		{name: "ManageDsaIT is none of bind's", pdu: simple(3, aliceDN, alicePass, controls(ctl(str(oidManageDsaIT), yes))), code: 12},
		{name: "control without criticality", pdu: simple(3, aliceDN, alicePass, controls(ctl(str("1.2.3")))), code: 0, asked: true},
		{name: "control with explicit FALSE", pdu: simple(3, aliceDN, alicePass, controls(ctl(str("1.2.3"), no, str("v")))), code: 0, asked: true},
		{name: "control with a value only", pdu: simple(3, aliceDN, alicePass, controls(ctl(str("1.2.3"), str("v")))), code: 0, asked: true},
		{name: "password policy control, critical", pdu: simple(3, aliceDN, alicePass, controls(ctl(str(oidPasswordPolicy), yes))), code: 0, asked: true},
		{name: "empty controls", pdu: simple(3, aliceDN, alicePass, controls()), code: 0, asked: true},
		{name: "junk after the controls", pdu: simple(3, aliceDN, alicePass, controls(), str("junk")), code: 0, asked: true},
		{name: "junk after the request fields", pdu: pdu(7, cons(opBindRequest, integ(3), str(aliceDN), tagged(0x80, alicePass), str("junk"))), code: 0, asked: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, a, logged := newTestServer(t, tt.cfg)
			replies := talk(t, s, tt.pdu, whoami(8))
			want := reply{id: 7, op: opBindResponse, code: tt.code, diag: tt.diag}
			if len(replies) != 2 || replies[0].String() != want.String() {
				t.Fatalf("bind answered %v, want %v and a WhoAmI", replies, want)
			}
			identity := ""
			if tt.code == success && tt.asked {
				identity = "dn:" + aliceDN
			}
			if replies[1].value != identity {
				t.Errorf("WhoAmI afterwards = %q, want %q", replies[1].value, identity)
			}
			if asked := len(a.asked()) > 0; asked != tt.asked {
				t.Errorf("authenticator asked = %v, want %v", asked, tt.asked)
			}
			log := logged.String()
			if tt.logs == "" && log != "" || !strings.Contains(log, tt.logs) || strings.Count(log, "\n") > 1 {
				t.Errorf("log = %q, want one line with %q", log, tt.logs)
			}
			if strings.Contains(log, alicePass) || len(log) > 1000 {
				t.Errorf("log holds the password or is too long: %q", log)
			}
		})
	}
}

func TestBindRequestFields(t *testing.T) {
	s, a, _ := newTestServer(t, Config{Listener: "tcp:*:389", Service: "wiki"})
	talk(t, s, bindReq(1, "uid=Alice,"+people, alicePass))
	got := a.asked()[0]
	if len(got.Session) != 8 {
		t.Errorf("Session = %q, want 8 hex digits", got.Session)
	}
	want := auth.Request{Login: "Alice", Password: alicePass, Service: "wiki", FrontEnd: "ldap", Listener: "tcp:test",
		Addr: got.Addr, TLS: auth.TLSNo, Session: got.Session, Keep: got.Keep, Pace: got.Pace}
	if got != want || got.Keep == nil || got.Pace == nil || got.Addr.String() != "192.0.2.7" {
		t.Errorf("request = %+v, want %+v from 192.0.2.7", got, want)
	}
}

// What is refused without asking takes as long as what is refused by the authenticator: with an upstream directory, the name alone
// decides which of the two it is.
func TestBindRefusedWithoutAsking(t *testing.T) {
	for name, bind := range map[string][]byte{
		"no DN": bindReq(1, "alice", alicePass), "a foreign DN": bindReq(1, "uid=alice,dc=example,dc=com", alicePass),
		"what cannot be a password": bindReq(1, aliceDN, "a\x00b"),
	} {
		s, a, _ := newTestServer(t, Config{Listener: "tcp:*:389"})
		talk(t, s, bind)
		if len(a.asked()) != 0 || len(a.refused) != 1 || a.refused[0].Pace == nil {
			t.Errorf("%s: %d questions, refused %+v, want one that knows the connection's pace", name, len(a.asked()), a.refused)
		}
	}
}

// A bind that fails leaves the connection anonymous (RFC 4513 section 4), whatever it was before.
func TestFailedRebindForgetsIdentity(t *testing.T) {
	tests := map[string][]byte{
		"wrong password":   bindReq(2, aliceDN, "wrong"),
		"unauthenticated":  bindReq(2, aliceDN, ""),
		"undecided":        bindReq(2, "uid=broken,"+people, "x"),
		"unparsable":       bindReq(2, "x", "x"),
		"version 2":        pdu(2, cons(opBindRequest, integ(2), str(aliceDN), tagged(0x80, alicePass))),
		"SASL":             pdu(2, cons(opBindRequest, integ(3), str(""), cons(0xa3, str("EXTERNAL")))),
		"critical control": bindReq(2, aliceDN, alicePass, controls(ctl(str("1.2.3"), yes))),
		"anonymous":        bindReq(2, "", ""),
	}
	for name, second := range tests {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newTestServer(t, Config{})
			replies := talk(t, s, bindReq(1, aliceDN, alicePass), second, whoami(3), searchReq(4, searchSpec{base: aliceDN}))
			if len(replies) != 4 || replies[0].code != success || replies[2].value != "" || replies[3].code != insufficientAccess {
				t.Errorf("answers = %v, want an empty identity and a refused search", replies)
			}
		})
	}
}

func TestPipelinedBindIsSeenByTheNextRequest(t *testing.T) {
	s, _, _ := newTestServer(t, Config{})
	m := &memConn{in: append(append(bindReq(1, aliceDN, alicePass), whoami(2)...), append(bindReq(3, "uid=bob,"+people, "bobs"), whoami(4)...)...)}
	replies := talkOn(t, s, m)
	if len(replies) != 4 || replies[1].value != "dn:"+aliceDN || replies[3].value != "dn:uid=bob,"+people {
		t.Errorf("answers = %v", replies)
	}
	if m.writes != 2 {
		t.Errorf("writes = %d, want 2: one before the second decision, one at the end", m.writes)
	}
}

func TestBindUndecodable(t *testing.T) {
	tests := map[string][]byte{
		"nothing":               pdu(7, cons(opBindRequest)),
		"version only":          pdu(7, cons(opBindRequest, integ(3))),
		"no authentication":     pdu(7, cons(opBindRequest, integ(3), str(aliceDN))),
		"name is an integer":    pdu(7, cons(opBindRequest, integ(3), integ(3), tagged(0x80, "x"))),
		"version is a string":   pdu(7, cons(opBindRequest, str("3"), str(aliceDN), tagged(0x80, "x"))),
		"version of 5 octets":   pdu(7, cons(opBindRequest, []byte{2, 5, 0, 0, 0, 0, 3}, str(aliceDN), tagged(0x80, "x"))),
		"version empty":         pdu(7, cons(opBindRequest, []byte{2, 0}, str(aliceDN), tagged(0x80, "x"))),
		"universal choice":      pdu(7, cons(opBindRequest, integ(3), str(aliceDN), str("x"))),
		"constructed name":      pdu(7, cons(opBindRequest, integ(3), cons(0x24, str(aliceDN)), tagged(0x80, "x"))),
		"password cut short":    pdu(7, cons(opBindRequest, integ(3), str(aliceDN), []byte{0x80, 5, 'x'})),
		"indefinite length":     pdu(7, cons(opBindRequest, integ(3), str(aliceDN), []byte{0x80, 0x80, 'x', 0, 0})),
		"junk that is no TLV":   pdu(7, cons(opBindRequest, integ(3), str(aliceDN), tagged(0x80, alicePass), []byte{4})),
		"control no sequence":   bindReq(7, aliceDN, alicePass, controls(str("x"))),
		"control empty":         bindReq(7, aliceDN, alicePass, controls(ctl())),
		"control oid integer":   bindReq(7, aliceDN, alicePass, controls(ctl(integ(1)))),
		"control two octets":    bindReq(7, aliceDN, alicePass, controls(ctl(str("1.2.3"), []byte{1, 2, 0, 0}))),
		"criticality behind":    bindReq(7, aliceDN, alicePass, controls(ctl(str("1.2.3"), str("v"), yes))),
		"criticality twice":     bindReq(7, aliceDN, alicePass, controls(ctl(str("1.2.3"), no, yes))),
		"control cut short":     bindReq(7, aliceDN, alicePass, controls([]byte{0x30, 9, 4, 1, '1'})),
		"17 controls":           bindReq(7, aliceDN, alicePass, controls(repeat(ctl(str("1.2.3")), 17))),
		"op of a long tag":      pdu(7, []byte{0x7f, 0x60, 0}),
		"unknown op":            pdu(7, cons(0x62, str("x"))),
		"response as a request": pdu(7, cons(opBindResponse, enum(0), str(""), str(""))),
		"no op":                 pdu(7, nil),
		"empty":                 {0x30, 0},
		"id missing":            cons(ber.Sequence, cons(opBindRequest, integ(3), str(""), tagged(0x80, ""))),
		"id 0":                  bindReq(0, aliceDN, alicePass),
		"id -1":                 bindReq(-1, aliceDN, alicePass),
		"id of 5 octets":        cons(ber.Sequence, []byte{2, 5, 0, 0, 0, 0, 1}, cons(opBindRequest, integ(3), str(""), tagged(0x80, ""))),
		"id of 9 octets":        cons(ber.Sequence, []byte{2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1}, cons(opBindRequest, integ(3), str(""), tagged(0x80, ""))),
		"id empty":              cons(ber.Sequence, []byte{2, 0}, cons(opBindRequest, integ(3), str(""), tagged(0x80, ""))),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			s, a, _ := newTestServer(t, Config{})
			replies := talk(t, s, in, whoami(8))
			if len(replies) != 1 || replies[0].id != 0 || replies[0].op != opExtendedResponse || replies[0].code != protocolError || replies[0].name != oidNotice {
				t.Errorf("answers = %v, want a notice of disconnection and nothing after it", replies)
			}
			if len(a.asked()) != 0 {
				t.Error("the authenticator was asked")
			}
		})
	}
}

func repeat(b []byte, n int) []byte { return []byte(strings.Repeat(string(b), n)) }
