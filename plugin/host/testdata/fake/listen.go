package main

import "syscall"

// listen opens a socket whose connections nobody takes.
func listen(path string) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = syscall.Listen(fd, 5)
	}
	if err != nil {
		panic(err)
	}
}
