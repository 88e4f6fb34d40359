package saslauthd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Query is what a peer asks. All fields but Client are sent, also empty ones.
type Query struct {
	Login    string
	Password string // secret
	Service  string
	Realm    string         // libsasl2 sends what follows the last "@" of the login here, Exim what its configuration says
	Client   netip.AddrPort // zero: not sent, as by all released versions of libsasl2
}

// Outcome is how the server answered.
type Outcome uint8

const (
	OutcomeClosed Outcome = iota // the server closed the connection instead of answering
	OutcomeOK
	OutcomeNO
)

func (o Outcome) String() string {
	switch o {
	case OutcomeClosed:
		return "closed"
	case OutcomeOK:
		return "OK"
	case OutcomeNO:
		return "NO"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Result is the server's answer.
type Result struct {
	Outcome Outcome
	Text    string // after OK or NO, where Cyrus saslauthd may say why; any bytes
}

// Undecided reports whether the server neither accepted nor rejected the login.
func (r Result) Undecided() bool { return r.Outcome == OutcomeClosed }

// maxReply is how much of a reply libsasl2 takes.
const maxReply = 1024

// Check asks the server, ours or Cyrus saslauthd, that listens on the Unix socket path: one connection, one request. A
// server that closes the connection instead of answering is no error but [OutcomeClosed]; an error says that no server
// of this protocol could be asked. ctx bounds it all.
func Check(ctx context.Context, path string, q Query) (Result, error) {
	request, err := q.encode()
	if err != nil {
		return Result{}, fmt.Errorf("asking saslauthd: %w", err)
	}
	defer clear(request)
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return Result{}, fmt.Errorf("connecting to saslauthd: %w", err)
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })()

	// A server that hangs up early may have said NO: should the write fail, the reading will tell.
	nc.Write(request)
	text, err := readReply(nc)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return Result{}, fmt.Errorf("asking saslauthd at %s: %w", path, ctx.Err())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return Result{Outcome: OutcomeClosed}, nil
	default:
		return Result{}, fmt.Errorf("asking saslauthd at %s: %w", path, err)
	}
	switch word, rest := text[:2], strings.TrimSpace(text[2:]); word {
	case "OK":
		return Result{Outcome: OutcomeOK, Text: rest}, nil
	case "NO":
		return Result{Outcome: OutcomeNO, Text: rest}, nil
	}
	return Result{}, fmt.Errorf("asking saslauthd at %s: the answer begins with neither OK nor NO", path)
}

// encode returns the request as libsasl2 sends it.
func (q Query) encode() ([]byte, error) {
	texts := []string{q.Login, q.Password, q.Service, q.Realm}
	if q.Client.IsValid() {
		texts = append(texts, fmt.Sprintf("%s;%d", q.Client.Addr(), q.Client.Port()))
	}
	size := 0
	for _, text := range texts {
		if len(text) > 0xFFFF {
			return nil, errors.New("a field is longer than 65535 bytes")
		}
		size += countSize + len(text)
	}
	b := make([]byte, 0, size) // growing would leave copies of the password behind
	for _, text := range texts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
		b = append(b, text...)
	}
	return b, nil
}

// readReply reads a counted string. One that is cut short, or too short to hold a word, is io.ErrUnexpectedEOF: peers
// take both for a server that hung up.
func readReply(r io.Reader) (string, error) {
	var count [countSize]byte
	if _, err := io.ReadFull(r, count[:]); err != nil {
		return "", err
	}
	n := int(binary.BigEndian.Uint16(count[:]))
	if n < len("OK") {
		return "", io.ErrUnexpectedEOF
	}
	text := make([]byte, min(n, maxReply))
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	return string(text), nil
}
