package main

import (
	"os/user"
	"strconv"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/config"
)

// access returns who may do what on the admin socket. A group that the machine does not have is a fault: its name could be given to another one later.
func access(cfg *config.Config) (admin.Access, config.Faults) {
	var faults config.Faults
	group := func(key, name string) admin.UnixGroup {
		if name == "" {
			return admin.UnixGroup{}
		}
		g, err := user.LookupGroup(name)
		if err == nil {
			var id uint64
			if id, err = strconv.ParseUint(g.Gid, 10, 32); err == nil {
				return admin.UnixGroup{Name: name, ID: uint32(id)}
			}
		}
		faults = append(faults, config.Fault{Key: key, Text: "there is no group " + strconv.Quote(name) + " on this machine; run: groupadd --system NAME"})
		return admin.UnixGroup{}
	}
	a := admin.Access{
		Admins:   group("admin.group", cfg.Admin.Group),
		HelpDesk: group("admin.help_desk_group", cfg.Admin.HelpDeskGroup),
		ReadOnly: group("admin.read_only_group", cfg.Admin.ReadOnlyGroup),
	}
	if s := cfg.Self; s.Enabled {
		a.Self = &admin.SelfService{Domain: s.Domain, MinUID: uint32(s.MinUID), Services: s.Services, Networks: s.Networks}
	}
	return a, faults
}
