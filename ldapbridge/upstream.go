package ldapbridge

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge/internal/ber"
)

// Upstream is an existing directory that the entries come from, searched as a service account. It is never asked about a
// password: a bind of a user stays here, and what the upstream knows is only who the bind name means. Nothing is copied.
//
// Whoever may write the login attribute of an entry decides whose app passwords open it. It must be one that users cannot
// edit.
type Upstream struct {
	// URLs are the servers, ldap://HOST:PORT or ldaps://HOST:PORT, all with the same entries. The first that answers is used.
	URLs []string
	// StartTLS protects ldap:// links. CAs are who may sign the certificates; nil: those of the system.
	StartTLS bool
	CAs      *x509.CertPool
	// BindDN and Password are those of the service account. Password is secret.
	BindDN, Password string

	// Kind has the defaults of what follows: "openldap", "389ds" or "ad". Empty: "openldap".
	Kind string
	// Bases are the subtrees that are looked at, all within Config.BaseDN. Empty: all of that.
	Bases []string
	// UserFilter tells the entries of users that may log in; GroupFilter those of groups; ContainerFilter those of the nodes
	// above them. What none of them matches is not there. Text by RFC 4515.
	UserFilter, GroupFilter, ContainerFilter string
	// LoginAttribute holds the one login of a user.
	LoginAttribute string
	// GroupAttribute names a group.
	GroupAttribute string
	// Attributes that may be seen; empty: all. Hidden ones are not seen in any case, nor those that hold passwords.
	Attributes, Hidden []string

	Limits UpstreamLimits
}

// upstreamKind is what sort of directory an upstream is.
type upstreamKind struct {
	user, group, container string // filters
	login                  string
	chain                  bool // knows the matching rule for members of members
}

const (
	filterContainers = "(|(objectClass=organizationalUnit)(objectClass=organization)(objectClass=dcObject)(objectClass=domain)(objectClass=container))"
	ruleInChain      = "1.2.840.113556.1.4.1941"
)

var upstreamKinds = map[string]upstreamKind{
	"openldap": {
		user:  "(|(objectClass=person)(objectClass=inetOrgPerson)(objectClass=posixAccount))",
		group: "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup))",
		login: "uid", container: filterContainers,
	},
	"389ds": { // an inactive account keeps its entry
		user:  "(&(|(objectClass=person)(objectClass=inetOrgPerson)(objectClass=posixAccount))(!(nsAccountLock=true)))",
		group: "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup))",
		login: "uid", container: filterContainers,
	},
	"ad": { // bit 2 of userAccountControl: ACCOUNTDISABLE
		user:  "(&(objectCategory=person)(objectClass=user)(!(userAccountControl:1.2.840.113556.1.4.803:=2)))",
		group: "(objectClass=group)",
		login: "sAMAccountName", container: "(|(objectClass=organizationalUnit)(objectClass=domainDNS)(objectClass=container))",
		chain: true,
	},
}

// upstream is the [source] of [Upstream].
//
// It keeps no entries, not for a second: what was deleted or disabled upstream is gone with the next request. A bind costs
// two reads of one entry over a connection that is open, far less than the peers' own caches save.
type upstream struct {
	pool  *upstreamPool
	root  *dn
	bases []*dn
	names Limits // of the names that an upstream may have
	log   *slog.Logger

	user, group, container string // filters
	visible                string // any of them
	login, groupName       string // attributes
	chain                  bool
	allowed                map[string]bool // lower case; nil: all
	hidden                 map[string]bool
}

// maxUpstreamName bounds the names of an upstream, in bytes: those of others are longer than ours.
const maxUpstreamName = 8 << 10

// newUpstream checks the settings. It does not connect.
func newUpstream(c Upstream, root *dn, l *Limits, log *slog.Logger) (*upstream, error) {
	if err := c.Limits.setDefaults(); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	kind, ok := upstreamKinds[cmp.Or(c.Kind, "openldap")]
	if !ok {
		return nil, fmt.Errorf(`upstream: kind %q is not "openldap", "389ds" or "ad"`, c.Kind)
	}
	u := &upstream{root: root, names: *l, log: log, login: cmp.Or(c.LoginAttribute, kind.login), groupName: cmp.Or(c.GroupAttribute, "cn"), chain: kind.chain}
	u.names.DN, u.names.RDNs = maxUpstreamName, maxAVAs
	if len(c.URLs) == 0 {
		return nil, errors.New("upstream: urls: no URL")
	}
	var urls []*upstreamURL
	for _, text := range c.URLs {
		x, err := parseUpstreamURL(text, c.StartTLS)
		if err != nil {
			return nil, fmt.Errorf("upstream: %w", err)
		}
		urls = append(urls, x)
	}
	if c.BindDN == "" || c.Password == "" {
		return nil, errors.New("upstream: the service account needs a bind DN and a password")
	}
	for _, name := range []*string{&u.login, &u.groupName} {
		if !validDescription([]byte(*name)) || secretUpstream(strings.ToLower(*name)) {
			return nil, fmt.Errorf("upstream: %q is not an attribute that can hold a name", *name)
		}
	}
	if err := u.setFilters(&c, &kind); err != nil {
		return nil, err
	}
	if err := u.setBases(c.Bases, l); err != nil {
		return nil, err
	}
	if len(c.Attributes) > 0 {
		u.allowed = lowerSet(c.Attributes)
		for _, needed := range []string{"objectclass", strings.ToLower(u.login), strings.ToLower(u.groupName)} {
			u.allowed[needed] = true
		}
	}
	u.hidden = lowerSet(c.Hidden)
	u.pool = newUpstreamPool(urls, &tls.Config{RootCAs: c.CAs, MinVersion: tls.VersionTLS12}, c.BindDN, c.Password, c.Limits, log)
	return u, nil
}

func (u *upstream) setFilters(c *Upstream, kind *upstreamKind) error {
	for _, f := range []struct {
		to       *string
		name     string
		text     string
		fallback string
	}{
		{&u.user, "user_filter", c.UserFilter, kind.user},
		{&u.group, "group_filter", c.GroupFilter, kind.group},
		{&u.container, "container_filter", c.ContainerFilter, kind.container},
	} {
		text, err := filterText(cmp.Or(f.text, f.fallback))
		if err != nil {
			return fmt.Errorf("upstream: %s %q: %w", f.name, f.text, err)
		}
		*f.to = text
	}
	u.visible = "(|" + u.user + u.group + u.container + ")"
	return nil
}

func (u *upstream) setBases(texts []string, l *Limits) error {
	for _, text := range texts {
		d, err := parseDN(text, l)
		if err != nil || !d.endsWith(u.root) {
			return fmt.Errorf("upstream: bases: %q is not a name within %q", text, u.root)
		}
		u.bases = append(u.bases, d)
	}
	if len(u.bases) == 0 {
		u.bases = []*dn{u.root}
	}
	// One within another says nothing new.
	all := u.bases
	u.bases = nil
	for i, d := range all {
		within := slices.ContainsFunc(all[:i], d.endsWith)
		for _, later := range all[i+1:] {
			within = within || d.endsWith(later) && !d.equal(later)
		}
		if !within {
			u.bases = append(u.bases, d)
		}
	}
	return nil
}

func lowerSet(names []string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[strings.ToLower(n)] = true
	}
	return set
}

// close ends the connections.
func (u *upstream) close() { u.pool.close() }

// within says whether the name lies in one of the bases, and whether it is one.
func (u *upstream) within(name *dn) (inside, isBase bool) {
	for _, b := range u.bases {
		if name.endsWith(b) {
			return true, name.rdns() == b.rdns()
		}
	}
	return false, false
}

// resolve implements [source]: the bind name must be the name of a user's entry, which has exactly one login.
func (u *upstream) resolve(ctx context.Context, name *dn) (subject, error) {
	if inside, _ := u.within(name); !inside {
		return subject{}, errNoEntry
	}
	found, err := u.read(ctx, name, u.user, []string{u.login})
	if err != nil && !errors.Is(err, errNoEntry) {
		return subject{}, err
	}
	// Also where there is such a user, so that a stranger cannot tell by the clock.
	if err := u.readBaseOf(ctx, name); err != nil {
		return subject{}, err
	}
	if found == nil {
		return subject{}, errNobody
	}
	login, err := u.loginOf(found)
	if err != nil {
		u.log.LogAttrs(ctx, slog.LevelWarn, "ldap: an entry of the upstream has no usable login",
			slog.String("attribute", u.login), slog.Any("err", err), auth.Quoted("dn", clip([]byte(found.name))))
		return subject{}, errNobody
	}
	return subject{login: login, name: found.dn}, nil
}

// loginOf returns the login of a user's entry, normalised.
func (u *upstream) loginOf(e *entry) (string, error) {
	_, values := e.find([]byte(u.login))
	if len(values) != 1 {
		return "", fmt.Errorf("%d values, want one", len(values))
	}
	return auth.NormaliseLogin(values[0])
}

// Canonical returns the login under which an account of the upstream is kept, if exactly one user there has this login.
// [auth.ErrNoAccount]: none has, or there is no upstream; [auth.ErrAmbiguous]: several have. Every other error means that it is not known.
func (s *Server) Canonical(ctx context.Context, login string) (string, error) {
	if s.upstream == nil {
		return "", auth.ErrNoAccount
	}
	return s.upstream.canonical(ctx, login)
}

// canonical returns the login under which an account is kept, if exactly one user of the upstream has this login.
// [auth.ErrNoAccount]: none has. Every other error means that it is not known.
func (u *upstream) canonical(ctx context.Context, login string) (string, error) {
	key, err := auth.NormaliseLogin(login)
	if err != nil {
		return "", auth.ErrNoAccount
	}
	if _, err := u.userNamed(ctx, key); err != nil {
		return "", err
	}
	return key, nil
}

// userNamed finds the one user with this normalised login. [auth.ErrNoAccount]: there is none; [auth.ErrAmbiguous]: there are several.
func (u *upstream) userNamed(ctx context.Context, login string) (*entry, error) {
	is := forwarded{op: filterEqual, attr: u.login, value: []byte(login)}
	found, err := u.find(ctx, both(u.user, string(is.append(nil))), []string{u.login}, 2)
	if err != nil {
		return nil, err
	}
	// The upstream may compare more generously than we do.
	found = slices.DeleteFunc(found, func(e *entry) bool {
		have, err := u.loginOf(e)
		return err != nil || have != login
	})
	switch len(found) {
	case 0:
		return nil, auth.ErrNoAccount
	case 1:
		return found[0], nil
	}
	return nil, auth.ErrAmbiguous
}

// member implements [source]. The group must be the only one of its name: one that somebody made elsewhere in the tree opens
// nothing.
func (u *upstream) member(ctx context.Context, group, login string) (bool, error) {
	user, err := u.userNamed(ctx, login)
	if errors.Is(err, auth.ErrNoAccount) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found, err := u.groupNamed(ctx, group)
	if err != nil || found == nil {
		return false, err
	}
	_, err = u.read(ctx, found.dn, u.hasMember(user.name, login), []string{"1.1"})
	if errors.Is(err, errNoEntry) {
		return false, nil
	}
	return err == nil, err
}

// groupNamed finds the one group of this name, nil if there is none.
func (u *upstream) groupNamed(ctx context.Context, name string) (*entry, error) {
	named := forwarded{op: filterEqual, attr: u.groupName, value: []byte(name)}
	groups, err := u.find(ctx, both(u.group, string(named.append(nil))), []string{u.groupName}, 2)
	switch {
	case err != nil:
		return nil, err
	case len(groups) == 0:
		return nil, nil
	case len(groups) > 1:
		return nil, fmt.Errorf("several groups of the upstream are named %q", name)
	}
	return groups[0], nil
}

// hasGroup implements [source].
func (u *upstream) hasGroup(ctx context.Context, name string) (bool, error) {
	g, err := u.groupNamed(ctx, name)
	return g != nil, err
}

// hasMember is a filter for groups that have this member.
func (u *upstream) hasMember(name, login string) string {
	dn, uid := ldap.EscapeFilter(name), ldap.EscapeFilter(login)
	if u.chain {
		return "(member:" + ruleInChain + ":=" + dn + ")"
	}
	return "(|(member=" + dn + ")(uniqueMember=" + dn + ")(memberUid=" + uid + "))"
}

// read reads one entry. errNoEntry: there is none of this name for which the filter is true.
func (u *upstream) read(ctx context.Context, name *dn, filter string, attrs []string) (*entry, error) {
	var page upstreamPage
	err := u.pool.do(ctx, false, func(c *upstreamConn) (err error) {
		b := u.pool.single(1)
		page, err = c.search(ctx, request(ctx, name, ldap.ScopeBaseObject, filter, attrs), &b)
		if err == nil && len(page.entries) == 1 {
			err = u.completeRanges(ctx, c, page.entries[0], nil)
		}
		return err
	})
	switch {
	case errors.Is(err, errUpstreamName):
		return nil, errNoEntry
	case err != nil:
		return nil, err
	case page.code == timeLimitExceeded || page.code == sizeLimitExceeded:
		return nil, fmt.Errorf("the upstream answers the read of one entry with result code %d", page.code)
	case len(page.entries) == 0:
		return nil, errNoEntry
	}
	e, err := u.convert(page.entries[0], true)
	if err != nil {
		return nil, err
	}
	if !e.dn.equal(name) { // an alias, or nonsense: it is not the entry that was asked for
		return nil, errNoEntry
	}
	return e, nil
}

// errUpstreamEmpty: a directory that has lost its tree, such as a replica before its first load, knows nobody. That is an outage.
var errUpstreamEmpty = errors.New("the upstream has no entry of a base, or the service account may not see it")

// readUser reads the entry of a user. That there is none is believed of a directory only that has the base above it.
func (u *upstream) readUser(ctx context.Context, name *dn, attrs []string) (*entry, error) {
	e, err := u.read(ctx, name, u.user, attrs)
	if !errors.Is(err, errNoEntry) {
		return e, err
	}
	if err := u.readBaseOf(ctx, name); err != nil {
		return nil, err
	}
	return nil, errNoEntry
}

// readBaseOf makes sure that the directory has the base that the name lies in.
func (u *upstream) readBaseOf(ctx context.Context, name *dn) error {
	for _, b := range u.bases {
		if name.endsWith(b) {
			if _, err := u.readBase(ctx, b, []string{"1.1"}); err != nil {
				return err
			}
		}
	}
	return nil
}

// readBase reads the entry of a base, whatever it is: it must be there.
func (u *upstream) readBase(ctx context.Context, base *dn, attrs []string) (*entry, error) {
	e, err := u.read(ctx, base, "(objectClass=*)", attrs)
	if errors.Is(err, errNoEntry) {
		return nil, fmt.Errorf("%w: %q", errUpstreamEmpty, base)
	}
	return e, err
}

// find reads the entries of all bases for which the filter is true; more than limit are of no interest.
func (u *upstream) find(ctx context.Context, filter string, attrs []string, limit int) ([]*entry, error) {
	var all []*entry
	for _, base := range u.bases {
		var page upstreamPage
		err := u.pool.do(ctx, false, func(c *upstreamConn) (err error) {
			req := request(ctx, base, ldap.ScopeWholeSubtree, filter, attrs)
			req.SizeLimit = limit
			b := u.pool.single(limit)
			page, err = c.search(ctx, req, &b)
			return err
		})
		if err != nil {
			return nil, err
		}
		// Too many are as good as all of them, but only if they came.
		if page.code == timeLimitExceeded || page.code == sizeLimitExceeded && len(page.entries) < limit {
			return nil, fmt.Errorf("the upstream answers a search with result code %d", page.code)
		}
		if page.code == noSuchObject {
			return nil, fmt.Errorf("%w: %q", errUpstreamEmpty, base)
		}
		for _, x := range page.entries {
			e, err := u.convert(x, true)
			if err != nil {
				return nil, err
			}
			if e.dn.endsWith(base) {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// request makes a search request.
func request(ctx context.Context, base *dn, scope int, filter string, attrs []string) *ldap.SearchRequest {
	req := &ldap.SearchRequest{BaseDN: base.String(), Scope: scope, Filter: filter, Attributes: attrs}
	if deadline, ok := ctx.Deadline(); ok {
		req.TimeLimit = max(1, int(time.Until(deadline)/time.Second)+1)
	}
	return req
}

// entry implements [source].
func (u *upstream) entry(ctx context.Context, q *query, name *dn) (*entry, error) {
	inside, isBase := u.within(name)
	if !inside {
		if u.above(name) {
			return containerEntry(name), nil
		}
		return nil, errNoEntry
	}
	// The filter of the query is for the engine to apply: here it would make what does not match look like what is missing.
	look := u.wanted(q, nil)
	if q.filter != nil {
		translated := u.forwarder(q).filter(q.filter)
		look = u.wanted(q, &translated)
	}
	v, err := u.viewed(ctx, q, look)
	if err != nil {
		return nil, err
	}
	switch {
	case v.own != nil && v.own.dn.equal(name):
		return v.own, nil
	case isBase:
		e, err := u.readBase(ctx, name, look)
		if err != nil {
			return nil, err
		}
		e.kind = kindContainer
		return e, nil
	}
	e, err := u.read(ctx, name, v.filter, look)
	if err != nil {
		return nil, err
	}
	if !v.shows(u, e) {
		return nil, errNoEntry
	}
	e.markOperational(q.sel)
	return e, nil
}

// view is what a viewer may see.
type view struct {
	filter string
	own    *entry // of a person, who sees it beside what the filter finds
	login  string // of a person
}

// viewed says what the viewer of a query may see. A person whose entry is gone sees nothing any more: errNoEntry.
func (u *upstream) viewed(ctx context.Context, q *query, attrs []string) (v view, err error) {
	if q.viewer.reader {
		return view{filter: u.visible}, nil
	}
	if q.viewer.name == nil {
		return v, errNoEntry
	}
	v.login = q.viewer.login
	if v.own, err = u.readUser(ctx, q.viewer.name, attrs); err != nil {
		return v, err
	}
	uid, err := u.loginOf(v.own)
	if err != nil {
		return v, errNoEntry
	}
	v.own.kind, v.own.logins = kindPerson, []string{v.login}
	v.own.markOperational(q.sel)
	v.filter = "(|(&" + u.group + u.hasMember(v.own.name, uid) + ")(&" + u.container + "(!" + u.user + ")(!" + u.group + ")))"
	return v, nil
}

// shows marks an entry that the filter of the view found. False is for an upstream that does not do as the filter says: another
// person's entry is never shown to a person.
func (v *view) shows(u *upstream, e *entry) bool {
	if v.login == "" {
		e.kind = kindGroup // readers see every kind
		return true
	}
	if _, logins := e.find([]byte(u.login)); len(logins) > 0 {
		return false
	}
	e.kind, e.logins = kindGroup, []string{v.login}
	return true
}

// above says whether the name is that of a node between the suffix and a base.
func (u *upstream) above(name *dn) bool {
	return slices.ContainsFunc(u.bases, func(b *dn) bool { return b.endsWith(name) && b.rdns() > name.rdns() }) && name.endsWith(u.root)
}

// forwarder translates the filters of this query.
func (u *upstream) forwarder(q *query) *forwarder {
	return &forwarder{readable: u.readable, dn: func(value []byte) ([]byte, bool) {
		var d dn
		if d.parse(value, &u.names) != nil {
			return nil, false
		}
		plain, ok := q.plain(&d)
		if !ok {
			return nil, false
		}
		return plain.append(nil), true
	}}
}

// wanted lists the attributes to ask for: what the client selected, what the filter looks at, and what tells whether the
// client may see the entry.
func (u *upstream) wanted(q *query, filter *forwarded) []string {
	list := []string{"objectClass", u.login, "member", "uniqueMember", "memberUid"}
	if q.sel == nil || q.sel.user {
		list = append(list, "*", "memberOf")
	}
	if q.sel == nil || q.sel.operational {
		list = append(list, "+")
	}
	add := func(name string) {
		if u.readable(strings.ToLower(name)) && !slices.ContainsFunc(list, func(have string) bool { return strings.EqualFold(have, name) }) {
			list = append(list, name)
		}
	}
	if q.sel != nil {
		for r := ber.NewReader(q.sel.names); !r.Empty(); {
			_, description, err := r.Next()
			if err != nil {
				break
			}
			name, _, _ := strings.Cut(string(description), ";")
			if t := lookupType([]byte(name)); t != nil {
				name = t.name
			}
			if validDescription([]byte(name)) && name != "dn" {
				add(name)
			}
		}
	}
	if filter != nil {
		filter.attributes(add)
	}
	return list
}

// attributes calls f with the name of every attribute that the filter looks at.
func (f *forwarded) attributes(each func(string)) {
	if f.attr != "" {
		each(f.attr)
	}
	for i := range f.parts {
		f.parts[i].attributes(each)
	}
}

// markOperational makes those of the attributes that we do not know operational if nothing but operational ones was asked for
// without a name: an upstream does not say which are.
func (e *entry) markOperational(sel *selection) {
	if sel == nil || !sel.operational || sel.user {
		return
	}
	for i := range e.attrs {
		if t := e.attrs[i].typ; lookupType([]byte(t.name)) != t {
			t.operational = true
		}
	}
}
