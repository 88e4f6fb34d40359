package dovecot

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// TestDialogues plays the files of testdata/dialogues, once line by line and once byte by byte; README there describes
// them. Time is that of the synctest bubble, so "wait 150s" costs nothing.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogues/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("Glob = %v, %v, want dialogue files", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parseDialogues(t, file, string(text)) {
			for _, mode := range []string{"lines", "bytes"} {
				name := strings.TrimSuffix(filepath.Base(file), ".txt") + "/" + d.name + "/" + mode
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { d.play(t, mode == "bytes") })
				})
			}
		}
	}
}

type dialogue struct {
	name  string
	cfg   Config
	fake  fakeAuth
	steps []step
}

type step struct {
	at         string // file:line
	verb, text string
}

func parseDialogues(t *testing.T, file, text string) []*dialogue {
	t.Helper()
	var all []*dialogue
	var d *dialogue
	for i, line := range strings.Split(text, "\n") {
		at := fmt.Sprintf("%s:%d", file, i+1)
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if verb == "===" {
			d = &dialogue{name: strings.ReplaceAll(rest, " ", "_")}
			all = append(all, d)
			continue
		}
		if verb == "" || strings.HasPrefix(verb, "#") {
			continue
		}
		if d == nil {
			t.Fatalf("%s: text before the first ===", at)
		}
		switch verb {
		case "set":
			d.set(t, at, rest)
		case "login":
			d.fake.add(t, at, rest)
		default:
			d.steps = append(d.steps, step{at, verb, rest})
		}
	}
	return all
}

func (d *dialogue) set(t *testing.T, at, text string) {
	key, value, _ := strings.Cut(text, " ")
	var err error
	switch key {
	case "tempfail":
		err = d.cfg.Tempfail.UnmarshalText([]byte(value))
	case "pending":
		d.cfg.MaxPending, err = strconv.Atoi(value)
	case "running":
		d.cfg.MaxRunning, err = strconv.Atoi(value)
	default:
		err = errors.New("unknown key")
	}
	if err != nil {
		t.Fatalf("%s: set %s: %v", at, text, err)
	}
}

// play runs the dialogue inside a bubble.
func (d *dialogue) play(t *testing.T, bytewise bool) {
	fake := &fakeAuth{rules: d.fake.rules}
	s := New(d.cfg, fake, slog.New(slog.DiscardHandler))
	p := newPeer(s)
	defer p.nc.Close()
	calls := 0
	ended := false
	wantClosed := func(st step) {
		if got, ok := p.line(); ok || !p.isClosed() {
			t.Fatalf("%s: server says %q, closed: %v, want a closed connection", st.at, got, p.isClosed())
		}
		ended = true
	}
	for _, st := range d.steps {
		switch st.verb {
		case "greeted", "hello", "dropped":
			for _, want := range handshakePattern {
				if got, ok := p.line(); !ok || !want.MatchString(got) {
					t.Fatalf("%s: handshake line %q, %v, want %v", st.at, got, ok, want)
				}
			}
			switch st.verb {
			case "hello":
				p.send(t, st, "VERSION\t1\t"+expand(t, st)+"\nCPID\t4711\n", bytewise)
			case "dropped":
				wantClosed(st)
			}
		case "C:":
			p.send(t, st, expand(t, st)+"\n", bytewise)
		case "C-": // without LF
			p.send(t, st, expand(t, st), bytewise)
		case "S:":
			want := expand(t, st)
			got, ok := p.line()
			if !ok {
				t.Fatalf("%s: server says nothing (closed: %v), want %q", st.at, p.isClosed(), want)
			}
			if got != want {
				t.Fatalf("%s: server says %q, want %q", st.at, got, want)
			}
		case "quiet":
			if got, ok := p.line(); ok || p.isClosed() {
				t.Fatalf("%s: server says %q, closed: %v, want silence", st.at, got, p.isClosed())
			}
		case "closed":
			wantClosed(st)
		case "wait":
			dur, err := time.ParseDuration(st.text)
			if err != nil {
				t.Fatalf("%s: %v", st.at, err)
			}
			time.Sleep(dur)
		case "asked": // the next request that the authenticator saw
			synctest.Wait()
			if got := fake.request(calls); got != expand(t, st) {
				t.Fatalf("%s: authenticator was asked\n%q, want\n%q", st.at, got, expand(t, st))
			}
			calls++
		case "calls":
			synctest.Wait()
			if got := strconv.Itoa(fake.count()); got != st.text {
				t.Fatalf("%s: authenticator was asked %s times, want %s", st.at, got, st.text)
			}
		default:
			t.Fatalf("%s: unknown verb %q", st.at, st.verb)
		}
	}
	if got, ok := p.line(); ok || p.isClosed() != ended {
		t.Errorf("%s: at the end the server says %q, closed: %v, want nothing and %v", d.name, got, p.isClosed(), ended)
	}
	p.nc.Close()
	synctest.Wait()
	if st := s.Stats(); st.Open != 0 {
		t.Errorf("%s: Stats().Open = %d after the peer hung up, want 0", d.name, st.Open)
	}
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

var handshakePattern = []*regexp.Regexp{
	regexp.MustCompile(`^VERSION\t1\t2$`),
	regexp.MustCompile(`^MECH\tPLAIN\tplaintext$`),
	regexp.MustCompile(`^MECH\tLOGIN\tplaintext$`),
	regexp.MustCompile(`^SPID\t[1-9][0-9]*$`),
	regexp.MustCompile(`^CUID\t[1-9][0-9]*$`),
	regexp.MustCompile(`^COOKIE\t[0-9a-f]{32}$`),
	regexp.MustCompile(`^DONE$`),
}

var (
	macroPattern  = regexp.MustCompile(`\{(b64|repeat) ([^}]*)\}`)
	escapePattern = regexp.MustCompile(`\\(x[0-9a-f]{2}|[tnr0\\])`)
)

// expand resolves \t \n \r \0 \xNN, {b64 TEXT} and {repeat N TEXT}.
func expand(t *testing.T, st step) string {
	unescapeText := func(s string) string {
		return escapePattern.ReplaceAllStringFunc(s, func(e string) string {
			switch e[1] {
			case 't':
				return "\t"
			case 'n':
				return "\n"
			case 'r':
				return "\r"
			case '0':
				return "\x00"
			case '\\':
				return "\\"
			}
			n, _ := strconv.ParseUint(e[2:], 16, 8)
			return string([]byte{byte(n)})
		})
	}
	text := macroPattern.ReplaceAllStringFunc(st.text, func(m string) string {
		sub := macroPattern.FindStringSubmatch(m)
		if sub[1] == "b64" {
			return b64(unescapeText(sub[2]))
		}
		n, what, _ := strings.Cut(sub[2], " ")
		times, err := strconv.Atoi(n)
		if err != nil {
			t.Fatalf("%s: %s: %v", st.at, m, err)
		}
		return strings.Repeat(what, times)
	})
	return unescapeText(text)
}

// peer is the far end of a connection to a server, inside a bubble.
type peer struct {
	nc     net.Conn
	mu     sync.Mutex
	got    []byte
	closed bool
}

// newPeer connects to s and keeps reading.
func newPeer(s *Server) *peer {
	near, far := net.Pipe()
	s.conns.Take(far, "test")
	p := &peer{nc: near}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := near.Read(buf)
			p.mu.Lock()
			p.got = append(p.got, buf[:n]...)
			p.closed = err != nil
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

// line returns the next line that the server has sent by the time nothing moves any more.
func (p *peer) line() (string, bool) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	line, rest, ok := strings.Cut(string(p.got), "\n")
	if !ok {
		return string(p.got), len(p.got) > 0
	}
	p.got = []byte(rest)
	return line, true
}

// text returns what the server has sent and line did not take.
func (p *peer) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.got)
}

func (p *peer) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// send writes text. A server that closes before it has read all is for the next step to judge.
func (p *peer) send(t *testing.T, st step, text string, bytewise bool) {
	size := len(text)
	if bytewise {
		size = 1
	}
	for len(text) > 0 {
		_, err := io.WriteString(p.nc, text[:size])
		if errors.Is(err, io.ErrClosedPipe) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", st.at, err)
		}
		text = text[size:]
	}
}

// fakeAuth decides by rules; a login without a rule is rejected.
type fakeAuth struct {
	rules map[string]rule

	mu   sync.Mutex
	seen []auth.Request
}

type rule struct {
	outcome string // accepted, undecided, hangs, panics
	as      string // canonical login
	after   time.Duration
}

// add reads "NAME accepted [CANONICAL] [after DURATION]", "NAME undecided [after DURATION]", "NAME hangs". The password of
// accepted is "secret".
func (f *fakeAuth) add(t *testing.T, at, text string) {
	words := strings.Fields(text)
	if len(words) < 2 {
		t.Fatalf("%s: login %s: outcome missing", at, text)
	}
	r := rule{outcome: words[1], as: words[0]}

	words, name := words[2:], words[0]
	if len(words)%2 == 1 {
		r.as, words = expand(t, step{at: at, text: words[0]}), words[1:]
	}
	if len(words) == 2 && words[0] == "after" {
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		r.after = d
	}
	if f.rules == nil {
		f.rules = make(map[string]rule)
	}
	f.rules[name] = r
}

func (f *fakeAuth) Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error) {
	f.mu.Lock()
	f.seen = append(f.seen, req)
	f.mu.Unlock()
	r := f.rules[req.Login]
	if r.after > 0 {
		select {
		case <-time.After(r.after):
		case <-ctx.Done():
			return auth.Decision{}, ctx.Err()
		}
	}
	switch {
	case r.outcome == "accepted" && req.Password == "secret":
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: r.as}, nil
	case r.outcome == "undecided":
		return auth.Decision{}, auth.ErrOverloaded
	case r.outcome == "hangs":
		<-ctx.Done()
		return auth.Decision{}, ctx.Err()
	case r.outcome == "nameless":
		return auth.Decision{OK: true}, nil
	case r.outcome == "panics":
		panic("password is " + req.Password)
	case r.outcome == "crashes":
		return auth.Decision{OK: []bool{}[len(req.Password)]}, nil
	}
	return auth.Decision{Reason: auth.NoMatch}, nil
}

func (f *fakeAuth) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

// ownSession is a session id that the server made because the peer sent none; the dialogues leave it out.
var ownSession = regexp.MustCompile(`^[0-9a-f]+\.[0-9]+$`)

// request describes the i-th request as the dialogue files do.
func (f *fakeAuth) request(i int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i >= len(f.seen) {
		return "nothing"
	}
	r := f.seen[i]
	text := fmt.Sprintf("%s:%s service=%s", r.Login, r.Password, r.Service)
	if r.Addr.IsValid() {
		text += " rip=" + r.Addr.String()
	}
	text += map[auth.TLSState]string{auth.TLSUnknown: "", auth.TLSNo: " tls=no", auth.TLSYes: " tls=yes"}[r.TLS]
	if r.Session == "" {
		text += " session=nothing" // there must always be one
	}
	if !ownSession.MatchString(r.Session) {
		text += " session=" + r.Session
	}
	if r.FrontEnd != "dovecot" || r.Listener != "test" {
		text += " from " + r.FrontEnd + "/" + r.Listener
	}
	return text
}
