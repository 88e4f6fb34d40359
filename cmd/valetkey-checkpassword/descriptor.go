package main

import (
	"bytes"
	"errors"
	"syscall"
	"time"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// passwordFD is where a checkpassword program finds login and password.
const passwordFD = 3

// maxInput is how many bytes descriptor 3 may carry, and how long a login or password of PAM may be. Dovecot rejects a
// longer one without asking us.
const maxInput = 512

// errInput means that what was read is not login and password.
var errInput = errors.New("what can be read is no login and password")

// readAll reads up to the end, whatever pieces it comes in (qmail-popup writes 128 bytes at a time), but at most limit
// bytes and one more, which tells that there are too many. It returns by the deadline, with [wire.ErrTimeout]. Any other
// error is an errno. fd is below 32.
func readAll(fd, limit int, deadline time.Time) ([]byte, error) {
	buf := make([]byte, limit+1)
	end := 0
	for end < len(buf) {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, wire.ErrTimeout
		}
		var set syscall.FdSet
		set.Bits[0] = 1 << fd
		tv := syscall.NsecToTimeval(int64(max(left, time.Millisecond)))
		ready, err := syscall.Select(fd+1, &set, nil, nil, &tv)
		if err == syscall.EINTR || err == nil && ready == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		n, err := syscall.Read(fd, buf[end:])
		switch {
		case err == syscall.EINTR, err == syscall.EAGAIN:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return buf[:end], nil
		}
		end += n
	}
	return buf, nil
}

// parseLogin splits login NUL password NUL timestamp NUL. The timestamp serves APOP, which cannot work with stored
// hashes, and is not looked at: Dovecot sends an empty one, and some programs none.
func parseLogin(b []byte) (login, password string, err error) {
	name, rest, ok := bytes.Cut(b, []byte{0})
	if !ok {
		return "", "", errInput
	}
	secret, _, ok := bytes.Cut(rest, []byte{0})
	if !ok {
		return "", "", errInput
	}
	return string(name), string(secret), nil
}
