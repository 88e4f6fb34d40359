package dovecot

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// Client asks a server of the protocol, ours or Dovecot's, as Postfix does: one request after the other over one
// connection. It is not for use by several goroutines at once. Make one with [Dial].
type Client struct {
	nc     net.Conn
	id     uint32
	out    []byte
	buf    []byte // holds secrets only on the way out
	start  int
	end    int
	closed bool
	mechs  []string
}

// AuthParams are what a peer tells beside login and password.
type AuthParams struct {
	Service  string     // required
	LocalIP  netip.Addr // zero: not told
	RemoteIP netip.Addr // zero: not told
	Session  string     // empty: not told
	Secured  bool
	NoLogin  bool // as Postfix and Exim: undecided is told by closing the connection

	// NoInitialResponse makes the client wait for the server's challenge first, which costs another round trip.
	NoInitialResponse bool
}

// Outcome is how the server answered.
type Outcome uint8

const (
	OutcomeClosed Outcome = iota // the server closed the connection instead of answering
	OutcomeOK
	OutcomeFail
)

func (o Outcome) String() string {
	switch o {
	case OutcomeClosed:
		return "closed"
	case OutcomeOK:
		return "OK"
	case OutcomeFail:
		return "FAIL"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Result is the server's answer.
type Result struct {
	Outcome Outcome
	User    string // of user=, empty if there was none
	Code    string // of code=, with FAIL
	Reason  string // of reason=, with FAIL
}

// Undecided reports whether the server neither accepted nor rejected the login.
func (r Result) Undecided() bool {
	return r.Outcome == OutcomeClosed || r.Outcome == OutcomeFail && r.Code == "temp_fail"
}

// Dial connects ("unix" or "tcp") and goes through the handshake. ctx bounds only that.
func Dial(ctx context.Context, network, address string) (*Client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the Dovecot protocol server: %w", err)
	}
	c := &Client{nc: nc, buf: make([]byte, maxLine)}
	if err := c.handshake(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("handshake with the Dovecot protocol server at %s: %w", address, err)
	}
	return c, nil
}

// Close closes the connection.
func (c *Client) Close() error {
	c.closed = true
	return c.nc.Close()
}

// Mechanisms returns the names that the server offered.
func (c *Client) Mechanisms() []string { return c.mechs }

func (c *Client) handshake(ctx context.Context) error {
	defer c.bound(ctx)()
	c.out = append(c.out[:0], "VERSION\t1\t2\nCPID\t"...)
	c.out = strconv.AppendInt(c.out, int64(serverPID), 10)
	c.out = append(c.out, '\n')
	// Dovecot 2.4 waits for this before it says more than VERSION. A server that hangs up may have said why: should the
	// write fail, the reading will tell.
	c.nc.Write(c.out)
	for first := true; ; first = false {
		line, err := c.line()
		if err != nil {
			return c.why(ctx, err)
		}
		f := fields{rest: line}
		word, _ := f.next()
		switch string(word) {
		case "VERSION":
			if major, _ := f.next(); string(major) != "1" {
				return fmt.Errorf("server speaks version %q, not 1", major)
			}
		case "MECH":
			name, _ := f.next()
			c.mechs = append(c.mechs, string(name))
		case "DONE":
			if len(c.mechs) == 0 {
				return errors.New("server offers no mechanism")
			}
			return nil
		default:
			if first {
				return errors.New("server does not begin with VERSION")
			}
		}
	}
}

// Plain asks with the mechanism PLAIN. A server that closes the connection instead of answering is no error but
// [OutcomeClosed]; the client is of no more use then, nor after an error.
func (c *Client) Plain(ctx context.Context, p AuthParams, login, password string) (Result, error) {
	message := make([]byte, 0, 128)
	message = append(message, 0)
	message = append(message, login...)
	message = append(message, 0)
	message = append(message, password...)
	return c.ask(ctx, p, "PLAIN", login, message)
}

// Login asks with the mechanism LOGIN. The login goes with the first command unless p.NoInitialResponse is set.
func (c *Client) Login(ctx context.Context, p AuthParams, login, password string) (Result, error) {
	return c.ask(ctx, p, "LOGIN", login, []byte(login), []byte(password))
}

// ask sends the messages of a mechanism, each when its turn has come, and reads the answer.
func (c *Client) ask(ctx context.Context, p AuthParams, mech, login string, messages ...[]byte) (Result, error) {
	if c.closed {
		return Result{}, errors.New("connection to the Dovecot protocol server is closed")
	}
	defer c.bound(ctx)()
	if c.id++; c.id == 0 {
		c.id = 1
	}
	c.out = appendReply(c.out[:0], "AUTH", c.id)
	c.out = append(c.out, '\t')
	c.out = append(c.out, mech...)
	c.out = appendField(c.out, "service=", p.Service)
	if p.NoLogin {
		c.out = append(c.out, "\tnologin"...)
	}
	if p.LocalIP.IsValid() {
		c.out = p.LocalIP.AppendTo(append(c.out, "\tlip="...))
	}
	if p.RemoteIP.IsValid() {
		c.out = p.RemoteIP.AppendTo(append(c.out, "\trip="...))
	}
	if p.Secured {
		c.out = append(c.out, "\tsecured"...)
	}
	if p.Session != "" {
		c.out = appendField(c.out, "session=", p.Session)
	}
	if !p.NoInitialResponse {
		c.out = append(c.out, "\tresp="...)
		c.out = base64.StdEncoding.AppendEncode(c.out, messages[0])
		messages = messages[1:]
	}
	c.out = append(c.out, '\n')

	for {
		if len(c.out) > maxLine {
			c.Close()
			return Result{}, fmt.Errorf("request of %d bytes is longer than the protocol allows", len(c.out))
		}
		_, err := c.nc.Write(c.out)
		clear(c.out)
		if err != nil {
			return c.lost(ctx, err)
		}
		line, err := c.line()
		if err != nil {
			return c.lost(ctx, err)
		}
		f := fields{rest: line}
		word, _ := f.next()
		idField, _ := f.next()
		if id, ok := parseID(idField); !ok || id != c.id {
			c.Close()
			return Result{}, fmt.Errorf("server answered %q to request %d", line, c.id)
		}
		switch string(word) {
		case "OK":
			return result(OutcomeOK, &f, login), nil
		case "FAIL":
			return result(OutcomeFail, &f, login), nil
		case "CONT":
			if len(messages) == 0 {
				c.Close()
				return Result{}, fmt.Errorf("server wants more than %s has", mech)
			}
		default:
			c.Close()
			return Result{}, fmt.Errorf("server answered with the unknown word %q", word)
		}
		c.out = append(appendReply(c.out[:0], "CONT", c.id), '\t')
		c.out = base64.StdEncoding.AppendEncode(c.out, messages[0])
		c.out = append(c.out, '\n')
		messages = messages[1:]
	}
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, '\t')
	dst = append(dst, name...)
	return appendEscaped(dst, value)
}

// result reads the fields of an answer. A user that equals the login costs no copy.
func result(o Outcome, f *fields, login string) Result {
	r := Result{Outcome: o}
	for {
		field, ok := f.next()
		if !ok {
			return r
		}
		name, value, _ := bytes.Cut(field, []byte{'='})
		switch string(name) {
		case "user":
			if string(value) == login {
				r.User = login
			} else {
				r.User = string(value)
			}
		case "code":
			r.Code = string(value)
		case "reason":
			r.Reason = string(value)
		}
	}
}

// line returns the next line without its end; it is valid until the next call.
func (c *Client) line() ([]byte, error) {
	scanned := c.start
	for {
		if i := bytes.IndexByte(c.buf[scanned:c.end], '\n'); i >= 0 {
			line := c.buf[c.start : scanned+i]
			c.start = scanned + i + 1
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start, scanned = 0, c.end
		if c.end == len(c.buf) {
			return nil, errors.New("server sent a line longer than the protocol allows")
		}
		n, err := c.nc.Read(c.buf[c.end:])
		c.end += n
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// bound makes the end of ctx end what the connection is about to do, until the returned function is called.
func (c *Client) bound(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	stop := context.AfterFunc(ctx, func() { c.nc.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if !stop() {
			c.Close()
		}
	}
}

// lost tells a server that hung up from everything else that may break.
func (c *Client) lost(ctx context.Context, err error) (Result, error) {
	c.Close()
	if ctx.Err() == nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		return Result{Outcome: OutcomeClosed}, nil
	}
	return Result{}, fmt.Errorf("asking the Dovecot protocol server: %w", c.why(ctx, err))
}

// why prefers the reason of ctx over the time-out that it caused.
func (c *Client) why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
