package admin

import (
	"context"
	"net/http"
	"net/url"
	"slices"
)

// permission is what a route needs of its caller. The zero value is none: a route that states no permission does not start.
type permission int

const (
	// mayAsk is for what a caller may know whatever his role is: nothing about an account, nothing about the daemon.
	mayAsk permission = iota + 1
	// mayRead is for what changes nothing: lists, one account, events, why, status. A secret is never among it.
	mayRead
	// mayRevoke is for what ends app passwords of one account. What ends those of many accounts at once needs mayManage.
	mayRevoke
	// mayManage is for all else: what creates, changes, exempts, imports, exports and looks into the daemon.
	mayManage
)

// route is one call of the API.
type route struct {
	method, path string
	handle       http.HandlerFunc
	needs        permission
	own          *ownCall // nil: not for a user's own account
	maxBody      int64    // bytes; 0: 64 KiB
}

// routes returns every call of the API. A file that adds calls has a method of its own and a line here.
func (s *Server) routes() []route {
	return slices.Concat(
		s.whoamiRoutes(),
		s.daemonRoutes(),
		s.accountRoutes(),
		s.groupRoutes(),
		s.appPasswordRoutes(),
		s.enrolmentRoutes(),
		s.eventRoutes(),
		s.mailRoutes(),
		s.noticeRoutes(),
		s.importRoutes(),
	)
}

func (s *Server) daemonRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/status", handle: s.getStatus, needs: mayRead},
		{method: "GET", path: "/v1/debug/cpu-profile", handle: s.getProfile, needs: mayManage},
	}
}

func (s *Server) accountRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/accounts", handle: s.getAccounts, needs: mayRead},
		{method: "POST", path: "/v1/accounts", handle: s.postAccount, needs: mayManage},
		{method: "GET", path: "/v1/account", handle: s.getAccount, needs: mayRead},
		{method: "PATCH", path: "/v1/account", handle: s.patchAccount, needs: mayManage},
		{method: "DELETE", path: "/v1/account", handle: s.deleteAccount, needs: mayManage},
	}
}

func (s *Server) groupRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/groups", handle: s.getGroups, needs: mayRead},
		{method: "POST", path: "/v1/groups", handle: s.postGroup, needs: mayManage},
		{method: "GET", path: "/v1/group", handle: s.getGroup, needs: mayRead},
		{method: "PATCH", path: "/v1/group", handle: s.patchGroup, needs: mayManage},
		{method: "DELETE", path: "/v1/group", handle: s.deleteGroup, needs: mayManage},
	}
}

func (s *Server) appPasswordRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/app-passwords", handle: s.getAppPasswords, needs: mayRead, own: &ownCall{query: []string{"all"}}},
		{method: "POST", path: "/v1/app-passwords", handle: s.postAppPassword, needs: mayManage,
			own: &ownCall{creates: true, issues: true, changes: true, body: ownBody(func(rules *SelfService, n *ownAppPassword) error { return n.fit(rules) })}},
		{method: "GET", path: "/v1/app-password", handle: s.getAppPassword, needs: mayRead, own: &ownCall{query: []string{"label"}}},
		// Of his own a user changes the label only: the rest may be an admin's decision, and so is who has the secret of one that somebody
		// else has made, or that is exempt from the second factor.
		{method: "PATCH", path: "/v1/app-password", handle: s.patchAppPassword, needs: mayManage,
			own: &ownCall{query: []string{"label"}, changes: true, body: ownBody[ownRename](nil)}},
		{method: "POST", path: "/v1/app-password/revoke", handle: s.revokeAppPassword, needs: mayRevoke,
			own: &ownCall{query: []string{"label"}, changes: true, body: ownBody[ownRevocation](nil)}},
		{method: "POST", path: "/v1/app-password/rotate", handle: s.rotateAppPassword, needs: mayManage,
			own: &ownCall{query: []string{"label"}, handle: s.rotateOwnAppPassword, issues: true, changes: true, body: ownBody[ownRotation](nil)}},
		{method: "GET", path: "/v1/find/app-passwords", handle: s.findAppPasswords, needs: mayRead},
		{method: "POST", path: "/v1/find/app-passwords/revoke", handle: s.revokeFound, needs: mayManage},
	}
}

// newMux serves the routes. One that lacks a part is a fault of the program, found at its start.
func (s *Server) newMux(routes []route) *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range routes {
		if r.method == "" || r.path == "" || r.handle == nil || r.needs < mayAsk || r.needs > mayManage {
			panic("admin: the route " + r.method + " " + r.path + " is not complete: it must name a method, a path, a handler and a permission")
		}
		mux.Handle(r.method+" "+r.path, s.allowed(r))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &Fault{Code: "not_found", Message: "no such call: " + r.Method + " " + clip(r.URL.Path)})
	})
	return mux
}

// allowed runs a route's handler for those who may call it, on a body of the size that the route takes.
//
// Who has a role that the route needs goes on as he came. Everybody else is held to his own account, if he has one and the route is for that.
func (s *Server) allowed(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, handle := callerOf(r), rt.handle
		switch {
		case c.role.may(rt.needs):
			if err := unambiguous(r.URL.RawQuery); err != nil {
				s.fail(w, r, err)
				return
			}
		case rt.own != nil && c.own != "":
			leave, err := s.gate.enter(c.uid, rt.own.changes)
			if err != nil {
				s.fail(w, r, err)
				return
			}
			defer leave()
			ctx, cancel := context.WithTimeout(r.Context(), ownTimeout)
			defer cancel()
			if r, err = s.ownRequest(rt, c, w, r.WithContext(ctx)); err != nil {
				s.fail(w, r, err)
				return
			}
			if rt.own.handle != nil {
				handle = rt.own.handle
			}
		default:
			s.fail(w, r, s.access.refusal(c, rt.needs))
			return
		}
		limit := rt.maxBody
		if limit == 0 {
			limit = maxBody
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		handle(w, r)
	})
}

// unambiguous refuses a query of which the handler would see a part only: package net/url drops what it cannot read, and the handlers take the
// first of two values. Half a query may mean more than the whole: the account of a kind, the app passwords of one login.
func unambiguous(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fault("bad_request", "write ; as %3B and % as %25", "the query cannot be read")
	}
	for name, v := range values {
		if len(v) > 1 {
			return fault("bad_request", "", "the parameter %q is there more than once", clip(name))
		}
	}
	return nil
}
