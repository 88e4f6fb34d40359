package main

import (
	"context"
	"time"
)

// floorEvery is how often the database is asked whether refusals have anything to hide. Where they had nothing and somebody imports
// hashes at another daemon, the times tell for so long at most.
const floorEvery = 10 * time.Second

// watchFloor lets refusals wait only while the site has rows that wrong passwords are compared with slowly.
func (d *daemon) watchFloor(ctx context.Context) {
	tick := time.NewTicker(floorEvery)
	defer tick.Stop()
	for {
		d.lookAtFloor(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lookAtFloor asks once. An outage changes nothing.
func (d *daemon) lookAtFloor(ctx context.Context) {
	s := d.store.Load()
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, floorEvery/2)
	defer cancel()
	if slow, err := s.SlowRows(ctx, d.ring.Load().IDs()); err == nil {
		d.floor.Need(slow)
	}
}
