package logline

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// gather is the least time between two writes. Under load one write then takes many lines; a single line does not wait.
const gather = time.Millisecond

// maxPending bounds what waits for the output, in bytes: about 8,000 lines.
const maxPending = 1 << 20

// Writer takes lines and writes them from its own goroutine, all that queued in one write. A login therefore never waits for
// the log, also when the disk is full or the reader of a pipe stopped. What does not fit is dropped and counted in a line of
// its own. Make one with [NewWriter].
type Writer struct {
	out io.Writer

	mu      sync.Mutex
	cond    sync.Cond
	pending []byte
	spare   []byte
	taken   uint64 // lines that were put into pending, ever
	written uint64 // of them, how many the output has been given
	dropped int
	closed  bool
	ended   chan struct{} // the goroutine is gone
}

// NewWriter starts the goroutine; Close ends it.
func NewWriter(out io.Writer) *Writer {
	w := &Writer{out: out, ended: make(chan struct{})}
	w.cond.L = &w.mu
	go w.run()
	return w
}

func (w *Writer) line(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return
	case len(w.pending)+len(b) > maxPending:
		if w.dropped++; w.dropped == 1 {
			w.taken++ // the line that will tell of it
		}
	default:
		w.pending = append(w.pending, b...)
		w.taken++
	}
	w.cond.Broadcast()
}

func (w *Writer) run() {
	defer close(w.ended)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.pending) == 0 && w.dropped == 0 && !w.closed {
			w.cond.Wait()
		}
		if len(w.pending) == 0 && w.dropped == 0 {
			return
		}
		if w.dropped > 0 {
			w.pending = fmt.Appendf(w.pending, "valetkeyd: warning: log: lines were dropped because the output did not take them: dropped=%d\n", w.dropped)
			w.dropped = 0
		}
		chunk, upTo := w.pending, w.taken
		w.pending, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		w.out.Write(chunk) // there is nowhere to report a failure to
		w.mu.Lock()
		w.written = upTo
		w.spare = chunk[:0]
		w.cond.Broadcast()
		if !w.closed {
			w.mu.Unlock()
			time.Sleep(gather)
			w.mu.Lock()
		}
	}
}

// Flush waits until everything that was logged before is written. It waits as long as the output does.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for upTo := w.taken; w.written < upTo; {
		w.cond.Wait()
	}
}

// Close writes what is pending and ends the goroutine, as long as that takes. Lines that come later are lost.
func (w *Writer) Close() {
	w.mu.Lock()
	w.closed = true
	w.cond.Broadcast()
	w.mu.Unlock()
	<-w.ended
}
