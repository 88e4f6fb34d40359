package store

import (
	"net/netip"

	"github.com/valetkey/valetkey/internal/auth"
)

// What counts as one network: a household or an operator's customers share an IPv4 /24, and one customer has an IPv6 /48.
const (
	networkBits4 = 24
	networkBits6 = 48
)

// maxNetworks is how many networks are remembered of an app password; the one that was found first is forgotten.
const maxNetworks = 512

// networkOf returns the network of an address; the zero prefix if there is none.
func networkOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := networkBits6
	if addr.Is4() {
		bits = networkBits4
	}
	p, err := addr.Prefix(bits)
	if err != nil || addr.IsLoopback() { // of this machine: a webmail that does not pass the address on
		return netip.Prefix{}
	}
	return p
}

// noteNetwork takes down that the app password was used from a network, at most once in a while for each. Unlike the last use it is
// kept for each network: a stranger's login must not be lost because the owner's came at the same moment. r.mu is held.
func (r *recorder) noteNetwork(a *auth.Attempt, n *note) {
	network := networkOf(n.addr)
	if !network.IsValid() {
		return
	}
	key := noteKey{id: a.AppPasswordID, network: network}
	if r.index[key] != nil {
		return
	}
	if old := r.remembered(key); old != nil && a.At.Sub(old.at) < rejectedEvery {
		return
	}
	x := &note{key: key, at: n.at, service: n.service, frontEnd: n.frontEnd, addr: n.addr}
	r.remember(x)
	r.index[key] = r.pending.PushBack(x)
	r.trim()
	signal(r.wake)
}

// The first network of an app password is no news: either it is the first use, or nobody wanted to know before.
//
// FOR KEY SHARE, which the foreign key takes anyway, keeps nobody out but who deletes the row; skipped are those that are being deleted. So a
// use is not lost because another daemon writes its own at this moment.
const writeNetworksSQL = `
WITH u AS (
	SELECT DISTINCT ON (id, network) id, network, statement_timestamp() - make_interval(secs => age) AS at, detail
	FROM unnest($2::bigint[], $3::cidr[], $4::float8[], $5::jsonb[]) AS u (id, network, age, detail)
), locked AS (
	SELECT p.id, p.account_id, p.label FROM app_passwords p WHERE p.id IN (SELECT id FROM u) ORDER BY p.id FOR KEY SHARE OF p SKIP LOCKED
), before AS (
	SELECT id, EXISTS (SELECT FROM app_password_networks w WHERE w.app_password_id = locked.id) AS known FROM locked
), added AS (
	INSERT INTO app_password_networks (app_password_id, network, used_at)
	SELECT u.id, u.network, u.at FROM u JOIN locked USING (id)
	ON CONFLICT DO NOTHING RETURNING app_password_id AS id, network
), trimmed AS (
	DELETE FROM app_password_networks d USING (
		SELECT w.app_password_id, w.network, row_number() OVER (PARTITION BY w.app_password_id ORDER BY w.used_at DESC) AS place
		FROM app_password_networks w WHERE w.app_password_id IN (SELECT id FROM added)) o
	WHERE d.app_password_id = o.app_password_id AND d.network = o.network AND o.place >= $6
)
INSERT INTO events (at, kind, actor, account_id, login, app_password_id, label, detail)
SELECT u.at, $1, '', a.id, a.login, l.id, l.label, u.detail
FROM added JOIN u USING (id, network) JOIN before USING (id) JOIN locked l USING (id) JOIN accounts a ON a.id = l.account_id
WHERE before.known`
