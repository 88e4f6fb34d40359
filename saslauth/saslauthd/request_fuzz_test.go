package saslauthd

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/valetkey/valetkey/internal/auth"
)

// expected is what must become of a request, found by another way than the server's: whole fields are taken off the
// front of what was sent.
func expected(sent string, maxField, maxRequest int) (reply string, asked *auth.Request) {
	var f []string
	for rest := sent; len(f) < 4; {
		if len(rest) < 2 {
			return "", nil
		}
		n := int(binary.BigEndian.Uint16([]byte(rest)))
		if taken := len(sent) - len(rest); n > maxField || taken+2+n > maxRequest {
			return "\x00\x02NO", nil
		}
		if len(rest) < 2+n {
			return "", nil
		}
		f, rest = append(f, rest[2:2+n]), rest[2+n:]
	}
	if f[0] == "" || f[1] == "" || strings.Contains(strings.Join(f, ""), "\x00") {
		return "\x00\x02NO", nil
	}
	asked = &auth.Request{Login: f[0], Password: f[1], Service: f[2]}
	if f[3] != "" {
		asked.Login += "@" + f[3]
	}
	switch {
	case strings.HasPrefix(asked.Login, "yes"):
		return "\x00\x02OK", asked
	case strings.HasPrefix(asked.Login, "broken"):
		return "", asked
	}
	return "\x00\x02NO", asked
}

// FuzzRequest sends bytes to the server, in pieces of one size, and then ends the peer's side. Whatever they are, the
// server gives the one right reply or none, asks the authenticator once at most, for what was sent, and is rid of
// everything once the peer has gone.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(counted("yes", "x", "imap", "example.org")), uint16(0))
	f.Add([]byte(counted("no", "x", "imap", "")+counted("203.0.113.9;40123")), uint16(500))
	f.Add([]byte(counted("broken", "x", "", "")), uint16(3))
	f.Add([]byte(counted("yes", "", "imap", "")), uint16(1))
	f.Add([]byte("\xff\xff"), uint16(1))
	f.Fuzz(func(t *testing.T, sent []byte, piece uint16) {
		synctest.Test(t, func(t *testing.T) {
			const maxField, maxRequest = 40, 100
			var asked []auth.Request
			s := New(Config{MaxField: maxField, MaxRequest: maxRequest}, authFunc(func(_ context.Context, req auth.Request) (auth.Decision, error) {
				asked = append(asked, req)
				switch {
				case strings.HasPrefix(req.Login, "yes"):
					return auth.Decision{OK: true, Login: "canonical"}, nil
				case strings.HasPrefix(req.Login, "broken"):
					return auth.Decision{}, errors.New("out of order")
				}
				return auth.Decision{}, nil
			}), discard)
			p := newPeer(s)
			size := max(1, int(piece))
			for rest := sent; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				if _, err := p.nc.Write(rest[:min(size, len(rest))]); err != nil {
					if !errors.Is(err, io.ErrClosedPipe) {
						t.Fatal(err)
					}
					break
				}
			}
			p.nc.CloseWrite()
			got := p.take()
			want, wantAsked := expected(string(sent), maxField, maxRequest)
			if got != want || !p.isClosed() {
				t.Fatalf("server says %q, closed: %v, want %q, true", got, p.isClosed(), want)
			}
			switch {
			case wantAsked == nil && len(asked) > 0:
				t.Fatalf("authenticator was asked for %q, want nothing", asked[0].Login)
			case wantAsked != nil && (len(asked) != 1 || asked[0].Login != wantAsked.Login ||
				asked[0].Password != wantAsked.Password || asked[0].Service != wantAsked.Service):
				t.Fatalf("authenticator was asked %+v, want %+v", asked, *wantAsked)
			}
			if open := s.Stats().Open; open != 0 {
				t.Errorf("Stats().Open = %d after the peer hung up, want 0", open)
			}
			p.nc.Close()
		})
	})
}
