package main

import (
	"os"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// lookupEnv returns the first value of a variable, as getenv(3) does.
func lookupEnv(environ []string, name string) (value string, found bool) {
	for _, v := range environ {
		if isVariable(v, name) {
			return v[len(name)+1:], true
		}
	}
	return "", false
}

func isVariable(v, name string) bool {
	return len(v) > len(name) && v[len(name)] == '=' && v[:len(name)] == name
}

func getenv(environ []string, name string) string {
	value, _ := lookupEnv(environ, name)
	return value
}

// setenv replaces a variable wherever it stands: a second one would be read by some programs and not by others. Like
// [slices.DeleteFunc] it works in place.
func setenv(environ []string, name, value string) []string {
	return append(unsetenv(environ, name), name+"="+value)
}

func unsetenv(environ []string, name string) []string {
	return slices.DeleteFunc(environ, func(v string) bool { return isVariable(v, name) })
}

// rawEnviron reads what the parent handed over. The Go runtime hides all but the first of variables with one name.
func rawEnviron() ([]string, error) {
	text, err := os.ReadFile("/proc/self/environ")
	return strings.Split(string(text), "\x00"), err
}

func firstOf(environ []string, names ...string) string {
	for _, name := range names {
		if v := getenv(environ, name); v != "" {
			return v
		}
	}
	return ""
}

// services are the ports by which tcpserver tells what is logged in to (TCPLOCALPORT).
var services = map[string]string{
	"110": "pop3", "995": "pop3",
	"143": "imap", "993": "imap",
	"25": "smtp", "465": "smtp", "587": "smtp",
	"4190": "sieve",
}

// unknownService is what a login is for if nobody says. It is no guess: an app password for pop3 alone must not send
// mail only because the port is an odd one.
const unknownService = "checkpassword"

// What is kept of a value, in bytes: one more than an app password's service may have, so that a cut one is none; room
// for every address; and what a log line should carry.
const (
	maxService = 64 + 1
	maxRemote  = 64
	maxSession = 128
)

func clip(s string, n int) string { return s[:min(n, len(s))] }

// describe fills in what the environment tells about a login through checkpassword: Dovecot's variables
// (reference/mail-protocols.md section 2.2), or those of tcpserver and its kin (cr.yp.to/proto/ucspi.txt).
func describe(r *wire.Request, o options, environ []string) {
	service := o.service
	if service == "" {
		service = firstOf(environ, "SERVICE", "AUTH_SERVICE", "AUTH_PROTOCOL")
	}
	if service == "" {
		service = services[getenv(environ, "TCPLOCALPORT")]
	}
	if service == "" {
		service = unknownService
	}
	r.Service = clip(service, maxService)
	r.Remote = clip(firstOf(environ, "TCPREMOTEIP", "AUTH_RIP", "REMOTE_IP", "TCP6REMOTEIP"), maxRemote)
	r.Session = clip(getenv(environ, "AUTH_SESSION"), maxSession)
	r.TLS = tlsState(environ, r.Remote)
}

// tlsState is known only of Dovecot, which sets AUTH_SECURED to something if the password came encrypted or from this
// machine. A peer of Dovecot's that does not even tell the user's address does not know.
func tlsState(environ []string, remote string) string {
	switch secured, told := lookupEnv(environ, "AUTH_SECURED"); {
	case secured != "":
		return wire.TLSYes
	case told && remote != "":
		return wire.TLSNo
	}
	return wire.TLSUnknown
}

// socketPath is where the daemon listens.
func socketPath(o options, environ []string) string {
	if o.socket != "" {
		return o.socket
	}
	if path := getenv(environ, socketEnv); path != "" {
		return path
	}
	return defaultSocket
}
