package auth

import (
	"net/netip"
	"time"
)

// MaxImported is how many live imported app passwords an account may have, MaxImportedEver how many with the tombstones. They carry no
// tag: each of them is a candidate for every password that is tried, and costs a slow hash.
const (
	MaxImported     = 8
	MaxImportedEver = 32
)

// Import is a part of what is taken over from another system, or from another installation of this one.
type Import struct {
	Source string // "mailcow"; prefix of the import keys
	By     string
	DryRun bool // everything is done, and undone
	// LimitPerAccount is how many live app passwords an account may hold. Zero: as many as there may be at all.
	LimitPerAccount int

	Groups []ImportGroup
	Rows   []ImportRow
}

// ImportGroup is a group that shall be there. One that is there already stays as it is.
type ImportGroup struct {
	NewGroup
	UUID      string    // empty: a new one
	CreatedAt time.Time // zero: now
}

// ImportRow is an account that shall be there, with at most one app password. Everything is normalised. What the account has
// already stays; what it lacks is added.
type ImportRow struct {
	Account NewAccount
	// MustExist takes a login that means no account for a reason to leave the row out. Otherwise it becomes one.
	MustExist bool
	Enabled   bool      // of a new account
	UUID      string    // of a new account; empty: a new one
	CreatedAt time.Time // of a new account; zero: now
	Groups    []string  // by name, sorted; those that are not there are made

	AppPassword *ImportedPassword // nil: none
}

// ImportedPassword is an app password as another program keeps it.
type ImportedPassword struct {
	Key       string // what it is there: with the source it becomes the import key
	Label     string // as shown; it is made unique by a number
	LabelKey  string
	Services  []string
	Networks  []netip.Prefix
	PHC       string // secret-derived: never log it. Empty in a dry run of one that is given in clear
	Strong    bool   // PHC needs no replacement
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Outcomes of a part of a row.
const (
	ImportNothing = ""        // the row had none
	ImportAdded   = "added"   // in a dry run: would be
	ImportChanged = "changed" // something was added to it
	ImportThere   = "there"   // it was there already
	ImportSkipped = "skipped" // and Why says why
)

// ImportOutcome is what became of a row.
type ImportOutcome struct {
	Login       string   // canonical
	Account     string   // one of the outcomes
	AppPassword string   // one of the outcomes
	Label       string   // that the app password has
	Why         string   // why something was skipped, for people
	Notes       []string // what of it could not be taken over, for people
}
