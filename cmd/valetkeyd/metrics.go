package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/metrics"
)

// pingTime is how long the database may take before a scrape says that it is down. A login gives up later, but a database that needs half
// a second to say hello is in trouble.
const pingTime = 500 * time.Millisecond

// exporter is the endpoint for Prometheus, if there is one; SIGHUP opens, moves and closes it.
type exporter struct {
	server *metrics.Server
	*listener
}

// openMetrics binds the endpoint of the configuration, and returns nil if it has none. replace says that a Unix socket of ours may be in its
// place.
func (d *daemon) openMetrics(cfg config.Metrics, replace bool) (*exporter, error) {
	if !cfg.On() {
		return nil, nil
	}
	l, err := listen(cfg.Listen, permissions{cfg.Mode, cfg.Owner, cfg.Group}, replace)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	at := cfg.Listen.String()
	if l.path == "" {
		at = l.Addr().Network() + ":" + l.Addr().String() // with the port that was chosen, or systemd's
	}
	if a, err := config.ParseAddress(at); err == nil { // of systemd's sockets it is known only now
		if err := config.CheckMetrics(a, cfg.AllowPlaintext); err != nil {
			l.Close()
			return nil, fmt.Errorf("metrics.listen: %w", err)
		}
	}
	e := &exporter{metrics.NewServer(metrics.Registry(version, d.meter, d.snapshot), d.log), l}
	d.log.Info("listening", "listener", "metrics", "proto", "http", "address", at)
	go func() {
		if err := e.server.Serve(l); err != nil {
			d.log.Error("a listener ended", "listener", "metrics", "err", err)
		}
	}()
	return e, nil
}

// close ends the endpoint. A nil one is none.
func (e *exporter) close(ctx context.Context, log *slog.Logger) {
	if e == nil {
		return
	}
	if err := e.server.Shutdown(ctx); err != nil {
		log.Warn("connections were cut", "listener", "metrics", "err", err)
	}
}

// reloadMetrics moves the endpoint to where the configuration wants it. One that cannot be opened leaves none, or on a Unix socket that of
// before.
func (d *daemon) reloadMetrics(before, now config.Metrics) {
	if before == now && (d.metrics != nil || !now.On()) {
		return
	}
	old := d.metrics
	same := old != nil && before.Listen == now.Listen
	if same && now.Listen.Network == "tcp" { // the port is free for a moment
		old.Close()
	}
	e, err := d.openMetrics(now, same)
	switch {
	case err != nil:
		d.log.Error("a listener could not be opened", "listener", "metrics", "err", err)
		if same && now.Listen.Network != "tcp" {
			return
		}
	case same:
		old.keepFile()
	}
	d.metrics = e
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	go func() {
		defer cancel()
		old.close(ctx, d.log)
	}()
}

// pinging asks the database whether it is there, once for all who want to know at the same time: scrapes of a frozen one do not pile up, and two
// servers that scrape at once are told the same.
type pinging struct {
	mu  sync.Mutex
	now *ping // nil: nobody asks
}

// ping is a question under way.
type ping struct {
	done chan struct{}
	ok   bool // read after done
}

// ok reports whether the database answers within pingTime.
func (p *pinging) ok(ctx context.Context, ask func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	p.mu.Lock()
	q := p.now
	if q == nil {
		q = &ping{done: make(chan struct{})}
		p.now = q
		go func() {
			// Not the context of whoever asks first. A dead link may keep the driver for longer than any.
			ctx, cancel := context.WithTimeout(context.Background(), pingTime)
			defer cancel()
			q.ok = ask(ctx) == nil
			p.mu.Lock()
			p.now = nil
			p.mu.Unlock()
			close(q.done)
		}()
	}
	p.mu.Unlock()
	select {
	case <-q.done:
		return q.ok
	case <-ctx.Done():
		return false
	}
}

// snapshot is everything that is told of the daemon but the logins themselves.
func (d *daemon) snapshot(ctx context.Context) metrics.Snapshot {
	d.mu.Lock()
	frontEnds := slices.Clone(d.frontEnds)
	d.mu.Unlock()
	c := d.auth.Counters()
	s := metrics.Snapshot{Hashes: c.Argon2, HashesQueued: c.Waiting, Notices: d.notices.totals()}
	if st := d.store.Load(); st != nil {
		l, f, b := st.LookupStats(), st.Directory().Stats(), st.BookkeepingStats()
		s.Database.Store = &metrics.Store{
			Lookups: l.Lookups, Batches: l.Batches, Failed: l.Failed, Overloaded: l.Overloaded, SecondLane: l.SecondLane,
			Finds: f.Finds, FindBatches: f.Batches, Pending: b.Pending, Written: b.Written, Dropped: b.Dropped,
		}
		s.Database.Up = d.pinging.ok(ctx, st.Ping)
	}
	if d.throttle != nil {
		t := d.throttle.Stats()
		s.Throttle = &metrics.Throttle{Held: t.Held, Guesses: t.Counted, Repeated: t.Repeated, Refused: t.Refused, Entries: t.Entries}
	}
	if p := d.enrol.Plugin(); p.Path != "" || p.Error != "" {
		s.Plugin = &metrics.Plugin{
			Up: p.Up, BreakerOpen: p.BreakerOpen, Restarts: p.Restarts, Checks: p.Checks, Cached: p.Cached,
			CheckTime: time.Duration(p.CheckSeconds * float64(time.Second)), Errors: p.Errors, Fallback: p.Fallback, LinesDropped: p.LinesDropped,
			Known: p.Known, Waiting: p.Waiting, ConfigurationRefused: p.Error != "",
		}
	}
	for _, f := range frontEnds {
		n := f.connections()
		s.Listeners = append(s.Listeners, metrics.Listener{
			Name: f.spec.name, FrontEnd: f.spec.view.FrontEnd, Open: n.open, Total: n.total, Refused: n.refused, Yielded: n.yielded,
		})
		if t := d.certs.view(f.spec); t != nil {
			s.Certificates = append(s.Certificates, metrics.Certificate{Listener: f.spec.name, Until: t.Until, Broken: t.Error != ""})
		}
	}
	return s
}

// totals are those of the service, nil before there is one.
func (n *notices) totals() map[string]int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.service == nil {
		return nil
	}
	return n.service.Totals()
}
