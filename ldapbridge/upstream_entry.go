package ldapbridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
)

// upstreamSecrets are attributes that hold passwords, keys and what they are recovered from, beside secretAttributes and
// those whose names say so.
var upstreamSecrets = map[string]bool{
	// Active Directory
	"supplementalcredentials": true, "msds-managedpassword": true, "msds-managedpasswordpreviousid": true, "msds-managedpasswordid": true,
	"ms-mcs-admpwd": true, "ms-fve-recoverypassword": true, "msfve-keypackage": true, "msfve-recoverypassword": true,
	"trustauthincoming": true, "trustauthoutgoing": true, "initialauthincoming": true, "initialauthoutgoing": true,
	"currentvalue": true, "priorvalue": true, "mspki-accountcredentials": true, "msds-executescriptpassword": true,
	// Kerberos, FreeIPA, 389 Directory Server, Samba, one-time passwords
	"krbmkey": true, "krbprincipalkey": true, "krbextradata": true, "ipanthash": true, "ipatokenotpkey": true, "ipatokenhotpcounter": true,
	"ipanttrustauthincoming": true, "ipanttrustauthoutgoing": true, "ipaprivatekey": true, "ipasecretkey": true, "ipavaultkey": true,
	"oathkey": true, "oathencseed": true, "goauthenticator": true, "sshprivatekey": true, "userpkcs12": true, "userpkcs8": true,
	"olcrootpw": true, "clearpassword": true,
	// Objects that make clients connect elsewhere or load code.
	"ref": true, "javaserializeddata": true, "javareferenceaddress": true, "javacodebase": true, "javafactory": true, "javaclassname": true,
	// Of the upstream's schema, which is not ours.
	"subschemasubentry": true,
}

// harmlessNames hold times and counts, although their names have a word of secretWords.
var harmlessNames = map[string]bool{
	"pwdlastset": true, "badpwdcount": true, "pwdchangedtime": true, "pwdaccountlockedtime": true, "pwdlastsuccess": true, "pwdreset": true,
	"pwdpolicysubentry": true, "passwordexpirationtime": true, "passwordexpwarned": true, "krblastpwdchange": true, "krbpasswordexpiration": true,
	"sambapwdlastset": true, "sambapwdcanchange": true, "sambapwdmustchange": true, "ms-mcs-admpwdexpirationtime": true,
}

var secretWords = []string{"password", "passwd", "pwd", "secret", "credential", "privatekey", "nthash", "lmhash"}

// secretUpstream says that an attribute of this lower-case name must never leave the upstream. An upstream's schema may have
// more than anybody can list, so a suspicious name is enough.
func secretUpstream(name string) bool {
	if secretAttributes[name] || upstreamSecrets[name] {
		return true
	}
	if harmlessNames[name] {
		return false
	}
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(name, w) })
}

// readable says whether clients may see an attribute of this lower-case name. An OID in numbers that we do not know could be
// any attribute.
func (u *upstream) readable(name string) bool {
	switch {
	case name == "" || '0' <= name[0] && name[0] <= '9':
		return false
	case secretUpstream(name) || u.hidden[name]:
		return false
	}
	return u.allowed == nil || u.allowed[name]
}

// maxUpstreamAttributes bounds an entry of an upstream.
const maxUpstreamAttributes = 1000

// convert makes an entry of what the upstream sent, without the attributes that nobody may see. An entry whose name we do not
// read is nil, or an error if strict is set.
func (u *upstream) convert(x *ldap.Entry, strict bool) (*entry, error) {
	d := new(dn)
	if err := d.parse([]byte(x.DN), &u.names); err != nil || !d.endsWith(u.root) {
		if !strict {
			return nil, nil
		}
		return nil, errors.New("the upstream sent an entry with a name that is none, or not within the base")
	}
	if len(x.Attributes) > maxUpstreamAttributes {
		return nil, errors.New("the upstream sent an entry with too many attributes")
	}
	e := &entry{dn: d, name: x.DN}
	for _, a := range x.Attributes {
		name := a.Name
		if base, option, found := strings.Cut(name, ";"); found {
			if !strings.HasPrefix(strings.ToLower(option), "range=") {
				continue
			}
			name = base
		}
		if !validDescription([]byte(name)) || !u.readable(strings.ToLower(name)) {
			continue
		}
		values := slices.DeleteFunc(slices.Clone(a.Values), func(v string) bool { return v == "" })
		if len(values) == 0 {
			continue
		}
		t, _ := e.find([]byte(name))
		if t == typeObjectClass {
			values = withSuperiors(values)
		}
		if t == nil {
			t = &attributeType{name: name, rule: u.ruleOf(values)}
		}
		// Twice in one entry, as some servers send it, is an attribute with the values of both.
		if i := slices.IndexFunc(e.attrs, func(a attribute) bool { return a.typ == t }); i >= 0 {
			e.attrs[i].values = append(e.attrs[i].values, values...)
			continue
		}
		e.attrs = append(e.attrs, attribute{typ: t, values: values})
	}
	return e, nil
}

// withSuperiors adds the superior classes of those that we know. OpenLDAP keeps and sends the classes that an entry was added with, and finds
// it by the superior ones too (RFC 4512 section 2.4): without them an entry that it found would be dropped here.
func withSuperiors(classes []string) []string {
	for i := 0; i < len(classes); i++ { // those that are added too
		k := slices.IndexFunc(objectClasses, func(c objectClass) bool { return strings.EqualFold(c.name, classes[i]) })
		if k < 0 || objectClasses[k].sup == "" {
			continue
		}
		sup := objectClasses[k].sup
		if !slices.ContainsFunc(classes, func(c string) bool { return strings.EqualFold(c, sup) }) {
			classes = append(classes, sup)
		}
	}
	return classes
}

// ruleOf says how the values of an attribute that we do not know are compared.
func (u *upstream) ruleOf(values []string) rule {
	var d dn
	names := true
	for _, v := range values {
		if !utf8.ValidString(v) {
			return octets
		}
		names = names && strings.IndexByte(v, '=') > 0 && d.parse([]byte(v), &u.names) == nil && d.endsWith(u.root)
	}
	if names {
		return distinguishedName
	}
	return caseIgnore
}

// completeRanges reads the rest of the values that Active Directory sends in portions, "member;range=0-1499". What that brings is taken
// from the budget of the search; nil: it has one of its own.
func (u *upstream) completeRanges(ctx context.Context, c *upstreamConn, x *ldap.Entry, b *budget) error {
	if b == nil {
		b = new(budget)
		*b = budget{u.pool.limits.Bytes, 0, u.pool.elements()}
	}
	total := 0
	for _, a := range x.Attributes {
		for {
			name, next, rest := nextRange(a.Name)
			if !rest || !u.readable(strings.ToLower(name)) {
				break
			}
			if total += len(a.Values); total > maxWireElements {
				return errWireSize
			}
			asked := fmt.Sprintf("%s;range=%d-*", name, next)
			req := &ldap.SearchRequest{BaseDN: x.DN, Scope: ldap.ScopeBaseObject, Filter: "(objectClass=*)", Attributes: []string{asked}}
			one := budget{b.bytes, 1, b.elements}
			page, err := c.search(ctx, req, &one)
			b.bytes, b.elements = one.bytes, one.elements
			if err != nil {
				return err
			}
			var more *ldap.EntryAttribute
			if len(page.entries) == 1 {
				for _, b := range page.entries[0].Attributes {
					if n, _, _ := strings.Cut(b.Name, ";"); strings.EqualFold(n, name) {
						more = b
					}
				}
			}
			if more == nil || len(more.Values) == 0 {
				return errors.New("the upstream does not send the rest of an attribute")
			}
			a.Name, a.Values = more.Name, append(a.Values, more.Values...)
		}
	}
	return nil
}

// split says that not all values of the entry are there.
func split(x *ldap.Entry) bool {
	return slices.ContainsFunc(x.Attributes, func(a *ldap.EntryAttribute) bool {
		_, _, rest := nextRange(a.Name)
		return rest
	})
}

// nextRange reads an attribute description with a range option. rest says that there are more values, from next on.
func nextRange(description string) (name string, next int, rest bool) {
	name, option, _ := strings.Cut(description, ";")
	if option = strings.ToLower(option); !strings.HasPrefix(option, "range=") {
		return name, 0, false
	}
	_, last, _ := strings.Cut(option, "-")
	n, err := strconv.Atoi(last)
	return name, n + 1, err == nil && n >= 0
}
