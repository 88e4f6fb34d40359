package main

import (
	"context"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/ldapbridge"
)

var _ ldapbridge.Directory = (*liveStore)(nil)

// Entry implements [ldapbridge.Directory].
func (l *liveStore) Entry(ctx context.Context, login string) (auth.Account, error) {
	if s := l.wait(ctx); s != nil {
		return s.Directory().Entry(ctx, login)
	}
	return auth.Account{}, errNoStore
}

// FindAccounts implements [ldapbridge.Directory].
func (l *liveStore) FindAccounts(ctx context.Context, keys []auth.AccountKey, limit int, parts auth.Parts) ([]auth.Account, error) {
	if s := l.wait(ctx); s != nil {
		return s.Directory().FindAccounts(ctx, keys, limit, parts)
	}
	return nil, errNoStore
}

// Accounts implements [ldapbridge.Directory].
func (l *liveStore) Accounts(ctx context.Context, after string, limit int, parts auth.Parts) ([]auth.Account, error) {
	if s := l.wait(ctx); s != nil {
		return s.Directory().Accounts(ctx, after, limit, parts)
	}
	return nil, errNoStore
}

// FindGroups implements [ldapbridge.Directory].
func (l *liveStore) FindGroups(ctx context.Context, keys []auth.GroupKey, limit int) ([]auth.Group, error) {
	if s := l.wait(ctx); s != nil {
		return s.Directory().FindGroups(ctx, keys, limit)
	}
	return nil, errNoStore
}

// Groups implements [ldapbridge.Directory].
func (l *liveStore) Groups(ctx context.Context, after string, limit int) ([]auth.Group, error) {
	if s := l.wait(ctx); s != nil {
		return s.Directory().Groups(ctx, after, limit)
	}
	return nil, errNoStore
}
