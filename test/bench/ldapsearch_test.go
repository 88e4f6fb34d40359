package main

import (
	"bytes"
	"errors"
	"testing"

	goldap "github.com/go-ldap/ldap/v3"
)

func TestSearchRequest(t *testing.T) {
	pdu, err := searchRequest(peopleDN, "(&(objectClass=inetOrgPerson)(uid=alice))", "uid", "cn")
	if err != nil {
		t.Fatal(err)
	}
	putMessageID(pdu, 0x012345)
	tag, op, rest, complete, err := cutMessage(pdu, 0x012345)
	if tag != tagSearchRequest || len(rest) != 0 || !complete || err != nil {
		t.Fatalf("searchRequest = % x: %v", pdu, err)
	}
	base, op, err := innerTLV(op, tagOctetString)
	if err != nil || string(base) != peopleDN {
		t.Errorf("base %q, %v, want %s", base, err, peopleDN)
	}
	filter, err := goldap.CompileFilter("(&(objectClass=inetOrgPerson)(uid=alice))")
	if err != nil {
		t.Fatal(err)
	}
	want := "\x0a\x01\x02\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00" + string(filter.Bytes()) + "\x30\x09\x04\x03uid\x04\x02cn"
	if string(op) != want {
		t.Errorf("searchRequest: after the base % x, want % x", op, want)
	}
	if _, err := searchRequest(peopleDN, "(uid=alice", "uid"); err == nil {
		t.Error("searchRequest took a broken filter")
	}
}

// answer makes the message of an operation with this id.
func answer(id int, tag byte, content []byte) []byte {
	pdu := message(tag, content)
	putMessageID(pdu, id)
	return pdu
}

func foundEntry(dn string, pairs ...string) []byte {
	var list []byte
	for i := 0; i < len(pairs); i += 2 {
		attribute := appendTLV(nil, tagOctetString, []byte(pairs[i]))
		attribute = appendTLV(attribute, tagSet, appendTLV(nil, tagOctetString, []byte(pairs[i+1])))
		list = appendTLV(list, tagSequence, attribute)
	}
	return appendTLV(appendTLV(nil, tagOctetString, []byte(dn)), tagSequence, list)
}

func TestCheckFound(t *testing.T) {
	want := &foundPerson{[]byte("uid=a,o=x"), map[string]string{"uid": "a", "cn": "A"}}
	const id = firstMessageID + 1
	right := answer(id, tagSearchEntry, foundEntry("uid=a,o=x", "cn", "A", "uid", "a"))
	done := answer(id, tagSearchDone, []byte{tagEnumerated, 1, 0, tagOctetString, 0, tagOctetString, 0})
	failed := answer(id, tagSearchDone, []byte{tagEnumerated, 1, 50, tagOctetString, 0, tagOctetString, 0})
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, c := range []struct {
		name     string
		b        []byte
		complete bool
		fails    bool
	}{
		{"found", join(right, done), true, false},
		{"not yet", right, false, false},
		{"cut", join(right, done[:5]), false, false},
		{"nobody", done, false, true},
		{"two", join(right, right, done), false, true},
		{"refused", failed, false, true},
		{"refused at the end", join(right, failed), false, true},
		{"somebody else", join(answer(id, tagSearchEntry, foundEntry("uid=b,o=x", "cn", "A", "uid", "a")), done), false, true},
		{"wrong value", join(answer(id, tagSearchEntry, foundEntry("uid=a,o=x", "cn", "B", "uid", "a")), done), false, true},
		{"attribute missing", join(answer(id, tagSearchEntry, foundEntry("uid=a,o=x", "uid", "a")), done), false, true},
		{"attribute not asked for", join(answer(id, tagSearchEntry, foundEntry("uid=a,o=x", "cn", "A", "uid", "a", "sn", "A")), done), false, true},
		{"answer to another request", join(answer(id+1, tagSearchEntry, foundEntry("uid=a,o=x", "cn", "A", "uid", "a")), done), false, true},
		{"another operation", answer(id, tagBindResponse, []byte{tagEnumerated, 1, 0}), false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			complete, err := want.check(c.b, id)
			if complete != c.complete || (err != nil) != c.fails {
				t.Errorf("check = %v, %v, want %v, error %v", complete, err, c.complete, c.fails)
			}
			if err != nil && !errors.Is(err, errNotFoundRight) && !errors.Is(err, errNotAnswer) {
				t.Errorf("check = %v", err)
			}
		})
	}
}

func TestPaged(t *testing.T) {
	control := goldap.NewControlPaging(listPage)
	control.SetCookie([]byte("here"))
	controls := appendTLV(nil, tagControls, control.Encode().Bytes())
	msg, _, err := innerTLV(paged(message(tagSearchRequest, nil), []byte("here")), tagSequence)
	if err != nil || !bytes.HasSuffix(msg, controls) {
		t.Errorf("paged = % x, %v, want % x at the end", msg, err, controls)
	}
	if cookie, err := nextPage(controls); err != nil || string(cookie) != "here" {
		t.Errorf("nextPage = %q, %v, want here", cookie, err)
	}
	if _, err := nextPage(nil); err == nil {
		t.Error("nextPage: no controls, want an error")
	}
}

func TestParseResident(t *testing.T) {
	r, err := parseResident("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\nThreads:\t3\n")
	if err != nil || r != (resident{1024, 2048}) || r.String() != "1.0 MiB (peak 2.0)" {
		t.Errorf("parseResident = %v, %v", r, err)
	}
	for _, s := range []string{"", "VmRSS:\t1 kB\n", "VmRSS:\t1 MB\nVmHWM:\t1 kB\n"} {
		if _, err := parseResident(s); err == nil {
			t.Errorf("parseResident(%q): want an error", s)
		}
	}
}
