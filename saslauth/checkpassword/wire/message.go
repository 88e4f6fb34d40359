package wire

import (
	"encoding/binary"
	"errors"
)

// version is the first byte of every message. A daemon that learns another one goes on to speak this one: helper and
// daemon are not replaced in the same instant.
const version = 1

// HeaderSize is how many bytes of a message stand before its fields.
const HeaderSize = 4

// Limits of the fields of a message, in bytes, with their lengths. A request is bounded by what fd 3 may carry (512)
// and by the environment; a reply by the userdb fields of an account.
const (
	MaxRequest = 4096
	MaxReply   = 32768
)

// Op says what is asked.
type Op byte

const (
	// Login asks whether the password opens the service, and for the account's userdb fields.
	Login Op = 'L'
	// Check is Login without the userdb fields.
	Check Op = 'C'
	// Userdb asks for the userdb fields without a password, as for the delivery of mail. A disabled account has them too:
	// it must not bounce mail.
	Userdb Op = 'U'
	// Credentials asks without a password whether the account may be logged in to by somebody who was let in otherwise (a
	// master user), and for its userdb fields. A disabled account may not.
	Credentials Op = 'K'
)

// Lookup reports whether the operation carries no password.
func (o Op) Lookup() bool { return o == Userdb || o == Credentials }

// Valid reports whether there is such an operation.
func (o Op) Valid() bool { return o == Login || o == Check || o.Lookup() }

// Outcome is the daemon's answer.
type Outcome byte

const (
	Accepted  Outcome = 'A'
	Rejected  Outcome = 'R' // of Login and Check
	Unknown   Outcome = 'N' // of lookups: no such account
	Undecided Outcome = 'T'
	Refused   Outcome = 'F' // of lookups: this socket answers none
)

// How the user's password travelled to the peer, as far as it told.
const (
	TLSUnknown = ""
	TLSNo      = "no"
	TLSYes     = "yes"
)

// Request is what the helper asks.
type Request struct {
	Op       Op
	User     string
	Password string // secret; empty in a lookup
	Service  string
	Remote   string // the user's address as the peer wrote it; may be empty, or no address at all
	Session  string
	TLS      string
}

// Reply is what the daemon answers.
type Reply struct {
	Outcome Outcome
	User    string // the canonical login, if Accepted
	Fields  []Field
}

// Field is a userdb field of the account.
type Field struct{ Name, Value string }

// ErrMalformed means that the bytes are no message of this protocol, or of a version that we do not speak.
var ErrMalformed = errors.New("malformed message")

// ErrTooLong means that a message would exceed its limit.
var ErrTooLong = errors.New("message too long")

const requestFields = 6

// AppendRequest appends the request as it is sent. The error is [ErrTooLong].
func AppendRequest(dst []byte, r Request) ([]byte, error) {
	return appendMessage(dst, byte(r.Op), MaxRequest, r.User, r.Password, r.Service, r.Remote, r.Session, r.TLS)
}

// AppendReply appends the reply as it is sent. User and Fields count only if the outcome is [Accepted]. The error is
// [ErrTooLong].
func AppendReply(dst []byte, r Reply) ([]byte, error) {
	if r.Outcome != Accepted {
		return appendMessage(dst, byte(r.Outcome), MaxReply)
	}
	fields := make([]string, 0, 1+2*len(r.Fields))
	fields = append(fields, r.User)
	for _, f := range r.Fields {
		fields = append(fields, f.Name, f.Value)
	}
	return appendMessage(dst, byte(r.Outcome), MaxReply, fields...)
}

func appendMessage(dst []byte, kind byte, limit int, fields ...string) ([]byte, error) {
	length := 0
	for _, f := range fields {
		length += 2 + len(f)
	}
	if length > limit {
		return dst, ErrTooLong
	}
	dst = append(dst, version, kind)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	for _, f := range fields {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(f)))
		dst = append(dst, f...)
	}
	return dst, nil
}

// RequestLength reads the header of a request and returns how many bytes follow it.
func RequestLength(header [HeaderSize]byte) (int, error) {
	if !Op(header[1]).Valid() {
		return 0, ErrMalformed
	}
	return bodyLength(header, MaxRequest)
}

// ReplyLength reads the header of a reply and returns how many bytes follow it.
func ReplyLength(header [HeaderSize]byte) (int, error) {
	switch Outcome(header[1]) {
	case Accepted, Rejected, Unknown, Undecided, Refused:
		return bodyLength(header, MaxReply)
	}
	return 0, ErrMalformed
}

func bodyLength(header [HeaderSize]byte, limit int) (int, error) {
	n := int(binary.BigEndian.Uint16(header[2:]))
	if header[0] != version || n > limit {
		return 0, ErrMalformed
	}
	return n, nil
}

// ParseRequest reads the request with this header, whose body has the length that [RequestLength] said. A lookup with a
// password is malformed: who sends one is in error about what it asks.
func ParseRequest(header [HeaderSize]byte, body []byte) (Request, error) {
	var f [requestFields]string
	for i := range f {
		var ok bool
		if f[i], body, ok = cutField(body); !ok {
			return Request{}, ErrMalformed
		}
	}
	r := Request{Op: Op(header[1]), User: f[0], Password: f[1], Service: f[2], Remote: f[3], Session: f[4], TLS: f[5]}
	tls := r.TLS == TLSUnknown || r.TLS == TLSNo || r.TLS == TLSYes
	if len(body) > 0 || !tls || r.Op.Lookup() && r.Password != "" {
		return Request{}, ErrMalformed
	}
	return r, nil
}

// ParseReply reads the reply with this header, whose body has the length that [ReplyLength] said. An accepted one names
// a login.
func ParseReply(header [HeaderSize]byte, body []byte) (Reply, error) {
	r := Reply{Outcome: Outcome(header[1])}
	if r.Outcome != Accepted {
		if len(body) > 0 {
			return Reply{}, ErrMalformed
		}
		return r, nil
	}
	var ok bool
	if r.User, body, ok = cutField(body); !ok || r.User == "" {
		return Reply{}, ErrMalformed
	}
	for len(body) > 0 {
		var f Field
		if f.Name, body, ok = cutField(body); !ok || f.Name == "" {
			return Reply{}, ErrMalformed
		}
		if f.Value, body, ok = cutField(body); !ok {
			return Reply{}, ErrMalformed
		}
		r.Fields = append(r.Fields, f)
	}
	return r, nil
}

func cutField(b []byte) (field string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}
