package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Bounds of reading the audit log.
const (
	maxEvents    = 500              // of a page
	maxWait      = 30 * time.Second // for the next event
	askEvery     = time.Second      // the database, meanwhile
	maxFollowers = 16               // calls that wait at a time; one more is answered at once
)

// Event is an entry of the audit log as the API shows it.
type Event struct {
	ID     int64           `json:"id"`
	At     time.Time       `json:"at"`
	Kind   string          `json:"kind"`
	Actor  string          `json:"actor,omitempty"` // empty: nobody did it, it happened
	Login  string          `json:"login,omitempty"`
	Label  string          `json:"label,omitempty"`
	Detail json.RawMessage `json:"detail"`
}

// Events is a page of the audit log, oldest first.
type Events struct {
	Events []Event `json:"events"`
	// After is where to go on to newer ones: what comes after it has not been seen, and everything before it has.
	After int64 `json:"after"`
}

// EventQuery selects events. Without After the newest are meant.
type EventQuery struct {
	Login, Kind string    // empty: all
	Since       time.Time // zero: all
	Before      int64     // the newest before this id; 0: of all
	After       *int64    // the oldest after this one
	Limit       int       // 0: the largest page
	Settled     bool      // of the newest: only those before which none can appear any more, so that following them misses none
}

// Events reads a page of the audit log. An unknown login or kind is no error: the log outlives accounts.
func (s *Service) Events(ctx context.Context, q EventQuery) (Events, error) {
	f := auth.EventFilter{Kind: q.Kind, Since: q.Since, Limit: q.Limit}
	if f.Limit <= 0 || f.Limit > maxEvents {
		f.Limit = maxEvents
	}
	if q.Login != "" {
		l, err := login(q.Login)
		if err != nil {
			return Events{}, err
		}
		f.Login = l
	}
	if !eventKind(q.Kind) {
		return Events{}, fault("bad_kind", "for example app_password.created, login.rejected", "%q is not a kind of event", clip(q.Kind))
	}
	page := Events{Events: []Event{}}
	var found []auth.Event
	var err error
	switch {
	case q.After != nil && (q.Before != 0 || *q.After < 0):
		return Events{}, fault("bad_request", "", "after and before cannot be combined, and neither is negative")
	case q.After != nil:
		found, page.After, err = s.Store.EventsAfter(ctx, f, *q.After)
	default:
		before := max(q.Before, 0)
		if q.Settled && before == 0 {
			if page.After, err = s.Store.LastEvent(ctx); err != nil {
				return Events{}, err
			}
			before = page.After + 1
		}
		if found, err = s.Store.Events(ctx, f, before); err == nil && page.After == 0 && len(found) > 0 {
			page.After = found[len(found)-1].ID
		}
	}
	if err != nil {
		return Events{}, err
	}
	for _, e := range found {
		page.Events = append(page.Events, Event{e.ID, e.At, e.Kind, e.Actor, e.Login, e.Label, json.RawMessage(e.Detail)})
	}
	return page, nil
}

// eventKind accepts what a kind can be; also those of newer daemons that share the database.
func eventKind(s string) bool {
	if len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}

func (s *Server) eventRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/events", handle: s.getEvents, needs: mayRead},
		{method: "GET", path: "/v1/why", handle: s.getWhy, needs: mayRead},
	}
}

// number reads a number that is not negative from a query; absent is 0.
func number(q url.Values, key string) (int64, error) {
	if !q.Has(key) {
		return 0, nil
	}
	n, err := strconv.ParseInt(q.Get(key), 10, 64)
	if err != nil || n < 0 {
		return 0, fault("bad_request", "", "%s must be a number", key)
	}
	return n, nil
}

func eventQuery(v url.Values) (q EventQuery, wait time.Duration, err error) {
	q = EventQuery{Login: v.Get("login"), Kind: v.Get("kind"), Settled: v.Get("settled") == "true"}
	limit, err1 := number(v, "limit")
	before, err2 := number(v, "before")
	after, err3 := number(v, "after")
	seconds, err4 := number(v, "wait")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return q, 0, err
	}
	if v.Has("after") {
		q.After = &after
	}
	if t := v.Get("since"); t != "" {
		if q.Since, err = time.Parse(time.RFC3339, t); err != nil {
			return q, 0, fault("bad_request", "2027-12-31T18:00:00Z", "since is not a time as in RFC 3339")
		}
	}
	q.Limit, q.Before = int(min(limit, maxEvents)), before
	return q, min(time.Duration(min(seconds, 1000))*time.Second, maxWait), nil
}

// getEvents answers with a page. With after and wait it waits for the first event, asking the database once a second.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) {
	q, wait, err := eventQuery(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	end := time.Now().Add(wait)
	if q.After == nil || wait == 0 || s.followers.Add(1) > maxFollowers {
		end = time.Time{}
	}
	if q.After != nil && wait > 0 {
		defer s.followers.Add(-1)
	}
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		for {
			page, err := v.Events(r.Context(), q)
			if err != nil || len(page.Events) > 0 || !time.Now().Before(end) {
				return page, err
			}
			q.After = &page.After
			select {
			case <-time.After(min(askEvery, time.Until(end))):
			case <-s.stopping:
				return page, nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
	})
}

// Events asks for a page of the audit log. With q.After and wait the daemon waits for the first event, at most 30 seconds.
func (c *Client) Events(ctx context.Context, q EventQuery, wait time.Duration) (Events, error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	set := func(key, value string, is bool) {
		if is {
			v.Set(key, value)
		}
	}
	set("login", q.Login, q.Login != "")
	set("kind", q.Kind, q.Kind != "")
	set("since", q.Since.UTC().Format(time.RFC3339), !q.Since.IsZero())
	set("before", strconv.FormatInt(q.Before, 10), q.Before > 0)
	set("settled", "true", q.Settled)
	if q.After != nil {
		v.Set("after", strconv.FormatInt(*q.After, 10))
		set("wait", strconv.Itoa(int(wait.Seconds())), wait > 0)
	}
	return ask[Events](ctx, c, "GET", "/v1/events", v, nil)
}
