package harness

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// Attempt is one login of a [Load], as its client saw it.
type Attempt struct {
	Client     string // which front end of which daemon
	Right      bool   // the password was right during the whole attempt
	Start, End time.Time
	Outcome    Outcome
	Detail     string
}

// Credential is what a [Load] logs in with.
type Credential struct {
	Login, Password string
	Right           bool
}

// Load logs in again and again until it is stopped, and remembers every attempt.
type Load struct {
	mu       sync.Mutex
	attempts []Attempt

	stop chan struct{}
	done sync.WaitGroup
}

// StartLoad lets each named client log in with all the credentials in turn, with a pause between attempts, so that the
// load stays what the machine can bear. It is stopped at the end of the test at the latest.
func StartLoad(t testing.TB, pause time.Duration, clients map[string]Client, credentials []Credential) *Load {
	t.Helper()
	l := &Load{stop: make(chan struct{})}
	offset := 0
	for name, c := range clients {
		from := offset
		offset++
		l.done.Go(func() {
			defer c.Close()
			for i := from; ; i++ {
				select {
				case <-l.stop:
					return
				case <-time.After(pause):
				}
				cred := credentials[i%len(credentials)]
				a := Attempt{Client: name, Right: cred.Right, Start: time.Now()}
				a.Outcome, a.Detail = c.Login(cred.Login, cred.Password)
				a.End = time.Now()
				l.mu.Lock()
				l.attempts = append(l.attempts, a)
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

// Stop ends the load after the attempts under way. It may be called twice.
func (l *Load) Stop() []Attempt {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.done.Wait()
	return l.Attempts()
}

// Attempts returns the attempts that have ended so far.
func (l *Load) Attempts() []Attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Attempt(nil), l.attempts...)
}

// WaitEach waits until every client has an attempt that began after since and for which match is true, and returns the
// end of the first such attempt for each client.
func (l *Load) WaitEach(t testing.TB, what string, clients map[string]Client, since time.Time, match func(Attempt) bool) map[string]time.Time {
	t.Helper()
	first := map[string]time.Time{}
	if !Poll(Patience, func() bool {
		for _, a := range l.Attempts() {
			if _, seen := first[a.Client]; !seen && !a.Start.Before(since) && match(a) {
				first[a.Client] = a.End
			}
		}
		return len(first) == len(clients)
	}) {
		t.Fatalf("waited %v in vain for %s: %d of %d clients; %s", Patience, what, len(first), len(clients), Tally(l.Attempts()))
	}
	return first
}

// Tally counts attempts by right or wrong password and outcome, for a test's log.
func Tally(attempts []Attempt) string {
	count := map[string]int{}
	var longest time.Duration
	for _, a := range attempts {
		kind := "wrong"
		if a.Right {
			kind = "right"
		}
		count[kind+" "+a.Outcome.String()]++
		longest = max(longest, a.End.Sub(a.Start))
	}
	return fmt.Sprintf("%d attempts, the longest took %v: %v", len(attempts), longest.Round(time.Millisecond), count)
}

// CheckServed wants every right password accepted, apart from one in fifty that may be undecided: on a machine that is busy
// enough a lookup can pass its time limit. Use it where nothing was down, together with [CheckHonest].
func CheckServed(t testing.TB, attempts []Attempt) {
	t.Helper()
	undecided := 0
	for _, a := range attempts {
		if a.Outcome == Undecided {
			undecided++
			t.Logf("%s: undecided after %v although nothing was down (%s)", a.Client, a.End.Sub(a.Start), a.Detail)
		}
	}
	if undecided > 1+len(attempts)/50 {
		t.Errorf("%d of %d attempts are undecided although nothing was down", undecided, len(attempts))
	}
}

// CheckHonest holds every attempt to what a fault may do to it: a right password is accepted or undecided and never "wrong
// password", a wrong one is rejected or undecided and never accepted, and nobody is left without an answer for longer than
// within (testplan.md section 0, I2 and I3).
func CheckHonest(t testing.TB, attempts []Attempt, within time.Duration) {
	t.Helper()
	faults := 0
	for _, a := range attempts {
		bad := a.Outcome == Broken || a.Right && a.Outcome == Rejected || !a.Right && a.Outcome == Accepted
		if took := a.End.Sub(a.Start); bad || took > within {
			if faults++; faults <= 5 {
				t.Errorf("%s: login with the right password: %v, got %v after %v (%s)", a.Client, a.Right, a.Outcome, took, a.Detail)
			}
		}
	}
	if faults > 0 {
		t.Errorf("%d of %d attempts are not as they may be", faults, len(attempts))
	}
}
