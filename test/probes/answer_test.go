package probes_test

import (
	"fmt"
	"slices"
	"strings"
)

// answer is a response in the form in which both servers' are compared: what RFC 4511 means, not how it is encoded, and no
// diagnostic message. In names the suffix is written as B.
type answer struct {
	id     int
	final  bool // of its operation
	notice bool // of disconnection
	text   string
}

var operations = map[byte]string{
	0x61: "bind", 0x65: "search", 0x67: "modify", 0x69: "add", 0x6b: "delete", 0x6d: "rename", 0x6f: "compare", 0x78: "extended",
}

func short(dn string) string {
	return strings.ReplaceAll(dn, base, "B")
}

// parse reads the contents of an LDAPMessage. cookie is that of paged results.
func parse(b []byte) (a answer, cookie string, err error) {
	tags, values, err := elements(b)
	if err != nil || len(tags) < 2 || tags[0] != 0x02 {
		return a, "", errBER
	}
	a.id = toInt(values[0])
	if tags[1] == 0x64 {
		a.text, err = entry(values[1])
		return a, "", err
	}
	name, known := operations[tags[1]]
	inner, fields, err := elements(values[1])
	if err != nil || !known || len(inner) < 3 || inner[0] != 0x0a || inner[1] != 0x04 || inner[2] != 0x04 {
		return a, "", fmt.Errorf("%w: response with tag %#x", errBER, tags[1])
	}
	a.final = true
	if a.notice = a.id == 0 && strings.Contains(string(values[1]), oidNotice); a.notice {
		name = "notice"
	}
	a.text = fmt.Sprintf("%s %d", name, toInt(fields[0]))
	if len(fields[1]) > 0 {
		a.text += " at " + short(string(fields[1]))
	}
	for i := 3; i < len(inner); i++ {
		switch inner[i] {
		case 0x8a:
			// slapd leaves the name of StartTLS out of the response.
			if oid := string(fields[i]); oid != oidNotice && oid != oidStartTLS {
				a.text += " name " + oid
			}
		case 0x8b:
			a.text += fmt.Sprintf(" value %q", short(string(fields[i])))
		case 0x87:
			a.text += " with credentials"
		case 0xa3:
			a.text += " with referral"
		default:
			a.text += fmt.Sprintf(" with element %#x", inner[i])
		}
	}
	if len(tags) > 2 && tags[2] == 0xa0 {
		_, list, err := elements(values[2])
		if err != nil {
			return a, "", err
		}
		for _, c := range list {
			types, parts, err := elements(c)
			if err != nil || len(parts) == 0 {
				return a, "", errBER
			}
			if string(parts[0]) != oidPaged {
				a.text += " control " + string(parts[0])
				continue
			}
			_, body, _, err := element(parts[len(parts)-1])
			if err != nil || types[len(types)-1] != 0x04 {
				return a, "", errBER
			}
			_, page, err := elements(body)
			if err != nil || len(page) != 2 {
				return a, "", errBER
			}
			if cookie = string(page[1]); cookie == "" {
				a.text += " last page"
			} else {
				a.text += " more pages"
			}
		}
	}
	return a, cookie, nil
}

// notCompared are attributes that only slapd has; docs/ldap-divergences.md says so.
var notCompared = []string{"entryCSN", "creatorsName", "modifiersName"}

// never the same twice: whether there is a value is compared.
var volatile = []string{"entryUUID", "createTimestamp", "modifyTimestamp"}

func entry(b []byte) (string, error) {
	_, parts, err := elements(b)
	if err != nil || len(parts) != 2 {
		return "", errBER
	}
	_, list, err := elements(parts[1])
	if err != nil {
		return "", err
	}
	var attrs []string
	for _, one := range list {
		_, x, err := elements(one)
		if err != nil || len(x) != 2 {
			return "", errBER
		}
		name := string(x[0])
		if slices.Contains(notCompared, name) {
			continue
		}
		_, set, err := elements(x[1])
		if err != nil {
			return "", err
		}
		var values []string
		for _, v := range set {
			value := short(string(v))
			if slices.Contains(volatile, name) {
				value = "…"
			}
			values = append(values, value)
		}
		slices.Sort(values)
		if len(values) > 0 {
			name += "=" + strings.Join(values, ";")
		}
		attrs = append(attrs, name)
	}
	slices.Sort(attrs)
	text := short(string(parts[0]))
	if text == "" {
		text = "root"
	}
	if len(attrs) > 0 {
		text += " {" + strings.Join(attrs, ", ") + "}"
	}
	return text, nil
}
