package ldapbridge

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// rule says how values of an attribute are compared (RFC 4517 section 4.2). Few rules: matching code for exotic syntaxes is
// what crashed other servers.
type rule uint8

const (
	caseIgnore rule = iota // also for rules that differ from it only in details no client relies on
	caseExact
	integer
	distinguishedName
	octets // also generalizedTime, of which we write one form only
)

// attributeType is an attribute description without options.
type attributeType struct {
	name        string   // canonical spelling, as entries show it
	names       []string // and all others, the OID last
	rule        rule
	operational bool // returned only if asked for, by name or by "+"
}

const subschemaName = "cn=Subschema"

// attributeTypes are the attributes that are known, by lower-case name, alias and OID. An account may have others: those are
// known as far as its entry goes.
var attributeTypes = map[string]*attributeType{}

func define(r rule, operational bool, names ...string) *attributeType {
	t := &attributeType{name: names[0], names: names, rule: r, operational: operational}
	for _, n := range names {
		attributeTypes[strings.ToLower(n)] = t
	}
	return t
}

// From RFC 4519, 4524, 2798, 2307, 4512, 4530, 5020 and 3045.
var (
	typeObjectClass = define(caseIgnore, false, "objectClass", "2.5.4.0")
	typeUID         = define(caseIgnore, false, "uid", "userid", "0.9.2342.19200300.100.1.1")
	typeCN          = define(caseIgnore, false, "cn", "commonName", "2.5.4.3")
	typeSN          = define(caseIgnore, false, "sn", "surname", "2.5.4.4")
	typeOU          = define(caseIgnore, false, "ou", "organizationalUnitName", "2.5.4.11")
	typeO           = define(caseIgnore, false, "o", "organizationName", "2.5.4.10")
	typeDC          = define(caseIgnore, false, "dc", "domainComponent", "0.9.2342.19200300.100.1.25")
	typeUIDNumber   = define(integer, false, "uidNumber", "1.3.6.1.1.1.1.0")
	typeGIDNumber   = define(integer, false, "gidNumber", "1.3.6.1.1.1.1.1")
	typeHome        = define(caseExact, false, "homeDirectory", "1.3.6.1.1.1.1.3")

	typeDisplayName = define(caseIgnore, false, "displayName", "2.16.840.1.113730.3.1.241")
	typeDescription = define(caseIgnore, false, "description", "2.5.4.13")

	typeMember       = define(distinguishedName, false, "member", "2.5.4.31")
	typeUniqueMember = define(distinguishedName, false, "uniqueMember", "2.5.4.50")
	typeMemberUID    = define(caseExact, false, "memberUid", "1.3.6.1.1.1.1.12")
	// A user attribute, as in Active Directory: OpenLDAP's way would hide it from clients that ask for "*".
	typeMemberOf = define(distinguishedName, false, "memberOf", "1.2.840.113556.1.2.102")

	// Ours: the name of an application in its suffix. The arc is that of UUIDs, which need no registration (ITU-T X.667).
	typeApp = define(caseIgnore, false, "app", "2.25.302187994961776257733765878330999875467")

	typeEntryUUID             = define(caseIgnore, true, "entryUUID", "1.3.6.1.1.16.4")
	typeEntryDN               = define(distinguishedName, true, "entryDN", "1.3.6.1.1.20")
	typeCreateTimestamp       = define(octets, true, "createTimestamp", "2.5.18.1")
	typeModifyTimestamp       = define(octets, true, "modifyTimestamp", "2.5.18.2")
	typeStructuralObjectClass = define(caseIgnore, true, "structuralObjectClass", "2.5.21.9")
	typeHasSubordinates       = define(caseIgnore, true, "hasSubordinates", "2.5.18.9")

	typeSubschemaSubentry = define(distinguishedName, true, "subschemaSubentry", "2.5.18.10")

	typeAttributeTypes  = define(caseIgnore, true, "attributeTypes", "2.5.21.5")
	typeObjectClasses   = define(caseIgnore, true, "objectClasses", "2.5.21.6")
	typeMatchingRules   = define(caseIgnore, true, "matchingRules", "2.5.21.4")
	typeMatchingRuleUse = define(caseIgnore, true, "matchingRuleUse", "2.5.21.8")
	typeLDAPSyntaxes    = define(caseIgnore, true, "ldapSyntaxes", "1.3.6.1.4.1.1466.101.120.16")

	typeNamingContexts       = define(distinguishedName, true, "namingContexts", "1.3.6.1.4.1.1466.101.120.5")
	typeSupportedExtension   = define(caseIgnore, true, "supportedExtension", "1.3.6.1.4.1.1466.101.120.7")
	typeSupportedControl     = define(caseIgnore, true, "supportedControl", "1.3.6.1.4.1.1466.101.120.13")
	typeSupportedLDAPVersion = define(integer, true, "supportedLDAPVersion", "1.3.6.1.4.1.1466.101.120.15")
	typeSupportedFeatures    = define(caseIgnore, true, "supportedFeatures", "1.3.6.1.4.1.4203.1.3.5")
	typeVendorName           = define(caseExact, true, "vendorName", "1.3.6.1.1.4")
	typeDefaultNamingContext = define(distinguishedName, true, "defaultNamingContext", "2.25.306163110614776648576898627876857339299")
)

func init() {
	for _, names := range [][]string{
		{"c", "countryName", "2.5.4.6"},
		{"businessCategory", "2.5.4.15"},
		{"destinationIndicator", "2.5.4.27"},
		{"facsimileTelephoneNumber", "fax", "2.5.4.23"},
		{"generationQualifier", "2.5.4.44"},
		{"homePostalAddress", "0.9.2342.19200300.100.1.39"},
		{"host", "0.9.2342.19200300.100.1.9"},
		{"internationaliSDNNumber", "2.5.4.25"},
		{"krbPrincipalName", "2.16.840.1.113719.1.301.6.8.1"},
		{"name", "2.5.4.41"},
		{"pager", "pagerTelephoneNumber", "0.9.2342.19200300.100.1.42"},
		{"physicalDeliveryOfficeName", "2.5.4.19"},
		{"postOfficeBox", "2.5.4.18"},
		{"postalAddress", "2.5.4.16"},
		{"registeredAddress", "2.5.4.26"},
		{"roomNumber", "0.9.2342.19200300.100.1.6"},
		{"x121Address", "2.5.4.24"},
		{"carLicense", "2.16.840.1.113730.3.1.1"},
		{"departmentNumber", "2.16.840.1.113730.3.1.2"},
		{"employeeNumber", "2.16.840.1.113730.3.1.3"},
		{"employeeType", "2.16.840.1.113730.3.1.4"},
		{"gecos", "1.3.6.1.1.1.1.2"},
		{"givenName", "gn", "2.5.4.42"},
		{"homePhone", "homeTelephoneNumber", "0.9.2342.19200300.100.1.20"},
		{"initials", "2.5.4.43"},
		{"l", "localityName", "2.5.4.7"},
		{"mail", "rfc822Mailbox", "0.9.2342.19200300.100.1.3"},
		{"mobile", "mobileTelephoneNumber", "0.9.2342.19200300.100.1.41"},
		{"postalCode", "2.5.4.17"},
		{"preferredLanguage", "2.16.840.1.113730.3.1.39"},
		{"st", "stateOrProvinceName", "2.5.4.8"},
		{"street", "streetAddress", "2.5.4.9"},
		{"telephoneNumber", "2.5.4.20"},
		{"title", "2.5.4.12"},
	} {
		define(caseIgnore, false, names...)
	}
	for _, names := range [][]string{
		{"labeledURI", "1.3.6.1.4.1.250.1.57"},
		{"loginShell", "1.3.6.1.1.1.1.4"},
		{"sshPublicKey", "1.3.6.1.4.1.24552.500.1.1.1.13"},
	} {
		define(caseExact, false, names...)
	}
	for _, names := range [][]string{
		{"shadowLastChange", "1.3.6.1.1.1.1.5"},
		{"shadowMin", "1.3.6.1.1.1.1.6"},
		{"shadowMax", "1.3.6.1.1.1.1.7"},
		{"shadowWarning", "1.3.6.1.1.1.1.8"},
		{"shadowInactive", "1.3.6.1.1.1.1.9"},
		{"shadowExpire", "1.3.6.1.1.1.1.10"},
		{"shadowFlag", "1.3.6.1.1.1.1.11"},
	} {
		define(integer, false, names...)
	}
	define(distinguishedName, false, "owner", "2.5.4.32")
	define(distinguishedName, false, "secretary", "0.9.2342.19200300.100.1.21")
	define(distinguishedName, false, "seeAlso", "2.5.4.34")
	define(octets, false, "photo", "0.9.2342.19200300.100.1.7")
	define(octets, false, "userCertificate", "2.5.4.36")
	define(octets, false, "userSMIMECertificate", "2.16.840.1.113730.3.1.40")
	define(distinguishedName, false, "manager", "0.9.2342.19200300.100.1.10")
	define(octets, false, "jpegPhoto", "0.9.2342.19200300.100.1.60")
}

// fewHave are attributes, by canonical spelling, whose values belong to one person each, or to few.
var fewHave = map[string]bool{
	"cn": true, "displayName": true, "mail": true, "uidNumber": true, "homeDirectory": true, "employeeNumber": true, "krbPrincipalName": true,
	"mobile": true, "telephoneNumber": true,
}

// groupTypes are what only a group has.
var groupTypes = map[*attributeType]bool{typeMember: true, typeUniqueMember: true, typeMemberUID: true}

// groupAttributes are all others that a group may have. Programs look for people by mail and the like below the suffix: they need
// not look at groups then.
var groupAttributes = map[*attributeType]bool{
	typeObjectClass: true, typeCN: true, typeDisplayName: true, typeDescription: true, typeGIDNumber: true, typeO: true, typeOU: true,
}

// rootTypes are what only the root DSE and the subschema have.
var rootTypes = map[*attributeType]bool{
	typeNamingContexts: true, typeSupportedExtension: true, typeSupportedControl: true, typeSupportedLDAPVersion: true,
	typeSupportedFeatures: true, typeVendorName: true, typeDefaultNamingContext: true,
	typeAttributeTypes: true, typeObjectClasses: true, typeMatchingRules: true, typeMatchingRuleUse: true, typeLDAPSyntaxes: true,
}

// secretAttributes never appear in an entry, whatever an account's attributes hold, and are unknown to filters and compares.
var secretAttributes = map[string]bool{
	"userpassword": true, "2.5.4.35": true, "authpassword": true, "1.3.6.1.4.1.4203.1.3.4": true, "unicodepwd": true,
	"userpkcs12": true, "krbprincipalkey": true, "sambantpassword": true, "sambalmpassword": true, "ntpassword": true,
	"lmpassword": true, "ipanthash": true, "pwdhistory": true, "sambapasswordhistory": true, "ms-mcs-admpwd": true,
}

// isSecret reports whether a description without options names one of secretAttributes. It does not allocate for names of
// the usual length.
func isSecret(name []byte) bool {
	var buf [64]byte
	return secretAttributes[string(appendLower(buf[:0], name))]
}

// lookupType returns the known attribute type of this name, alias or OID in any case, or nil. It does not allocate.
func lookupType(name []byte) *attributeType {
	var buf [64]byte
	if len(name) > len(buf) {
		return nil
	}
	return attributeTypes[string(appendLower(buf[:0], name))]
}

// appendLower lower-cases ASCII.
func appendLower(dst, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// validDescription reports whether s is an attribute description without options: a short name or an OID in numbers (RFC 4512
// section 1.4).
func validDescription(s []byte) bool {
	if len(s) == 0 {
		return false
	}
	if '0' <= s[0] && s[0] <= '9' {
		dot := true
		for _, c := range s {
			switch {
			case '0' <= c && c <= '9':
				dot = false
			case c == '.' && !dot:
				dot = true
			default:
				return false
			}
		}
		return !dot
	}
	for i, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case i > 0 && ('0' <= c && c <= '9' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// appendFold appends the form of a value that caseIgnoreMatch compares: compatibility-composed, lower case, no space at
// either end, one space for every run of them inside (RFC 4518). It is idempotent for valid UTF-8.
func appendFold(dst, s []byte) []byte { return appendSpaceFolded(dst, s, true) }

// appendSpaceFolded is appendFold and, with fold false, what caseExactMatch compares.
func appendSpaceFolded(dst, s []byte, fold bool) []byte {
	for _, c := range s {
		if c >= utf8.RuneSelf {
			s = prepare(s, fold)
			break
		}
	}
	start, space := len(dst), false
	for _, c := range s {
		if c == ' ' {
			space = true
			continue
		}
		if space && len(dst) > start {
			dst = append(dst, ' ')
		}
		space = false
		if fold && 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// prepare brings text beyond ASCII into a form in which equal means equal bytes.
func prepare(s []byte, fold bool) []byte {
	s = norm.NFKC.Bytes(s)
	if !fold {
		return s
	}
	// Lower-casing may leave a sequence that is not composed any more.
	return norm.NFKC.Bytes(bytes.ToLower(s))
}

// equalFold compares by caseIgnoreMatch.
func equalFold(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var bufA, bufB [128]byte
	return bytes.Equal(appendFold(bufA[:0], a), appendFold(bufB[:0], b))
}
