package admin

import (
	"context"
	"slices"

	"github.com/valetkey/valetkey/internal/auth"
)

// history is the part of the Store in memory that remembers.
type history struct {
	attempts map[string][]auth.PastAttempt
	events   []auth.Event // by id
	last     int64        // LastEvent; 0: of the last one
	asked    []auth.EventFilter
}

func (m *memory) Attempts(_ context.Context, login string) ([]auth.PastAttempt, error) {
	defer m.enter("")()
	if a, err := m.find(login); err == nil {
		login = a.Login
	}
	return m.history.attempts[login], m.err
}

func (m *memory) Events(_ context.Context, f auth.EventFilter, before int64) ([]auth.Event, error) {
	defer m.enter("")()
	m.history.asked = append(m.history.asked, f)
	var out []auth.Event
	for _, e := range slices.Backward(m.history.events) {
		if (before == 0 || e.ID < before) && (f.Kind == "" || e.Kind == f.Kind) && len(out) < f.Limit {
			out = append(out, e)
		}
	}
	slices.Reverse(out)
	return out, m.err
}

func (m *memory) EventsAfter(_ context.Context, f auth.EventFilter, after int64) (all []auth.Event, next int64, err error) {
	defer m.enter("")()
	m.history.asked = append(m.history.asked, f)
	next = after
	for _, e := range m.history.events {
		if e.ID > after && len(all) < f.Limit {
			next = e.ID
			if f.Kind == "" || e.Kind == f.Kind {
				all = append(all, e)
			}
		}
	}
	return all, next, m.err
}

func (m *memory) LastEvent(context.Context) (int64, error) {
	defer m.enter("")()
	if m.history.last == 0 && len(m.history.events) > 0 {
		return m.history.events[len(m.history.events)-1].ID, m.err
	}
	return m.history.last, m.err
}
