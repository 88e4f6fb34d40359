package checkpassword

import (
	"context"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Authenticator decides whether a login may pass. An error means undecided. It is called from many goroutines at once
// and must return soon after ctx is done: ctx ends when the decision takes too long, when the helper hangs up and when
// the server is stopped, and nothing else bounds the call.
type Authenticator interface {
	Authenticate(ctx context.Context, req auth.Request) (auth.Decision, error)
}

// Directory says what an account has for a mail server. Like [Authenticator] it is bounded by ctx alone.
type Directory interface {
	// Entry reads the account that goes by this normalised login, fresh at every call. [auth.ErrNoAccount] means that
	// there is none; any other error means that nothing is known.
	Entry(ctx context.Context, login string) (auth.Account, error)
}

// Config says how a [Server] treats its peers. The zero value of every field stands for the default given with it.
type Config struct {
	// Listener is the name that logs and requests carry. Default: the listener's own address, "unix:/run/x".
	Listener string

	// AllowLookup lets whoever may connect ask, without a password, whether an account exists and for its userdb
	// fields. Default: lookups are refused. Dovecot needs it for userdb { driver = checkpassword }.
	AllowLookup bool

	// MaxConns is the number of connections over all listeners; further ones are closed at once, which the helper takes
	// for undecided. Default 1024. A connection lasts for one login.
	MaxConns int

	// RequestTimeout is how long a new peer may take to send its request. Default 5 s: the helper sends it at once.
	RequestTimeout time.Duration

	// DecisionTimeout bounds a decision, with the reading of the account after it. After it the login is undecided.
	// Default 8 s: Postfix, which may be behind Dovecot, gives up after 10, the helper after 9.
	DecisionTimeout time.Duration

	// WriteTimeout is how long the reply may take before the connection is closed. Default 5 s.
	WriteTimeout time.Duration
}

func (c Config) withDefaults() Config {
	wait := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 1024
	}
	wait(&c.RequestTimeout, 5*time.Second)
	wait(&c.DecisionTimeout, 8*time.Second)
	wait(&c.WriteTimeout, 5*time.Second)
	return c
}
