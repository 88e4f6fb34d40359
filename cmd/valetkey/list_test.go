package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/admin"
)

// A list of many pages comes over one connection: one more for each page would stay open, here and in the daemon, until the end.
func TestListKeepsItsConnection(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	const pages = 40
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := strconv.Atoi(r.URL.Query().Get("after"))
		page := admin.Found{AppPasswords: []admin.AppPassword{{Login: "alice", Label: strconv.Itoa(at)}}, AsOf: time.Now()}
		if at < pages-1 {
			page.Next = strconv.Itoa(at + 1)
		}
		json.NewEncoder(w).Encode(page)
	}))
	server.Listener = l
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	var lines countLines
	a := &app{out: &lines, err: io.Discard}
	if code := a.run(t.Context(), []string{"--socket", socket, "list", "--jsonl", "--unused-for", "1d"}); code != exitDone || lines != pages {
		t.Fatalf("valetkey list: exit code %d and %d lines, want %d", code, lines, pages)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d pages came over %d connections, want 1", pages, n)
	}
}

type countLines int

func (c *countLines) Write(b []byte) (int, error) {
	for _, x := range b {
		if x == '\n' {
			*c++
		}
	}
	return len(b), nil
}
