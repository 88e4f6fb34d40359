// Package cluster runs a private Postgres cluster for a daemon that was given no database: made with initdb in a
// directory of its own, reachable over a Unix socket only, started and stopped with the daemon.
//
// It refuses to know tables, SQL beyond the creation of one role and one database, and who uses the cluster. It needs
// Linux: /proc to recognise a left-over server, and the parent-death signal so that none is left over.
//
// The one rule a newcomer would break: the postmaster is started and waited for by one goroutine that holds its
// operating system thread for the life of the cluster. The parent-death signal is tied to the thread, not to the
// process: started from an ordinary goroutine, Postgres would be shut down whenever the Go runtime retires that thread.
package cluster
