package auth

import "time"

// Event is an entry of the audit log.
type Event struct {
	ID     int64 // grows with time, with gaps
	At     time.Time
	Kind   string // "app_password.created"
	Actor  string // who did it; empty: nobody, it happened
	Login  string // canonical, as it was then; empty: none
	Label  string // of the app password, as it was then; empty: none
	Detail []byte // JSON object
}

// EventFilter selects events. The zero value selects all.
type EventFilter struct {
	Login string    // normalised; of any account that has or had it
	Kind  string    // exactly
	Since time.Time // of the event
	Limit int       // of a page; zero: the store's own
}
