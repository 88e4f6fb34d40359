package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/valetkey/valetkey/plugin"
)

// parallel is how many files are looked for at once. A disk that does not answer holds each of them, whatever the deadline.
const parallel = 16

// template is where the files of users are.
type template struct {
	text    string
	witness string
	slots   chan struct{}
	stat    func(string) (os.FileInfo, error) // os.Stat but in tests
}

func newTemplate(text, witness string) (*template, error) {
	t := &template{text: text, witness: witness, slots: make(chan struct{}, parallel), stat: os.Stat}
	if !filepath.IsAbs(text) {
		return nil, fmt.Errorf("the template is not an absolute path: %q", text)
	}
	if witness != "" && !filepath.IsAbs(witness) {
		return nil, fmt.Errorf("the witness is not an absolute path: %q", witness)
	}
	user := false
	for rest := text; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			break
		}
		if after == "" || !strings.Contains("und%", after[:1]) {
			return nil, errors.New("the template has a % that is followed by none of u, n, d and %")
		}
		user = user || after[0] == 'u' || after[0] == 'n'
		rest = after[1:]
	}
	if !user {
		return nil, errors.New("the template has neither %u nor %n, so that all users would have the same file")
	}
	return t, nil
}

// path returns the path for a login; ok is false if the login cannot be part of one. Nothing that a login holds can lead out of
// the place in the template where it stands.
func (t *template) path(login string) (path string, ok bool) {
	name, domain, _ := strings.Cut(login, "@")
	var b strings.Builder
	for i := 0; i < len(t.text); i++ {
		if t.text[i] != '%' {
			b.WriteByte(t.text[i])
			continue
		}
		i++
		part := "%"
		switch t.text[i] {
		case 'u':
			part = login
		case 'n':
			part = name
		case 'd':
			part = domain
		}
		if t.text[i] != '%' && !harmless(part) {
			return "", false
		}
		b.WriteString(part)
	}
	return b.String(), true
}

// harmless reports whether s can stand in a path without meaning more than a name, whatever stands beside it. A name that begins
// with a dot could become "..", or a hidden file that means something else.
func harmless(s string) bool {
	if s == "" || len(s) > 255 || s[0] == '.' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r < ' ' || r == 0x7f })
}

// Check looks for the file. The context bounds the wait for a free slot; a file system that does not answer cannot be left.
func (t *template) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	path, ok := t.path(r.Login)
	if !ok {
		return plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "odd_login"}, nil
	}
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return plugin.Answer{}, ctx.Err()
	}
	info, err := t.stat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "not_a_file"}, nil
	case err == nil && info.Size() == 0:
		return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "empty_file"}, nil
	case err == nil:
		return plugin.Answer{Status: plugin.Enrolled, ReasonCode: "file"}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return plugin.Answer{}, err
	}
	// Missing. That says something only if what it would be in is there.
	for _, there := range []string{filepath.Dir(path), t.witness} {
		if there == "" {
			continue
		}
		if _, err := t.stat(there); err != nil {
			return plugin.Answer{}, fmt.Errorf("no file for the login, and nothing is known: %w", err)
		}
	}
	return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "no_file"}, nil
}
