package admin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// memory is a Store in memory, for the tests of this package: the real one's behaviour is tested in package store, and both
// together in test/scenario.
type memory struct {
	mu       sync.Mutex
	accounts []auth.Account
	groups   []auth.Group
	changes  []auth.AccountChange
	edits    []auth.AppPasswordChange
	filters  []auth.AppPasswordFilter
	rows     []row
	raceTag  int   // how often AddAppPassword says that the tag was taken meanwhile
	err      error // of every call, if set
	by       []string
	history  history
	imports  []auth.Import
	targets  []auth.NoticeTarget
	tests    []auth.NoticeTest
	imported map[string]bool // import keys
}

type row struct {
	auth.AppPassword
	key string
	tag auth.Tag
	phc string
}

func (m *memory) enter(by string) func() {
	m.mu.Lock()
	m.by = append(m.by, by)
	return m.mu.Unlock
}

func (m *memory) find(login string) (*auth.Account, error) {
	if m.err != nil {
		return nil, m.err
	}
	for i := range m.accounts {
		if a := &m.accounts[i]; a.Login == login || slices.Contains(a.Aliases, login) {
			return a, nil
		}
	}
	return nil, auth.ErrNoAccount
}

func (m *memory) AddAccount(_ context.Context, n auth.NewAccount, by string) (auth.Account, error) {
	defer m.enter(by)()
	for _, l := range append([]string{n.Login}, n.Aliases...) {
		if _, err := m.find(l); err == nil {
			return auth.Account{}, auth.ErrLoginTaken
		}
	}
	if m.err != nil {
		return auth.Account{}, m.err
	}
	a := auth.Account{ID: int64(len(m.accounts) + 1), Kind: n.Kind, Login: n.Login, Aliases: n.Aliases, DisplayName: n.DisplayName,
		Enabled: true, Attributes: n.Attributes, Userdb: n.Userdb}
	m.accounts = append(m.accounts, a)
	return a, nil
}

func (m *memory) Account(_ context.Context, login string) (auth.Account, error) {
	defer m.enter("")()
	a, err := m.find(login)
	if err != nil {
		return auth.Account{}, err
	}
	return *a, nil
}

func (m *memory) Accounts(_ context.Context, kind auth.Kind, after string, limit int) ([]auth.Account, error) {
	defer m.enter("")()
	var out []auth.Account
	for _, a := range slices.SortedFunc(slices.Values(m.accounts), func(a, b auth.Account) int { return cmp.Compare(a.Login, b.Login) }) {
		if a.Kind == kind && a.Login > after && len(out) < limit {
			out = append(out, a)
		}
	}
	return out, m.err
}

func (m *memory) ChangeAccount(_ context.Context, login string, c auth.AccountChange, by string) (auth.Account, error) {
	defer m.enter(by)()
	a, err := m.find(login)
	if err != nil {
		return auth.Account{}, err
	}
	m.changes = append(m.changes, c)
	if c.Enabled != nil {
		a.Enabled = *c.Enabled
	}
	if c.DisplayName != nil {
		a.DisplayName = *c.DisplayName
	}
	return *a, nil
}

func (m *memory) group(name string) (*auth.Group, error) {
	if m.err != nil {
		return nil, m.err
	}
	for i := range m.groups {
		if m.groups[i].Name == name {
			return &m.groups[i], nil
		}
	}
	return nil, auth.ErrNoGroup
}

func (m *memory) AddGroup(_ context.Context, n auth.NewGroup, by string) (auth.Group, error) {
	defer m.enter(by)()
	if _, err := m.group(n.Name); err == nil {
		return auth.Group{}, auth.ErrGroupTaken
	}
	g := auth.Group{Name: n.Name, DisplayName: n.DisplayName, Attributes: n.Attributes}
	m.groups = append(m.groups, g)
	return g, m.err
}

func (m *memory) Group(_ context.Context, name string) (auth.Group, error) {
	defer m.enter("")()
	g, err := m.group(name)
	if err != nil {
		return auth.Group{}, err
	}
	return *g, nil
}

func (m *memory) Groups(_ context.Context, after string, limit int) ([]auth.Group, error) {
	defer m.enter("")()
	var out []auth.Group
	for _, g := range slices.SortedFunc(slices.Values(m.groups), func(a, b auth.Group) int { return cmp.Compare(a.Name, b.Name) }) {
		if g.Name > after && len(out) < limit {
			out = append(out, g)
		}
	}
	return out, m.err
}

func (m *memory) ChangeGroup(_ context.Context, name string, c auth.GroupChange, by string) (auth.Group, error) {
	defer m.enter(by)()
	g, err := m.group(name)
	if err != nil {
		return auth.Group{}, err
	}
	for _, login := range append(slices.Clone(c.AddMembers), c.RemoveMembers...) {
		a, err := m.find(login)
		switch {
		case err != nil:
			return auth.Group{}, err
		case a.Kind == auth.Reader:
			return auth.Group{}, auth.ErrNotPerson
		}
	}
	g.Members = slices.DeleteFunc(append(g.Members, c.AddMembers...), func(l string) bool { return slices.Contains(c.RemoveMembers, l) })
	g.MemberCount = len(g.Members)
	if c.DisplayName != nil {
		g.DisplayName = *c.DisplayName
	}
	maps.Copy(g.Attributes, c.Attributes)
	return *g, nil
}

func (m *memory) DeleteGroup(_ context.Context, name, by string) error {
	defer m.enter(by)()
	if _, err := m.group(name); err != nil {
		return err
	}
	m.groups = slices.DeleteFunc(m.groups, func(g auth.Group) bool { return g.Name == name })
	return nil
}

func (m *memory) DeleteAccount(_ context.Context, login, by string) error {
	defer m.enter(by)()
	a, err := m.find(login)
	if err == nil {
		id := a.ID
		m.accounts = slices.DeleteFunc(m.accounts, func(a auth.Account) bool { return a.ID == id })
	}
	return err
}

func (m *memory) Tags(_ context.Context, login string) ([]auth.Tag, error) {
	defer m.enter("")()
	a, err := m.find(login)
	if err != nil {
		return nil, err
	}
	var out []auth.Tag
	for _, r := range m.rows {
		if r.AccountID == a.ID {
			out = append(out, r.tag)
		}
	}
	return out, nil
}

func (m *memory) AddAppPassword(_ context.Context, n auth.NewAppPassword) (auth.AppPassword, error) {
	defer m.enter(n.CreatedBy)()
	a, err := m.find(n.Login)
	if n.MakeAccount && errors.Is(err, auth.ErrNoAccount) {
		m.accounts = append(m.accounts, auth.Account{ID: int64(len(m.accounts) + 1), Login: n.Login, Enabled: true})
		a, err = m.find(n.Login)
	}
	if err != nil {
		return auth.AppPassword{}, err
	}
	if m.raceTag > 0 {
		m.raceTag--
		return auth.AppPassword{}, auth.ErrTagTaken
	}
	live := 0
	for _, r := range m.rows {
		if r.AccountID == a.ID && r.Live() {
			live++
			if r.key == n.LabelKey {
				return auth.AppPassword{}, auth.ErrLabelTaken
			}
		}
	}
	if live >= n.LimitPerAccount {
		return auth.AppPassword{}, auth.ErrLimit
	}
	p := auth.AppPassword{ID: int64(len(m.rows) + 1), AccountID: a.ID, Login: a.Login, Label: n.Label, Services: n.Services,
		Networks: n.Networks, Origin: n.Origin, CreatedBy: n.CreatedBy, ExpiresAt: n.ExpiresAt, ExpiresUnusedFor: n.ExpiresUnusedFor, ExemptWhy: n.ExemptWhy}
	if n.ExemptWhy != "" {
		p.ExemptAt, p.ExemptBy = time.Unix(2, 0), n.CreatedBy
	}
	m.rows = append(m.rows, row{p, n.LabelKey, *n.Tag, n.PHC})
	return p, nil
}

func (m *memory) AppPasswords(_ context.Context, login string, all bool) ([]auth.AppPassword, error) {
	defer m.enter("")()
	a, err := m.find(login)
	if err != nil {
		return nil, err
	}
	var out []auth.AppPassword
	for _, r := range m.rows {
		if r.AccountID == a.ID && (all || r.Live()) {
			out = append(out, r.AppPassword)
		}
	}
	return out, nil
}

func (m *memory) row(login, key string) (*row, error) {
	a, err := m.find(login)
	if err != nil {
		return nil, err
	}
	for i := range m.rows {
		if r := &m.rows[i]; r.AccountID == a.ID && r.key == key {
			return r, nil
		}
	}
	return nil, auth.ErrNoLabel
}

func (m *memory) ExemptAppPassword(_ context.Context, login, key, why, by string) (auth.AppPassword, error) {
	defer m.enter(by)()
	r, err := m.row(login, key)
	if err != nil {
		return auth.AppPassword{}, err
	}
	if r.ExemptAt, r.ExemptBy, r.ExemptWhy = time.Unix(2, 0), by, why; why == "" {
		r.ExemptAt, r.ExemptBy = time.Time{}, ""
	}
	return r.AppPassword, nil
}

func (m *memory) AppPassword(_ context.Context, login, key string) (auth.AppPassword, *auth.AppPassword, error) {
	defer m.enter("")()
	r, err := m.row(login, key)
	if err != nil {
		return auth.AppPassword{}, nil, err
	}
	return r.AppPassword, m.old(r), nil
}

func (m *memory) old(r *row) *auth.AppPassword {
	if r.Replaces == 0 {
		return nil
	}
	return &m.rows[r.Replaces-1].AppPassword
}

func (m *memory) ChangeAppPassword(_ context.Context, login, key string, c auth.AppPasswordChange, by string) (auth.AppPassword, error) {
	defer m.enter(by)()
	r, err := m.row(login, key)
	if err != nil {
		return auth.AppPassword{}, err
	}
	m.edits = append(m.edits, c)
	if c.Label != "" {
		r.Label, r.key = c.Label, c.LabelKey
	}
	if c.Services != nil {
		r.Services = *c.Services
	}
	return r.AppPassword, nil
}

func (m *memory) RotateAppPassword(_ context.Context, login, key string, n auth.Rotation) (auth.AppPassword, *auth.AppPassword, error) {
	defer m.enter(n.By)()
	r, err := m.row(login, key)
	if err != nil {
		return auth.AppPassword{}, nil, err
	}
	if m.raceTag > 0 {
		m.raceTag--
		return auth.AppPassword{}, nil, auth.ErrTagTaken
	}
	if n.Own && (r.CreatedBy != n.By || !r.ExemptAt.IsZero()) {
		return auth.AppPassword{}, nil, auth.ErrNotMade
	}
	now := *r
	now.CreatedBy = n.By
	now.ID, now.tag, now.phc, now.Replaces = int64(len(m.rows)+1), n.Tag, n.PHC, r.ID
	r.key, r.ReplacedAt, r.ExpiresAt = "", time.Unix(1, 0), n.KeepOldUntil
	m.rows = append(m.rows, now)
	return now.AppPassword, m.old(&now), nil
}

func (m *memory) FindAppPasswords(_ context.Context, f auth.AppPasswordFilter, order auth.Order, after string, limit int) (auth.AppPasswordPage, error) {
	defer m.enter("")()
	m.filters = append(m.filters, f)
	if after == "rubbish" {
		return auth.AppPasswordPage{}, auth.ErrBadCursor
	}
	return auth.AppPasswordPage{Next: string(order) + after, AsOf: time.Unix(7, 0)}, m.err
}

func (m *memory) RevokeAppPasswords(_ context.Context, f auth.AppPasswordFilter, after string, limit int, why, by string) (auth.AppPasswordPage, error) {
	defer m.enter(by)()
	m.filters = append(m.filters, f)
	return auth.AppPasswordPage{AsOf: time.Unix(7, 0)}, m.err
}

func (m *memory) RevokeAppPassword(_ context.Context, login, key, why, by string) (auth.AppPassword, error) {
	defer m.enter(by)()
	r, err := m.row(login, key)
	if err != nil {
		return auth.AppPassword{}, err
	}
	if r.RevokedAt.IsZero() {
		r.RevokedAt, r.RevokedBy, r.RevokedWhy = time.Unix(1, 0), by, why
	}
	return r.AppPassword, nil
}
