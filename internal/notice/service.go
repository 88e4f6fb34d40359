package notice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Queue is the outbox. [auth.ErrLeaseLost] is its one error that is no trouble.
type Queue interface {
	SetNoticeTargets(ctx context.Context, daemon string, targets []auth.NoticeTarget) error
	TakeNotices(ctx context.Context, slots []auth.NoticeSlots, lease time.Duration) ([]auth.Notice, error)
	FinishNotice(ctx context.Context, n auth.Notice, outcome string) error
	PostponeNotice(ctx context.Context, n auth.Notice, wait time.Duration, counted bool) error
	SentNotices(ctx context.Context, n auth.Notice) (account, all int, same bool, err error)
	TellExpiries(ctx context.Context, within time.Duration) (told int, err error)
	PurgeNotices(ctx context.Context, maxAge time.Duration) (tooOld int, err error)
}

// Hook is a program that is run.
type Hook struct {
	Name      string
	Kinds     []auth.NoticeKind
	Command   []string // an absolute path and its arguments
	TimeLimit time.Duration
}

// Config says who is told of what. The zero value tells nobody.
type Config struct {
	Hooks       []Hook
	Mail        *Mail         // nil: nobody is mailed
	ExpiresSoon time.Duration // how long before its end an app password ends soon
	MaxAge      time.Duration // what could not be told for so long is given up
}

// targets are those of the outbox.
func (c *Config) targets() []auth.NoticeTarget {
	var list []auth.NoticeTarget
	if c.Mail != nil {
		list = append(list, auth.NoticeTarget{Name: mailTarget, Kinds: c.Mail.Kinds})
	}
	for _, h := range c.Hooks {
		list = append(list, auth.NoticeTarget{Name: hookTarget(h.Name), Kinds: h.Kinds})
	}
	return list
}

func (c *Config) wants(kind auth.NoticeKind) bool {
	return slices.ContainsFunc(c.targets(), func(t auth.NoticeTarget) bool { return slices.Contains(t.Kinds, kind) })
}

const mailTarget = "mail"

func hookTarget(name string) string { return "hook:" + name }

// Outcomes of a notice.
const (
	Sent        = "sent"
	Failed      = "failed"       // refused for good, or tried as often as may be
	NoRecipient = "no_recipient" // the user has no mail address
	Repeated    = "repeated"     // the same was told a while ago
	Gone        = "gone"         // the event is not in the audit log any more

	Later = "later" // of none yet: it is tried again
)

// Times and numbers of the service.
const (
	pollEvery     = time.Second
	registerEvery = 10 * time.Minute
	cleanEvery    = time.Minute
	firstWait     = 5 * time.Second // before the second try; then twice as long each time
	lastWait      = 15 * time.Minute
	limitWait     = 5 * time.Minute // of a mail that is one too many for its user
	siteWait      = time.Minute     // of all, if there are too many for the site
	perTarget     = 2               // at work for a target at a time
	mailTries     = 200             // at most; age ends it before
	hookTries     = 8
	queueTime     = 6 * time.Second // of one call of the outbox

	// MaxTimeLimit is how long a hook may be given. The lease of a notice is longer than anything that may happen in it.
	MaxTimeLimit = time.Minute
	lease        = MaxTimeLimit + mailTime + 30*time.Second
)

// Service tells. Make one with [New].
type Service struct {
	queue  Queue
	daemon string
	log    *slog.Logger

	mu      sync.Mutex
	config  *Config
	busy    map[string]int // by target
	holdTo  time.Time      // no mail is tried before: the server is not there, or took as many as it may
	holdFor time.Duration
	failing map[string]bool // targets whose last try failed, for the log
	totals  map[string]int64

	wake chan struct{} // one element: look at once
	work sync.WaitGroup
}

// New returns a service that tells nobody until [Service.Configure] says whom. daemon names this one among those that share the
// database, the same at each start.
func New(queue Queue, daemon string, log *slog.Logger) *Service {
	return &Service{queue: queue, daemon: daemon, log: log, config: &Config{}, busy: map[string]int{}, failing: map[string]bool{}, wake: make(chan struct{}, 1),
		totals: map[string]int64{Sent: 0, Failed: 0, NoRecipient: 0, Repeated: 0, Gone: 0, Later: 0}}
}

// Configure replaces what is told to whom. What is being told is told to its end as it was.
func (s *Service) Configure(c Config) {
	s.mu.Lock()
	s.config, s.holdTo, s.holdFor = &c, time.Time{}, 0
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Service) current() *Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config
}

// Run tells until ctx ends, and ends what is at work then: programs are killed, and their notices told later. Trouble with the outbox is
// logged and tried again.
func (s *Service) Run(ctx context.Context) {
	defer s.work.Wait()
	var registered *Config
	var registeredAt, cleanedAt time.Time
	trouble := false
	for {
		c := s.current()
		now := time.Now()
		var err error
		if c != registered || now.Sub(registeredAt) >= registerEvery {
			if err = s.register(ctx, c); err == nil {
				registered, registeredAt = c, now
			}
		}
		if err == nil && now.Sub(cleanedAt) >= cleanEvery { // also what other daemons, or this one before, wanted
			if err = s.clean(ctx, c); err == nil {
				cleanedAt = now
			}
		}
		if err == nil && len(c.targets()) > 0 {
			err = s.take(ctx, c)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !trouble {
			s.log.Warn("notices wait: the database cannot be asked for them", "err", err)
		} else if err == nil && trouble {
			s.log.Info("notices are told again")
		}
		trouble = err != nil
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-time.After(pollEvery):
		}
	}
}

func (s *Service) call(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, queueTime)
	defer cancel()
	return f(ctx)
}

// Register makes known whom this daemon tells of what: from then on no event is missed. [Service.Run] does so too, and tries until it can.
func (s *Service) Register(ctx context.Context) error { return s.register(ctx, s.current()) }

func (s *Service) register(ctx context.Context, c *Config) error {
	return s.call(ctx, func(ctx context.Context) error { return s.queue.SetNoticeTargets(ctx, s.daemon, c.targets()) })
}

// clean looks for what must happen without an event.
func (s *Service) clean(ctx context.Context, c *Config) error {
	if c.wants(auth.NoticeExpiresSoon) {
		for more := true; more; {
			if err := s.call(ctx, func(ctx context.Context) error {
				told, err := s.queue.TellExpiries(ctx, c.ExpiresSoon)
				more = told > 0
				return err
			}); err != nil {
				return err
			}
		}
	}
	if c.MaxAge <= 0 { // not configured yet
		return nil
	}
	return s.call(ctx, func(ctx context.Context) error {
		old, err := s.queue.PurgeNotices(ctx, c.MaxAge)
		if old > 0 {
			s.log.Warn("notices were given up: they could not be told in time", "notices", old, "max_age", c.MaxAge)
		}
		return err
	})
}

// take leases as many as there are free hands, and starts on them.
func (s *Service) take(ctx context.Context, c *Config) error {
	var slots []auth.NoticeSlots
	s.mu.Lock()
	for _, t := range c.targets() {
		if free := perTarget - s.busy[t.Name]; free > 0 && (t.Name != mailTarget || !time.Now().Before(s.holdTo)) {
			slots = append(slots, auth.NoticeSlots{Target: t.Name, Free: free})
		}
	}
	s.mu.Unlock()
	if len(slots) == 0 {
		return nil
	}
	var taken []auth.Notice
	if err := s.call(ctx, func(ctx context.Context) (err error) {
		taken, err = s.queue.TakeNotices(ctx, slots, lease)
		return err
	}); err != nil {
		return err
	}
	s.mu.Lock()
	for _, n := range taken {
		s.busy[n.Target]++
	}
	s.mu.Unlock()
	for _, n := range taken {
		s.work.Go(func() {
			defer func() {
				s.mu.Lock()
				s.busy[n.Target]--
				s.mu.Unlock()
				select {
				case s.wake <- struct{}{}:
				default:
				}
			}()
			s.tell(ctx, c, n)
		})
	}
	return nil
}

// tell tells one notice and notes how that went.
func (s *Service) tell(ctx context.Context, c *Config, n auth.Notice) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a notice", "target", n.Target, "event", n.EventID, "panic", fmt.Sprint(p))
		}
	}()
	if n.EventID == 0 {
		s.finish(n, Gone)
		return
	}
	e := event(n)
	if n.Target == mailTarget {
		s.mail(ctx, c.Mail, n, e)
		return
	}
	for _, h := range c.Hooks {
		if hookTarget(h.Name) == n.Target {
			s.hook(ctx, h, n, e)
			return
		}
	}
}

func (s *Service) hook(ctx context.Context, h Hook, n auth.Notice, e Event) {
	input, err := json.Marshal(e)
	if err != nil {
		s.failed(n, err, 0)
		return
	}
	environment := []string{"VALETKEY_EVENT=" + e.Event, "VALETKEY_LOGIN=" + e.Login, "VALETKEY_LABEL=" + e.Label}
	if e.Test {
		environment = append(environment, "VALETKEY_TEST=1")
	}
	output, err := run(ctx, h.Command, environment, append(input, '\n'), h.TimeLimit)
	if ctx.Err() != nil {
		s.postpone(n, 0, false) // the daemon stops
		return
	}
	if output != "" {
		s.log.Info("hook says", "hook", h.Name, "event", n.EventID, auth.Quoted("output", output))
	}
	if err != nil {
		s.failed(n, err, hookTries)
		return
	}
	s.succeeded(n)
}

func (s *Service) mail(ctx context.Context, m *Mail, n auth.Notice, e Event) {
	if e.Mail == "" || n.Account != nil && n.Account.Kind == auth.Reader {
		s.finish(n, NoRecipient)
		return
	}
	var account, all int
	var same bool
	if err := s.call(ctx, func(ctx context.Context) (err error) {
		account, all, same, err = s.queue.SentNotices(ctx, n)
		return err
	}); err != nil {
		return // the lease ends by itself
	}
	switch {
	case same && n.Kind == auth.NoticeRevokedUse: // a forgotten device tries every few minutes for years
		s.finish(n, Repeated)
		return
	case all >= m.PerHour:
		s.mu.Lock()
		s.holdTo = time.Now().Add(siteWait)
		s.mu.Unlock()
		s.postpone(n, siteWait, false)
		return
	case account >= m.PerAccount:
		s.postpone(n, limitWait, false)
		return
	}
	message, err := m.Templates.message(m.From, n.Kind, e, time.Now())
	if err == nil {
		err = m.send(ctx, e.Mail, message)
	} else {
		err = permanent{err}
	}
	if err == nil {
		s.mu.Lock()
		s.holdTo, s.holdFor = time.Time{}, 0
		s.mu.Unlock()
		s.succeeded(n)
		return
	}
	if ctx.Err() != nil {
		s.postpone(n, 0, false)
		return
	}
	if _, down := errors.AsType[unreachable](err); down {
		s.mu.Lock()
		s.holdFor = min(max(2*s.holdFor, time.Second), time.Minute)
		s.holdTo = time.Now().Add(s.holdFor)
		s.mu.Unlock()
	}
	s.failed(n, err, mailTries)
}

// succeeded notes that it was told.
func (s *Service) succeeded(n auth.Notice) {
	s.mu.Lock()
	again := s.failing[n.Target]
	delete(s.failing, n.Target)
	s.mu.Unlock()
	if again {
		s.log.Info("notices arrive again", "target", n.Target)
	}
	s.log.Debug("told", "target", n.Target, "event", n.EventID, "kind", string(n.Kind))
	s.finish(n, Sent)
}

// failed tries again later, or gives up. Of a target that goes on failing one line is enough, until it works again.
func (s *Service) failed(n auth.Notice, err error, tries int) {
	_, forGood := errors.AsType[permanent](err)
	giveUp := forGood || n.Tries >= tries || n.Test() // of a test somebody waits for the outcome
	n.Problem = auth.Clip(clean(err.Error()), auth.MaxNoticeProblem)
	s.mu.Lock()
	known := s.failing[n.Target]
	if !forGood {
		s.failing[n.Target] = true
	}
	s.mu.Unlock()
	level := slog.LevelWarn
	if known && !giveUp {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, "a notice could not be told", "target", n.Target, "event", n.EventID, "kind", string(n.Kind), "try", n.Tries,
		"given_up", giveUp, auth.Quoted("cause", n.Problem))
	if giveUp {
		s.finish(n, Failed)
		return
	}
	s.postpone(n, min(firstWait<<min(n.Tries-1, 16), lastWait), true)
}

// Totals are how many notices this daemon has been done with, by outcome, and those it put off under "later". They are in memory, and each
// notice that was put off is counted again.
func (s *Service) Totals() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.totals)
}

func (s *Service) count(outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals[outcome]++
}

// finish and postpone have a time of their own: also when the daemon stops, what was sent is noted.
func (s *Service) finish(n auth.Notice, outcome string) {
	s.count(outcome)
	s.note(n, s.call(context.Background(), func(ctx context.Context) error { return s.queue.FinishNotice(ctx, n, outcome) }))
}

func (s *Service) postpone(n auth.Notice, wait time.Duration, counted bool) {
	s.count(Later)
	s.note(n, s.call(context.Background(), func(ctx context.Context) error { return s.queue.PostponeNotice(ctx, n, wait, counted) }))
}

func (s *Service) note(n auth.Notice, err error) {
	if err != nil {
		s.log.Warn("what became of a notice could not be noted: it is told again after a while", "target", n.Target, "event", n.EventID, "err", err)
	}
}
