package dovecot

import (
	"bytes"
	"encoding/base64"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// protocolError is what a peer did to have its connection closed. It holds nothing that the peer sent.
type protocolError string

func (e protocolError) Error() string { return string(e) }

const (
	errLineTooLong   = protocolError("line longer than 16384 bytes")
	errVersion       = protocolError("VERSION with major 1 expected")
	errCPID          = protocolError("CPID with a number expected")
	errUnknown       = protocolError("unknown or empty command")
	errBadID         = protocolError("request id is not a number from 1 to 4294967295")
	errDuplicateID   = protocolError("request id is already in use")
	errNoMechanism   = protocolError("AUTH without a mechanism")
	errNoService     = protocolError("AUTH without service or protocol")
	errAfterResponse = protocolError("AUTH with a parameter after resp")
	errNoResponse    = protocolError("CONT without a response field")
)

// command handles one line (reference/mail-protocols.md section 6). An error closes the connection.
func (c *conn) command(line []byte) error {
	word, args, found := bytes.Cut(line, []byte{'\t'})
	if !found {
		args = nil
	}
	switch c.state {
	case wantVersion:
		if string(word) != "VERSION" || !c.version(args) {
			return errVersion
		}
		c.state = wantCPID
		return nil
	case wantCPID:
		f := fields{rest: args}
		pid, _ := f.next()
		if _, ok := parseID(pid); string(word) != "CPID" || !ok {
			return errCPID
		}
		if !c.stage.CompareAndSwap(greeting, greeted) {
			return net.ErrClosed // it has just given way
		}
		c.state = ready
		c.mu.Lock()
		if !c.draining {
			c.nc.SetReadDeadline(time.Time{})
		}
		c.mu.Unlock()
		return nil
	}
	switch string(word) {
	case "AUTH":
		return c.auth(args)
	case "CONT":
		return c.cont(args)
	case "CANCEL":
		return c.cancelRequest(args)
	}
	return errUnknown
}

func (c *conn) version(args []byte) bool {
	f := fields{rest: args}
	major, _ := f.next()
	minor, _ := f.next()
	n, ok := parseNumber(minor)
	c.minor = n
	return string(major) == "1" && ok
}

// auth handles AUTH: id, mechanism, parameters, and at the end perhaps the initial response.
func (c *conn) auth(args []byte) error {
	f := fields{rest: args}
	id, err := c.newID(&f)
	if err != nil {
		return err
	}
	mechName, ok := f.next()
	if !ok {
		return errNoMechanism
	}
	r := &request{id: id}
	mech, known := parseMechanism(mechName)
	r.mech = mech
	initial, hasInitial, err := c.parameters(r, &f)
	if err != nil {
		return err
	}
	c.srv.requests.Add(1)
	if !known {
		c.log.Debug("dovecot: FAIL: mechanism not offered")
		c.fail(id, "")
		return nil
	}

	// An empty resp means "none" to peers of minor version 0 and 1. From 2 on it is a response of length zero, and so
	// is "=", which is what an SMTP client says for it (RFC 4954 section 4).
	if !hasInitial || len(initial) == 0 && c.minor < 2 {
		if mech == mechLogin {
			c.challenge(r, challengeUsername)
		} else {
			c.challenge(r, challengePlain)
		}
		return nil
	}
	if string(initial) == "=" {
		initial = nil
	}
	message, ok := c.decode(initial)
	if !ok {
		c.reply(func(out []byte) []byte {
			out = appendReply(out, "FAIL", id)
			return append(out, "\tcode=invalid_base64\treason=Invalid base64 data in initial response\n"...)
		})
		return nil
	}
	if mech == mechLogin && len(message) == 0 {
		c.challenge(r, challengeUsername)
		return nil
	}
	c.respond(r, message)
	return nil
}

// newID reads the id of a new request and makes sure that no unfinished one has it.
func (c *conn) newID(f *fields) (uint32, error) {
	field, _ := f.next()
	id, ok := parseID(field)
	if !ok {
		return 0, errBadID
	}
	c.expire()
	if c.waitingIndex(id) >= 0 {
		return 0, errDuplicateID
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.running {
		if r.id == id {
			return 0, errDuplicateID
		}
	}
	return id, nil
}

// parameters reads the parameters of AUTH into r. The initial response is still in base64.
func (c *conn) parameters(r *request, f *fields) (initial []byte, hasInitial bool, err error) {
	var service, protocol []byte
	var told bool // the peer knows the user's connection
	for {
		field, ok := f.next()
		if !ok {
			break
		}
		if hasInitial {
			return nil, false, errAfterResponse
		}
		name, value, _ := bytes.Cut(field, []byte{'='})
		switch string(name) {
		case "service":
			service = value
		case "protocol": // what login processes of Dovecot 2.4 send instead
			protocol = value
		case "nologin":
			r.noLogin = true
		case "rip":
			told = true
			if addr, err := netip.ParseAddr(string(value)); err == nil {
				r.Addr = addr.Unmap().WithZone("")
			}
		case "secured":
			r.TLS = auth.TLSYes
		case "session":
			r.Session = string(value[:min(len(value), maxSession)])
		case "resp":
			initial, hasInitial = value, true
		}
	}
	if len(service) == 0 {
		service = protocol
	}
	if len(service) == 0 {
		return nil, false, errNoService
	}
	if string(service) != c.service {
		c.service = string(service)
	}
	// A peer that names the user's address would also say that the connection is secured. One that tells nothing at all
	// (Radicale) does not know.
	if told && r.TLS == auth.TLSUnknown {
		r.TLS = auth.TLSNo
	}
	if r.Session == "" { // Postfix and Exim have none: something to find the attempt by
		r.Session = c.sessionID(r.id)
	}
	r.Service = c.service
	r.FrontEnd = "dovecot"
	r.Listener = c.listener
	return initial, hasInitial, nil
}

// sessionID names a request of this connection for the log, as long as the process lives: "3f.12".
func (c *conn) sessionID(id uint32) string {
	var buf [20]byte
	b := strconv.AppendUint(buf[:0], uint64(c.cuid), 16)
	b = append(b, '.')
	return string(strconv.AppendUint(b, uint64(id), 10))
}

// cont handles CONT: the response to a challenge.
func (c *conn) cont(args []byte) error {
	f := fields{rest: args}
	field, _ := f.next()
	id, ok := parseID(field)
	if !ok {
		return errBadID
	}
	data, ok := f.next()
	if !ok {
		return errNoResponse
	}
	c.expire()
	i := c.waitingIndex(id)
	if i < 0 {
		reason := "Authentication request timed out"
		if c.forgetRunning(id) {
			// The peer is told that this request is over, so the decision must not be reported any more.
			reason = "Unexpected continuation"
		}
		c.reply(func(out []byte) []byte {
			out = appendReply(out, "FAIL", id)
			out = append(out, "\treason="...)
			out = append(out, reason...)
			return append(out, '\n')
		})
		return nil
	}
	r := c.waiting[i]
	c.waiting = slices.Delete(c.waiting, i, i+1)
	message, ok := c.decode(data)
	if !ok {
		c.reply(func(out []byte) []byte {
			out = appendReply(out, "FAIL", id)
			return append(out, "\tcode=invalid_base64\treason=Invalid base64 data in continued response\n"...)
		})
		return nil
	}
	c.respond(r, message)
	return nil
}

// cancelRequest handles CANCEL. A decision that runs is left to end unheard: what it found out still counts.
func (c *conn) cancelRequest(args []byte) error {
	f := fields{rest: args}
	field, _ := f.next()
	id, ok := parseID(field)
	if !ok {
		return errBadID
	}
	known := true
	if i := c.waitingIndex(id); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	} else {
		known = c.forgetRunning(id)
	}
	if known && c.minor >= 4 { // Dovecot 2.4.4; older ones expect silence
		c.reply(func(out []byte) []byte { return append(appendReply(out, "CANCELLED", id), '\n') })
	}
	return nil
}

// forgetRunning drops the answer to come of a running decision.
func (c *conn) forgetRunning(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.running {
		if r.id == id {
			c.running = slices.Delete(c.running, i, i+1)
			return true
		}
	}
	return false
}

func (c *conn) waitingIndex(id uint32) int {
	return slices.IndexFunc(c.waiting, func(r *request) bool { return r.id == id })
}

// expire forgets the requests that have waited too long for CONT. Doing it when the next line comes is soon enough:
// what it frees is bounded by MaxPending.
func (c *conn) expire() {
	if len(c.waiting) == 0 {
		return
	}
	oldest := time.Now().Add(-c.srv.cfg.PendingExpiry)
	n := 0
	for n < len(c.waiting) && !c.waiting[n].since.After(oldest) {
		n++
	}
	c.waiting = slices.Delete(c.waiting, 0, n)
}

// challenge asks the peer for the next message of r.
func (c *conn) challenge(r *request, base64Text string) {
	if len(c.waiting) >= c.srv.cfg.MaxPending {
		c.waiting = slices.Delete(c.waiting, 0, 1)
	}
	r.since = time.Now()
	c.waiting = append(c.waiting, r)
	c.reply(func(out []byte) []byte {
		out = append(appendReply(out, "CONT", r.id), '\t') // Postfix and we ourselves insist on the TAB
		out = append(out, base64Text...)
		return append(out, '\n')
	})
}

// decode decodes base64 into the scratch buffer. Unlike the standard library it allows no line breaks.
func (c *conn) decode(data []byte) ([]byte, bool) {
	if bytes.ContainsAny(data, "\r\n") {
		return nil, false
	}
	c.decoded = slices.Grow(c.decoded[:0], base64.StdEncoding.DecodedLen(len(data)))
	c.decoded = c.decoded[:cap(c.decoded)]
	n, err := base64.StdEncoding.Decode(c.decoded, data)
	if err != nil {
		clear(c.decoded)
		return nil, false
	}
	return c.decoded[:n], true
}

// respond handles a message of the peer's client for r. It clears the message.
func (c *conn) respond(r *request, message []byte) {
	defer clear(message)
	switch {
	case r.mech == mechPlain:
		authzid, authcid, password, ok := parsePlain(message)
		if !ok {
			c.log.Debug("dovecot: FAIL: malformed PLAIN message")
			c.fail(r.id, "")
			return
		}
		// The login must not keep the password alive, so each gets memory of its own.
		r.Login, r.Password = string(authcid), string(password)
		if len(authzid) > 0 && !bytes.Equal(authzid, authcid) {
			c.log.Info("dovecot: FAIL: authorization identity differs from the login",
				"rip", r.Addr, "svc", r.Service, "user", r.Login[:min(len(r.Login), auth.MaxLogin)])
			c.fail(r.id, r.Login)
			return
		}
	case hasNUL(message):
		c.log.Debug("dovecot: FAIL: NUL in a LOGIN message")
		c.fail(r.id, r.Login)
		return
	case r.Login == "":
		if len(message) == 0 { // Exim, when its client has gone
			c.fail(r.id, "")
			return
		}
		r.Login = string(message)
		c.challenge(r, challengePassword)
		return
	default:
		r.Password = string(message)
	}
	if r.Password == "" {
		// No attempt: Exim sends this when its client hung up at the password prompt. It must not count.
		c.log.Debug("dovecot: FAIL: empty password")
		c.fail(r.id, r.Login)
		return
	}
	c.decide(r)
}
