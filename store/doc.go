// Package store keeps accounts, app passwords and the audit log in Postgres: one file per table, the migrations, the
// batched lookup that every login goes through, and the bookkeeping after it.
//
// It refuses to know passwords, peppers and policy: it hands out hashes and tags as opaque values, and never decides
// whether a login may pass.
//
// The one rule a newcomer would break: an unknown login is (nil, nil), and nothing else is. Whatever goes wrong on the
// way to the row must come out as an error, since the caller turns "no such row" into "wrong password" and an error into
// "try again later".
package store
