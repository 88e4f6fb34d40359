package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Bounds of the endpoint. Whoever can reach it may ask as often as he likes, and costs no more than this.
const (
	maxConnections = 16
	maxScrapes     = 4 // at a time; one more is told to come again
	scrapeTime     = 5 * time.Second
)

// Server answers GET /metrics.
type Server struct{ http *http.Server }

// Registry returns everything that a daemon has to tell.
func Registry(version string, m *Meter, take func(context.Context) Snapshot) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(m.logins, m.took, &collector{version, runtime.Version(), take}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// NewServer returns a Server that listens nowhere yet.
func NewServer(r *prometheus.Registry, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime,
	}))
	return &Server{&http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      2 * scrapeTime,
		IdleTimeout:       2 * time.Minute, // Prometheus asks each minute, over the same connection
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Serve answers until the listener is closed or Shutdown is called; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(netutil.LimitListener(l, maxConnections))
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting and waits for running scrapes, bounded by the context.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	return err
}

// scrapeLog takes what promhttp complains of: a metric that could not be made is a fault of ours.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	if len(v) > 0 {
		if err, ok := v[len(v)-1].(error); ok {
			l.log.Error("metrics: a part of them could not be told", "err", err)
			return
		}
	}
	l.log.Error("metrics: a part of them could not be told")
}
