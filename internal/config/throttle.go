package config

import (
	"net/netip"
	"time"
)

// Throttle says what is done about guessing.
type Throttle struct {
	Enabled bool
	Trusted []netip.Prefix // of which nothing is counted, beside loopback
}

// FailureDelay is the least time for which a listener holds back a refusal; [NeverDelay] means that it has nothing to do with the
// throttle.
type FailureDelay time.Duration

// NeverDelay is "off".
const NeverDelay FailureDelay = -1

// maxFailureDelay leaves room before the shortest time that a peer waits.
const maxFailureDelay = 5 * time.Second

func (r *reader) throttle() Throttle {
	return Throttle{Enabled: typed(r, "enabled", "true or false", true), Trusted: r.networks("trusted")}
}

// failureDelay adds to a listener how it holds back refusals.
func (r *reader) failureDelay(x Socket, fallback string) Socket {
	text := r.text("failure_delay", fallback)
	if text == "off" {
		x.FailureDelay = NeverDelay
		return x
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxFailureDelay {
		r.fault("failure_delay", "%q is not a time from 0s to %v, such as \"2s\", nor \"off\"", text, maxFailureDelay)
	}
	x.FailureDelay = FailureDelay(d)
	return x
}
