package ldapbridge

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	asn1ber "github.com/go-asn1-ber/asn1-ber"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// The limits of the library that decodes what an upstream sends are global to the process. They are the second line:
// upstreamWire checks every message before the library sees it.
func init() {
	asn1ber.MaxPacketLengthBytes = 16 << 20
	asn1ber.MaxNestingDepth = 16
}

// What one message of an upstream may hold. A decoded element takes some hundred bytes of memory however short it is, so
// their number must be bounded beside the length.
const (
	opSearchReference = 0x73
	opIntermediate    = 0x79

	maxWireDepth    = 12      // a SearchResultEntry has 6 levels, the paged results control 4
	maxWireElements = 100_000 // of one message: an entry with so many values is none of a person

	elementsPerEntry = 200 // of a search, on average: fifty attributes
)

var (
	errWireSyntax   = errors.New("the upstream sent something that is not LDAP")
	errWireSize     = errors.New("the upstream sent a message that is too large")
	errWireBytes    = errors.New("the upstream sent more than a search may bring")
	errWireElements = errors.New("the upstream sent more values than a search may bring")
	errWireEntries  = errors.New("the upstream sent more entries than a search may bring")
	errWireNotice   = errors.New("the upstream is closing the connection")
	errWireUnasked  = errors.New("the upstream sent something that was not asked for")
	errStartTLSCode = errors.New("the upstream refuses StartTLS")
)

// upstreamWire stands between an upstream and the client library: it lets whole messages pass that are well-formed, within
// the budget of the operation under way, and of a kind that was asked for. Continuation references end here.
type upstreamWire struct {
	net.Conn
	in      *bufio.Reader
	max     int    // bytes of a message
	pending []byte // of a message that passed

	bytes, entries, elements atomic.Int64 // that may still come
	fault                    atomic.Pointer[error]
}

func newUpstreamWire(nc net.Conn, maxMessage int) *upstreamWire {
	return &upstreamWire{Conn: nc, in: bufio.NewReader(nc), max: maxMessage}
}

// budget is what may come in an operation: all the requests of a search together.
type budget struct{ bytes, entries, elements int }

// expect sets the budget of the next request. Without one nothing may come.
func (w *upstreamWire) expect(b budget) {
	w.entries.Store(int64(b.entries))
	w.elements.Store(int64(b.elements))
	w.bytes.Store(int64(b.bytes))
}

// left returns what the last request has left of its budget.
func (w *upstreamWire) left() budget {
	return budget{int(w.bytes.Load()), int(w.entries.Load()), int(w.elements.Load())}
}

// broken returns why the wire was cut, or nil.
func (w *upstreamWire) broken() error {
	if err := w.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Read implements [net.Conn].
func (w *upstreamWire) Read(p []byte) (int, error) {
	for len(w.pending) == 0 {
		message, err := w.next()
		if err == nil {
			var pass bool
			if pass, err = w.check(message); pass {
				w.pending = message
			}
		}
		if err != nil {
			w.fault.CompareAndSwap(nil, &err)
			w.Conn.Close()
			return 0, err
		}
	}
	n := copy(p, w.pending)
	w.pending = w.pending[n:]
	return n, nil
}

// next reads one message. Memory grows with what arrived, never to a length that was only announced.
func (w *upstreamWire) next() ([]byte, error) {
	var header []byte
	for {
		b, err := w.in.ReadByte()
		if err != nil {
			return nil, err
		}
		header = append(header, b)
		_, head, length, err := ber.Header(header)
		switch {
		case header[0] != ber.Sequence:
			return nil, errWireSyntax
		case errors.Is(err, ber.ErrShort):
			continue
		case err != nil:
			return nil, errWireSyntax
		case length > w.max:
			return nil, errWireSize
		}
		if w.bytes.Add(-int64(head+length)) < 0 {
			return nil, errWireBytes
		}
		message := header
		for want := head + length; len(message) < want; {
			have := len(message)
			message = append(message, make([]byte, min(want-have, max(have, 4<<10)))...)
			if _, err := io.ReadFull(w.in, message[have:]); err != nil {
				return nil, err
			}
		}
		return message, nil
	}
}

// check says whether a message is to be handed on. An error cuts the wire.
func (w *upstreamWire) check(message []byte) (pass bool, err error) {
	outer := ber.NewReader(message)
	body, err := outer.Expect(ber.Sequence)
	if err != nil {
		return false, errWireSyntax
	}
	r := ber.NewReader(body)
	id, err := r.Int()
	if err != nil {
		return false, errWireSyntax
	}
	elements := 0
	switch op := r.Peek(); op {
	case opBindResponse, opSearchDone, opSearchEntry:
		if err := countElements(body, 1, &elements); err != nil {
			return false, err
		}
		if w.elements.Add(-int64(elements)) < 0 {
			return false, errWireElements
		}
		if op == opSearchEntry && w.entries.Add(-1) < 0 {
			return false, errWireEntries
		}
		return true, nil
	case opSearchReference, opIntermediate:
		return false, nil
	case opExtendedResponse:
		if id == 0 {
			return false, errWireNotice
		}
	}
	return false, errWireUnasked
}

// countElements walks the elements of a message.
func countElements(contents []byte, depth int, n *int) error {
	if depth > maxWireDepth {
		return errWireSyntax
	}
	for r := ber.NewReader(contents); !r.Empty(); {
		tag, body, err := r.Next()
		if err != nil {
			return errWireSyntax
		}
		if *n++; *n > maxWireElements {
			return errWireSize
		}
		if tag&0x20 != 0 {
			if err := countElements(body, depth+1, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// dialUpstream connects to an address and protects the link. The context bounds all of it.
func dialUpstream(ctx context.Context, u *upstreamURL, tlsConfig *tls.Config) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", u.addr)
	if err != nil {
		return nil, err
	}
	if !u.tls && !u.startTLS {
		return nc, nil
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if u.startTLS {
		if err := startUpstreamTLS(nc); err != nil {
			nc.Close()
			return nil, fmt.Errorf("starting TLS: %w", err)
		}
	}
	cfg := tlsConfig.Clone()
	cfg.ServerName = u.host
	protected := tls.Client(nc, cfg)
	if err := protected.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return protected, nil
}

// startUpstreamTLS asks for TLS (RFC 4511 section 4.14). The library's own would leave no place for the upstreamWire. The
// answer is read byte by byte, so that nothing of the handshake is taken, and nothing that was slipped in before it is kept.
func startUpstreamTLS(nc net.Conn) error {
	request, message := ber.Begin(nil, ber.Sequence)
	request = ber.AppendInt(request, ber.Integer, 1)
	request, body := ber.Begin(request, opExtendedRequest)
	request = ber.AppendString(request, 0x80, oidStartTLS)
	request = ber.End(ber.End(request, body), message)
	if _, err := nc.Write(request); err != nil {
		return err
	}
	answer := make([]byte, 0, 64)
	for {
		_, head, length, err := ber.Header(answer)
		switch {
		case err != nil && !errors.Is(err, ber.ErrShort), err == nil && length > 4<<10:
			return errWireSyntax
		case err == nil && len(answer) == head+length:
			return startTLSResult(answer)
		}
		answer = append(answer, 0)
		if _, err := nc.Read(answer[len(answer)-1:]); err != nil {
			return err
		}
	}
}

func startTLSResult(answer []byte) error {
	r := ber.NewReader(answer)
	body, err := r.Expect(ber.Sequence)
	if err != nil {
		return errWireSyntax
	}
	r = ber.NewReader(body)
	if _, err := r.Int(); err != nil {
		return errWireSyntax
	}
	if body, err = r.Expect(opExtendedResponse); err != nil {
		return errWireSyntax
	}
	r = ber.NewReader(body)
	code, err := r.Enum()
	if err != nil {
		return errWireSyntax
	}
	if code != int32(success) {
		return fmt.Errorf("%w with result code %d", errStartTLSCode, code)
	}
	return nil
}
