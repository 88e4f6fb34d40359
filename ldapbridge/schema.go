package ldapbridge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// The subschema (RFC 4512 section 4.2) is for clients that check names against it before they ask: python3-ldap3 refuses in the
// program what the schema does not list. So it lists everything, be it shown by no entry, or nothing: an incomplete one is worse than
// none (reference/ldap-server.md section 8).

// objectClass is an object class description. must and may are names of attributes.
type objectClass struct {
	name, oid, kind string
	sup             string // empty: none
	must, may       string
}

// From RFC 4512, 4519, 2798, 2307 (posixGroup as in its successor's draft, where it can stand beside another class), and 3672.
var objectClasses = []objectClass{
	{"top", "2.5.6.0", "ABSTRACT", "", "objectClass", ""},
	{"person", "2.5.6.6", "STRUCTURAL", "top", "sn cn", "userPassword telephoneNumber seeAlso description"},
	{"organizationalPerson", "2.5.6.7", "STRUCTURAL", "person", "", "title " + postal},
	// memberOf is no attribute of the standard's; programs look for it here.
	{"inetOrgPerson", "2.16.840.1.113730.3.2.2", "STRUCTURAL", "organizationalPerson", "", "audio businessCategory carLicense departmentNumber " +
		"displayName employeeNumber employeeType givenName homePhone homePostalAddress initials jpegPhoto labeledURI mail manager mobile o pager photo " +
		"roomNumber secretary uid userCertificate x500UniqueIdentifier preferredLanguage userSMIMECertificate userPKCS12 memberOf"},
	{"organization", "2.5.6.4", "STRUCTURAL", "top", "o", "userPassword seeAlso businessCategory description " + postal},
	{"organizationalUnit", "2.5.6.5", "STRUCTURAL", "top", "ou", "userPassword seeAlso businessCategory description " + postal},
	{"organizationalRole", "2.5.6.8", "STRUCTURAL", "top", "cn", "seeAlso roleOccupant description " + postal},
	{"groupOfNames", "2.5.6.9", "STRUCTURAL", "top", "member cn", "businessCategory seeAlso owner ou o description"},
	{"groupOfUniqueNames", "2.5.6.17", "STRUCTURAL", "top", "uniqueMember cn", "businessCategory seeAlso owner ou o description"},
	{"dcObject", "1.3.6.1.4.1.1466.344", "AUXILIARY", "top", "dc", ""},
	{"extensibleObject", "1.3.6.1.4.1.1466.101.120.111", "AUXILIARY", "top", "", ""},
	{"posixAccount", "1.3.6.1.1.1.2.0", "AUXILIARY", "top", "cn uid uidNumber gidNumber homeDirectory", "userPassword loginShell gecos description"},
	{"shadowAccount", "1.3.6.1.1.1.2.1", "AUXILIARY", "top", "uid", "userPassword shadowLastChange shadowMin shadowMax shadowWarning shadowInactive " +
		"shadowExpire shadowFlag description"},
	{"posixGroup", "1.3.6.1.1.1.2.2", "AUXILIARY", "top", "gidNumber", "userPassword memberUid description"},
	{"ldapPublicKey", "1.3.6.1.4.1.24552.500.1.1.2.0", "AUXILIARY", "top", "", "sshPublicKey uid"},
	{"subentry", "2.5.17.0", "STRUCTURAL", "top", "cn subtreeSpecification", ""},
	{"subschema", "2.5.20.1", "AUXILIARY", "top", "", "dITStructureRules nameForms dITContentRules objectClasses attributeTypes matchingRules matchingRuleUse"},
}

const postal = "x121Address registeredAddress destinationIndicator preferredDeliveryMethod telexNumber teletexTerminalIdentifier telephoneNumber " +
	"internationaliSDNNumber facsimileTelephoneNumber street postOfficeBox postalCode postalAddress physicalDeliveryOfficeName ou st l"

// Syntaxes (RFC 4517 section 3.3, RFC 4530).
const (
	syntaxText        = "1.3.6.1.4.1.1466.115.121.1.15"
	syntaxIA5         = "1.3.6.1.4.1.1466.115.121.1.26"
	syntaxInteger     = "1.3.6.1.4.1.1466.115.121.1.27"
	syntaxDN          = "1.3.6.1.4.1.1466.115.121.1.12"
	syntaxOctets      = "1.3.6.1.4.1.1466.115.121.1.40"
	syntaxOID         = "1.3.6.1.4.1.1466.115.121.1.38"
	syntaxBoolean     = "1.3.6.1.4.1.1466.115.121.1.7"
	syntaxTime        = "1.3.6.1.4.1.1466.115.121.1.24"
	syntaxJPEG        = "1.3.6.1.4.1.1466.115.121.1.28"
	syntaxUUID        = "1.3.6.1.1.16.1"
	syntaxAttrType    = "1.3.6.1.4.1.1466.115.121.1.3"
	syntaxObjectClass = "1.3.6.1.4.1.1466.115.121.1.37"
	syntaxRule        = "1.3.6.1.4.1.1466.115.121.1.30"
	syntaxRuleUse     = "1.3.6.1.4.1.1466.115.121.1.31"
	syntaxSyntax      = "1.3.6.1.4.1.1466.115.121.1.54"
)

var syntaxes = map[string]string{
	syntaxText: "Directory String", syntaxIA5: "IA5 String", syntaxInteger: "INTEGER", syntaxDN: "DN", syntaxOctets: "Octet String", syntaxOID: "OID",
	syntaxBoolean: "Boolean", syntaxTime: "Generalized Time", syntaxJPEG: "JPEG", syntaxUUID: "UUID", syntaxAttrType: "Attribute Type Description",
	syntaxObjectClass: "Object Class Description", syntaxRule: "Matching Rule Description", syntaxRuleUse: "Matching Rule Use Description",
	syntaxSyntax: "LDAP Syntax Description",
}

// ruleNames are the rules of the schema for each of ours. Without an ordering rule it is empty.
type ruleNames struct{ equality, ordering, substrings, syntax string }

var (
	rulesOf = map[rule]ruleNames{
		caseIgnore:        {"caseIgnoreMatch", "caseIgnoreOrderingMatch", "caseIgnoreSubstringsMatch", syntaxText},
		caseExact:         {"caseExactMatch", "caseExactOrderingMatch", "caseExactSubstringsMatch", syntaxText},
		integer:           {"integerMatch", "integerOrderingMatch", "", syntaxInteger},
		distinguishedName: {"distinguishedNameMatch", "", "", syntaxDN},
		octets:            {"octetStringMatch", "octetStringOrderingMatch", "", syntaxOctets},
	}
	rulesIA5  = ruleNames{"caseIgnoreIA5Match", "", "caseIgnoreIA5SubstringsMatch", syntaxIA5}
	rulesOID  = ruleNames{"objectIdentifierMatch", "", "", syntaxOID}
	rulesTime = ruleNames{"generalizedTimeMatch", "generalizedTimeOrderingMatch", "", syntaxTime}

	// specialRules are those of attributes whose standard gives them a syntax of their own.
	specialRules = map[string]ruleNames{
		"objectClass": rulesOID, "structuralObjectClass": rulesOID, "supportedExtension": rulesOID, "supportedControl": rulesOID, "supportedFeatures": rulesOID,
		"mail": rulesIA5, "dc": rulesIA5, "gecos": rulesIA5, "createTimestamp": rulesTime, "modifyTimestamp": rulesTime,
		"memberUid": {"caseExactIA5Match", "", "", syntaxIA5}, "homeDirectory": {"caseExactIA5Match", "", "", syntaxIA5},
		"loginShell": {"caseExactIA5Match", "", "", syntaxIA5}, "hasSubordinates": {"booleanMatch", "", "", syntaxBoolean},
		"entryUUID": {"UUIDMatch", "UUIDOrderingMatch", "", syntaxUUID}, "jpegPhoto": {"", "", "", syntaxJPEG},
		"attributeTypes": {"objectIdentifierFirstComponentMatch", "", "", syntaxAttrType}, "objectClasses": {"objectIdentifierFirstComponentMatch", "", "", syntaxObjectClass},
		"matchingRules":   {"objectIdentifierFirstComponentMatch", "", "", syntaxRule},
		"matchingRuleUse": {"objectIdentifierFirstComponentMatch", "", "", syntaxRuleUse}, "ldapSyntaxes": {"objectIdentifierFirstComponentMatch", "", "", syntaxSyntax},
	}

	// schemaRules are the matching rules that attribute types name, with OID and syntax of the assertion (RFC 4517 section 4.2).
	schemaRules = []ruleNamed{
		{"objectIdentifierMatch", "2.5.13.0", syntaxOID}, {"distinguishedNameMatch", "2.5.13.1", syntaxDN},
		{"caseIgnoreMatch", "2.5.13.2", syntaxText}, {"caseIgnoreOrderingMatch", "2.5.13.3", syntaxText}, {"caseIgnoreSubstringsMatch", "2.5.13.4", syntaxSubstrings},
		{"caseExactMatch", "2.5.13.5", syntaxText}, {"caseExactOrderingMatch", "2.5.13.6", syntaxText}, {"caseExactSubstringsMatch", "2.5.13.7", syntaxSubstrings},
		{"booleanMatch", "2.5.13.13", syntaxBoolean}, {"integerMatch", "2.5.13.14", syntaxInteger}, {"integerOrderingMatch", "2.5.13.15", syntaxInteger},
		{"octetStringMatch", "2.5.13.17", syntaxOctets}, {"octetStringOrderingMatch", "2.5.13.18", syntaxOctets},
		{"generalizedTimeMatch", "2.5.13.27", syntaxTime}, {"generalizedTimeOrderingMatch", "2.5.13.28", syntaxTime},
		{"objectIdentifierFirstComponentMatch", "2.5.13.30", syntaxOID},
		{"caseExactIA5Match", "1.3.6.1.4.1.1466.109.114.1", syntaxIA5}, {"caseIgnoreIA5Match", "1.3.6.1.4.1.1466.109.114.2", syntaxIA5},
		{"caseIgnoreIA5SubstringsMatch", "1.3.6.1.4.1.1466.109.114.3", syntaxSubstrings},
		{"UUIDMatch", "1.3.6.1.1.16.2", syntaxUUID}, {"UUIDOrderingMatch", "1.3.6.1.1.16.3", syntaxUUID},
	}
)

const syntaxSubstrings = "1.3.6.1.4.1.1466.115.121.1.58"

type ruleNamed struct{ name, oid, syntax string }

// singleValued are the attributes of which an entry has one value at most.
var singleValued = map[string]bool{
	"uidNumber": true, "gidNumber": true, "homeDirectory": true, "loginShell": true, "gecos": true, "c": true, "dc": true, "displayName": true, "employeeNumber": true,
	"preferredLanguage": true, "entryUUID": true, "entryDN": true, "createTimestamp": true, "modifyTimestamp": true, "structuralObjectClass": true,
	"hasSubordinates": true, "subschemaSubentry": true, "vendorName": true, "shadowLastChange": true, "shadowMin": true, "shadowMax": true,
	"shadowWarning": true, "shadowInactive": true, "shadowExpire": true, "shadowFlag": true,
}

// foreignTypes are attributes that classes name or that programs ask for, and that no entry here will ever have.
var foreignTypes = []struct{ name, oid, syntax string }{
	{"userPassword", "2.5.4.35", syntaxOctets}, {"userPKCS12", "2.16.840.1.113730.3.1.216", syntaxOctets}, {"audio", "0.9.2342.19200300.100.1.55", syntaxOctets},
	{"x500UniqueIdentifier", "2.5.4.45", syntaxOctets}, {"preferredDeliveryMethod", "2.5.4.28", syntaxText}, {"telexNumber", "2.5.4.21", syntaxText},
	{"teletexTerminalIdentifier", "2.5.4.22", syntaxText}, {"roleOccupant", "2.5.4.33", syntaxDN}, {"subtreeSpecification", "2.5.18.6", syntaxText},
	{"dITStructureRules", "2.5.21.1", syntaxText}, {"nameForms", "2.5.21.7", syntaxText}, {"dITContentRules", "2.5.21.2", syntaxText},
	{"creatorsName", "2.5.18.3", syntaxDN}, {"modifiersName", "2.5.18.4", syntaxDN}, {"altServer", "1.3.6.1.4.1.1466.101.120.6", syntaxIA5},
	{"supportedSASLMechanisms", "1.3.6.1.4.1.1466.101.120.14", syntaxText}, {"vendorVersion", "1.3.6.1.1.5", syntaxText},
}

// subschema makes the subschema entry, once for all servers.
var subschema = sync.OnceValue(func() *entry {
	e := newEntry(&dn{avas: []ava{{typ: typeCN.name, value: []byte(strings.TrimPrefix(subschemaName, "cn="))}}, starts: []int{0}})
	e.add(typeObjectClass, "top", "subentry", "subschema")
	e.add(typeCN, string(e.dn.avas[0].value))
	e.add(typeStructuralObjectClass, "subentry")
	e.add(typeEntryDN, e.name)
	e.add(typeSubschemaSubentry, e.name)
	e.add(typeHasSubordinates, "FALSE")
	// For clients that keep the schema (RFC 4512 section 4.2): another version of the program may have another one.
	now := time.Now().UTC().Format(generalizedTime)
	e.add(typeCreateTimestamp, now)
	e.add(typeModifyTimestamp, now)
	list := func(t *attributeType, values []string) { e.attrs = append(e.attrs, attribute{t, values}) }

	used := maps.Clone(syntaxes)
	used[syntaxSubstrings] = "Substring Assertion"
	var descriptions []string
	for _, oid := range slices.Sorted(maps.Keys(used)) {
		descriptions = append(descriptions, fmt.Sprintf("( %s DESC '%s' )", oid, used[oid]))
	}
	list(typeLDAPSyntaxes, descriptions)

	descriptions = nil
	for _, r := range schemaRules {
		descriptions = append(descriptions, fmt.Sprintf("( %s NAME '%s' SYNTAX %s )", r.oid, r.name, r.syntax))
	}
	list(typeMatchingRules, descriptions)

	known := map[*attributeType]bool{}
	for _, t := range attributeTypes {
		known[t] = true
	}
	types := slices.SortedFunc(maps.Keys(known), func(a, b *attributeType) int { return cmp.Compare(a.name, b.name) })
	applies := map[rule][]string{}
	descriptions = nil
	for _, t := range types {
		descriptions = append(descriptions, t.describe())
		switch t.rule { // as filters that name a rule are answered
		case caseIgnore, caseExact:
			applies[caseIgnore] = append(applies[caseIgnore], t.name)
			applies[caseExact] = append(applies[caseExact], t.name)
		case distinguishedName:
			applies[distinguishedName] = append(applies[distinguishedName], t.name)
		}
	}
	for _, f := range foreignTypes {
		descriptions = append(descriptions, fmt.Sprintf("( %s NAME '%s' SYNTAX %s )", f.oid, f.name, f.syntax))
	}
	list(typeAttributeTypes, descriptions)

	descriptions = nil
	for _, r := range schemaRules {
		for _, ours := range []rule{caseIgnore, caseExact, distinguishedName} {
			if rulesOf[ours].equality == r.name {
				descriptions = append(descriptions, fmt.Sprintf("( %s NAME '%s' APPLIES ( %s ) )", r.oid, r.name, strings.Join(applies[ours], " $ ")))
			}
		}
	}
	list(typeMatchingRuleUse, descriptions)

	descriptions = nil
	for _, c := range objectClasses {
		descriptions = append(descriptions, c.describe())
	}
	list(typeObjectClasses, descriptions)
	return e
})

// describe returns the AttributeTypeDescription (RFC 4512 section 4.1.2).
func (t *attributeType) describe() string {
	var b strings.Builder
	last := len(t.names) - 1
	fmt.Fprintf(&b, "( %s NAME %s", t.names[last], quotedNames(t.names[:last]))
	r, special := specialRules[t.name]
	if !special {
		r = rulesOf[t.rule]
	}
	for _, part := range []struct{ word, value string }{{"EQUALITY", r.equality}, {"ORDERING", r.ordering}, {"SUBSTR", r.substrings}, {"SYNTAX", r.syntax}} {
		if part.value != "" {
			fmt.Fprintf(&b, " %s %s", part.word, part.value)
		}
	}
	if singleValued[t.name] {
		b.WriteString(" SINGLE-VALUE")
	}
	switch {
	case rootTypes[t]:
		b.WriteString(" NO-USER-MODIFICATION USAGE dSAOperation")
	case t.operational:
		b.WriteString(" NO-USER-MODIFICATION USAGE directoryOperation")
	}
	b.WriteString(" )")
	return b.String()
}

// describe returns the ObjectClassDescription (RFC 4512 section 4.1.1).
func (c *objectClass) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "( %s NAME '%s'", c.oid, c.name)
	if c.sup != "" {
		b.WriteString(" SUP " + c.sup)
	}
	b.WriteString(" " + c.kind)
	for _, part := range []struct{ word, names string }{{"MUST", c.must}, {"MAY", c.may}} {
		if part.names != "" {
			fmt.Fprintf(&b, " %s ( %s )", part.word, strings.Join(strings.Fields(part.names), " $ "))
		}
	}
	b.WriteString(" )")
	return b.String()
}

func quotedNames(names []string) string {
	if len(names) == 1 {
		return "'" + names[0] + "'"
	}
	return "( '" + strings.Join(names, "' '") + "' )"
}

// classTypes are the attributes of every object class, those of the classes above it included, by lower-case name and OID.
var classTypes = sync.OnceValue(func() map[string]map[*attributeType]bool {
	all := map[string]map[*attributeType]bool{}
	for _, c := range objectClasses { // superior ones come first
		types := map[*attributeType]bool{}
		maps.Copy(types, all[strings.ToLower(c.sup)])
		for _, name := range strings.Fields(c.must + " " + c.may) {
			if t := lookupType([]byte(name)); t != nil {
				types[t] = true
			}
		}
		all[strings.ToLower(c.name)], all[c.oid] = types, types
	}
	return all
})

// classHas reports whether the attribute is one of the object class. extensibleObject has all user attributes (RFC 4512 section 4.3).
func classHas(class []byte, t *attributeType) bool {
	var buf [64]byte
	name := appendLower(buf[:0], class)
	types, ok := classTypes()[string(name)]
	return types[t] || ok && !t.operational && (string(name) == "extensibleobject" || string(name) == "1.3.6.1.4.1.1466.101.120.111")
}
