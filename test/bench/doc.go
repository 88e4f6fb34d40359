// Command bench measures how many logins a second valetkeyd answers, next to the two figures that give the number a
// meaning: an echo server that answers without thinking (the floor of sockets and scheduler, same sizes on the wire)
// and the peer that people run today for the same protocol (Debian's slapd, Dovecot 2.3's auth service, and saslauthd with its
// cache), set up as suits the peer best. One load generator drives all of them in one run, so that they meet the same machine and the
// same noise. Over LDAP it measures the bind alone and search-then-bind. It also measures what a login by valetkey-checkpassword
// costs. It is what "make bench" runs:
//
//	go run ./test/bench --rounds 3 --seconds 5
//
// With --memory it measures what valetkeyd needs instead: its resident size with a small and a large directory, and what an idle
// LDAP connection adds.
//
// With --list it measures what an admin waits for: `valetkey list` of one account and over a million app passwords, by its wall time.
//
// It refuses to know how valetkeyd works inside: it builds the programs, starts the daemon on a private cluster,
// writes the data set into its database and speaks the wire protocols.
//
// The one rule a newcomer would break: every answer is checked, and one that is not the expected one ends the run. A
// benchmark that counts refusals as logins is fast and worthless.
package main
