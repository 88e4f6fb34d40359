package harness

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Outcome is what a peer can tell of a login.
type Outcome int

// The outcomes. Broken is what no peer should ever meet: no connection, no answer, nonsense.
const (
	Broken Outcome = iota
	Accepted
	Rejected
	Undecided
)

func (o Outcome) String() string {
	return [...]string{"broken", "accepted", "rejected", "undecided"}[o]
}

// Client logs in through one front end, over one connection that it makes anew when it was closed. It is for one
// goroutine.
type Client interface {
	// Login asks once. detail explains an outcome to a person; it holds no password.
	Login(login, password string) (o Outcome, detail string)
	Close()
}

// answerWithin bounds the wait for an answer: Postfix waits for 10 s, and a login that takes longer is one that hung
// (reference/mail-protocols.md section 0, item 3).
const answerWithin = 10 * time.Second

// DovecotClient speaks the Dovecot authentication protocol.
type DovecotClient struct {
	Addr    string
	Service string // empty: smtp
	// NoLogin says "no login follows", as Postfix does: then undecided is a closed connection, and otherwise
	// a FAIL with code=temp_fail.
	NoLogin bool

	conn net.Conn
	r    *bufio.Reader
	id   int
}

// Connect makes the connection and reads the handshake. [DovecotClient.Login] does it when it is needed.
func (c *DovecotClient) Connect() error {
	conn, err := Dial(c.Addr)
	if err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(answerWithin))
	r := bufio.NewReader(conn)
	var seen []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			conn.Close()
			return fmt.Errorf("handshake after %q: %w", seen, err)
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "DONE" {
			break
		}
		seen = append(seen, line)
	}
	if len(seen) == 0 || !strings.HasPrefix(seen[0], "VERSION\t1\t") {
		conn.Close()
		return fmt.Errorf("handshake starts with %q, want VERSION 1", seen)
	}
	if _, err := fmt.Fprintf(conn, "VERSION\t1\t2\nCPID\t4711\n"); err != nil {
		conn.Close()
		return err
	}
	c.conn, c.r = conn, r
	return nil
}

// Login implements [Client] with mechanism PLAIN and an initial response.
func (c *DovecotClient) Login(login, password string) (Outcome, string) {
	if c.conn == nil {
		if err := c.Connect(); err != nil {
			return Broken, "connect: " + err.Error()
		}
	}
	c.id++
	service := c.Service
	if service == "" {
		service = "smtp"
	}
	flags := ""
	if c.NoLogin {
		flags = "\tnologin"
	}
	resp := base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
	_ = c.conn.SetDeadline(time.Now().Add(answerWithin))
	_, err := fmt.Fprintf(c.conn, "AUTH\t%d\tPLAIN\tservice=%s%s\trip=127.0.0.1\tresp=%s\n", c.id, service, flags, resp)
	var line string
	if err == nil {
		line, err = c.r.ReadString('\n')
	}
	if err != nil {
		c.Close()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return Broken, fmt.Sprintf("no answer within %v", answerWithin)
		}
		if c.NoLogin {
			return Undecided, "connection closed"
		}
		return Broken, "connection closed without an answer"
	}
	f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
	if len(f) < 3 || f[1] != strconv.Itoa(c.id) {
		c.Close()
		return Broken, fmt.Sprintf("answer %q to request %d", line, c.id)
	}
	switch {
	case f[0] == "OK" && strings.HasPrefix(f[2], "user="):
		return Accepted, line
	case f[0] == "FAIL" && strings.Contains(line, "code=temp_fail") && !c.NoLogin:
		return Undecided, line
	case f[0] == "FAIL":
		// To a client that gave nologin every FAIL is a wrong password, whatever its code.
		return Rejected, line
	}
	c.Close()
	return Broken, fmt.Sprintf("answer %q", line)
}

// Close implements [Client].
func (c *DovecotClient) Close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// LDAPClient binds.
type LDAPClient struct {
	Addr string

	conn *ldap.Conn
}

// Login implements [Client] with a simple bind.
func (c *LDAPClient) Login(login, password string) (Outcome, string) {
	if c.conn == nil {
		conn, err := ldap.DialURL("ldap://" + c.Addr)
		if err != nil {
			return Broken, "connect: " + err.Error()
		}
		conn.SetTimeout(answerWithin)
		c.conn = conn
	}
	err := c.conn.Bind(UserDN(login), password)
	if err == nil {
		return Accepted, "0"
	}
	var result *ldap.Error
	if errors.As(err, &result) {
		switch result.ResultCode {
		case ldap.LDAPResultInvalidCredentials:
			return Rejected, "49"
		case ldap.LDAPResultOther:
			return Undecided, "80"
		}
	}
	c.Close()
	return Broken, err.Error()
}

// Close implements [Client].
func (c *LDAPClient) Close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
