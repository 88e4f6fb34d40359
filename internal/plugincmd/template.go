package plugincmd

import (
	"fmt"
	"slices"
	"strings"
)

// Template is a text in which {login}, {name} and {domain} stand for the login, what is before its first @, and what comes after.
// A program may know more variables. There is no way to write a brace that means itself: none of the texts needs one.
type Template struct {
	text  []string // what stands before, between and behind the variables
	names []string
}

// LoginVariables are those that every template may use.
var LoginVariables = []string{"login", "name", "domain"}

// ParseTemplate refuses variables that are not among the known ones.
func ParseTemplate(s string, known []string) (Template, error) {
	var t Template
	for {
		before, rest, found := strings.Cut(s, "{")
		if strings.Contains(before, "}") {
			return Template{}, fmt.Errorf("%q has a } without a { before it", before)
		}
		t.text = append(t.text, before)
		if !found {
			return t, nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !slices.Contains(known, name) {
			return Template{}, fmt.Errorf("{%.32s is none of {%s}", rest, strings.Join(known, "}, {"))
		}
		t.names = append(t.names, name)
		s = after
	}
}

// Uses reports whether any of these variables stands in the template.
func (t Template) Uses(names ...string) bool {
	return slices.ContainsFunc(t.names, func(n string) bool { return slices.Contains(names, n) })
}

// Expand puts the values in, each escaped. ok is false if one of them is empty: with "@example.org" or without a domain it would be
// another question.
func (t Template) Expand(values map[string]string, escape func(string) string) (text string, ok bool) {
	var b strings.Builder
	for i, name := range t.names {
		b.WriteString(t.text[i])
		value := values[name]
		if value == "" {
			return "", false
		}
		b.WriteString(escape(value))
	}
	b.WriteString(t.text[len(t.text)-1])
	return b.String(), true
}

// OfLogin returns the values of [LoginVariables].
func OfLogin(login string) map[string]string {
	name, domain, _ := strings.Cut(login, "@")
	return map[string]string{"login": login, "name": name, "domain": domain}
}
