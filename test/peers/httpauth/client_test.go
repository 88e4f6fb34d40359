package httpauth_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/peers"
)

// web puts something, as a calendar program does, and returns the status. What the application knows of the user must be right.
func web(addr string) peers.Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		status, body := peers.Request(t, http.MethodPut, "http://"+addr+"/alice/calendar/1.ics", "BEGIN:VCALENDAR", login, password)
		if want := application(strings.TrimPrefix(login, peers.Alias)); strings.HasPrefix(status, "2") && body != want {
			t.Errorf("the application saw %q, want %q", body, want)
		}
		return status
	}
}

// caldav asks for the user's principal (RFC 5397), as a calendar program does first.
func caldav(addr string) peers.Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		status, body := peers.Request(t, "PROPFIND", "http://"+addr+"/",
			`<propfind xmlns="DAV:"><prop><current-user-principal/></prop></propfind>`, login, password)
		want := "<href>/" + url.PathEscape(strings.TrimPrefix(login, peers.Alias)) + "/</href>"
		if strings.HasPrefix(status, "2") && !strings.Contains(strings.ReplaceAll(body, "%40", "@"), want) {
			t.Errorf("principal: %s, want %s", body, want)
		}
		return status
	}
}

// application is what [newApplication] answers a user who has logged in.
func application(login string) string { return login + ": BEGIN:VCALENDAR" }
