package httpauth

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/valetkey/valetkey/internal/auth"
)

// grant answers Dovecot's password grant (RFC 6749 section 4.3; Dovecot src/auth/db-oauth2.c,
// reference/mail-protocols.md section 4.1). Rejected is 200 with "active" false, because Dovecot 2.4 takes the
// invalid_grant of the RFC for a temporary failure. Everything else that is not 200 is a temporary failure to 2.3 and 2.4:
// that is what a wrong client secret and a broken request get, since no user can be blamed for them.
func (s *Server) grant(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	form, why := readForm(w, r)
	if why != "" {
		s.bad(r, why)
		grantError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	id, secret := sameSecret(form.Get("client_id"), s.cfg.Grant.ClientID), sameSecret(form.Get("client_secret"), s.cfg.Grant.ClientSecret)
	if !id || !secret {
		s.refuseSecret(r, "client_id and client_secret of Dovecot's oauth2 passdb must be those of this listener")
		grantError(w, http.StatusServiceUnavailable, "temporarily_unavailable")
		return
	}
	if form.Get("grant_type") != "password" {
		s.bad(r, "grant_type is not password")
		grantError(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	service, remote, ok := dovecotHeaders(r)
	if !ok {
		s.bad(r, "repeated or contradictory X-Dovecot-Auth headers")
		grantError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	if service == "" {
		s.warn(&s.warnSetup, "http: Dovecot does not say which service is logged in to",
			"peer", peerOf(r).String(), "remedy", "set send_auth_headers = yes in Dovecot's oauth2 passdb")
	}
	login := form.Get("username")
	o, err := s.decide(r, auth.Request{
		Login:    login,
		Password: form.Get("password"),
		Service:  service,
		Addr:     parseAddr(remote), // trusted for the sake of the client secret
	}, true)
	if err != nil {
		grantError(w, http.StatusServiceUnavailable, "temporarily_unavailable")
		return
	}
	// All values are strings: Dovecot 2.3 compares the text of "active".
	reply := map[string]string{
		"access_token": "none", // must be there
		"token_type":   "Bearer",
		"username":     login, // exactly as sent: Dovecot rejects any other
		"active":       "false",
	}
	if o.OK {
		reply["active"] = "true"
		reply["login"] = o.Login
		if r.Header.Get("X-Dovecot-Auth-Protocol") != "" { // 2.4, which aborts on a field that is missing
			for _, name := range s.cfg.Grant.Fields {
				reply["userdb_"+name] = ""
			}
		}
		for name, value := range o.userdb {
			reply["userdb_"+name] = value // the prefix keeps them from being any of the fields above
		}
	}
	writeJSON(w, http.StatusOK, reply)
}

// readForm reads the parameters of a POST, from the body alone. why is empty if they are usable. None may be there twice
// (RFC 6749 section 3.2).
func readForm(w http.ResponseWriter, r *http.Request) (form url.Values, why string) {
	if r.Header.Get("Content-Encoding") != "" {
		return nil, "encoded body"
	}
	contentType, ok := single(r, "Content-Type")
	if kind, _, err := mime.ParseMediaType(contentType); !ok || err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, "content type is not application/x-www-form-urlencoded"
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	defer clear(body) // it holds the password
	if err != nil {
		return nil, "body is too large or incomplete"
	}
	form, err = url.ParseQuery(string(body))
	if err != nil { // whose text quotes the body
		return nil, "body is not a form"
	}
	for _, values := range form {
		if len(values) != 1 {
			return nil, "repeated parameter"
		}
	}
	return form, ""
}

// dovecotHeaders returns what send_auth_headers adds. Dovecot 2.3 names the service in one header, 2.4 in another.
func dovecotHeaders(r *http.Request) (service, remote string, ok bool) {
	service, ok1 := single(r, "X-Dovecot-Auth-Service")
	protocol, ok2 := single(r, "X-Dovecot-Auth-Protocol")
	remote, ok3 := single(r, "X-Dovecot-Auth-Remote")
	if service == "" {
		service = protocol
	}
	ok = ok1 && ok2 && ok3 && (protocol == "" || protocol == service)
	return service, remote, ok
}

// grantError answers as RFC 6749 section 5.2 has it.
func grantError(w http.ResponseWriter, status int, code string) {
	writeJSON(w, status, map[string]string{"error": code})
}

func writeJSON(w http.ResponseWriter, status int, reply map[string]string) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(reply) // cannot fail: strings only
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}
