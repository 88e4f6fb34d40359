package ldapbridge

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/netserve"
)

// Server answers LDAP on any number of listeners. It is safe for concurrent use.
//
// LDAP carries no address of the user: what a login request calls the address is the TCP peer's, which is the application's
// unless devices ask directly. Whoever throttles by address must know that a mail server with all its users looks like one
// client (reference/security.md section 4.3). On a Unix socket there is no address.
type Server struct {
	cfg  Config
	auth Authenticator
	dir  Directory
	log  *slog.Logger

	src      source
	upstream *upstream // src, if it is one
	base     *dn
	apps     map[string]*application // by name

	turns   *Turns
	pageKey [32]byte // of the cookies of paged results

	people       *dn // parent of the accounts
	groups       *dn
	readers      *dn // parent of the names of service accounts
	rdnType      *attributeType
	root         *entry
	subschema    *entry
	rootStartTLS *entry // of connections that may still ask for TLS

	conns      *netserve.Server
	handshakes handshakes

	session atomic.Uint32
	stats   counters
}

// New returns a Server that does not listen yet. An error is a fault of the configuration.
func New(cfg Config, a Authenticator, dir Directory, log *slog.Logger) (*Server, error) {
	if err := cfg.Limits.setDefaults(); err != nil {
		return nil, fmt.Errorf("ldap: %w", err)
	}
	if cfg.Service == "" {
		cfg.Service = "ldap"
	}
	if cfg.People == "" {
		cfg.People = "ou=people"
	}
	if cfg.RDNAttribute == "" {
		cfg.RDNAttribute = "uid"
	}
	if _, err := auth.NormaliseService(cfg.Service); err != nil {
		return nil, fmt.Errorf("ldap: service %q: %w", cfg.Service, err)
	}
	base, err := parseDN(cfg.BaseDN, &cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("ldap: base_dn %q: %w", cfg.BaseDN, err)
	}
	if base.rdns() == 0 {
		return nil, errors.New("ldap: base_dn is empty")
	}
	if err := cfg.checkTLS(); err != nil {
		return nil, err
	}
	people, err := parseDN(cfg.People+","+base.String(), &cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("ldap: people %q: %w", cfg.People, err)
	}
	if people.rdns() == cfg.Limits.RDNs {
		return nil, fmt.Errorf("ldap: people %q: no room for an RDN below it", people)
	}
	groups, err := parseDN(cmp.Or(cfg.Groups, "ou=groups")+","+base.String(), &cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("ldap: groups %q: %w", cfg.Groups, err)
	}
	readers, err := parseDN(cmp.Or(cfg.Readers, "ou=readers")+","+base.String(), &cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("ldap: readers %q: %w", cfg.Readers, err)
	}
	rdnType := lookupType([]byte(cfg.RDNAttribute))
	if rdnType == typeApp || rdnType == nil || rdnType.operational || rdnType.rule != caseIgnore || rdnType == typeObjectClass {
		return nil, fmt.Errorf("ldap: rdn_attribute %q: not a known text attribute", cfg.RDNAttribute)
	}
	s := &Server{
		cfg: cfg, auth: a, dir: dir, log: log, base: base, subschema: subschema(), apps: map[string]*application{},
		people: people, groups: groups, readers: readers, rdnType: rdnType, root: rootDSE(base.String()), rootStartTLS: rootDSE(base.String(), oidStartTLS),
		turns: cmp.Or(cfg.Turns, NewTurns(0)),
	}
	s.conns = netserve.New(netserve.Config{
		Name: "ldap", Listener: cfg.Listener, Max: cfg.Limits.Connections, MaxPerSource: cfg.Limits.ConnectionsPerSource,
		Log: log, New: func(nc net.Conn, listener string) netserve.Conn { return newConn(s, nc, listener) },
	})
	s.session.Store(rand.Uint32())
	crand.Read(s.pageKey[:])
	for _, app := range cfg.Applications {
		if err := s.addApplication(app); err != nil {
			return nil, err
		}
	}
	for key, d := range map[string]*dn{"people": people, "groups": groups, "readers": readers} {
		if app, plain := s.split(d); app != nil || plain == nil {
			return nil, fmt.Errorf("ldap: %s %q: app= below the suffix is for applications", key, d)
		}
	}
	if cfg.Upstream != nil {
		if s.upstream, err = newUpstream(*cfg.Upstream, base, &cfg.Limits, log); err != nil {
			return nil, fmt.Errorf("ldap: %w", err)
		}
		s.src = s.upstream
		return s, nil
	}
	if s.src, err = newPeopleSource(s); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) nextSession() string { return fmt.Sprintf("%08x", s.session.Add(1)) }

// Serve accepts connections until the listener is closed or [Server.Shutdown] is called, and closes the listener. Every other
// failure to accept is waited out. After Shutdown the error is nil.
func (s *Server) Serve(ln net.Listener) error { return s.conns.Serve(ln) }

// Shutdown stops accepting, lets every operation that is under way finish, and closes; a client whose next request has arrived is sent a
// Notice of Disconnection. When the context ends first, the operations are cancelled, the connections closed, and its error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.upstream != nil {
		defer s.upstream.close()
	}
	return s.conns.Shutdown(ctx)
}

// Stats are counts since the start, but for Connections, which is now.
type Stats struct {
	Connections int   `json:"connections"`
	Accepted    int64 `json:"accepted"`
	Refused     int64 `json:"refused"` // too many
	Yielded     int64 `json:"yielded"` // closed to make room, as nobody had logged in
	Requests    int64 `json:"requests"`
	Broken      int64 `json:"broken"` // ended by a notice of disconnection because of an undecodable PDU
	Panics      int64 `json:"panics"`

	HandshakesFailed int64 `json:"handshakes_failed"` // of TLS
	HandshakesCut    int64 `json:"handshakes_cut"`    // of those, for there were too many

	BindsAccepted  int64 `json:"binds_accepted"` // anonymous ones too
	BindsRejected  int64 `json:"binds_rejected"` // result code 49
	BindsUndecided int64 `json:"binds_undecided"`
	BindsRefused   int64 `json:"binds_refused"` // not attempts at all: no password, other method, no TLS
	Undecided      int64 `json:"undecided"`     // searches and compares that found the directory broken
}

type counters struct {
	requests, broken, panics                       atomic.Int64
	handshakesFailed, handshakesCut                atomic.Int64
	bindOK, bindRejected, bindUndecided, bindOther atomic.Int64
	undecided                                      atomic.Int64
}

func (n *counters) countBind(code resultCode) {
	switch code {
	case success:
		n.bindOK.Add(1)
	case invalidCredentials:
		n.bindRejected.Add(1)
	case other:
		n.bindUndecided.Add(1)
	default:
		n.bindOther.Add(1)
	}
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	n, conns := &s.stats, s.conns.Counts()
	return Stats{
		Connections: conns.Open, Accepted: conns.Accepted, Refused: conns.Refused, Yielded: conns.Yielded, Requests: n.requests.Load(),
		Broken: n.broken.Load(), Panics: n.panics.Load(),
		HandshakesFailed: n.handshakesFailed.Load(), HandshakesCut: n.handshakesCut.Load(),
		BindsAccepted: n.bindOK.Load(), BindsRejected: n.bindRejected.Load(), BindsUndecided: n.bindUndecided.Load(),
		BindsRefused: n.bindOther.Load(), Undecided: n.undecided.Load(),
	}
}
