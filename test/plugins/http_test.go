package plugins_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// service is an HTTPS server on loopback that answers as the pages of the three services say, and as services do that are in trouble.
type service struct {
	*httptest.Server
	ca string

	connections atomic.Int64
	tokens      atomic.Int64 // that were given out
	mu          sync.Mutex
	valid       string        // the access token that is accepted
	asked       []string      // what came, as "METHOD URI"
	release     chan struct{} // closed when what hangs may end
	enrolled    atomic.Bool   // what the site's own service says of "walter"
}

func newService(t *testing.T) *service {
	t.Helper()
	ca := harness.NewAuthority(t)
	issued := ca.Issue(t, "service", time.Hour)
	cert, err := tls.LoadX509KeyPair(issued.Cert, issued.Key)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{ca: ca.File, release: make(chan struct{})}
	mux := http.NewServeMux()
	s.keycloak(mux)
	s.authentik(mux)
	s.privacyIDEA(mux)
	s.own(mux)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.RequestURI)
		s.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(s.release) })
	return s
}

// requests returns what came since the last call.
func (s *service) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// keycloak answers as its Admin REST API: UserRepresentation and CredentialRepresentation, with the fields that are there.
func (s *service) keycloak(mux *http.ServeMux) {
	mux.HandleFunc("POST /realms/main/protocol/openid-connect/token", func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != "valetkey" || secret != "canary+secret%2F%3A" || r.PostFormValue("grant_type") != "client_credentials" {
			answer(w, 401, `{"error":"unauthorized_client","error_description":"canary: Invalid client or Invalid client credentials"}`)
			return
		}
		s.mu.Lock()
		s.valid = fmt.Sprintf("canary-token-%d", s.tokens.Add(1))
		token := s.valid
		s.mu.Unlock()
		answer(w, 200, `{"access_token":"`+token+`","expires_in":300,"refresh_expires_in":0,"token_type":"Bearer","not-before-policy":0,"scope":"profile email"}`)
	})
	admin := func(pattern string, handle http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			valid := s.valid
			s.mu.Unlock()
			if valid == "" || r.Header.Get("Authorization") != "Bearer "+valid {
				answer(w, 401, `{"error":"HTTP 401 Unauthorized"}`)
				return
			}
			handle(w, r)
		})
	}
	user := func(n int, name string) string {
		return fmt.Sprintf(`{"id":"%08d-9356-4154-9ed6-6c212b869010","username":"%s","firstName":"A","lastName":"B","email":"%s@example.org","emailVerified":true,`+
			`"createdTimestamp":1767605202060,"enabled":true,"totp":true,"disableableCredentialTypes":[],"requiredActions":[],"notBefore":0,"access":{"view":true}}`, n, name, name)
	}
	users := map[string]int{"alice": 1, "alice2": 2, "bob": 3, "carol": 4, "a+b&exact=false": 5}
	admin("GET /admin/realms/main/users", func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("username")
		if r.URL.Query().Get("briefRepresentation") != "true" {
			answer(w, 400, `{"error":"canary: more is asked for than is needed"}`)
			return
		}
		var found []string
		for have, n := range users {
			if have == name || r.URL.Query().Get("exact") != "true" && strings.Contains(have, name) {
				found = append(found, user(n, have))
			}
		}
		answer(w, 200, "["+strings.Join(found, ",")+"]")
	})
	admin("GET /admin/realms/main/users/{id}/credentials", func(w http.ResponseWriter, r *http.Request) {
		const password = `{"id":"1","type":"password","createdDate":1767605202060,"credentialData":"{\"hashIterations\":5,\"algorithm\":\"argon2\"}"}`
		const otp = `{"id":"2","type":"otp","userLabel":"Smartphone","createdDate":1767605202060,"credentialData":"{\"subType\":\"totp\",\"digits\":6,\"counter\":0,\"period\":30,\"algorithm\":\"HmacSHA1\"}"}`
		switch r.PathValue("id")[:8] {
		case "00000001", "00000005":
			answer(w, 200, "["+password+","+otp+"]")
		case "00000004":
			answer(w, 200, "["+password+`,{"id":"3","type":"webauthn-passwordless","userLabel":"key","createdDate":1767605202060}]`)
		case "00000003":
			answer(w, 200, "["+password+"]")
		default:
			answer(w, 200, "[]")
		}
	})
}

// authentik answers as its API reference.
func (s *service) authentik(mux *http.ServeMux) {
	pk := map[string]int{"alice": 7, "bob": 8, "carol": 9, "dora": 10, "erna": 11}
	mux.HandleFunc("GET /api/v3/core/users/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer canary-api-token" {
			answer(w, 403, `{"detail":"Token invalid/expired"}`)
			return
		}
		results := ""
		if n, ok := pk[r.URL.Query().Get("username")]; ok {
			results = fmt.Sprintf(`{"pk":%d,"username":"%s","name":"A","is_active":true,"last_login":null,"groups":[],"attributes":{}}`, n, strings.ToUpper(r.URL.Query().Get("username")))
		}
		answer(w, 200, `{"pagination":{"next":0,"previous":0,"count":1,"current":1,"total_pages":1,"start_index":1,"end_index":1},"results":[`+results+`]}`)
	})
	device := func(kind string, confirmed bool) string {
		return fmt.Sprintf(`{"verbose_name":"x","verbose_name_plural":"x","meta_model_name":"x","pk":"1","name":"x","type":"%s","confirmed":%t,"last_used":null,"extra_description":""}`, kind, confirmed)
	}
	mux.HandleFunc("GET /api/v3/authenticators/admin/all/", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("user") {
		case "7":
			answer(w, 200, "["+device("authentik_stages_authenticator_static.StaticDevice", true)+","+device("authentik_stages_authenticator_totp.TOTPDevice", true)+"]")
		case "8":
			answer(w, 200, "["+device("authentik_stages_authenticator_totp.TOTPDevice", false)+"]")
		case "10": // a browser that the company manages, which is nothing that the person has
			answer(w, 200, "["+device("authentik_stages_authenticator_endpoint_gdtc.EndpointDevice", true)+"]")
		case "11":
			answer(w, 200, "["+device("authentik_stages_authenticator_new.NewDevice", true)+"]")
		default:
			answer(w, 200, "["+device("authentik_stages_authenticator_static.StaticDevice", true)+"]")
		}
	})
}

// privacyIDEA answers as its token endpoints do, an unknown user included.
func (s *service) privacyIDEA(mux *http.ServeMux) {
	token := func(owner, kind string, active, revoked bool, state string) string {
		return fmt.Sprintf(`{"active":%t,"count":3,"description":"","failcount":0,"locked":false,"maxfail":10,"otplen":6,"realms":["example"],"resolver":"ldap","revoked":%t,`+
			`"rollout_state":%s,"serial":"OATH0001","tokentype":"%s","user_id":"1","user_realm":"example","username":"%s"}`, active, revoked, state, kind, owner)
	}
	// Older versions leave the state of what is ready empty or null, newer ones write "enrolled".
	all := map[string]string{
		"alice": token("alice", "hotp", false, false, `""`) + "," + token("alice", "totp", true, false, `""`), "bob": token("bob", "totp", true, true, `""`), "carol": "",
		"dora": token("dora", "push", true, false, `"clientwait"`) + "," + token("dora", "totp", true, false, `"verify"`),
		"erna": token("erna", "push", true, false, `"clientwait"`) + "," + token("erna", "webauthn", true, false, `"enrolled"`), "fritz": token("fritz", "totp", true, false, "null"),
	}
	mux.HandleFunc("GET /token/", func(w http.ResponseWriter, r *http.Request) {
		tokens, known := all[r.URL.Query().Get("user")]
		switch {
		case r.Header.Get("Authorization") != "canary-api-key":
			answer(w, 401, `{"id":1,"jsonrpc":"2.0","result":{"error":{"code":4033,"message":"Authentication failure."},"status":false}}`)
		case !known:
			answer(w, 400, `{"id":1,"jsonrpc":"2.0","result":{"error":{"code":904,"message":"ERR904: The user can not be found in any resolver in this realm!"},"status":false}}`)
		default:
			answer(w, 200, `{"id":1,"jsonrpc":"2.0","result":{"status":true,"value":{"count":1,"current":1,"next":null,"prev":null,"tokens":[`+tokens+`]}},"version":"privacyIDEA 3.10"}`)
		}
	})
}

// own is a service of the site's, with everything that can be wrong.
func (s *service) own(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/users/{login}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer canary-own" {
			answer(w, 403, `{}`)
			return
		}
		switch r.PathValue("login") {
		case "alice", "a;b?c#d&e=f g":
			answer(w, 200, `{"second_factor": true}`)
		case "bob":
			answer(w, 200, `{"second_factor": false}`)
		case "walter":
			answer(w, 200, fmt.Sprintf(`{"second_factor": %t}`, s.enrolled.Load()))
		case "odd":
			answer(w, 200, `{"second_factor": "canary"}`)
		case "changed":
			answer(w, 200, `{"error": "canary"}`)
		case "html":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<h1>canary</h1>")
		case "twice":
			answer(w, 200, `{"second_factor": true}{}`)
		case "moved":
			http.Redirect(w, r, s.URL+"/api/users/alice", http.StatusFound)
		case "down":
			answer(w, 503, `{"second_factor": true}`)
		case "proxy":
			http.Error(w, "404 canary", http.StatusNotFound)
		case "large":
			answer(w, 200, `{"second_factor": true, "x": "`+strings.Repeat("x", 2<<20)+`"}`)
		case "endless":
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
					return
				}
			}
		case "hangs":
			select {
			case <-s.release:
			case <-r.Context().Done():
			}
		default:
			answer(w, 404, `{"error": "no such user"}`)
		}
	})
	mux.HandleFunc("POST /ask", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		var body struct {
			User string
			Deep []struct{ Names []string }
		}
		login := r.PostFormValue("user")
		if r.Header.Get("Content-Type") == "application/json" && json.NewDecoder(r.Body).Decode(&body) == nil && len(body.Deep) == 1 {
			login = body.Deep[0].Names[0]
		}
		if user != "valetkey" || password != "canary-basic" {
			answer(w, 401, `{}`)
			return
		}
		answer(w, 200, fmt.Sprintf(`{"of": %q, "kinds": {"a.b": ["app", 3]}}`, login))
	})
}

// config is a snippet of the page, sent to the service.
func (s *service) config(t *testing.T, snippet, host, secretFile, secret string) string {
	t.Helper()
	page := harness.ReadPage(t, "../enrolment-http")
	return fmt.Sprintf("ca_file = %q\n", s.ca) + page.Snippet(t, "2fa-http.toml "+snippet, "https://"+host, s.URL, secretFile, write(t, "secret", secret+"\n"))
}

// TestHTTPRecipes runs what the page says for three services.
//
// It would catch: a login that reaches another place of the URL, a user whose name only contains the login, a device that is not confirmed or
// revoked, recovery codes taken for a second factor, a token that is fetched for every answer, or not when it is refused.
func TestHTTPRecipes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	keycloak := newProgram(t, "valetkey-2fa-http", s.config(t, "keycloak", "sso.example.org", "/etc/valetkey/2fa-keycloak.secret", "canary secret/:"))
	keycloak.want("alice: enrolled (otp)", "bob: not_enrolled (no_match)", "carol: enrolled (webauthn_passwordless)", "alic: account_unknown (no_id)", "a+b&exact=false: enrolled (otp)")
	t.Run("keycloak", func(t *testing.T) {
		p := *keycloak
		p.t = t
		p.suite(enrolled("alice"), notEnrolled("bob"), unknown("alic"))
	})
	// A service that does not know "exact" gives alice2, too.
	newProgram(t, "valetkey-2fa-http", strings.Replace(readFile(t, keycloak.config), "&exact=true", "", 1)).
		want("alice: enrolled (otp)", "alice2: not_enrolled (no_match)", "lice: account_unknown (no_id)")
	newProgram(t, "valetkey-2fa-http", strings.Replace(readFile(t, keycloak.config), "[username={login}].id", "[*].id", 1)+"\n").want("bob: not_enrolled (no_match)")
	newProgram(t, "valetkey-2fa-http", strings.NewReplacer("&exact=true", "", "[username={login}].id", "[*].id").Replace(readFile(t, keycloak.config))).
		fails("alice", "several values for id")

	authentik := newProgram(t, "valetkey-2fa-http", s.config(t, "authentik", "auth.example.org", "/etc/valetkey/2fa-authentik.token", "canary-api-token"))
	authentik.want("alice: enrolled (value)", "bob: not_enrolled (no_match)", "carol: not_enrolled (no_match)", "dora: not_enrolled (no_match)", "nobody: account_unknown (no_pk)")
	authentik.fails("erna", "in none of the lists") // a kind that came after the page: nobody knows whether it is a second factor
	t.Run("authentik", func(t *testing.T) {
		p := *authentik
		p.t = t
		p.suite(enrolled("alice"), notEnrolled("bob"), notEnrolled("carol"))
	})

	idea := newProgram(t, "valetkey-2fa-http", s.config(t, "privacyidea", "otp.example.org", "/etc/valetkey/2fa-privacyidea.token", "canary-api-key"))
	idea.want("alice: enrolled (totp)", "bob: not_enrolled (no_match)", "carol: not_enrolled (no_match)", "dora: not_enrolled (no_match)",
		"erna: enrolled (webauthn)", "fritz: enrolled (totp)")
	idea.fails("nobody", "status 400")
	newProgram(t, "valetkey-2fa-http", s.config(t, "privacyidea", "otp.example.org", "/etc/valetkey/2fa-privacyidea.token", "canary-wrong")).
		fails("alice", "refuses us with status 401", "hint: check the token")
	newProgram(t, "valetkey-2fa-http", s.config(t, "keycloak", "sso.example.org", "/etc/valetkey/2fa-keycloak.secret", "canary-wrong")).
		fails("alice", "asking for a token", "status 401: unauthorized_client", "hint: check client_id")

	// One that runs: a token for many answers, and another one when that is refused.
	before := s.tokens.Load()
	askPlugin := ask(t, keycloak)
	for range 5 {
		if got, err := askPlugin("alice"); err != nil || got != "enrolled" {
			t.Fatalf("alice is %s, %v", got, err)
		}
	}
	if got := s.tokens.Load() - before; got != 1 {
		t.Errorf("%d tokens for five answers", got)
	}
	s.mu.Lock()
	s.valid = ""
	s.mu.Unlock()
	if got, err := askPlugin("alice"); err != nil || got != "enrolled" || s.tokens.Load()-before != 2 {
		t.Errorf("with a revoked token alice is %s, %v, after %d tokens in all, want 2", got, err, s.tokens.Load()-before)
	}
}

// TestHTTPOwn asks a service of the site's.
//
// It would catch: an answer made of an error page, a redirect that takes the secret elsewhere, a body without end, TLS that is not checked, a
// connection for every answer, a service that hangs and holds an answer, a secret in what is printed.
func TestHTTPOwn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	text := s.config(t, "own", "portal.example.org", "/etc/valetkey/2fa-http.token", "canary-own")
	p := newProgram(t, "valetkey-2fa-http", "timeout = \"2s\"\n"+text)
	p.want("alice: enrolled (true)", "bob: not_enrolled (no_match)", "nobody: account_unknown (not_found)", "../users/alice: account_unknown (odd_login)",
		"..: account_unknown (odd_login)", "a%2fb: account_unknown (odd_login)")
	t.Run("suite", func(t *testing.T) {
		q := *p
		q.t = t
		q.suite(enrolled("alice"), notEnrolled("bob"), unknown("nobody"))
	})
	s.requests()
	p.want("a;b?c=d&e: account_unknown (not_found)")
	if got := s.requests(); len(got) != 1 || got[0] != "GET /api/users/a%3Bb%3Fc=d&e" {
		t.Errorf("a login of special characters was sent as %q", got)
	}
	for login, want := range map[string]string{
		"odd": "in none of the lists", "changed": "lacks the field at step 1 of the path second_factor", "html": "not JSON", "twice": "not one JSON document",
		"moved": "the service redirects", "down": "status 503", "proxy": "status 404", "large": "larger than 1024 KiB", "endless": "larger than 1024 KiB", "hangs": "deadline exceeded",
	} {
		p.fails(login, want, "GET "+s.URL+"/api/users/{login}: ")
	}
	for _, request := range s.requests() {
		if strings.HasSuffix(request, "/alice") {
			t.Errorf("the redirect was followed: %s", request)
		}
	}
	newProgram(t, "valetkey-2fa-http", strings.Replace(text, s.ca, harness.NewAuthority(t).File, 1)).fails("alice", "certificate signed by unknown authority")
	newProgram(t, "valetkey-2fa-http", strings.Replace(text, "/api/users/", "/api/user/", 1)).fails("bob", "status 404", `hint: check url; if 404 means`)
	newProgram(t, "valetkey-2fa-http", strings.Replace(text, "/{login}\"", "/{login}\"\nnot_found = \"unknown\"", 1)).want("proxy: account_unknown (not_found)")
	newProgram(t, "valetkey-2fa-http", strings.Replace(text, "/{login}\"", "/{login}\"\nnot_found = \"error\"", 1)).fails("nobody", "status 404")

	// Bodies, by Basic.
	basic := fmt.Sprintf("ca_file = %q\n[basic]\nuser = \"valetkey\"\npassword_file = %q\n[[step]]\nurl = \"%s/ask\"\n%%s\n"+
		"[[step.match]]\npath = \"of\"\nexempt = [\"a\\\"&=b\"]\n[[step.match]]\npath = 'kinds.\"a.b\"[*]'\nenrolled = [\"app\"]\nreason = \"app\"\n", s.ca, write(t, "basic", "canary-basic\n"), s.URL)
	for _, body := range []string{"[step.form]\nuser = \"{login}\"\nx = \"1\"", "[step.json]\nn = 1\ndeep = [{names = [\"{login}\"]}]"} {
		newProgram(t, "valetkey-2fa-http", fmt.Sprintf(basic, body)).want("a\"&=b: exempt (exempt)", "bob: enrolled (app)")
	}

	// One that runs keeps its connections, and is not held by what hangs.
	askPlugin := ask(t, p)
	if got, err := askPlugin("alice"); err != nil || got != "enrolled" {
		t.Fatalf("alice is %s, %v", got, err)
	}
	before := s.connections.Load()
	for range 20 {
		if got, err := askPlugin("alice"); err != nil || got != "enrolled" {
			t.Fatalf("alice is %s, %v", got, err)
		}
	}
	if got := s.connections.Load() - before; got != 0 {
		t.Errorf("20 answers needed %d new connections", got)
	}
	hanging := make(chan error, 1)
	go func() {
		_, err := askPlugin("hangs")
		hanging <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	select {
	case err := <-hanging:
		if err == nil {
			t.Error("the service hangs, and there is an answer")
		}
	case <-ctx.Done():
		t.Error("the service hangs, and the answer with it")
	}
	if got, err := askPlugin("alice"); err != nil || got != "enrolled" {
		t.Errorf("after a hanging request alice is %s, %v", got, err)
	}
}
