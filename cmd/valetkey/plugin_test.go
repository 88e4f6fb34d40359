package main

import (
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/config"
)

func TestDoctorOfPlugins(t *testing.T) {
	since := time.Now()
	up := admin.Plugin{Require: "login", Path: "/p", Up: true, Name: "p", Since: &since}
	but := func(change func(*admin.Plugin)) admin.Plugin { p := up; change(&p); return p }
	for name, tc := range map[string]struct {
		plugin  admin.Plugin
		require string // of the file; empty: not known
		want    string // state and a part of the text
	}{
		"none":               {admin.Plugin{Require: "off"}, "off", "ok not asked for: app passwords are issued without one"},
		"runs":               {up, "login", "ok asked for when an app password is made, and at each login; p runs"},
		"runs, no file":      {up, "", "ok asked for"},
		"down":               {but(func(p *admin.Plugin) { p.Up, p.Problem = false, "no such file" }), "login", "wrong the plugin DOES NOT RUN: no such file"},
		"down, not asked":    {but(func(p *admin.Plugin) { p.Up, p.Problem, p.Require = false, "x", "off" }), "off", "warning not asked for"},
		"only fails":         {but(func(p *admin.Plugin) { p.BreakerOpen = true }), "login", "wrong the plugin runs, and its last checks all failed"},
		"not reloaded":       {up, "off", `wrong enrolment.require is "off" in the file, and "login" in the daemon`},
		"refused, old stays": {but(func(p *admin.Plugin) { p.Error = "it cannot be used" }), "login", "wrong it cannot be used"},
	} {
		d := &doctor{status: &admin.Status{Enrolment: tc.plugin}}
		if tc.require != "" {
			d.cfg = &config.Config{Enrolment: config.Enrolment{Require: tc.require}}
		}
		d.plugin()
		if f := d.findings[0]; !strings.HasPrefix(f.State+" "+f.Text, tc.want) || f.State == fine != (f.Hint == "") {
			t.Errorf("%s: %+v, want %q, and a hint unless it is fine", name, f, tc.want)
		}
	}
	d := &doctor{}
	if d.plugin(); len(d.findings) > 0 {
		t.Errorf("without a daemon: %+v, want nothing", d.findings)
	}
}
