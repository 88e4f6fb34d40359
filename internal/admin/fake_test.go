package admin

import (
	"cmp"
	"context"
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
	rows     []row
	raceTag  int   // how often AddAppPassword says that the tag was taken meanwhile
	err      error // of every call, if set
	by       []string
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
	a := auth.Account{ID: int64(len(m.accounts) + 1), Login: n.Login, Aliases: n.Aliases, DisplayName: n.DisplayName,
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

func (m *memory) Accounts(_ context.Context, after string, limit int) ([]auth.Account, error) {
	defer m.enter("")()
	var out []auth.Account
	for _, a := range slices.SortedFunc(slices.Values(m.accounts), func(a, b auth.Account) int { return cmp.Compare(a.Login, b.Login) }) {
		if a.Login > after && len(out) < limit {
			out = append(out, a)
		}
	}
	return out, m.err
}

func (m *memory) SetAccountEnabled(_ context.Context, login string, enabled bool, by string) error {
	defer m.enter(by)()
	a, err := m.find(login)
	if err == nil {
		a.Enabled = enabled
	}
	return err
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
		Networks: n.Networks, Origin: n.Origin, CreatedBy: n.CreatedBy, ExpiresAt: n.ExpiresAt, ExpiresUnusedFor: n.ExpiresUnusedFor}
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

func (m *memory) RenameAppPassword(_ context.Context, login, key, label, newKey, by string) error {
	defer m.enter(by)()
	r, err := m.row(login, key)
	if err == nil {
		r.Label, r.key = label, newKey
	}
	return err
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
