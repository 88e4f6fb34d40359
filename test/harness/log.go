package harness

import (
	"bytes"
	"strings"
	"sync"
	"time"
)

// Log keeps the lines that a process wrote. The zero value is ready to use.
type Log struct {
	mu      sync.Mutex
	lines   []string
	partial []byte
	changed chan struct{} // closed and replaced at each new line; nil while nobody waits
}

// Write implements [io.Writer]; it never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		i := bytes.IndexByte(l.partial, '\n')
		if i < 0 {
			break
		}
		l.lines = append(l.lines, string(l.partial[:i]))
		l.partial = l.partial[i+1:]
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(p), nil
}

// Mark is the place after the last line; give it to [Log.Since] or [Log.Wait] to see only what comes later.
func (l *Log) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// Since returns the lines after mark.
func (l *Log) Since(mark int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines[min(mark, len(l.lines)):]...)
}

// String returns everything, an unfinished last line included.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n") + "\n" + string(l.partial)
}

// Wait returns the first line after mark for which match is true; ok is false if none came within.
func (l *Log) Wait(mark int, within time.Duration, match func(string) bool) (line string, ok bool) {
	timeout := time.After(within)
	for {
		l.mu.Lock()
		for ; mark < len(l.lines); mark++ {
			if match(l.lines[mark]) {
				line = l.lines[mark]
				l.mu.Unlock()
				return line, true
			}
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			return "", false
		}
	}
}

// Tail returns the last n lines.
func (l *Log) Tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-n):], "\n")
}

// AuthLine is the log line of one attempt, by key.
type AuthLine map[string]string

// ParseAuthLine reads a log line of the form `auth: result=… rip=… user="…"`; ok is false if it is another one.
func ParseAuthLine(line string) (a AuthLine, ok bool) {
	_, rest, ok := strings.Cut(line, "auth: result=")
	if !ok {
		return nil, false
	}
	a = AuthLine{}
	rest = "result=" + rest
	for rest = strings.TrimLeft(rest, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		key, value, found := strings.Cut(rest, "=")
		if !found || strings.ContainsAny(key, " \"") {
			return nil, false
		}
		if strings.HasPrefix(value, `"`) {
			end := 1
			for end < len(value) && value[end] != '"' {
				if value[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(value) {
				return nil, false
			}
			a[key], rest = value[1:end], value[end+1:]
			continue
		}
		a[key], rest, _ = strings.Cut(value, " ")
	}
	return a, true
}
