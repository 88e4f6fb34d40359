package httpauth

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxHops is how many entries of X-Forwarded-For are looked at.
const maxHops = 32

// userAddress returns the address of the user as a trusted proxy told it. The zero Addr is "not known": the peer is not
// trusted, no header is configured, or it does not hold what it should. It is never the address of the peer.
func (b *Basic) userAddress(r *http.Request) netip.Addr {
	if b.AddressHeader == "" || !b.trusts(peerOf(r)) {
		return netip.Addr{}
	}
	if strings.EqualFold(b.AddressHeader, "X-Forwarded-For") {
		return b.forwardedFor(r.Header.Values(b.AddressHeader))
	}
	value, ok := single(r, b.AddressHeader)
	if !ok {
		return netip.Addr{}
	}
	return parseAddr(value)
}

func (b *Basic) trusts(p peer) bool {
	if p.unix {
		return b.TrustUnix
	}
	return b.trustsAddr(p.addr)
}

func (b *Basic) trustsAddr(a netip.Addr) bool {
	for _, p := range b.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedFor goes from the right, where the nearest proxy wrote, to the first address that is not a trusted proxy's:
// what stands left of it came from there, and may be forged. If all are trusted, the leftmost is the origin.
func (b *Basic) forwardedFor(lines []string) netip.Addr {
	var origin netip.Addr
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var hop string
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, hop = rest[:at], rest[at+1:]
			} else {
				hop, more = rest, false
			}
			a := parseAddr(hop)
			if hops++; !a.IsValid() || hops > maxHops {
				return netip.Addr{}
			}
			if !b.trustsAddr(a) {
				return a
			}
			origin = a
		}
	}
	return origin
}

// parseAddr reads an address with or without a port: "192.0.2.1", "192.0.2.1:4711", "2001:db8::1", "[2001:db8::1]:4711".
// Anything else, a name among it, is the zero Addr.
func parseAddr(s string) netip.Addr {
	s = strings.Trim(s, " \t")
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone("")
}
