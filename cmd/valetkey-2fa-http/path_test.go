package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/plugincmd"
)

func TestPath(t *testing.T) {
	const document = `{
		"result": {"status": true, "value": {"count": 2, "none": null, "tokens": [
			{"type": "hotp", "active": false, "owner": "ALICE"}, {"type": "totp", "active": true, "owner": "alice", "n": 1.50}, {"type": "push", "active": true, "owner": "bob"}]}},
		"states": [{"n": 1}, {"n": 2, "state": null}, {"n": 3, "state": ""}, {"n": 4, "state": "enrolled"}, {"n": 5, "state": ["x"]}, {"n": 6, "state": "clientwait"}], "empty": [], "a.b": ["x"], "mixed": ["x", 3, null, false], "nested": [["a"], ["b", "c"]], "canary": {"x": 1}}`
	names := plugincmd.OfLogin("alice")
	for _, tt := range []struct {
		path  string
		want  string // joined by |
		fault string // of parsing or following
	}{
		{"result.status", "true", ""},
		{"result.value.count", "2", ""},
		{"result.value.tokens[*].type", "hotp|totp|push", ""},
		{"result.value.tokens[active=true].type", "totp|push", ""},
		{"result.value.tokens[owner={login}][active=true].type", "totp", ""},
		{"result.value.tokens[owner={domain}].type", "", ""},
		{"result.value.tokens[missing=x].type", "", ""},
		{"result.value.tokens[n=1.50].type", "totp", ""},
		{"result.value.tokens[n=].type", "hotp|push", ""},
		{"states[state=].n", "1|2|3", ""},
		{"states[state=enrolled].n", "4", ""},
		{"states[n={domain}].n", "", ""}, // what cannot be filled in is not an empty text
		{"result.value.tokens[1].type", "totp", ""},
		{"result.value.tokens[9].type", "", ""},
		{"result.value.none", "", ""},
		{"result.value.none?.x", "", ""},
		{"result.value.missing?", "", ""},
		{"result.value.missing?[*].x", "", ""},
		{"result.value.missing", "", "lacks the field at step 3"},
		{"result.value.none.x", "", "has no object at step 4"},
		{"result.value.tokens.type", "", "has no object at step 4"},
		{"result.value[*]", "", "has no list at step 3"},
		{"result.value[status=true]", "", "has no list at step 3"},
		{"result.value", "", "a list or an object at the end"},
		{"empty[*]", "", ""},
		{"empty[*].type", "", ""},
		{`"a.b"[0]`, "x", ""},
		{"mixed[*]", "x|3|false", ""},
		{"mixed[x=y]", "", "something else than objects"},
		{"nested[*][*]", "a|b|c", ""},
		{"nested[1][0]", "b", ""},
		{"", "", "it is empty"},
		{"a..b", "", "no name"},
		{".a", "", "no name"},
		{"a[", "", "without its ]"},
		{"a[-1]", "", "none of [*]"},
		{"a[=x]", "", "none of [*]"},
		{"a[x={user}]", "", "none of {login}"},
		{`"a`, "", "a quote that does not end"},
		{"a b", "", "a dot is missing"},
		{"a]b", "", "a dot is missing"},
	} {
		p, err := parsePath(tt.path, plugincmd.LoginVariables)
		var got []string
		if err == nil {
			var v any
			d := json.NewDecoder(strings.NewReader(document))
			d.UseNumber()
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			got, err = p.values(v, names)
		}
		if (err != nil) != (tt.fault != "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%q: %v, want %q", tt.path, err, tt.fault)
		}
		if err == nil && strings.Join(got, "|") != tt.want {
			t.Errorf("%q: %q, want %q", tt.path, got, tt.want)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("a.b[*]?.c[x={login}]", `{"a": {"b": [{"c": [1]}]}}`)
	f.Add(`"a"[0][1]`, `[[1]]`)
	f.Fuzz(func(t *testing.T, text, document string) {
		p, err := parsePath(text, plugincmd.LoginVariables)
		if err != nil {
			return
		}
		var v any
		if json.Unmarshal([]byte(document), &v) == nil {
			_, _ = p.values(v, plugincmd.OfLogin("alice@example.org"))
		}
	})
}

func TestJudge(t *testing.T) {
	p, err := parsePath("[*]", nil)
	if err != nil {
		t.Fatal(err)
	}
	words := func(s string) []string { return strings.Fields(s) }
	for _, tt := range []struct {
		name                  string
		values                []any
		enrolled, exempt, not string
		want                  string
	}{
		{"one", []any{"password", "otp"}, "otp webauthn", "", "", "enrolled otp"},
		{"none", []any{"password"}, "otp", "", "", "not_enrolled "},
		{"no values", nil, "otp", "", "", "not_enrolled "},
		{"no values, strict", nil, "otp", "", "none", "not_enrolled "},
		{"exempt", []any{"printer"}, "otp", "printer", "", "exempt exempt"},
		{"both", []any{"printer", "otp"}, "otp", "printer", "", "enrolled otp"},
		{"any", []any{"x.Y"}, "*", "", "", "enrolled value"},
		{"any but", []any{"static"}, "*", "", "static", "not_enrolled "},
		{"any but an empty one", []any{""}, "*", "", "", "not_enrolled "},
		{"any exempt", []any{"x"}, "otp", "*", "", "exempt exempt"},
		{"strict", []any{"maybe"}, "true", "", "false", "error"},
		{"strict, and one that counts", []any{"maybe", "true"}, "true", "", "false", "enrolled true"},
		{"case counts", []any{"OTP"}, "otp", "", "", "not_enrolled "},
	} {
		m := match{path: p, enrolled: words(tt.enrolled), exempt: words(tt.exempt), notEnrolled: words(tt.not)}
		a, err := m.judge(tt.values, nil)
		got := a.Status.String() + " " + a.ReasonCode
		if tt.values == nil {
			a, err = m.judge([]any{}, nil)
			got = a.Status.String() + " " + a.ReasonCode
		}
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("%s: judge = %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestSegment(t *testing.T) {
	var bad []string
	for _, v := range []string{"alice", "a@b", "a;b", "...", "", ".", "..", "a/b", `a\b`, "a%2fb", "a\nb", "\x7f"} {
		if !segment(v) {
			bad = append(bad, v)
		}
	}
	if want := []string{"", ".", "..", "a/b", `a\b`, "a%2fb", "a\nb", "\x7f"}; !slices.Equal(bad, want) {
		t.Errorf("segment refuses %q, want %q", bad, want)
	}
}
