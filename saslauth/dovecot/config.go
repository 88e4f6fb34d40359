package dovecot

import (
	"fmt"
	"time"
)

// Config says how a [Server] treats its peers. The zero value of every field stands for the default given with it.
type Config struct {
	// Listener is the name that logs and requests carry. Default: the listener's own address, "unix:/run/x" or
	// "tcp:127.0.0.1:12345".
	Listener string

	// Tempfail says how an undecided login is told to the peer. Default: [TempfailAuto].
	Tempfail Tempfail

	// MaxConns is the number of connections over all listeners; for a further one the oldest is closed whose peer has not sent its
	// handshake, or if there is none, that one itself. Default 4096: Postfix keeps one for each smtpd process.
	MaxConns int

	// MaxPerSource is the number of them from one IPv4 address or IPv6 /64, not over a Unix socket. Default: no such limit, since a mail
	// server is one source with all its processes.
	MaxPerSource int

	// MaxPending is the number of requests of one connection that wait for the peer's CONT; one more makes the server
	// forget the oldest. Default 64.
	MaxPending int

	// MaxRunning is the number of decisions that run for one connection at a time; while they do, further lines of this
	// peer stay in the socket. Default 64.
	MaxRunning int

	// PendingExpiry is how long a request waits for the peer's CONT before it is forgotten. Default 150 s, as in
	// Dovecot: Postfix never cancels what it abandons.
	PendingExpiry time.Duration

	// HandshakeTimeout is how long a new peer may take to send VERSION and CPID. Default 30 s. There is no limit after that:
	// peers keep idle connections for days.
	HandshakeTimeout time.Duration

	// WriteTimeout is how long a write may take before the connection is closed, or up to 1/32 less. Default 10 s.
	WriteTimeout time.Duration

	// DecisionTimeoutNoLogin bounds a decision for a peer that gave the nologin parameter. After it, or up to 1/32
	// earlier, the login is undecided. Default 8 s: Postfix gives up after 10.
	DecisionTimeoutNoLogin time.Duration

	// DecisionTimeout bounds the decision for every other peer. Default 25 s: a login process tells its user to wait
	// after 30.
	DecisionTimeout time.Duration
}

func (c Config) withDefaults() Config {
	count := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	wait := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	count(&c.MaxConns, 4096)
	count(&c.MaxPending, 64)
	count(&c.MaxRunning, 64)
	wait(&c.PendingExpiry, 150*time.Second)
	wait(&c.HandshakeTimeout, 30*time.Second)
	wait(&c.WriteTimeout, 10*time.Second)
	wait(&c.DecisionTimeoutNoLogin, 8*time.Second)
	wait(&c.DecisionTimeout, 25*time.Second)
	return c
}

// Tempfail says how a peer is told that a login is undecided (reference/mail-protocols.md section 1.6).
type Tempfail uint8

const (
	// TempfailAuto closes the connection if the request carried the nologin parameter (Postfix, Exim, chasquid) and
	// replies otherwise (Dovecot login processes).
	TempfailAuto Tempfail = iota
	// TempfailDisconnect closes the connection without a reply: 454 from Postfix, 435 from Exim.
	TempfailDisconnect
	// TempfailReply sends FAIL with code=temp_fail: "wrong password" from Postfix and Exim, UNAVAILABLE from Dovecot.
	TempfailReply
)

var tempfailNames = [...]string{TempfailAuto: "auto", TempfailDisconnect: "disconnect", TempfailReply: "reply"}

// String returns the name that [Tempfail.UnmarshalText] reads.
func (t Tempfail) String() string {
	if int(t) < len(tempfailNames) {
		return tempfailNames[t]
	}
	return fmt.Sprintf("Tempfail(%d)", uint8(t))
}

// UnmarshalText reads "auto", "disconnect" or "reply".
func (t *Tempfail) UnmarshalText(text []byte) error {
	for i, name := range tempfailNames {
		if string(text) == name {
			*t = Tempfail(i)
			return nil
		}
	}
	return fmt.Errorf("tempfail %q is none of auto, disconnect, reply", text)
}
