package config

import (
	"fmt"
	"io/fs"
)

// Metrics is where Prometheus finds out how the daemon does.
type Metrics struct {
	Listen         Address     // zero: nowhere
	Mode           fs.FileMode // of a Unix socket
	Owner, Group   string      // of a Unix socket; empty: the daemon's own
	AllowPlaintext bool        // off loopback
}

// On reports whether there are any.
func (m Metrics) On() bool { return m.Listen != Address{} }

func (r *reader) metrics() Metrics {
	m := Metrics{Mode: r.mode("mode", "0660"), Owner: r.text("owner", ""), Group: r.text("group", ""), AllowPlaintext: r.yes("allow_plaintext")}
	if r.text("listen", "") == "" {
		return m
	}
	m.Listen = r.address("listen", "")
	if err := CheckMetrics(m.Listen, m.AllowPlaintext); err != nil {
		r.fault("listen", "%v", err)
	}
	return m
}

// CheckMetrics refuses an address that other machines reach. They have no secrets, but tell whoever asks how many guesses there were, which
// listeners there are, and of what version the daemon is.
func CheckMetrics(a Address, allowed bool) error {
	if a == (Address{}) || a.Private() || allowed {
		return nil
	}
	return fmt.Errorf("%s can be reached from other machines, and whoever reaches it reads the metrics, in clear and without a password; "+
		"listen on 127.0.0.1 or a Unix socket, or set allow_plaintext = true if only the monitoring gets there", a)
}
