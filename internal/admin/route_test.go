package admin

import (
	"net/http"
	"testing"
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
