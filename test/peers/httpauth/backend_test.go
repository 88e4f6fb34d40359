package httpauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// newApplication starts a web application that is told who its user is, and returns its host:port.
func newApplication(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "" {
			body = []byte("it was given the app password")
		}
		if r.Header.Get("X-Auth-Key") != "" {
			body = []byte("it was given the secret of the web server")
		}
		fmt.Fprintf(w, "%s: %s", strings.Join(r.Header.Values("Remote-User"), ", "), body)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
