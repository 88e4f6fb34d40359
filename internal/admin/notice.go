package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/valetkey/valetkey/internal/auth"
)

// NewNoticeTest asks for a test of a notice.
type NewNoticeTest struct {
	Target string `json:"target,omitempty"` // "mail" or "hook:NAME"; empty: mail, or the only one there is
	Kind   string `json:"kind,omitempty"`   // empty: the first that the target is told of
}

// NoticeTest is a test of a notice as it is now.
type NoticeTest struct {
	ID      int64  `json:"id"`
	Login   string `json:"login"` // canonical
	Target  string `json:"target"`
	Kind    string `json:"kind"`
	Outcome string `json:"outcome,omitempty"` // sent, failed, no_recipient ..; empty: it waits, or is being told
	Problem string `json:"problem,omitempty"` // why it failed
}

func noticeTestView(t auth.NoticeTest) NoticeTest {
	return NoticeTest{ID: t.ID, Login: t.Login, Target: t.Target, Kind: string(t.Kind), Outcome: t.Outcome, Problem: t.Problem}
}

// TestNotice has some daemon tell one target of something that has not happened, marked as a test, by the way that every notice takes. It
// returns at once; [Service.NoticeTest] says what has become of it.
func (s *Service) TestNotice(ctx context.Context, name string, n NewNoticeTest, by string) (NoticeTest, error) {
	l, err := login(name)
	if err != nil {
		return NoticeTest{}, err
	}
	targets, err := s.Store.NoticeTargets(ctx)
	if err != nil {
		return NoticeTest{}, err
	}
	if len(targets) == 0 {
		return NoticeTest{}, fault("no_target", "[notices] and [[hook]] in the daemon's configuration; docs/notices.md", "nobody is told of anything")
	}
	target := cmp.Or(n.Target, "mail")
	if n.Target == "" && len(targets) == 1 {
		target = targets[0].Name
	}
	i := slices.IndexFunc(targets, func(t auth.NoticeTarget) bool { return t.Name == target })
	if i < 0 {
		var names []string
		for _, t := range targets {
			names = append(names, t.Name)
		}
		return NoticeTest{}, fault("no_target", "those that are: "+strings.Join(names, ", "), "%q is not told of anything", clip(target))
	}
	kinds := targets[i].Kinds
	kind := auth.NoticeKind(n.Kind)
	if kind == "" && len(kinds) > 0 {
		kind = kinds[0]
	}
	if !slices.Contains(kinds, kind) {
		var names []string
		for _, k := range kinds {
			names = append(names, string(k))
		}
		return NoticeTest{}, fault("bad_kind", "it is told of: "+strings.Join(names, ", "), "%s is not told of %q", target, clip(string(kind)))
	}
	t, err := s.Store.TestNotice(ctx, l, target, kind, by)
	return noticeTestView(t), err
}

// NoticeTest says what has become of a test. [auth.ErrNoNotice]: there is none of this number, or it was done more than a day ago.
func (s *Service) NoticeTest(ctx context.Context, id int64) (NoticeTest, error) {
	t, err := s.Store.NoticeTest(ctx, id)
	return noticeTestView(t), err
}

func (s *Server) noticeRoutes() []route {
	return []route{
		{method: "POST", path: "/v1/notice/test", handle: s.postNoticeTest, needs: mayManage},
		{method: "GET", path: "/v1/notice/test", handle: s.getNoticeTest, needs: mayManage}, // why it failed may name hosts
	}
}

func (s *Server) postNoticeTest(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusCreated, func(v *Service) (any, error) {
		n, err := read[NewNoticeTest](r)
		if err != nil {
			return nil, err
		}
		return v.TestNotice(r.Context(), r.URL.Query().Get("login"), n, actor(r))
	})
}

func (s *Server) getNoticeTest(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		id, err := number(r.URL.Query(), "id")
		if err != nil {
			return nil, err
		}
		return v.NoticeTest(r.Context(), id)
	})
}

// TestNotice makes a test of a notice.
func (c *Client) TestNotice(ctx context.Context, login string, n NewNoticeTest) (NoticeTest, error) {
	return ask[NoticeTest](ctx, c, "POST", "/v1/notice/test", url.Values{"login": {login}}, n)
}

// NoticeTest asks what has become of a test.
func (c *Client) NoticeTest(ctx context.Context, id int64) (NoticeTest, error) {
	return ask[NoticeTest](ctx, c, "GET", "/v1/notice/test", url.Values{"id": {strconv.FormatInt(id, 10)}}, nil)
}
