package config

import (
	"strings"
	"testing"
	"time"
)

func TestEnrolment(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"off", "", ""},
		{"in full", `
require = "login"
on_error = "undecided"
last_known = "72h"
help = "enrol one at https://id.example.org/2fa"
plugin = "/usr/lib/valetkey//valetkey-2fa-file"
args = ["-list", "/etc/valetkey/enrolled"]
env = ["TZ=Europe/Berlin", "EMPTY="]
checksum = "` + strings.Repeat("Ab", 32) + `"
timeout = "300ms"
max_parallel = 8`, ""},
		{"a plugin to try, with nothing required", `plugin = "/p"`, ""},
		{"no plugin", `require = "login"`, `enrolment.require: it is "login", and no plugin knows who has a second factor; write plugin =`},
		{"no plugin, issue", `require = "issue"`, `enrolment.require: it is "issue"`},
		{"not a policy", "require = \"always\"\nplugin = \"/p\"", `enrolment.require: "always" is not "off", "issue" or "login"`},
		{"not a way out", `on_error = "deny"`, `enrolment.on_error: "deny" is not`},
		{"relative", `plugin = "valetkey-2fa-file"`, `enrolment.plugin: "valetkey-2fa-file" is not an absolute path; write the one that "command -v valetkey-2fa-file" prints`},
		{"short checksum", `checksum = "abc"`, "enrolment.checksum: it is not a SHA-256 of 64 hexadecimal digits; write what"},
		{"not a variable", `env = ["canary"]`, `enrolment.env: a variable is written "NAME=VALUE"`},
		{"the daemon's variable", `env = ["PLUGIN_UNIX_SOCKET_DIR=/tmp"]`, "enrolment.env: PLUGIN_UNIX_SOCKET_DIR is a name that the daemon itself uses"},
		{"the cookie", `env = ["VALETKEY_ENROLMENT_PLUGIN=x"]`, "that the daemon itself uses"},
		{"NUL in an argument", `args = ["a\u0000b"]`, "enrolment.args: one of them has"},
		{"endless argument", `args = ["` + strings.Repeat("a", 5000) + `"]`, "more than 4096 bytes"},
		{"many arguments", `args = ["` + strings.Repeat(`","`, 70) + `"]`, "at most 64 are possible"},
		{"two lines of help", `help = "a\nb"`, "enrolment.help: it must be at most 200 characters on one line"},
		{"escape in help", `help = "a\u001b[2Jb"`, "enrolment.help"},
		{"too patient", `timeout = "1m"`, `enrolment.timeout: "1m" is not a time from 10ms to 5s, such as "1s"`},
		{"no unit", `last_known = "24"`, `enrolment.last_known: "24" is not a time from 1m0s to 720h0m0s`},
		{"no time", `health_every = "0s"`, "enrolment.health_every"},
		{"not text", `start_timeout = 10`, "enrolment.start_timeout: it must be text in quotes"},
		{"too many", `max_parallel = 5000`, "enrolment.max_parallel: 5000 is not between 1 and 1024"},
		{"none", `remembered = 0`, "enrolment.remembered: 0 is not between"},
		{"unknown key", `path = "/p"`, "enrolment.path: unknown key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Load(Flags{File: write(t, "[enrolment]\n"+tt.text)})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Load = %v, want no fault", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "canary")):
				t.Errorf("Load = %v, want %q in it", err, tt.want)
			case tt.name == "in full":
				if e := c.Enrolment; e.Plugin != "/usr/lib/valetkey/valetkey-2fa-file" || len(e.Args) != 2 || e.LastKnown != 72*time.Hour || e.Timeout != 300*time.Millisecond {
					t.Errorf("Load = %+v", e)
				}
			}
		})
	}
}
