package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Config is what an [Authenticator] is made of. Rows, Secrets and Log are required.
type Config struct {
	Rows      Rows
	Secrets   Secrets
	Enrolment Enrolment // nil: no second factor is asked for at login
	Recorder  Recorder  // nil: nothing is recorded
	Strangers Strangers // nil: attempts at unknown logins leave the log line only
	Throttle  Throttle  // nil: nothing is slowed down
	Floor     *Floor    // nil: refusals go out when they are ready
	Upgrade   Upgrade   // nil: imported hashes stay as they are
	Meter     Meter     // nil: nothing is counted but [Counters]
	Log       *slog.Logger

	Hashes   *Admission       // nil: a private one with the default bounds
	MemoSize int              // verifications to remember; zero: 100,000
	Now      func() time.Time // nil: time.Now; for memo expiry and the log, never for what a row allows
}

// Authenticator decides logins. It is safe for concurrent use.
type Authenticator struct {
	cfg      Config
	memo     *memo
	upgrades *upgrades // nil: none

	ok, fail, undecided, hashed atomic.Int64
}

// New returns an Authenticator.
func New(cfg Config) *Authenticator {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Hashes == nil {
		cfg.Hashes = NewAdmission(0, 0)
	}
	a := &Authenticator{cfg: cfg, memo: newMemo(cfg.MemoSize)}
	if cfg.Upgrade != nil {
		// The new hash is known to match: the next login must not compute it again.
		a.upgrades = newUpgrades(cfg.Upgrade, cfg.Hashes, cfg.Log, func(row int64, phc, password string) {
			a.memo.put(a.memo.key(row, phc, password), true, Imported, a.cfg.Now())
		})
	}
	return a
}

// Close ends what goes on behind the logins. What is not done by then is done after a later login.
func (a *Authenticator) Close() {
	if a.upgrades != nil {
		a.upgrades.close()
	}
}

// Counters are totals since the daemon started.
type Counters struct {
	OK        int64 `json:"ok"`
	Fail      int64 `json:"fail"`
	Undecided int64 `json:"undecided"`
	Argon2    int64 `json:"argon2"` // slow hashes computed, whatever the scheme
	Waiting   int64 `json:"waiting"`
}

// Counters returns the totals.
func (a *Authenticator) Counters() Counters {
	return Counters{a.ok.Load(), a.fail.Load(), a.undecided.Load(), a.hashed.Load(), a.cfg.Hashes.Waiting()}
}

// ForgetVerifications empties the memo, so that the next login with each password computes its hash again.
func (a *Authenticator) ForgetVerifications() { a.memo.forget() }

// Authenticate decides one login and writes its log line. A nil error means decided: Decision.OK says which. Any error means
// undecided, never "wrong password": the caller must answer with its protocol's temporary failure. The context bounds the
// wait; its end is undecided too. A rejection may be held back ([Throttle], [Floor]), after everything else is done and given back.
func (a *Authenticator) Authenticate(ctx context.Context, req Request) (Decision, error) {
	start := a.cfg.Now()
	v, err := a.decide(ctx, &req)
	if err != nil {
		v.decision = Decision{}
		a.undecided.Add(1)
	} else if v.decision.OK {
		a.ok.Add(1)
	} else {
		a.fail.Add(1)
	}
	penalty := a.settle(&req, &v, err)
	req.Password = ""
	now := a.cfg.Now()
	a.log(ctx, &req, &v, err, penalty.Counts, now.Sub(start))
	if a.cfg.Meter != nil {
		a.cfg.Meter.Outcome(req.FrontEnd, v.result(err), v.reason(err), now.Sub(start))
	}
	if err == nil && v.accountID != 0 && a.cfg.Recorder != nil {
		a.cfg.Recorder.Record(Attempt{
			At: now, AccountID: v.accountID, AppPasswordID: v.rowID, Replaces: v.replaces, OK: v.decision.OK, Reason: v.decision.Reason,
			Service: req.Service, FrontEnd: req.FrontEnd, Addr: req.Addr,
		})
	}
	if err == nil && v.decision.Reason == UnknownLogin && v.login != "" && a.cfg.Strangers != nil {
		a.cfg.Strangers.RecordStranger(v.login, Attempt{
			At: now, Reason: v.decision.Reason, Service: req.Service, FrontEnd: req.FrontEnd, Addr: req.Addr,
		})
	}
	if err == nil && !v.decision.OK && v.decision.Reason != EmptyPassword {
		a.holdBack(ctx, &req, &v, penalty, start, now)
	}
	return v.decision, err
}

// verdict is a decision with what only the log and the recorder need.
type verdict struct {
	decision  Decision
	login     string // normalised, or empty if it could not be
	factor    string // what there is to say about the second factor; empty: nothing
	accountID int64
	rowID     int64
	replaces  int64 // by that row
	hashed    bool  // a slow hash was computed, or waited for
}

// result is the first word of the log line.
func (v *verdict) result(err error) string {
	switch {
	case err != nil:
		return "undecided"
	case v.decision.OK:
		return "ok"
	}
	return "fail"
}

// reason is the word for why.
func (v *verdict) reason(err error) string {
	if err != nil {
		return undecidedReason(err)
	}
	return string(v.decision.Reason)
}

func reject(r Reason) Decision { return Decision{Reason: r} }

func (a *Authenticator) decide(ctx context.Context, req *Request) (v verdict, err error) {
	req.Addr = req.Addr.Unmap().WithZone("") // a zone is the sender's interface, and free text
	if req.Password == "" {
		v.decision = reject(EmptyPassword)
		return v, nil
	}
	if v.login, err = NormaliseLogin(req.Login); err != nil {
		v.decision = reject(UnknownLogin) // no account can have such a name
		return v, nil
	}
	if service, err := NormaliseService(req.Service); err == nil {
		req.Service = service
	} // otherwise no app password can name it, and one for all services still opens it
	if a.cfg.Throttle != nil && !a.cfg.Throttle.Admit(req, v.login) {
		return v, ErrThrottled
	}

	normalised, shaped := a.cfg.Secrets.Normalise(req.Password)
	var buf [4]Tag
	tags := buf[:0]
	if shaped {
		tags = a.cfg.Secrets.Tags(tags, normalised)
	}
	found, err := a.cfg.Rows.Lookup(ctx, v.login, tags)
	if err != nil {
		return v, fmt.Errorf("looking up the login: %w", err)
	}
	if found == nil || req.Reader && found.Kind != Reader {
		v.decision = reject(UnknownLogin)
		return v, nil
	}
	v.accountID = found.AccountID
	v.decision.AccountID = found.AccountID

	row, hashed, err := a.match(ctx, req, normalised, shaped, found.Candidates)
	v.hashed = hashed
	if err != nil {
		return v, err
	}
	if row == nil {
		v.decision.Reason = NoMatch
		if !shaped && !slices.ContainsFunc(found.Candidates, imported) {
			v.decision.Reason = BadFormat
		}
		return v, nil
	}
	v.rowID, v.replaces = row.ID, row.Replaces
	v.decision.Label = row.Label

	// The password matched. From here on every refusal looks like a wrong password outside.
	switch reason := refusal(row, req); {
	case found.Kind == Reader && !req.Reader:
		v.decision.Reason = ReaderOnly
		return v, nil
	case !found.Enabled:
		v.decision.Reason = AccountDisabled
		return v, nil
	case reason != "":
		v.decision.Reason = reason
		return v, nil
	}
	password := req.Password // for the replacement of the row's own hash, and nothing else
	req.Password = ""        // nobody beyond this point is to have it
	enrolled, note, err := a.enrolled(ctx, found, row, req)
	if err != nil {
		return v, err
	}
	v.factor = note
	if !enrolled {
		v.decision.Reason = NotEnrolled
		return v, nil
	}
	if req.Gate != nil {
		allowed, err := req.Gate.Admits(ctx, found.Login)
		if err != nil {
			return v, fmt.Errorf("checking the group: %w", err)
		}
		if !allowed {
			v.decision.Reason = GroupNotAllowed
			return v, nil
		}
	}
	v.decision.OK, v.decision.Reason, v.decision.Login = true, Accepted, found.Login
	if req.Keep != nil {
		req.Keep.set(found, row, req, tags)
	}
	if a.upgrades != nil && row.Origin == Imported {
		a.upgrades.add(row.ID, row.PHC, password)
	}
	return v, nil
}

func imported(c Candidate) bool { return c.Origin == Imported }

// enrolled asks for the second factor, unless nobody wants to know, or there is none to ask for: a program has no person behind it.
func (a *Authenticator) enrolled(ctx context.Context, found *Found, row *Candidate, req *Request) (ok bool, note string, err error) {
	if a.cfg.Enrolment == nil || found.Kind == Reader || row.Exempt {
		return true, "", nil
	}
	if ok, note, err = a.cfg.Enrolment.Enrolled(ctx, found.AccountID, found.Login, req); err != nil {
		return false, "", fmt.Errorf("checking the enrolment: %w", err)
	}
	return ok, note, nil
}

// refusal says why the row does not open this service from this address now, or "" if it does.
func refusal(row *Candidate, req *Request) Reason {
	switch {
	case row.Revoked:
		return Revoked
	case row.Expired:
		return Expired
	case len(row.Services) > 0 && !slices.Contains(row.Services, req.Service):
		return ServiceNotAllowed
	case len(row.Networks) > 0 && !contains(row.Networks, req.Addr):
		return NetworkNotAllowed
	}
	return ""
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	if !addr.IsValid() {
		return false // not known is not allowed: some peers never say
	}
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// match returns the row that the password opens, or nil, and whether that took a slow hash. Rows that would be accepted are tried before rows that would be
// refused, so that a tombstone or a row for another service with the same (imported) password never hides a good one.
//
// A nil row with a nil error means that every candidate was compared. If one could not be, because its hash is unreadable or
// because its turn did not come in time, the answer is an error: it might have been the one.
func (a *Authenticator) match(ctx context.Context, req *Request, normalised string, shaped bool, rows []Candidate) (_ *Candidate, hashed bool, _ error) {
	if len(rows) == 0 {
		return nil, false, nil
	}
	if len(rows) == 1 { // the usual case, without the bookkeeping below
		return a.matchOne(ctx, req.Password, normalised, shaped, &rows[0])
	}
	order := make([]*Candidate, 0, len(rows))
	for _, good := range []bool{true, false} {
		for i := range rows {
			if (refusal(&rows[i], req) == "") == good {
				order = append(order, &rows[i])
			}
		}
	}
	// One of them may be in the memo already: look before hashing any.
	now := a.cfg.Now()
	for _, row := range order {
		if text, ok := hashedText(row, req.Password, normalised, shaped); ok && refusal(row, req) == "" {
			if match, _ := a.memo.get(a.memo.key(row.ID, row.PHC, text), now); match {
				return row, false, nil
			}
		}
	}
	// Once the context has ended, matchOne answers from the memo or fails: no row is passed over.
	var failed, goodFailed error
	for _, row := range order {
		good := refusal(row, req) == ""
		found, slow, err := a.matchOne(ctx, req.Password, normalised, shaped, row)
		hashed = hashed || slow
		if found != nil {
			if !good && goodFailed != nil {
				return nil, hashed, goodFailed // it might have been accepted
			}
			return found, hashed, nil
		}
		if err != nil && failed == nil {
			failed = err
		}
		if err != nil && good && goodFailed == nil {
			goodFailed = err
		}
	}
	return nil, hashed, failed
}

// hashedText returns the text that the row's hash was made of, if the password can be it.
func hashedText(row *Candidate, password, normalised string, shaped bool) (string, bool) {
	if row.Origin == Imported {
		return password, len(password) <= MaxPassword && strings.IndexByte(password, 0) < 0
	}
	return normalised, shaped
}

// matchOne compares the password with one row, by the memo or by the slow hash.
func (a *Authenticator) matchOne(ctx context.Context, password, normalised string, shaped bool, row *Candidate) (_ *Candidate, hashed bool, _ error) {
	text, ok := hashedText(row, password, normalised, shaped)
	if !ok {
		return nil, false, nil
	}
	key := a.memo.key(row.ID, row.PHC, text)
	match, known := a.memo.get(key, a.cfg.Now())
	hashed = !known
	if hashed {
		var verifyErr error
		err := a.cfg.Hashes.Do(ctx, func() {
			// Several devices of one person come back at once after a restart: the first of them has done the work.
			if match, known = a.memo.get(key, a.cfg.Now()); known {
				return
			}
			a.hashed.Add(1)
			if match, verifyErr = a.cfg.Secrets.Verify(row.PHC, text); verifyErr == nil {
				a.memo.put(key, match, row.Origin, a.cfg.Now())
			}
		})
		if err != nil {
			return nil, true, err
		}
		if verifyErr != nil {
			return nil, true, fmt.Errorf("app password %d: %w", row.ID, verifyErr)
		}
	}
	if !match {
		return nil, hashed, nil
	}
	return row, hashed, nil
}

// loggedLogin bounds what a client can put into the log, in bytes.
const loggedLogin = 256

// maxNote bounds what an enrolment check says about a login, in bytes.
const maxNote = 64

// loggedError bounds the text of an error, which may quote what a database or a plugin said.
const loggedError = 512

// log writes the one line of this attempt. Its keys are fixed, and the address stands before anything that a client
// controls, so that a log reader such as fail2ban cannot be fooled (reference/security.md section 4.4).
func (a *Authenticator) log(ctx context.Context, req *Request, v *verdict, err error, counts bool, took time.Duration) {
	level, result, reason, count := slog.LevelInfo, v.result(err), v.reason(err), "no"
	switch {
	case err != nil:
		level = slog.LevelWarn
	case !v.decision.OK && counts:
		count = "yes"
	}
	if !a.cfg.Log.Enabled(ctx, level) {
		return
	}
	rip := "-"
	if req.Addr.IsValid() {
		rip = req.Addr.String()
	}
	user := v.login
	if user == "" {
		user = req.Login
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("result", result),
		slog.String("rip", rip),
		slog.String("reason", reason),
		slog.String("count", count),
		slog.String("proto", req.FrontEnd),
		slog.String("svc", Clip(req.Service, MaxService)),
		Quoted("user", Clip(user, loggedLogin)),
	)
	if v.decision.Label != "" {
		attrs = append(attrs, Quoted("label", v.decision.Label))
	}
	if v.factor != "" && err == nil {
		attrs = append(attrs, slog.String("second_factor", Clip(v.factor, maxNote)))
	}
	attrs = append(attrs, slog.String("session", Clip(req.Session, 64)), slog.Duration("took", took))
	if err != nil {
		attrs = append(attrs, Quoted("err", Clip(err.Error(), loggedError)))
	}
	// As one group without a name, which handlers write as if its members stood alone: a record copies more than five. And without looking for
	// the place in the program, which no line shows and which takes 3 % of a login.
	r := slog.NewRecord(time.Now(), level, "auth", 0)
	r.AddAttrs(slog.Attr{Value: slog.GroupValue(attrs...)})
	_ = a.cfg.Log.Handler().Handle(ctx, r) // as slog itself does with it
}

// undecidedReason names the cause in a word that can be counted.
func undecidedReason(err error) string {
	switch {
	case errors.Is(err, ErrOverloaded):
		return "overloaded"
	case errors.Is(err, ErrThrottled):
		return "throttled"
	case errors.Is(err, ErrShuttingDown):
		return "shutting_down"
	case errors.Is(err, context.Canceled):
		return "client_gone"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "unavailable"
}

// Quoted marks a log value that must always stand in quotes because a client or a person chose it.
func Quoted(key, value string) slog.Attr { return slog.Any(key, QuotedValue(value)) }

// QuotedValue is a string that the log prints in quotes, in ASCII.
type QuotedValue string

// Clip cuts s to n bytes, not within a character, and marks the cut. It bounds what a client can put into a log line.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for least := n - utf8.UTFMax; n > least && n > 0 && !utf8.RuneStart(s[n]); {
		n--
	}
	return s[:n] + "..."
}
