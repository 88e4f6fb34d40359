package main

import (
	"context"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

// upgrade replaces imported hashes by ours at the first login.
type upgrade struct{ store *liveStore }

var _ auth.Upgrade = upgrade{}

// Replaceable implements [auth.Upgrade].
func (upgrade) Replaceable(phc, password string) bool { return secret.Replaceable(phc, password) }

// Hash implements [auth.Upgrade]. An imported password is hashed as it is, since it is compared byte for byte.
func (upgrade) Hash(password string) string { return secret.Hash(password) }

// ReplacePHC implements [auth.Upgrade].
func (u upgrade) ReplacePHC(ctx context.Context, rowID int64, old, new string) (bool, error) {
	if s := u.store.Load(); s != nil {
		return s.ReplacePHC(ctx, rowID, old, new)
	}
	return false, errNoStore
}
