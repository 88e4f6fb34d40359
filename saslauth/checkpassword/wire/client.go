package wire

import (
	"errors"
	"io"
	"syscall"
	"time"
)

// Error says at which step the asking failed. Its text names no file and no field: it is for the peer's log.
type Error struct {
	Step string // "connect to the daemon", ...
	Err  error
}

func (e *Error) Error() string { return "cannot " + e.Step + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ErrTimeout means that the daemon did not answer before the deadline.
var ErrTimeout = errors.New("no answer in time")

// Ask sends the request to the daemon that listens on the Unix socket at path, and returns its reply. It returns by the
// deadline, whatever the daemon does. Any error means undecided; it is an [Error] that may wrap [ErrTimeout] or an errno.
func Ask(path string, r Request, deadline time.Time) (Reply, error) {
	message, err := AppendRequest(nil, r)
	if err != nil {
		return Reply{}, &Error{"ask the daemon", err}
	}
	defer clear(message)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Reply{}, &Error{"make a socket", err}
	}
	c := conn{fd, deadline}
	defer syscall.Close(fd)
	if err := c.connect(path); err != nil {
		return Reply{}, &Error{"connect to the daemon", err}
	}
	if err := c.writeAll(message); err != nil {
		return Reply{}, &Error{"send to the daemon", err}
	}
	reply, err := c.reply()
	if err != nil {
		return Reply{}, &Error{"read the daemon's answer", err}
	}
	return reply, nil
}

// conn is a blocking socket whose every call ends by the deadline: SO_SNDTIMEO bounds connect and write (unix(7)),
// SO_RCVTIMEO read.
type conn struct {
	fd       int
	deadline time.Time
}

func (c conn) connect(path string) error {
	for {
		if err := c.limit(syscall.SO_SNDTIMEO); err != nil {
			return err
		}
		// A Unix socket is connected or not when connect returns, so an interrupted call can be repeated.
		switch err := syscall.Connect(c.fd, &syscall.SockaddrUnix{Name: path}); err {
		case syscall.EINTR:
		case syscall.EAGAIN: // the backlog is full and stayed so
			return ErrTimeout
		default:
			return err
		}
	}
}

func (c conn) writeAll(b []byte) error {
	for len(b) > 0 {
		if err := c.limit(syscall.SO_SNDTIMEO); err != nil {
			return err
		}
		// MSG_NOSIGNAL: a daemon that hangs up is an error, not a signal.
		n, err := syscall.SendmsgN(c.fd, b, nil, nil, syscall.MSG_NOSIGNAL)
		switch err {
		case nil:
			b = b[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return ErrTimeout
		default:
			return err
		}
	}
	return nil
}

func (c conn) readFull(b []byte) error {
	for len(b) > 0 {
		if err := c.limit(syscall.SO_RCVTIMEO); err != nil {
			return err
		}
		n, err := syscall.Read(c.fd, b)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return ErrTimeout
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			b = b[n:]
		}
	}
	return nil
}

func (c conn) reply() (Reply, error) {
	var header [HeaderSize]byte
	if err := c.readFull(header[:]); err != nil {
		return Reply{}, err
	}
	n, err := ReplyLength(header)
	if err != nil {
		return Reply{}, err
	}
	body := make([]byte, n)
	if err := c.readFull(body); err != nil {
		return Reply{}, err
	}
	return ParseReply(header, body)
}

// limit gives the next call what is left of the time. Zero would mean for ever.
func (c conn) limit(option int) error {
	left := time.Until(c.deadline)
	if left <= 0 {
		return ErrTimeout
	}
	tv := syscall.NsecToTimeval(int64(max(left, time.Millisecond)))
	return syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, option, &tv)
}
