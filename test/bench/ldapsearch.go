package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"
)

// ldapSearch logs people in as most programs do that know a login but no DN: search for the entry, then bind as what was found. The
// reader that searches has a connection of its own and stays bound there, the binds have another one: that is how Dovecot and FreeRADIUS do it,
// and it makes two operations of a login.
type ldapSearch struct {
	*ldap
	reader   []byte // bind
	searches [][]byte
	found    []foundPerson
}

// foundPerson is what the search must find, all of it and nothing else.
type foundPerson struct {
	dn    []byte
	attrs map[string]string
}

// defaultFilter is what the programs send, or close to it; %s is the login.
const defaultFilter = "(&(objectClass=inetOrgPerson)(uid=%s))"

func newLDAPSearch(network, address string, creds []credential, reader credential, filter string) (*ldapSearch, error) {
	l := &ldapSearch{ldap: newLDAP(network, address, creds), reader: bindRequest(readerDN(reader), reader.password)}
	for _, c := range creds {
		want := foundPerson{[]byte(personDN(c)), map[string]string{"uid": c.login, "cn": c.displayName(), "mail": c.login}}
		search, err := searchRequest(peopleDN, strings.ReplaceAll(filter, "%s", goldap.EscapeFilter(c.login)), "uid", "cn", "mail")
		if err != nil {
			return nil, err
		}
		l.searches, l.found = append(l.searches, search), append(l.found, want)
	}
	return l, nil
}

func (l *ldapSearch) dial() (session, error) {
	search, err := l.open()
	if err != nil {
		return nil, err
	}
	if ok, err := search.bind(l.reader); err != nil || !ok {
		search.close()
		return nil, fmt.Errorf("bind of the reader: %w", errors.Join(err, errRejected))
	}
	login, err := l.open()
	if err != nil {
		search.close()
		return nil, err
	}
	return &ldapSearchSession{l, search, login}, nil
}

type ldapSearchSession struct {
	*ldapSearch
	search, binds *ldapSession
}

func (s *ldapSearchSession) login(i int) (bool, error) {
	want := &s.found[i]
	if err := s.search.exchange(s.searches[i], want.check); err != nil {
		return false, err
	}
	return s.binds.login(i) // as what was found: check has compared the names
}

func (s *ldapSearchSession) close() error {
	return errors.Join(s.search.close(), s.binds.close())
}

// BER identifiers of what a search needs.
const (
	tagBoolean       = 0x01
	tagSet           = 0x31
	tagSearchRequest = 0x63
	tagSearchEntry   = 0x64
	tagSearchDone    = 0x65
)

const scopeSubtree = 2

// searchRequest returns the PDU of a search of the subtree, with message id firstMessageID, without limits.
func searchRequest(base, filter string, attributes ...string) ([]byte, error) {
	f, err := goldap.CompileFilter(filter)
	if err != nil {
		return nil, fmt.Errorf("filter %s: %w", filter, err)
	}
	op := appendTLV(nil, tagOctetString, []byte(base))
	op = appendTLV(op, tagEnumerated, []byte{scopeSubtree})
	op = appendTLV(op, tagEnumerated, []byte{0}) // neverDerefAliases
	op = appendTLV(op, tagInteger, []byte{0})
	op = appendTLV(op, tagInteger, []byte{0})
	op = appendTLV(op, tagBoolean, []byte{0})
	op = append(op, f.Bytes()...)
	var names []byte
	for _, name := range attributes {
		names = appendTLV(names, tagOctetString, []byte(name))
	}
	op = appendTLV(op, tagSequence, names)
	return message(tagSearchRequest, op), nil
}

var errNotFoundRight = errors.New("the search did not find what it should")

// check looks at the answers that b begins with: one entry, the right one with the right values, and success.
func (want *foundPerson) check(b []byte, id int) (complete bool, err error) {
	for entries := 0; ; {
		op, content, rest, complete, err := cutMessage(b, id)
		if err != nil || !complete {
			return false, err
		}
		b = rest
		switch op {
		case tagSearchEntry:
			if err := want.checkEntry(content); err != nil {
				return false, err
			}
			entries++
		case tagSearchDone:
			code, _, err := innerTLV(content, tagEnumerated)
			switch {
			case err != nil:
				return false, err
			case len(code) != 1 || code[0] != resultSuccess:
				return false, fmt.Errorf("%w: result code %d", errNotFoundRight, code)
			case entries != 1:
				return false, fmt.Errorf("%w: %d entries", errNotFoundRight, entries)
			}
			return true, nil
		default:
			return false, fmt.Errorf("%w: operation %#x", errNotFoundRight, op)
		}
	}
}

func (want *foundPerson) checkEntry(content []byte) error {
	dn, content, err := innerTLV(content, tagOctetString)
	if err != nil {
		return err
	}
	if !bytes.Equal(dn, want.dn) {
		return fmt.Errorf("%w: %q, want %q", errNotFoundRight, dn, want.dn)
	}
	list, _, err := innerTLV(content, tagSequence)
	if err != nil {
		return err
	}
	n := 0
	for len(list) > 0 {
		var attribute []byte
		if attribute, list, err = innerTLV(list, tagSequence); err != nil {
			return err
		}
		name, values, err := innerTLV(attribute, tagOctetString)
		if err != nil {
			return err
		}
		set, _, err := innerTLV(values, tagSet)
		if err != nil {
			return err
		}
		value, more, err := innerTLV(set, tagOctetString)
		if err != nil {
			return err
		}
		if w, ok := want.attrs[string(name)]; !ok || string(value) != w || len(more) > 0 {
			return fmt.Errorf("%w: %s of %s is %q, want %q alone", errNotFoundRight, name, want.dn, value, w)
		}
		n++
	}
	if n != len(want.attrs) {
		return fmt.Errorf("%w: %d attributes of %s, want %d", errNotFoundRight, n, want.dn, len(want.attrs))
	}
	return nil
}
