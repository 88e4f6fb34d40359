package admin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
)

// A route that states no permission, or lacks another part, keeps the daemon from starting.
func TestRouteIsComplete(t *testing.T) {
	handle := func(http.ResponseWriter, *http.Request) {}
	for name, r := range map[string]route{
		"no permission":      {method: "GET", path: "/v1/x", handle: handle},
		"unknown permission": {method: "GET", path: "/v1/x", handle: handle, needs: mayManage + 1},
		"no method":          {path: "/v1/x", handle: handle, needs: mayRead},
		"no path":            {method: "GET", handle: handle, needs: mayRead},
		"no handler":         {method: "GET", path: "/v1/x", needs: mayRead},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("newMux took it, want a panic")
				}
			}()
			new(Server).newMux([]route{r})
		})
	}
}

// A query of which a handler would see half is refused, and nothing is done.
func TestHalfAQuery(t *testing.T) {
	service, store := newTestService()
	store.accounts = []auth.Account{{ID: 1, Login: "alice", Enabled: true}}
	c := newMember(t, service, Access{}, aStranger)
	for _, query := range []string{"login=alice&kind=reader;x", "login=alice&login=bob", "login=alice&kind=%zz", "kind=reader&login=alice&kind="} {
		if status, body := c.raw(t, "DELETE", "/v1/account?"+query, ""); status != http.StatusBadRequest || !strings.Contains(body, "bad_request") {
			t.Errorf("DELETE ?%s = %d %s, want bad_request", query, status, body)
		}
	}
	for _, query := range []string{"limit=x", "limit=-1"} {
		if status, _ := c.raw(t, "GET", "/v1/accounts?"+query, ""); status != http.StatusBadRequest {
			t.Errorf("GET /v1/accounts?%s = %d, want 400", query, status)
		}
	}
	if len(store.accounts) != 1 {
		t.Error("the account was deleted")
	}
}
