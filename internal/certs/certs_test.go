package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// start is when the tests begin.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// issued is a certificate with its key in PEM.
type issued struct{ cert, key string }

// issue makes a pair that lives from one day before start for so long.
func issue(t testing.TB, life time.Duration) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: start.Add(-day), NotAfter: start.Add(life - day), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return issued{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func install(t testing.TB, f Files, x issued) {
	t.Helper()
	write(t, f.Cert, x.cert, 0o644)
	write(t, f.Key, x.key, 0o600)
}

func filesIn(dir string) Files {
	return Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// desk is a pair with a clock that the test moves and a log that it reads.
type desk struct {
	*Pair
	files Files
	log   bytes.Buffer
	clock atomic.Int64 // since start
}

func open(t testing.TB, x issued) *desk {
	t.Helper()
	d := &desk{files: filesIn(t.TempDir())}
	install(t, d.files, x)
	var err error
	if d.Pair, err = Open(d.files, slog.New(slog.NewTextHandler(&d.log, nil)), d.now); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) now() time.Time { return start.Add(time.Duration(d.clock.Load())) }

// wantLog wants one line with all of it since the last call, or no line at all.
func (d *desk) wantLog(t testing.TB, when string, words ...string) {
	t.Helper()
	text := d.log.String()
	d.log.Reset()
	want := min(len(words), 1)
	if got := strings.Count(text, "\n"); got != want {
		t.Errorf("%s: %d log lines, want %d:\n%s", when, got, want, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s: log %q, want %q in it", when, text, w)
		}
	}
	if strings.Contains(text, "PRIVATE KEY-----") {
		t.Errorf("%s: the log quotes the file: %s", when, text)
	}
}

// presents returns the certificate that a client sees, in PEM.
func presents(t testing.TB, conf *tls.Config) string {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		tls.Server(server, conf).Handshake()
		io.Copy(io.Discard, server)
	}()
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if v := c.ConnectionState().Version; v < tls.VersionTLS12 {
		t.Errorf("version %#x, want TLS 1.2 or newer", v)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ConnectionState().PeerCertificates[0].Raw}))
}

func TestOpenRefuses(t *testing.T) {
	good, other := issue(t, 90*day), issue(t, 90*day)
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))
	for _, c := range []struct {
		name      string
		cert, key string
		mode      os.FileMode // of the key
		about     string      // file
		want      string      // cure, or what is wrong
	}{
		{"no certificate file", "-", good.key, 0o600, "cert.pem", "check the path"},
		{"no key file", good.cert, "-", 0o600, "key.pem", "check the path"},
		{"empty certificate", "", good.key, 0o600, "cert.pem", "must begin with -----BEGIN CERTIFICATE-----"},
		{"key as certificate", good.key, good.key, 0o600, "cert.pem", "holds no certificate"},
		{"damaged certificate", strings.Replace(good.cert, "MII", "MIJ", 1), good.key, 0o600, "cert.pem", "install it again"},
		{"cut certificate", good.cert[:len(good.cert)/2], good.key, 0o600, "cert.pem", "holds no certificate"},
		{"certificate as key", good.cert, good.cert, 0o600, "key.pem", "no private key"},
		{"cut key", good.cert, good.key[:len(good.key)/2], 0o600, "key.pem", "no private key"},
		{"encrypted key", good.cert, encrypted, 0o600, "key.pem", "openssl pkey"},
		{"damaged key", good.cert, strings.ReplaceAll(encrypted, "ENCRYPTED ", ""), 0o600, "key.pem", "install it again"},
		{"key of another", good.cert, other.key, 0o600, "key.pem", "does not belong to the first certificate"},
		{"chain the wrong way round", other.cert + good.cert, good.key, 0o600, "key.pem", "the server's own certificate first"},
		{"everybody may read the key", good.cert, good.key, 0o604, "key.pem", "chmod 640"},
		{"a group may replace the key", good.cert, good.key, 0o660, "key.pem", "chmod 640"},
		{"huge", strings.Repeat("x", maxFile+1), good.key, 0o600, "cert.pem", "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := filesIn(t.TempDir())
			if c.cert != "-" {
				write(t, f.Cert, c.cert, 0o644)
			}
			if c.key != "-" {
				write(t, f.Key, c.key, c.mode)
			}
			_, err := Open(f, nil, time.Now)
			if err == nil || !strings.Contains(err.Error(), c.about+":") || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Open = %v, want an error about %s with %q", err, c.about, c.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), filepath.Dir(f.Cert)) > 5 {
				t.Errorf("Open = %v, want one line", err)
			}
		})
	}
	t.Run("directory", func(t *testing.T) {
		f := filesIn(t.TempDir())
		install(t, f, good)
		f.Cert = filepath.Dir(f.Cert)
		if _, err := Open(f, nil, time.Now); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("Open = %v, want it refused", err)
		}
	})
}

func TestOpenAccepts(t *testing.T) {
	x := issue(t, 90*day)
	for _, c := range []struct {
		name string
		text issued
		mode os.FileMode
		one  bool // both in the file of the key
	}{
		{"mode 0600", x, 0o600, false},
		{"mode 0640, as Debian's ssl-cert", x, 0o640, false},
		{"mode 0400", x, 0o400, false},
		{"chain", issued{x.cert + issue(t, 90*day).cert, x.key}, 0o600, false},
		{"both in one file", issued{"", x.cert + x.key}, 0o600, true},
		{"both in one file, key first", issued{"", x.key + x.cert}, 0o600, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := filesIn(t.TempDir())
			write(t, f.Cert, c.text.cert, 0o644)
			write(t, f.Key, c.text.key, c.mode)
			if c.one {
				f.Cert = f.Key
			}
			p, err := Open(f, nil, func() time.Time { return start })
			if err != nil {
				t.Fatal(err)
			}
			if got := presents(t, p.TLS()); got != x.cert {
				t.Errorf("presents\n%s, want\n%s", got, x.cert)
			}
		})
	}
}

func TestTLSVersions(t *testing.T) {
	conf := open(t, issue(t, 90*day)).TLS()
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		client, server := net.Pipe()
		go tls.Server(server, conf).Handshake()
		err := tls.Client(client, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}).Handshake()
		if (err == nil) != want {
			t.Errorf("handshake with %s = %v, want it to succeed: %v", tls.VersionName(version), err, want)
		}
		client.Close()
		server.Close()
	}
}

// A renewal writes the two files one after the other; what is there meanwhile is no pair and no reason for a line.
func TestReplaced(t *testing.T) {
	first, second := issue(t, 90*day), issue(t, 90*day)
	d := open(t, first)
	conf := d.TLS()
	want := func(when string, x issued) {
		t.Helper()
		if got := presents(t, conf); got != x.cert {
			t.Errorf("%s: presents\n%s, want\n%s", when, got, x.cert)
		}
	}
	d.Check()
	d.wantLog(t, "nothing changed")
	write(t, d.files.Cert, second.cert, 0o644)
	d.Check()
	want("half replaced", first)
	d.wantLog(t, "half replaced")
	write(t, d.files.Key, second.key, 0o600)
	d.Check()
	d.wantLog(t, "not yet at rest")
	d.Check()
	want("replaced", second)
	d.wantLog(t, "replaced", "new certificate", d.files.Cert, d.Status().Fingerprint)
	d.Check()
	d.wantLog(t, "nothing changed")

	// As certbot does it: the names are symbolic links that are pointed elsewhere.
	third := filesIn(t.TempDir())
	install(t, third, first)
	for from, to := range map[string]string{d.files.Cert: third.Cert, d.files.Key: third.Key} {
		if err := os.Symlink(to, from+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from+".new", from); err != nil {
			t.Fatal(err)
		}
	}
	d.Check()
	d.Check()
	want("links turned", first)
	d.wantLog(t, "links turned", "new certificate")
}

func TestBrokenIsKeptOut(t *testing.T) {
	first, second := issue(t, 90*day), issue(t, 90*day)
	for _, c := range []struct {
		name  string
		spoil func(f Files)
		want  []string
	}{
		{"mismatch", func(f Files) { write(t, f.Cert, second.cert, 0o644) }, []string{"key.pem", "does not belong"}},
		{"gone", func(f Files) { os.Remove(f.Key) }, []string{"key.pem", "check the path"}},
		{"truncated", func(f Files) { write(t, f.Cert, "", 0o644) }, []string{"cert.pem", "BEGIN CERTIFICATE"}},
		{"mode", func(f Files) { os.Chmod(f.Key, 0o644) }, []string{"key.pem", "chmod 640"}},
		{"expired", func(f Files) { install(t, f, issue(t, day/2)) }, []string{"cert.pem", "it expired on 2026-11-24"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, first)
			conf := d.TLS()
			c.spoil(d.files)
			for range 5 {
				d.Check()
			}
			words := append(c.want, "the old one stays")
			d.wantLog(t, "spoilt", words...)
			if got := presents(t, conf); got != first.cert {
				t.Errorf("presents\n%s, want the old one", got)
			}
			if got := d.Status(); !strings.Contains(got.Error, c.want[1]) || !got.Until.Equal(start.Add(89*day)) {
				t.Errorf("Status = %+v, want the error %q and the old one's end", got, c.want[1])
			}
			d.Reload()
			d.wantLog(t, "SIGHUP", words...)
			install(t, d.files, second)
			d.Check()
			d.Check()
			d.wantLog(t, "repaired", "new certificate")
			if got := presents(t, conf); got != second.cert {
				t.Errorf("presents\n%s, want the new one", got)
			}
			if got := d.Status().Error; got != "" {
				t.Errorf("Status().Error = %q after the repair, want none", got)
			}
		})
	}
}

func TestReload(t *testing.T) {
	d := open(t, issue(t, 90*day))
	second := issue(t, 90*day)
	install(t, d.files, second)
	d.Reload() // at once
	if got := presents(t, d.TLS()); got != second.cert {
		t.Errorf("presents\n%s, want the new one", got)
	}
	d.wantLog(t, "reloaded", "new certificate")
	d.Reload()
	d.wantLog(t, "the same again")
}

func TestEnd(t *testing.T) {
	for _, c := range []struct {
		name    string
		life    time.Duration
		quiet   time.Duration // since start: no word so far
		soon    time.Duration // from then on a warning
		expired time.Duration
	}{
		{"90 days", 90 * day, 74 * day, 76 * day, 90 * day},
		{"six days", 6 * day, 3 * day, 4 * day, 6 * day},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, issue(t, c.life))
			d.wantLog(t, "opened")
			at := func(since time.Duration, words ...string) {
				t.Helper()
				d.clock.Store(int64(since))
				d.Check()
				d.wantLog(t, since.String(), words...)
			}
			at(c.quiet)
			at(c.soon, "level=WARN", "expires soon", "cert.pem")
			at(c.soon + 23*time.Hour)
			at(c.soon+25*time.Hour-time.Hour, "expires soon")
			at(c.expired, "level=ERROR", "has expired")
			at(c.expired + time.Hour)
			at(c.expired+25*time.Hour, "has expired")
			if s := d.Status(); !s.Expired || !s.ExpiresSoon {
				t.Errorf("Status = %+v, want expired", s)
			}
			// One that is no worse is taken.
			install(t, d.files, issue(t, c.life))
			d.Reload()
			if text := d.log.String(); !strings.Contains(text, "new certificate") || !strings.Contains(text, "has expired") {
				t.Errorf("another expired one: log %q, want it taken, and said that it has expired", text)
			}
		})
	}
}

func TestWatch(t *testing.T) {
	first, second := issue(t, 90*day), issue(t, 90*day)
	d := open(t, first)
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		go func() { d.Watch(t.Context()); close(done) }()
		install(t, d.files, second)
		time.Sleep(2*checkEvery + time.Millisecond)
		synctest.Wait()
		c, err := d.TLS().GetCertificate(nil)
		if err != nil || string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})) != second.cert {
			t.Errorf("GetCertificate = %v after two rounds, want the new one", err)
		}
		t.Cleanup(func() { <-done }) // ends with the test's context
	})
}

// Handshakes go on while the files are replaced again and again.
func TestConcurrent(t *testing.T) {
	pairs := []issued{issue(t, 90*day), issue(t, 90*day)}
	d := open(t, pairs[0])
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			install(t, d.files, pairs[i%2])
			d.Reload()
			d.Check()
			d.Status()
		}
	}()
	conf := d.TLS()
	for range 50 {
		if got := presents(t, conf); got != pairs[0].cert && got != pairs[1].cert {
			t.Fatalf("presents\n%s, want one of the two", got)
		}
	}
	close(stop)
	<-done
}
