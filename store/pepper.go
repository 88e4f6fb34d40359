package store

import (
	"context"

	"github.com/lib/pq"
)

// RegisterPepper makes a pepper known before the first app password with a tag of it is stored. Doing it again changes
// nothing.
func (s *Store) RegisterPepper(ctx context.Context, id int32) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	_, err := s.db.ExecContext(ctx, "INSERT INTO peppers (id) VALUES ($1) ON CONFLICT DO NOTHING", id)
	return failed("register pepper", err)
}

// UnknownPeppers lists the peppers of stored tags that are not among the known ones, in ascending order. As long as there
// are any, each login reads all rows that are keyed by them: correct, but slow.
func (s *Store) UnknownPeppers(ctx context.Context, known []int32) ([]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if known == nil {
		known = []int32{} // pq.Array makes NULL of nil, and nothing differs from NULL
	}
	rows, err := s.db.QueryContext(ctx, "SELECT id FROM peppers WHERE id <> ALL ($1) ORDER BY id", pq.Array(known))
	if err != nil {
		return nil, failed("list peppers", err)
	}
	defer rows.Close()
	var unknown []int32
	for rows.Next() {
		var id int32
		if err := rows.Scan(&id); err != nil {
			return nil, failed("list peppers", err)
		}
		unknown = append(unknown, id)
	}
	return unknown, failed("list peppers", rows.Err())
}

// SlowRows reports whether there is an app password that a wrong password is compared with by a slow hash: one without a tag,
// tombstones included, or one that may be keyed by a pepper that is not among the known ones. It reads an index that holds nothing else.
func (s *Store) SlowRows(ctx context.Context, known []int32) (slow bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if known == nil {
		known = []int32{} // as in UnknownPeppers
	}
	err = s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM app_passwords WHERE tag IS NULL)
		OR EXISTS (SELECT FROM peppers WHERE id <> ALL ($1))`, pq.Array(known)).Scan(&slow)
	return slow, failed("look for slow rows", err)
}
