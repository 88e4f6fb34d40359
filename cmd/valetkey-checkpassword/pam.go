package main

import (
	"bytes"
	"errors"
	"strings"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// pam serves a login through pam_exec with expose_authtok (pam_exec(8)): the rest comes in variables that PAM sets.
// The socket comes from the arguments alone, because the applications that use PAM let their users add variables.
//
// To pam_exec every status but 0 is PAM_SYSTEM_ERR; the number is in its log line.
func (h *helper) pam(o options) int {
	deadline := h.now().Add(o.timeout)
	environ, err := h.rawEnviron()
	if err != nil {
		return h.fail(undecided, "cannot read the environment: "+err.Error())
	}
	item, err := pamItems(environ)
	switch {
	case err != nil:
		return h.fail(misused, err.Error())
	case item["PAM_TYPE"] != "auth":
		return h.fail(misused, "-pam serves only auth lines of pam_exec")
	case item["PAM_USER"] == "":
		return h.fail(misused, "no PAM_USER: -pam is for pam_exec")
	}
	input, err := h.read(0, maxInput, deadline)
	defer clear(input)
	if err != nil {
		return h.fail(undecided, "cannot read standard input: "+err.Error())
	}
	if len(input) == 0 { // pam_exec writes nothing at all for an empty password
		return h.fail(rejected, "no password on standard input: an empty one, or pam_exec lacks expose_authtok")
	}
	password, _, _ := bytes.Cut(input, []byte{0})
	password, _, _ = bytes.Cut(password, []byte{'\n'})
	if len(password) == 0 || len(password) > maxInput || len(item["PAM_USER"]) > maxInput {
		return rejected
	}
	service := o.service
	if service == "" {
		service = item["PAM_SERVICE"]
	}
	reply, err := h.ask(socketPath(o, nil), wire.Request{
		Op:       wire.Check,
		User:     item["PAM_USER"],
		Password: string(password),
		Service:  clip(service, maxService),
		Remote:   clip(item["PAM_RHOST"], maxRemote),
	}, deadline)
	switch {
	case err != nil:
		return h.fail(undecided, err.Error())
	case reply.Outcome == wire.Accepted:
		return accepted
	case reply.Outcome == wire.Rejected:
		return rejected
	}
	return h.fail(undecided, "the daemon could not decide")
}

var errTwice = errors.New("a PAM variable is set twice: the application lets its users choose it")

// pamItems returns the variables that pam_exec sets. It puts them after those of the application, so one that is there
// twice may be the user's, meant to log in as one account with the password of another.
func pamItems(environ []string) (map[string]string, error) {
	items := make(map[string]string)
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "PAM_TYPE", "PAM_USER", "PAM_SERVICE", "PAM_RHOST":
			if _, twice := items[name]; twice {
				return nil, errTwice
			}
			items[name] = value
		}
	}
	return items, nil
}
