package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valetkey/valetkey/internal/plugincmd"
)

// path leads to values in a JSON document:
//
//	name          the field of an object; it must be there
//	name?         the same, but it may be missing or null
//	"na.me"       the same, for a name with other characters than letters, digits, _ and -
//	[*]           every element of a list
//	[3]           one element, counted from 0; there may be fewer
//	[name=value]  the elements that are objects whose field has this value, ignoring case; {login} and the like may stand in it. Behind
//	              another bracket it takes those of its elements
//	[name=]       those whose field is missing, null or an empty text
//
// Steps are separated by dots, but none stands before a bracket: credentials[*].type. The values at the end are texts, numbers and
// booleans; null is none.
type path struct {
	text  string
	steps []pathStep
}

type pathStep struct {
	name     string
	optional bool

	all    bool
	index  int // -1: none
	filter string
	value  plugincmd.Template
}

// parsePath reads the form above. known are the variables that may stand in a filter.
func parsePath(text string, known []string) (path, error) {
	p := path{text: text}
	if text == "" {
		return p, errors.New("it is empty; write the way to the values, such as credentials[*].type")
	}
	rest := text
	for first := true; rest != ""; first = false {
		if rest[0] == '[' {
			inside, after, closed := strings.Cut(rest[1:], "]")
			if !closed {
				return p, fmt.Errorf("%q has a [ without its ]", text)
			}
			rest = after
			step := pathStep{index: -1}
			if n, err := strconv.Atoi(inside); err == nil && n >= 0 {
				step.index = n
			} else if inside == "*" {
				step.all = true
			} else if name, value, ok := strings.Cut(inside, "="); ok && name != "" {
				t, err := plugincmd.ParseTemplate(value, known)
				if err != nil {
					return p, err
				}
				step.filter, step.value = name, t
			} else {
				return p, fmt.Errorf("[%s] is none of [*], [NUMBER], [NAME=VALUE] and [NAME=]", inside)
			}
			p.steps = append(p.steps, step)
			continue
		}
		if !first {
			if rest[0] != '.' {
				return p, fmt.Errorf("%q: a dot is missing before %q", text, rest)
			}
			rest = rest[1:]
		}
		step := pathStep{index: -1}
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			name, after, closed := strings.Cut(quoted, `"`)
			if !closed {
				return p, fmt.Errorf("%q has a quote that does not end", text)
			}
			step.name, rest = name, after
		} else {
			end := strings.IndexFunc(rest, func(r rune) bool {
				return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
			})
			if end < 0 {
				end = len(rest)
			}
			step.name, rest = rest[:end], rest[end:]
		}
		if step.name == "" {
			return p, fmt.Errorf("%q has no name where one should be", text)
		}
		rest, step.optional = strings.CutPrefix(rest, "?")
		p.steps = append(p.steps, step)
	}
	return p, nil
}

// maxValues bounds what a path may lead to.
const maxValues = 10_000

// values follows the path. Its errors say what the document is not like, and never what is in it.
func (p path) values(document any, names map[string]string) ([]string, error) {
	at := []any{document}
	for i, s := range p.steps {
		var next []any
		bad := func(what string) error {
			return fmt.Errorf("the answer %s at step %d of the path %s", what, i+1, p.text)
		}
		for _, node := range at {
			if s.name != "" {
				object, ok := node.(map[string]any)
				if !ok {
					return nil, bad("has no object")
				}
				value, there := object[s.name]
				switch {
				case s.optional && value == nil:
				case !there:
					return nil, bad("lacks the field")
				default:
					next = append(next, value)
				}
				continue
			}
			list, ok := node.([]any)
			if behind := i > 0 && p.steps[i-1].name == ""; !ok && s.filter != "" && behind {
				list, ok = []any{node}, true
			}
			if !ok {
				return nil, bad("has no list")
			}
			switch {
			case s.all:
				next = append(next, list...)
			case s.filter != "":
				want, ok := s.value.Expand(names, func(v string) string { return v })
				for _, element := range list {
					object, isObject := element.(map[string]any)
					if !isObject {
						return nil, bad("has something else than objects in the list")
					}
					text, scalar := scalarText(object[s.filter])
					if object[s.filter] == nil { // as good as an empty text: only [name=] is equal to that
						text, scalar = "", true
					}
					if ok && scalar && strings.EqualFold(text, want) {
						next = append(next, element)
					}
				}
			case s.index < len(list):
				next = append(next, list[s.index])
			}
			if len(next) > maxValues {
				return nil, bad("has too many values")
			}
		}
		at = next
	}
	var values []string
	for _, node := range at {
		if node == nil {
			continue
		}
		text, ok := scalarText(node)
		if !ok {
			return nil, fmt.Errorf("the answer has a list or an object at the end of the path %s", p.text)
		}
		values = append(values, text)
	}
	return values, nil
}

// scalarText returns a text, number or boolean as text.
func scalarText(node any) (string, bool) {
	switch v := node.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	}
	return "", false
}
