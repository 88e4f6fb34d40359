package host

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// What a plugin may log: a burst of lines, then so many a second, each cut to so many bytes. The rest is counted.
const (
	linesBurst  = 200
	linesPerSec = 100
	lineBytes   = 4 << 10
)

// output logs what a plugin prints, within limits that hold for all its streams together and across restarts.
type output struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	tokens  float64
	at      time.Time
	dropped int64 // since the last line that was logged
	total   int64
}

func newOutput(log *slog.Logger, now func() time.Time) *output {
	return &output{log: log, now: now, tokens: linesBurst, at: now()}
}

// drain reads r to its end. It never stops early: a full pipe would block the plugin.
func (o *output) drain(stream string, r io.Reader) {
	br := bufio.NewReaderSize(r, lineBytes)
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			o.line(stream, line)
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line that is too long
			_, err = br.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// line logs one line, or counts it.
func (o *output) line(stream string, line []byte) {
	o.mu.Lock()
	now := o.now()
	if passed := now.Sub(o.at); passed > 0 {
		o.tokens = min(linesBurst, o.tokens+passed.Seconds()*linesPerSec)
	}
	o.at = now
	if o.tokens < 1 {
		o.dropped++
		o.total++
		o.mu.Unlock()
		return
	}
	o.tokens--
	dropped := o.dropped
	o.dropped = 0
	o.mu.Unlock()

	if dropped > 0 {
		o.log.Warn("plugin printed too much", "lines_dropped", dropped)
	}
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	if len(line) == 0 {
		return
	}
	o.log.LogAttrs(context.Background(), slog.LevelInfo, "plugin says", slog.String("stream", stream), auth.Quoted("line", string(line)))
}

// droppedLines is the number of lines that were not logged.
func (o *output) droppedLines() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// writer returns what go-plugin writes a stream to that it carries itself. It has no line for less than a line, so it keeps the
// beginning of one.
func (o *output) writer(stream string) io.Writer { return &lineWriter{out: o, stream: stream} }

type lineWriter struct {
	out    *output
	stream string
	mu     sync.Mutex
	buf    []byte
	skip   bool // in the rest of a line that is too long
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range b {
		switch {
		case c == '\n':
			if !w.skip {
				w.out.line(w.stream, w.buf)
			}
			w.buf, w.skip = w.buf[:0], false
		case w.skip:
		default:
			if w.buf = append(w.buf, c); len(w.buf) == lineBytes {
				w.out.line(w.stream, w.buf)
				w.buf, w.skip = w.buf[:0], true
			}
		}
	}
	return len(b), nil
}
