package httpauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
)

// fuzzServer accepts logins that begin with "yes", and notes what it accepted.
func fuzzServer(t *testing.T) (s *Server, asked *[]auth.Request) {
	t.Helper()
	s, _, _ = newServer(t, fullConfig(), nil)
	asked = new([]auth.Request)
	s.auth = authFunc(func(_ context.Context, req auth.Request) (auth.Decision, error) {
		*asked = append(*asked, req)
		if req.Login == "" || req.Password == "" || req.FrontEnd != "http" || req.Session == "" {
			t.Errorf("incomplete request %+v", req)
		}
		return auth.Decision{OK: strings.HasPrefix(req.Login, "yes"), Login: "canonical"}, nil
	})
	return s, asked
}

func fuzzAsk(s *Server, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, proxy)))
	return w
}

// FuzzGrant sends any body and headers. Only a body with the secret leads to an attempt, with just what a form decoder
// finds in it, and the answer is one that Dovecot reads.
func FuzzGrant(f *testing.F) {
	f.Add("grant_type=password&username=yes&password=x&client_id=dovecot&client_secret="+grantSecret, formType, "imap", "", "192.0.2.7:1")
	f.Add("grant_type=password&username=no%00%ff&password=x&client_id=dovecot&client_secret="+grantSecret, formType+"; charset=x", "", "pop3", "[::1]:1")
	f.Fuzz(func(t *testing.T, body, contentType, service, protocol, remote string) {
		s, asked := fuzzServer(t)
		r := newRequest(t, "POST", "/dovecot/grant", body)
		r.Header = http.Header{"Content-Type": {contentType}, "X-Dovecot-Auth-Service": {service},
			"X-Dovecot-Auth-Protocol": {protocol}, "X-Dovecot-Auth-Remote": {remote}}
		w := fuzzAsk(s, r)
		var reply map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
			t.Fatalf("answer %q: %v", w.Body, err)
		}
		form, err := url.ParseQuery(body)
		if len(*asked) > 0 {
			if err != nil || form.Get("client_secret") != grantSecret || form.Get("client_id") != "dovecot" || form.Get("grant_type") != "password" {
				t.Fatalf("an attempt without a usable form: %q", body)
			}
			req := (*asked)[0]
			if len(form["username"]) != 1 || len(form["password"]) != 1 || req.Login != form.Get("username") || req.Password != form.Get("password") {
				t.Fatalf("request %+v, want what is in %q", req, body)
			}
			if (req.Service != service && req.Service != protocol) || (service != "" && req.Service != service) {
				t.Fatalf("service %q, want %q or %q", req.Service, service, protocol)
			}
		}
		accepted := len(*asked) == 1 && strings.HasPrefix((*asked)[0].Login, "yes")
		switch w.Code {
		case 200:
			if want := map[bool]string{true: "true", false: "false"}[accepted]; reply["active"] != want {
				t.Fatalf("active = %q, want %q", reply["active"], want)
			}
			if login := form.Get("username"); utf8.ValidString(login) && reply["username"] != login {
				t.Fatalf("username = %q, want %q", reply["username"], login)
			}
			if reply["access_token"] == "" || reply["token_type"] == "" {
				t.Fatalf("answer %q without a token", w.Body)
			}
		case 400, 503:
			if len(*asked) > 0 || reply["error"] == "" || reply["error"] == "invalid_grant" {
				t.Fatalf("answer %d %q after %d attempts", w.Code, w.Body, len(*asked))
			}
		default:
			t.Fatalf("answer = %d, want 200, 400 or 503", w.Code)
		}
	})
}

// FuzzNginx sends any headers. Only "plain" with the secret leads to an attempt, and only an accepted one to a backend.
func FuzzNginx(f *testing.F) {
	f.Add("plain", "yes", "x%20y", "imap", "1", "192.0.2.7", mailSecret)
	f.Add("cram-md5", "yes", "0123", "smtp", "99999999999999999999", "unix:", mailSecret)
	f.Add("none", "", "", "smtp", "-1", "::1%eth0", mailSecret)
	f.Fuzz(func(t *testing.T, method, user, pass, protocol, attempt, addr, secret string) {
		s, asked := fuzzServer(t)
		r := newRequest(t, "GET", "/nginx/mail", "")
		r.Header = http.Header{"Auth-Method": {method}, "Auth-User": {user}, "Auth-Pass": {pass}, "Auth-Protocol": {protocol},
			"Auth-Login-Attempt": {attempt}, "Client-Ip": {addr}, "X-Auth-Key": {secret}}
		w := fuzzAsk(s, r)
		h := w.Header()
		if len(*asked) > 0 && (secret != mailSecret || !strings.EqualFold(method, "plain") || (*asked)[0].Service != protocol) {
			t.Fatalf("an attempt by %q with the secret %q for %q", method, secret, protocol)
		}
		accepted := len(*asked) == 1 && strings.HasPrefix((*asked)[0].Login, "yes")
		if got := h.Get("Auth-Status") == "OK"; got != accepted || got != (h.Get("Auth-Server") != "") || got != (h.Get("Auth-Port") != "") {
			t.Fatalf("answer = %d %v, want OK and a backend: %v", w.Code, h, accepted)
		}
		if (protocol == "smtp" && w.Code != 400 && !accepted) != (h.Get("Auth-Error-Code") != "") {
			t.Fatalf("answer = %d %v for %q, want a code for smtp only", w.Code, h, protocol)
		}
		if w.Code == 400 && h.Get("Auth-Status") != "" || w.Code == 503 && secret == mailSecret || w.Code != 200 && w.Code != 400 && w.Code != 503 {
			t.Fatalf("answer = %d %v", w.Code, h)
		}
		if w.Code == 200 && w.Body.Len() > 0 {
			t.Fatalf("answer has a body: %q", w.Body)
		}
	})
}

// FuzzBasic sends any credentials, path and address. Only well-formed credentials lead to an attempt, and only an accepted
// one to a user header.
func FuzzBasic(f *testing.F) {
	f.Add("Basic "+basicAuth("yes", "a:b"), "/basic", "192.0.2.7")
	f.Add("basic "+basicAuth("no", ""), "/basic/wiki", "192.0.2.7, 10.0.0.1")
	f.Add("Bearer x", "/basic/", "")
	f.Fuzz(func(t *testing.T, authorization, path, addr string) {
		s, asked := fuzzServer(t)
		r := newRequest(t, "GET", "/", "")
		r.URL.Path = path
		r.Header = http.Header{"Authorization": {authorization}, "X-Real-Ip": {addr}}
		w := fuzzAsk(s, r)
		if len(*asked) > 0 {
			req := (*asked)[0]
			_, encoded, _ := strings.Cut(authorization, " ")
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
			if err != nil || req.Login+":"+req.Password != string(raw) || strings.Contains(req.Login, ":") {
				t.Fatalf("request %+v, want what is in %q", req, authorization)
			}
			if service, err := auth.NormaliseService(req.Service); err != nil || service != req.Service {
				t.Fatalf("service %q for %q", req.Service, path)
			}
			if req.Addr.IsValid() && (req.Addr.Zone() != "" || req.Addr.Is4In6()) {
				t.Fatalf("address %v for %q, want it plain", req.Addr, addr)
			}
		}
		accepted := len(*asked) == 1 && strings.HasPrefix((*asked)[0].Login, "yes")
		if (w.Code == 200) != accepted || (w.Header().Get("Remote-User") != "") != accepted {
			t.Fatalf("answer = %d %v, want it accepted: %v", w.Code, w.Header(), accepted)
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Fatalf("answer = %d %v, want a challenge with 401 only", w.Code, w.Header())
		}
		switch w.Code {
		case 200, 400, 401, 404:
		default:
			t.Fatalf("answer = %d", w.Code)
		}
	})
}
