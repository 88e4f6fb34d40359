package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// How long a token is kept, and what is no token.
func TestTokens(t *testing.T) {
	given := 0
	reply, status := "", 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given++
		w.WriteHeader(status)
		fmt.Fprintf(w, reply, given)
	}))
	defer server.Close()
	for _, tt := range []struct {
		name, reply string
		status      int
		kept        time.Duration // 0: an error
		fault       string
	}{
		{"five minutes", `{"access_token":"t%d","token_type":"Bearer","expires_in":300}`, 200, 270 * time.Second, ""},
		{"ten seconds", `{"access_token":"t%d","token_type":"bearer","expires_in":10}`, 200, 9 * time.Second, ""},
		{"not said", `{"access_token":"t%d","token_type":"Bearer"}`, 200, 54 * time.Second, ""},
		{"for ever", `{"access_token":"t%d","token_type":"Bearer","expires_in":9000000000000000000}`, 200, time.Hour - 30*time.Second, ""},
		{"another type", `{"access_token":"t%d","token_type":"mac"}`, 200, 0, "no bearer token"},
		{"none", `{"x":%d}`, 200, 0, "no bearer token"},
		{"no JSON", `<canary %d>`, 200, 0, "no bearer token"},
		{"refused", `{"error":"invalid_client","x":%d}`, 401, 0, "status 401: invalid_client"},
		{"an odd error", `{"error":"canary %d"}`, 400, 0, "status 400"},
	} {
		now := time.Unix(1_000_000, 0)
		x := &tokens{client: server.Client(), url: server.URL, slot: make(chan struct{}, 1), now: func() time.Time { return now }}
		given, reply, status = 0, tt.reply, tt.status
		first, err := x.get(t.Context(), "")
		if tt.kept == 0 {
			if err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: get = %q, %v, want %q", tt.name, first, err, tt.fault)
			}
			continue
		}
		if err != nil || first != "t1" {
			t.Errorf("%s: get = %q, %v", tt.name, first, err)
		}
		for after, want := range map[time.Duration]string{tt.kept - time.Second: "t1"} {
			now = now.Add(after)
			if got, err := x.get(t.Context(), ""); err != nil || got != want {
				t.Errorf("%s: after %v get = %q, %v, want %q", tt.name, after, got, err, want)
			}
		}
		now = now.Add(time.Second)
		if got, err := x.get(t.Context(), ""); err != nil || got != "t2" {
			t.Errorf("%s: at its end get = %q, %v, want another one", tt.name, got, err)
		}
		// A stale one is replaced once, however many say so.
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if got, err := x.get(context.Background(), "t2"); err != nil || got != "t3" {
					t.Errorf("%s: in place of a stale one get = %q, %v", tt.name, got, err)
				}
			})
		}
		wg.Wait()
	}
}
