package ldapbridge

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
)

// The link is protected by a certificate that somebody named signed, or there is no link: the password of the service account is
// not sent.
func TestUpstreamTLS(t *testing.T) {
	// The certificate of the standard library's test server is for 127.0.0.1.
	web := httptest.NewTLSServer(nil)
	t.Cleanup(web.Close)
	protection := &tls.Config{Certificates: web.TLS.Certificates}
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())

	ldaps := func(nc net.Conn) net.Conn { return tls.Server(nc, protection) }
	startTLS := func(code int32, injected []byte) func(net.Conn) net.Conn {
		return func(nc net.Conn) net.Conn {
			body, err := readPDU(bufio.NewReaderSize(nc, 16))
			var m message
			if err != nil || m.decode(body, 1) != nil || m.op != opExtendedRequest || !strings.Contains(string(m.body), oidStartTLS) {
				return nil
			}
			nc.Write(append(pdu(m.id, cons(opExtendedResponse, enum(code), str(""), str(""))), injected...))
			return tls.Server(nc, protection)
		}
	}
	for _, tt := range []struct {
		name     string
		startTLS bool
		cas      *x509.CertPool
		accept   func(net.Conn) net.Conn
		want     string
	}{
		{"ldaps", false, trusted, ldaps, ""},
		{"ldaps, unknown authority", false, x509.NewCertPool(), ldaps, "certificate"},
		{"ldaps, of the system", false, nil, ldaps, "certificate"},
		{"StartTLS", true, trusted, startTLS(0, nil), ""},
		{"StartTLS, unknown authority", true, x509.NewCertPool(), startTLS(0, nil), "certificate"},
		{"StartTLS refused", true, trusted, startTLS(52, nil), "refuses StartTLS with result code 52"},
		{"an answer slipped in", true, trusted, startTLS(0, appendResponse(nil, 1, opBindResponse, result{})), "tls"},
		{"plaintext in place of TLS", false, trusted, func(nc net.Conn) net.Conn { return nc }, "tls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			f := &fakeUpstream{ln: ln, search: answerAlice}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					if tt.name == "plaintext in place of TLS" {
						nc.Write(appendNotice(nil, unavailable, ""))
					}
					if protected := tt.accept(nc); protected != nil {
						f.serve(&fakeLink{Conn: protected})
					}
					nc.Close()
				}
			}()
			scheme := "ldaps://"
			if tt.startTLS {
				scheme = "ldap://"
			}
			u, err := newUpstream(Upstream{URLs: []string{scheme + ln.Addr().String()}, StartTLS: tt.startTLS, CAs: tt.cas, BindDN: serviceDN, Password: servicePass, Limits: brisk},
				mustDN(t, testBase), defaultLimits(t), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			got, err := u.resolve(t.Context(), mustDN(t, aliceDN))
			u.close()
			ln.Close()
			<-done
			if tt.want == "" && (err != nil || got.login != "alice") || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("resolve = %q, %v, want %q", got.login, err, tt.want)
			}
			if binds, _ := f.asked(); tt.want != "" && len(binds) > 0 {
				t.Errorf("the password was sent: %q", binds)
			}
		})
	}
}
