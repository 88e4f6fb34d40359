package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	memoryLogins   = 500       // accounts that log in
	memorySearches = 20_000    // over the whole directory, at 64 connections
	memoryListed   = 1_000_000 // entries that whole listings bring, at least
	listPage       = 1000

	idleConnections = 2000
	idleSources     = 10 // addresses that they come from, since the daemon has a limit for each
	idleListeners   = 2  // and for each listener
)

// memoryAccounts are the sizes of the directory that are compared: the daemon must not need more memory for the second.
var memoryAccounts = []int{10_000, 1_000_000}

// idleWarmUp comes before the first measurement of idleMemory.
var idleWarmUp = load{connections: 8, credentials: 1, measure: 3 * time.Second, grace: 30 * time.Second}

// mostMemory is how much more it may need, as a factor. It is far from what a copy of the directory would take, hundreds of megabytes.
const mostMemory = 1.5

// resident is what the kernel says of a process, in KiB (proc(5), VmRSS and VmHWM).
type resident struct{ now, peak int }

func (r resident) String() string {
	return fmt.Sprintf("%.1f MiB (peak %.1f)", float64(r.now)/1024, float64(r.peak)/1024)
}

func readResident(pid int) (r resident, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return r, err
	}
	return parseResident(string(status))
}

func parseResident(status string) (r resident, err error) {
	for line := range strings.Lines(status) {
		var to *int
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "VmRSS":
			to = &r.now
		case "VmHWM":
			to = &r.peak
		default:
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			return r, fmt.Errorf("unknown form of /proc status line: %q", line)
		}
		if *to, err = strconv.Atoi(f[1]); err != nil {
			return r, err
		}
	}
	if r.now == 0 || r.peak == 0 {
		return r, errors.New("no resident size in /proc status")
	}
	return r, nil
}

// measureMemory is the run of --memory.
func (b *bench) measureMemory(ctx context.Context) error {
	var sizes []resident
	for _, n := range memoryAccounts {
		r, err := b.directoryMemory(ctx, n)
		if err != nil {
			return fmt.Errorf("%d accounts: %w", n, err)
		}
		sizes = append(sizes, r)
	}
	factor := func(of func(resident) int) check {
		got := float64(of(sizes[1])) / float64(of(sizes[0]))
		return check{
			Name: fmt.Sprintf("resident size with %s accounts to that with %s", thousands(float64(memoryAccounts[1])), thousands(float64(memoryAccounts[0]))),
			Got:  fmt.Sprintf("%.2f: %v to %v", got, sizes[1], sizes[0]), Want: fmt.Sprintf("at most %.1f", mostMemory), Met: got <= mostMemory,
		}
	}
	now, peak := factor(func(r resident) int { return r.now }), factor(func(r resident) int { return r.peak })
	peak.Name = "peak " + peak.Name
	b.rep.Checks = append(b.rep.Checks, now, peak)
	for _, c := range []struct {
		name string
		tls  bool
		most float64
	}{{"in clear", false, 8}, {"with TLS", true, 40}} {
		per, err := b.idleMemory(ctx, c.tls)
		if err != nil {
			return fmt.Errorf("idle connections %s: %w", c.name, err)
		}
		b.rep.Checks = append(b.rep.Checks, check{
			Name: fmt.Sprintf("KiB for each of %d idle LDAP connections %s", idleConnections, c.name),
			Got:  fmt.Sprintf("%.1f", per), Want: fmt.Sprintf("at most %.0f", c.most), Met: per > 0 && per <= c.most, Timed: true,
		})
	}
	return nil
}

// directoryMemory has the daemon serve a directory of this size and returns its resident size after the same searches, logins and number
// of listed entries.
func (b *bench) directoryMemory(ctx context.Context, accounts int) (r resident, err error) {
	// Listings of everything must be allowed.
	d, err := b.memoryDaemon(ctx, strconv.Itoa(accounts), fmt.Sprintf("search_entries = %d\nsearch_time = \"10m\"\n", 2*accounts+1000))
	if d != nil {
		defer d.discard()
	}
	if err != nil {
		return r, err
	}
	creds, reader := newCredentials(accounts), newReader()
	if err := d.load(ctx, creds, 1, memoryLogins, reader); err != nil {
		return r, err
	}
	fresh, err := readResident(d.process.pid)
	if err != nil {
		return r, err
	}
	explain := func(err error) error { return d.process.explain(ctx, err) }
	logins, err := newLDAPSearch("tcp", d.ldapAddress, creds[:memoryLogins], reader, b.searchFilter)
	if err != nil {
		return r, err
	}
	if err := logInAll(ctx, d.process, logins, memoryLogins); err != nil {
		return r, err
	}
	var everywhere []credential
	for i := range memorySearches {
		everywhere = append(everywhere, creds[i*7919%accounts])
	}
	searches, err := newLDAPSearch("tcp", d.ldapAddress, everywhere, reader, "(|(uid=%s)(mail=%s))")
	if err != nil {
		return r, err
	}
	if _, err := once(ctx, searchOnly{searches}, len(everywhere), 64, func(int) {}); err != nil {
		return r, explain(err)
	}
	if _, err := generate(ctx, logins, load{
		connections: 64, credentials: memoryLogins, measure: seconds(b.seconds), grace: 30 * time.Second,
	}, func() {}, func() {}); err != nil {
		return r, explain(err)
	}
	whole := accounts + groupCount(accounts) + 3 // the suffix and the parents of people and groups
	for read, told := 0, time.Now(); read < memoryListed; {
		n, err := listAll(ctx, d.ldapAddress, reader)
		if err != nil {
			return r, explain(fmt.Errorf("listing: %w", err))
		}
		if n != whole {
			return r, fmt.Errorf("listing: %d entries, want %d", n, whole)
		}
		read += n
		if read >= memoryListed || time.Since(told) >= progressEvery {
			told = time.Now()
			progress("%d accounts: listed %d entries", accounts, read)
		}
	}
	r, err = readResident(d.process.pid)
	progress("%d accounts: %v before, %v after", accounts, fresh, r)
	return r, err
}

// searchOnly leaves the bind out.
type searchOnly struct{ *ldapSearch }

func (s searchOnly) dial() (session, error) {
	x, err := s.ldapSearch.dial()
	if err != nil {
		return nil, err
	}
	return searchOnlySession{x.(*ldapSearchSession)}, nil
}

type searchOnlySession struct{ *ldapSearchSession }

func (s searchOnlySession) login(i int) (bool, error) {
	err := s.search.exchange(s.searches[i], s.found[i].check)
	return err == nil, err
}

// memoryDaemon starts a daemon with this added to its first LDAP section.
func (b *bench) memoryDaemon(ctx context.Context, name, config string) (*daemon, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, err
	}
	return startDaemon(ctx, dir, config)
}

// discard ends the daemon and removes its database.
func (d *daemon) discard() {
	d.closeDatabase()
	if d.process != nil {
		d.process.stop()
	}
	os.RemoveAll(filepath.Dir(d.stateDir))
}

// listAll reads every entry with all attributes, page after page, as programs do that copy a directory, and returns their number.
func listAll(ctx context.Context, address string, reader credential) (entries int, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := bufio.NewReaderSize(conn, 64<<10)
	next := func() (op byte, content, controls []byte, err error) {
		var head [2]byte
		b, err := in.Peek(2)
		if err != nil {
			return 0, nil, nil, err
		}
		copy(head[:], b)
		size := 2
		if head[1] >= 0x80 {
			size += int(head[1] & 0x7f)
		}
		if b, err = in.Peek(min(size, 6)); err != nil {
			return 0, nil, nil, err
		}
		n := int(head[1])
		if n >= 0x80 {
			n = 0
			for _, c := range b[2:] {
				n = n<<8 | int(c)
			}
		}
		pdu := make([]byte, size+n)
		if _, err := io.ReadFull(in, pdu); err != nil {
			return 0, nil, nil, err
		}
		msg, _, err := innerTLV(pdu, tagSequence)
		if err != nil {
			return 0, nil, nil, err
		}
		_, rest, err := innerTLV(msg, tagInteger)
		if err != nil || len(rest) == 0 {
			return 0, nil, nil, errNotAnswer
		}
		content, controls, err = innerTLV(rest, rest[0])
		return rest[0], content, controls, err
	}
	send := func(pdu []byte) error { _, err := conn.Write(pdu); return err }
	if err := send(bindRequest(readerDN(reader), reader.password)); err != nil {
		return 0, err
	}
	op, content, _, err := next()
	if err != nil {
		return 0, err
	}
	if code, _, err := innerTLV(content, tagEnumerated); op != tagBindResponse || err != nil || len(code) != 1 || code[0] != resultSuccess {
		return 0, fmt.Errorf("bind of the reader: %w", errRejected)
	}
	search, err := searchRequest(baseDN, "(objectClass=*)", "*", "+")
	if err != nil {
		return 0, err
	}
	for cookie := []byte(nil); ; {
		if err := send(paged(search, cookie)); err != nil {
			return entries, err
		}
		op, content, controls, err := next()
		for err == nil && op == tagSearchEntry {
			entries++
			op, content, controls, err = next()
		}
		if err != nil {
			return entries, err
		}
		if code, _, err := innerTLV(content, tagEnumerated); op != tagSearchDone || err != nil || len(code) != 1 || code[0] != resultSuccess {
			return entries, fmt.Errorf("page ended with operation %#x, result code %d", op, code)
		}
		if cookie, err = nextPage(controls); err != nil || len(cookie) == 0 {
			return entries, err
		}
	}
}

// Of the simple paged results control (RFC 2696).
const (
	tagControls  = 0xa0
	pagedControl = "1.2.840.113556.1.4.319"
)

// paged adds the control to a request of message.
func paged(request, cookie []byte) []byte {
	msg, _, err := innerTLV(request, tagSequence)
	if err != nil {
		panic(err) // we made it
	}
	value := appendTLV(nil, tagInteger, []byte{listPage >> 8, listPage & 0xff})
	value = appendTLV(value, tagOctetString, cookie)
	control := appendTLV(nil, tagOctetString, []byte(pagedControl))
	control = appendTLV(control, tagOctetString, appendTLV(nil, tagSequence, value))
	msg = appendTLV(slices.Clone(msg), tagControls, appendTLV(nil, tagSequence, control))
	return appendTLV(nil, tagSequence, msg)
}

// nextPage returns the cookie in the controls of an answer; none after the last page.
func nextPage(controls []byte) ([]byte, error) {
	list, _, err := innerTLV(controls, tagControls)
	if err != nil {
		return nil, fmt.Errorf("paged results: %w", err)
	}
	control, _, err := innerTLV(list, tagSequence)
	if err != nil {
		return nil, err
	}
	oid, control, err := innerTLV(control, tagOctetString)
	if err != nil || string(oid) != pagedControl {
		return nil, fmt.Errorf("paged results: control %q", oid)
	}
	value, _, err := innerTLV(control, tagOctetString)
	if err != nil {
		return nil, err
	}
	value, _, err = innerTLV(value, tagSequence)
	if err != nil {
		return nil, err
	}
	_, value, err = innerTLV(value, tagInteger)
	if err != nil {
		return nil, err
	}
	cookie, _, err := innerTLV(value, tagOctetString)
	return cookie, err
}

// idleMemory returns by how many KiB the daemon grows with each connection that has bound and waits.
//
// The daemon collects little garbage while it has memory to spare (GOGC=400), and what a thousand logins and handshakes leave behind would be
// taken for what connections hold. So it runs with GOGC=10 here.
func (b *bench) idleMemory(ctx context.Context, secure bool) (kib float64, err error) {
	name, section := "idle", ""
	if secure {
		name = "idle-tls"
		cert, key, err := writeCertificate(b.dir)
		if err != nil {
			return 0, err
		}
		section = fmt.Sprintf("tls_cert = %q\ntls_key = %q\ntls = \"ldaps\"\n", cert, key)
	}
	addresses, config := make([]string, idleListeners), ""
	for i := range addresses {
		if addresses[i], err = freeAddress(); err != nil {
			return 0, err
		}
		config += fmt.Sprintf("\n[[ldap]]\nlisten = %q\n%s", addresses[i], section)
	}
	os.Setenv("GOGC", "10")
	d, err := b.memoryDaemon(ctx, name, config)
	os.Unsetenv("GOGC")
	if d != nil {
		defer d.discard()
	}
	if err != nil {
		return 0, err
	}
	creds, reader := newCredentials(10), newReader()
	if err := d.load(ctx, creds, 1, 1, reader); err != nil {
		return 0, err
	}
	bind := newLDAP("tcp", "", creds[:1])
	warm, err := openIdle(bind, addresses, secure, 50) // what is there but once
	closeAll(warm)
	if err != nil {
		return 0, d.process.explain(ctx, err)
	}
	// The first login computed an Argon2 hash, whose memory is given back with the garbage of some others.
	if _, err := generate(ctx, newLDAP("tcp", d.ldapAddress, creds[:1]), idleWarmUp, func() {}, func() {}); err != nil {
		return 0, d.process.explain(ctx, err)
	}
	before, err := settled(ctx, d.process.pid)
	if err != nil {
		return 0, err
	}
	conns, err := openIdle(bind, addresses, secure, idleConnections)
	defer closeAll(conns)
	if err != nil {
		return 0, d.process.explain(ctx, err)
	}
	after, err := settled(ctx, d.process.pid)
	progress("%s: %v with the first connections, %v with %d more", name, before, after, idleConnections)
	return float64(after.now-before.now) / idleConnections, err
}

// settled waits until a process that has nothing to do gives no more memory back, and returns its resident size.
func settled(ctx context.Context, pid int) (r resident, err error) {
	const (
		every  = 2 * time.Second
		little = 64 // KiB
	)
	for last := -1; ; {
		if r, err = readResident(pid); err != nil || last >= 0 && max(last-r.now, r.now-last) < little {
			return r, err
		}
		last = r.now
		sleepUntil(ctx, time.Now().Add(every))
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
	}
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// openIdle opens connections to the addresses in turn and binds on each.
func openIdle(bind *ldap, addresses []string, secure bool, n int) ([]net.Conn, error) {
	conns, faults := make([]net.Conn, n), make([]error, n)
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				conns[i], faults[i] = openOne(bind, addresses[i%len(addresses)], i/len(addresses)%idleSources, secure)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return conns, errors.Join(faults...)
}

func openOne(bind *ldap, address string, source int, secure bool) (net.Conn, error) {
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+source))}, Timeout: 10 * time.Second}
	conn, err := from.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // its memory is measured, on this machine
	}
	s := &ldapSession{ldap: bind, conn: conn, id: firstMessageID}
	ok, err := s.login(0)
	if err == nil && !ok {
		err = errRejected
	}
	return conn, err
}

// writeCertificate makes a key and a certificate that it signs itself, and returns the files.
func writeCertificate(dir string) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return "", "", err
	}
	return cert, key, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
}
