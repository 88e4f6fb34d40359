package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/plugin"
)

// maxList bounds a list, in bytes: about a million logins.
const maxList = 32 << 20

// settle is how old a change must be before the file counts as read: a second one within the resolution of its times would not be
// seen.
const settle = 2 * time.Second

// list is a file of logins.
type list struct {
	path string
	now  func() time.Time

	slot    chan struct{} // guards what follows; unlike a mutex it can be waited for with a deadline, when a disk does not answer
	read    os.FileInfo   // of what was read last; nil: nothing that can be relied on
	settled bool          // read when its last change was old enough
	logins  map[string]plugin.Status
}

// newList reads nothing yet: a file that is missing at the start may come.
func newList(path string, now func() time.Time) (*list, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the path of the list is not absolute: %q", path)
	}
	return &list{path: path, now: now, slot: make(chan struct{}, 1)}, nil
}

// Check looks the login up, in the file as it is now.
func (l *list) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	select {
	case l.slot <- struct{}{}:
		defer func() { <-l.slot }()
	case <-ctx.Done():
		return plugin.Answer{}, ctx.Err()
	}
	if err := l.refresh(); err != nil {
		return plugin.Answer{}, err
	}
	status, listed := l.logins[r.Login]
	if !listed {
		return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "not_listed"}, nil
	}
	return plugin.Answer{Status: status, ReasonCode: "listed"}, nil
}

// refresh reads the file if it has changed. After an error the old content does not count: it may be wrong, and the daemon has
// last answers of its own.
func (l *list) refresh() error {
	info, err := os.Stat(l.path)
	if err != nil {
		l.read = nil
		return err
	}
	if l.read != nil && l.settled && unchanged(l.read, info) {
		return nil
	}
	l.read = nil
	if !info.Mode().IsRegular() { // before it is opened: opening a pipe waits
		return fmt.Errorf("%s is not a plain file", l.path)
	}
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err != nil {
		return fmt.Errorf("reading %s: %w", l.path, err)
	}
	if len(text) > maxList {
		return fmt.Errorf("%s is larger than %d MiB", l.path, maxList>>20)
	}
	logins, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	l.read, l.logins = info, logins
	age := l.now().Sub(info.ModTime())
	l.settled = age >= settle || age < -settle // a time that somebody set is no recent change
	return nil
}

func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// parse reads the lines. One that cannot be understood spoils the file, and so does a file without a login: it is more likely being
// written than meant.
func parse(text []byte) (map[string]plugin.Status, error) {
	logins := make(map[string]plugin.Status)
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		status := plugin.Enrolled
		switch {
		case len(words) == 0:
			continue
		case len(words) == 2 && words[1] == "exempt":
			status = plugin.Exempt
		case len(words) > 1:
			return nil, fmt.Errorf("line %d: a login may be followed by the word exempt or by a comment only", n)
		}
		login, err := auth.NormaliseLogin(words[0]) // as the daemon does with what users type
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if _, twice := logins[login]; twice && logins[login] != status {
			return nil, fmt.Errorf("line %d: the login is listed twice, once as exempt", n)
		}
		logins[login] = status
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("a line is too long: %w", err)
	}
	if len(logins) == 0 {
		return nil, errors.New("the list has no login")
	}
	return logins, nil
}
