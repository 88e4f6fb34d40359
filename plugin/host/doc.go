// Package host is the daemon's side of an enrolment plugin: it starts the program, keeps it alive, asks it, remembers what it said,
// and answers the core's question in its place when it is gone.
//
// The plugin is trusted with its answers and with nothing else. Everything that it can do wrong is expected here: it may die, freeze,
// fork, flood its log, print garbage or answer with 256 MiB, and a login is never delayed beyond [Config].Timeout for it.
// go-plugin does the handshake; its own process handling blocks for ever in several of these cases, so processes are started,
// watched and ended here.
//
// The package refuses to know passwords, app passwords and how a plugin finds its answers.
//
// The one rule a newcomer would break: no answer is not an answer. What could not be found out is either what was known before, or
// an error, which makes the login undecided. It never becomes "not enrolled", and being known as not enrolled never becomes "allowed".
package host
