package main

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/saslauth/checkpassword/wire"
)

// world is what a [helper] finds and what it did to it.
type world struct {
	environ []string
	raw     []string // nil: environ
	input   string
	readErr error
	reply   wire.Reply
	askErr  error
	uid     int
	execErr error
	canExec string // the only path that exec finds; empty: all

	asked   []wire.Request
	socket  string
	became  []int // uid, gid
	home    string
	argv    []string
	handed  []string // the environment of the next program
	path    string
	printed []string
}

func (w *world) helper() *helper {
	return &helper{
		environ: slices.Clone(w.environ),
		rawEnviron: func() ([]string, error) {
			if w.raw != nil {
				return w.raw, nil
			}
			return w.environ, nil
		},
		read: func(fd, limit int, _ time.Time) ([]byte, error) {
			return []byte(w.input[:min(len(w.input), limit+1)]), w.readErr
		},
		ask: func(path string, r wire.Request, _ time.Time) (wire.Reply, error) {
			w.socket, w.asked = path, append(w.asked, r)
			return w.reply, w.askErr
		},
		uid:    func() (realUID, effective int) { return w.uid, w.uid },
		become: func(uid, gid int) error { w.became = []int{uid, gid}; return nil },
		chdir:  func(path string) error { w.home = path; return nil },
		exec: func(path string, argv, environ []string) error {
			if w.canExec != "" && path != w.canExec {
				return syscall.ENOENT
			}
			w.path, w.argv, w.handed = path, argv, slices.Clone(environ)
			return w.execErr
		},
		print: func(line string) { w.printed = append(w.printed, line) },
		now:   time.Now,
	}
}

var account = wire.Reply{Outcome: wire.Accepted, User: "alice@example.org", Fields: []wire.Field{
	{Name: "Free", Value: "a b"}, {Name: "gid", Value: "5001"}, {Name: "home", Value: "/home/alice"},
	{Name: "quota", Value: "2G"}, {Name: "uid", Value: "5000"},
}}

const login = "Alice\x00secret\x00\x00"

func TestOptions(t *testing.T) {
	def := options{timeout: 9 * time.Second}
	with := func(change func(*options)) options {
		o := def
		change(&o)
		return o
	}
	prog := []string{"/prog"}
	for _, c := range []struct {
		args []string
		want options
	}{
		{[]string{"/prog"}, with(func(o *options) { o.program = prog })},
		{[]string{"/prog", "-pam", "x"}, with(func(o *options) { o.program = []string{"/prog", "-pam", "x"} })},
		{[]string{"-socket", "/s", "-service", "imap", "-timeout", "3", "/prog"},
			with(func(o *options) { o.socket, o.service, o.timeout, o.program = "/s", "imap", 3*time.Second, prog })},
		{[]string{"--socket=/s", "--check", "--", "/prog"}, with(func(o *options) { o.socket, o.check, o.program = "/s", true, prog })},
		{[]string{"--", "-prog"}, with(func(o *options) { o.program = []string{"-prog"} })},
		{[]string{"-pam"}, with(func(o *options) { o.pam, o.program = true, []string{} })},
		{[]string{"-version"}, with(func(o *options) { o.version, o.program = true, []string{} })},
	} {
		got, err := parseOptions(c.args)
		same := slices.Equal(got.program, c.want.program)
		if got.program, c.want.program = nil, nil; err != nil || !same || got.socket != c.want.socket || got.service != c.want.service ||
			got.timeout != c.want.timeout || got.pam != c.want.pam || got.check != c.want.check || got.version != c.want.version {
			t.Errorf("parseOptions(%q) = %+v, %v, want %+v", c.args, got, err, c.want)
		}
	}
	for _, args := range [][]string{
		nil, {""}, {"-socket", "/s"}, {"-socket"}, {"-socket=", "/prog"}, {"-x", "/prog"}, {"-pam", "/prog"}, {"-pam", "-check"},
		{"-pam=yes"}, {"-timeout", "0", "/prog"}, {"-timeout", "121", "/prog"}, {"-timeout", "x", "/prog"}, {"-check"},
	} {
		w := &world{}
		if got := w.helper().main(args); got != misused || len(w.asked) > 0 {
			t.Errorf("main(%q) = %d, want %d", args, got, misused)
		}
	}
}

func TestDescribe(t *testing.T) {
	dovecot := []string{"PROTO=TCP", "ORIG_UID=104", "SERVICE=imap", "TCPLOCALPORT=10143", "TCPREMOTEIP=192.0.2.7", "AUTH_RIP=192.0.2.7",
		"AUTH_SERVICE=imap", "AUTH_SESSION=s1"}
	for _, c := range []struct {
		name    string
		service string // of -service
		environ []string
		want    wire.Request
	}{
		{"Dovecot, TLS", "", append([]string{"AUTH_SECURED=secured"}, dovecot...),
			wire.Request{Service: "imap", Remote: "192.0.2.7", Session: "s1", TLS: wire.TLSYes}},
		{"Dovecot, no TLS", "", append([]string{"AUTH_SECURED="}, dovecot...),
			wire.Request{Service: "imap", Remote: "192.0.2.7", Session: "s1", TLS: wire.TLSNo}},
		{"Dovecot for a peer that tells nothing", "", []string{"SERVICE=smtp", "AUTH_SECURED="}, wire.Request{Service: "smtp"}},
		{"Dovecot by its AUTH variables alone", "", []string{"AUTH_SERVICE=sieve", "AUTH_RIP=::1"}, wire.Request{Service: "sieve", Remote: "::1"}},
		{"option before environment", "webmail", dovecot, wire.Request{Service: "webmail", Remote: "192.0.2.7", Session: "s1"}},
		{"tcpserver", "", []string{"PROTO=TCP", "TCPLOCALPORT=995", "TCPREMOTEIP=::ffff:192.0.2.7"},
			wire.Request{Service: "pop3", Remote: "::ffff:192.0.2.7"}},
		{"tcpserver at an odd port", "", []string{"TCPLOCALPORT=1995"}, wire.Request{Service: "checkpassword"}},
		{"nothing told", "", nil, wire.Request{Service: "checkpassword"}},
		{"first of two", "", []string{"SERVICE=imap", "SERVICE=smtp"}, wire.Request{Service: "imap"}},
		{"cut so that it is no service", "", []string{"SERVICE=" + strings.Repeat("s", 70)}, wire.Request{Service: strings.Repeat("s", 65)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got wire.Request
			describe(&got, options{service: c.service}, c.environ)
			if got != c.want {
				t.Errorf("describe(%q) = %+v, want %+v", c.environ, got, c.want)
			}
		})
	}
}

func TestSocketPath(t *testing.T) {
	for _, c := range []struct {
		args, environ []string
		want          string
	}{
		{nil, nil, "/run/valetkey/checkpassword"},
		{nil, []string{"VALETKEY_CHECKPASSWORD_SOCKET=/e"}, "/e"},
		{[]string{"-socket", "/o"}, []string{"VALETKEY_CHECKPASSWORD_SOCKET=/e"}, "/o"},
	} {
		w := &world{environ: c.environ, input: login}
		w.helper().main(append(c.args, "-check", "/prog"))
		if w.socket != c.want {
			t.Errorf("with %q, %q asked at %q, want %q", c.args, c.environ, w.socket, c.want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	dovecot := []string{"ORIG_UID=104", "SERVICE=imap"}
	lookup := append([]string{"AUTHORIZED=1"}, dovecot...)
	credentials := append([]string{"CREDENTIALS_LOOKUP=1", "SCHEME="}, lookup...)
	const named = "alice\x00\x00\x00"
	reply := func(o wire.Outcome) wire.Reply { return wire.Reply{Outcome: o} }
	for _, c := range []struct {
		name  string
		w     world
		check bool
		want  int
		op    wire.Op // that was asked; 0: nobody was
	}{
		{"accepted", world{environ: dovecot, input: login, reply: account}, false, accepted, wire.Login},
		{"accepted, qmail", world{input: login, reply: account}, false, accepted, wire.Login},
		{"accepted, check", world{input: login, reply: account}, true, accepted, wire.Check},
		{"rejected", world{environ: dovecot, input: login, reply: reply(wire.Rejected)}, false, rejected, wire.Login},
		{"rejected, qmail", world{input: login, reply: reply(wire.Rejected)}, false, rejected, wire.Login},
		{"rejected, check", world{input: login, reply: reply(wire.Rejected)}, true, rejected, wire.Check},
		{"undecided", world{environ: dovecot, input: login, reply: reply(wire.Undecided)}, false, undecided, wire.Login},
		{"no such reply to a login", world{environ: dovecot, input: login, reply: reply(wire.Unknown)}, false, undecided, wire.Login},
		{"zero reply", world{environ: dovecot, input: login}, false, undecided, wire.Login},
		{"daemon gone", world{environ: dovecot, input: login, reply: account, askErr: errors.New("gone")}, false, undecided, wire.Login},
		{"program missing", world{environ: dovecot, input: login, reply: account, execErr: syscall.ENOENT}, false, undecided, wire.Login},

		{"lookup", world{environ: lookup, input: named, reply: account}, false, accepted, wire.Userdb},
		{"lookup of nobody", world{environ: lookup, input: named, reply: reply(wire.Unknown)}, false, unknownUser, wire.Userdb},
		{"lookup undecided", world{environ: lookup, input: named, reply: reply(wire.Undecided)}, false, undecided, wire.Userdb},
		{"lookup refused", world{environ: lookup, input: named, reply: reply(wire.Refused)}, false, undecided, wire.Userdb},
		{"lookup rejected", world{environ: lookup, input: named, reply: reply(wire.Rejected)}, false, undecided, wire.Userdb},
		{"credentials lookup", world{environ: credentials, input: named, reply: account}, false, accepted, wire.Credentials},
		{"lookup with a password", world{environ: lookup, input: login, reply: account}, false, misused, 0},
		{"AUTHORIZED is 2 already", world{environ: append([]string{"AUTHORIZED=2"}, dovecot...), input: named, reply: account}, false, misused, 0},
		{"AUTHORIZED is empty", world{environ: append([]string{"AUTHORIZED="}, dovecot...), input: login, reply: account}, false, misused, 0},
		{"AUTHORIZED, but not Dovecot", world{environ: []string{"AUTHORIZED=1"}, input: named, reply: account}, false, misused, 0},
		{"AUTHORIZED and check", world{environ: lookup, input: named, reply: account}, true, misused, 0},

		{"empty password", world{environ: dovecot, input: "alice\x00\x00\x00", reply: account}, false, rejected, 0},
		{"empty login", world{environ: dovecot, input: "\x00pw\x00\x00", reply: reply(wire.Rejected)}, false, rejected, wire.Login},
		{"no timestamp", world{environ: dovecot, input: "a\x00b\x00", reply: reply(wire.Rejected)}, false, rejected, wire.Login},
		{"512 bytes", world{environ: dovecot, input: "a\x00" + strings.Repeat("p", 508) + "\x00\x00", reply: account}, false, accepted, wire.Login},
		{"513 bytes", world{environ: dovecot, input: "a\x00" + strings.Repeat("p", 509) + "\x00\x00", reply: account}, false, rejected, 0},
		{"nothing", world{environ: dovecot, reply: account}, false, misused, 0},
		{"no NUL", world{environ: dovecot, input: "alice", reply: account}, false, misused, 0},
		{"one NUL", world{environ: dovecot, input: "alice\x00secret", reply: account}, false, misused, 0},
		{"no descriptor 3", world{environ: dovecot, readErr: syscall.EBADF, reply: account}, false, misused, 0},
		{"descriptor 3 broken", world{environ: dovecot, readErr: syscall.EIO, reply: account}, false, undecided, 0},
		{"descriptor 3 stays open", world{environ: dovecot, readErr: wire.ErrTimeout, reply: account}, false, undecided, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"/prog", "arg"}
			if c.check {
				args = append([]string{"-check"}, args...)
			}
			w := c.w
			w.uid = 5000
			if got := w.helper().main(args); got != c.want {
				t.Errorf("main() = %d, want %d; it says %q", got, c.want, w.printed)
			}
			var op wire.Op
			if len(w.asked) > 0 {
				op = w.asked[0].Op
			}
			if op != c.op || len(w.asked) > 1 {
				t.Errorf("asked %d times, first %q, want %q", len(w.asked), op, c.op)
			}
			if ran := w.argv != nil && w.execErr == nil; ran != (c.want == accepted) {
				t.Errorf("ran %q with exit status %d", w.argv, c.want)
			}
			if w.argv != nil && !slices.Equal(w.argv, []string{"/prog", "arg"}) {
				t.Errorf("ran %q, want /prog arg", w.argv)
			}
			if said := strings.Join(w.printed, "\n"); strings.Contains(said, "lice") || strings.Contains(said, "secret") {
				t.Errorf("says %q, which holds what the user typed", said)
			}
		})
	}
}

// TestPanicIsUndecided: 2, the status of a crashed Go program, would mean that Dovecot is to blame.
func TestPanicIsUndecided(t *testing.T) {
	w := &world{environ: []string{"ORIG_UID=104"}, input: login}
	h := w.helper()
	h.ask = func(string, wire.Request, time.Time) (wire.Reply, error) { panic("secret") }
	if got := h.main([]string{"/prog"}); got != undecided || !slices.Equal(w.printed, []string{"internal error"}) {
		t.Errorf("main() = %d and says %q after a panic, want %d", got, w.printed, undecided)
	}
}

func TestForDovecot(t *testing.T) {
	inherited := []string{"ORIG_UID=104", "HOME=/root", "PATH=/bin", "USER=dovecot", "EXTRA=nologin", "nologin=1", "USER=again"}
	for _, c := range []struct {
		name   string
		lookup bool
		reply  wire.Reply
		want   []string
	}{
		{"all fields", false, account, []string{"EXTRA=userdb_free userdb_gid userdb_quota_rule userdb_uid", "HOME=/home/alice", "ORIG_UID=104",
			"PATH=/bin", "USER=alice@example.org", "nologin=1", "userdb_free=a b", "userdb_gid=5001", "userdb_quota_rule=*:storage=2G", "userdb_uid=5000"}},
		{"no fields", false, wire.Reply{Outcome: wire.Accepted, User: "bob"}, []string{"ORIG_UID=104", "PATH=/bin", "USER=bob", "nologin=1"}},
		{"a field cannot be a passdb field", false, wire.Reply{Outcome: wire.Accepted, User: "bob", Fields: []wire.Field{{Name: "nopassword", Value: "y"}}},
			[]string{"EXTRA=userdb_nopassword", "ORIG_UID=104", "PATH=/bin", "USER=bob", "nologin=1", "userdb_nopassword=y"}},
		{"lookup", true, wire.Reply{Outcome: wire.Accepted, User: "bob"}, []string{"AUTHORIZED=2", "EXTRA=userdb_user", "ORIG_UID=104", "PATH=/bin",
			"USER=bob", "nologin=1", "userdb_user=bob"}},
		{"lookup of one with a field user", true, wire.Reply{Outcome: wire.Accepted, User: "bob", Fields: []wire.Field{{Name: "user", Value: "robert"}}},
			[]string{"AUTHORIZED=2", "EXTRA=userdb_user", "ORIG_UID=104", "PATH=/bin", "USER=bob", "nologin=1", "userdb_user=robert"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			environ, input := inherited, login
			if c.lookup {
				environ, input = append([]string{"AUTHORIZED=1"}, inherited...), "bob\x00\x00\x00"
			}
			w := &world{environ: environ, input: input, reply: c.reply}
			if got := w.helper().main([]string{"/prog"}); got != accepted {
				t.Fatalf("main() = %d, want 0; it says %q", got, w.printed)
			}
			slices.Sort(w.handed)
			if !slices.Equal(w.handed, c.want) {
				t.Errorf("handed on %q, want %q", w.handed, c.want)
			}
			if w.became != nil || w.home != "" {
				t.Errorf("became %v in %q, want no change: checkpassword-reply insists on ORIG_UID", w.became, w.home)
			}
		})
	}
}

func TestQuotaRule(t *testing.T) {
	for quota, want := range map[string]string{
		"2G": "*:storage=2G", "500m": "*:storage=500M", "1000000": "*:bytes=1000000",
		"*:storage=1G": "*:storage=1G", "2GB": "2GB", "": "", "G": "G", "-1": "-1", "1.5G": "1.5G",
	} {
		if got := quotaRule(quota); got != want {
			t.Errorf("quotaRule(%q) = %q, want %q", quota, got, want)
		}
	}
}

func TestFieldsThatCannotBeHandedOn(t *testing.T) {
	for _, r := range []wire.Reply{
		{Outcome: wire.Accepted, User: "a\tb"},
		{Outcome: wire.Accepted, User: "a\x00b"},
		{Outcome: wire.Accepted, User: "a", Fields: []wire.Field{{Name: "home", Value: "/a\tuid=0"}}},
		{Outcome: wire.Accepted, User: "a", Fields: []wire.Field{{Name: "home", Value: "/a\nx"}}},
		{Outcome: wire.Accepted, User: "a", Fields: []wire.Field{{Name: "x=y", Value: "z"}}},
		{Outcome: wire.Accepted, User: "a", Fields: []wire.Field{{Name: "x y", Value: "z"}}},
		{Outcome: wire.Accepted, User: "a", Fields: []wire.Field{{Name: "", Value: "z"}}},
	} {
		for _, args := range [][]string{{"/prog"}, {"-check", "/prog"}} {
			for _, environ := range [][]string{nil, {"ORIG_UID=104"}} {
				w := &world{environ: environ, input: login, reply: r}
				if got := w.helper().main(args); got != undecided || w.argv != nil {
					t.Errorf("main(%q) with %+v = %d, ran %q, want %d and nothing run", args, r, got, w.argv, undecided)
				}
			}
		}
	}
}

func TestForQmail(t *testing.T) {
	with := func(pairs ...string) wire.Reply {
		r := wire.Reply{Outcome: wire.Accepted, User: "alice"}
		for i := 0; i < len(pairs); i += 2 {
			r.Fields = append(r.Fields, wire.Field{Name: pairs[i], Value: pairs[i+1]})
		}
		return r
	}
	for _, c := range []struct {
		name  string
		uid   int
		reply wire.Reply
		want  int
		ids   []int
		shell string
	}{
		{"root becomes the user", 0, with("uid", "5000", "gid", "5001", "home", "/h"), accepted, []int{5000, 5001}, "/bin/sh"},
		{"shell of the account", 0, with("uid", "5000", "gid", "5001", "home", "/h", "shell", "/bin/false"), accepted, []int{5000, 5001}, "/bin/false"},
		{"root without a uid", 0, with("gid", "5001", "home", "/h"), undecided, nil, ""},
		{"root without a gid", 0, with("uid", "5000", "home", "/h"), undecided, nil, ""},
		{"root stays root", 0, with("uid", "0", "gid", "5001", "home", "/h"), undecided, nil, ""},
		{"root's group", 0, with("uid", "5000", "gid", "0", "home", "/h"), undecided, nil, ""},
		{"uid is a name", 0, with("uid", "vmail", "gid", "5001", "home", "/h"), undecided, nil, ""},
		{"uid is -1", 0, with("uid", "4294967295", "gid", "5001", "home", "/h"), undecided, nil, ""},
		{"root without a home", 0, with("uid", "5000", "gid", "5001"), undecided, nil, ""},
		{"relative home", 0, with("uid", "5000", "gid", "5001", "home", "h"), undecided, nil, ""},
		{"one system user for all", 5000, with("home", "/h"), accepted, nil, "/bin/sh"},
		{"the same user", 5000, with("uid", "5000", "gid", "5001", "home", "/h"), accepted, nil, "/bin/sh"},
		{"another user's account", 5000, with("uid", "5002", "gid", "5001", "home", "/h"), undecided, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{environ: []string{"HOME=/root", "TCPREMOTEIP=::1"}, input: login, reply: c.reply, uid: c.uid}
			if got := w.helper().main([]string{"/prog"}); got != c.want || !slices.Equal(w.became, c.ids) {
				t.Errorf("main() = %d, became %v, want %d, %v; it says %q", got, w.became, c.want, c.ids, w.printed)
			}
			if c.want != accepted {
				if w.argv != nil {
					t.Errorf("ran %q", w.argv)
				}
				return
			}
			slices.Sort(w.handed)
			want := []string{"HOME=/h", "SHELL=" + c.shell, "TCPREMOTEIP=::1", "USER=alice"}
			if !slices.Equal(w.handed, want) || w.home != "/h" {
				t.Errorf("handed on %q in %q, want %q in /h", w.handed, w.home, want)
			}
		})
	}
}

func TestQmailStepsThatFail(t *testing.T) {
	r := wire.Reply{Outcome: wire.Accepted, User: "a", Fields: []wire.Field{{Name: "uid", Value: "5"}, {Name: "gid", Value: "5"}, {Name: "home", Value: "/h"}}}
	for name, breakIt := range map[string]func(*helper){
		"become": func(h *helper) { h.become = func(int, int) error { return syscall.EPERM } },
		"chdir":  func(h *helper) { h.chdir = func(string) error { return syscall.ENOENT } },
	} {
		w := &world{input: login, reply: r}
		h := w.helper()
		breakIt(h)
		if got := h.main([]string{"/prog"}); got != undecided || w.argv != nil {
			t.Errorf("main() with failing %s = %d, ran %q, want %d and nothing run", name, got, w.argv, undecided)
		}
	}
}

func TestSetUserIDIsRefused(t *testing.T) {
	w := &world{input: login, reply: account}
	h := w.helper()
	h.uid = func() (realUID, effective int) { return 1000, 0 }
	if got := h.main([]string{"/prog"}); got != misused || len(w.asked) > 0 || w.argv != nil {
		t.Errorf("main() = %d, asked %d times, ran %q, want %d and nothing done", got, len(w.asked), w.argv, misused)
	}
}

func TestProgramIsFoundInPath(t *testing.T) {
	for _, c := range []struct{ name, path, exists, want string }{
		{"second directory", "/a:/b", "/b/prog", "/b/prog"},
		{"no PATH", "", "/usr/bin/prog", "/usr/bin/prog"},
		{"not in the working directory", ":.:home", "./prog", ""},
		{"nowhere", "/a", "/b/prog", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{environ: []string{"PATH=" + c.path}, input: login, reply: account, canExec: c.exists}
			got := w.helper().main([]string{"-check", "prog"})
			if (got == accepted) != (c.want != "") || w.path != c.want {
				t.Errorf("main() = %d, ran %q, want %q", got, w.path, c.want)
			}
		})
	}
}

func TestPAM(t *testing.T) {
	environ := []string{"PAM_TYPE=auth", "PAM_USER=alice", "PAM_SERVICE=sshd", "PAM_RHOST=192.0.2.7", "VALETKEY_CHECKPASSWORD_SOCKET=/evil"}
	request := wire.Request{Op: wire.Check, User: "alice", Password: "secret", Service: "sshd", Remote: "192.0.2.7"}
	yes, no := wire.Reply{Outcome: wire.Accepted, User: "alice"}, wire.Reply{Outcome: wire.Rejected}
	for _, c := range []struct {
		name string
		w    world
		want int
		r    wire.Request // zero: nobody is asked
	}{
		{"accepted", world{environ: environ, input: "secret\x00", reply: yes}, accepted, request},
		{"password ends with the input", world{environ: environ, input: "secret", reply: yes}, accepted, request},
		{"password ends with the line", world{environ: environ, input: "secret\nmore", reply: yes}, accepted, request},
		{"rejected", world{environ: environ, input: "secret\x00", reply: no}, rejected, request},
		{"undecided", world{environ: environ, input: "secret\x00", reply: wire.Reply{Outcome: wire.Undecided}}, undecided, request},
		{"reply of a lookup", world{environ: environ, input: "secret\x00", reply: wire.Reply{Outcome: wire.Unknown}}, undecided, request},
		{"daemon gone", world{environ: environ, input: "secret\x00", askErr: errors.New("gone")}, undecided, request},
		{"no address, no service", world{environ: environ[:2], input: "secret\x00", reply: yes}, accepted,
			wire.Request{Op: wire.Check, User: "alice", Password: "secret"}},
		{"nothing on standard input", world{environ: environ, reply: yes}, rejected, wire.Request{}},
		{"empty password", world{environ: environ, input: "\x00", reply: yes}, rejected, wire.Request{}},
		{"513 bytes", world{environ: environ, input: strings.Repeat("p", 513), reply: yes}, rejected, wire.Request{}},
		{"standard input broken", world{environ: environ, readErr: syscall.EBADF, reply: yes}, undecided, wire.Request{}},
		{"account line", world{environ: []string{"PAM_TYPE=account", "PAM_USER=alice"}, input: "secret\x00", reply: yes}, misused, wire.Request{}},
		{"not PAM", world{input: "secret\x00", reply: yes}, misused, wire.Request{}},
		{"no user", world{environ: environ[:1], input: "secret\x00", reply: yes}, misused, wire.Request{}},
		{"user chosen by the user", world{environ: environ, raw: append([]string{"PAM_USER=mallory"}, environ...), input: "secret\x00", reply: yes},
			misused, wire.Request{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.w
			if got := w.helper().main([]string{"-pam"}); got != c.want {
				t.Errorf("main(-pam) = %d, want %d; it says %q", got, c.want, w.printed)
			}
			var got wire.Request
			if len(w.asked) > 0 {
				got = w.asked[0]
			}
			if got != c.r {
				t.Errorf("asked %+v, want %+v", got, c.r)
			}
			if w.socket != "" && w.socket != defaultSocket {
				t.Errorf("asked at %s: the environment must not choose the socket in PAM", w.socket)
			}
			if w.argv != nil {
				t.Errorf("ran %q", w.argv)
			}
		})
	}
	w := &world{environ: environ, input: "secret", reply: yes}
	if w.helper().main([]string{"-pam", "-service", "shell"}); len(w.asked) != 1 || w.asked[0].Service != "shell" {
		t.Errorf("asked %+v with -service shell, want that service", w.asked)
	}
}

// FuzzCheckpassword gives any bytes on descriptor 3 to each flavour, with an account that is always accepted. The status
// is one of those that the peers know; nothing runs without an answer to that very login; and what runs next gets
// nothing of what was read.
func FuzzCheckpassword(f *testing.F) {
	f.Add([]byte(login), uint8(0))
	f.Add([]byte("alice\x00\x00\x00"), uint8(2))
	f.Add([]byte("good\x00<32 hex digits>\x00<20976.1795332387@mail.example.org>\x00"), uint8(1))
	f.Fuzz(func(t *testing.T, input []byte, flavour uint8) {
		environ := [][]string{{"ORIG_UID=104"}, nil, {"ORIG_UID=104", "AUTHORIZED=1"}, {"AUTHORIZED=1"}}[flavour%4]
		run := func(reply wire.Reply) (*world, int) {
			w := &world{environ: environ, input: string(input), reply: reply, uid: 5000}
			return w, w.helper().main([]string{"/prog"})
		}
		lookup := flavour%4 == 2
		w, status := run(account)
		switch status {
		case accepted, rejected, misused, undecided:
		default:
			t.Fatalf("status = %d, want one of 0, 1, 2, 111", status)
		}
		if (status == accepted) != (w.argv != nil) {
			t.Errorf("status = %d, ran %q", status, w.argv)
		}
		if w.argv != nil {
			if len(w.asked) != 1 || w.asked[0].Op.Lookup() != lookup || (w.asked[0].Password == "") != lookup {
				t.Errorf("asked %+v, then ran the program", w.asked)
			}
			clean := &world{environ: environ, input: "x\x00y\x00", reply: account, uid: 5000}
			if lookup {
				clean.input = "x\x00\x00"
			}
			clean.helper().main([]string{"/prog"})
			if !slices.Equal(w.handed, clean.handed) {
				t.Errorf("handed on %q, want %q as for any other login", w.handed, clean.handed)
			}
		}
		for _, o := range []wire.Outcome{wire.Rejected, wire.Unknown, wire.Undecided, wire.Refused, 0} {
			w, status := run(wire.Reply{Outcome: o, User: "alice"})
			if status == accepted || w.argv != nil || status == unknownUser && (!lookup || o != wire.Unknown) {
				t.Errorf("status = %d, ran %q after the reply %q", status, w.argv, o)
			}
		}
	})
}
