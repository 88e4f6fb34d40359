package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/saslauth/dovecot"
	"github.com/valetkey/valetkey/saslauth/saslauthd"
)

// outcomeError ends the command with a code after everything has been printed.
type outcomeError struct{ code int }

// Error satisfies the interface; nobody prints it.
func (e outcomeError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// Outcomes of a try.
const (
	accepted  = "accepted"
	rejected  = "rejected"
	undecided = "undecided"
)

// tried is the result of a try.
type tried struct {
	Outcome  string `json:"outcome"`
	FrontEnd string `json:"front_end"`
	Listener string `json:"listener"`
	Address  string `json:"address"`
	Login    string `json:"login"`
	User     string `json:"user,omitempty"`   // the canonical name that the peer is told
	Answer   string `json:"answer,omitempty"` // what the wire said
	TookMS   int64  `json:"took_ms"`
}

func (a *app) tryCommand() *cobra.Command {
	var file, listener, service, from string
	cmd := &cobra.Command{
		Use:   "try dovecot|ldap|saslauthd LOGIN",
		Short: "Log in through the daemon's live listener, as a peer would",
		Long: `Log in through the daemon's live listener, as a peer would, and say what came of it. The secret is read from standard input or
from a file, never from the command line. It is a real login: it is logged, and noted as the app password's last use.

The listener never says why it refused; the daemon's log line does.

Exit codes: 0 accepted, 1 rejected, 3 undecided or not reachable.`,
		Example: `  valetkey try dovecot alice --service imap < secret
  valetkey try ldap alice --secret-file secret`,
		Args: args("dovecot|ldap|saslauthd", "LOGIN"),
		ValidArgsFunction: func(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(given) == 0 {
				return []string{"dovecot", "ldap", "saslauthd"}, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeLogin(cmd, given[1:], prefix)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			frontEnd, login := given[0], given[1]
			var addr netip.Addr
			if from != "" {
				var err error
				if addr, err = netip.ParseAddr(from); err != nil {
					return usageError{fmt.Errorf("--from %q is not an address", from)}
				}
			}
			var dial func(context.Context, admin.Listener, string) (tried, error)
			switch frontEnd {
			case "dovecot":
				dial = func(ctx context.Context, l admin.Listener, secret string) (tried, error) {
					return tryDovecot(ctx, l, login, secret, service, addr)
				}
			case "ldap":
				if service != "" || from != "" {
					return usageError{errors.New("--service and --from are for dovecot: with LDAP the listener says the service and the connection the address")}
				}
				dial = func(ctx context.Context, l admin.Listener, secret string) (tried, error) {
					return tryLDAP(ctx, l, login, secret)
				}
			case "saslauthd":
				if from != "" {
					return usageError{errors.New("--from is for dovecot: saslauthd's peers do not tell the address")}
				}
				dial = func(ctx context.Context, l admin.Listener, secret string) (tried, error) {
					return trySaslauthd(ctx, l, login, secret, service)
				}
			default:
				return usageError{fmt.Errorf("%q is not a front end to try: dovecot, ldap or saslauthd", frontEnd)}
			}
			status, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			l, err := choose(status.Listeners, frontEnd, listener)
			if err != nil {
				return err
			}
			secret, err := a.readSecret(file)
			if err != nil {
				return err
			}
			start := time.Now()
			result, err := dial(cmd.Context(), l, secret)
			if err != nil {
				return &admin.UnreachableError{Socket: l.Address, Err: err}
			}
			result.FrontEnd, result.Listener, result.Address, result.Login = frontEnd, l.Name, l.Address, login
			result.TookMS = time.Since(start).Milliseconds()
			if err := a.print(result, func() { a.tell(result) }); err != nil {
				return err
			}
			switch result.Outcome {
			case accepted:
				return nil
			case rejected:
				return outcomeError{exitRefused}
			}
			return outcomeError{exitUnreachable}
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "secret-file", "", "read the secret from `FILE` instead of standard input")
	f.StringVar(&listener, "listener", "", "`NAME` of the listener, if there are several: see valetkey status")
	f.StringVar(&service, "service", "", "dovecot, saslauthd: `SERVICE` that is logged in to (default smtp)")
	f.StringVar(&from, "from", "", "dovecot: `ADDRESS` of the user that the peer passes on")
	cmd.MarkFlagFilename("secret-file")
	return cmd
}

func (a *app) tell(r tried) {
	as := ""
	if r.User != "" && r.User != r.Login {
		as = " as " + visible(r.User)
	}
	fmt.Fprintf(a.out, "%s%s: %s at %s, %s (%d ms)\n", r.Outcome, as, r.FrontEnd, r.Address, r.Answer, r.TookMS)
	switch r.Outcome {
	case rejected:
		fmt.Fprintln(a.err, "hint: valetkeyd's log says why, in the line that begins with \"auth: result=fail\"")
	case undecided:
		fmt.Fprintln(a.err, "hint: valetkey status says whether the database is reachable; valetkeyd's log has the cause")
	}
}

func choose(all []admin.Listener, frontEnd, name string) (admin.Listener, error) {
	for _, l := range all {
		if l.FrontEnd == frontEnd && (name == "" || l.Name == name) {
			return l, nil
		}
	}
	if name != "" {
		return admin.Listener{}, hinted{fmt.Errorf("the daemon has no %s listener %q", frontEnd, name), "valetkey status shows them"}
	}
	return admin.Listener{}, hinted{fmt.Errorf("the daemon has no %s listener", frontEnd), "valetkey status shows those it has"}
}

// readSecret reads one line. On a terminal what is typed is not shown.
func (a *app) readSecret(file string) (string, error) {
	in := a.in
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("reading the secret: %w", err)
		}
		defer f.Close()
		in = f
	} else if a.inTerminal {
		fmt.Fprint(a.err, "Secret: ")
		restore, err := silence(in)
		if err != nil {
			return "", fmt.Errorf("reading the secret: %w", err)
		}
		defer fmt.Fprintln(a.err)
		defer restore()
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the secret: %w", err)
	}
	secret := strings.TrimRight(line, "\r\n")
	if secret == "" {
		return "", usageError{hinted{errors.New("the secret is empty"), "give it on standard input, or with --secret-file FILE"}}
	}
	return secret, nil
}

// silence turns a terminal's echo off until restore is called.
func silence(in io.Reader) (restore func(), err error) {
	f, ok := in.(*os.File)
	if !ok {
		return func() {}, nil
	}
	old, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	quiet := *old
	quiet.Lflag &^= unix.ECHO
	quiet.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &quiet); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, old) }, nil
}

func split(address string) (network, rest string) {
	network, rest, _ = strings.Cut(address, ":")
	return network, rest
}

// tryDovecot logs in as Postfix would.
func tryDovecot(ctx context.Context, l admin.Listener, login, secret, service string, from netip.Addr) (tried, error) {
	network, address := split(l.Address)
	c, err := dovecot.Dial(ctx, network, address)
	if err != nil {
		return tried{}, err
	}
	defer c.Close()
	if service == "" {
		service = "smtp"
	}
	r, err := c.Plain(ctx, dovecot.AuthParams{Service: service, NoLogin: true, RemoteIP: from}, login, secret)
	if err != nil {
		return tried{}, err
	}
	switch {
	case r.Outcome == dovecot.OutcomeOK:
		return tried{Outcome: accepted, User: r.User, Answer: "OK"}, nil
	case r.Undecided():
		return tried{Outcome: undecided, Answer: "the daemon closed the connection without an answer"}, nil
	}
	return tried{Outcome: rejected, Answer: "FAIL"}, nil
}

// trySaslauthd logs in as a program with Cyrus SASL would.
func trySaslauthd(ctx context.Context, l admin.Listener, login, secret, service string) (tried, error) {
	_, path := split(l.Address)
	if service == "" {
		service = "smtp"
	}
	r, err := saslauthd.Check(ctx, path, saslauthd.Query{Login: login, Password: secret, Service: service})
	if err != nil {
		return tried{}, err
	}
	switch {
	case r.Undecided():
		return tried{Outcome: undecided, Answer: "the daemon closed the connection without an answer"}, nil
	case r.Outcome == saslauthd.OutcomeOK:
		return tried{Outcome: accepted, Answer: "OK"}, nil
	}
	return tried{Outcome: rejected, Answer: "NO"}, nil
}

// tryLDAP binds as an application would.
func tryLDAP(ctx context.Context, l admin.Listener, login, secret string) (tried, error) {
	network, address := split(l.Address)
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return tried{}, err
	}
	if l.TLS != nil && l.TLS.Mode == "ldaps" {
		conn = tls.Client(conn, pinned(l.TLS))
	}
	c := ldap.NewConn(conn, l.TLS != nil && l.TLS.Mode == "ldaps")
	c.Start()
	defer c.Close()
	c.SetTimeout(30 * time.Second)
	if l.TLS != nil && l.TLS.Mode == "starttls" {
		if err := c.StartTLS(pinned(l.TLS)); err != nil {
			return tried{}, fmt.Errorf("StartTLS: %w", err)
		}
	}
	dn := "uid=" + ldap.EscapeDN(login) + ",ou=people," + l.BaseDN
	err = c.Bind(dn, secret)
	var e *ldap.Error
	switch {
	case err == nil:
		t := tried{Outcome: accepted, Answer: "result code 0"}
		if who, err := c.WhoAmI(nil); err == nil {
			t.User = uidOf(strings.TrimPrefix(who.AuthzID, "dn:"), login)
		}
		return t, nil
	case !errors.As(err, &e), e.ResultCode == ldap.ErrorNetwork:
		return tried{}, err
	case e.ResultCode == ldap.LDAPResultInvalidCredentials:
		return tried{Outcome: rejected, Answer: "result code 49"}, nil
	}
	return tried{Outcome: undecided, Answer: fmt.Sprintf("result code %d", e.ResultCode)}, nil
}

// pinned trusts the one certificate that the daemon says it presents: names and issuers are for those who cannot ask it.
func pinned(t *admin.TLS) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if sum := sha256.Sum256(state.PeerCertificates[0].Raw); hex.EncodeToString(sum[:]) != t.Fingerprint {
				return errors.New("somebody else answers there: the certificate is not the daemon's")
			}
			return nil
		},
	}
}

// uidOf returns the login that a DN names, or fallback.
func uidOf(dn, fallback string) string {
	parsed, err := ldap.ParseDN(dn)
	if err != nil || len(parsed.RDNs) == 0 {
		return fallback
	}
	return parsed.RDNs[0].Attributes[0].Value
}
