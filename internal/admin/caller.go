package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// credentials are what the kernel says of the process that connected: as it was at that moment, with the groups that it had then. The
// zero value is of nobody known, not of root.
type credentials struct {
	known    bool
	uid, gid uint32
	groups   []uint32 // supplementary ones
}

func (c credentials) member(gid uint32) bool { return c.gid == gid || slices.Contains(c.groups, gid) }

// credentialsOf asks the kernel who is at the other end of a Unix socket.
func credentialsOf(c net.Conn) credentials {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return credentials{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return credentials{}
	}
	var out credentials
	raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		groups, err := peerGroups(fd)
		if errors.Is(err, unix.ENOPROTOOPT) { // Linux before 4.13
			groups, _ = groupsOf(cred.Uid)
		}
		// Who cannot be asked for his groups has none: that takes rights away and gives none.
		out = credentials{known: true, uid: cred.Uid, gid: cred.Gid, groups: groups}
	})
	return out
}

// peerGroups reads SO_PEERGROUPS (socket(7)), which package unix has no function for.
func peerGroups(fd uintptr) ([]uint32, error) {
	buffer := make([]byte, 4*32)
	for {
		size := uint32(len(buffer))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size) > len(buffer) && size <= 4*65536: // NGROUPS_MAX
			buffer = make([]byte, size)
			continue
		case errno != 0:
			return nil, errno
		}
		groups := make([]uint32, 0, size/4)
		for b := buffer[:size]; len(b) >= 4; b = b[4:] {
			groups = append(groups, binary.NativeEndian.Uint32(b))
		}
		return groups, nil
	}
}

// groupsOf returns the groups that the system's tables give a user.
func groupsOf(uid uint32) ([]uint32, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var out []uint32
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	return out, nil
}

// userName returns the name that the system has for a user id.
func userName(uid uint32) (string, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// caller is who makes a call.
type caller struct {
	credentials
	name string // empty: the system has none for the user id
	role Role
	own  string // login of the account that is his own; empty: none
}

// text names the caller for the audit log.
func (c caller) text() string {
	id := strconv.FormatUint(uint64(c.uid), 10)
	switch {
	case !c.known:
		return "unknown"
	case c.uid == 0:
		return "root"
	case c.name == "":
		return "uid " + id
	}
	return clip(c.name) + " (uid " + id + ")"
}

// caller works out who it is. The name comes from the system's tables, which may ask a server for it: that is done once for each
// connection, at its first call, never where connections are accepted.
func (s *Server) caller(c credentials) caller {
	out := caller{credentials: c, role: s.access.role(c)}
	if !c.known {
		return out
	}
	if name, err := s.userName(c.uid); err == nil {
		out.name = name
		out.own = s.access.Self.login(name, c.uid)
	}
	return out
}

type callerKey struct{}

// withCaller keeps with a connection how to find out who makes its calls.
func (s *Server) withCaller(ctx context.Context, c net.Conn) context.Context {
	var cred credentials
	if a, ok := c.(*admitted); ok {
		cred = a.credentials
	}
	return context.WithValue(ctx, callerKey{}, sync.OnceValue(func() caller { return s.caller(cred) }))
}

func callerOf(r *http.Request) caller { return r.Context().Value(callerKey{}).(func() caller)() }

// actor names the caller for the audit log.
func actor(r *http.Request) string { return callerOf(r).text() }

// ownUID is the daemon's: whoever may send it signals may as well use its API.
var ownUID = uint32(os.Geteuid())
