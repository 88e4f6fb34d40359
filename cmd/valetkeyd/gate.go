package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
)

// gateEvery is how often the groups of applications are looked for. One that is not there lets nobody in, and a wrong name in the
// configuration looks to users like wrong passwords.
const gateEvery = 10 * time.Second

// gates knows of which applications the groups were missing when they were last looked for.
type gates struct {
	now chan struct{} // look at once

	mu      sync.Mutex
	missing map[gate]bool
}

// gate is the group of an application at a listener.
type gate struct{ listener, application, group string }

func newGates() gates { return gates{now: make(chan struct{}, 1), missing: map[gate]bool{}} }

// look makes the watch look at once.
func (g *gates) look() {
	select {
	case g.now <- struct{}{}:
	default:
	}
}

// watchGates tells the log when the group of an application is missing, at the start or later, and when it is there again.
func (d *daemon) watchGates(ctx context.Context) {
	tick := time.NewTicker(gateEvery)
	defer tick.Stop()
	for {
		d.mu.Lock()
		open := slices.Clone(d.frontEnds)
		d.mu.Unlock()
		d.lookAtGates(ctx, open)
		select {
		case <-ctx.Done():
			return
		case <-d.gates.now:
		case <-tick.C:
		}
	}
}

func (d *daemon) lookAtGates(ctx context.Context, open []*frontEnd) {
	there := map[gate]bool{} // and what is not there any more at all is forgotten
	for _, f := range open {
		if f.missingGroups == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, gateEvery)
		missing, err := f.missingGroups(ctx)
		cancel()
		for _, a := range f.spec.view.Applications {
			at := gate{f.spec.name, a.Name, a.Group}
			was := d.gates.was(at)
			if err != nil { // an outage tells nothing, and the logins tell of it
				there[at] = was
				continue
			}
			there[at] = missing[a.Name]
			switch args := []any{"listener", f.spec.name, "application", a.Name, "group", a.Group}; {
			case there[at] && !was:
				d.log.Warn("nobody can log in to this application, its group does not exist: make it, or change the configuration", args...)
			case was && !there[at]:
				d.log.Info("the group of this application exists now", args...)
			}
		}
	}
	d.gates.mu.Lock()
	defer d.gates.mu.Unlock()
	d.gates.missing = there
}

func (g *gates) was(at gate) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.missing[at]
}

// view describes the applications of a listener for the status: as it is now, or as it was if that cannot be found out.
func (g *gates) view(ctx context.Context, f *frontEnd) []admin.Application {
	if f.missingGroups == nil {
		return f.spec.view.Applications
	}
	all := slices.Clone(f.spec.view.Applications)
	missing, err := f.missingGroups(ctx)
	for i := range all {
		a := &all[i]
		if a.GroupMissing = missing[a.Name]; err != nil {
			a.GroupMissing = g.was(gate{f.spec.name, a.Name, a.Group})
		}
	}
	return all
}
