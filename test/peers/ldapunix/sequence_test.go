package ldapunix_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// passwordPolicy is the control of draft-behera-ldap-password-policy-10 section 6.1.
const passwordPolicy = "1.3.6.1.4.1.42.2.27.8.5.1"

// tlv is an element whose content is shorter than 64 KiB.
func tlv(tag byte, content ...[]byte) []byte {
	body := slices.Concat(content...)
	return append(binary.BigEndian.AppendUint16([]byte{tag, 0x82}, uint16(len(body))), body...)
}

func text(tag byte, s string) []byte { return tlv(tag, []byte(s)) }

// request is an LDAPMessage (RFC 4511 section 4.1.1).
func request(id byte, op []byte, controls ...[]byte) []byte {
	return tlv(0x30, append([][]byte{{0x02, 1, id}, op}, controls...)...)
}

// responses reads until the server hangs up: each is shown as its id, its operation and the first byte of its result.
func responses(t *testing.T, conn net.Conn) (all []string) {
	t.Helper()
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("the server did not hang up after an UnbindRequest: %v", err)
	}
	for len(b) > 0 {
		_, message, rest := element(t, b)
		_, id, message := element(t, message)
		op, body, _ := element(t, message)
		shown := fmt.Sprintf("%d %#x", id[0], op)
		if op != 0x64 { // an entry has no result
			_, code, _ := element(t, body)
			shown += fmt.Sprintf(" %d", code[0])
		}
		all, b = append(all, shown), rest
	}
	return all
}

// element takes the first one off.
func element(t *testing.T, b []byte) (tag byte, content, rest []byte) {
	t.Helper()
	if len(b) < 2 {
		t.Fatalf("not an element: % x", b)
	}
	length, head := int(b[1]), 2
	if b[1] >= 0x80 {
		head += int(b[1] & 0x7f)
		length = 0
		for _, x := range b[2:min(head, len(b))] {
			length = length<<8 | int(x)
		}
	}
	if len(b) < head+length {
		t.Fatalf("not a whole element: % x", b)
	}
	return b[0], b[head : head+length], b[head+length:]
}

// TestSequences replays what PAM modules send, request by request, as it was seen of nslcd, and of modules that bind as the user on the
// reader's own connection.
//
// It would catch: a control or an ABANDON that ends a login, a user who does not find his own entry, a connection that stays what it was after a
// bind that was refused, a password changed from outside.
func TestSequences(t *testing.T) {
	t.Parallel()
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.NewDaemon(t, url)
	page := harness.ReadPage(t, "ldap-nslcd")
	addrs := map[string]string{"store": peers.Addr(t), "upstream": peers.Addr(t)}
	attributes := posix("alice", "", 6000)
	upstream, _ := peers.Upstream(t, []peers.Person{{Login: "alice", Attributes: attributes}}, peers.Group{Name: files, GID: groupID, Members: []string{"alice"}})
	d.Sections = "\n" + page.Snippet(t, "valetkeyd.toml", pageAddr, addrs["store"]) + "\n" + page.Snippet(t, "valetkeyd.toml", pageAddr, addrs["upstream"]) + upstream
	d.Start(t)
	d.Must(t, "group", "add", files)
	d.Must(t, append([]string{"account", "add", "alice"}, flags(attributes)...)...)
	d.Must(t, "group", "add-member", files, "alice")
	d.Must(t, "reader", "add", "nslcd")
	password, readers := d.Create(t, "alice", "phone"), d.Create(t, "nslcd", "search")
	const (
		alice  = "uid=alice,ou=people,app=files," + harness.BaseDN
		reader = "cn=nslcd,ou=readers,app=files," + harness.BaseDN
	)

	for _, source := range sources {
		t.Run("nslcd, the user's connection, "+source, func(t *testing.T) {
			for _, c := range []struct {
				name, password string
				want           []string
			}{
				// BindResponse; SearchResultEntry and SearchResultDone; nothing for the others.
				{"right", password, []string{"1 0x61 0", "2 0x64", "2 0x65 0"}},
				{"wrong", peers.NeverIssued, []string{"1 0x61 49", "2 0x65 50"}},
			} {
				conn, err := harness.Dial(addrs[source])
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
					t.Fatal(err)
				}
				control := tlv(0xa0, tlv(0x30, text(0x04, passwordPolicy)))
				bind := tlv(0x60, []byte{0x02, 1, 3}, text(0x04, alice), text(0x80, c.password))
				search := tlv(0x63, text(0x04, alice), []byte{0x0a, 1, 0, 0x0a, 1, 0, 0x02, 1, 0, 0x02, 1, 0, 0x01, 1, 0},
					text(0x87, "objectClass"), tlv(0x30, text(0x04, "dn")))
				requests := bytes.Join([][]byte{
					request(1, bind, control), request(2, search), request(3, []byte{0x50, 1, 2}), request(4, []byte{0x42, 0}),
				}, nil)
				if _, err := conn.Write(requests); err != nil {
					t.Fatal(err)
				}
				if got := responses(t, conn); !slices.Equal(got, c.want) {
					t.Errorf("%s: the server answers %q, want %q", c.name, got, c.want)
				}
			}
		})
		t.Run("one connection for all, "+source, func(t *testing.T) {
			conn, err := ldap.DialURL("ldap://" + addrs[source])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetTimeout(harness.Patience)
			code := func(err error) int {
				if err == nil {
					return 0
				}
				var e *ldap.Error
				if !errors.As(err, &e) {
					t.Fatal(err)
				}
				return int(e.ResultCode)
			}
			bind := func(dn, password string) error {
				request := ldap.NewSimpleBindRequest(dn, password, []ldap.Control{ldap.NewControlBeheraPasswordPolicy()})
				_, err := conn.SimpleBind(request)
				return err
			}
			find := func(filter string) (names []string, err error) {
				found, err := conn.Search(ldap.NewSearchRequest("app=files,"+harness.BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
					filter, []string{"uid", "uidNumber", "shadowLastChange", "shadowMax"}, nil))
				if err == nil {
					for _, e := range found.Entries {
						names = append(names, e.DN)
					}
				}
				return names, err
			}
			const byName = "(&(objectClass=posixAccount)(uid=alice))"
			for _, step := range []struct {
				name string
				ask  func() error
				want int
				sees []string // afterwards, by the name
			}{
				{"as the reader", func() error { return bind(reader, readers) }, 0, []string{alice}},
				{"as the user", func() error { return bind(alice, password) }, 0, []string{alice}},
				{"the password is changed", func() error {
					_, err := conn.PasswordModify(ldap.NewPasswordModifyRequest("", password, "something new"))
					return err
				}, ldap.LDAPResultUnwillingToPerform, []string{alice}},
				{"the entry is changed", func() error {
					m := ldap.NewModifyRequest(alice, nil)
					m.Replace("userPassword", []string{"something new"})
					return conn.Modify(m)
				}, ldap.LDAPResultUnwillingToPerform, []string{alice}},
				{"as the reader again", func() error { return bind(reader, readers) }, 0, []string{alice}},
				{"as the user, wrong", func() error { return bind(alice, peers.NeverIssued) }, ldap.LDAPResultInvalidCredentials, nil},
				{"as the reader after that", func() error { return bind(reader, readers) }, 0, []string{alice}},
			} {
				if got := code(step.ask()); got != step.want {
					t.Errorf("%s: result code %d, want %d", step.name, got, step.want)
				}
				names, err := find(byName)
				if !slices.Equal(names, step.sees) || (err != nil) != (step.sees == nil) {
					t.Errorf("%s: afterwards %s finds %q, %v, want %q", step.name, byName, names, err, step.sees)
				}
			}
			if names, err := find("(&(objectClass=posixAccount)(uid=*))"); err != nil || !slices.Equal(names, []string{alice}) {
				t.Errorf("everybody: %q, %v, want %q", names, err, alice)
			}
		})
	}
}
