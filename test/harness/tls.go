package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates for 127.0.0.1.
type Authority struct {
	File string // its own certificate, for clients

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one that nobody trusts but who is given its file.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{dir: Dir(t)}
	a.File = filepath.Join(a.dir, "ca.pem")
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Test Authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	a.key, der = a.sign(t, template, template, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write(t, a.File, "CERTIFICATE", der, 0o644)
	return a
}

// Certificate is one that was issued.
type Certificate struct {
	Cert, Key string // files in PEM
	DER       []byte
}

// Issue makes a certificate that is valid for so long, in files of this name.
func (a *Authority) Issue(t testing.TB, name string, life time.Duration) Certificate {
	t.Helper()
	key, der := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(life), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, a.cert, a.key)
	c := Certificate{filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key"), der}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, c.Cert, "CERTIFICATE", der, 0o644)
	a.write(t, c.Key, "PRIVATE KEY", secret, 0o600)
	return c
}

// sign makes a key and a certificate of it; without a signer it signs itself.
func (a *Authority) sign(t testing.TB, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore = time.Now().Add(-90 * 24 * time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(90 * 24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func (a *Authority) write(t testing.TB, path, kind string, der []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		t.Fatal(err)
	}
}

// OpenSSLClient runs openssl s_client, which trusts only the authority, and returns its exit code and output.
func (a *Authority) OpenSSLClient(t testing.TB, addr string, args ...string) (code int, output string) {
	t.Helper()
	cmd := exec.Command(program(t, OpenSSL, "openssl"), append([]string{
		"s_client", "-connect", addr, "-CAfile", a.File, "-verify_return_error", "-verify_ip", "127.0.0.1"}, args...)...)
	code, out, errOut := Run(t, "", cmd)
	return code, out + errOut
}
