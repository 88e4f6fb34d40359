package main

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/plugincmd"
	"github.com/valetkey/valetkey/plugin"
)

// ruleConfig is one [[enrolled]] or [[exempt]]: exactly one of attribute, object_class, group and filter, and what belongs to it.
type ruleConfig struct {
	Attribute       string   `toml:"attribute"`
	Values          []string `toml:"values"`
	ObjectClass     string   `toml:"object_class"`
	Group           string   `toml:"group"`
	MemberAttribute string   `toml:"member_attribute"`
	Filter          string   `toml:"filter"`
	Reason          string   `toml:"reason"`
}

// rule is what an entry may have. What it has decides alone: the first rule that holds gives the answer.
type rule struct {
	status plugin.Status
	reason string

	attribute string   // of the entry, for the first two forms
	values    []string // one of them, ignoring case; empty: any that is not empty

	group, member string // or: the entry is a member of this group
	filter        *plugincmd.Template
}

var attributeName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)+)(;[A-Za-z0-9-]+)*$`)

// rules reads a list of them.
func rules(f *plugincmd.Faults, key string, status plugin.Status, list []ruleConfig) []rule {
	var out []rule
	for i, c := range list {
		key := fmt.Sprintf("%s[%d]", key, i+1)
		r := rule{status: status}
		kinds := 0
		for _, set := range []bool{c.Attribute != "", c.ObjectClass != "", c.Group != "", c.Filter != ""} {
			if set {
				kinds++
			}
		}
		switch {
		case kinds != 1:
			f.Add(key, "give one of attribute, object_class, group and filter; for more write more sections")
			continue
		case c.Attribute != "":
			r.attribute, r.values, r.reason = c.Attribute, c.Values, "attribute"
			if !attributeName.MatchString(c.Attribute) {
				f.Add(key+".attribute", "%q is not the name of an attribute", c.Attribute)
			}
		case c.ObjectClass != "":
			r.attribute, r.values, r.reason = "objectClass", []string{c.ObjectClass}, "object_class"
		case c.Group != "":
			r.group, r.member, r.reason = c.Group, cmp.Or(c.MemberAttribute, "member"), "group"
			if _, err := ldap.ParseDN(c.Group); err != nil {
				f.Add(key+".group", "%q is not the DN of a group", c.Group)
			}
			if !attributeName.MatchString(r.member) {
				f.Add(key+".member_attribute", "%q is not the name of an attribute", r.member)
			}
		default:
			t := parseFilter(f, key+".filter", c.Filter)
			r.filter, r.reason = &t, "filter"
		}
		if c.Values != nil && (c.Attribute == "" || len(c.Values) == 0) {
			f.Add(key+".values", "it belongs to attribute and is not empty; leave it out if any value will do")
		}
		if c.MemberAttribute != "" && c.Group == "" {
			f.Add(key+".member_attribute", "it belongs to group")
		}
		r.reason = cmp.Or(c.Reason, r.reason)
		if err := (plugin.Answer{Status: status, ReasonCode: r.reason}).Validate(); err != nil {
			f.Add(key+".reason", "%v", err)
		}
		out = append(out, r)
	}
	return out
}

// checker looks a user's entry up and holds it to the rules.
type checker struct {
	directory  *directory
	base       string
	filter     plugincmd.Template
	attributes []string // that rules look at
	rules      []rule   // enrolled first
}

// Check implements [plugin.Checker].
func (c *checker) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	names := plugincmd.OfLogin(r.Login)
	filter, ok := c.filter.Expand(names, ldap.EscapeFilter)
	if !ok {
		return plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "odd_login"}, nil
	}
	var answer plugin.Answer
	err := c.directory.do(ctx, func(l *link) error {
		entries, err := l.search(c.base, ldap.ScopeWholeSubtree, filter, c.attributes)
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			return plugincmd.WithHint(fmt.Errorf("the base %q is not there: %w", c.base, err),
				"correct base, or let bind_dn see it")
		}
		switch {
		case err != nil:
			return fmt.Errorf("searching for the entry: %w", err)
		case len(entries) > 1:
			return errSeveral
		case len(entries) == 0:
			answer = plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "no_entry"}
			return nil
		}
		for _, rule := range c.rules {
			holds, err := rule.holds(l, entries[0], names)
			if err != nil {
				return err
			}
			if holds {
				answer = plugin.Answer{Status: rule.status, ReasonCode: rule.reason}
				return nil
			}
		}
		answer = plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "no_rule_holds"}
		return nil
	})
	if err != nil {
		return plugin.Answer{}, err
	}
	return answer, nil
}

// holds reports whether the rule holds for an entry.
func (r *rule) holds(l *link, entry *ldap.Entry, names map[string]string) (bool, error) {
	switch {
	case r.group != "":
		value := entry.DN
		if strings.EqualFold(r.member, "memberUid") { // RFC 2307: names instead of DNs
			value = names["name"]
		}
		member, err := l.compare(r.group, r.member, value)
		switch {
		case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute):
			return false, nil // a group without members
		case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
			// A typing error must not suspend everybody.
			return false, plugincmd.WithHint(fmt.Errorf("the group %q is not there: %w", r.group, err), "correct group, or let bind_dn see it")
		case err != nil:
			return false, fmt.Errorf("looking into the group %q: %w", r.group, err)
		}
		return member, nil
	case r.filter != nil:
		filter, ok := r.filter.Expand(names, ldap.EscapeFilter)
		if !ok {
			return false, nil
		}
		entries, err := l.search(entry.DN, ldap.ScopeBaseObject, filter, []string{"1.1"})
		if err != nil {
			return false, fmt.Errorf("holding the entry to a filter: %w", err)
		}
		return len(entries) > 0, nil
	}
	for _, value := range entry.GetEqualFoldAttributeValues(r.attribute) {
		if value == "" {
			continue
		}
		if len(r.values) == 0 {
			return true, nil
		}
		for _, want := range r.values {
			if strings.EqualFold(value, want) {
				return true, nil
			}
		}
	}
	return false, nil
}
