package main

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckAuthReply(t *testing.T) {
	for _, c := range []struct {
		line     string
		accepted bool
		fails    bool
	}{
		{"OK\t12\tuser=alice\n", true, false},
		{"OK\t12\tuser=alice\tlabel=x\n", true, false},
		{"FAIL\t12\tuser=alice\n", false, false},
		{"FAIL\t12\n", false, false},
		{"OK\t1\tuser=alice\n", false, true},
		{"OK\t123\tuser=alice\n", false, true},
		{"OK\t12\tuser=alice2\n", false, true},
		{"OK\t12\tuser=bob\n", false, true},
		{"OK\t12\n", false, true},
		{"FAIL\t13\tuser=alice\n", false, true},
		{"FAIL\t12\tuser=alice\tcode=temp_fail\n", false, true},
		{"CONT\t12\t\n", false, true},
		{"\n", false, true},
	} {
		t.Run(fmt.Sprintf("%q", c.line), func(t *testing.T) {
			accepted, err := checkAuthReply([]byte(c.line), 12, []byte("\tuser=alice"))
			if accepted != c.accepted || (err != nil) != c.fails {
				t.Errorf("checkAuthReply = %v, %v, want %v, error %v", accepted, err, c.accepted, c.fails)
			}
		})
	}
}

// TestDovecotSession talks to a server that hands its replies out in pieces.
func TestDovecotSession(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	heard := make(chan []string, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			close(heard)
			return
		}
		defer conn.Close()
		for _, piece := range []string{"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\n", "SPID\t1\nCUID\t1\nCOOKIE\t0\nDO", "NE\n"} {
			conn.Write([]byte(piece))
		}
		var lines []string
		in := bufio.NewScanner(conn)
		for in.Scan() {
			lines = append(lines, in.Text())
			switch len(lines) {
			case 3:
				conn.Write([]byte("OK\t1\tuser="))
				conn.Write([]byte("alice\n"))
			case 4:
				conn.Write([]byte("FAIL\t2\tuser=alice\n"))
			}
		}
		heard <- lines
	}()
	before := clientPID.Load()
	s, err := newDovecot("unix", path, []credential{{"alice", "abcd-efgh"}}).dial()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if ok, err := s.login(0); ok != want || err != nil {
			t.Errorf("login %d = %v, %v, want %v, nil", i, ok, err, want)
		}
	}
	s.close()
	const auth = "\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.1\trip=127.0.0.1\tresp=AGFsaWNlAGFiY2QtZWZnaA=="
	want := []string{"VERSION\t1\t1", fmt.Sprintf("CPID\t%d", before+1), "AUTH\t1" + auth, "AUTH\t2" + auth}
	if got := <-heard; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("server heard %q, want %q", got, want)
	}
}
