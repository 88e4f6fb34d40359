package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// fakeTarget answers with a function, at once or, where it blocks, until the session is closed.
type fakeTarget struct {
	answer func(credential int) (bool, error)
	hang   bool
}

type fakeSession struct {
	fakeTarget
	closed chan struct{}
	once   *atomic.Bool
}

func (t fakeTarget) dial() (session, error) {
	return fakeSession{t, make(chan struct{}), new(atomic.Bool)}, nil
}

func (s fakeSession) login(i int) (bool, error) {
	if s.hang {
		<-s.closed
		return false, net.ErrClosed
	}
	return s.answer(i)
}

func (s fakeSession) close() error {
	if !s.once.Swap(true) {
		close(s.closed)
	}
	return nil
}

var shortLoad = load{connections: 3, credentials: 10, warmUp: time.Millisecond, measure: 20 * time.Millisecond, grace: time.Minute}

func TestGenerateCountsAgainstEchoServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "echo")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	e := newDovecotEcho("unix", path, newCredentials(10))
	go echoLoop(ln, e.replySize)
	edges := 0
	r, err := generate(t.Context(), e, shortLoad, func() { edges++ }, func() { edges++ })
	if err != nil {
		t.Fatal(err)
	}
	if r.logins == 0 || r.logins != len(r.latencies) || edges != 2 {
		t.Errorf("generate = %d logins, %d latencies, %d edges, want some, as many, 2", r.logins, len(r.latencies), edges)
	}
}

func TestGenerateEndsAtFirstWrongAnswer(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name   string
		target fakeTarget
		grace  time.Duration
		want   error
	}{
		{"rejected", fakeTarget{answer: func(i int) (bool, error) { return i != 7, nil }}, time.Minute, errRejected},
		{"error", fakeTarget{answer: func(i int) (bool, error) { return true, broken }}, time.Minute, broken},
		{"no answer", fakeTarget{hang: true}, time.Millisecond, errNoAnswer},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := shortLoad
			l.grace = c.grace
			_, err := generate(t.Context(), c.target, l, func() {}, func() {})
			if !errors.Is(err, c.want) {
				t.Errorf("generate = %v, want %v", err, c.want)
			}
		})
	}
}

func TestGenerateIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := shortLoad
	l.measure = time.Hour
	_, err := generate(ctx, fakeTarget{hang: true}, l, cancel, func() {})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("generate = %v, want context.Canceled", err)
	}
}

func TestOnceTriesEachCredentialOnce(t *testing.T) {
	var tries [100]atomic.Int32
	last := 0
	accepted, err := once(t.Context(), fakeTarget{answer: func(i int) (bool, error) {
		tries[i].Add(1)
		return i%2 == 0, nil
	}}, len(tries), 7, func(done int) { last = done })
	if err != nil || accepted != 50 || last != 100 {
		t.Errorf("once = %d, %v, last progress %d, want 50, nil, 100", accepted, err, last)
	}
	for i := range tries {
		if n := tries[i].Load(); n != 1 {
			t.Errorf("credential %d tried %d times, want 1", i, n)
		}
	}
}
