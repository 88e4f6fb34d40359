package notice

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"strconv"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// How the connection to the mail server is protected.
const (
	StartTLS = "starttls"
	TLS      = "tls"
	NoTLS    = "none" // to this machine only
)

// maxReplies bounds what a server may say to one mail, in bytes. The handshake of TLS is part of it.
const maxReplies = 256 << 10

// bounded is a connection that ends when the other side has said too much.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the server says too much")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// mailTime bounds the sending of one mail.
const mailTime = 30 * time.Second

// SMTP is the server that takes the mails.
type SMTP struct {
	Host     string
	Port     int
	TLS      string
	Roots    *x509.CertPool // nil: those that the system trusts
	Username string         // empty: without authentication
	Password string         // secret
	Hello    string         // our name; empty: localhost
}

// Mail says how users are mailed.
type Mail struct {
	From      *mail.Address
	SMTP      *SMTP    // nil: by Sendmail
	Sendmail  []string // the program and its first arguments
	Templates *Templates
	Kinds     []auth.NoticeKind
	// PerAccount and PerHour are how many mails an hour may go to one user and in all. What is above waits.
	PerAccount, PerHour int
}

// permanent is an error that no later try can make good.
type permanent struct{ error }

// Unwrap returns the error.
func (p permanent) Unwrap() error { return p.error }

// unreachable is an error of the server, not of the mail: others need not be tried for a while.
type unreachable struct{ error }

// Unwrap returns the error.
func (u unreachable) Unwrap() error { return u.error }

func (m *Mail) send(ctx context.Context, to string, message []byte) error {
	if m.SMTP != nil {
		return m.SMTP.send(ctx, m.From.Address, to, message)
	}
	// -i: a dot alone on its line ends nothing. The address is behind --, and begins with no hyphen.
	argv := append(append([]string{}, m.Sendmail...), "-i", "-f", m.From.Address, "--", to)
	_, err := run(ctx, argv, nil, bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")), mailTime)
	if exit, ok := errors.AsType[*exitError](err); ok {
		switch exit.code {
		case 65, 67, 68: // EX_DATAERR, EX_NOUSER, EX_NOHOST of sysexits.h
			return permanent{err}
		}
	}
	return err
}

// open connects to the server and logs in. The password goes over TLS, or not beyond this machine. Call close in the end, unless there is an
// error; ctx ends whatever is going on.
func (s *SMTP) open(ctx context.Context) (c *smtp.Client, close func(), err error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
	if err != nil {
		return nil, nil, err
	}
	conn = &bounded{conn, maxReplies}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	raw := conn
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	end := func() {
		stop()
		raw.Close()
	}
	defer func() {
		if err != nil {
			end()
		}
	}()

	protection := &tls.Config{ServerName: s.Host, RootCAs: s.Roots, MinVersion: tls.VersionTLS12}
	if s.TLS == TLS {
		conn = tls.Client(conn, protection)
	}
	if c, err = smtp.NewClient(conn, s.Host); err != nil {
		return nil, nil, err
	}
	if err := c.Hello(cmp.Or(s.Hello, "localhost")); err != nil {
		return nil, nil, err
	}
	if s.TLS == StartTLS {
		if offered, _ := c.Extension("STARTTLS"); !offered {
			return nil, nil, errors.New("the server does not offer STARTTLS")
		}
		if err := c.StartTLS(protection); err != nil {
			return nil, nil, err
		}
	}
	if s.Username != "" {
		if offered, _ := c.Extension("AUTH"); !offered {
			return nil, nil, errors.New("the server does not offer AUTH")
		}
		if err := c.Auth(plain{s.Username, s.Password}); err != nil {
			return nil, nil, redact(err)
		}
	}
	return c, end, nil
}

// Try reports whether the server would take mails of ours: whether it answers, has the right certificate and takes the password. It sends none.
func (s *SMTP) Try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mailTime)
	defer cancel()
	c, close, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer close()
	return c.Quit()
}

// send gives one mail to the server.
func (s *SMTP) send(ctx context.Context, from, to string, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, mailTime)
	defer cancel()
	c, close, err := s.open(ctx)
	if err != nil {
		return unreachable{err}
	}
	defer close()
	if err := c.Mail(from); err != nil {
		return unreachable{err} // it is the same sender every time
	}
	if err := c.Rcpt(to); err != nil {
		return judge(err)
	}
	w, err := c.Data()
	if err != nil {
		return judge(err)
	}
	if _, err := w.Write(message); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return judge(err)
	}
	_ = c.Quit() // the server has taken it
	return nil
}

// judge tells a refusal for good, 5yz, from one for now (RFC 5321 section 4.2.1).
func judge(err error) error {
	if refusal, ok := errors.AsType[*textproto.Error](err); ok && refusal.Code >= 500 {
		return permanent{err}
	}
	return err
}

// redact keeps of a refusal of AUTH what cannot hold the password.
func redact(err error) error {
	if refusal, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Errorf("the server refuses our user name and password with code %d", refusal.Code)
	}
	return errors.New("the server did not take our user name and password")
}

// plain is SASL PLAIN (RFC 4616). That of net/smtp compares the server's name with "localhost" and would refuse other names of this
// machine; where a password may go has been decided with the configuration.
type plain struct{ username, password string }

// Start implements [smtp.Auth].
func (p plain) Start(*smtp.ServerInfo) (string, []byte, error) {
	return "PLAIN", []byte("\x00" + p.username + "\x00" + p.password), nil
}

// Next implements [smtp.Auth].
func (p plain) Next(_ []byte, more bool) ([]byte, error) {
	if more {
		return nil, errors.New("the server wants more than PLAIN has")
	}
	return nil, nil
}
