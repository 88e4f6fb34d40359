package cluster

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	maxLogLine       = 2048 // bytes; the rest of a longer line is dropped
	maxLogLinesBurst = 50   // per second
	keptLogLines     = 10   // for the error of a server that does not start
)

// serverLog passes what Postgres writes to standard error on to the daemon's log, within limits, and keeps the last
// lines for an error message.
type serverLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last []string
}

// copy reads until the last process that holds the other end has ended.
func (l *serverLog) copy(r io.ReadCloser) {
	defer r.Close()
	br := bufio.NewReaderSize(r, maxLogLine)
	var window time.Time
	var inWindow, dropped int
	for {
		b, err := br.ReadSlice('\n')
		line := strings.TrimRight(string(b), "\r\n")
		for err == bufio.ErrBufferFull { // drop the rest of the line
			_, err = br.ReadSlice('\n')
		}
		if line != "" {
			l.keep(line)
			if now := time.Now(); now.Sub(window) >= time.Second {
				if dropped > 0 {
					l.log.Warn("postgres log lines dropped", "lines", dropped)
				}
				window, inWindow, dropped = now, 0, 0
			}
			if inWindow++; inWindow <= maxLogLinesBurst {
				l.log.Log(context.Background(), lineLevel(line), "postgres", "line", line)
			} else {
				dropped++
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *serverLog) keep(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == keptLogLines {
		copy(l.last, l.last[1:])
		l.last = l.last[:keptLogLines-1]
	}
	l.last = append(l.last, line)
}

// tail returns the last lines, on one line.
func (l *serverLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "; ")
}

func lineLevel(line string) slog.Level {
	switch severity, _, _ := strings.Cut(line, ":"); severity {
	case "PANIC":
		return slog.LevelError
	case "FATAL", "ERROR", "WARNING":
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}
