package main

import (
	"os"
	"os/signal"
	"syscall"
)

// survivePipes keeps a log reader that went away from ending the daemon: the write fails with EPIPE instead.
//
// Not by ignoring the signal: what is ignored stays so in every program that is started (execve(2)), and a hook, sendmail, a plugin
// or Postgres would wait for a death that does not come. Whoever started us may have ignored it too, as systemd does
// (systemd.exec(5), IgnoreSIGPIPE=); a handler, which os/signal installs, becomes the default again in the child.
func survivePipes() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // nobody reads it: what does not fit is dropped
}
