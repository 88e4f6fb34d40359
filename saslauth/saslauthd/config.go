package saslauthd

import "time"

// Config says how a [Server] treats its peers. The zero value of every field stands for the default given with it.
type Config struct {
	// Listener is the name that logs and requests carry. Default: the listener's own address, "unix:/run/x".
	Listener string

	// Service is what a request with an empty service field is for (Exim's ${if saslauthd{{user}{password}}} sends one).
	// Default: none, which only an app password for all services opens.
	Service string

	// MaxConns is the number of connections over all listeners; further ones are closed at once. Default 1024. A
	// connection lasts for one login.
	MaxConns int

	// MaxField is the length in bytes of the longest field that is taken; a longer one is answered with NO. Default 256,
	// as in saslauthd.
	MaxField int

	// MaxRequest is the size in bytes of the largest request, counts included, without the client's address; a larger
	// one is answered with NO. Default 8162, the most that libsasl2 sends.
	MaxRequest int

	// RequestTimeout is how long a new peer may take to send its request. Default 10 s.
	RequestTimeout time.Duration

	// DecisionTimeout bounds a decision. After it the login is undecided. Default 8 s: libsasl2, slapd and Exim wait for
	// ever, their users do not.
	DecisionTimeout time.Duration

	// WriteTimeout is how long the reply may take before the connection is closed. Default 5 s.
	WriteTimeout time.Duration
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
	count(&c.MaxConns, 1024)
	count(&c.MaxField, 256)
	count(&c.MaxRequest, 8162)
	wait(&c.RequestTimeout, 10*time.Second)
	wait(&c.DecisionTimeout, 8*time.Second)
	wait(&c.WriteTimeout, 5*time.Second)
	return c
}
