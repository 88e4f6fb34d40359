// Command valetkey-checkpassword is what Dovecot 2.3, qmail and its kin, and PAM's pam_exec run to check one login: it
// reads the login in their way, asks valetkeyd over a Unix socket, and answers in their way. It holds no credentials
// and no configuration file.
//
//	valetkey-checkpassword [-socket PATH] [-service NAME] [-timeout SECONDS] [-check] PROGRAM [ARGUMENT...]
//	valetkey-checkpassword [-socket PATH] [-service NAME] [-timeout SECONDS] -pam
//
// The first form is checkpassword (cr.yp.to/checkpwd/interface.html): login and password on descriptor 3, and on
// success PROGRAM is run in its place. It exits with 1 if the login is rejected, 2 if it was called wrongly, 111 if the
// outcome is undecided, and 3 if Dovecot looked up an account that does not exist. In the second form there is no
// PROGRAM, and 0 means accepted.
//
// Started by Dovecot it hands the account's userdb fields on for userdb prefetch. Started by anybody else it becomes the
// account's user in the account's home. With -check it does neither: for SMTP servers, which run PROGRAM for its exit
// status alone, and for a Dovecot with one user for all mail.
//
// One process starts for each login, under the limits of whoever starts it. Dovecot's auth service allows 256 MB of
// address space by default, qmail's softlimit less, and a 64-bit Go program reserves more than that before its first
// line runs. So the program is built for a 32-bit processor, without cgo, wherever the kernel runs such programs:
//
//	CGO_ENABLED=0 GOARCH=386 go build -trimpath -ldflags '-s -w' ./cmd/valetkey-checkpassword
//
// On arm64 it is GOARCH=arm, if the processor has the 32-bit state (many servers' have not). Otherwise it is built for
// arm64, and Dovecot's configuration says service auth { vsz_limit = 0 }.
//
// The program refuses to know how a password is checked, and what an account is beyond the fields that it hands on.
//
// The one rule a newcomer would break: nothing is linked in that is not needed to ask one question. No fmt, no net, no
// flag package, no logger: their start-up would be paid at each login.
package main

import (
	"os"
	"syscall"
	"time"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// version is set by the build.
var version = "dev"

// Exit statuses. 1, 2 and 111 are those of the checkpassword interface, 3 is Dovecot's.
const (
	accepted    = 0
	rejected    = 1
	misused     = 2
	unknownUser = 3
	undecided   = 111
)

// helper is what the program has to do with the world. A test replaces it.
type helper struct {
	environ []string // without duplicates: the first one counts
	// rawEnviron is the environment as it was handed over, duplicates included.
	rawEnviron func() ([]string, error)
	// read returns what can be read from a descriptor up to its end, or limit bytes and one more.
	read func(fd, limit int, deadline time.Time) ([]byte, error)
	ask  func(path string, r wire.Request, deadline time.Time) (wire.Reply, error)
	uid  func() (realUID, effective int)
	// become changes group, groups and user for good.
	become func(uid, gid int) error
	chdir  func(path string) error
	// exec returns only if it fails.
	exec func(path string, argv, environ []string) error
	// print writes a line for the log of whoever started the program. It never holds what a user typed.
	print func(line string)
	now   func() time.Time
}

func main() {
	h := helper{
		environ:    os.Environ(),
		rawEnviron: rawEnviron,
		read:       readAll,
		ask:        wire.Ask,
		uid:        func() (realUID, effective int) { return os.Getuid(), os.Geteuid() },
		become:     become,
		chdir:      os.Chdir,
		exec:       syscall.Exec,
		print:      func(line string) { os.Stderr.WriteString("valetkey-checkpassword: " + line + "\n") },
		now:        time.Now,
	}
	os.Exit(h.main(os.Args[1:]))
}

// main returns the exit status. It does not return if it has started the next program.
func (h *helper) main(args []string) (status int) {
	defer func() {
		if recover() != nil {
			// The status of a crash, 2, would blame whoever started us. The value might quote a request.
			h.print("internal error")
			status = undecided
		}
	}()
	o, err := parseOptions(args)
	if err != nil {
		h.print(err.Error())
		return misused
	}
	if o.version {
		os.Stdout.WriteString(version + "\n")
		return accepted
	}
	if o.pam {
		return h.pam(o)
	}
	if realUID, effective := h.uid(); realUID != effective {
		// Whoever runs it chooses the socket, and so what is accepted, and whose files the next program gets.
		h.print("this program must not be installed set-user-id")
		return misused
	}
	return h.checkpassword(o)
}

// fail prints why there is no outcome.
func (h *helper) fail(status int, why string) int {
	h.print(why)
	return status
}
