package checkpassword

import (
	"net"
	"syscall"
)

// peerCredentials are those of the process that connected (SO_PEERCRED, unix(7)); ok is false if the connection is not
// a Unix socket. They are for the log only: the socket's permissions decide who may ask.
func peerCredentials(nc net.Conn) (pid int32, uid uint32, ok bool) {
	u, isUnix := nc.(*net.UnixConn)
	if !isUnix {
		return 0, 0, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return 0, 0, false
	}
	return cred.Pid, cred.Uid, true
}
