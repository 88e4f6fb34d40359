package admin

import (
	"context"
	"maps"
	"slices"

	"github.com/valetkey/valetkey/internal/auth"
)

func groupName(name string) (string, error) {
	n, err := auth.NormaliseGroup(name)
	if err != nil {
		return "", fault("bad_group", "a group's name is like a login: no spaces, no control characters; a display name may have them", "%q: %v", clip(name), err)
	}
	return n, nil
}

// AddGroup adds a group without members. A name that is taken is [auth.ErrGroupTaken].
func (s *Service) AddGroup(ctx context.Context, n NewGroup, by string) (Group, error) {
	add := auth.NewGroup{Attributes: map[string][]string{}}
	var err error
	if add.Name, err = groupName(n.Name); err != nil {
		return Group{}, err
	}
	if add.DisplayName, err = displayName(n.DisplayName); err != nil {
		return Group{}, err
	}
	for name, values := range n.Attributes {
		if len(values) > 0 {
			add.Attributes[name] = values
		}
	}
	if err := checkAttributes(add.Attributes); err != nil {
		return Group{}, err
	}
	g, err := s.Store.AddGroup(ctx, add, by)
	return groupView(g, true), err
}

// Group returns a group with its members.
func (s *Service) Group(ctx context.Context, name string) (Group, error) {
	n, err := groupName(name)
	if err != nil {
		return Group{}, err
	}
	g, err := s.Store.Group(ctx, n)
	return groupView(g, true), err
}

// Groups returns a page of groups whose name sorts after the given one, without their members; limit 0 means the largest page.
func (s *Service) Groups(ctx context.Context, after string, limit int) (Groups, error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	found, err := s.Store.Groups(ctx, after, limit)
	if err != nil {
		return Groups{}, err
	}
	page := Groups{Groups: make([]Group, len(found))}
	for i, g := range found {
		page.Groups[i] = groupView(g, false)
	}
	if len(found) == limit {
		page.Next = found[len(found)-1].Name
	}
	return page, nil
}

// PatchGroup changes a group, all or nothing, and returns what it is now.
func (s *Service) PatchGroup(ctx context.Context, name string, p GroupPatch, by string) (Group, error) {
	n, err := groupName(name)
	if err != nil {
		return Group{}, err
	}
	c := auth.GroupChange{Attributes: p.Attributes}
	if p.DisplayName != nil {
		text, err := displayName(*p.DisplayName)
		if err != nil {
			return Group{}, err
		}
		c.DisplayName = &text
	}
	if err := checkAttributes(c.Attributes); err != nil {
		return Group{}, err
	}
	if len(p.AddMembers) > maxMembers || len(p.RemoveMembers) > maxMembers {
		return Group{}, fault("too_many", "make several calls", "at most %d members can come or go at a time", maxMembers)
	}
	if c.AddMembers, err = memberLogins(p.AddMembers); err != nil {
		return Group{}, err
	}
	if c.RemoveMembers, err = memberLogins(p.RemoveMembers); err != nil {
		return Group{}, err
	}
	if len(c.Attributes) > 0 {
		// Two admins at once may go beyond; the database has a bound of its own.
		g, err := s.Store.Group(ctx, n)
		if err != nil {
			return Group{}, err
		}
		if added(slices.Collect(maps.Keys(g.Attributes)), slices.Collect(maps.Keys(c.Attributes))) > maxEntries {
			return Group{}, fault("too_many", "", "a group has at most %d attributes", maxEntries)
		}
	}
	g, err := s.Store.ChangeGroup(ctx, n, c, by)
	return groupView(g, true), err
}

func memberLogins(names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, name := range names {
		l, err := login(name)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// DeleteGroup deletes a group; its members stay.
func (s *Service) DeleteGroup(ctx context.Context, name, by string) error {
	n, err := groupName(name)
	if err != nil {
		return err
	}
	return s.Store.DeleteGroup(ctx, n, by)
}
