package config

// Conns bounds the connections of a listener, so that a peer gone wild, or somebody who means harm, cannot take all descriptors.
type Conns struct {
	Connections int // at a time
	PerSource   int // of them, from one IPv4 address or IPv6 /64; zero: no such bound
	Handshakes  int // of them, whose TLS handshake is not done; zero: there is no TLS
}

const mostConnections = 1 << 16 // each takes a descriptor

// conns reads what every listener has. all is the default of connections.
func (r *reader) conns(all int) Conns {
	return Conns{Connections: r.bound("connections", all, 1)}
}

// connsTCP reads the same of a listener whose peers may come over TCP. perSource is the default of connections_per_source.
func (r *reader) connsTCP(all, perSource int) Conns {
	c := r.conns(all)
	fallback := perSource
	if c.Connections > 0 {
		fallback = min(perSource, c.Connections)
	}
	c.PerSource = r.bound("connections_per_source", fallback, min(perSource, 1)) // where there is such a bound by default, there must be one
	if c.Connections > 0 && c.PerSource > c.Connections {
		r.fault("connections_per_source", "%d is more than connections, %d; lower it, or raise connections", c.PerSource, c.Connections)
	}
	return c
}

// connsTLS reads the same of a listener that knows TLS.
func (r *reader) connsTLS(all, perSource, handshakes int) Conns {
	c := r.connsTCP(all, perSource)
	c.Handshakes = r.bound("handshakes", handshakes, 1)
	return c
}

// bound reads a number of connections.
func (r *reader) bound(key string, fallback, least int) int {
	n := r.number(key, fallback)
	if n < least || n > mostConnections {
		r.fault(key, "%d is not a number of connections from %d to %d", n, least, mostConnections)
	}
	return n
}
