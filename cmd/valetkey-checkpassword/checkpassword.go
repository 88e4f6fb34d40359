package main

import (
	"syscall"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// checkpassword serves one login, or one lookup of Dovecot's, and runs the next program.
func (h *helper) checkpassword(o options) int {
	deadline := h.now().Add(o.timeout)

	// Dovecot's auth process tells its own uid, and checkpassword-reply insists on it.
	dovecot := getenv(h.environ, "ORIG_UID") != ""
	r := wire.Request{Op: wire.Login}
	switch authorized, found := lookupEnv(h.environ, "AUTHORIZED"); {
	case found && (!dovecot || authorized != "1" || o.check):
		// "2" is our answer. Whoever lets it in from outside would have every lookup come true.
		return h.fail(misused, "AUTHORIZED is set to something else than Dovecot does")
	case found && getenv(h.environ, "CREDENTIALS_LOOKUP") == "1":
		r.Op = wire.Credentials
	case found:
		r.Op = wire.Userdb
	case o.check:
		r.Op = wire.Check
	}

	input, err := h.read(passwordFD, maxInput, deadline)
	defer clear(input)
	switch {
	case err == syscall.EBADF || err == syscall.EISDIR:
		return h.fail(misused, "nothing can be read from descriptor 3; this program is run by Dovecot or qmail-popup")
	case err != nil:
		return h.fail(undecided, "cannot read descriptor 3: "+err.Error())
	case len(input) > maxInput:
		return rejected // nobody's: as Dovecot and Bernstein's checkpassword say
	}
	if r.User, r.Password, err = parseLogin(input); err != nil {
		return h.fail(misused, "descriptor 3: "+err.Error())
	}
	switch {
	case r.Op.Lookup() && r.Password != "":
		return h.fail(misused, "a lookup with a password")
	case !r.Op.Lookup() && r.Password == "":
		return rejected // no attempt, and never to be taken for a lookup
	}
	describe(&r, o, h.environ)

	reply, err := h.ask(socketPath(o, h.environ), r, deadline)
	r.Password = ""
	if err != nil {
		return h.fail(undecided, err.Error())
	}
	switch reply.Outcome {
	case wire.Accepted:
	case wire.Rejected:
		if !r.Op.Lookup() {
			return rejected
		}
		return h.fail(undecided, "the daemon rejects a lookup instead of answering it")
	case wire.Unknown:
		if r.Op.Lookup() {
			return unknownUser
		}
		return h.fail(undecided, "the daemon answers a login like a lookup")
	case wire.Refused:
		return h.fail(undecided, "the daemon's listener does not allow lookups")
	default:
		return h.fail(undecided, "the daemon could not decide")
	}

	switch {
	case dovecot:
		err = h.forDovecot(reply, r.Op.Lookup())
	case o.check:
		err = h.forCheck(reply)
	default:
		err = h.forQmail(reply)
	}
	if err == nil {
		err = h.run(o.program)
	}
	if err != nil {
		return h.fail(undecided, err.Error())
	}
	return accepted
}
