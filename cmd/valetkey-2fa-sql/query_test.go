package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/plugin"
)

// mute is a server that accepts a session and says nothing more: a machine that is gone, or a backend that hangs.
func mute(t *testing.T) (host string, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var head [8]byte
				if _, err := io.ReadFull(conn, head[:]); err != nil {
					return
				}
				const protocol3 = 3 << 16
				if binary.BigEndian.Uint32(head[4:]) == protocol3 {
					_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[:]))-8)
					_, _ = conn.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I")) // AuthenticationOk, ReadyForQuery
				}
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	address := l.Addr().(*net.TCPAddr)
	return "127.0.0.1", uint16(address.Port)
}

// A server that hangs holds neither an answer nor, for ever, a connection: with all of them held every answer after it would fail.
func TestMuteServer(t *testing.T) {
	cfg, err := pq.NewConfig("postgres://u@h/db?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Port = mute(t)
	db, err := openDatabase(cfg, 200*time.Millisecond, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { go db.Close() }) // a connection that hangs would hold it
	c := &checker{db: db, query: "SELECT $1", timeout: 200 * time.Millisecond}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		_, err := c.Check(ctx, plugin.Request{AccountID: 1, Login: "alice"})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
			t.Errorf("Check = %v after %v, want its deadline", err, time.Since(began))
		}
		cancel()
	}
	for deadline := time.Now().Add(20 * time.Second); db.Stats().InUse > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection to a mute server is held for ever")
		}
	}
}
