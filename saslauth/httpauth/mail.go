package httpauth

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// mailReply is what a mail client is told. nginx puts the text behind the tag and NO (IMAP), -ERR (POP3) or the code
// (SMTP) as it is, so that the response codes of RFC 5530 and RFC 3206 get through.
type mailReply struct {
	imap, pop3, smtp string
	code             string // SMTP, with the enhanced status code of RFC 3463
}

var (
	mailRejected = mailReply{
		imap: "[AUTHENTICATIONFAILED] Invalid login or password",
		pop3: "[AUTH] Invalid login or password",
		smtp: "Invalid login or password",
		code: "535 5.7.8",
	}
	mailUndecided = mailReply{
		imap: "[UNAVAILABLE] Temporary authentication failure",
		pop3: "[SYS/TEMP] Temporary authentication failure",
		smtp: "Temporary authentication failure",
		code: "451 4.3.0",
	}
	mailMechanism = mailReply{
		imap: "[CANNOT] Authentication mechanism is not supported",
		pop3: "Authentication mechanism is not supported",
		smtp: "Authentication mechanism is not supported",
		code: "504 5.5.4",
	}
	mailRequired = mailReply{
		imap: "[CANNOT] Authentication required",
		pop3: "Authentication required",
		smtp: "Authentication required",
		code: "530 5.7.0",
	}
)

func (m mailReply) text(protocol string) string {
	switch protocol {
	case "imap":
		return m.imap
	case "pop3":
		return m.pop3
	}
	return m.smtp
}

// mail answers nginx's mail proxy (nginx src/mail/ngx_mail_auth_http_module.c, reference/mail-protocols.md section 5.1).
// nginx reads headers only, 1024 bytes of them at most, and ignores the status. Without Auth-Status in the answer it
// tells the user of an internal error and hangs up: that is what a broken request gets.
func (s *Server) mail(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if !headerSecret(r, s.cfg.Mail.SecretHeader, s.cfg.Mail.Secret) {
		s.refuseSecret(r, "set auth_http_header "+s.cfg.Mail.SecretHeader+" in nginx to the secret of this listener")
		protocol, _ := single(r, "Auth-Protocol")
		s.refuseMail(w, http.StatusServiceUnavailable, mailUndecided, protocol, false)
		return
	}
	q, why := readMail(r)
	if why != "" {
		s.bad(r, why)
		plain(w, r, http.StatusBadRequest)
		return
	}
	retry := q.attempt < s.cfg.Mail.MaxAttempts
	switch q.method {
	case "plain": // AUTH PLAIN and LOGIN, IMAP LOGIN, POP3 USER and PASS
	case "none": // smtp_auth none: mail without a login
		s.refuseMail(w, http.StatusOK, mailRequired, q.protocol, retry)
		return
	default:
		s.refuseMail(w, http.StatusOK, mailMechanism, q.protocol, retry)
		return
	}
	backend, ok := s.cfg.Mail.Backends[q.protocol]
	if !ok {
		s.warn(&s.warnSetup, "http: undecided: no backend is configured for nginx", "protocol", q.protocol)
		s.refuseMail(w, http.StatusOK, mailUndecided, q.protocol, retry)
		return
	}
	o, err := s.decide(r, q.Request, false)
	switch {
	case err != nil:
		s.refuseMail(w, http.StatusOK, mailUndecided, q.protocol, retry)
	case !o.OK:
		s.refuseMail(w, http.StatusOK, mailRejected, q.protocol, retry)
	default:
		h := w.Header()
		h.Set("Auth-Status", "OK")
		h.Set("Auth-Server", backend.Addr().String())
		h.Set("Auth-Port", strconv.Itoa(int(backend.Port())))
		if o.Login != q.Login {
			h.Set("Auth-User", o.Login) // the backend sees the canonical login
		}
		w.WriteHeader(http.StatusOK)
	}
}

func (s *Server) refuseMail(w http.ResponseWriter, status int, m mailReply, protocol string, retry bool) {
	h := w.Header()
	h.Set("Auth-Status", m.text(protocol))
	if protocol == "smtp" {
		h.Set("Auth-Error-Code", m.code)
	}
	if retry { // otherwise nginx hangs up
		h.Set("Auth-Wait", strconv.Itoa(int(s.cfg.Mail.RetryWait/time.Second)))
	}
	w.WriteHeader(status)
}

// mailRequest is what nginx asks.
type mailRequest struct {
	auth.Request
	protocol, method string
	attempt          int
}

// readMail reads the headers that nginx sends. why is empty if they are usable.
func readMail(r *http.Request) (q mailRequest, why string) {
	get := func(name string) string {
		value, ok := single(r, name)
		if !ok {
			why = "repeated " + name
		}
		return value
	}
	q.method = strings.ToLower(get("Auth-Method"))
	q.protocol = get("Auth-Protocol")
	user, pass, attempt := get("Auth-User"), get("Auth-Pass"), get("Auth-Login-Attempt")
	addr, tls := get("Client-IP"), get("Auth-SSL")
	switch {
	case why != "":
		return q, why
	case !mailProtocol(q.protocol):
		return q, "Auth-Protocol is none of imap, pop3, smtp"
	case q.method == "":
		return q, "no Auth-Method"
	case q.method == "plain" && (len(r.Header["Auth-User"]) == 0 || len(r.Header["Auth-Pass"]) == 0):
		return q, "no Auth-User or Auth-Pass"
	}
	q.Service = q.protocol
	q.Addr = parseAddr(addr) // trusted for the sake of the secret
	q.TLS = auth.TLSNo
	if tls == "on" {
		q.TLS = auth.TLSYes
	}
	q.attempt = 1
	if n, err := strconv.Atoi(attempt); err == nil && n > 0 {
		q.attempt = n
	}
	var errUser, errPass error // their texts quote what was sent
	q.Login, errUser = url.PathUnescape(user)
	q.Password, errPass = url.PathUnescape(pass)
	if errUser != nil || errPass != nil {
		return q, "Auth-User or Auth-Pass is not percent-encoded"
	}
	return q, ""
}
