package ldapbridge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

const oidPagedResults = "1.2.840.113556.1.4.319"

// page is the simple paged results control of one search (RFC 2696).
//
// The server keeps nothing between pages: the cookie says behind which entry the next one begins, and is authenticated with a key
// of the process together with who asked for what. A daemon that was restarted refuses it, and the client begins anew.
type page struct {
	size   int
	cookie []byte // the client's

	binding [sha256.Size]byte // of what is asked and by whom
	started bool              // the base was dealt with in a page before
	sent    int               // in the pages before
	last    string            // position of the last entry that was sent; empty: the base

	more  bool // there is another page
	total int  // sent when this page is done
}

var badPage = result{code: protocolError, diag: "paged results control is invalid"}

// newPage reads the control; without one the page is nil.
func newPage(m *message) (*page, result) {
	var p *page
	for i := range m.controls {
		c := &m.controls[i]
		if string(c.oid) != oidPagedResults {
			continue
		}
		if p != nil {
			return nil, result{code: protocolError, diag: "paged results control given twice"}
		}
		outer := ber.NewReader(c.value)
		body, err := outer.Expect(ber.Sequence)
		if err != nil || !outer.Empty() {
			return nil, badPage
		}
		r := ber.NewReader(body)
		size, err := r.Int()
		if err != nil || size < 0 {
			return nil, badPage
		}
		cookie, err := r.Expect(ber.OctetString)
		if err != nil || trailing(&r) != nil { // RFC 4511 section 4.1.11: extensible as the protocol is
			return nil, badPage
		}
		p = &page{size: int(size), cookie: cookie}
	}
	return p, result{}
}

// bind ties cookies to what is asked and by whom.
func (p *page) bind(w *walk) {
	h := sha256.New()
	part := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	c := w.c
	reader := byte(0)
	if c.reader {
		reader = 1
	}
	part([]byte{reader, byte(w.req.scope)})
	part([]byte(c.login))
	part([]byte(c.srv.suffix(c.app)))
	part([]byte(c.srv.suffix(w.q.app)))
	part(appendFold(nil, w.q.base.append(nil)))
	part(w.req.filter)
	h.Sum(p.binding[:0])
}

// A cookie is how many entries were sent, in 4 octets, the position, and the authentication.
const (
	cookieHead = 4
	cookieMAC  = 16
)

// resume reads the cookie. It returns false if it is not one of ours for this search.
func (p *page) resume(s *Server) bool {
	if len(p.cookie) == 0 {
		return true
	}
	n := len(p.cookie) - cookieMAC
	if n < cookieHead || n > cookieHead+maxPosition || !hmac.Equal(s.cookieMAC(p.cookie[:n], &p.binding), p.cookie[n:]) {
		return false
	}
	p.started = true
	p.sent = int(binary.BigEndian.Uint32(p.cookie))
	p.last = string(p.cookie[cookieHead:n])
	return true
}

func (s *Server) cookieMAC(text []byte, binding *[sha256.Size]byte) []byte {
	mac := hmac.New(sha256.New, s.pageKey[:])
	mac.Write(binding[:]) // of fixed length, so the two cannot be shifted against each other
	mac.Write(text)
	return mac.Sum(nil)[:cookieMAC]
}

// appendDone appends the result of a search, with the control if there was one.
func (p *page) appendDone(dst []byte, s *Server, id int32, r result) []byte {
	if p == nil || r.code == protocolError {
		return appendResponse(dst, id, opSearchDone, r)
	}
	var cookie []byte
	if p.more {
		cookie = binary.BigEndian.AppendUint32(nil, uint32(p.total))
		cookie = append(cookie, p.last...)
		cookie = append(cookie, s.cookieMAC(cookie, &p.binding)...)
	}
	value, mark := ber.Begin(nil, ber.Sequence)
	value = ber.AppendInt(value, ber.Integer, 0) // how many there are is not known
	value = ber.AppendString(value, ber.OctetString, cookie)
	value = ber.End(value, mark)

	dst, message := ber.Begin(dst, ber.Sequence)
	dst = ber.AppendInt(dst, ber.Integer, id)
	dst, body := ber.Begin(dst, opSearchDone)
	dst = r.append(dst)
	dst = ber.End(dst, body)
	dst, list := ber.Begin(dst, 0xa0)
	dst, one := ber.Begin(dst, ber.Sequence)
	dst = ber.AppendString(dst, ber.OctetString, oidPagedResults)
	dst = ber.AppendString(dst, ber.OctetString, value)
	dst = ber.End(dst, one)
	dst = ber.End(dst, list)
	return ber.End(dst, message)
}
