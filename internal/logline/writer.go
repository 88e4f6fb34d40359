package logline

import (
	"fmt"
	"io"
	"sync"
)

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
	dropped int
	writing bool
	closed  bool
}

// NewWriter starts the goroutine; Close ends it.
func NewWriter(out io.Writer) *Writer {
	w := &Writer{out: out}
	w.cond.L = &w.mu
	go w.run()
	return w
}

func (w *Writer) line(b []byte) {
	w.mu.Lock()
	if len(w.pending)+len(b) > maxPending || w.closed {
		w.dropped++
	} else {
		w.pending = append(w.pending, b...)
	}
	w.mu.Unlock()
	w.cond.Broadcast()
}

func (w *Writer) run() {
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
		chunk := w.pending
		w.pending, w.spare = w.spare[:0], nil
		w.writing = true
		w.mu.Unlock()
		w.out.Write(chunk) // there is nowhere to report a failure to
		w.mu.Lock()
		w.writing = false
		w.spare = chunk[:0]
		w.cond.Broadcast()
	}
}

// Flush waits until everything that was logged before is written. It waits as long as the output does.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) > 0 || w.writing {
		w.cond.Broadcast()
		w.cond.Wait()
	}
}

// Close writes what is pending and ends the goroutine. Lines that come later are lost.
func (w *Writer) Close() {
	w.Flush()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cond.Broadcast()
}
