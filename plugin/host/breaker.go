package host

import (
	"sync"
	"time"
)

// The breaker opens after so many failures in a row, and then lets one question through each interval.
const (
	breakAfter = 5
	breakRetry = time.Second
)

// breaker keeps logins from waiting for a plugin that only fails, such as one whose directory is away.
type breaker struct {
	now func() time.Time

	mu       sync.Mutex
	failures int
	next     time.Time // when the next question may pass; counts only while open
}

// pass reports whether a question may be asked.
func (b *breaker) pass() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakAfter {
		return true
	}
	now := b.now()
	if now.Before(b.next) && b.next.Sub(now) <= breakRetry { // or the clock went back
		return false
	}
	b.next = now.Add(breakRetry)
	return true
}

// note takes the outcome of a question.
func (b *breaker) note(ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ok {
		b.failures = 0
		return
	}
	if b.failures++; b.failures == breakAfter {
		b.next = b.now().Add(breakRetry)
	}
	b.failures = min(b.failures, breakAfter)
}

func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures >= breakAfter
}
