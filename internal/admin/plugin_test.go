package admin

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
)

// How the plugin is can be asked for while the database hangs, and the status with it.
func TestPluginWithoutTheStatus(t *testing.T) {
	s := NewServer(func() *Service { return nil }, func(context.Context) Status {
		t.Error("the status was asked for")
		return Status{}
	}, slog.New(slog.DiscardHandler))
	s.PluginFrom(func() Plugin { return Plugin{Require: "login", Path: "/p", Up: true, PID: 7} })
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Shutdown(context.Background())
	got, err := NewClient(socket).Plugin(t.Context())
	if err != nil || !got.Up || got.PID != 7 {
		t.Errorf("Plugin = %+v, %v, want the one that runs", got, err)
	}
}
