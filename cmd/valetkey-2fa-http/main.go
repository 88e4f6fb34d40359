// Command valetkey-2fa-http is an enrolment plugin for sites where a service with an HTTP API knows who has a second factor: Keycloak,
// authentik, privacyIDEA, or one of the site's own. valetkeyd starts it:
//
//	valetkey-2fa-http -config FILE
//
// With -check LOGIN in addition it prints what it would answer, and ends. The file is described in docs/enrolment-http.md: one or more
// requests, and which values in the JSON that comes back mean enrolled or exempt.
//
// The program refuses to know any of these services. What it knows of them is on the page, as configuration.
//
// The one rule a newcomer would break: what is not where the file says is an error and not a "no". Services change their answers, put
// proxies with error pages before them, and answer 200 with an error inside.
package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/plugincmd"
	"github.com/valetkey/valetkey/plugin"
)

// version is set by the build.
var version = "dev"

// config is the file.
type config struct {
	plugincmd.Settings

	CAFile         string         `toml:"ca_file"`
	AllowPlaintext bool           `toml:"allow_plaintext"`
	Headers        []headerConfig `toml:"header"`
	Basic          *basicConfig   `toml:"basic"`
	OAuth2         *oauth2Config  `toml:"oauth2"`
	Steps          []stepConfig   `toml:"step"`
}

// headerConfig is a header of every request but that for a token.
type headerConfig struct {
	Name      string `toml:"name"`
	Value     string `toml:"value"`
	ValueFile string `toml:"value_file"`
	Prefix    string `toml:"prefix"` // before what is in the file: "Bearer "
}

type basicConfig struct {
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
}

// oauth2Config asks for a token with the client's own credentials (RFC 6749 section 4.4).
type oauth2Config struct {
	TokenURL   string `toml:"token_url"`
	ClientID   string `toml:"client_id"`
	SecretFile string `toml:"client_secret_file"`
	Scope      string `toml:"scope"`
}

// stepConfig is one request, and what its answer means.
type stepConfig struct {
	Method   string            `toml:"method"`
	URL      string            `toml:"url"`
	Form     map[string]string `toml:"form"`
	JSON     map[string]any    `toml:"json"`
	NotFound string            `toml:"not_found"`
	Save     map[string]string `toml:"save"`
	Match    []matchConfig     `toml:"match"`
}

// matchConfig says what the values at a path mean.
type matchConfig struct {
	Path        string   `toml:"path"`
	Enrolled    []string `toml:"enrolled"`
	Exempt      []string `toml:"exempt"`
	NotEnrolled []string `toml:"not_enrolled"`
	Reason      string   `toml:"reason"`
}

// FreeForm implements [plugincmd.FreeForm]: a JSON body has the keys that the service wants.
func (*config) FreeForm(key []string) bool {
	return len(key) > 2 && key[0] == "step" && key[1] == "json"
}

// maxSteps bounds what one answer may cost.
const maxSteps = 4

func main() {
	var c config
	plugincmd.Main("valetkey-2fa-http", version, &c, func(f *plugincmd.Faults) plugin.Checker { return c.open(f) })
}

// open makes the checker that the file describes.
func (c *config) open(f *plugincmd.Faults) *checker {
	x := &checker{header: make(http.Header), client: newClient(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: f.Roots("ca_file", c.CAFile)}, max(c.Connections, 1))}
	authorization := 0
	for i, h := range c.Headers {
		key := fmt.Sprintf("header[%d]", i+1)
		value := h.Value
		if (h.Value == "") == (h.ValueFile == "") {
			f.Add(key, "give either value or value_file; what is secret belongs into a file")
		}
		if h.ValueFile != "" {
			value = h.Prefix + f.Secret(key+".value_file", h.ValueFile, true)
		} else if h.Prefix != "" {
			f.Add(key+".prefix", "it belongs to value_file")
		}
		if !headerName.MatchString(h.Name) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			f.Add(key, "%q is not the name of a header, or its value has control characters", h.Name)
		}
		if strings.EqualFold(h.Name, "Authorization") {
			authorization++
		}
		x.header.Add(h.Name, value)
	}
	if c.Basic != nil {
		authorization++
		if c.Basic.User == "" || strings.Contains(c.Basic.User, ":") {
			f.Add("basic.user", "%q is not a user name", c.Basic.User)
		}
		x.basic = &basic{c.Basic.User, f.Secret("basic.password_file", c.Basic.PasswordFile, true)}
	}
	if o := c.OAuth2; o != nil {
		authorization++
		if o.ClientID == "" {
			f.Add("oauth2.client_id", "it is missing; write the name of the client that may read users")
		}
		if checkURL(f, "oauth2.token_url", o.TokenURL, c.AllowPlaintext) == nil {
			f.Add("oauth2.token_url", "write the address of the token endpoint, such as https://sso.example.org/realms/main/protocol/openid-connect/token")
		}
		x.tokens = &tokens{client: x.client, url: o.TokenURL, id: o.ClientID, secret: f.Secret("oauth2.client_secret_file", o.SecretFile, true), scope: o.Scope,
			slot: make(chan struct{}, 1), now: time.Now}
	}
	if authorization > 1 {
		f.Add("basic", "give only one of [basic], [oauth2] and a header Authorization")
	}
	known := slices.Clone(plugincmd.LoginVariables)
	if len(c.Steps) == 0 || len(c.Steps) > maxSteps {
		f.Add("step", "write one to %d requests, each as [[step]] on a line of its own", maxSteps)
		return x
	}
	matches, login := 0, false
	for i, s := range c.Steps {
		step := s.open(f, fmt.Sprintf("step[%d]", i+1), &known, c.AllowPlaintext)
		matches += len(s.Match)
		login = login || step.uses("login", "name")
		x.steps = append(x.steps, step)
	}
	if matches == 0 {
		f.Add("step.match", "it is missing; write [[step.match]] below a [[step]] and in it which values of the answer mean enrolled")
	}
	if !login {
		f.Add("step", "no request has {login} or {name} in it, so that all users would have the same answer")
	}
	return x
}

var (
	headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110 section 5.6.2
	saveName   = regexp.MustCompile("^[a-z][a-z0-9_]*$")
)

// open checks one request. known are the variables so far, to which it adds what it saves.
func (s *stepConfig) open(f *plugincmd.Faults, key string, known *[]string, plaintext bool) *step {
	x := &step{method: cmp.Or(s.Method, http.MethodGet), notFound: cmp.Or(s.NotFound, "auto")}
	if (s.Form != nil || s.JSON != nil) && s.Method == "" {
		x.method = http.MethodPost
	}
	if x.method != http.MethodGet && x.method != http.MethodPost {
		f.Add(key+".method", "%q is neither GET nor POST", s.Method)
	}
	if (s.Form != nil || s.JSON != nil) && x.method == http.MethodGet || s.Form != nil && s.JSON != nil {
		f.Add(key, "form and json exclude each other, and both belong to POST")
	}
	if !slices.Contains([]string{"auto", "unknown", "error"}, x.notFound) {
		f.Add(key+".not_found", `%q is not "auto", "unknown" or "error"`, s.NotFound)
	}
	template := func(key, text string) plugincmd.Template {
		t, err := plugincmd.ParseTemplate(text, *known)
		if err != nil {
			f.Add(key, "%v", err)
			t, _ = plugincmd.ParseTemplate("", nil)
		}
		return t
	}
	path, query, _ := strings.Cut(s.URL, "?")
	if u := checkURL(f, key+".url", s.URL, plaintext); u != nil && strings.ContainsAny(u.Host, "{}") {
		f.Add(key+".url", "a variable cannot stand in the name of the host")
	}
	x.name = x.method + " " + path
	x.path, x.query = template(key+".url", path), template(key+".url", query)
	if s.Form != nil {
		x.form = make(map[string]plugincmd.Template)
		for name, text := range s.Form {
			x.form[name] = template(key+".form."+name, text)
		}
	}
	if s.JSON != nil {
		x.json = templates(s.JSON, func(text string) plugincmd.Template { return template(key+".json", text) })
	}
	for i, m := range s.Match {
		key := fmt.Sprintf("%s.match[%d]", key, i+1)
		p, err := parsePath(m.Path, *known)
		if err != nil {
			f.Add(key+".path", "%v", err)
		}
		if len(m.Enrolled)+len(m.Exempt) == 0 {
			f.Add(key, `give enrolled or exempt: the values that mean so, or ["*"] for any`)
		}
		reason := m.Reason
		if err := (plugin.Answer{Status: plugin.Enrolled, ReasonCode: reason}).Validate(); err != nil {
			f.Add(key+".reason", "%v", err)
		}
		x.match = append(x.match, match{p, m.Enrolled, m.Exempt, m.NotEnrolled, reason})
	}
	for name, text := range s.Save {
		p, err := parsePath(text, *known)
		if err != nil {
			f.Add(key+".save."+name, "%v", err)
		}
		if !saveName.MatchString(name) || slices.Contains(*known, name) {
			f.Add(key+".save."+name, "the name is taken, or has other characters than a-z, 0-9 and _")
		}
		x.save = append(x.save, save{name, p})
	}
	for _, v := range x.save {
		*known = append(*known, v.name)
	}
	if len(s.Match) == 0 && len(s.Save) == 0 {
		f.Add(key, "nothing is done with the answer; write [[step.match]] or [step.save] below it")
	}
	return x
}

// checkURL returns a URL that may be asked, or nil after a fault.
func checkURL(f *plugincmd.Faults, key, text string, plaintext bool) *url.URL {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		f.Add(key, "it is not https://HOST/PATH") // not quoted: it may have a secret
		return nil
	case u.User != nil:
		f.Add(key, "it has a user in it; write [basic] with user and password_file")
		return nil
	case u.Fragment != "":
		f.Add(key, "it has a #, and what follows that is never sent; write %%23")
		return nil
	case u.Scheme == "http" && !plaintext && !plugincmd.Loopback(u.Hostname()):
		f.Add(key, "secrets and answers would travel in clear; write https://, or set allow_plaintext = true if the network between is protected")
	}
	return u
}

// errRedirect is returned for every redirect: where it leads to, the secrets were not meant for.
var errRedirect = errors.New("the service redirects")

// newClient bounds what no context bounds. It speaks HTTP/1.1 only: a request that ends by its deadline takes its connection with it
// there, while with HTTP/2 the requests that follow would go over the same dead one.
func newClient(config *tls.Config, connections int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxConnsPerHost:        connections,
			MaxIdleConnsPerHost:    connections,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
	}
}
