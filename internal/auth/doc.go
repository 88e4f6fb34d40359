// Package auth decides whether a login may pass: it is the core that every front end asks and that asks, in turn,
// the store for the fresh row, the secrets for the comparison and the plugin for the second factor, each through a
// small interface declared here.
//
// It refuses to know any wire protocol, SQL, hash format or file. It imports none of our packages, so that all of
// them may import it.
//
// The one rule a newcomer would break: an error from [Authenticator.Authenticate] means undecided. Never turn it into
// "wrong password", and never return a Decision that rejects because something was broken.
package auth
