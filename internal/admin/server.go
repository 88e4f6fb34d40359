package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Bounds of a request.
const (
	maxBody        = 64 << 10 // bytes, of a route that names no other
	requestTimeout = 60 * time.Second
	maxProfile     = 60 * time.Second
)

// Server answers the admin API on a Unix socket. Unless [Server.Restrict] says otherwise, whoever may connect to the socket may do
// everything: the socket's mode is the access control. The peer's user id goes into the audit log.
type Server struct {
	access    Access
	gate      *gate
	service   func() *Service // nil while the database is not known yet
	status    func(context.Context) Status
	plugin    func() Plugin // nil: the status has it
	log       *slog.Logger
	http      *http.Server
	profiling atomic.Bool
	followers atomic.Int64  // calls that wait for an event
	stopping  chan struct{} // closed: they wait no more

	credentials func(net.Conn) credentials
	userName    func(uid uint32) (string, error)
}

// NewServer returns a Server. service may return nil, which is answered as "database not reachable".
func NewServer(service func() *Service, status func(context.Context) Status, log *slog.Logger) *Server {
	s := &Server{service: service, status: status, log: log, gate: newGate(time.Now), credentials: credentialsOf, userName: userName,
		stopping: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s.guard(s.newMux(s.routes())),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      requestTimeout + maxProfile,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext:       s.withCaller,
	}
	s.http.RegisterOnShutdown(sync.OnceFunc(func() { close(s.stopping) }))
	return s
}

// Restrict tells callers apart from now on. It must be called before Serve.
func (s *Server) Restrict(a Access) { s.access = a }

// PluginFrom is where the state of the enrolment plugin is from, at once and without the database. It must be called before Serve. Without
// it the whole status is asked for, which waits for the database.
func (s *Server) PluginFrom(f func() Plugin) { s.plugin = f }

// Serve answers until the listener is closed or Shutdown is called; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(gatedListener{l, s}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting and waits for running requests, bounded by the context.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// guard bounds a request and keeps a panic from anything but its own request.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				s.log.Error("admin: request failed", "call", r.Method+" "+r.URL.Path, "panic", fmt.Sprint(v))
				s.fail(w, r, errors.New("internal error"))
			}
		}()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout+maxProfile)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Problem is the body of every answer that is not a success.
type Problem struct {
	Error ProblemDetail `json:"error"`
}

// ProblemDetail says what went wrong.
type ProblemDetail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

var sentinels = []struct {
	err    error
	status int
	detail ProblemDetail
}{
	{auth.ErrNoAccount, 404, ProblemDetail{"no_account", "no such account", "valetkey account list shows them; valetkey account add LOGIN adds one"}},
	{auth.ErrLoginTaken, 409, ProblemDetail{"login_taken", "the login or one of the aliases is already taken", "valetkey account show LOGIN says by whom"}},
	{auth.ErrNoLabel, 404, ProblemDetail{"no_label", "the account has no app password with this label", "valetkey list LOGIN shows them"}},
	{auth.ErrLabelTaken, 409, ProblemDetail{"label_taken", "the account already has an app password with this label", "choose another label, or revoke the old one first"}},
	{auth.ErrLimit, 409, ProblemDetail{"limit", "the account has as many app passwords as it may", "revoke one that is not used any more; valetkey list LOGIN shows when each was used"}},
	{auth.ErrRevoked, 409, ProblemDetail{"revoked", "the app password is revoked", "create a new one"}},
	{auth.ErrExpired, 409, ProblemDetail{"expired", "the app password has expired", "create a new one, or give it more time first: valetkey edit LOGIN LABEL --expires WHEN"}},
	{auth.ErrNotMade, 403, ProblemDetail{"not_made", "you may give a new secret only to an app password that you made yourself, and that opens no more than you may", "ask an admin for one, or make another: valetkey create LABEL"}},
	{auth.ErrLastScope, 409, ProblemDetail{"last_scope", "without its last service or network the app password would open everything", "revoke it, or ask for that in so many words: --all-services, --from-anywhere"}},
	{auth.ErrNoScope, 409, ProblemDetail{"no_scope", "the app password is not limited to some services or networks, so there is nothing to add to", "--service and --from limit it"}},
	{auth.ErrScopes, 409, ProblemDetail{"too_many", fmt.Sprintf("an app password has at most %d services and %d networks", auth.MaxServices, auth.MaxNetworks), ""}},
	{auth.ErrBadCursor, 400, ProblemDetail{"bad_cursor", "after is not a place in this list", "take it from next of the page before, with the same sort"}},
	{auth.ErrNoGroup, 404, ProblemDetail{"no_group", "no such group", "valetkey group list shows them; valetkey group add NAME adds one"}},
	{auth.ErrGroupTaken, 409, ProblemDetail{"group_taken", "there is a group of this name already", "valetkey group show NAME shows it"}},
	{auth.ErrGroupLimit, 409, ProblemDetail{"group_limit", fmt.Sprintf("a group has at most %d members, and a person is in at most %d groups", auth.MaxGroupMembers, auth.MaxGroups),
		"what everybody may use needs no group"}},
	{auth.ErrNotPerson, 409, ProblemDetail{"not_person", "a reader cannot be in a group", "valetkey reader list shows the readers"}},
	{auth.ErrNoNotice, 404, ProblemDetail{"no_notice", "there is no such test of a notice", "a day after it was told, or given up, it is forgotten; valetkey events --kind notice.tested shows who made it"}},
	{auth.ErrOverloaded, 503, ProblemDetail{"overloaded", "the daemon is too busy", "try again"}},
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f *Fault
	if errors.As(err, &f) {
		status := http.StatusBadRequest
		switch f.Code {
		case "not_found", "no_account":
			status = http.StatusNotFound
		case "forbidden", "disabled", "service_not_allowed", "network_not_allowed":
			status = http.StatusForbidden
		case "not_enrolled", "no_plugin", "busy":
			status = http.StatusConflict
		case "too_many_requests":
			status = http.StatusTooManyRequests
		}
		reply(w, status, Problem{ProblemDetail{f.Code, f.Message, f.Hint}})
		return
	}
	for _, known := range sentinels {
		if errors.Is(err, known.err) {
			reply(w, known.status, Problem{known.detail})
			return
		}
	}
	// The cause stays in the daemon's log: it may name hosts and SQL.
	s.log.Warn("admin: request failed", "call", r.Method+" "+r.URL.Path, "err", err)
	detail := ProblemDetail{"unavailable", "the database could not be asked", "valetkey status says how it is; valetkeyd's log has the cause"}
	if u := (*Unavailable)(nil); errors.As(err, &u) {
		detail.Message, detail.Hint = u.Message, cmp.Or(u.Hint, "try again; valetkeyd's log has the cause")
	}
	reply(w, http.StatusServiceUnavailable, Problem{detail})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if body != nil {
		json.NewEncoder(w).Encode(body)
	}
}

func read[T any](r *http.Request) (T, error) {
	return decode[T](r.Body)
}

func decode[T any](text io.Reader) (T, error) {
	var body T
	d := json.NewDecoder(text)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return body, &Fault{Code: "bad_request", Message: "the body is not the JSON that this call takes", Hint: jsonHint(err)}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return body, &Fault{Code: "bad_request", Message: "there is more than one JSON value in the body"}
	}
	return body, nil
}

// jsonHint keeps of a decoder's error what names a field; the rest could quote the body.
func jsonHint(err error) string {
	if name, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
		return "unknown field " + clip(name)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return "field " + wrong.Field + " has the wrong type"
	}
	return ""
}

var errNoService = errors.New("the database is not there yet")

// call runs one verb with the service.
func (s *Server) call(w http.ResponseWriter, r *http.Request, status int, do func(*Service) (any, error)) {
	service := s.service()
	if service == nil {
		s.fail(w, r, errNoService)
		return
	}
	body, err := do(service)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if body == nil {
		status = http.StatusNoContent
	}
	reply(w, status, body)
}

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, s.status(r.Context()))
}

func (s *Server) getAccounts(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		limit, err := number(q, "limit")
		if err != nil {
			return nil, err
		}
		return v.Accounts(r.Context(), q.Get("kind"), q.Get("after"), int(min(limit, maxPage)))
	})
}

func (s *Server) postAccount(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusCreated, func(v *Service) (any, error) {
		n, err := read[NewAccount](r)
		if err != nil {
			return nil, err
		}
		return v.AddAccount(r.Context(), n, actor(r))
	})
}

func (s *Server) getAccount(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) { return v.Account(r.Context(), r.URL.Query().Get("login")) })
}

func (s *Server) patchAccount(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		p, err := read[AccountPatch](r)
		if err != nil {
			return nil, err
		}
		return v.PatchAccount(r.Context(), r.URL.Query().Get("login"), p, actor(r))
	})
}

func (s *Server) deleteAccount(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		q := r.URL.Query()
		return nil, v.DeleteAccount(r.Context(), q.Get("login"), q.Get("kind"), actor(r))
	})
}

func (s *Server) getGroups(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		limit, err := number(q, "limit")
		if err != nil {
			return nil, err
		}
		return v.Groups(r.Context(), q.Get("after"), int(min(limit, maxPage)))
	})
}

func (s *Server) postGroup(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusCreated, func(v *Service) (any, error) {
		n, err := read[NewGroup](r)
		if err != nil {
			return nil, err
		}
		return v.AddGroup(r.Context(), n, actor(r))
	})
}

func (s *Server) getGroup(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) { return v.Group(r.Context(), r.URL.Query().Get("name")) })
}

func (s *Server) patchGroup(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		p, err := read[GroupPatch](r)
		if err != nil {
			return nil, err
		}
		return v.PatchGroup(r.Context(), r.URL.Query().Get("name"), p, actor(r))
	})
}

func (s *Server) deleteGroup(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		return nil, v.DeleteGroup(r.Context(), r.URL.Query().Get("name"), actor(r))
	})
}

func (s *Server) getAppPasswords(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	all, _ := strconv.ParseBool(q.Get("all"))
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) { return v.AppPasswords(r.Context(), q.Get("login"), all) })
}

func (s *Server) postAppPassword(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusCreated, func(v *Service) (any, error) {
		n, err := read[NewAppPassword](r)
		if err != nil {
			return nil, err
		}
		return v.Create(r.Context(), r.URL.Query().Get("login"), n, actor(r))
	})
}

func (s *Server) patchAppPassword(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		p, err := read[AppPasswordPatch](r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		return v.Edit(r.Context(), q.Get("login"), q.Get("label"), p, actor(r))
	})
}

func (s *Server) revokeAppPassword(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		n, err := read[Revocation](r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		return v.Revoke(r.Context(), q.Get("login"), q.Get("label"), n.Why, actor(r))
	})
}

func (s *Server) getAppPassword(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) { return v.AppPassword(r.Context(), q.Get("login"), q.Get("label")) })
}

func (s *Server) rotateAppPassword(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		n, err := read[Rotation](r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		return v.Rotate(r.Context(), q.Get("login"), q.Get("label"), n, actor(r))
	})
}

func (s *Server) rotateOwnAppPassword(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		n, err := read[Rotation](r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		return v.RotateOwn(r.Context(), s.access.Self, q.Get("login"), q.Get("label"), n, actor(r))
	})
}

func (s *Server) findAppPasswords(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		q := r.URL.Query()
		f, err := parseFilter(q, "sort", "after", "limit")
		if err != nil {
			return nil, err
		}
		limit := 0
		if text := q.Get("limit"); text != "" {
			if limit, err = strconv.Atoi(text); err != nil {
				limit = -1 // which is refused
			}
		}
		return v.Find(r.Context(), f, q.Get("sort"), q.Get("after"), limit)
	})
}

func (s *Server) revokeFound(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		n, err := read[FoundRevocation](r)
		if err != nil {
			return nil, err
		}
		return v.RevokeFound(r.Context(), n, actor(r))
	})
}

// getProfile writes a CPU profile of the next seconds, in the format of go tool pprof. One at a time.
func (s *Server) getProfile(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.Atoi(r.URL.Query().Get("seconds"))
	if err != nil || seconds < 1 || seconds > int(maxProfile.Seconds()) {
		s.fail(w, r, &Fault{Code: "bad_request", Message: fmt.Sprintf("seconds must be 1 to %d", int(maxProfile.Seconds()))})
		return
	}
	if !s.profiling.CompareAndSwap(false, true) {
		s.fail(w, r, &Fault{Code: "busy", Message: "a profile is being taken", Hint: "try again"})
		return
	}
	defer s.profiling.Store(false)
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := pprof.StartCPUProfile(w); err != nil {
		s.fail(w, r, &Fault{Code: "busy", Message: "a profile is being taken", Hint: "try again"})
		return
	}
	defer pprof.StopCPUProfile()
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-r.Context().Done():
	}
}
