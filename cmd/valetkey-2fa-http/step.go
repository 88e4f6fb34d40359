package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/plugincmd"
	"github.com/valetkey/valetkey/plugin"
)

// maxAnswer bounds the body of an answer, in bytes.
const maxAnswer = 1 << 20

// checker makes the requests one after the other until one of the answers says enrolled or exempt.
type checker struct {
	client *http.Client
	header http.Header
	basic  *basic  // nil: none
	tokens *tokens // nil: none
	steps  []*step
}

type basic struct{ user, password string }

// step is one request, and what its answer means.
type step struct {
	name        string // for errors: without what follows the question mark, which may hold a secret
	method      string
	path, query plugincmd.Template
	form        map[string]plugincmd.Template // nil: none
	json        any                           // of maps, lists, templates and constants; nil: none
	notFound    string                        // "auto", "unknown" or "error"
	match       []match
	save        []save
}

type match struct {
	path                          path
	enrolled, exempt, notEnrolled []string
	reason                        string
}

type save struct {
	name string
	path path
}

// uses reports whether the request depends on one of these variables.
func (s *step) uses(names ...string) bool {
	if s.path.Uses(names...) || s.query.Uses(names...) {
		return true
	}
	for _, t := range s.form {
		if t.Uses(names...) {
			return true
		}
	}
	return usesIn(s.json, names)
}

// Check implements [plugin.Checker].
func (c *checker) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	names := plugincmd.OfLogin(r.Login)
	var saved []string
	for _, s := range c.steps {
		request, ok, err := s.request(ctx, names)
		if err != nil {
			return plugin.Answer{}, fmt.Errorf("%s: %w", s.name, err)
		}
		if !ok && s.uses(saved...) {
			return plugin.Answer{}, fmt.Errorf("%s: what an answer before it gave cannot stand in this request", s.name)
		}
		if !ok {
			return plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "odd_login"}, nil
		}
		document, found, err := c.fetch(s, request)
		if err != nil {
			return plugin.Answer{}, fmt.Errorf("%s: %w", s.name, err)
		}
		if !found {
			return plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "not_found"}, nil
		}
		for _, m := range s.match {
			answer, err := m.judge(document, names)
			if err != nil {
				return plugin.Answer{}, plugincmd.WithHint(fmt.Errorf("%s: %w", s.name, err),
					"compare the path with what the service answers; a field that is not always there is written with ? behind its name")
			}
			if answer.Status.Allows() {
				return answer, nil
			}
		}
		for _, v := range s.save {
			values, err := v.path.values(document, names)
			if err != nil {
				return plugin.Answer{}, fmt.Errorf("%s: %w", s.name, err)
			}
			values = slices.Compact(values)
			switch {
			case len(values) == 0:
				return plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "no_" + clip(v.name)}, nil
			case len(values) > 1:
				return plugin.Answer{}, plugincmd.WithHint(fmt.Errorf("%s: the answer has several values for %s, and it is not known whose they are", s.name, v.name),
					"make the request narrower, or the path: [*] into [username={login}], say")
			case values[0] == "":
				return plugin.Answer{}, fmt.Errorf("%s: the answer has an empty %s", s.name, v.name)
			}
			names[v.name] = values[0]
			saved = append(saved, v.name)
		}
	}
	return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "no_match"}, nil
}

// clip keeps a reason code within its limit.
func clip(name string) string { return name[:min(len(name), plugin.MaxReasonCode-8)] }

// judge says what the values at a path mean.
func (m *match) judge(document any, names map[string]string) (plugin.Answer, error) {
	values, err := m.path.values(document, names)
	if err != nil {
		return plugin.Answer{}, err
	}
	exempt, odd := false, false
	for _, v := range values {
		switch {
		case slices.Contains(m.notEnrolled, v):
		case slices.Contains(m.exempt, v):
			exempt = true
		case slices.Contains(m.enrolled, v), slices.Contains(m.enrolled, "*") && v != "":
			return plugin.Answer{Status: plugin.Enrolled, ReasonCode: cmp.Or(m.reason, reasonOf(v))}, nil
		case slices.Contains(m.exempt, "*") && v != "":
			exempt = true
		case len(m.notEnrolled) > 0:
			odd = true
		}
	}
	switch {
	case exempt:
		return plugin.Answer{Status: plugin.Exempt, ReasonCode: cmp.Or(m.reason, "exempt")}, nil
	case odd:
		return plugin.Answer{}, fmt.Errorf("the answer has a value at %s that is in none of the lists", m.path.text)
	}
	return plugin.Answer{Status: plugin.NotEnrolled}, nil
}

// reasonOf makes a reason code of a value if it is as good as one: "otp", "webauthn".
func reasonOf(v string) string {
	code := strings.ReplaceAll(strings.ToLower(v), "-", "_")
	if (plugin.Answer{Status: plugin.Enrolled, ReasonCode: code}).Validate() != nil {
		return "value"
	}
	return code
}

// request makes the request for these variables. ok is false if one of them cannot stand in it.
func (s *step) request(ctx context.Context, names map[string]string) (r *http.Request, ok bool, err error) {
	odd := false
	path, pathOK := s.path.Expand(names, func(v string) string {
		odd = odd || !segment(v)
		return url.PathEscape(v)
	})
	query, queryOK := s.query.Expand(names, url.QueryEscape)
	if !pathOK || !queryOK || odd {
		return nil, false, nil
	}
	if query != "" {
		path += "?" + query
	}
	var body []byte
	kind := ""
	switch {
	case s.form != nil:
		values := make(url.Values)
		for name, t := range s.form {
			v, ok := t.Expand(names, func(v string) string { return v })
			if !ok {
				return nil, false, nil
			}
			values.Set(name, v)
		}
		body, kind = []byte(values.Encode()), "application/x-www-form-urlencoded"
	case s.json != nil:
		document, ok := expandIn(s.json, names)
		if !ok {
			return nil, false, nil
		}
		if body, err = json.Marshal(document); err != nil {
			return nil, false, err
		}
		kind = "application/json"
	}
	var reader io.Reader // a nil *bytes.Reader in it would be a body
	if body != nil {
		reader = bytes.NewReader(body)
	}
	if r, err = http.NewRequestWithContext(ctx, s.method, path, reader); err != nil {
		return nil, false, errors.New("the variables do not make a URL")
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return r, true, nil
}

// segment reports whether v, escaped, means itself in a path and nothing more, also to a proxy that undoes the escaping too early.
func segment(v string) bool {
	return v != "" && v != "." && v != ".." && !strings.ContainsFunc(v, func(r rune) bool {
		return r == '/' || r == '\\' || r == '%' || r < ' ' || r == 0x7f
	})
}

// fetch makes a request and returns the document that comes back. found is false if the service says that there is no such account.
func (c *checker) fetch(s *step, r *http.Request) (document any, found bool, err error) {
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "valetkey-2fa-http/"+version)
	for name, values := range c.header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	if c.basic != nil {
		r.SetBasicAuth(c.basic.user, c.basic.password)
	}
	stale := ""
	for {
		if c.tokens != nil {
			token, err := c.tokens.get(r.Context(), stale)
			if err != nil {
				return nil, false, fmt.Errorf("asking for a token: %w", err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			if stale == "" {
				stale = token
			} else {
				stale = "" // a new one was refused, too
			}
		}
		status, isJSON, body, err := exchange(c.client, r, maxAnswer)
		switch {
		case err != nil:
			return nil, false, err
		case status == http.StatusUnauthorized && stale != "":
			// Revoked, or the service was started anew with other keys: once more with a new one.
			if r.GetBody != nil {
				if r.Body, err = r.GetBody(); err != nil {
					return nil, false, err
				}
			}
			continue
		case status == http.StatusUnauthorized || status == http.StatusForbidden:
			return nil, false, plugincmd.WithHint(fmt.Errorf("the service refuses us with status %d", status), "check the token, user or client, and what it may read")
		case status == http.StatusNotFound && (s.notFound == "unknown" || s.notFound == "auto" && isJSON && s.path.Uses("login", "name")):
			return nil, false, nil
		case status == http.StatusNotFound:
			return nil, false, plugincmd.WithHint(errors.New("the service answers with status 404"),
				`check url; if 404 means that there is no such account, write not_found = "unknown"`)
		case status < 200 || status > 299:
			return nil, false, fmt.Errorf("the service answers with status %d", status)
		}
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		if err := decoder.Decode(&document); err != nil {
			return nil, false, errors.New("the answer is not JSON") // the decoder's error would quote it
		}
		if _, err := decoder.Token(); err != io.EOF {
			return nil, false, errors.New("the answer is not one JSON document")
		}
		return document, true, nil
	}
}

// exchange sends a request and reads the whole answer, so that the connection can be used again. Its errors have no URL in them.
func exchange(client *http.Client, r *http.Request, limit int64) (status int, isJSON bool, body []byte, err error) {
	response, err := client.Do(r)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		if errors.Is(err, errRedirect) {
			err = plugincmd.WithHint(err, "write the address that it leads to into url, if you trust it")
		}
		return 0, false, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, limit+1))
	switch {
	case err != nil:
		return 0, false, nil, fmt.Errorf("reading the answer: %w", err)
	case int64(len(body)) > limit:
		return 0, false, nil, fmt.Errorf("the answer is larger than %d KiB", limit>>10)
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	return response.StatusCode, kind == "application/json" || strings.HasSuffix(kind, "+json"), body, nil
}

// templates turns every text within a JSON document into a template.
func templates(v any, make func(string) plugincmd.Template) any {
	switch v := v.(type) {
	case string:
		return make(v)
	case map[string]any:
		out := map[string]any{}
		for key, element := range v {
			out[key] = templates(element, make)
		}
		return out
	case []any:
		var out []any
		for _, element := range v {
			out = append(out, templates(element, make))
		}
		return out
	}
	return v
}

// expandIn puts values into the templates of a document.
func expandIn(v any, names map[string]string) (any, bool) {
	switch v := v.(type) {
	case plugincmd.Template:
		return v.Expand(names, func(s string) string { return s })
	case map[string]any:
		out := map[string]any{}
		for key, element := range v {
			x, ok := expandIn(element, names)
			if !ok {
				return nil, false
			}
			out[key] = x
		}
		return out, true
	case []any:
		out := []any{}
		for _, element := range v {
			x, ok := expandIn(element, names)
			if !ok {
				return nil, false
			}
			out = append(out, x)
		}
		return out, true
	}
	return v, true
}

func usesIn(v any, names []string) bool {
	switch v := v.(type) {
	case plugincmd.Template:
		return v.Uses(names...)
	case map[string]any:
		for _, element := range v {
			if usesIn(element, names) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(element any) bool { return usesIn(element, names) })
	}
	return false
}
