package config

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/auth"
)

// selfService reads [self_service].
func (r *reader) selfService() SelfService {
	s := SelfService{Enabled: r.yes("enabled"), Domain: strings.ToLower(r.text("domain", "")), MinUID: r.number("min_uid", 1000), Networks: r.networks("networks")}
	if s.Domain != "" {
		const name = "a@"
		if n, err := auth.NormaliseLogin(name + s.Domain); err != nil || n != name+s.Domain || strings.Contains(s.Domain, "@") {
			r.fault("domain", "%q is not what follows the @ in a login; write \"example.org\", or leave it out if logins have no @", s.Domain)
		}
	}
	if s.MinUID < 1 || s.MinUID > 1<<31 {
		r.fault("min_uid", "%d is not the first user id of people: 1000 on most systems, UID_MIN in /etc/login.defs", s.MinUID)
	}
	for _, text := range r.texts("services") {
		service, err := auth.NormaliseService(text)
		if err != nil {
			r.fault("services", "%q: %v; write \"imap\" or another service", text, err)
			continue
		}
		if !slices.Contains(s.Services, service) {
			s.Services = append(s.Services, service)
		}
	}
	return s
}
