// Package wire is the protocol between the checkpassword helper and the daemon: its messages, and the helper's end of
// the conversation. It is ours alone; nobody else speaks it, and both ends come from this package.
//
// One connection to a Unix socket carries one request and one reply, both in this frame. Numbers are big-endian.
//
//	byte    version, 1
//	byte    kind: of a request its [Op], of a reply its [Outcome]
//	uint16  length of what follows, at most 4096 in a request and 32768 in a reply
//	        fields, each a uint16 length and that many bytes
//
// A request has exactly six fields: login, password, service, remote address, session, and how the password travelled
// ("", "no", "yes"). A reply to an accepted request has the canonical login and then name and value of each userdb
// field; every other reply has none. Who gets something else closes the connection. For the helper that, like a reply
// that does not come in time, means undecided.
//
// The package refuses to know fd 3, environments, accounts and sockets' permissions.
//
// The one rule a newcomer would break: the helper is started for each login, so this package imports neither net nor
// fmt nor anything that imports them. What they do at start-up would cost more than the login.
package wire
