package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/valetkey/valetkey/internal/auth"
)

// openAPI is the file that describes this API to programs. Whatever the tests of this package ask and are answered is held against it.
const openAPI = "../../docs/openapi.yaml"

type description struct {
	doc    *openapi3.T
	router routers.Router
}

var described = sync.OnceValues(func() (*description, error) {
	doc, err := openapi3.NewLoader().LoadFromFile(openAPI)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	router, err := legacy.NewRouter(doc)
	return &description{doc, router}, err
})

// succeeded are the calls that some test made with success, so that what is said of them was seen.
var succeeded sync.Map // of "GET /v1/status"

func TestMain(m *testing.M) {
	code := m.Run()
	if f := flag.Lookup("test.run"); code == 0 && f.Value.String() == "" {
		for _, r := range new(Server).routes() {
			if _, ok := succeeded.Load(r.method + " " + r.path); !ok {
				fmt.Printf("no test calls %s %s with success: nothing holds what %s says of it\n", r.method, r.path, openAPI)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// held passes requests on and reports where one that succeeds, or any answer, is not what the description says.
func held(t *testing.T, next http.Handler) http.Handler {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
		seen := &seenAnswer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)

		asked := r.Clone(context.WithoutCancel(r.Context()))
		asked.URL = &url.URL{Scheme: "http", Host: "valetkeyd", Path: r.URL.Path, RawQuery: r.URL.RawQuery}
		asked.Body = io.NopCloser(bytes.NewReader(body))
		if len(body) > 0 {
			asked.Header.Set("Content-Type", "application/json") // curl -d says something else, and is taken too
		}
		route, params, err := d.router.FindRoute(asked)
		if err != nil {
			if seen.status != http.StatusNotFound && seen.status != http.StatusForbidden {
				t.Errorf("%s %s is answered %d, and is not in the description: %v", r.Method, r.URL.Path, seen.status, err)
			}
			return
		}
		in := &openapi3filter.RequestValidationInput{Request: asked, Route: route, PathParams: params}
		if seen.status/100 == 2 {
			succeeded.Store(route.Method+" "+route.Path, true)
			if err := openapi3filter.ValidateRequest(asked.Context(), in); err != nil {
				t.Errorf("%s %s?%s with %s was carried out, and is not as described: %v", r.Method, r.URL.Path, r.URL.RawQuery, body, err)
			}
		}
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: seen.status, Header: seen.Header(),
			Options: &openapi3filter.Options{IncludeResponseStatus: true}}
		out.SetBodyBytes(seen.body.Bytes())
		if err := openapi3filter.ValidateResponse(asked.Context(), out); err != nil {
			t.Errorf("the answer to %s %s is not as described: %v\n%s", r.Method, r.URL.Path, err, seen.body.Bytes())
		}
	})
}

// failing is the end of a body that could not be read to its end.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// seenAnswer keeps what is answered.
type seenAnswer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (s *seenAnswer) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *seenAnswer) Write(b []byte) (int, error) {
	s.body.Write(b)
	return s.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (s *seenAnswer) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// The description has every call of the server and no other, each with what it needs of the caller.
func TestDescriptionHasTheRoutes(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	for path, item := range d.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			needs, _ := operation.Extensions["x-needs"].(string)
			if own, _ := operation.Extensions["x-own"].(bool); own {
				needs += " own"
			}
			got[method+" "+path] = needs
		}
	}
	for _, r := range new(Server).routes() {
		want[r.method+" "+r.path] = needs(r)
	}
	for call := range want {
		if got[call] != want[call] {
			t.Errorf("%s says that %s needs %q, and the server %q", openAPI, call, got[call], want[call])
		}
	}
	for call := range got {
		if _, ok := want[call]; !ok {
			t.Errorf("%s has %s, and the server does not", openAPI, call)
		}
	}
}

func needs(r route) string {
	text := map[permission]string{mayAsk: "any", mayRead: "read", mayRevoke: "revoke", mayManage: "manage"}[r.needs]
	if r.own != nil {
		text += " own"
	}
	return text
}

// What the description says of a type has the fields that Go writes and reads, whether or not a test happens to fill them.
func TestDescriptionHasTheFields(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range types {
		schema := d.doc.Components.Schemas[name]
		if schema == nil {
			t.Errorf("%s has no schema %s", openAPI, name)
			continue
		}
		var fields, required []string
		of := reflect.TypeOf(v)
		for i := range of.NumField() {
			tag, options, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if tag == "-" || tag == "" {
				continue
			}
			fields = append(fields, tag)
			if !strings.Contains(options, "omit") {
				required = append(required, tag)
			}
		}
		var described []string
		for field := range schema.Value.Properties {
			described = append(described, field)
		}
		slices.Sort(fields)
		slices.Sort(described)
		if !slices.Equal(fields, described) {
			t.Errorf("schema %s has the properties %v, and the type the fields %v", name, described, fields)
		}
		slices.Sort(required)
		if got := slices.Sorted(slices.Values(schema.Value.Required)); !slices.Equal(got, required) {
			t.Errorf("schema %s requires %v, and the type always has %v", name, got, required)
		}
	}
	for name := range d.doc.Components.Schemas {
		if _, ok := types[name]; !ok {
			t.Errorf("schema %s is of no type that this test knows", name)
		}
	}
}

// types are the Go types by the name of their schema.
var types = map[string]any{
	"Account": Account{}, "Accounts": Accounts{}, "NewAccount": NewAccount{}, "AccountPatch": AccountPatch{},
	"Group": Group{}, "Groups": Groups{}, "NewGroup": NewGroup{}, "GroupPatch": GroupPatch{},
	"AppPassword": AppPassword{}, "AppPasswords": AppPasswords{}, "NewAppPassword": NewAppPassword{}, "Created": Created{}, "Use": Use{},
	"Detail": Detail{}, "AppPasswordPatch": AppPasswordPatch{}, "Rotation": Rotation{}, "Rotated": Rotated{}, "Revocation": Revocation{}, "Exemption": Exemption{},
	"Filter": Filter{}, "Found": Found{}, "FoundRevocation": FoundRevocation{}, "Enrolment": Enrolment{}, "Plugin": Plugin{},
	"Import": Import{}, "ImportGroup": ImportGroup{}, "ImportRow": ImportRow{}, "ImportPassword": ImportPassword{},
	"ImportOutcomes": ImportOutcomes{}, "ImportOutcome": ImportOutcome{},
	"Whoami": Whoami{}, "OwnAccount": OwnAccount{}, "Status": Status{}, "Database": Database{}, "Listener": Listener{}, "Application": Application{}, "TLS": TLS{}, "Endpoint": Endpoint{},
	"Event": Event{}, "Events": Events{}, "Why": Why{}, "WhyAppPassword": WhyAppPassword{}, "WhyAttempt": WhyAttempt{},
	"WhyThrottle": WhyThrottle{}, "WhySource": WhySource{}, "Notices": Notices{}, "NewNoticeTest": NewNoticeTest{}, "NoticeTest": NoticeTest{}, "MailSettings": MailSettings{}, "MailServer": MailServer{},
	"Counters": auth.Counters{}, "Throttle": Throttle{}, "Directory": Directory{}, "Problem": Problem{}, "ProblemDetail": ProblemDetail{},
}

// The test can fail: a field that the description does not know is noticed.
func TestDescriptionRefusesWhatItDoesNotSay(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(Account{Kind: KindPerson, Login: "alice", Aliases: []string{}, Attributes: map[string][]string{}, Userdb: map[string]string{},
		Groups: []string{}, UUID: "00000000-0000-0000-0000-000000000000", CreatedAt: now, ModifiedAt: now})
	if err != nil {
		t.Fatal(err)
	}
	schema := d.doc.Components.Schemas["Account"].Value
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"as it is", string(text), true},
		{"with a hash", strings.Replace(string(text), `{`, `{"phc":"x",`, 1), false},
		{"without its login", strings.Replace(string(text), `"login":"alice",`, "", 1), false},
		{"with a number for its login", strings.Replace(string(text), `"alice"`, "7", 1), false},
	} {
		var v any
		if err := json.Unmarshal([]byte(c.text), &v); err != nil {
			t.Fatal(err)
		}
		if err := schema.VisitJSON(v); (err == nil) != c.ok {
			t.Errorf("an account %s: %v, want accepted: %v", c.name, err, c.ok)
		}
	}
}

// The page for people names every call, every parameter of a query, and every code that a refusal can have.
func TestPageNamesTheRoutes(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../../docs/admin-api.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	routes := new(Server).routes()
	for _, r := range routes {
		call := r.method + " " + r.path
		if !regexp.MustCompile("`" + regexp.QuoteMeta(call) + "[`?]").MatchString(page) {
			t.Errorf("docs/admin-api.md does not name %s", call)
		}
		for _, p := range d.doc.Paths.Find(r.path).GetOperation(r.method).Parameters {
			if name := p.Value.Name; !regexp.MustCompile("[`?&]" + name + "[`=]").MatchString(page) {
				t.Errorf("docs/admin-api.md does not name the parameter %s of %s", name, call)
			}
		}
	}
	for _, m := range regexp.MustCompile("`(GET|POST|PATCH|DELETE) (/v1/[a-z/-]+)").FindAllStringSubmatch(page, -1) {
		if !slices.ContainsFunc(routes, func(r route) bool { return r.method == m[1] && r.path == m[2] }) {
			t.Errorf("docs/admin-api.md names %s %s, which is no call", m[1], m[2])
		}
	}
	for code := range codes(t) {
		if !strings.Contains(page, "`"+code+"`") {
			t.Errorf("docs/admin-api.md does not name the code %s", code)
		}
	}
}

// codes are those of the refusals that this package writes.
func codes(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	written := regexp.MustCompile(`(?:fault\(|Fault\{Code: |Fault\{|ProblemDetail\{)"([a-z_]+)"`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range written.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
	}
	if len(found) < 20 {
		t.Errorf("%d codes were found, want more: they were not read", len(found))
	}
	return found
}
