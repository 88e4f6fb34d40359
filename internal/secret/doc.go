// Package secret knows the text of app passwords and what is stored of it: generating and normalising, the PHC hash, the
// keyed tag that selects a row, and the ring of peppers that key the tags.
//
// It refuses to know accounts, rows and protocols: everything but the pepper file's reading and writing is a pure
// function of its arguments.
//
// The one rule a newcomer would break: the pepper keys tags and nothing else. It must never go into a hash, so that a
// lost pepper makes logins slow and kills no credential.
package secret
