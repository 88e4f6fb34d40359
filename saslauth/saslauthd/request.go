package saslauthd

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
)

const (
	countSize  = 2   // of the big-endian count before each field
	maxAddress = 128 // longest client address that is read; an IPv6 address with zone and port has less
)

// refusal is why a request is answered with NO and nobody is asked. It holds nothing that the peer sent.
type refusal string

func (r refusal) Error() string { return string(r) }

const (
	refuseField    = refusal("field is too long")
	refuseRequest  = refusal("request is too long")
	refuseNUL      = refusal("field holds a NUL")
	refuseLogin    = refusal("login is empty")
	refusePassword = refusal("password is empty")
)

// fields are those of a request, as on the wire. They lie in the read buffer.
type fields struct {
	login, password, service, realm []byte
	rest                            []byte // what follows the fourth field
}

// scan finds the fields in b, which is what has arrived of a request. It returns false if there has to be more.
//
// Nothing follows from how the bytes were cut into writes: libsasl2 uses one, Exim four. A count over the limit refuses
// the request at once; the peer may never send what it announces.
func scan(b []byte, maxField, maxRequest int) (f fields, whole bool, err error) {
	at := 0
	for _, field := range [...]*[]byte{&f.login, &f.password, &f.service, &f.realm} {
		if len(b)-at < countSize {
			return fields{}, false, nil
		}
		n := int(binary.BigEndian.Uint16(b[at:]))
		at += countSize
		switch {
		case n > maxField:
			return fields{}, false, refuseField
		case at+n > maxRequest:
			return fields{}, false, refuseRequest
		case len(b)-at < n:
			return fields{}, false, nil
		}
		*field = b[at : at+n]
		at += n
	}
	f.rest = b[at:]
	return f, true, nil
}

// check refuses what no account and no app password can be.
func (f *fields) check() error {
	for _, field := range [...][]byte{f.login, f.password, f.service, f.realm} {
		if bytes.IndexByte(field, 0) >= 0 {
			return refuseNUL // saslauthd would take the part before it
		}
	}
	switch {
	case len(f.login) == 0:
		return refuseLogin
	case len(f.password) == 0:
		return refusePassword
	}
	return nil
}

// user is the login with its realm: libsasl2 cuts at the last "@" what Exim sends in one piece.
func (f *fields) user() string {
	if len(f.realm) == 0 {
		return string(f.login)
	}
	return string(f.login) + "@" + string(f.realm)
}

// address is the client's, from the fifth field "ip;port" of libsasl2 after 2.1.28. It is taken if it is whole, because
// it comes in the same write as the rest; nobody waits for it, because released versions do not send one. The zero Addr
// if there is none, or none that can be read.
func (f *fields) address() netip.Addr {
	if len(f.rest) < countSize {
		return netip.Addr{}
	}
	n := int(binary.BigEndian.Uint16(f.rest))
	text := f.rest[countSize:]
	if n > len(text) || n > maxAddress {
		return netip.Addr{}
	}
	ip, _, _ := strings.Cut(string(text[:n]), ";")
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// bufferSize has room for every request that is not refused, and for the address after it.
func (c Config) bufferSize() int {
	// A request is refused when the count that makes it too long is there, so one more count must fit.
	request := min(c.MaxRequest+countSize, 4*(countSize+min(c.MaxField, 0xFFFF)))
	return request + countSize + maxAddress
}
