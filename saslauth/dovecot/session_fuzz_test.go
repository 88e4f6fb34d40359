package dovecot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/valetkey/valetkey/internal/auth"
)

var (
	replyPattern = regexp.MustCompile(`^(OK\t[0-9]+\tuser=[^\x00\t\r]+` +
		`|FAIL\t[0-9]+(\tuser=[^\x00-\x1f\x7f]+)?(\tcode=(temp_fail|invalid_base64))?(\treason=[A-Za-z0-9 ]+)?` +
		`|CONT\t[0-9]+\t(VXNlcm5hbWU6|UGFzc3dvcmQ6)?` +
		`|CANCELLED\t[0-9]+)$`)
	askPattern = regexp.MustCompile(`(?m)^(AUTH|CONT|CANCEL)\t([^\t\r\n]+)`)
)

// FuzzSession sends bytes as a whole session, in pieces of one size. Whatever they are, the server answers in well-formed
// lines, only to ids that the peer named, with one final answer at most for each AUTH and CONT, accepts only what the
// authenticator accepted, and is rid of everything once the peer has gone.
func FuzzSession(f *testing.F) {
	f.Add([]byte(hello+authLine(1, "yes", "x")+authLine(2, "no", "x")), uint16(7))
	f.Add([]byte(hello+"AUTH\t1\tLOGIN\tservice=smtp\tnologin\nCONT\t1\t"+b64("broken")+"\nCONT\t1\t"+b64("x")+"\n"), uint16(0))
	f.Add([]byte("VERSION\t1\t4\nCPID\t1\nAUTH\t1\tPLAIN\tprotocol=imap\nCANCEL\t1\nCONT\t1\t\n"), uint16(1))
	f.Add([]byte(hello+"AUTH\t1\tPLAIN\tservice=smtp\tresp==\nAUTH\t1\tPLAIN\tservice=smtp\tresp=*\n"), uint16(100))
	f.Add([]byte("\n"), uint16(1))
	f.Fuzz(func(t *testing.T, session []byte, piece uint16) {
		synctest.Test(t, func(t *testing.T) {
			passwords := make(chan string, 1<<16)
			s := New(Config{MaxPending: 4, MaxRunning: 3}, authFunc(func(_ context.Context, req auth.Request) (auth.Decision, error) {
				passwords <- req.Password
				switch {
				case req.Login == "" || req.Password == "" || req.Service == "" || req.FrontEnd != "dovecot":
					return auth.Decision{}, fmt.Errorf("incomplete request")
				case strings.HasPrefix(req.Login, "yes"):
					return auth.Decision{OK: true, Login: "canonical-" + req.Login}, nil
				case strings.HasPrefix(req.Login, "broken"):
					return auth.Decision{}, errors.New("out of order")
				}
				return auth.Decision{}, nil
			}), discard)
			p := newPeer(s)
			size := max(1, int(piece))
			for rest := session; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				if _, err := p.nc.Write(rest[:min(size, len(rest))]); err != nil {
					if !errors.Is(err, io.ErrClosedPipe) {
						t.Fatal(err)
					}
					break
				}
			}
			synctest.Wait()
			p.nc.Close()
			synctest.Wait()
			if open := s.Stats().Open; open != 0 {
				t.Errorf("Stats().Open = %d after the peer hung up, want 0", open)
			}
			if n := s.extraRunning.Load(); n != 0 {
				t.Errorf("extraRunning = %d after the peer hung up, want 0", n)
			}

			_, replies, greeted := strings.Cut(p.text(), "\nDONE\n")
			if !greeted {
				t.Fatalf("server says %q, want the handshake first", p.text())
			}
			asked := make(map[uint32]int)
			for _, m := range askPattern.FindAllSubmatch(session, -1) {
				if id, ok := parseID(unescape([]byte(string(m[2])))); ok {
					asked[id]++
				}
			}
			accepted := 0
			for line := range strings.Lines(replies) {
				if !replyPattern.MatchString(strings.TrimSuffix(line, "\n")) || !strings.HasSuffix(line, "\n") {
					t.Fatalf("reply %q is not well-formed", line)
				}
				word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				field, rest, _ := strings.Cut(rest, "\t")
				id, _ := parseID([]byte(field))
				if asked[id]--; asked[id] < 0 {
					t.Fatalf("reply %q to an id that was not asked, or answered too often", line)
				}
				if word == "OK" {
					accepted++
					if !strings.HasPrefix(rest, "user=canonical-yes") {
						t.Fatalf("reply %q accepts what the authenticator did not", line)
					}
				}
			}
			if st := s.Stats(); uint64(accepted) > st.Accepted || st.Accepted+st.Rejected+st.Undecided != uint64(len(passwords)) {
				t.Errorf("%d accepted, %d decisions, Stats() = %+v, want them to agree", accepted, len(passwords), st)
			}
		})
	})
}
