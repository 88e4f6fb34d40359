package config

import (
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Tree says where entries are below BaseDN, and how much of them one search may show. The names are relative to BaseDN.
type Tree struct {
	People       string // parent of the accounts
	RDNAttribute string // that names an account below it
	Groups       string // parent of the groups
	Readers      string // parent of the names of readers

	SearchEntries int           // of one search
	SearchMiB     int           // of one answer
	SearchTime    time.Duration // of one answer
}

// Application is a program that has a suffix of its own below BaseDN.
type Application struct {
	Name    string
	Group   string // whose members may log in; empty: everybody
	Service string
}

func (r *reader) tree() Tree {
	x := Tree{
		People: r.text("people", "ou=people"), RDNAttribute: r.text("rdn_attribute", "uid"), Groups: r.text("groups", "ou=groups"), Readers: r.text("readers", "ou=readers"),
		SearchEntries: r.number("search_entries", 5000), SearchMiB: r.number("search_mib", 8),
	}
	if x.SearchEntries < 1 || x.SearchEntries > 1<<30 {
		r.fault("search_entries", "%d is not a number of entries from 1 to %d", x.SearchEntries, 1<<30)
	}
	if x.SearchMiB < 1 || x.SearchMiB > 1<<20 {
		r.fault("search_mib", "%d is not a size from 1 to %d MiB", x.SearchMiB, 1<<20)
	}
	text := r.text("search_time", "1m")
	var err error
	if x.SearchTime, err = time.ParseDuration(text); err != nil || x.SearchTime < time.Second || x.SearchTime > time.Hour {
		r.fault("search_time", "%q is not a time from 1s to 1h, such as \"1m\"", text)
	}
	return x
}

// applications reads the list of sections below an [[ldap]].
func (r *reader) applications() (all []Application) {
	names := map[string]bool{}
	for _, s := range r.subs("application") {
		a := Application{Name: s.text("name", ""), Group: s.text("group", "")}
		name, err := auth.NormaliseService(a.Name)
		switch {
		case a.Name == "":
			s.fault("name", "it is missing; it stands in the names below which the application binds: app=NAME")
		case err != nil || name != a.Name:
			s.fault("name", "%q is not a name of lower-case letters, digits and . _ -", a.Name)
		case names[name]:
			s.fault("name", "%q is the name of another application too", a.Name)
		}
		names[name] = true
		if a.Group != "" {
			if a.Group, err = auth.NormaliseGroup(a.Group); err != nil {
				s.fault("group", "%q: %v", s.text("group", ""), err)
			}
		}
		if a.Service = s.service("service", ""); a.Service == "" {
			a.Service = name
		}
		all = append(all, a)
	}
	return all
}
