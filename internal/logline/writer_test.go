package logline

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// gate is an output that takes a chunk only when it is told to.
type gate struct {
	mu     sync.Mutex
	chunks []string
	open   chan struct{} // one chunk for each value; all when closed
	err    error
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.chunks = append(g.chunks, string(b))
	if g.err != nil {
		return 0, g.err
	}
	return len(b), nil
}

func (g *gate) written() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.chunks...)
}

func TestWriterCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := NewWriter(g)
		w.line([]byte("first\n"))
		synctest.Wait() // the first is being written
		var want strings.Builder
		for i := range 100 {
			line := fmt.Sprintf("line %d\n", i)
			w.line([]byte(line))
			want.WriteString(line)
		}
		close(g.open)
		w.Close()
		synctest.Wait()
		if got := g.written(); len(got) != 2 || got[0] != "first\n" || got[1] != want.String() {
			t.Errorf("written %q, want the first line, then all that queued in one write", got)
		}
	})
}

// The writer's buffers take turns: what is being written must not change under the output.
func TestWriterReusesItsBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := NewWriter(g)
		var want []string
		for i := range 10 {
			line := fmt.Sprintf("%s %d\n", strings.Repeat("x", 100-10*i), i)
			w.line([]byte(line))
			want = append(want, line)
			if i > 0 {
				g.open <- struct{}{} // lets the one before go, which was in the output's hands while this one came
			}
			synctest.Wait()
		}
		close(g.open)
		w.Close()
		synctest.Wait()
		if got := strings.Join(g.written(), ""); got != strings.Join(want, "") {
			t.Errorf("written %q, want %q", got, want)
		}
	})
}

// The caller's buffer is its own again when line returns.
func TestWriterCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := NewWriter(g)
		b := []byte("mine\n")
		w.line(b)
		copy(b, "xxxx\n")
		close(g.open)
		w.Close()
		synctest.Wait()
		if got := g.written(); len(got) != 1 || got[0] != "mine\n" {
			t.Errorf("written %q, want the line as it was given", got)
		}
	})
}

// A blocked output delays nobody, costs a bounded amount of memory, and is told about afterwards.
func TestWriterOfBlockedOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := NewWriter(g)
		w.line([]byte("first\n"))
		synctest.Wait()
		line := []byte(strings.Repeat("x", 1023) + "\n")
		const lines = 5000
		for range lines { // the test would deadlock here if line waited
			w.line(line)
		}
		w.mu.Lock()
		pending := len(w.pending)
		w.mu.Unlock()
		if pending > maxPending {
			t.Errorf("%d bytes wait, want at most %d", pending, maxPending)
		}
		close(g.open)
		w.Flush()
		w.line([]byte("last\n"))
		w.Close()
		synctest.Wait()
		text := strings.Join(g.written(), "")
		m := regexp.MustCompile(`(?m)^.* warning: .* dropped=(\d+)$`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("%d lines into a blocked output: no line says that some were dropped", lines)
		}
		kept := strings.Count(text, string(line))
		if dropped, _ := strconv.Atoi(m[1]); kept+dropped != lines || kept != maxPending/len(line) {
			t.Errorf("%d lines: %d written, %s dropped, want %d written and the rest dropped", lines, kept, m[1], maxPending/len(line))
		}
		if !strings.HasSuffix(text, "last\n") || strings.Count(text, "dropped=") != 1 {
			t.Errorf("the text ends in %q, want the line that came after and one line about what was dropped", text[len(text)-100:])
		}
	})
}

func TestWriterOfHugeLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := NewWriter(&out)
		w.line(append(bytes.Repeat([]byte("x"), maxPending), '\n'))
		w.line([]byte("next\n"))
		w.Flush()
		w.Close()
		synctest.Wait()
		if got := out.String(); !strings.Contains(got, "dropped=1\n") || !strings.Contains(got, "next\n") || len(got) > 1000 {
			t.Errorf("written %d bytes, %.200q, want the next line and dropped=1", len(got), got)
		}
	})
}

// What was dropped is part of what was logged before.
func TestFlushTellsWhatWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := NewWriter(g)
		w.line(append(bytes.Repeat([]byte("x"), maxPending), '\n'))
		done := make(chan struct{})
		go func() { w.Flush(); close(done) }()
		synctest.Wait()
		select {
		case <-done:
			t.Errorf("Flush returned before the line about what was dropped was written")
		default:
		}
		close(g.open)
		<-done
		w.Close()
		synctest.Wait()
	})
}

func TestFlushWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := NewWriter(g)
		w.Flush() // nothing was logged
		w.line([]byte("a\n"))
		synctest.Wait()
		w.line([]byte("b\n"))
		done := make(chan struct{})
		go func() { w.Flush(); close(done) }()
		for _, chunk := range []string{"a", "b"} {
			synctest.Wait()
			select {
			case <-done:
				t.Fatalf("Flush returned before %s was written", chunk)
			default:
			}
			g.open <- struct{}{}
		}
		<-done
		if got := strings.Join(g.written(), ""); got != "a\nb\n" {
			t.Errorf("written %q after Flush, want both lines", got)
		}
		w.Close()
		synctest.Wait()
	})
}

// Flush waits for what was logged before it, not for what others go on logging: a daemon that is still busy can be stopped.
func TestFlushDoesNotWaitForLaterLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := NewWriter(g)
		w.line([]byte("before\n"))
		synctest.Wait()
		done := make(chan struct{})
		go func() { w.Flush(); close(done) }()
		synctest.Wait()
		w.line([]byte("after\n"))
		g.open <- struct{}{} // "before" is written, "after" is not
		synctest.Wait()
		select {
		case <-done:
		default:
			t.Errorf("Flush still waits after everything that was logged before it is written")
		}
		close(g.open)
		w.Close()
		synctest.Wait()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which ends only when every goroutine has
		var out bytes.Buffer
		w := NewWriter(&out)
		for i := range 10 {
			w.line(fmt.Appendf(nil, "line %d\n", i))
		}
		w.Close()
		if got := strings.Count(out.String(), "\n"); got != 10 {
			t.Errorf("%d lines written when Close returned, want 10", got)
		}
		w.Close() // again
		synctest.Wait()
	})
}

// After Close the output belongs to somebody else: nothing may be written to it.
func TestNothingIsWrittenAfterClose(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			g := newGate()
			close(g.open)
			w := NewWriter(g)
			w.line([]byte("before\n"))
			w.Close()
			w.line([]byte("after\n"))
			w.Flush()
			synctest.Wait()
			if got := strings.Join(g.written(), ""); got != "before\n" {
				t.Errorf("written %q, want only what was logged before Close", got)
			}
		})
		if t.Failed() {
			return
		}
	}
}

func TestWriterOfBrokenOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.err = errors.New("no space left on device")
		close(g.open)
		w := NewWriter(g)
		for range 3 {
			w.line([]byte("line\n"))
			w.Flush()
		}
		w.Close()
		synctest.Wait()
		if got := len(g.written()); got != 3 {
			t.Errorf("%d lines were tried, want 3: an error must not end the log", got)
		}
	})
}
