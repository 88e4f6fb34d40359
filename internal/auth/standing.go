package auth

import (
	"context"
	"fmt"
	"net/netip"
)

// Standing is what an accepted login rests on. A front end whose connections outlive the login keeps it, to ask [Authenticator.Stands]
// later. It holds no secret. The zero value stands on nothing.
type Standing struct {
	login   string // canonical
	account int64
	row     int64
	reader  bool
	addr    netip.Addr

	service, frontEnd string

	// By these the row is found again. A longer ring is cut: the rows of a pepper that no tag is of are read, too.
	tags [4]Tag
	n    int
}

func (s *Standing) set(found *Found, row *Candidate, req *Request, tags []Tag) {
	*s = Standing{login: found.Login, account: found.AccountID, row: row.ID, reader: req.Reader, service: req.Service, frontEnd: req.FrontEnd, addr: req.Addr}
	s.n = copy(s.tags[:], tags)
}

// Stands says whether the account and the app password that a login was accepted for still are as they were then: [Accepted], or
// why not. The second factor is asked for again, since losing it suspends what was accepted, too; it costs next to nothing while the
// last answer holds. The gate is not asked again. It counts as a use: who logs in once and then asks for months must not expire by
// disuse. An error means that nothing is known.
func (a *Authenticator) Stands(ctx context.Context, s *Standing) (Reason, error) {
	if s.row == 0 {
		return UnknownLogin, nil
	}
	found, err := a.cfg.Rows.Lookup(ctx, s.login, s.tags[:s.n])
	if err != nil {
		return "", fmt.Errorf("looking up the login: %w", err)
	}
	switch {
	case found == nil || found.AccountID != s.account || (found.Kind == Reader) != s.reader:
		return UnknownLogin, nil
	case !found.Enabled:
		return AccountDisabled, nil
	}
	req := Request{Login: s.login, Service: s.service, FrontEnd: s.frontEnd, Addr: s.addr, Reader: s.reader}
	for i := range found.Candidates {
		if row := &found.Candidates[i]; row.ID == s.row {
			if reason := refusal(row, &req); reason != "" {
				return reason, nil
			}
			switch enrolled, _, err := a.enrolled(ctx, found, row, &req); {
			case err != nil:
				return "", err
			case !enrolled:
				return NotEnrolled, nil
			}
			if a.cfg.Recorder != nil {
				a.cfg.Recorder.Record(Attempt{
					At: a.cfg.Now(), AccountID: s.account, AppPasswordID: s.row, Replaces: row.Replaces, OK: true, Reason: Accepted,
					Service: s.service, FrontEnd: s.frontEnd, Addr: s.addr,
				})
			}
			return Accepted, nil
		}
	}
	return NoMatch, nil
}
