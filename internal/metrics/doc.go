// Package metrics tells Prometheus how a daemon does: what it decides and how fast, and the state of everything that it leans on.
//
// It refuses to know users. No metric has a login, a label, an address or a text that somebody outside chose, so that the number of time
// series depends on the configuration alone and what is scraped may be kept for years.
//
// The one rule a newcomer would break: a login pays for two additions and no more. Everything else is read from the counters that the
// parts of the daemon have anyway, when somebody asks.
package metrics
