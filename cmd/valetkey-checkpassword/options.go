package main

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

const (
	defaultSocket = "/run/valetkey/checkpassword"
	socketEnv     = "VALETKEY_CHECKPASSWORD_SOCKET"

	// The daemon decides within 8 s, and Postfix, which may be behind Dovecot, waits for 10.
	defaultTimeout = 9 * time.Second
	maxTimeout     = 120 * time.Second
)

// options are the arguments before the program.
type options struct {
	socket  string // empty: the environment's, or the default
	service string // empty: as the environment tells
	timeout time.Duration
	pam     bool
	check   bool // only check: change no ids, ask for no fields
	version bool
	program []string // and its arguments; empty with pam and version
}

// parseOptions reads the arguments up to the first that is no option, or to "--".
func parseOptions(args []string) (options, error) {
	o := options{timeout: defaultTimeout}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		switch name {
		case "pam":
			o.pam = true
		case "check":
			o.check = true
		case "version":
			o.version = true
		case "socket", "service", "timeout":
			if !hasValue {
				if len(args) == 0 {
					return options{}, errors.New("option -" + name + " needs a value")
				}
				value, args = args[0], args[1:]
			}
			if err := o.set(name, value); err != nil {
				return options{}, err
			}
			continue
		default:
			return options{}, errors.New("unknown option; there are -socket PATH, -service NAME, -timeout SECONDS, -check, -pam, -version")
		}
		if hasValue {
			return options{}, errors.New("option -" + name + " takes no value")
		}
	}
	o.program = args
	switch {
	case o.version:
	case o.pam && o.check:
		return options{}, errors.New("-pam and -check exclude each other")
	case o.pam && len(args) > 0:
		return options{}, errors.New("with -pam there is no program to run")
	case !o.pam && (len(args) == 0 || args[0] == ""):
		return options{}, errors.New("no program to run after an accepted login; Dovecot and qmail add it themselves")
	}
	return o, nil
}

func (o *options) set(name, value string) error {
	if value == "" {
		return errors.New("option -" + name + " needs a value")
	}
	switch name {
	case "socket":
		o.socket = value
	case "service":
		o.service = value
	case "timeout":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > int(maxTimeout/time.Second) {
			return errors.New("option -timeout needs seconds from 1 to " + strconv.Itoa(int(maxTimeout/time.Second)))
		}
		o.timeout = time.Duration(n) * time.Second
	}
	return nil
}
