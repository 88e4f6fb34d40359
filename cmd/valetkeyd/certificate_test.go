package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/config"
)

// issue writes a pair into two files below dir.
func issue(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// A pair that cannot be used is a fault of the configuration, unless it is in use: then it was good once.
func TestLoadChecksCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := issue(t, dir, "a")
	_, other := issue(t, dir, "b")
	open := filepath.Join(dir, "open.key")
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(open, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, cert, key string
		wantKey, want   string // of the fault
	}{
		{"good", cert, key, "", ""},
		{"missing", filepath.Join(dir, "none"), key, "ldap[1].tls_cert", "check the path"},
		{"key of another", cert, other, "ldap[1].tls_key", "does not belong"},
		{"key that everybody may read", cert, open, "ldap[1].tls_key", "chmod 640"},
		{"key for certificate", key, key, "ldap[1].tls_cert", "holds no certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "valetkeyd.toml")
			section := fmt.Sprintf("[[ldap]]\nlisten = \"0.0.0.0:389\"\ntls_cert = %q\ntls_key = %q\n", c.cert, c.key)
			if err := os.WriteFile(file, []byte(section), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := load(config.Flags{File: file}, nil)
			if c.want == "" {
				if err != nil {
					t.Errorf("load = %v, want no fault", err)
				}
				return
			}
			var faults config.Faults
			if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Key != c.wantKey || !strings.Contains(faults[0].Text, c.want) {
				t.Errorf("load = %v, want one fault of %s with %q", err, c.wantKey, c.want)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := issue(t, dir, "a")
	c := newCertificates(t.Context(), slog.New(slog.DiscardHandler))
	with := func(mode, plaintext string) spec {
		file := filepath.Join(dir, "valetkeyd.toml")
		section := fmt.Sprintf("[[ldap]]\ntls = %q\ntls_cert = %q\ntls_key = %q\n%s\n", mode, cert, key, plaintext)
		if err := os.WriteFile(file, []byte(section), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(config.Flags{File: file})
		if err != nil {
			t.Fatal(err)
		}
		return specs(cfg)[0]
	}
	first := with("starttls", "")
	if got, err := c.config(first.tls); err != nil || got == nil {
		t.Fatalf("config = %v, %v, want one", got, err)
	}
	for _, x := range []struct{ mode, plaintext, want string }{
		{"starttls", "", "remote"}, {"starttls", "allow_plaintext = false", "always"}, {"starttls", "allow_plaintext = true", ""}, {"ldaps", "", "always"},
	} {
		if v := c.view(with(x.mode, x.plaintext)); v == nil || v.Mode != x.mode || v.Required != x.want || v.Certificate != cert || len(v.Fingerprint) != 64 {
			t.Errorf("view of %s with %q = %+v, want passwords to need TLS: %q", x.mode, x.plaintext, v, x.want)
		}
	}
	if v := c.view(with("off", "")); v != nil {
		t.Errorf("view without TLS = %+v, want nil", v)
	}
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.reload()
	if got, err := c.check(first.tls); err != nil || got == nil {
		t.Errorf("check of a pair that was spoilt in use = %v, %v, want the old one", got, err)
	}
	if v := c.view(first); !strings.Contains(v.Error, key) {
		t.Errorf("view of it = %+v, want the file in its error", v)
	}
	c.keep(&config.Config{}) // nobody presents it any more
	if _, err := c.check(first.tls); err == nil {
		t.Error("check after nobody presents it = nil, want the fault")
	}
}
