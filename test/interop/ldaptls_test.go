package interop_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// tlsDaemon is a daemon whose [[ldap]] listeners are, in this order: without a certificate (its own LDAP), StartTLS with TLS
// required also on loopback, StartTLS as it is by default, LDAPS, and LDAPS on a socket of systemd's.
type tlsDaemon struct {
	*harness.Daemon
	required, offered, ldaps, systemd string // host:port
}

func newTLSDaemon(t *testing.T, url string, c harness.Certificate) *tlsDaemon {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); socket.Close() })
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
	d := &tlsDaemon{harness.NewDaemon(t, url), port(), port(), port(), l.Addr().String()}
	d.Daemon.Sockets = map[string]*os.File{"ldaps": socket}
	for _, x := range []struct{ listen, more string }{
		{d.required, "allow_plaintext = false\n"}, {d.offered, ""}, {d.ldaps, "tls = \"ldaps\"\n"}, {"systemd:ldaps", "tls = \"ldaps\"\n"},
	} {
		d.Sections += fmt.Sprintf("\n[[ldap]]\nlisten = %q\nbase_dn = %q\ntls_cert = %q\ntls_key = %q\n%s", x.listen, harness.BaseDN, c.Cert, c.Key, x.more)
	}
	d.Start(t)
	return d
}

// TestLDAPTLS binds with ldap-utils through StartTLS and LDAPS.
//
// It would catch: a password that is looked at although it came in clear where TLS is required, a handshake that other TLS libraries
// do not finish, a StartTLS that is offered where it would be refused, a listener of systemd's without TLS.
func TestLDAPTLS(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	ours, foreign := harness.NewAuthority(t), harness.NewAuthority(t)
	d := newTLSDaemon(t, url, ours.Issue(t, "server", 60*24*time.Hour))
	d.AddAccount(t, "alice")
	right := d.Create(t, "alice", "wiki")
	alice := harness.UserDN("alice")

	trust := []string{"-o", "TLS_CACERT=" + ours.File, "-o", "TLS_REQCERT=demand"}
	starttls := append([]string{"-ZZ"}, trust...)
	const none = -1 // no LDAP result: the tool gave up before
	for _, c := range []struct {
		name, addr, dn, password string
		args                     []string
		code                     int
		reason                   string // empty: the password was not looked at
	}{
		{"StartTLS, right", d.required, alice, right, starttls, 0, "accepted"},
		{"StartTLS, wrong", d.required, alice, neverIssued, starttls, 49, "no_match"},
		{"StartTLS, main password", d.required, alice, mainPassword, starttls, 49, "bad_format"},
		{"StartTLS, empty password", d.required, alice, "", starttls, 53, ""},
		{"StartTLS, anonymous", d.required, "", "", starttls, 0, ""},
		{"StartTLS, authority that the client does not know", d.required, alice, right, []string{"-ZZ", "-o", "TLS_CACERT=" + foreign.File}, none, ""},
		{"in clear where TLS is required, right", d.required, alice, right, nil, 13, ""},
		{"in clear where TLS is required, wrong", d.required, alice, neverIssued, nil, 13, ""},
		{"in clear where TLS is required, anonymous", d.required, "", "", nil, 0, ""},
		{"-Z where it works", d.required, alice, right, append([]string{"-Z"}, trust...), 0, "accepted"},
		{"offered on loopback, StartTLS", d.offered, alice, right, starttls, 0, "accepted"},
		{"offered on loopback, in clear", d.offered, alice, right, nil, 0, "accepted"},
		{"LDAPS, right", "ldaps://" + d.ldaps, alice, right, trust, 0, "accepted"},
		{"LDAPS, wrong", "ldaps://" + d.ldaps, alice, neverIssued, trust, 49, "no_match"},
		{"LDAPS, authority that the client does not know", "ldaps://" + d.ldaps, alice, right, []string{"-o", "TLS_CACERT=" + foreign.File}, none, ""},
		{"LDAPS, TLS 1.2", "ldaps://" + d.ldaps, alice, right, append([]string{"-o", "TLS_CIPHER_SUITE=NORMAL:-VERS-ALL:+VERS-TLS1.2"}, trust...), 0, "accepted"},
		{"LDAPS, TLS 1.1", "ldaps://" + d.ldaps, alice, right, append([]string{"-o", "TLS_CIPHER_SUITE=NORMAL:-VERS-ALL:+VERS-TLS1.1"}, trust...), none, ""},
		{"in clear to LDAPS", d.ldaps, alice, right, nil, none, ""},
		{"StartTLS within LDAPS", "ldaps://" + d.ldaps, alice, right, starttls, none, ""},
		{"LDAPS on a socket of systemd's", "ldaps://" + d.systemd, alice, right, trust, 0, "accepted"},
		{"StartTLS without a certificate", d.LDAP, alice, right, starttls, none, ""},
		{"-Z without a certificate goes on in clear", d.LDAP, alice, right, append([]string{"-Z"}, trust...), 0, "accepted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark := d.Log().Mark()
			code, out, errOut := harness.LDAPTool(t, "ldapwhoami", c.addr, c.dn, c.password, c.args...)
			// What libldap itself finds is negative, and an exit code above the results of RFC 4511.
			if want := c.code; code != want && (want != none || code == 0 || code == 13 || code == 49) {
				t.Errorf("exit code %d, want %d\n%s%s", code, want, out, errOut)
			}
			if c.code == 13 && !strings.Contains(errOut, "TLS required") {
				t.Errorf("the refusal is %q, want the cure in it", errOut)
			}
			if c.reason != "" {
				d.WantAuth(t, mark, harness.AuthLine{"reason": c.reason, "user": "alice", "proto": "ldap", "rip": "127.0.0.1"})
				return
			}
			// A line that comes late comes before that of the next attempt.
			harness.LDAPTool(t, "ldapwhoami", d.offered, alice, neverIssued)
			d.WantAuth(t, mark, harness.AuthLine{"reason": "no_match"})
		})
	}
	if strings.Contains(d.AllLogs(), right) || strings.Contains(d.AllLogs(), mainPassword) {
		t.Error("the log has a password")
	}

	t.Run("RootDSE", func(t *testing.T) {
		const oid = "supportedExtension: 1.3.6.1.4.1.1466.20037\n"
		for name, x := range map[string]struct {
			addr string
			args []string
			want bool
		}{
			"no certificate": {d.LDAP, nil, false}, "offered": {d.offered, nil, true}, "active": {d.offered, starttls, false}, "LDAPS": {"ldaps://" + d.ldaps, trust, false},
		} {
			code, out, errOut := harness.LDAPTool(t, "ldapsearch", x.addr, "", "", append(x.args, "-LLL", "-s", "base", "-b", "", "supportedExtension")...)
			if code != 0 || strings.Contains(out, oid) != x.want {
				t.Errorf("%s: exit code %d, want StartTLS in it: %v\n%s%s", name, code, x.want, out, errOut)
			}
		}
	})
	t.Run("openssl", func(t *testing.T) {
		for name, args := range map[string][]string{
			d.ldaps: nil, d.required: {"-starttls", "ldap"}, d.offered: {"-starttls", "ldap", "-tls1_2"}, d.systemd: {"-tls1_3"},
		} {
			if code, out := ours.OpenSSLClient(t, name, args...); code != 0 || !strings.Contains(out, "Verification: OK") && !strings.Contains(out, "Verify return code: 0 (ok)") {
				t.Errorf("openssl s_client %q: exit code %d\n%s", args, code, out)
			}
		}
		if code, out := foreign.OpenSSLClient(t, d.ldaps); code == 0 {
			t.Errorf("openssl s_client with another authority: exit code 0\n%s", out)
		}
	})
	t.Run("valetkey try", func(t *testing.T) {
		for _, listener := range []string{"ldap[1]", "ldap[2]", "ldap[3]", "ldap[4]", "ldap[5]"} {
			for secret, want := range map[string]int{right: 0, neverIssued: 1} {
				if code, out, errOut := d.Valetkey(t, secret+"\n", "try", "ldap", "alice", "--listener", listener); code != want {
					t.Errorf("valetkey try ldap at %s: exit code %d, want %d\n%s%s", listener, code, want, out, errOut)
				}
			}
		}
	})
	// Somebody between client and daemon adds a bind in clear behind the client's StartTLS.
	t.Run("clear text behind StartTLS", func(t *testing.T) {
		nc, err := harness.Dial(d.required)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		mark := d.Log().Mark()
		startTLS := []byte("0\x1d\x02\x01\x01w\x18\x80\x161.3.6.1.4.1.1466.20037")
		bind := append([]byte{0x02, 0x01, 0x02, 0x60, byte(3 + 2 + len(alice) + 2 + len(right)), 0x02, 0x01, 0x03, 0x04, byte(len(alice))}, alice...)
		bind = append(append(bind, 0x80, byte(len(right))), right...)
		nc.Write(append(startTLS, append([]byte{0x30, byte(len(bind))}, bind...)...))
		nc.SetReadDeadline(time.Now().Add(harness.Patience))
		// Two answers in clear: StartTLS refused (1), bind refused (13).
		got := make([]byte, 256)
		n := 0
		for !bytes.Contains(got[:n], []byte("TLS required")) {
			k, err := nc.Read(got[n:])
			if n += k; err != nil {
				t.Fatalf("answers %q, then %v", got[:n], err)
			}
		}
		if !bytes.Contains(got[:n], []byte("\x02\x01\x01x")) || !bytes.Contains(got[:n], []byte("\x0a\x01\x01\x04\x00\x040cannot start TLS")) ||
			!bytes.Contains(got[:n], []byte("\x02\x01\x02a")) || !bytes.Contains(got[:n], []byte("\x0a\x01\x0d")) {
			t.Errorf("answers = %q, want 1 to StartTLS and 13 to the bind", got[:n])
		}
		harness.LDAPTool(t, "ldapwhoami", d.offered, alice, neverIssued)
		d.WantAuth(t, mark, harness.AuthLine{"reason": "no_match"})
	})
	// Thousand clients from several addresses connect and say nothing, or not all.
	t.Run("half-open handshakes", func(t *testing.T) {
		for i := range 1000 {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))}, Timeout: harness.Patience}
			nc, err := from.DialContext(t.Context(), "tcp", d.ldaps)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if i%2 == 0 {
				nc.Write([]byte{0x16, 3, 1, 2, 0})
			}
		}
		if code, _, errOut := harness.LDAPTool(t, "ldapwhoami", "ldaps://"+d.ldaps, alice, right, trust...); code != 0 {
			t.Errorf("a login among them: exit code %d\n%s", code, errOut)
		}
		var open int
		for line := range strings.Lines(d.Must(t, "status")) {
			if _, rest, ok := strings.Cut(line, "tcp:"+d.ldaps+", "); ok {
				fmt.Sscan(rest, &open)
			}
		}
		if open == 0 || open > 128 {
			t.Errorf("%d connections, want some and at most 128", open)
		}
	})
	t.Run("valetkey snippet", func(t *testing.T) {
		for listener, want := range map[string]string{"ldap[3]": "ldap://" + d.offered, "ldap[4]": "ldaps://" + d.ldaps} {
			if out := d.Must(t, "snippet", "ldap", "--file", "settings", "--listener", listener); !strings.Contains(out, " "+want+"\n") {
				t.Errorf("valetkey snippet ldap for %s, want %s in it:\n%s", listener, want, out)
			}
		}
	})
	t.Run("status", func(t *testing.T) {
		out := d.Must(t, "status")
		if strings.Count(out, "starttls, certificate until ") != 2 || strings.Count(out, "ldaps, certificate until ") != 2 || strings.Contains(out, "EXPIRE") {
			t.Errorf("valetkey status:\n%s", out)
		}
	})
}

// TestCertificateReplaced renews the certificate of a daemon whose clients stay connected.
//
// It would catch: connections that are lost at a renewal, a renewal that is not seen, one that is seen too early, a broken pair that is
// taken, or that keeps SIGHUP from its other work, an end that nobody hears of.
func TestCertificateReplaced(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	ca := harness.NewAuthority(t)
	// The daemon's files, and what is copied over them.
	used := ca.Issue(t, "used", 60*24*time.Hour)
	d := newTLSDaemon(t, url, used)
	d.AddAccount(t, "alice")
	right := d.Create(t, "alice", "wiki")
	alice := harness.UserDN("alice")
	pem, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	connect := func() *tls.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", d.ldaps, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	presented := func() []byte { c := connect(); defer c.Close(); return c.ConnectionState().PeerCertificates[0].Raw }
	// alive asks WhoAmI (RFC 4532).
	alive := func(when string, c *tls.Conn) {
		t.Helper()
		c.SetDeadline(time.Now().Add(harness.Patience))
		io.WriteString(c, "0\x1e\x02\x01\x05w\x19\x80\x171.3.6.1.4.1.4203.1.11.3")
		got := make([]byte, 64)
		if n, err := c.Read(got); err != nil || !bytes.HasPrefix(got[2:n], []byte("\x02\x01\x05x")) {
			t.Errorf("%s: the old connection answers %q, %v", when, got[:n], err)
		}
	}
	copyTo := func(to, from string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := func(mark int, text string) (n int) {
		for _, line := range d.Log().Since(mark) {
			if strings.Contains(line, text) {
				n++
			}
		}
		return n
	}
	hup := func() {
		t.Helper()
		mark := d.Log().Mark()
		d.Process().Signal(syscall.SIGHUP)
		if _, ok := d.Log().Wait(mark, harness.Patience, func(l string) bool { return strings.Contains(l, ": reloaded") }); !ok {
			t.Fatalf("SIGHUP: the daemon did not say that it reloaded:\n%s", d.Log().Tail(10))
		}
	}

	old := connect()
	alive("at first", old)
	second := ca.Issue(t, "second", 60*24*time.Hour)
	copyTo(used.Key, second.Key)
	copyTo(used.Cert, second.Cert)
	harness.WaitFor(t, "the new certificate", func() bool { return bytes.Equal(presented(), second.DER) })
	alive("after the renewal", old)

	// The key of another.
	third := ca.Issue(t, "third", 60*24*time.Hour)
	mark := d.Log().Mark()
	copyTo(used.Cert, third.Cert)
	harness.WaitFor(t, "a word about the broken pair", func() bool { return lines(mark, "the new certificate cannot be used") > 0 })
	if n := lines(mark, used.Key+": the key does not belong"); n != 1 {
		t.Errorf("%d lines name the key, want 1:\n%s", n, d.Log().Tail(10))
	}
	if !bytes.Equal(presented(), second.DER) {
		t.Error("the broken pair is in use")
	}
	if out := d.Must(t, "status"); !strings.Contains(out, "THE NEW CERTIFICATE CANNOT BE USED") || !strings.Contains(out, used.Key) {
		t.Errorf("valetkey status says nothing of it:\n%s", out)
	}
	hup()
	if !bytes.Equal(presented(), second.DER) {
		t.Error("after SIGHUP the broken pair is in use")
	}
	if n := lines(mark, "the new certificate cannot be used"); n != 2 {
		t.Errorf("%d lines about the broken pair after SIGHUP, want 2:\n%s", n, d.Log().Tail(10))
	}
	if code, _, errOut := harness.LDAPTool(t, "ldapwhoami", d.required, alice, right, "-ZZ", "-o", "TLS_CACERT="+ca.File); code != 0 {
		t.Errorf("a login meanwhile: exit code %d\n%s", code, errOut)
	}
	// A new listener cannot live on an old certificate.
	mark = d.Log().Mark()
	d.WriteConfig(t, fmt.Sprintf("\n[[ldap]]\nlisten = \"127.0.0.1:0\"\ntls_cert = %q\ntls_key = %q\n", third.Cert, second.Key))
	d.Process().Signal(syscall.SIGHUP)
	if _, ok := d.Log().Wait(mark, harness.Patience, func(l string) bool {
		return strings.Contains(l, "reload refused") && strings.Contains(l, "ldap[6].tls_key") && strings.Contains(l, second.Key)
	}); !ok {
		t.Errorf("a new listener with a broken pair is not refused:\n%s", d.Log().Tail(10))
	}
	d.WriteConfig(t, "")

	// SIGHUP does not wait.
	copyTo(used.Key, third.Key)
	hup()
	if !bytes.Equal(presented(), third.DER) {
		t.Error("after SIGHUP the new certificate is not in use")
	}
	alive("after SIGHUP", old)
	if out := d.Must(t, "status"); strings.Contains(out, "CANNOT BE USED") {
		t.Errorf("valetkey status after the repair:\n%s", out)
	}

	mark = d.Log().Mark()
	last := ca.Issue(t, "last", 10*24*time.Hour)
	copyTo(used.Key, last.Key)
	copyTo(used.Cert, last.Cert)
	hup()
	if n := lines(mark, "the certificate expires soon"); n != 1 {
		t.Errorf("%d lines say that the certificate expires soon, want 1:\n%s", n, d.Log().Tail(10))
	}
	if out := d.Must(t, "status"); !strings.Contains(out, "EXPIRES SOON") {
		t.Errorf("valetkey status does not say that the certificate expires soon:\n%s", out)
	}
	alive("at last", old)
}
