package httpauth

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/valetkey/valetkey/internal/auth"
)

// basic checks the Basic credentials (RFC 7617) of a request that a web server asks about. 200 lets it pass, with the
// canonical login in a header; 401 carries the challenge. nginx makes a 500 of any other status.
func (s *Server) basic(w http.ResponseWriter, r *http.Request, service string) {
	s.requests.Add(1)
	b := s.cfg.Basic
	if b.Secret != "" && !headerSecret(r, b.SecretHeader, b.Secret) {
		s.refuseSecret(r, "have the web server set "+b.SecretHeader+" to the secret of this listener")
		plain(w, r, http.StatusServiceUnavailable)
		return
	}
	login, password, given, why := credentials(r)
	switch {
	case why != "":
		s.bad(r, why)
		plain(w, r, http.StatusBadRequest)
		return
	case !given: // browsers ask without credentials first
		b.challenge(w, r)
		return
	}
	o, err := s.decide(r, auth.Request{
		Login:    login,
		Password: password,
		Service:  service,
		Addr:     b.userAddress(r),
		TLS:      b.tls(r),
	}, false)
	switch {
	case err != nil:
		plain(w, r, http.StatusServiceUnavailable)
	case !o.OK:
		b.challenge(w, r)
	default:
		w.Header().Set(b.UserHeader, o.Login)
		empty(w, r, http.StatusOK)
	}
}

func (b *Basic) challenge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Basic realm="`+b.Realm+`", charset="UTF-8"`)
	empty(w, r, http.StatusUnauthorized)
}

// tls is what a trusted proxy says of the user's connection to it.
func (b *Basic) tls(r *http.Request) auth.TLSState {
	if b.trusts(peerOf(r)) {
		switch proto, _ := single(r, "X-Forwarded-Proto"); strings.ToLower(proto) {
		case "https":
			return auth.TLSYes
		case "http":
			return auth.TLSNo
		}
	}
	return auth.TLSUnknown
}

// credentials returns the login and the password of an Authorization header. given is false if there is none, or one of
// another scheme. why is empty unless the header is broken.
func credentials(r *http.Request) (login, password string, given bool, why string) {
	header, ok := single(r, "Authorization")
	if !ok {
		return "", "", false, "repeated Authorization"
	}
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false, ""
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.Trim(encoded, " "))
	defer clear(raw)
	if err != nil {
		return "", "", false, "Authorization is not base64"
	}
	login, password, ok = strings.Cut(string(raw), ":") // the first: a password may hold more of them
	if !ok {
		return "", "", false, "Authorization has no colon"
	}
	if strings.ContainsFunc(login+password, func(c rune) bool { return c < ' ' || c == 0x7f }) { // RFC 7617 section 2
		return "", "", false, "Authorization holds a control character"
	}
	return login, password, true, ""
}
