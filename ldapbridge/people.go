package ldapbridge

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/valetkey/valetkey/internal/auth"
)

// peopleSource is the [source] of our own store: the containers, the people, the groups, in this order, people and groups by name.
// People stand first since some programs take the first entry that matches.
type peopleSource struct {
	srv        *Server
	dir        Directory
	containers []*entry // from the suffix down, in the order of a search
}

// The rows that are read at a time. The next ones are read when the client took these.
const (
	firstPage  = 32 // most searches want one entry
	peoplePage = 500
	groupPage  = 10 // each with all its members, of whom there may be thousands

	maxFound = 5000 // people that are found by keys: those beyond are looked for one after another
)

func newPeopleSource(s *Server) (*peopleSource, error) {
	p := &peopleSource{srv: s, dir: s.dir}
	for _, leaf := range []*dn{s.groups, s.people} {
		for i := leaf.rdns() - s.base.rdns(); i >= 0; i-- {
			if d := leaf.above(i); !slices.ContainsFunc(p.containers, func(e *entry) bool { return e.dn.equal(d) }) {
				p.containers = append(p.containers, containerEntry(d))
			}
		}
	}
	if s.people.equal(s.groups) || s.people.endsWith(s.readers) || s.groups.endsWith(s.readers) || s.readers.endsWith(s.people) || s.readers.endsWith(s.groups) {
		return nil, errors.New("ldap: people, groups and readers must be below different names")
	}
	return p, nil
}

// call bounds one look into the directory.
func (p *peopleSource) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.srv.cfg.Limits.Decision)
}

func (p *peopleSource) resolve(_ context.Context, name *dn) (subject, error) {
	if !name.isBelow(p.srv.people, scopeOne) {
		return subject{}, errNoEntry
	}
	login, ok := nameIn(name.rdn(0), p.srv.rdnType)
	if !ok {
		return subject{}, errBadName
	}
	return subject{login: login}, nil
}

func (p *peopleSource) member(ctx context.Context, group, login string) (bool, error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	acct, err := p.dir.Entry(ctx, login)
	switch {
	case errors.Is(err, auth.ErrNoAccount):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the groups: %w", err)
	}
	return acct.Login == login && slices.Contains(acct.Groups, group), nil
}

func (p *peopleSource) hasGroup(ctx context.Context, name string) (bool, error) {
	groups, err := p.findGroups(ctx, auth.GroupKey{Name: name})
	return len(groups) > 0, err
}

func (p *peopleSource) entry(ctx context.Context, q *query, name *dn) (*entry, error) {
	for _, e := range p.containers {
		if name.equal(e.dn) {
			return e, nil
		}
	}
	if login, ok := p.loginIn(name); ok {
		return p.person(ctx, q, login)
	}
	group, ok := p.groupName(name)
	if !ok {
		return nil, errNoEntry
	}
	// Before anybody but a reader is told of a group, the own account must say that it is one of the own, for the same reason as in
	// person.
	if !q.viewer.reader {
		acct, err := p.account(ctx, q.viewer.login)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(acct.Groups, group) {
			return nil, errNoEntry
		}
	}
	groups, err := p.findGroups(ctx, auth.GroupKey{Name: group})
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 {
		return nil, errNoEntry
	}
	return p.srv.groupEntry(q, &groups[0]), nil
}

func (p *peopleSource) findGroups(ctx context.Context, keys ...auth.GroupKey) ([]auth.Group, error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	return p.dir.FindGroups(ctx, keys, len(keys))
}

func (p *peopleSource) findAccounts(ctx context.Context, keys []auth.AccountKey, limit int, parts auth.Parts) ([]auth.Account, error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	return p.dir.FindAccounts(ctx, keys, limit, parts)
}

// person reads the entry of the account that goes by this login. For anybody but a reader it reads the own account, whatever the
// login is: how long that takes says nothing of others.
func (p *peopleSource) person(ctx context.Context, q *query, login string) (*entry, error) {
	ask := login
	if !q.viewer.reader {
		ask = q.viewer.login
	}
	acct, err := p.account(ctx, ask)
	if err != nil {
		return nil, err
	}
	if acct.Login != login && !slices.Contains(acct.Aliases, login) {
		return nil, errNoEntry
	}
	return p.srv.personEntry(acct), nil
}

// account reads a person's account.
func (p *peopleSource) account(ctx context.Context, login string) (*auth.Account, error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	acct, err := p.dir.Entry(ctx, login)
	switch {
	case errors.Is(err, auth.ErrNoAccount):
		return nil, errNoEntry
	case err != nil:
		return nil, err
	case !listed(&acct):
		return nil, errNoEntry
	}
	return &acct, nil
}

// listed says whether an account has an entry. One that is disabled has none: programs that copy people from here shall see
// them go.
func listed(a *auth.Account) bool { return a.Enabled && a.Kind == auth.Person }

// Positions: what is listed, and the name of the last one.
const (
	atContainers = 'a'
	atPeople     = 'b'
	atGroups     = 'c'
)

func (p *peopleSource) search(ctx context.Context, q *query, yield func(e *entry, position string) bool) error {
	stage, after := byte(atContainers), "" // names are never empty
	if q.after != "" {
		stage, after = q.after[0], q.after[1:]
	}
	if stage <= atContainers {
		for i, e := range p.containers {
			if !e.dn.isBelow(q.base, q.scope) {
				continue
			}
			if position := fmt.Sprintf("%c%03d", atContainers, i); position > q.after && !yield(e, position) {
				return nil
			}
		}
		after = ""
	}
	if stage <= atPeople && p.reaches(q, p.srv.people) {
		if more, err := p.searchPeople(ctx, q, after, yield); err != nil || !more {
			return err
		}
	}
	if stage < atGroups {
		after = ""
	}
	if p.reaches(q, p.srv.groups) {
		_, err := p.searchGroups(ctx, q, after, yield)
		return err
	}
	return nil
}

// reaches says whether what is directly below the container is in the scope.
func (p *peopleSource) reaches(q *query, container *dn) bool {
	if q.scope == scopeOne {
		return container.equal(q.base)
	}
	return container.endsWith(q.base)
}

func (p *peopleSource) searchPeople(ctx context.Context, q *query, after string, yield func(e *entry, position string) bool) (more bool, err error) {
	give := func(a *auth.Account) bool {
		return a.Login <= after || !listed(a) || yield(p.srv.personEntry(a), string(atPeople)+a.Login)
	}
	var parts auth.Parts // an entry shows neither aliases nor userdb fields
	if q.wants(typeMemberOf) {
		parts = auth.PartGroups
	}
	list := func(ctx context.Context, after string, limit int) ([]auth.Account, error) {
		return p.dir.Accounts(ctx, after, limit, parts)
	}
	plan := p.personPlanner(q).filter(q.filter)
	switch {
	case plan.bounded && len(plan.keys) == 0:
		return true, nil
	case !q.viewer.reader:
		acct, err := p.account(ctx, q.viewer.login)
		if errors.Is(err, errNoEntry) {
			return true, nil
		}
		return err == nil && give(acct), err
	case !plan.bounded:
		return scan(ctx, p, after, peoplePage, q.limit, list, accountName, give)
	}
	for limit := firstPage; ; limit = maxFound {
		found, err := p.findAccounts(ctx, plan.keys, limit, parts)
		if err != nil {
			return false, err
		}
		if len(found) >= limit && limit < maxFound {
			continue
		}
		for i := range found {
			if !give(&found[i]) {
				return false, nil
			}
		}
		if len(found) < limit {
			return true, nil
		}
		after = max(after, found[len(found)-1].Login)
		return scan(ctx, p, after, peoplePage, 0, list, accountName, give)
	}
}

func (p *peopleSource) searchGroups(ctx context.Context, q *query, after string, yield func(e *entry, position string) bool) (more bool, err error) {
	give := func(g *auth.Group) bool {
		return g.Name <= after || yield(p.srv.groupEntry(q, g), string(atGroups)+g.Name)
	}
	plan := p.groupPlanner(q).filter(q.filter)
	switch {
	case plan.bounded && len(plan.keys) == 0:
		return true, nil
	case !q.viewer.reader:
		plan.keys = []auth.GroupKey{{Member: q.viewer.login}}
	case !plan.bounded:
		return scan(ctx, p, after, groupPage, q.limit, p.dir.Groups, groupName, give)
	}
	names, err := p.groupNames(ctx, plan.keys)
	if err != nil {
		return false, err
	}
	var keys [groupPage]auth.GroupKey
	for some := range slices.Chunk(names, groupPage) {
		n := 0
		for _, name := range some {
			if name > after {
				keys[n] = auth.GroupKey{Name: name}
				n++
			}
		}
		if n == 0 {
			continue
		}
		groups, err := p.findGroups(ctx, keys[:n]...)
		if err != nil {
			return false, err
		}
		for i := range groups {
			if !give(&groups[i]) {
				return false, nil
			}
		}
	}
	return true, nil
}

// groupNames returns the names of the groups that the keys select, sorted. It holds no more than a few groups at a time.
func (p *peopleSource) groupNames(ctx context.Context, keys []auth.GroupKey) (names []string, err error) {
	var members []auth.AccountKey
	for _, k := range keys {
		switch {
		case k.Name != "":
			names = append(names, k.Name)
		case k.Member != "":
			members = append(members, auth.AccountKey{Login: k.Member})
		default:
			groups, err := p.findGroups(ctx, k)
			if err != nil {
				return nil, err
			}
			for i := range groups {
				names = append(names, groups[i].Name)
			}
		}
	}
	if len(members) > 0 {
		found, err := p.findAccounts(ctx, members, len(members), auth.PartGroups)
		if err != nil {
			return nil, err
		}
		for i := range found {
			if listed(&found[i]) {
				names = append(names, found[i].Groups...)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func accountName(a *auth.Account) string { return a.Login }
func groupName(g *auth.Group) string     { return g.Name }

// scan reads rows one after another by name and gives them. It returns false when give wanted no more. wanted is how many of them
// will be taken, or 0.
func scan[R any](ctx context.Context, p *peopleSource, after string, page, wanted int, list func(ctx context.Context, after string, limit int) ([]R, error),
	name func(*R) string, give func(*R) bool) (more bool, err error) {

	size := page
	if wanted > 0 {
		size = min(page, max(firstPage, wanted))
	}
	for {
		if ctx.Err() != nil {
			return false, fmt.Errorf("%w: %w", errTimeLimit, ctx.Err())
		}
		rows, err := func() ([]R, error) {
			ctx, cancel := p.call(ctx)
			defer cancel()
			return list(ctx, after, size)
		}()
		if err != nil {
			return false, err
		}
		for i := range rows {
			if !give(&rows[i]) {
				return false, nil
			}
		}
		if len(rows) < size {
			return true, nil
		}
		after = name(&rows[len(rows)-1])
		size = page
	}
}
