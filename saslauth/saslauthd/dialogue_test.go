package saslauthd

import (
	"context"
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

// TestDialogues plays the files of testdata/dialogues, once with a write for each line of the peer and once byte by
// byte; README there describes them. Time is that of the synctest bubble, so "wait 9s" costs nothing.
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
			for _, mode := range []string{"write", "bytes"} {
				if d.only != "" && d.only != mode {
					continue
				}
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
	only  string
	cfg   Config
	rules map[string]rule
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
			d = &dialogue{name: strings.ReplaceAll(rest, " ", "_"), rules: make(map[string]rule)}
			all = append(all, d)
			continue
		}
		if verb == "" || strings.HasPrefix(verb, "#") {
			continue
		}
		if d == nil {
			t.Fatalf("%s: text before the first ===", at)
		}
		var err error
		switch verb {
		case "only":
			d.only = rest
			if rest != "write" {
				err = errors.New("unknown mode")
			}
		case "set":
			err = d.set(rest)
		case "login":
			err = d.login(rest)
		default:
			d.steps = append(d.steps, step{at, verb, rest})
		}
		if err != nil {
			t.Fatalf("%s: %s %s: %v", at, verb, rest, err)
		}
	}
	return all
}

func (d *dialogue) set(text string) (err error) {
	key, value, _ := strings.Cut(text, " ")
	switch key {
	case "service":
		d.cfg.Service = value
	case "field":
		d.cfg.MaxField, err = strconv.Atoi(value)
	case "request":
		d.cfg.MaxRequest, err = strconv.Atoi(value)
	default:
		err = errors.New("unknown key")
	}
	return err
}

// login reads "NAME accepted|undecided [after DURATION]" and "NAME hangs|panics".
func (d *dialogue) login(text string) (err error) {
	words := strings.Fields(text)
	var r rule
	switch len(words) {
	case 4:
		if words[2] != "after" {
			return errors.New("unknown word")
		}
		r.after, err = time.ParseDuration(words[3])
		fallthrough
	case 2:
		r.outcome = words[1]
		d.rules[words[0]] = r
		return err
	}
	return errors.New("a name and an outcome expected")
}

// play runs the dialogue inside a bubble.
func (d *dialogue) play(t *testing.T, bytewise bool) {
	fake := &fakeAuth{rules: d.rules}
	s := New(d.cfg, fake, discard)
	p := newPeer(s)
	defer p.nc.Close()
	calls := 0
	ended := false
	for _, st := range d.steps {
		switch st.verb {
		case "C:":
			p.send(t, st, expand(t, st), bytewise)
		case "half-close":
			p.nc.CloseWrite()
		case "S:":
			if got, want := p.take(), expand(t, st); got != want {
				t.Fatalf("%s: server says %q, want %q", st.at, got, want)
			}
		case "closed":
			if got := p.take(); got != "" || !p.isClosed() {
				t.Fatalf("%s: server says %q, closed: %v, want a closed connection", st.at, got, p.isClosed())
			}
			ended = true
		case "quiet":
			if got := p.take(); got != "" || p.isClosed() {
				t.Fatalf("%s: server says %q, closed: %v, want silence", st.at, got, p.isClosed())
			}
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
	if got := p.take(); got != "" || p.isClosed() != ended {
		t.Errorf("%s: at the end the server says %q, closed: %v, want nothing and %v", d.name, got, p.isClosed(), ended)
	}
	if fake.count() > 1 {
		t.Errorf("%s: authenticator was asked %d times on one connection, want once at most", d.name, fake.count())
	}
	p.nc.Close()
	synctest.Wait()
	if st := s.Stats(); st.Open != 0 {
		t.Errorf("%s: Stats().Open = %d after the peer hung up, want 0", d.name, st.Open)
	}
}

var (
	repeatPattern  = regexp.MustCompile(`\{repeat ([0-9]+) ([^}]*)\}`)
	countedPattern = regexp.MustCompile(`\[[^]]*\]`)
	escapePattern  = regexp.MustCompile(`\\(x[0-9a-f]{2}|[0\\])`)
)

// expand resolves {repeat N TEXT}, [TEXT], \0 \\ and \xNN.
func expand(t *testing.T, st step) string {
	unescape := func(s string) string {
		return escapePattern.ReplaceAllStringFunc(s, func(e string) string {
			switch e[1] {
			case '0':
				return "\x00"
			case '\\':
				return `\`
			}
			n, _ := strconv.ParseUint(e[2:], 16, 8)
			return string([]byte{byte(n)})
		})
	}
	text := repeatPattern.ReplaceAllStringFunc(st.text, func(m string) string {
		sub := repeatPattern.FindStringSubmatch(m)
		times, err := strconv.Atoi(sub[1])
		if err != nil {
			t.Fatalf("%s: %s: %v", st.at, m, err)
		}
		return strings.Repeat(sub[2], times)
	})
	var out strings.Builder
	for {
		at := countedPattern.FindStringIndex(text)
		if at == nil {
			out.WriteString(unescape(text))
			return out.String()
		}
		out.WriteString(unescape(text[:at[0]]))
		out.WriteString(counted(unescape(text[at[0]+1 : at[1]-1])))
		text = text[at[1]:]
	}
}

// counted is each text with its count before it.
func counted(texts ...string) string {
	var b strings.Builder
	for _, text := range texts {
		b.WriteByte(byte(len(text) >> 8))
		b.WriteByte(byte(len(text)))
		b.WriteString(text)
	}
	return b.String()
}

// halves is a connection inside a bubble of which each side can be ended alone, as those of a socket can.
type halves struct {
	net.Conn // to read from
	w        net.Conn
}

func (h *halves) Write(b []byte) (int, error)        { return h.w.Write(b) }
func (h *halves) SetWriteDeadline(t time.Time) error { return h.w.SetWriteDeadline(t) }
func (h *halves) CloseWrite() error                  { return h.w.Close() }
func (h *halves) Close() error                       { return errors.Join(h.Conn.Close(), h.w.Close()) }

func newHalves() (near, far *halves) {
	in1, in2 := net.Pipe()
	out1, out2 := net.Pipe()
	return &halves{in1, out1}, &halves{out2, in2}
}

// peer is the far end of a connection to a server, inside a bubble.
type peer struct {
	nc     *halves
	mu     sync.Mutex
	got    []byte
	closed bool
}

// newPeer connects to s and keeps reading.
func newPeer(s *Server) *peer {
	near, far := newHalves()
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

// take returns what the server has sent, since the last call, by the time nothing moves any more.
func (p *peer) take() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := string(p.got)
	p.got = nil
	return got
}

// isClosed reports whether the server has ended its side.
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

var discard = slog.New(slog.DiscardHandler)

// fakeAuth decides by rules; a login without a rule is rejected.
type fakeAuth struct {
	rules map[string]rule

	mu   sync.Mutex
	seen []auth.Request
}

type rule struct {
	outcome string // accepted, undecided, hangs, panics, crashes
	after   time.Duration
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
		return auth.Decision{OK: true, Reason: auth.Accepted, Login: req.Login}, nil
	case r.outcome == "undecided":
		// An error decides nothing, whatever comes with it.
		return auth.Decision{OK: true, Login: req.Login}, auth.ErrOverloaded
	case r.outcome == "hangs":
		<-ctx.Done()
		return auth.Decision{}, ctx.Err()
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

var sessionPattern = regexp.MustCompile(`^[0-9a-f]{1,8}$`)

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
	if r.TLS != auth.TLSUnknown {
		text += fmt.Sprintf(" tls=%d", r.TLS)
	}
	if !sessionPattern.MatchString(r.Session) {
		text += " session=" + r.Session
	}
	if r.FrontEnd != "saslauthd" || r.Listener != "test" {
		text += " from " + r.FrontEnd + "/" + r.Listener
	}
	return text
}
