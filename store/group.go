package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// adminGroupColumns have all members, the disabled ones too.
const adminGroupColumns = `g.name, g.display_name, g.uuid::text, g.attributes, g.created_at, g.modified_at,
	ARRAY(SELECT a.login FROM group_members m JOIN accounts a ON a.id = m.account_id WHERE m.group_id = g.id ORDER BY a.login)`

func readGroup(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, name string) (auth.Group, error) {
	g, err := scanGroup(q.QueryRowContext(ctx, "SELECT "+adminGroupColumns+" FROM groups g WHERE g.name = $1", name))
	return g, noRowsIs(err, auth.ErrNoGroup)
}

// AddGroup adds a group without members. A name that is taken is [auth.ErrGroupTaken].
func (s *Store) AddGroup(ctx context.Context, n auth.NewGroup, by string) (auth.Group, error) {
	var g auth.Group
	texts, err := packed(nonNil(n.Attributes))
	if err != nil {
		return g, failed("add group", err)
	}
	err = s.transact(ctx, "add group", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO groups (name, display_name, attributes) VALUES ($1, $2, $3)",
			n.Name, n.DisplayName, texts[0]); err != nil {
			return err
		}
		if err := addGroupEvent(ctx, tx, eventGroupAdded, by, n.Name, nil); err != nil {
			return err
		}
		g, err = readGroup(ctx, tx, n.Name)
		return err
	})
	return g, err
}

func addGroupEvent(ctx context.Context, tx *sql.Tx, kind, by, group string, detail map[string]any) error {
	d := map[string]any{"group": group}
	for k, v := range detail {
		d[k] = v
	}
	return addEvent(ctx, tx, event{kind: kind, actor: by, detail: d})
}

// Group returns a group with all its members, by its normalised name. An unknown one is [auth.ErrNoGroup].
func (s *Store) Group(ctx context.Context, name string) (auth.Group, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	g, err := readGroup(ctx, s.db, name)
	return g, failed("read group", err)
}

// Groups lists groups by name, byte by byte, beginning after the given one ("" for the first page), with the number of their
// members alone. limit is at most 1000; zero is 100. A page shorter than the limit is the last.
func (s *Store) Groups(ctx context.Context, after string, limit int) ([]auth.Group, error) {
	if limit <= 0 {
		limit = defaultPage
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, `SELECT g.name, g.display_name, g.uuid::text, g.attributes, g.created_at, g.modified_at, '{}'::text[],
		(SELECT count(*) FROM group_members m WHERE m.group_id = g.id) FROM groups g WHERE g.name > $1 ORDER BY g.name LIMIT $2`,
		after, min(limit, maxPage))
	if err != nil {
		return nil, failed("list groups", err)
	}
	defer rows.Close()
	var list []auth.Group
	for rows.Next() {
		var g auth.Group
		var attributes []byte
		if err := rows.Scan(&g.Name, &g.DisplayName, &g.UUID, &attributes, &g.CreatedAt, &g.ModifiedAt, pq.Array(&g.Members), &g.MemberCount); err != nil {
			return nil, failed("list groups", err)
		}
		if err := unpack(attributes, &g.Attributes); err != nil {
			return nil, failed("list groups", err)
		}
		list = append(list, g)
	}
	return list, failed("list groups", rows.Err())
}

// lockedGroup is what changes of a group need to know of it.
type lockedGroup struct {
	id         int64
	name       string // as stored
	display    string
	attributes map[string][]string
}

// lockGroup makes the transactions that change a group wait for each other. Accounts are locked after groups, never before.
func lockGroup(ctx context.Context, tx *sql.Tx, name string) (lockedGroup, error) {
	g := lockedGroup{name: name}
	var attributes []byte
	err := tx.QueryRowContext(ctx, "SELECT id, display_name, attributes FROM groups WHERE name = $1 FOR UPDATE", name).Scan(&g.id, &g.display, &attributes)
	if err != nil {
		return g, noRowsIs(err, auth.ErrNoGroup)
	}
	return g, json.Unmarshal(attributes, &g.attributes)
}

// ChangeGroup changes a group and returns what it is now. What is already so is not an error and leaves no event. An unknown group
// is [auth.ErrNoGroup], an unknown login [auth.ErrNoAccount], a reader's [auth.ErrNotPerson], one member too many
// [auth.ErrGroupLimit]; then nothing is changed.
//
// The groups that a person is in are part of the person's record: it counts as modified, too.
func (s *Store) ChangeGroup(ctx context.Context, name string, c auth.GroupChange, by string) (auth.Group, error) {
	var now auth.Group
	err := s.transact(ctx, "change group", func(ctx context.Context, tx *sql.Tx) error {
		if len(c.RemoveMembers) > 0 { // it may shut somebody out
			if err := commitEverywhere(ctx, tx); err != nil {
				return err
			}
		}
		g, err := lockGroup(ctx, tx, name)
		if err != nil {
			return err
		}
		detail := map[string]any{}
		if c.DisplayName != nil && *c.DisplayName != g.display {
			g.display = *c.DisplayName
			detail["display_name"] = true
		}
		var changed []string
		if g.attributes, changed = mergeAttributes(g.attributes, c.Attributes); len(changed) > 0 {
			detail["attributes"] = changed
		}
		if len(detail) > 0 {
			texts, err := packed(g.attributes)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "UPDATE groups SET display_name = $2, attributes = $3, modified_at = now() WHERE id = $1",
				g.id, g.display, texts[0]); err != nil {
				return err
			}
			if err := addGroupEvent(ctx, tx, eventGroupChanged, by, g.name, detail); err != nil {
				return err
			}
		}
		if err := changeMembers(ctx, tx, &g, c, by); err != nil {
			return err
		}
		now, err = readGroup(ctx, tx, g.name)
		return err
	})
	return now, err
}

// member is a person who comes or goes.
type member struct {
	id    int64
	login string // canonical
}

// people resolves logins and locks the accounts, so that none of them is deleted meanwhile.
func people(ctx context.Context, tx *sql.Tx, logins []string) ([]member, error) {
	logins = slices.Compact(slices.Sorted(slices.Values(logins)))
	var known int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM logins WHERE login = ANY ($1::text[])", pq.Array(logins)).Scan(&known); err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT a.id, a.login, a.kind = 'person' FROM accounts a
		WHERE a.id IN (SELECT account_id FROM logins WHERE login = ANY ($1::text[])) ORDER BY a.id FOR NO KEY UPDATE`, pq.Array(logins))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []member
	for rows.Next() {
		var m member
		var person bool
		if err := rows.Scan(&m.id, &m.login, &person); err != nil {
			return nil, err
		}
		if !person {
			return nil, auth.ErrNotPerson
		}
		list = append(list, m)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if known < len(logins) {
		return nil, auth.ErrNoAccount
	}
	return list, nil
}

func changeMembers(ctx context.Context, tx *sql.Tx, g *lockedGroup, c auth.GroupChange, by string) error {
	if len(c.AddMembers)+len(c.RemoveMembers) == 0 {
		return nil
	}
	all, err := people(ctx, tx, append(slices.Clone(c.AddMembers), c.RemoveMembers...))
	if err != nil {
		return err
	}
	// Whom a statement really added or removed, in the order of all.
	really := func(statement string, logins []string) ([]member, error) {
		if len(logins) == 0 {
			return nil, nil
		}
		rows, err := tx.QueryContext(ctx, statement, g.id, pq.Array(logins))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		done := map[int64]bool{}
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return nil, err
			}
			done[id] = true
		}
		return slices.DeleteFunc(slices.Clone(all), func(m member) bool { return !done[m.id] }), rows.Err()
	}
	added, err := really(`INSERT INTO group_members (group_id, account_id)
		SELECT DISTINCT $1::bigint, account_id FROM logins WHERE login = ANY ($2::text[]) ON CONFLICT DO NOTHING RETURNING account_id`, c.AddMembers)
	if err != nil {
		return err
	}
	removed, err := really(`DELETE FROM group_members WHERE group_id = $1
		AND account_id IN (SELECT account_id FROM logins WHERE login = ANY ($2::text[])) RETURNING account_id`, c.RemoveMembers)
	if err != nil {
		return err
	}
	if len(added)+len(removed) == 0 {
		return nil
	}
	if len(added) > 0 {
		if err := checkGroupLimits(ctx, tx, g.id, added); err != nil {
			return err
		}
	}
	for _, x := range []struct {
		kind string
		list []member
	}{{eventMemberAdded, added}, {eventMemberRemoved, removed}} {
		for _, m := range x.list {
			if err := addEvent(ctx, tx, event{kind: x.kind, actor: by, accountID: m.id, login: m.login, detail: map[string]any{"group": g.name}}); err != nil {
				return err
			}
		}
	}
	if _, err := tx.ExecContext(ctx, "UPDATE groups SET modified_at = now() WHERE id = $1", g.id); err != nil {
		return err
	}
	moved := make([]int64, 0, len(added)+len(removed))
	for _, m := range append(added, removed...) {
		moved = append(moved, m.id)
	}
	_, err = tx.ExecContext(ctx, "UPDATE accounts SET modified_at = now() WHERE id = ANY ($1)", pq.Array(moved))
	return err
}

func checkGroupLimits(ctx context.Context, tx *sql.Tx, group int64, added []member) error {
	var members int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM group_members WHERE group_id = $1", group).Scan(&members); err != nil {
		return err
	}
	if members > auth.MaxGroupMembers {
		return auth.ErrGroupLimit
	}
	ids := make([]int64, len(added))
	for i, m := range added {
		ids[i] = m.id
	}
	var too int
	err := tx.QueryRowContext(ctx, `SELECT 1 FROM group_members WHERE account_id = ANY ($1) GROUP BY account_id HAVING count(*) > $2 LIMIT 1`,
		pq.Array(ids), auth.MaxGroups).Scan(&too)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = auth.ErrGroupLimit
	}
	return err
}

// DeleteGroup removes a group; its members stay. An unknown one is [auth.ErrNoGroup].
func (s *Store) DeleteGroup(ctx context.Context, name, by string) error {
	return s.transact(ctx, "delete group", func(ctx context.Context, tx *sql.Tx) error {
		if err := commitEverywhere(ctx, tx); err != nil {
			return err
		}
		g, err := lockGroup(ctx, tx, name)
		if err != nil {
			return err
		}
		// Locked in the order that everybody locks accounts in.
		if _, err := tx.ExecContext(ctx, `UPDATE accounts SET modified_at = now() WHERE id IN
			(SELECT a.id FROM accounts a JOIN group_members m ON m.account_id = a.id WHERE m.group_id = $1 ORDER BY a.id FOR NO KEY UPDATE OF a)`,
			g.id); err != nil {
			return err
		}
		var members int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM group_members WHERE group_id = $1", g.id).Scan(&members); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM groups WHERE id = $1", g.id); err != nil {
			return err
		}
		return addGroupEvent(ctx, tx, eventGroupDeleted, by, g.name, map[string]any{"members": members})
	})
}

// touchGroups marks the groups of an account as modified. The account is locked already, against the usual order: a deadlock is
// tried again.
func touchGroups(ctx context.Context, tx *sql.Tx, account int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE groups SET modified_at = now() WHERE id IN
		(SELECT g.id FROM groups g JOIN group_members m ON m.group_id = g.id WHERE m.account_id = $1 ORDER BY g.id FOR NO KEY UPDATE OF g)`, account)
	return err
}
