package certs

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxFile bounds what is read, in bytes. A chain has some KiB.
const maxFile = 1 << 20

// stamp tells one state of a file from another. Symbolic links are followed: certbot replaces only those.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
	missing      bool
}

func (f Files) stamps() [2]stamp { return [2]stamp{stampOf(f.Cert), stampOf(f.Key)} }

func stampOf(path string) stamp {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return stamp{missing: true}
	}
	return stamp{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// load reads a pair. An error names the file and the cure and holds nothing of its content.
func load(f Files) (*tls.Certificate, error) {
	cert, err := read(f.Cert, false)
	if err != nil {
		return nil, err
	}
	key, err := read(f.Key, true)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	defer clear(cert) // it may hold the key, too
	if !holds(cert, func(kind string) bool { return kind == "CERTIFICATE" }) {
		return nil, fmt.Errorf("%s: it holds no certificate in PEM; it must begin with -----BEGIN CERTIFICATE-----, the server's own first", f.Cert)
	}
	switch {
	case holds(key, func(kind string) bool { return kind == "ENCRYPTED PRIVATE KEY" }), bytes.Contains(key, []byte("Proc-Type: 4,ENCRYPTED")):
		return nil, fmt.Errorf("%s: the key is encrypted, and nobody is there to type its password; run: openssl pkey -in %s -out NEW", f.Key, f.Key)
	case !holds(key, func(kind string) bool { return kind == "PRIVATE KEY" || strings.HasSuffix(kind, " PRIVATE KEY") }):
		return nil, fmt.Errorf("%s: it holds no private key in PEM", f.Key)
	}
	c, err := tls.X509KeyPair(cert, key)
	switch {
	case err == nil:
		return &c, nil
	case strings.Contains(err.Error(), "does not match"):
		return nil, fmt.Errorf("%s: the key does not belong to the first certificate in %s; install both again, the server's own certificate first", f.Key, f.Cert)
	case strings.Contains(err.Error(), "private key"):
		return nil, fmt.Errorf("%s: the key is damaged or of a kind that is not known; install it again", f.Key)
	}
	return nil, fmt.Errorf("%s: the certificate is damaged: %w; install it again", f.Cert, err)
}

// holds reports whether there is a PEM block whose type is right.
func holds(text []byte, right func(kind string) bool) bool {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return false
		}
		if right(b.Type) {
			return true
		}
	}
}

// read reads a file. One with a key may be read by the owner and a group, as Debian's group ssl-cert does it, since servers share a
// certificate; what everybody may read, or a group may replace, is refused.
func read(path string, secret bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for the writer of a named pipe
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: the daemon may not read it; let it through a group: chgrp GROUP %s and chmod 640 %s, and the directories above", path, path, path)
	case err != nil:
		return nil, fmt.Errorf("%s: %w; check the path", path, cause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if mode := info.Mode().Perm(); secret && mode&0o027 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others read the key, or a group replace it; run: chmod 640 %s, or 600", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes; it is no certificate", path, maxFile)
	}
	return text, nil
}

// cause takes the path out of an error, as the message begins with it.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
