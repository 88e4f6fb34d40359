package dovecot

import "bytes"

// mechanism is a SASL mechanism that the server offers.
type mechanism uint8

const (
	mechPlain mechanism = iota // RFC 4616
	mechLogin                  // draft-murchison-sasl-login-00
)

// parseMechanism reads a mechanism name without regard to case: Postfix passes on what its own client typed.
func parseMechanism(name []byte) (mechanism, bool) {
	switch {
	case equalFold(name, "PLAIN"):
		return mechPlain, true
	case equalFold(name, "LOGIN"):
		return mechLogin, true
	}
	return 0, false
}

// Challenges in base64. PLAIN has an empty one.
const (
	challengePlain    = ""
	challengeUsername = "VXNlcm5hbWU6" // "Username:"
	challengePassword = "UGFzc3dvcmQ6" // "Password:"
)

// parsePlain splits a PLAIN message, [authzid] NUL authcid NUL passwd (RFC 4616 section 2). None of the three may
// hold a NUL, and authcid may not be empty; an empty password is the caller's to refuse.
func parsePlain(message []byte) (authzid, authcid, password []byte, ok bool) {
	authzid, rest, found := bytes.Cut(message, []byte{0})
	if !found {
		return nil, nil, nil, false
	}
	authcid, password, found = bytes.Cut(rest, []byte{0})
	if !found || len(authcid) == 0 || hasNUL(password) {
		return nil, nil, nil, false
	}
	return authzid, authcid, password, true
}
