package ldapbridge

import (
	"errors"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// message is a decoded LDAPMessage (RFC 4511 section 4.1.1). It points into the read buffer. The connection keeps one and
// decodes every PDU into it.
type message struct {
	id       int32
	op       byte // tag of protocolOp
	body     []byte
	controls []control
}

// control is a Control (RFC 4511 section 4.1.11). A control without a value has a nil value.
type control struct {
	oid      []byte
	critical bool
	value    []byte
}

var (
	errMessageID = errors.New("invalid message id")
	errDecoding  = errors.New("decoding error")
	errUnknownOp = errors.New("unknown LDAP request")
)

// decode reads the contents of the outer SEQUENCE. Unknown elements after the known ones are ignored (RFC 4511 section 4,
// extensibility); their framing must hold. After an error op is set if it could be read, so that an unbind is recognised.
func (m *message) decode(pdu []byte, maxControls int) error {
	m.id, m.op, m.body = 0, 0, nil
	m.controls = m.controls[:0]
	r := ber.NewReader(pdu)
	idBytes, err := r.Expect(ber.Integer)
	if err != nil {
		return errDecoding
	}
	id, err := ber.ParseInt(idBytes)
	if err != nil || id < 1 {
		return errMessageID
	}
	m.id = id
	if m.op, m.body, err = r.Next(); err != nil {
		return errDecoding
	}
	if responseTo(m.op) == 0 && m.op != opUnbindRequest && m.op != opAbandonRequest {
		return errUnknownOp
	}
	first := true
	for !r.Empty() {
		tag, contents, err := r.Next()
		if err != nil {
			return errDecoding
		}
		if tag == 0xa0 && first {
			if err := m.decodeControls(contents, maxControls); err != nil {
				return err
			}
		}
		first = false
	}
	return nil
}

// decodeControls accepts the optional elements in every combination that clients send: an explicit FALSE, no value, an empty
// value.
func (m *message) decodeControls(contents []byte, maxControls int) error {
	r := ber.NewReader(contents)
	for !r.Empty() {
		if len(m.controls) == maxControls {
			return errDecoding
		}
		body, err := r.Expect(ber.Sequence)
		if err != nil {
			return errDecoding
		}
		var c control
		cr := ber.NewReader(body)
		if c.oid, err = cr.Expect(ber.OctetString); err != nil {
			return errDecoding
		}
		if cr.Peek() == ber.Boolean {
			if c.critical, err = cr.Bool(); err != nil {
				return errDecoding
			}
		}
		if cr.Peek() == ber.OctetString {
			if c.value, err = cr.Expect(ber.OctetString); err != nil {
				return errDecoding
			}
		}
		if cr.Peek() == ber.Boolean { // a criticality out of place must not be overlooked
			return errDecoding
		}
		if err := trailing(&cr); err != nil {
			return err
		}
		m.controls = append(m.controls, c)
	}
	return nil
}

const (
	oidManageDsaIT    = "2.16.840.1.113730.3.4.2"
	oidPasswordPolicy = "1.3.6.1.4.1.42.2.27.8.5.1"
)

// unknownCritical reports whether the request must not be performed because of a control that it marks as critical.
func (m *message) unknownCritical() bool {
	for _, c := range m.controls {
		if !c.critical {
			continue
		}
		switch {
		case m.op == opBindRequest && string(c.oid) == oidPasswordPolicy:
			// Accepted, and answered without a response control: sssd and nslcd are content with that.
		case m.op != opBindRequest && string(c.oid) == oidManageDsaIT:
			// There are no referral objects to manage.
		case m.op == opSearchRequest && string(c.oid) == oidPagedResults:
		default:
			return true
		}
	}
	return false
}

// bindRequest is RFC 4511 section 4.2. Credentials are those of whatever method.
type bindRequest struct {
	version     int32
	name        []byte
	method      byte // tag of the authentication choice
	credentials []byte
}

const methodSimple = 0x80

func (b *bindRequest) decode(body []byte) error {
	r := ber.NewReader(body)
	var err error
	if b.version, err = r.Int(); err != nil {
		return errDecoding
	}
	if b.name, err = r.Expect(ber.OctetString); err != nil {
		return errDecoding
	}
	if b.method, b.credentials, err = r.Next(); err != nil || b.method&0xc0 != 0x80 {
		return errDecoding
	}
	return trailing(&r)
}

// trailing skips elements that a later version of the protocol may have added.
func trailing(r *ber.Reader) error {
	for !r.Empty() {
		if _, _, err := r.Next(); err != nil {
			return errDecoding
		}
	}
	return nil
}

// searchRequest is RFC 4511 section 4.5.1. The ranges of the numbers are the caller's to check.
type searchRequest struct {
	base                 []byte
	scope, deref         int32
	sizeLimit, timeLimit int32
	typesOnly            bool
	filter               []byte // the whole element; its framing is checked at the outermost level only
	attributes           []byte // contents of the AttributeSelection, every element an OCTET STRING
}

func (s *searchRequest) decode(body []byte) error {
	r := ber.NewReader(body)
	var err error
	if s.base, err = r.Expect(ber.OctetString); err != nil {
		return errDecoding
	}
	if s.scope, err = r.Enum(); err != nil {
		return errDecoding
	}
	if s.deref, err = r.Enum(); err != nil {
		return errDecoding
	}
	if s.sizeLimit, err = r.Int(); err != nil {
		return errDecoding
	}
	if s.timeLimit, err = r.Int(); err != nil {
		return errDecoding
	}
	if s.typesOnly, err = r.Bool(); err != nil {
		return errDecoding
	}
	if s.filter, err = r.NextElement(); err != nil {
		return errDecoding
	}
	if s.attributes, err = r.Expect(ber.Sequence); err != nil {
		return errDecoding
	}
	for a := ber.NewReader(s.attributes); !a.Empty(); {
		if _, err := a.Expect(ber.OctetString); err != nil {
			return errDecoding
		}
	}
	return trailing(&r)
}

// assertion is an AttributeValueAssertion (RFC 4511 section 4.1.6).
type assertion struct{ description, value []byte }

func (a *assertion) decode(body []byte) error {
	r := ber.NewReader(body)
	var err error
	if a.description, err = r.Expect(ber.OctetString); err != nil {
		return errDecoding
	}
	if a.value, err = r.Expect(ber.OctetString); err != nil {
		return errDecoding
	}
	return trailing(&r)
}

// compareRequest is RFC 4511 section 4.10.
type compareRequest struct {
	entry []byte
	ava   assertion
}

func (c *compareRequest) decode(body []byte) error {
	r := ber.NewReader(body)
	var err error
	if c.entry, err = r.Expect(ber.OctetString); err != nil {
		return errDecoding
	}
	ava, err := r.Expect(ber.Sequence)
	if err != nil {
		return errDecoding
	}
	if err := c.ava.decode(ava); err != nil {
		return err
	}
	return trailing(&r)
}

// extendedRequest is RFC 4511 section 4.12. A request without a value has a nil value.
type extendedRequest struct {
	name  []byte
	value []byte
}

func (e *extendedRequest) decode(body []byte) error {
	r := ber.NewReader(body)
	var err error
	e.value = nil
	if e.name, err = r.Expect(0x80); err != nil {
		return errDecoding
	}
	if r.Peek() == 0x81 {
		if e.value, err = r.Expect(0x81); err != nil {
			return errDecoding
		}
	}
	return trailing(&r)
}
