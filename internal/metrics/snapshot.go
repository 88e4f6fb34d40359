package metrics

import "time"

// Snapshot is what the parts of the daemon have counted, at the moment when somebody asks. Totals may go back to zero when a part is
// replaced at a reload, which Prometheus takes for a restart. A nil pointer: there is no such part, or it is not there yet.
type Snapshot struct {
	Hashes       int64 // slow hashes computed
	HashesQueued int64 // logins that wait for one

	Database Database
	Throttle *Throttle
	Plugin   *Plugin

	Notices      map[string]int64 // told or not, by outcome
	Listeners    []Listener
	Certificates []Certificate
}

// Database is the store.
type Database struct {
	Up bool // it answered in time, just now

	// Totals of the store; nil while the daemon has none.
	*Store
}

// Store is what the store counts.
type Store struct {
	Lookups, Batches, Failed, Overloaded, SecondLane uint64
	Finds, FindBatches                               uint64 // of the directory
	Pending                                          int    // last uses and events that wait to be written
	Written, Dropped                                 uint64
}

// Throttle is what the throttle counts.
type Throttle struct {
	Held, Guesses, Repeated, Refused int64
	Entries                          int
}

// Plugin is the enrolment plugin and the policy around it.
type Plugin struct {
	Up, BreakerOpen          bool
	Restarts, Checks, Cached int64
	CheckTime                time.Duration // of all checks together
	Errors                   map[string]int64
	Fallback, LinesDropped   int64
	Known, Waiting           int
	ConfigurationRefused     bool // what the configuration says now is not in force
}

// Listener is one listener and its connections.
type Listener struct {
	Name, FrontEnd          string
	Open                    int64
	Total, Refused, Yielded int64
}

// Certificate is one that a listener presents.
type Certificate struct {
	Listener string
	Until    time.Time
	Broken   bool // the files that are there now cannot be used, and the one from before is presented
}
