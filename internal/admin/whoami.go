package admin

import (
	"context"
	"net/http"
)

// Whoami is what the daemon takes a caller for.
type Whoami struct {
	User string      `json:"user,omitempty"` // empty: the system has no name for the user id
	UID  uint32      `json:"uid"`
	Role string      `json:"role"` // "admin", "help_desk", "read_only" or "none"
	Own  *OwnAccount `json:"own,omitempty"`
}

// OwnAccount is the account that a user of the machine may manage the app passwords of. It need not exist yet.
type OwnAccount struct {
	Login    string   `json:"login"`
	Services []string `json:"services"` // that its app passwords may open; empty: all
	Networks []string `json:"networks"` // that they may be used from; empty: all
}

func (s *Server) whoamiRoutes() []route {
	return []route{{method: "GET", path: "/v1/whoami", handle: s.getWhoami, needs: mayAsk}}
}

func (s *Server) getWhoami(w http.ResponseWriter, r *http.Request) {
	c := callerOf(r)
	out := Whoami{User: c.name, UID: c.uid, Role: c.role.String()}
	if c.own != "" {
		out.Own = &OwnAccount{Login: c.own, Services: append([]string{}, s.access.Self.Services...), Networks: []string{}}
		for _, p := range s.access.Self.Networks {
			out.Own.Networks = append(out.Own.Networks, p.String())
		}
	}
	reply(w, http.StatusOK, out)
}

// Whoami asks what the daemon takes the caller for.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	return ask[Whoami](ctx, c, "GET", "/v1/whoami", nil, nil)
}
