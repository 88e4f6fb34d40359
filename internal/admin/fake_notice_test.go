package admin

import (
	"context"

	"github.com/valetkey/valetkey/internal/auth"
)

func (m *memory) NoticeTargets(context.Context) ([]auth.NoticeTarget, error) {
	defer m.enter("")()
	return m.targets, m.err
}

func (m *memory) TestNotice(_ context.Context, login, target string, kind auth.NoticeKind, by string) (auth.NoticeTest, error) {
	defer m.enter(by)()
	a, err := m.find(login)
	if err != nil {
		return auth.NoticeTest{}, err
	}
	t := auth.NoticeTest{ID: int64(len(m.tests) + 1), Kind: kind, Target: target, Login: a.Login}
	m.tests = append(m.tests, t)
	return t, nil
}

func (m *memory) NoticeTest(_ context.Context, id int64) (auth.NoticeTest, error) {
	defer m.enter("")()
	if m.err != nil {
		return auth.NoticeTest{}, m.err
	}
	if id < 1 || id > int64(len(m.tests)) {
		return auth.NoticeTest{}, auth.ErrNoNotice
	}
	return m.tests[id-1], nil
}
