package admin

import (
	"context"
	"errors"

	"github.com/valetkey/valetkey/internal/auth"
)

// Import keeps what it was given and takes every row for new, unless its import key was there before.
func (m *memory) Import(_ context.Context, n auth.Import) ([]auth.ImportOutcome, error) {
	defer m.enter(n.By)()
	if m.err != nil {
		return nil, m.err
	}
	m.imports = append(m.imports, n)
	out := make([]auth.ImportOutcome, len(n.Rows))
	for i, r := range n.Rows {
		out[i] = auth.ImportOutcome{Login: r.Account.Login, Account: auth.ImportAdded}
		if _, err := m.find(r.Account.Login); !errors.Is(err, auth.ErrNoAccount) {
			out[i].Account = auth.ImportThere
		}
		p := r.AppPassword
		if p == nil {
			continue
		}
		key := n.Source + ":" + p.Key
		out[i].AppPassword, out[i].Label = auth.ImportAdded, p.Label
		if m.imported[key] {
			out[i].AppPassword = auth.ImportThere
		} else if !n.DryRun {
			if m.imported == nil {
				m.imported = map[string]bool{}
			}
			m.imported[key] = true
		}
	}
	return out, nil
}
