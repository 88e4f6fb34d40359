package migrate

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
)

// repeated repeats a text so many times without holding it.
func repeated(head, text string, times int) io.Reader {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriter(w)
		b.WriteString(head)
		for range times {
			if _, err := b.WriteString(text); err != nil {
				w.CloseWithError(err)
				return
			}
		}
		b.Flush()
		w.Close()
	}()
	return r
}

// What is left out is listed up to a bound, and counted beyond it: a file of nothing else does not fill the memory.
func TestSkippedIsBounded(t *testing.T) {
	const more = 17
	r, err := Read("csv", repeated("login,hash,active,label\n", "a,x,no,"+strings.Repeat("l", 300)+"\n", maxSkipped+more), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Skipped) != maxSkipped || len(r.Skipped[0].Label) > 300 {
		t.Errorf("%d are listed, with labels of %d bytes, want %d", len(r.Skipped), len(r.Skipped[0].Label), maxSkipped)
	}
	if want := fmt.Sprintf("%d more are left out", more); len(r.Notes) == 0 || !strings.Contains(r.Notes[len(r.Notes)-1], want) {
		t.Errorf("notes %q, want %q", r.Notes, want)
	}
}

// A table with columns without end is refused when they are too many, not at the end.
func TestColumnsAreBounded(t *testing.T) {
	input := repeated("CREATE TABLE mailbox (", "c int, ", 1<<30)
	_, err := Read("postfixadmin", input, Options{})
	if err == nil || !strings.Contains(err.Error(), "256 columns") {
		t.Errorf("Read = %v, want more than 256 columns", err)
	}
	input.(*io.PipeReader).Close()
}
